//! `mptcp-lab exported`: the output of `mptcp-trace serve --otlp` must parse with OpenTelemetry's
//! own schema and match the kernel's counters, even if the receiver disappears meanwhile or never
//! exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::{
    compare::ok,
    net::{self, Family, Kind},
    report::{Cell, Cells, Outcome},
    served::{Counts, Played, Served, THIRD_ACK, play, until},
};

/// The receiver, in Python because a package there provides the schema.
const RECEIVER: &str = include_str!("receiver.py");
/// Its exit code if the package is missing.
const NO_SCHEMA: i32 = 77;
/// Timeout until it listens.
const START_MAX: Duration = Duration::from_secs(20);
/// Timeout until everything on the page has arrived: on a busy host other programs fill the queue
/// too, and requests are slow.
const ARRIVE_MAX: Duration = Duration::from_secs(90);
/// Interval of the checks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Queries without a receiver: more than the queue holds.
const QUESTIONS: u64 = 9000;
/// Maximum number of queued ones (`QUESTIONS_MAX` of the queue).
const WAITING_MAX: u64 = 6144;

/// Metric name.
const EXPORTED: &str = "mptcp_trace_otlp_exported_logs_total";
/// Metric name.
const FAILED: &str = "mptcp_trace_otlp_failed_requests_total";
/// Metric name.
const DROPPED: &str = "mptcp_trace_otlp_dropped_logs_total";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Attach method
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub(crate) attach: String,
    /// A Python with the package opentelemetry-proto
    #[arg(long, value_name = "PATH", default_value = "python3")]
    pub(crate) python: PathBuf,
}

/// Exports, plays and compares; returns true if everything received matches the kernel and the
/// page.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new(std::io::stdout())?;
    let files = tempfile::tempdir()?;
    let mut receiver = Receiver::new(args, files.path())?;
    if receiver.start(0)? {
        received(args, &mut receiver, &mut cells)?;
    } else {
        cells.put(Cell {
            outcome: Outcome::Skipped,
            why: "no python3 with opentelemetry-proto; pip install opentelemetry-proto".into(),
            ..ok("exported-logs", &args.attach, "", "")
        })?;
    }
    cells.put(nobody(args)?)?;
    cells.close()
}

/// The receiver runs, stops in the middle, and starts again.
fn received(
    args: &Args,
    receiver: &mut Receiver,
    cells: &mut Cells<std::io::Stdout>,
) -> anyhow::Result<()> {
    let rung = &args.attach;
    let served = Served::start(
        &args.tracer,
        rung,
        &receiver.words().each_ref().map(OsStr::new),
    )?;
    let first = play()?;
    receiver.stop()?;
    let second = play()?;
    let start = Instant::now();
    while !sums(&served.page()?, FAILED, "signal").contains_key("logs") {
        ensure!(start.elapsed() < START_MAX, "no request has failed");
        std::thread::sleep(LOOK_EVERY);
    }
    // Its first answer after the restart is "unavailable".
    ensure!(receiver.start(1)?, "the receiver does not start again");
    let played = first.and(second);
    let got = until(&played.counts, || Ok(receiver.read()?.fallbacks(&played)))?;
    cells.put(cell("exported-logs", rung, &played.counts, &got))?;
    // Other programs of this host are active meanwhile: the exported numbers must be between those
    // of the page before and after.
    for (case, finding, name) in [
        ("exported-answers", "query", "mptcp_trace_questions_total"),
        (
            "exported-verdicts",
            "verdict",
            "mptcp_trace_closed_verdicts_total",
        ),
    ] {
        let told = || Ok(sums(&served.page()?, name, "verdict"));
        let sent = || Ok(receiver.read()?.by(finding, "mptcp.verdict"));
        let dropped = || anyhow::Ok(sums(&served.page()?, DROPPED, "reason"));
        let mut between = between(case, rung, told, sent, || Ok(!dropped()?.is_empty()))?;
        let dropped = dropped()?;
        if between.outcome == Outcome::Mismatch && !dropped.is_empty() {
            between.outcome = Outcome::Skipped;
            between.why = format!("others flood this host, and the queue: {dropped:?}");
        }
        cells.put(between)?;
    }
    let told = || Ok(counters(&served.page()?));
    let sent = || Ok(receiver.read()?.metrics);
    cells.put(between("exported-metrics", rung, told, sent, || Ok(false))?)?;
    let page = served.page()?;
    let _said = served.end()?;
    let read = receiver.read()?;
    let exported: u64 = sums(&page, EXPORTED, "").values().sum();
    let failed = sums(&page, FAILED, "signal");
    let mut once = ok(
        "exported-once",
        rung,
        &format!("{exported} taken before the end, failed requests {failed:?}"),
        &format!(
            "{} records, {} of them different, {} mistakes",
            read.logs.len(),
            read.different.len(),
            read.wrong.len()
        ),
    );
    if !read.wrong.is_empty()
        || read.logs.len() != read.different.len()
        || exported > u64::try_from(read.logs.len())?
        || !failed.contains_key("logs")
    {
        once.outcome = Outcome::Mismatch;
        once.why = read.wrong.join("; ");
    }
    cells.put(once)
}

