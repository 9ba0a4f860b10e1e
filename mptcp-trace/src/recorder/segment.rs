//! A segment that is being written. After a failed write, the file ends with its last complete
//! frame.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use crate::{
    capture::{Checkpoint, Frame, Writer},
    model::{Facts, LossReport},
};

/// A write of that many bytes is not delayed until the next flush.
const BUFFER_BYTES: usize = 64 * 1024;

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    /// Complete frames that are not in the file yet.
    buffer: Vec<u8>,
    /// Number of records among them.
    buffered: u64,
    /// Bytes in the file.
    written: u64,
    /// Losses when it began.
    pub(super) base: LossReport,
}

/// A write has failed: the buffered records are lost.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) why: io::Error,
    pub(super) records: u64,
}

impl Segment {
    pub(super) fn new(
        (path, file): (PathBuf, File),
        facts: &Facts,
        base: LossReport,
    ) -> io::Result<Self> {
        let mut buffer = Vec::with_capacity(2 * BUFFER_BYTES);
        Writer::new(&mut buffer, facts)?;
        Ok(Self {
            path,
            file,
            buffer,
            buffered: 0,
            written: 0,
            base,
        })
    }

    /// Adds a frame; returns the number of records that were written to the file because of it.
    pub(super) fn add(&mut self, frame: &Frame) -> Result<u64, Failed> {
        let added = Writer::continued(&mut self.buffer).add(frame);
        self.buffered += u64::from(matches!(frame, Frame::Record(_)));
        self.added(added)
    }

    pub(super) fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<u64, Failed> {
        let added = Writer::continued(&mut self.buffer).checkpoint(checkpoint);
        self.added(added)
    }

    fn added(&mut self, added: io::Result<()>) -> Result<u64, Failed> {
        if let Err(why) = added {
            return Err(self.failed(why));
        }
        match self.buffer.len() < BUFFER_BYTES {
            true => Ok(0),
            false => self.flush(),
        }
    }

    /// Writes what is buffered; returns its number of records.
    pub(super) fn flush(&mut self) -> Result<u64, Failed> {
        if self.buffer.is_empty() {
            return Ok(0);
        }
        if let Err(why) = self.file.write_all(&self.buffer) {
            // The frame that was cut would be followed by nothing, but its records count as lost.
            let _stays = self.file.set_len(self.written);
            return Err(self.failed(why));
        }
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(2 * BUFFER_BYTES);
        Ok(std::mem::take(&mut self.buffered))
    }

    fn failed(&mut self, why: io::Error) -> Failed {
        self.buffer.clear();
        Failed {
            why,
            records: std::mem::take(&mut self.buffered),
        }
    }

    /// Size of the file, with what is buffered.
    pub(super) fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// True if the file is still there: a write to one that was removed does not fail.
    pub(super) fn exists(&self) -> bool {
        let Ok(ours) = self.file.metadata() else {
            return false;
        };
        fs::symlink_metadata(&self.path)
            .is_ok_and(|it| (it.dev(), it.ino()) == (ours.dev(), ours.ino()))
    }

    /// Removes it: it holds nothing that is worth reading.
    pub(super) fn remove(self) {
        if self.exists() {
            let _stays = fs::remove_file(&self.path);
        }
    }
}
