//! A program that is traced from its first instruction: `-- COMMAND ARGS`.
//!
//! The child is held between fork and exec until the tracer knows its process id, so that
//! everything it does is observed, and nothing that the tracer does is attributed to it.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process,
    thread::JoinHandle,
};

use anyhow::Context as _;
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use tokio::io::unix::AsyncFd;

use crate::kernel::readable;

/// A child held before its first instruction.
pub struct Held {
    pid: Pid,
    pidfd: OwnedFd,
    go: OwnedFd,
    spawning: JoinHandle<io::Result<process::Child>>,
    name: OsString,
}

/// A running child.
pub struct Command {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    child: process::Child,
}

/// The program could not be started; the exit code is that of a shell.
#[derive(Debug)]
pub struct CannotRun {
    /// 127: not found. 126: found, but cannot be run.
    pub code: u8,
    /// The reason, as a sentence.
    pub why: String,
}

impl Held {
    /// Forks, and holds the child before it executes `command`.
    ///
    /// # Errors
    ///
    /// Fails if no process can be created.
    pub fn new(command: &[OsString]) -> anyhow::Result<Self> {
        let (name, args) = command.split_first().context("no command to run")?;
        let (ready_read, ready_write) =
            pipe_with(PipeFlags::CLOEXEC).context("cannot create a pipe")?;
        let (go_read, go_write) = pipe_with(PipeFlags::CLOEXEC).context("cannot create a pipe")?;
        let mut builder = process::Command::new(name);
        builder.args(args);
        let (ready_fd, go_fd, parents_end) = (
            ready_write.as_raw_fd(),
            go_read.as_raw_fd(),
            go_write.as_raw_fd(),
        );
        let hold = move || {
            let pid = process::id().to_ne_bytes();
            let mut byte = [0_u8; 1];
            // SAFETY: only system calls that are safe after fork, on descriptors that the parent
            // keeps open until spawn() returns. Our copy of the parent's end is closed, so that the
            // parent's death is seen as the end of the pipe.
            let released = unsafe {
                libc::close(parents_end);
                // Ambient capabilities were granted for tracing (or there are none, or the kernel
                // does not support them).
                libc::prctl(
                    libc::PR_CAP_AMBIENT,
                    libc::PR_CAP_AMBIENT_CLEAR_ALL,
                    0,
                    0,
                    0,
                );
                libc::write(ready_fd, pid.as_ptr().cast(), pid.len()) == pid.len().cast_signed()
                    && libc::read(go_fd, byte.as_mut_ptr().cast(), 1) == 1
            };
            if released {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ECANCELED))
            }
        };
        // SAFETY: `hold` does not allocate and takes no lock.
        unsafe { builder.pre_exec(hold) };
        // spawn() returns only after exec, so it waits on a thread of its own meanwhile.
        let spawning = std::thread::Builder::new()
            .name("spawn".into())
            .spawn(move || {
                let child = builder.spawn();
                drop((ready_write, go_read));
                child
            })
            .context("cannot start a thread")?;
        let mut pid = [0; 4];
        let got =
            rustix::io::read(&ready_read, &mut pid).context("cannot receive from the child")?;
        if got != pid.len() {
            // fork itself failed: spawn() has the reason.
            let why = spawning.join().map(Result::err);
            anyhow::bail!("cannot create a process for {}: {why:?}", name.display());
        }
        let pid = Pid::from_raw(i32::from_ne_bytes(pid)).context("the child has no process ID")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the child")?;
        Ok(Self {
            pid,
            pidfd,
            go: go_write,
            spawning,
            name: name.clone(),
        })
    }

    /// Process id of the child, and of the program that it becomes.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Lets the child execute its program.
    ///
    /// # Errors
    ///
    /// [`CannotRun`] if there is no such program.
    pub fn release(self) -> anyhow::Result<Result<Command, CannotRun>> {
        let Self {
            pid,
            pidfd,
            go,
            spawning,
            name,
        } = self;
        rustix::io::write(&go, &[1]).context("cannot release the child")?;
        let child = spawning
            .join()
            .map_err(|_panic| anyhow::anyhow!("the thread that starts the command panicked"))?;
        match child {
            Ok(child) => {
                let pidfd = readable(pidfd).context("cannot wait for the command")?;
                Ok(Ok(Command { pid, pidfd, child }))
            }
            Err(why) => {
                let code = if why.kind() == io::ErrorKind::NotFound {
                    127
                } else {
                    126
                };
                let why = format!("cannot run {}: {why}", name.display());
                Ok(Err(CannotRun { code, why }))
            }
        }
    }
}

impl Command {
    /// Waits for its end; returns its exit code, or 128 plus the number of the signal that ended
    /// it.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not report how it ended.
    pub async fn wait(&mut self) -> anyhow::Result<i32> {
        let _ended = self
            .pidfd
            .readable()
            .await
            .context("cannot wait for the command")?;
        let status = self
            .child
            .wait()
            .context("cannot determine how the command ended")?;
        Ok(status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
    }

    /// Passes SIGTERM on.
    pub fn terminate(&self) {
        if let Err(why) = kill_process(self.pid, Signal::TERM) {
            log::warn!("cannot forward SIGTERM to the command: {why}");
        }
    }
}
