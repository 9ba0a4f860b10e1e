//! Output on stdout: a closed one is an error, a reader that goes away is not.

use std::io::{self, Write as _};

use anyhow::{Context as _, ensure};

use crate::host::system::stdout_was_closed;

/// Refuses a stdout that was closed at start: output would be lost.
///
/// # Errors
///
/// Says that.
pub(super) fn check() -> anyhow::Result<()> {
    ensure!(
        !stdout_was_closed(),
        "cannot write to stdout: it is closed; for no output: >/dev/null"
    );
    Ok(())
}

/// Prints text.
///
/// # Errors
///
/// Fails if it cannot be written, unless its reader has gone.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    check()?;
    done(io::stdout().lock().write_all(text.as_bytes()))
}

/// What was written reaches its reader, or the reader has gone.
///
/// # Errors
///
/// Fails if it cannot be written.
pub(super) fn done(written: io::Result<()>) -> anyhow::Result<()> {
    match written.and_then(|()| io::stdout().lock().flush()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => {
            Err(why).context("cannot write to stdout")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
