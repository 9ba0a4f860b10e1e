//! Reads keys and resize events on a thread that does nothing else: the library loses a key that
//! arrives together with a resize unless it is already waiting. Another thread detects when the
//! terminal closes, since the library takes that for an incomplete key and reads forever.

use std::{fs::File, io::IsTerminal as _, thread};

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::OwnedFd,
    io::Errno,
};

/// Passes every key and resize event to `take`, and `None` once the terminal is closed, until
/// `take` returns false.
///
/// # Errors
///
/// Fails if there is no terminal to read keys from.
pub(super) fn listen(
    mut take: impl FnMut(Option<Event>) -> bool + Clone + Send + 'static,
) -> anyhow::Result<()> {
    let terminal = terminal()?;
    let mut gone = take.clone();
    thread::spawn(move || {
        wait_for_hangup(&terminal);
        gone(None);
    });
    thread::spawn(move || while take(event::read().ok()) {});
    Ok(())
}

/// The terminal that keys are read from: stdin, or the controlling terminal of this process.
fn terminal() -> anyhow::Result<OwnedFd> {
    let stdin = std::io::stdin();
    Ok(match stdin.is_terminal() {
        true => rustix::io::fcntl_dupfd_cloexec(&stdin, 3).context("stdin is closed")?,
        false => File::open("/dev/tty")
            .context("no terminal to read keys from")?
            .into(),
    })
}

fn wait_for_hangup(terminal: &OwnedFd) {
    // No event is requested: poll() reports errors and the hangup in any case.
    let mut fds = [PollFd::new(terminal, PollFlags::empty())];
    while poll(&mut fds, None) == Err(Errno::INTR) {}
}
