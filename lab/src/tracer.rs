//! A tracer that runs beside what is traced: started, waited for, told to end, read.

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

/// Which tracer is tried, and how.
#[derive(clap::Args, Clone, Debug)]
pub struct TracerArgs {
    /// The mptcp-trace to try
    #[arg(long, value_name = "PATH")]
    pub tracer: PathBuf,
    /// Only this rung (repeatable); all three if none is named
    #[arg(long, value_name = "RUNG")]
    pub attach: Vec<String>,
    /// More arguments for the tracer (repeatable)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub tracer_arg: Vec<String>,
}

impl TracerArgs {
    /// The rungs, best first unless they were named.
    pub(crate) fn rungs(&self) -> Vec<String> {
        match self.attach[..] {
            [] => ["fexit", "kprobe", "tracepoint"]
                .map(str::to_owned)
                .to_vec(),
            [..] => self.attach.clone(),
        }
    }
}

/// Exit code of the tracer on a kernel that cannot answer.
const CANNOT_ANSWER: i32 = 3;
/// Longest that it may take until it is live: an emulated machine is slow.
const START_MAX: Duration = Duration::from_secs(300);
/// Longest that it may take to end once it is told to.
const END_MAX: Duration = Duration::from_secs(60);
/// How often one looks.
const LOOK: Duration = Duration::from_millis(10);

/// A tracer that is live.
pub(crate) struct Tracer {
    child: Child,
    output: Scratch,
    stderr: Scratch,
    /// Network namespaces that existed before it was live.
    namespaces: BTreeSet<u64>,
}

/// What became of a start.
pub(crate) enum Started {
    /// It traces.
    Live(Tracer),
    /// The rung is not to be had, with the tracer's last words.
    Unavailable(String),
    /// It ended otherwise, or never became live.
    Broken(String),
}

/// What it had to say.
pub(crate) struct Said {
    /// Its lines.
    pub(crate) lines: Vec<TracedLine>,
    /// The same as they were written.
    pub(crate) text: String,
    /// What is wrong with how it ended.
    pub(crate) broken: Option<String>,
}

impl Tracer {
    /// Starts it on a rung and waits until it is live.
    pub(crate) fn start(tracer: &Path, rung: &str, more: &[String]) -> anyhow::Result<Started> {
        let output = Scratch::new("traced");
        let stderr = Scratch::new("tracer-stderr");
        let ready = Scratch::new("ready");
        // One of an earlier run would be taken for this one's.
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
            // It reads the counters of all of them at some moment before it is live.
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

    /// Tells it to end, and reads what it wrote.
    pub(crate) fn finish(mut self) -> anyhow::Result<Said> {
        let mut broken = None;
        if self.ended()?.is_none() {
            kill_process(Pid::from_child(&self.child), Signal::INT)
                .context("cannot tell the tracer to end")?;
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
        // With `panic = "unwind"` a thread may panic and the program go on.
        let said = fs::read(&self.stderr.0).context("cannot read what the tracer said")?;
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
        said.lines().last().unwrap_or("it said nothing").to_owned()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Ended already, as a rule; its probes hang on it and go with it.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