/// Without any receiver: records that do not fit into the queue are counted, and the loss is
/// reported.
fn nobody(args: &Args) -> anyhow::Result<Cell> {
    // The port was free a moment ago, and is unlikely to be taken so soon.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let url = format!("http://{address}");
    let served = Served::start(
        &args.tracer,
        &args.attach,
        &["--otlp", &url].map(OsStr::new),
    )?;
    let socket = net::open(Kind::Mptcp, Family::V4).context("cannot open a socket")?;
    for _ in 0..QUESTIONS {
        socket.protocol().context("cannot ask")?;
    }
    drop(socket);
    let look = |page: &str| {
        let of = |name, label| sums(page, name, label).into_values().sum::<u64>();
        (
            of("mptcp_trace_questions_total", "verdict"),
            of(DROPPED, "reason"),
            of("mptcp_trace_otlp_queued_logs", ""),
        )
    };
    let start = Instant::now();
    let (questions, dropped, queued) = loop {
        let seen = look(&served.page()?);
        if seen.0 >= QUESTIONS || start.elapsed() > START_MAX {
            break seen;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let said = served.end()?;
    let lost = said
        .lines()
        .find(|line| line.contains("did not accept them"));
    let mut cell = ok(
        "exported-nobody",
        &args.attach,
        &format!("{questions} queries"),
        &format!("{queued} wait, {dropped} dropped; {}", lost.unwrap_or("")),
    );
    let is_right = dropped > 0
        && dropped + queued >= questions
        && queued >= WAITING_MAX
        && lost.is_some()
        && said.matches("does not accept data").count() == 1;
    if !is_right {
        cell.outcome = Outcome::Mismatch;
        cell.why = format!("not every finding is accounted for: {said}");
    }
    Ok(cell)
}

fn cell(case: &str, rung: &str, want: &Counts, got: &Counts) -> Cell {
    let mut cell = ok(case, rung, &format!("{want:?}"), &format!("{got:?}"));
    if want != got {
        let differ = |(name, value): &(&String, &u64)| got.get(*name) != Some(value);
        let differ: Vec<_> = want.iter().filter(differ).take(5).collect();
        cell.outcome = Outcome::Mismatch;
        cell.why = format!("the received data differs: {differ:?}");
    }
    cell
}

/// Checks that the exported counts are at least those read before, and at most those read
/// afterwards. Does not wait once the comparison is `hopeless`.
fn between(
    case: &str,
    rung: &str,
    told: impl Fn() -> anyhow::Result<Counts>,
    sent: impl Fn() -> anyhow::Result<Counts>,
    hopeless: impl Fn() -> anyhow::Result<bool>,
) -> anyhow::Result<Cell> {
    let before = told()?;
    let start = Instant::now();
    let (got, after) = loop {
        let got = sent()?;
        if is_within(&before, &got) || hopeless()? || start.elapsed() > ARRIVE_MAX {
            break (got, told()?);
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let total = |counts: &Counts| {
        format!(
            "{} sorts, {} in all",
            counts.len(),
            counts.values().sum::<u64>()
        )
    };
    let page = format!("{} before, {} after", total(&before), total(&after));
    let mut cell = ok(case, rung, &page, &total(&got));
    if !is_within(&before, &got) || !is_within(&got, &after) {
        cell.outcome = Outcome::Mismatch;
        cell.why = format!("{before:?} <= {got:?} <= {after:?} does not hold");
    }
    Ok(cell)
}

/// Whether no count in `less` exceeds the one in `more`.
fn is_within(less: &Counts, more: &Counts) -> bool {
    less.iter()
        .all(|(name, count)| more.get(name).copied().unwrap_or(0) >= *count)
}

/// Sums a metric of the page by a label; without one if it is empty.
fn sums(page: &str, name: &str, label: &str) -> Counts {
    let mut sums = Counts::new();
    for (sample, value) in samples(page) {
        if sample.split('{').next() != Some(name) {
            continue;
        }
        let of = sample
            .split_once(&format!("{label}=\""))
            .and_then(|(_, rest)| rest.split_once('"'))
            .map_or("", |(of, _)| of);
        if value > 0 {
            *sums.entry(of.to_owned()).or_default() += value;
        }
    }
    sums
}

/// All counters of a page.
fn counters(page: &str) -> Counts {
    samples(page)
        .filter(|(name, _)| {
            name.split('{')
                .next()
                .is_some_and(|it| it.ends_with("_total"))
        })
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn samples(page: &str) -> impl Iterator<Item = (&str, u64)> {
    page.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name, value.parse().ok()?))
    })
}

/// A receiver that can be stopped and restarted on the same port.
struct Receiver {
    python: PathBuf,
    script: PathBuf,
    port: u16,
    file: PathBuf,
    child: Option<Child>,
}

/// Everything received so far.
#[derive(Default)]
struct Read {
    /// The complete attributes of each record, including its timestamp.
    different: BTreeSet<String>,
    /// Attributes of each record.
    logs: Vec<BTreeMap<String, Value>>,
    /// Counters of the latest request.
    metrics: Counts,
    wrong: Vec<String>,
}

impl Receiver {
    fn new(args: &Args, files: &Path) -> anyhow::Result<Self> {
        let script = files.join("receiver.py");
        fs::write(&script, RECEIVER)?;
        let file = files.join("received.jsonl");
        File::create(&file)?;
        Ok(Self {
            python: args.python.clone(),
            script,
            port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            file,
            child: None,
        })
    }

    fn words(&self) -> [String; 4] {
        let url = format!("http://127.0.0.1:{}", self.port);
        ["--otlp".into(), url, "--otlp-interval".into(), "1s".into()]
    }

    /// False if the schema is unavailable.
    fn start(&mut self, refuse: u32) -> anyhow::Result<bool> {
        let spawned = Command::new(&self.python)
            .arg(&self.script)
            .arg(self.port.to_string())
            .arg(&self.file)
            .arg(refuse.to_string())
            .stdin(Stdio::null())
            .spawn();
        let child = match spawned {
            Ok(child) => self.child.insert(child),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(why) => return Err(why).context("cannot run python3"),
        };
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(
                    status.code() == Some(NO_SCHEMA),
                    "the receiver ended: {status}"
                );
                return Ok(false);
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(true);
            }
            if start.elapsed() > START_MAX {
                bail!("the receiver does not listen");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn read(&self) -> anyhow::Result<Read> {
        let text = fs::read_to_string(&self.file)?;
        let mut read = Read::default();
        // The last line may be incomplete.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let line: Value = serde_json::from_str(line).context("the receiver writes no JSON")?;
            if line["wrong"].is_string() {
                read.wrong.push(line.to_string());
            } else if let Value::Object(metrics) = &line["metrics"] {
                let value = |value: &Value| Some(value.as_f64()?.round() as u64);
                read.metrics = metrics
                    .iter()
                    .filter(|(name, _)| {
                        name.split('{')
                            .next()
                            .is_some_and(|it| it.ends_with("_total"))
                    })
                    .filter_map(|(name, it)| Some((name.clone(), value(it)?)))
                    .collect();
            } else {
                let log: BTreeMap<String, Value> = serde_json::from_value(line["log"].clone())?;
                read.different.insert(format!("{log:?}"));
                read.logs.push(log);
            }
        }
        Ok(read)
    }
}

impl Read {
    /// Fallbacks of the recipes played, by cause.
    fn fallbacks(&self, played: &Played) -> Counts {
        let number = |log: &BTreeMap<String, Value>, name: &str| {
            log.get(name).and_then(Value::as_u64).unwrap_or(0)
        };
        let is_ours = |log: &&BTreeMap<String, Value>| {
            played.has(number(log, "mptcp.netns"), number(log, "mptcp.boottime_ns"))
        };
        let logs = self.logs.iter().filter(is_ours).cloned().collect();
        Self {
            logs,
            ..Self::default()
        }
        .by("fallback", "mptcp.cause")
    }

    /// Number of records of a type, by an attribute.
    fn by(&self, finding: &str, attribute: &str) -> Counts {
        let mut counts = Counts::new();
        for log in &self.logs {
            let of = log.get(attribute).and_then(Value::as_str).unwrap_or("none");
            if log["mptcp.finding"] == finding && of != THIRD_ACK {
                *counts.entry(of.to_owned()).or_default() += 1;
            }
        }
        counts
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ended = self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_summed_by_a_label() {
        let page = "# TYPE x_total counter\nx_total{a=\"1\",b=\"2\"} 3\nx_total{a=\"1\",b=\"4\"} 4\n\
            x_total{a=\"5\"} 0\nxy_total{a=\"1\"} 9\ny_total 6\ng 7\n";
        let of = |name: &str, count| Counts::from([(name.to_owned(), count)]);
        assert_eq!(sums(page, "x_total", "a"), of("1", 7));
        assert_eq!(sums(page, "y_total", ""), of("", 6));
        assert_eq!(counters(page).len(), 5);
        assert_eq!(counters(page)["y_total"], 6);
    }
}
