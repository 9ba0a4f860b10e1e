//! A tracer that runs alongside a measurement. Its lines are at most counted: parsing them would
//! cost more than tracing.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    scratch::Scratch,
    sys,
    traced::{End, Found, TracedLine},
};

/// Exit code of the tracer when the kernel or the privileges are insufficient.
const CANNOT_ANSWER: i32 = 3;
/// Timeout until a tracer is live: an emulated machine is slow.
const START_MAX: Duration = Duration::from_secs(300);
/// Timeout for its end, with a full ring to drain.
const END_MAX: Duration = Duration::from_secs(120);
/// Size of one read, bytes.
const READ_BYTES: usize = 1 << 18;

/// A live tracer.
pub(crate) struct Beside {
    child: Child,
    stderr: Scratch,
    counting: Option<JoinHandle<io::Result<Counted>>>,
    /// From exec until it reports that it is live.
    pub(crate) start: Duration,
}

/// Resident memory of a process, in KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Memory {
    /// At present.
    pub(crate) resident_kb: u64,
    /// Peak so far.
    pub(crate) peak_kb: u64,
}

impl Memory {
    /// Reads the memory of a process.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let file = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        Self::parse(&status).with_context(|| format!("{file} does not contain the memory usage"))
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        Some(Self {
            resident_kb: field("VmRSS:")?,
            peak_kb: field("VmHWM:")?,
        })
    }
}

/// What to do with the tracer's lines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// Discard them.
    Dropped,
    /// Count them, and parse the last one.
    Counted,
}

/// Output of a tracer whose lines were counted.
#[derive(Default)]
pub(crate) struct Counted {
    queries: u64,
    /// Lines with fallbacks, which are few.
    fallbacks: Vec<Vec<u8>>,
    last: Vec<u8>,
}

impl Counted {
    fn close(self) -> anyhow::Result<Ended> {
        let last = String::from_utf8_lossy(&self.last);
        let last = TracedLine::parse(last.trim_end())?;
        let end = last.as_ref().and_then(TracedLine::end);
        Ok(Ended {
            queries: self.queries,
            fallbacks: self
                .fallbacks
                .iter()
                .filter_map(|line| fallback(line).transpose())
                .collect::<anyhow::Result<_>>()?,
            end: end
                .context("the tracer's last line is not its end line")?
                .clone(),
        })
    }
}

fn fallback(line: &[u8]) -> anyhow::Result<Option<Found>> {
    let line = TracedLine::parse(String::from_utf8_lossy(line).trim_end())?;
    Ok(line.and_then(TracedLine::into_fallback))
}

/// Counts lines by type without parsing them.
fn count(from: impl Read) -> io::Result<Counted> {
    let mut from = BufReader::with_capacity(READ_BYTES, from);
    let mut counted = Counted::default();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        if line.starts_with(br#"{"type":"query","#) {
            counted.queries += 1;
        } else if line.starts_with(br#"{"type":"fallback","#) {
            counted.fallbacks.push(line.clone());
        }
        std::mem::swap(&mut counted.last, &mut line);
        line.clear();
    }
    Ok(counted)
}

/// Arguments that remove the rate cap: these measurements are fast on purpose. Tracers without a
/// cap lack the option.
pub(crate) fn uncapped(tracer: &Path) -> anyhow::Result<Vec<String>> {
    let help = Command::new(tracer)
        .args(["live", "--help"])
        .output()
        .with_context(|| format!("cannot run {}", tracer.display()))?;
    let has_cap = names_option(&String::from_utf8_lossy(&help.stdout), "--cap");
    Ok(if has_cap {
        ["--cap", "0"].map(str::to_owned).to_vec()
    } else {
        Vec::new()
    })
}

/// Whether a help text contains an option of exactly this name.
fn names_option(help: &str, option: &str) -> bool {
    help.split(|end: char| end.is_whitespace() || matches!(end, '=' | ',' | '[' | '`'))
        .any(|word| word == option)
}

/// Results of a tracer that has ended.
pub(crate) struct Ended {
    /// Number of query lines.
    pub(crate) queries: u64,
    /// Fallbacks from the lines.
    pub(crate) fallbacks: Vec<Found>,
    /// The final line.
    pub(crate) end: End,
}

