//! An output file that is complete, or does not exist.

use std::{
    fs::{self, File},
    io::{self, Seek as _, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::files::{self, folder};
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
    /// Devices and pipes are written to, not replaced.
    Special(File),
    /// A file without a name: if the program is killed, nothing is left.
    Regular {
        content: File,
        target: PathBuf,
    },
}

impl Output {
    /// The path of the file that will be written, before the sandbox makes others inaccessible.
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
            return Ok(Self {
                to: To::Stdout,
                name: "standard output".to_owned(),
                size: 0,
            });
        }
        let name = output.display().to_string();
        let target = files::place(output)?;
        let create = || -> io::Result<To> {
            if fs::metadata(&target).is_ok_and(|it| !it.is_file() && !it.is_dir()) {
                return Ok(To::Special(File::options().write(true).open(&target)?));
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

    /// Completes the file; returns the name of the destination and the size in bytes.
    ///
    /// # Errors
    ///
    /// Reports why it cannot be written.
    pub(super) fn commit(mut self) -> anyhow::Result<(String, u64)> {
        self.flush().context("cannot write")?;
        if let To::Regular { content, target } = &mut self.to {
            replace(target, content)
                .map_err(|why| unnamed(&why))
                .with_context(|| format!("cannot write {}", self.name))?;
        }
        Ok((self.name, self.size))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            To::Stdout => match io::stdout().lock().write(bytes) {
                // The reader has seen enough: this is not a failure.
                Err(why) if why.kind() == io::ErrorKind::BrokenPipe => bytes.len(),
                other => other?,
            },
            To::Special(file) | To::Regular { content: file, .. } => file.write(bytes)?,
        };
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Stdout => match io::stdout().lock().flush() {
                Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                other => other,
            },
            To::Special(file) | To::Regular { content: file, .. } => file.flush(),
        }
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
