//! Runs a tracer alongside a test: starts it, waits until it is live, stops it, and reads its
//! output.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::{netns, scratch::Scratch, traced::TracedLine};

/// Arguments that select the tracer.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TracerArgs {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Only this attach method (repeatable); default: all three
    #[arg(long, value_name = "METHOD")]
    pub(crate) attach: Vec<String>,
    /// More arguments for the tracer (repeatable)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) tracer_arg: Vec<String>,
}

impl TracerArgs {
    /// The selected attach methods; by default all, best first.
    pub(crate) fn rungs(&self) -> Vec<String> {
        match self.attach[..] {
            [] => ["fexit", "kprobe", "tracepoint"]
                .map(str::to_owned)
                .to_vec(),
            [..] => self.attach.clone(),
        }
    }
}

/// Exit code of the tracer when the kernel or the privileges are insufficient.
const CANNOT_ANSWER: i32 = 3;
/// Timeout until it is live: an emulated machine is slow.
const START_MAX: Duration = Duration::from_secs(300);
/// Timeout for it to stop after a signal.
const END_MAX: Duration = Duration::from_secs(60);
/// Interval of the checks.
const LOOK: Duration = Duration::from_millis(10);

/// A live tracer.
pub(crate) struct Tracer {
    child: Child,
    output: Scratch,
    stderr: Scratch,
    /// Network namespaces that existed before it was live.
    namespaces: BTreeSet<u64>,
}

/// Result of a start.
pub(crate) enum Started {
    /// The tracer is live.
    Live(Tracer),
    /// The attach method is unavailable, with the tracer's last line on stderr.
    Unavailable(String),
    /// It exited otherwise, or never became live.
    Broken(String),
}

/// Output of a tracer.
pub(crate) struct Said {
    /// Parsed lines.
    pub(crate) lines: Vec<TracedLine>,
    /// Raw lines.
    pub(crate) text: String,
    /// What went wrong at its end.
    pub(crate) broken: Option<String>,
}

impl Tracer {
    /// Starts it with an attach method and waits until it is live.
    pub(crate) fn start(tracer: &Path, rung: &str, more: &[String]) -> anyhow::Result<Started> {
        let output = Scratch::new("traced");
        let stderr = Scratch::new("tracer-stderr");
        let ready = Scratch::new("ready");
        // A file left by an earlier run would be mistaken for this one's.
        drop(Scratch::new("ready"));
        let said = File::create(&stderr.0)
            .with_context(|| format!("cannot write to {}", stderr.0.display()))?;
        let namespaces = netns::of_processes()?;
        let child = Command::new(tracer)
            .args(["live", "--attach", rung, "--json", "--output"])
            .arg(&output.0)
            .arg("--ready-file")
            .arg(&ready.0)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .with_context(|| format!("cannot run {}", tracer.display()))?;
        let mut tracer = Self {
            child,
            output,
            stderr,
            namespaces,
        };
        let start = Instant::now();
        loop {
            // The tracer reads the counters of all of them at some point before it is live.
            tracer.namespaces.extend(netns::of_processes()?);
            if ready.0.exists() {
                return Ok(Started::Live(tracer));
            }
            if let Some(status) = tracer.ended()? {
                let words = tracer.last_words();
                return Ok(if status.code() == Some(CANNOT_ANSWER) {
                    Started::Unavailable(words)
                } else {
                    Started::Broken(format!("{status}: {words}"))
                });
            }
            if start.elapsed() > START_MAX {
                let limit = START_MAX.as_secs();
                return Ok(Started::Broken(format!("it was not live within {limit} s")));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Stops it, and reads its output.
    pub(crate) fn finish(mut self) -> anyhow::Result<Said> {
        let mut broken = None;
        if self.ended()?.is_none() {
            kill_process(Pid::from_child(&self.child), Signal::INT)
                .context("cannot stop the tracer")?;
        }
        let start = Instant::now();
        loop {
            match self.ended()? {
                Some(status) if status.success() => break,
                Some(status) => {
                    broken = Some(format!("{status}: {}", self.last_words()));
                    break;
                }
                None if start.elapsed() > END_MAX => {
                    let limit = END_MAX.as_secs();
                    broken = Some(format!("it did not end within {limit} s"));
                    break;
                }
                None => std::thread::sleep(LOOK),
            }
        }
        // With `panic = "unwind"` a thread may panic while the program continues.
        let said = fs::read(&self.stderr.0).context("cannot read the tracer's stderr")?;
        let said = String::from_utf8_lossy(&said);
        if let Some(line) = said.lines().find(|line| line.contains("panicked")) {
            broken = Some(format!("it panicked: {line}"));
        }
        let file = self.output.0.display();
        let text = fs::read_to_string(&self.output.0)
            .with_context(|| format!("cannot read the tracer's lines from {file}"))?;
        let mut lines: Vec<TracedLine> = text
            .lines()
            .filter_map(|line| TracedLine::parse(line).transpose())
            .collect::<anyhow::Result<_>>()?;
        for line in &mut lines {
            if let TracedLine::Start(start) = line {
                start.namespaces.clone_from(&self.namespaces);
            }
        }
        Ok(Said {
            lines,
            text,
            broken,
        })
    }

    fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for the tracer")
    }

    fn last_words(&self) -> String {
        let said = fs::read(&self.stderr.0).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        said.lines().last().unwrap_or("no output").to_owned()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Usually it has ended already; the kernel removes its probes with it.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
