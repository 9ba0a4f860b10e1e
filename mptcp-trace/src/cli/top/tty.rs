//! Whether the terminal is still there. Who reads keys from one that has gone reads for ever: the library that does it takes
//! the end of the file for a key that is not complete yet.

use std::{
    fs::File,
    io::IsTerminal as _,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
};

use super::screen::give_back;

/// How often the watchdog looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the end may take once the terminal has gone, or a signal came.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// Where keys come from.
pub(super) struct Tty(OwnedFd);

impl Tty {
    /// The terminal that keys are read from: stdin, or the one that controls us.
    pub(super) fn open() -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        let fd = match stdin.is_terminal() {
            true => rustix::io::fcntl_dupfd_cloexec(&stdin, 3).context("stdin is closed")?,
            false => File::open("/dev/tty")
                .context("there is no terminal to read keys from")?
                .into(),
        };
        Ok(Self(fd))
    }

    /// Waits at most `wait` for keys; true if none can come any more.
    pub(super) fn is_gone(&self, wait: Duration) -> bool {
        self.has_hung_up(PollFlags::IN, wait)
    }

    fn has_hung_up(&self, wanted: PollFlags, wait: Duration) -> bool {
        let wait = Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(0),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.0, wanted)];
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        // The caller looks for a signal.
        poll(&mut fds, Some(&wait)).is_ok() && fds[0].revents().intersects(gone)
    }

    /// Ends the program, wherever it hangs, when the terminal has gone or it is told to end and does not.
    pub(super) fn guard(self, is_told_to_end: Arc<AtomicBool>) {
        thread::spawn(move || {
            loop {
                let gone = self.has_hung_up(PollFlags::empty(), LOOK_EVERY);
                if gone || is_told_to_end.load(Ordering::Relaxed) {
                    break;
                }
            }
            thread::sleep(END_TIME_MAX);
            give_back();
            process::exit(0);
        });
    }
}
