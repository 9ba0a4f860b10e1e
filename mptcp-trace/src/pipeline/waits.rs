//! What the event loop waits for, beside records.

use tokio::signal::unix::Signal;

use super::{Command, EndOf, Watched};

/// True if stdout is a pipe or a socket without a reader.
pub(super) fn reader_has_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = rustix::stdio::stdout();
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Errors are reported without being requested.
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
}

/// Waits for a signal; forever if it is not handled.
pub(super) async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Index of the first process that has ended.
pub(super) async fn ended(processes: &[Watched]) -> std::io::Result<usize> {
    use std::{future::poll_fn, task::Poll};
    poll_fn(|context| {
        for (index, process) in processes.iter().enumerate() {
            if let EndOf::Ours(pidfd) = &process.end
                && let Poll::Ready(ready) = pidfd.poll_read_ready(context)
            {
                return Poll::Ready(ready.map(|_guard| index));
            }
        }
        Poll::Pending
    })
    .await
}

pub(super) async fn command_end(command: Option<&mut Command>) -> anyhow::Result<i32> {
    match command {
        Some(command) => command.wait().await,
        None => std::future::pending().await,
    }
}
