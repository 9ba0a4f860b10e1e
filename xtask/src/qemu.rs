//! Boots one virtual machine with two serial ports and a deadline, and reports how it ended.
//!
//! The first port is the console and goes to a log file. The second carries commands in and results
//! out, line by line. Init sends a line when it is ready for the first command, and a line with the
//! exit code at the end of each command and of the whole job.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::{architecture::Architecture, command, emulator::Emulator};

/// Most console lines shown when a machine fails.
const CONSOLE_TAIL_LINES_MAX: usize = 40;
/// Extra time for booting and powering off in software emulation.
const BOOT_TIME_MAX: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A machine to boot.
pub(crate) struct Machine<'a> {
    pub(crate) emulator: &'a Emulator,
    pub(crate) image: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) console_log: PathBuf,
    /// Time limit of a command inside the machine. Init enforces it, and QEMU is killed a little
    /// later.
    pub(crate) command_time_max: Duration,
    pub(crate) clock: Clock,
    /// More kernel parameters.
    pub(crate) append: &'a str,
}

/// The clock inside the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Wall-clock time.
    #[default]
    Real,
    /// One nanosecond per instruction of the only processor, and sleeping takes no time:
    /// measurements are repeatable.
    Instructions,
}

impl Clock {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Real => &["-smp", "2"],
            Self::Instructions => &["-smp", "1", "-icount", "shift=0,sleep=off"],
        }
    }
}

/// A message of the running machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// It has booted, and is ready for the first command.
    Ready,
    /// An output line of the running command.
    Line(&'a str),
    /// The command ended with this exit code; the machine is ready for the next one.
    Ended(i64),
    /// The whole job ended with this exit code.
    Exit(i64),
}

/// How a machine ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The job ended with this exit code, and the machine powered off.
    Job(i64),
    /// The machine stopped without reporting the job's result: a panic, or a reset.
    Silent,
    /// QEMU was killed at the deadline.
    TimedOut,
}

impl Machine<'_> {
    /// Boots the machine, passes its messages to `on_said`, and waits for the end. When the machine
    /// is ready for a command, `on_said` returns it as a program with arguments, or `None` to power
    /// off. Otherwise its return value is ignored.
    pub(crate) fn boot(
        &self,
        mut on_said: impl FnMut(&Said) -> Option<Vec<String>>,
    ) -> Result<Ended> {
        let mut child = self.qemu().spawn().context("cannot start QEMU")?;
        let results = child
            .stdout
            .take()
            .ok_or_else(|| anyhow!("qemu has no stdout"))?;
        let mut orders = child
            .stdin
            .take()
            .ok_or_else(|| anyhow!("qemu has no stdin"))?;
        let complaints = child
            .stderr
            .take()
            .ok_or_else(|| anyhow!("qemu has no stderr"))?;
        let complaints = thread::spawn(move || std::io::read_to_string(complaints));

        let deadline = Arc::new(Mutex::new(Instant::now() + BOOT_TIME_MAX));
        let (watchdog, timed_out) = watch(child, Arc::clone(&deadline));
        let mut exit_code = None;
        let mut reader = BufReader::new(results);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .context("cannot read what the machine says")?
            > 0
        {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            match said(text) {
                Said::Exit(code) => exit_code = Some(code),
                said @ Said::Line(_) => {
                    on_said(&said);
                }
                said @ (Said::Ready | Said::Ended(_)) => {
                    let order = on_said(&said).unwrap_or_default();
                    let limit = Instant::now() + self.command_time_max + BOOT_TIME_MAX;
                    *deadline.lock().unwrap_or_else(PoisonError::into_inner) = limit;
                    let order = serde_json::to_string(&order).context("cannot write an order")?;
                    // A failed write means that the machine is gone; the end of its output reports
                    // that.
                    let _gone = writeln!(orders, "{order}").and_then(|()| orders.flush());
                }
            }
            line.clear();
        }
        let status = watchdog
            .join()
            .map_err(|_| anyhow!("the thread that watches qemu panicked"))?
            .context("cannot wait for qemu")?;
        if !status.success() && !timed_out.load(Ordering::Acquire) {
            let said = complaints
                .join()
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default();
            return Err(anyhow!(
                "qemu {} while booting {}: {}",
                command::describe(status),
                self.image.display(),
                said.trim()
            ));
        }
        Ok(match exit_code {
            Some(code) => Ended::Job(code),
            None if timed_out.load(Ordering::Acquire) => Ended::TimedOut,
            None => Ended::Silent,
        })
    }

    fn qemu(&self) -> Command {
        let hardware = hardware(self.emulator.architecture());
        let mut qemu = self.emulator.command();
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args(["-m", "1G"])
        .args(hardware.machine)
        .args(self.clock.options())
        // Use software emulation even if /dev/kvm exists: it behaves the same on every host, and
        // nested virtualisation, which CI machines have, breaks in many ways. Emulate both
        // processors in one thread. With a thread for each, a kernel that patched its own code (a
        // static key, when a tracepoint was enabled) once panicked: one processor hit a breakpoint
        // that the other had already removed, which hardware does not do.
        .args(["-accel", "tcg,thread=single"])
        .arg("-kernel")
        .arg(self.image)
        .arg("-initrd")
        .arg(self.initramfs)
        // A panic resets the machine, and -no-reboot turns that into an exit instead of a hang.
        .arg("-append")
        .arg(format!(
            "console={} quiet panic=-1 {}",
            hardware.console, self.append
        ))
        .arg("-serial")
        .arg(format!("file:{}", self.console_log.display()))
        .args(["-chardev", "stdio,id=results"])
        .args(hardware.results)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
        qemu
    }

    /// The last console lines, from the kernel and the job's stderr.
    pub(crate) fn console_tail(&self) -> String {
        let log = fs::read(&self.console_log).unwrap_or_default();
        command::last_lines(&String::from_utf8_lossy(&log), CONSOLE_TAIL_LINES_MAX)
    }
}

