//! What runs alongside the caller: nothing, the tracer, or a bpftrace script.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::Args;
use crate::{
    bench::{Call, Measured},
    beside::{Memory, uncapped},
    scratch::scratch,
};

/// Prints one line per query.
const PRINTING: &str = "\
tracepoint:syscalls:sys_enter_getsockopt /args->level == 6 && args->optname == 43/ { @t[tid] = nsecs; }
tracepoint:syscalls:sys_exit_getsockopt /@t[tid]/ {
  printf(\"%d %d %s %d %d\\n\", nsecs, pid, comm, args->ret, nsecs - @t[tid]); delete(@t[tid]); }
";
/// Counts queries by process and result.
const COUNTING: &str = "\
tracepoint:syscalls:sys_enter_getsockopt /args->level == 6 && args->optname == 43/ { @q[tid] = 1; }
tracepoint:syscalls:sys_exit_getsockopt /@q[tid]/ { @[pid, comm, args->ret] = count(); delete(@q[tid]); }
";

/// Timeout for the start of a tracer.
const START_MAX: Duration = Duration::from_secs(20);

/// Something to run alongside the caller.
pub(super) struct Configuration {
    pub(super) name: &'static str,
    /// Command line; empty for nothing.
    pub(super) command: Vec<String>,
    /// How it signals that it is live.
    pub(super) ready: Ready,
}

/// How a tracer signals that it is live.
pub(super) enum Ready {
    /// No signal: nothing to wait for.
    Nothing,
    /// It creates this file.
    File(PathBuf),
    /// It prints a line on stderr or stdout, and needs some more time.
    Output(PathBuf),
}

/// A running tracer.
pub(super) struct Running {
    child: Child,
    /// Milliseconds from exec until it was live.
    pub(super) start_ms: f64,
}

/// Nothing, the tracer in several configurations, and the scripts.
pub(super) fn configurations(args: &Args) -> anyhow::Result<Vec<Configuration>> {
    let ready = scratch("ready");
    let uncapped = uncapped(&args.tracer)?;
    let tracer = |name, options: &[&str]| {
        let mut command = vec![args.tracer.display().to_string(), "live".into()];
        command.extend(options.iter().map(|&option| option.to_owned()));
        command.extend(uncapped.iter().cloned());
        command.extend(["--ready-file".into(), ready.display().to_string()]);
        Configuration {
            name,
            command,
            ready: Ready::File(ready.clone()),
        }
    };
    let own = std::process::id().to_string();
    let mut configurations = vec![
        Configuration {
            name: "nothing",
            command: Vec::new(),
            ready: Ready::Nothing,
        },
        tracer("mptcp-trace, text", &[]),
        tracer("mptcp-trace, JSON", &["--json"]),
        tracer("mptcp-trace --pid of another process", &["--pid", &own]),
    ];
    if !args.no_bpftrace {
        for (name, script, stem) in [
            ("bpftrace, printing", PRINTING, "printing"),
            ("bpftrace, counting", COUNTING, "counting"),
        ] {
            let file = scratch(&format!("{stem}.bt"));
            fs::write(&file, script).context("cannot write a bpftrace script")?;
            let output = scratch(&format!("{stem}.out"));
            // Mount tracefs for bpftrace alone, as mptcp-trace does for itself.
            let shell = format!(
                "[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; \
                 exec bpftrace {}",
                file.display()
            );
            let command = ["unshare", "--mount", "sh", "-c", &shell]
                .map(str::to_owned)
                .to_vec();
            configurations.push(Configuration {
                name,
                command,
                ready: Ready::Output(output),
            });
        }
    }
    Ok(configurations)
}

impl Configuration {
    /// Starts it and waits until it is live.
    pub(super) fn begin(&self) -> anyhow::Result<Option<Running>> {
        let Some((program, args)) = self.command.split_first() else {
            return Ok(None);
        };
        let (stdout, stderr): (Stdio, Stdio) = match &self.ready {
            Ready::Output(file) => {
                let file = File::create(file).context("cannot create a file for the output")?;
                (file.try_clone()?.into(), file.into())
            }
            Ready::File(file) => {
                let _absent = fs::remove_file(file);
                (Stdio::null(), Stdio::null())
            }
            Ready::Nothing => (Stdio::null(), Stdio::null()),
        };
        let start = Instant::now();
        let mut child = Command::new(program)
            .args(args)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        while !self.ready.is_reached() {
            if let Some(status) = child.try_wait()? {
                bail!("{program} ended with {status}");
            }
            if start.elapsed() > START_MAX {
                child.kill()?;
                bail!("{program} does not start within {} s", START_MAX.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let start_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok(Some(Running { child, start_ms }))
    }
}

impl Running {
    /// Stops it; returns its memory before that.
    pub(super) fn end(mut self) -> anyhow::Result<u64> {
        let memory = Memory::of(self.child.id())?;
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        self.child.wait()?;
        Ok(memory.resident_kb)
    }
}

impl Ready {
    fn is_reached(&self) -> bool {
        let says = |file: &Path, word: &str| {
            fs::read_to_string(file).is_ok_and(|text| text.contains(word))
        };
        match self {
            Self::Nothing => true,
            Self::File(file) => says(file, "\n"),
            Self::Output(file) => says(file, "Attaching"),
        }
    }
}

/// Makes the calls in another process; returns the measurements.
pub(super) fn ask(args: &Args, calls: &[Call]) -> anyhow::Result<Vec<Measured>> {
    let me = std::env::current_exe().context("cannot find the path of this program")?;
    let mut command = Command::new(me);
    command
        .args(["bench-asker", "--queries", &args.queries.to_string()])
        .args(["--batches", &args.batches.to_string()]);
    for call in calls {
        command.args(["--opt", call.word()]);
    }
    let output = command.output().context("cannot run the asker")?;
    ensure!(
        output.status.success(),
        "the asker ended with {}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).context("cannot parse the asker's output"))
        .collect()
}
