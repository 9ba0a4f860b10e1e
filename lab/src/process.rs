//! Child processes: this program with another subcommand, and programs that must not outlive their
//! user.

use std::{
    fs,
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::wait::Patience;

/// This program, with one of its subcommands.
pub(crate) fn own(verb: &str) -> anyhow::Result<Command> {
    let me = std::env::current_exe().context("cannot find the path of this program")?;
    let mut command = Command::new(me);
    command.arg(verb).stdin(Stdio::null());
    Ok(command)
}

/// Fails unless the program succeeded.
pub(crate) fn succeeded(name: &str, status: ExitStatus) -> anyhow::Result<()> {
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}

/// Runs a program to its end, which must succeed; parses the JSON lines on its stdout.
pub(crate) fn lines_of<T: DeserializeOwned>(
    name: &str,
    command: &mut Command,
) -> anyhow::Result<Vec<T>> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    succeeded(name, output.status)?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("{name} says {line:?}")))
        .collect()
}

/// Whether a program is installed.
pub(crate) fn is_in_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).exists())
    })
}

/// A running program; dropping it kills it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn();
        child
            .map(Self)
            .with_context(|| format!("cannot run {name}"))
    }

    /// None if the program is not installed.
    pub(crate) fn if_installed(name: &str, command: &mut Command) -> anyhow::Result<Option<Self>> {
        match command.spawn() {
            Ok(child) => Ok(Some(Self(child))),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why).with_context(|| format!("cannot run {name}")),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.0), signal).context("cannot signal a program")
    }

    /// How it ended; none if it has not.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.0.try_wait().context("cannot wait for a program")
    }

    /// Waits for its end; none at the timeout.
    pub(crate) fn wait(&mut self, patience: Patience) -> anyhow::Result<Option<ExitStatus>> {
        patience.until(|| self.ended())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Usually it has ended already. SIGKILL also ends a stopped process.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Resident memory of a process, in KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) resident_kb: u64,
    pub(crate) peak_kb: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let status = Status::of(pid)?;
        Ok(Self {
            resident_kb: status.number("VmRSS:")?,
            peak_kb: status.number("VmHWM:")?,
        })
    }
}

/// `/proc/PID/status`.
pub(crate) struct Status(String);

impl Status {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let file = format!("/proc/{pid}/status");
        fs::read_to_string(&file)
            .map(Self)
            .with_context(|| format!("cannot read {file}"))
    }

    /// The number in a line that begins like this; KiB, if it is a size.
    pub(crate) fn number(&self, name: &str) -> anyhow::Result<u64> {
        Ok(self.word(name)?.parse()?)
    }

    /// The bits in a line that begins like this.
    pub(crate) fn hexadecimal(&self, name: &str) -> anyhow::Result<u64> {
        Ok(u64::from_str_radix(self.word(name)?, 16)?)
    }

    fn word(&self, name: &str) -> anyhow::Result<&str> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next())
            .with_context(|| format!("the status of a process does not contain {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kilobytes() {
        let status =
            Status("Name:\tx\nVmHWM:\t   52932 kB\nVmRSS:\t   50352 kB\nCapEff:\t00000a\n".into());
        assert_eq!(status.hexadecimal("CapEff:").unwrap(), 10);
        assert_eq!(status.number("VmRSS:").unwrap(), 50_352);
        assert_eq!(status.number("VmHWM:").unwrap(), 52_932);
        assert!(status.number("Threads:").is_err());
    }
}