/// What differs between the architectures.
struct Hardware {
    /// QEMU's options for board and processor.
    machine: &'static [&'static str],
    /// The kernel's name of the first serial port.
    console: &'static str,
    /// QEMU's options for the second serial port.
    results: &'static [&'static str],
}

const fn hardware(architecture: Architecture) -> Hardware {
    match architecture {
        // Disable ERMS and FSRM: with them the kernel copies and clears byte by byte, each an
        // emulated step.
        Architecture::X86_64 => Hardware {
            machine: &["-cpu", "max,-erms,-fsrm"],
            console: "ttyS0",
            results: &["-serial", "chardev:results"],
        },
        // `-cpu max` takes three times as long to boot: it emulates pointer authentication.
        Architecture::Aarch64 => Hardware {
            machine: &["-M", "virt", "-cpu", "neoverse-n1"],
            console: "ttyAMA0",
            results: &["-device", "pci-serial,chardev=results"],
        },
    }
}

type Watchdog = thread::JoinHandle<std::io::Result<std::process::ExitStatus>>;

/// Waits for QEMU in a thread, kills it at the deadline, and reports whether it did.
fn watch(mut child: Child, deadline: Arc<Mutex<Instant>>) -> (Watchdog, Arc<AtomicBool>) {
    let timed_out = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&timed_out);
    let watchdog = thread::spawn(move || {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= *deadline.lock().unwrap_or_else(PoisonError::into_inner) {
                flag.store(true, Ordering::Release);
                child.kill()?;
                return child.wait();
            }
            thread::sleep(POLL_INTERVAL);
        }
    });
    (watchdog, timed_out)
}

/// Distinguishes init's own lines from those of the job.
fn said(line: &str) -> Said<'_> {
    if line == READY {
        return Said::Ready;
    }
    code(line, "exit")
        .map(Said::Exit)
        .or_else(|| code(line, "ended").map(Said::Ended))
        .unwrap_or(Said::Line(line))
}

/// Init's first line.
const READY: &str = r#"{"type":"ready","data":{}}"#;

fn code(line: &str, kind: &str) -> Option<i64> {
    let value: Value = serde_json::from_str(line).ok()?;
    (value.get("type")? == kind).then(|| value.get("data")?.get("code")?.as_i64())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_inits_own_lines_tell_a_code() {
        for (line, want) in [
            (r#"{"type":"exit","data":{"code":3}}"#, Some(Said::Exit(3))),
            (r#"{"type":"ready","data":{}}"#, Some(Said::Ready)),
            (
                r#"{"type":"ended","data":{"code":1}}"#,
                Some(Said::Ended(1)),
            ),
            (r#"{"type":"cell","data":{"code":3}}"#, None),
            ("exit 3", None),
        ] {
            assert_eq!(said(line), want.unwrap_or(Said::Line(line)));
        }
    }
}