impl Beside {
    /// Starts `mptcp-trace live` with these arguments; none, with its last line on stderr, if this
    /// kernel lacks the attach method.
    pub(crate) fn start(
        tracer: &Path,
        words: &[String],
        lines: Lines,
    ) -> anyhow::Result<Result<Self, String>> {
        let stderr = Scratch::new("beside-stderr");
        let ready = Scratch::new("beside-ready");
        // A file left by an earlier run would be mistaken for this one's.
        let _absent = fs::remove_file(&ready.0);
        let said = File::create(&stderr.0).context("cannot create a file for the messages")?;
        let mut command = Command::new(tracer);
        command
            .arg("live")
            .args(uncapped(tracer)?)
            .arg("--ready-file")
            .arg(&ready.0)
            .args(words)
            .stdin(Stdio::null())
            .stderr(said);
        match lines {
            Lines::Dropped => command.stdout(Stdio::null()),
            Lines::Counted => command.arg("--json").stdout(Stdio::piped()),
        };
        let began = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", tracer.display()))?;
        let counting = child
            .stdout
            .take()
            .map(|stdout| std::thread::spawn(move || count(stdout)));
        let mut beside = Self {
            child,
            stderr,
            counting,
            start: Duration::ZERO,
        };
        while !fs::read(&ready.0).is_ok_and(|text| text.ends_with(b"\n")) {
            if let Some(status) = beside.child.try_wait()? {
                let words = beside.last_words();
                if status.code() == Some(CANNOT_ANSWER) {
                    return Ok(Err(words));
                }
                bail!("the tracer ended with {status}: {words}");
            }
            ensure!(began.elapsed() < START_MAX, "the tracer does not start");
            std::thread::sleep(Duration::from_micros(200));
        }
        beside.start = began.elapsed();
        Ok(Ok(beside))
    }

    /// Process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time used so far.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        sys::cpu_time(self.pid()).context("cannot read the tracer's CPU time")
    }

    /// Resident memory.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of(self.pid())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal the tracer")
    }

    /// Stops the tracer and waits for it.
    pub(crate) fn end(mut self) -> anyhow::Result<Option<Ended>> {
        self.signal(Signal::INT)?;
        let status = self.wait()?;
        ensure!(
            status.success(),
            "the tracer ended with {status}: {}",
            self.last_words()
        );
        let Some(counting) = self.counting.take() else {
            return Ok(None);
        };
        let counted = counting
            .join()
            .map_err(|_panic| anyhow::anyhow!("the thread that counts lines panicked"))?
            .context("cannot read the tracer's lines")?;
        counted.close().map(Some)
    }

    fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self
                .child
                .try_wait()
                .context("cannot wait for the tracer")?
            {
                return Ok(status);
            }
            ensure!(start.elapsed() < END_MAX, "the tracer does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn last_words(&self) -> String {
        let said = fs::read(&self.stderr.0).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        said.lines().last().unwrap_or("no output").to_owned()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Usually it has ended already; the kernel removes its probes with it. SIGKILL also ends a
        // stopped process.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
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
    fn memory_is_read_in_kilobytes() {
        let status = "Name:\tx\nVmHWM:\t   52932 kB\nVmRSS:\t   50352 kB\n";
        let want = Memory {
            resident_kb: 50352,
            peak_kb: 52932,
        };
        assert_eq!(Memory::parse(status), Some(want));
        assert_eq!(Memory::parse("Name:\tx\n"), None);
    }

    #[test]
    fn lines_are_counted_by_type_and_the_last_one_is_read() {
        let text = "{\"type\":\"start\",\"data\":{}}\n\
                    {\"type\":\"query\",\"data\":{}}\n\
                    {\"type\":\"query\",\"data\":{}}\n\
                    {\"type\":\"end\",\"data\":{\"findings\":3,\"losses\":[]}}\n";
        let ended = count(text.as_bytes()).unwrap().close().unwrap();
        assert_eq!((ended.queries, ended.fallbacks.len()), (2, 0));
        assert_eq!(ended.end.findings, 3);
        let cut_off = count("{\"type\":\"start\",\"data\":{\"sensors\":[]}}\n".as_bytes()).unwrap();
        assert!(cut_off.close().is_err());
    }
}
