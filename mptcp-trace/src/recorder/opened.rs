//! The segments of a recording, opened for reading, and the runs of the recorder that wrote them.

use std::{
    fs::File,
    io::{BufReader, ErrorKind},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow, bail};

use super::{
    folder::{self, Segment, segments},
    places::at,
};
use crate::{
    capture::{Checkpoint, Frame, Reader, Step},
    decode::decode,
    model::Facts,
};

/// A segment whose begin was read.
pub(super) struct Opened {
    pub(super) segment: Segment,
    pub(super) reader: Reader<BufReader<File>>,
    pub(super) facts: Facts,
    pub(super) head: Checkpoint,
    pub(super) begins: SystemTime,
}

/// The segments that can be read, oldest first, and the number of the newest one, if that cannot be.
pub(super) fn opened(
    folder: &Path,
    is_recorded: bool,
    notes: &mut Vec<String>,
) -> anyhow::Result<(Vec<Opened>, Option<u64>)> {
    let found = match segments(folder) {
        Ok(found) => found,
        Err(why) if why.kind() == ErrorKind::NotFound => bail!(no_recording(folder)),
        Err(why) if why.kind() == ErrorKind::PermissionDenied => {
            return Err(anyhow!(why).context(format!(
                "cannot read the recording in {}, which is for its owner only (try sudo)",
                folder.display()
            )));
        }
        Err(why) => {
            let what = format!("cannot read the recording in {}", folder.display());
            return Err(anyhow!(why).context(what));
        }
    };
    let mut all = Vec::new();
    let newest = found.last().map(|it| it.number);
    let mut broken = None;
    for segment in found {
        let (name, number) = (segment.path.display().to_string(), segment.number);
        let path = segment.path.clone();
        let (is_newest, is_file) = (newest == Some(number), segment.is_file);
        match open(segment) {
            Ok(Some(opened)) => all.push(opened),
            // Removed since, or just begun.
            Ok(None) if !path.exists() || is_newest && is_recorded => {}
            Ok(None) => {
                notes.push(format!("{name} is cut off: all of it is missing"));
                broken = is_newest.then_some(number);
            }
            Err(why) => {
                notes.push(format!("{name} is left out: {why:#}"));
                broken = (is_newest && is_file).then_some(number);
            }
        }
    }
    Ok((all, broken))
}

fn open(segment: Segment) -> anyhow::Result<Option<Opened>> {
    let file = match folder::open_file(&segment.path) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let (mut reader, facts) = match Reader::open(BufReader::new(file)) {
        Err(crate::capture::OpenError::Empty | crate::capture::OpenError::CutOff) => {
            return Ok(None);
        }
        opened => opened?,
    };
    let head = match reader.next_step()? {
        Step::Checkpoint(head) => *head,
        Step::Frame(Frame::CutOff) => return Ok(None),
        Step::Frame(_) => bail!("it is not a segment of a recording"),
    };
    let begins = UNIX_EPOCH
        .checked_add(facts.boot_epoch)
        .and_then(|it| it.checked_add(head.at))
        .context("its time is impossible")?;
    Ok(Some(Opened {
        segment,
        reader,
        facts,
        head,
        begins,
    }))
}

/// When the first record happened that was written to a segment, if that is before it was begun: a
/// burst is written after it happened.
pub(super) fn begin_of(opened: &Opened) -> SystemTime {
    let first = || {
        let file = folder::open_file(&opened.segment.path).ok()?;
        let (mut reader, facts) = Reader::open(BufReader::new(file)).ok()?;
        let mut checkpoints = 0;
        loop {
            match reader.next_step().ok()? {
                Step::Checkpoint(_) => checkpoints += 1,
                Step::Frame(Frame::End(_) | Frame::CutOff) => return None,
                Step::Frame(Frame::Record(bytes)) if checkpoints > 1 => {
                    if let Some(at) = decode(&bytes, &facts).ok().and_then(|it| at(&it)) {
                        return UNIX_EPOCH.checked_add(facts.boot_epoch)?.checked_add(at);
                    }
                }
                Step::Frame(_) => {}
            }
        }
    };
    first().map_or(opened.begins, |first| first.min(opened.begins))
}

/// One run of the recorder.
pub(super) struct Run {
    pub(super) number: u64,
    pub(super) begins: SystemTime,
    pub(super) ends: SystemTime,
}

/// The runs, oldest first; the last one goes on until `now`, if it is still being written.
pub(super) fn runs(all: &[Opened], now: Option<SystemTime>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for opened in all {
        let Segment {
            run, written_at, ..
        } = opened.segment;
        match runs.last_mut().filter(|it| it.number == run) {
            Some(known) => known.ends = written_at,
            None => runs.push(Run {
                number: run,
                begins: begin_of(opened),
                ends: written_at,
            }),
        }
    }
    if let (Some(last), Some(now)) = (runs.last_mut(), now) {
        last.ends = now;
    }
    runs
}

pub(super) fn no_recording(folder: &Path) -> String {
    format!(
        "there is no recording in {}: mptcp-trace serve --keep SIZE, or live --keep SIZE, makes one \
         (--keep-dir)",
        folder.display()
    )
}
