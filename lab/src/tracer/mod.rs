//! The one way in which the lab runs mptcp-trace: starts it, waits until it is live, stops it, and
//! reads its output. A program that is measured beside it (bpftrace) runs in the same way.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{ChildStdout, Command, ExitStatus, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::{
    netns,
    process::{Memory, Running},
    scratch::Scratch,
    sys,
    traced::TracedLine,
    wait::Patience,
};

pub(crate) mod again;
mod args;
mod capture;
mod counted;
pub(crate) mod suite;

pub(crate) use args::{OneMethodArgs, TracerArgs};
pub(crate) use counted::{Counted, Counts};

/// Exit code of the tracer when the kernel or the privileges are insufficient.
pub(crate) const CANNOT_ANSWER: i32 = 3;
/// Timeout until it is live, or of a whole run: an emulated machine is slow.
const RUN_MAX: Duration = Duration::from_secs(300);
/// Timeout for its end after a signal, with a full ring to drain.
const END_MAX: Duration = Duration::from_secs(120);
/// Timeout for the end of a tracer that was late.
const LATE_MAX: Duration = Duration::from_secs(5);
/// Interval of the checks.
const LOOK: Duration = Duration::from_millis(5);
/// Size of one read, bytes.
const READ_BYTES: usize = 1 << 18;

/// Reads lines while the tracer runs.
pub(crate) trait Reads: Send + 'static {
    fn take(&mut self, line: &[u8]) -> anyhow::Result<()>;
}

impl Reads for () {
    fn take(&mut self, _line: &[u8]) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Reads for Vec<u8> {
    fn take(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.extend_from_slice(line);
        Ok(())
    }
}

/// What to do with its output.
enum Output<R> {
    Dropped,
    /// JSON lines in a file: an unread pipe would block it.
    Kept(Scratch),
    /// JSON lines for a reader, in a thread.
    Read(R),
    /// Together with its messages.
    Said,
}

/// A run that has not started yet.
pub(crate) struct Run<R = ()> {
    program: OsString,
    words: Vec<OsString>,
    /// Command that the tracer runs and traces.
    command: Vec<OsString>,
    output: Output<R>,
    every: Duration,
}

impl Run {
    /// A program without arguments.
    pub(crate) fn of(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            words: Vec::new(),
            command: Vec::new(),
            output: Output::Dropped,
            every: LOOK,
        }
    }

    /// `mptcp-trace live` with an attach method.
    pub(crate) fn live(tracer: &Path, rung: &str) -> Self {
        Self::of(tracer).args(["live", "--attach", rung])
    }

    /// Keeps its lines for the end.
    pub(crate) fn keeping(self) -> Self {
        let lines = Scratch::new("traced");
        let run = self.args(["--json", "--output"]).args([&lines.0]);
        Self {
            output: Output::Kept(lines),
            ..run
        }
    }

    /// Writes its output to the same file as its messages.
    pub(crate) fn saying(self) -> Self {
        Self {
            output: Output::Said,
            ..self
        }
    }

    /// Reads its lines while it runs.
    pub(crate) fn reading<R: Reads>(self, reader: R) -> Run<R> {
        let Self {
            program,
            words,
            command,
            output: _,
            every,
        } = self.args(["--json"]);
        Run {
            program,
            words,
            command,
            output: Output::Read(reader),
            every,
        }
    }
}

impl<R: Reads> Run<R> {
    /// Adds arguments.
    pub(crate) fn args(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        self.words.extend(words);
        self
    }

    /// Makes it trace a command, and end with it.
    pub(crate) fn command(mut self, command: &Command) -> Self {
        self.command = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(OsStr::to_owned)
            .collect();
        self
    }

    /// Removes the rate cap: measurements are fast on purpose. Tracers without a cap lack the
    /// option.
    pub(crate) fn uncapped(self) -> anyhow::Result<Self> {
        let help = Command::new(&self.program)
            .args(["live", "--help"])
            .output();
        let help = help.with_context(|| format!("cannot run {}", self.program.display()))?;
        let has_cap = names_option(&String::from_utf8_lossy(&help.stdout), "--cap");
        Ok(self.args(if has_cap { &["--cap", "0"][..] } else { &[] }))
    }

