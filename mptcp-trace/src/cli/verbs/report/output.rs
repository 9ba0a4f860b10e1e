//! The file that a report becomes: complete, or not at all.

use std::{
    fs::{self, File},
    io::{self, Seek as _, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{bundle::unnamed, cli::files};

/// `--output` value for stdout.
pub(super) const STDOUT: &str = "-";

/// Takes the content of a report.
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
    // A report names processes and addresses: a new file is readable by its owner only; an existing
    // one keeps its mode.
    let mode = fs::metadata(target).map_or(0o600, |there| there.mode() & 0o777);
    let mut file = tempfile::Builder::new()
        .prefix(".mptcp-trace-report-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(folder(target))?;
    content.rewind()?;
    io::copy(content, file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(target).map_err(|why| why.error)?;
    Ok(())
}

/// Directory of a file.
pub(super) fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
