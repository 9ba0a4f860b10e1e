//! An output file that is complete, or does not exist.

use std::{
    fs::{self, File},
    io::{self, Seek as _, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    ending::READER_GONE,
    files::{self, End, folder},
    stdout,
};
use crate::bundle::unnamed;

/// `--output` value for stdout.
const STDOUT: &str = "-";

/// Takes the content of a file, or of stdout.
pub(super) struct Output {
    to: To,
    /// Name of the destination, for messages.
    name: String,
    /// Bytes written so far.
    size: u64,
}

enum To {
    Stdout,
    /// Devices, pipes and descriptors of processes are written to, not replaced.
    Special(File),
    /// The reader closed the pipe: it has seen enough.
    Nobody,
    /// A file without a name: if the program is killed, nothing is left.
    Regular {
        content: File,
        target: PathBuf,
    },
}

impl Output {
    /// The path of what will be written, before the sandbox makes others inaccessible.
    ///
    /// # Errors
    ///
    /// Reports why it cannot be written.
    pub(super) fn place(output: &Path) -> anyhow::Result<PathBuf> {
        match output == Path::new(STDOUT) {
            true => Ok(output.to_owned()),
            false => files::place(output),
        }
    }

    /// Prepares the destination; existing content stays until [`Self::commit`].
    ///
    /// # Errors
    ///
    /// Reports why it cannot be written.
    pub(super) fn create(output: &Path) -> anyhow::Result<Self> {
        if output == Path::new(STDOUT) {
            stdout::check()?;
            return Ok(Self {
                to: To::Stdout,
                name: "standard output".to_owned(),
                size: 0,
            });
        }
        let name = output.display().to_string();
        let (target, is_descriptor) =
            match files::end_of_links(output).with_context(|| format!("cannot write to {name}"))? {
                End::Path(path) => (path, false),
                End::OfProcess(path) => (path, true),
            };
        let create = || -> io::Result<To> {
            if is_descriptor && files::leads_to_stdout(&target) {
                return Ok(To::Stdout);
            }
            let is_special = |it: fs::Metadata| !it.is_file() && !it.is_dir();
            if is_descriptor || fs::metadata(&target).is_ok_and(is_special) {
                // What is in a file that somebody else has opened stays.
                let mut options = File::options();
                return Ok(To::Special(options.append(true).open(&target)?));
            }
            let content = tempfile::tempfile_in(folder(&target))?;
            Ok(To::Regular {
                content,
                target: target.clone(),
            })
        };
        let to = create()
            .map_err(|why| unnamed(&why))
            .with_context(|| format!("cannot write {name}"))?;
        Ok(Self { to, name, size: 0 })
    }

    /// Completes the file; returns what was written.
    ///
    /// # Errors
    ///
    /// Reports why it cannot be written.
    pub(super) fn commit(mut self) -> anyhow::Result<Delivered> {
        self.flush().context("cannot write")?;
        if let To::Regular { content, target } = &mut self.to {
            replace(target, content)
                .map_err(|why| unnamed(&why))
                .with_context(|| format!("cannot write {}", self.name))?;
        }
        Ok(Delivered {
            name: self.name,
            size: self.size,
            reader_has_gone: matches!(self.to, To::Nobody),
        })
    }

    /// A closed pipe is not a failure: the rest is discarded.
    fn unless_closed<T>(&mut self, done: io::Result<T>, discarded: T) -> io::Result<T> {
        match done {
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => {
                self.to = To::Nobody;
                Ok(discarded)
            }
            other => other,
        }
    }
}

/// What was written.
pub(super) struct Delivered {
    /// Name of the destination.
    pub(super) name: String,
    /// Number of bytes.
    pub(super) size: u64,
    /// The reader closed the pipe before the end.
    pub(super) reader_has_gone: bool,
}

impl Delivered {
    /// For messages: how much of which destination was written.
    pub(super) fn described(&self) -> String {
        match self.reader_has_gone {
            true => format!("a part of {} ({READER_GONE})", self.name),
            false => self.name.clone(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            To::Nobody => return Ok(bytes.len()),
            To::Stdout => io::stdout().lock().write(bytes),
            To::Special(file) | To::Regular { content: file, .. } => file.write(bytes),
        };
        if let Ok(written) = &written {
            self.size += *written as u64;
        }
        self.unless_closed(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = match &mut self.to {
            To::Nobody => return Ok(()),
            To::Stdout => io::stdout().lock().flush(),
            To::Special(file) | To::Regular { content: file, .. } => file.flush(),
        };
        self.unless_closed(flushed, ())
    }
}

/// Gives the target this content, in one step.
fn replace(target: &Path, content: &mut File) -> io::Result<()> {
    // What it holds may name processes and addresses: a new file is readable by its owner only; an
    // existing one keeps its mode.
    let mode = fs::metadata(target).map_or(0o600, |there| there.mode() & 0o777);
    let mut file = tempfile::Builder::new()
        .prefix(".mptcp-trace-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(folder(target))?;
    content.rewind()?;
    io::copy(content, file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(target).map_err(|why| why.error)?;
    Ok(())
}