    /// Prints findings of every kind. Tracers that print all of them by default lack the word.
    pub(crate) fn showing_all(self) -> anyhow::Result<Self> {
        // A wrong value is rejected before the help is printed.
        let help = Command::new(&self.program)
            .args(["live", "--kind", "all", "--help"])
            .output();
        let help = help.with_context(|| format!("cannot run {}", self.program.display()))?;
        Ok(match help.status.success() {
            true => self.args(["--kind", "all"]),
            false => self,
        })
    }

    /// Looks more often, to measure when it is live.
    pub(crate) fn measured(self) -> Self {
        Self {
            every: Duration::from_micros(200),
            ..self
        }
    }

    /// The command line, for a shell.
    pub(crate) fn typed(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.words);
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    fn spawn(self) -> anyhow::Result<Tracer<R>> {
        let stderr = Scratch::new("tracer-stderr");
        let said = File::create(&stderr.0)
            .with_context(|| format!("cannot write to {}", stderr.0.display()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.words).stdin(Stdio::null());
        if !self.command.is_empty() {
            command.arg("--").args(&self.command);
        }
        match &self.output {
            Output::Dropped | Output::Kept(_) => command.stdout(Stdio::null()),
            Output::Read(_) => command.stdout(Stdio::piped()),
            Output::Said => command.stdout(said.try_clone()?),
        };
        command.stderr(said);
        let began = Instant::now();
        let mut child = Running::start(&self.program.to_string_lossy(), &mut command)?;
        let (mut lines, mut reading) = (None, None);
        match self.output {
            Output::Dropped | Output::Said => {}
            Output::Kept(file) => lines = Some(file),
            Output::Read(reader) => {
                let stdout = child.0.stdout.take().context("the tracer has no stdout")?;
                reading = Some(std::thread::spawn(move || read(stdout, reader)));
            }
        }
        Ok(Tracer {
            child,
            stderr,
            lines,
            reading,
            began,
            every: self.every,
            start: Duration::ZERO,
            namespaces: BTreeSet::new(),
        })
    }

    /// Starts it, and waits until it reports through a file that it is live.
    pub(crate) fn start(self) -> anyhow::Result<Started<Tracer<R>>> {
        let ready = Scratch::new("ready");
        // A file left by an earlier run would be mistaken for this one's.
        let _absent = fs::remove_file(&ready.0);
        let run = self.args([OsStr::new("--ready-file"), ready.0.as_os_str()]);
        // A file that is not whole yet would be made anew once it is removed here.
        let is_whole = || fs::read(&ready.0).is_ok_and(|text| text.ends_with(b"\n"));
        run.start_when(|_said| is_whole().then_some(()))
            .map(|started| started.map(|(tracer, ())| tracer))
    }

    /// Starts it, and waits until its messages say that it is live.
    pub(crate) fn start_when<T>(
        self,
        is_live: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<Started<(Tracer<R>, T)>> {
        let mut tracer = self.spawn()?;
        let patience = Patience::new(RUN_MAX, tracer.every);
        let seen = patience.until(|| tracer.look(&is_live))?;
        tracer.start = tracer.began.elapsed();
        Ok(match seen {
            Some(Ok(live)) => Started::Live((tracer, live)),
            Some(Err(status)) if status.code() == Some(CANNOT_ANSWER) => {
                Started::Unavailable(last_words(&tracer.said()?))
            }
            Some(Err(status)) => {
                Started::Broken(format!("{status}: {}", last_words(&tracer.said()?)))
            }
            None => Started::Broken(format!("it was not live within {} s", RUN_MAX.as_secs())),
        })
    }

    /// Runs it until it ends by itself.
    pub(crate) fn finish(self) -> anyhow::Result<Ended<R>> {
        self.spawn()?.ended(RUN_MAX)
    }
}

/// Result of a start.
pub(crate) enum Started<T> {
    /// It is live.
    Live(T),
    /// The attach method is unavailable, with the tracer's last line on stderr.
    Unavailable(String),
    /// It exited otherwise, or never became live.
    Broken(String),
}

impl<T> Started<T> {
    fn map<U>(self, with: impl FnOnce(T) -> U) -> Started<U> {
        match self {
            Self::Live(live) => Started::Live(with(live)),
            Self::Unavailable(why) => Started::Unavailable(why),
            Self::Broken(why) => Started::Broken(why),
        }
    }

    /// None, with the reason, if this kernel lacks the attach method.
    pub(crate) fn available(self) -> anyhow::Result<Result<T, String>> {
        match self {
            Self::Live(live) => Ok(Ok(live)),
            Self::Unavailable(why) => Ok(Err(why)),
            Self::Broken(why) => bail!("the tracer does not start: {why}"),
        }
    }

    /// Fails if this kernel lacks the attach method.
    pub(crate) fn live(self) -> anyhow::Result<T> {
        self.available()?
            .map_err(|why| anyhow::anyhow!("this kernel cannot be traced: {why}"))
    }
}

/// A running tracer.
pub(crate) struct Tracer<R = ()> {
    child: Running,
    stderr: Scratch,
    lines: Option<Scratch>,
    reading: Option<JoinHandle<anyhow::Result<R>>>,
    began: Instant,
    every: Duration,
    /// From exec until it was live.
    pub(crate) start: Duration,
    /// Network namespaces that existed before it was live.
    namespaces: BTreeSet<u64>,
}

impl<R: Reads> Tracer<R> {
    /// Whether it is live, or has ended.
    fn look<T>(
        &mut self,
        is_live: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<Option<Result<T, ExitStatus>>> {
        if self.lines.is_some() {
            // The tracer reads the counters of all of them at some point before it is live.
            self.namespaces.extend(netns::of_processes()?);
        }
        match is_live(&self.said()?) {
            Some(live) => Ok(Some(Ok(live))),
            None => Ok(self.child.ended()?.map(Err)),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.child.signal(signal)
    }

    /// CPU time used so far.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        sys::cpu_time(self.pid()).context("cannot read the tracer's CPU time")
    }

    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of(self.pid())
    }

    /// Its stderr so far.
    pub(crate) fn said(&self) -> anyhow::Result<String> {
        let said = fs::read(&self.stderr.0).context("cannot read the tracer's stderr")?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Stops it with a signal, and waits for its end.
    pub(crate) fn stop(mut self, signal: Signal) -> anyhow::Result<Ended<R>> {
        if self.child.ended()?.is_none() {
            self.signal(signal)?;
        }
        self.ended(END_MAX)
    }

    /// Waits for its end. A late one gets a last chance to stop its child and to remove its probes.
    fn ended(mut self, limit: Duration) -> anyhow::Result<Ended<R>> {
        let patience = |limit| Patience::new(limit, LOOK);
        let status = self.child.wait(patience(limit))?;
        if status.is_none() {
            self.signal(Signal::TERM)?;
            if self.child.wait(patience(LATE_MAX))?.is_none() {
                self.signal(Signal::KILL)?;
            }
        }
        let reading = self.reading.take().map(|reading| {
            let read = reading.join();
            read.map_err(|_panic| anyhow::anyhow!("the thread that reads the lines panicked"))?
        });
        let text = match self.lines.as_ref().map(|file| fs::read_to_string(&file.0)) {
            None => String::new(),
            Some(Ok(text)) => text,
            // A tracer that could not start has written nothing.
            Some(Err(why)) if why.kind() == std::io::ErrorKind::NotFound => String::new(),
            Some(Err(why)) => return Err(why).context("cannot read the tracer's lines"),
        };
        let said = self.said()?;
        Ok(Ended {
            how: how(status, limit, &said),
            status,
            said,
            text,
            reader: reading.transpose()?,
            namespaces: std::mem::take(&mut self.namespaces),
        })
    }
}

/// A tracer that has ended.
pub(crate) struct Ended<R = ()> {
    /// What is wrong with its end.
    how: Option<String>,
    /// None if it had to be stopped.
    status: Option<ExitStatus>,
    /// Its messages.
    pub(crate) said: String,
    /// Its lines, if they were kept.
    pub(crate) text: String,
    reader: Option<R>,
    namespaces: BTreeSet<u64>,
}

impl<R> Ended<R> {
    /// Whether it failed with this exit code, and without a panic.
    pub(crate) fn failed_with(&self, code: i32) -> bool {
        self.status.and_then(|status| status.code()) == Some(code) && panic_of(&self.said).is_none()
    }

    /// What went wrong at its end, if it should have succeeded.
    pub(crate) fn broken(&self) -> Option<String> {
        self.how.clone()
    }

    /// The last line of its messages.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.said)
    }

    /// Fails unless it succeeded.
    pub(crate) fn in_order(self) -> anyhow::Result<Self> {
        match &self.how {
            None => Ok(self),
            Some(why) => bail!("the tracer did not end in order: {why}"),
        }
    }

    /// The reader of its lines.
    pub(crate) fn reader(self) -> anyhow::Result<R> {
        self.reader.context("the tracer's lines were not read")
    }

    /// Its lines, parsed.
    pub(crate) fn lines(&self) -> anyhow::Result<Vec<TracedLine>> {
        let lines = self.text.lines().map(TracedLine::parse);
        let mut lines: Vec<TracedLine> = lines
            .filter_map(Result::transpose)
            .collect::<anyhow::Result<_>>()?;
        for line in &mut lines {
            if let TracedLine::Start(start) = line {
                start.namespaces.clone_from(&self.namespaces);
            }
        }
        Ok(lines)
    }
}

/// What is wrong with an end: it was late, it panicked, or it failed.
fn how(status: Option<ExitStatus>, limit: Duration, said: &str) -> Option<String> {
    let Some(status) = status else {
        return Some(format!("it did not end within {} s", limit.as_secs()));
    };
    if let Some(line) = panic_of(said) {
        return Some(format!("it panicked: {line}"));
    }
    (!status.success()).then(|| format!("{status}: {}", last_words(said)))
}

/// With `panic = "unwind"` a thread may panic while the program continues.
fn panic_of(said: &str) -> Option<&str> {
    said.lines().find(|line| line.contains("panicked"))
}

fn last_words(said: &str) -> String {
    said.lines().last().unwrap_or("no output").to_owned()
}

fn read<R: Reads>(from: ChildStdout, mut reader: R) -> anyhow::Result<R> {
    let mut from = BufReader::with_capacity(READ_BYTES, from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        reader.take(&line)?;
        line.clear();
    }
    Ok(reader)
}

/// Whether a help text contains an option of exactly this name.
fn names_option(help: &str, option: &str) -> bool {
    help.split(|end: char| end.is_whitespace() || matches!(end, '=' | ',' | '[' | '`'))
        .any(|word| word == option)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn an_option_is_not_taken_for_one_that_begins_like_it() {
        let check = |help: &str, want: bool| assert_eq!(names_option(help, "--cap"), want);
        check("      --capture <FILE>  Also keep", false);
        check("      --cap <N>  Queries of one process", true);
        check("      --cap=<N>", true);
        check("", false);
    }

    #[test]
    fn an_end_is_in_order_only_if_it_is_in_time_without_a_panic_and_a_success() {
        let check = |status: Option<i32>, said: &str, want: Option<&str>| {
            let status = status.map(|code| ExitStatus::from_raw(code << 8));
            let got = how(status, Duration::from_secs(1), said);
            assert_eq!(got.is_some(), want.is_some(), "{got:?}");
            assert!(got.unwrap_or_default().contains(want.unwrap_or_default()));
        };
        check(Some(0), "all is well\n", None);
        check(None, "", Some("within 1 s"));
        check(
            Some(0),
            "a\nthread 'x' panicked at y\nb\n",
            Some("'x' panicked"),
        );
        check(Some(1), "a\nb\n", Some("b"));
    }

    #[test]
    fn a_program_is_started_read_and_stopped() {
        let run = |script: &str| Run::of("sh").args(["-c", script]).saying();
        let started = run("echo here I am; exec sleep 60")
            .start_when(|said| said.contains("here").then_some(7));
        let (tracer, seven) = started.unwrap().live().unwrap();
        assert_eq!(seven, 7);
        let ended = tracer.stop(Signal::TERM).unwrap();
        assert!(ended.broken().is_some() && ended.last_words() == "here I am");
        let started = run("echo no probes; exit 3").start_when(|_said| None::<()>);
        let why = started.unwrap().available().unwrap().err();
        assert_eq!(why.as_deref(), Some("no probes"));
        let started = run("exit 1").start_when(|_said| None::<()>);
        assert!(started.unwrap().available().is_err());
    }
}
