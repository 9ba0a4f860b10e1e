//! `mptcp-lab exported`: the output of `mptcp-trace serve --otlp` must parse with OpenTelemetry's
//! own schema and match the kernel's counters, even if the receiver disappears meanwhile or never
//! exists. The same through a real collector, which passes everything on to that receiver, over http
//! and https, restarted in the middle.

use std::{net::TcpListener, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};

use crate::{
    cells::{Cells, judged, skipped},
    metrics::Page,
    net::{self, Family, Kind},
    netns::Counters,
    report::{Cell, Outcome},
    serving::{PATIENCE, Served},
    tracer::OneMethodArgs,
    truth::play,
    wait::Patience,
};

mod collector;
mod front;
mod receiver;

use collector::Collected;
use receiver::{Read, Receiver, START, is_total};

/// Until everything on the page has arrived: on a busy host other programs fill the queue too, and
/// requests are slow.
const ARRIVE: Patience = Patience::new(Duration::from_secs(90), Duration::from_millis(100));
/// Queries without a receiver: more than the queue holds.
const QUERIES: u64 = 9000;
/// Maximum number of queued ones (`QUERIES_MAX` of the queue).
const WAITING_MAX: u64 = 6144;

/// Metric name.
const EXPORTED: &str = "mptcp_trace_otlp_exported_logs_total";
/// Metric name.
const FAILED: &str = "mptcp_trace_otlp_failed_requests_total";
/// Metric name.
const DROPPED: &str = "mptcp_trace_otlp_dropped_logs_total";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: OneMethodArgs,
    /// A Python with the package opentelemetry-proto
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// The program rotel-agent of the Python package rotel, a collector
    #[arg(long, value_name = "PATH")]
    collector: Option<PathBuf>,
    /// Skip the collector, because none exists for this machine
    #[arg(long, conflicts_with = "collector")]
    no_collector: bool,
}

/// The way of the data to the receiver, with a place that can be interrupted.
trait Route {
    /// Begins the names of its cases.
    fn name(&self) -> &'static str;

    /// Arguments that make the tracer export this way.
    fn words(&self) -> Vec<String>;

    /// From now on the tracer's requests fail.
    fn interrupt(&mut self) -> anyhow::Result<()>;

    fn resume(&mut self) -> anyhow::Result<()>;

    /// The end of the way.
    fn receiver(&self) -> &Receiver;
}

/// Exports, plays and compares; returns true if everything received matches the kernel and the
/// page.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new()?;
    let files = tempfile::tempdir()?;
    let mut receiver = Receiver::new(&args.python, files.path())?;
    if receiver.start(0)? {
        received(args, &mut receiver, &mut cells)?;
        collected(args, &mut cells)?;
    } else {
        let why = "no python3 with opentelemetry-proto; pip install opentelemetry-proto";
        for case in ["exported-logs", "collected-logs"] {
            cells.put(skipped(case, &args.tried.attach, why))?;
        }
    }
    cells.put(no_receiver(args)?)?;
    cells.close()
}

/// Through a collector, over http and https.
fn collected(args: &Args, cells: &mut Cells) -> anyhow::Result<()> {
    let Some(program) = &args.collector else {
        let why = match args.no_collector {
            true => "PyPI has no rotel for this machine",
            false => "no collector; pip install rotel, and --collector",
        };
        return cells.put(skipped("collected-logs", &args.tried.attach, why));
    };
    for is_encrypted in [false, true] {
        let files = tempfile::tempdir()?;
        let mut receiver = Receiver::new(&args.python, files.path())?;
        ensure!(receiver.start(0)?, "the receiver does not start again");
        let mut route = Collected::start(program, receiver, is_encrypted, files.path())?;
        received(args, &mut route, cells)?;
    }
    Ok(())
}

/// The receiver, or a collector before it, runs, stops in the middle, and starts again.
fn received(args: &Args, route: &mut dyn Route, cells: &mut Cells) -> anyhow::Result<()> {
    let rung = &args.tried.attach;
    let name = route.name();
    let case = |of: &str| format!("{name}-{of}");
    let served = Served::start(&args.tried, route.words())?;
    let first = play()?;
    route.interrupt()?;
    let second = play()?;
    let has_failed = || Ok(sums(&served.page()?, FAILED, "signal").contains_key("logs"));
    ensure!(START.holds(has_failed)?, "no request has failed");
    route.resume()?;
    let played = first.and(second);
    let want = &played.counts;
    let got = || Ok(route.receiver().read()?.fallbacks(&played));
    let got = PATIENCE.last(got, |got| Ok(got == want))?;
    let differ = want
        .iter()
        .filter(|(name, value)| got.get(*name) != Some(value));
    let mut wrong: Vec<String> = differ
        .map(|it| format!("{it:?} is received otherwise"))
        .collect();
    if *want != got && wrong.is_empty() {
        wrong.push("the received data differs".to_owned());
    }
    let (want, got) = (format!("{want:?}"), format!("{got:?}"));
    cells.put(judged(&case("logs"), rung, &want, &got, wrong))?;
    // Other programs of this host are active meanwhile: the exported numbers must be between those
    // of the page before and after.
    for (of, finding, name) in [
        ("answers", "query", "mptcp_trace_questions_total"),
        ("verdicts", "verdict", "mptcp_trace_closed_verdicts_total"),
    ] {
        let told = || Ok(sums(&served.page()?, name, "verdict"));
        let sent = || Ok(route.receiver().read()?.by(finding, "mptcp.verdict"));
        let dropped = || anyhow::Ok(sums(&served.page()?, DROPPED, "reason"));
        let mut between = between(&case(of), rung, told, sent, || Ok(!dropped()?.is_empty()))?;
        let dropped = dropped()?;
        if between.outcome == Outcome::Mismatch && !dropped.is_empty() {
            between.outcome = Outcome::Skipped;
            between.why = format!("others flood this host, and the queue: {dropped:?}");
        }
        cells.put(between)?;
    }
    let told = || Ok(counters(&served.text()?));
    let sent = || Ok(route.receiver().read()?.metrics);
    cells.put(between(&case("metrics"), rung, told, sent, || Ok(false))?)?;
    // Nothing is lost on the way: what the tracer counts as accepted arrives.
    let exported = || Ok(served.page()?.sum(EXPORTED, &[]));
    let arrived = || Ok(u64::try_from(route.receiver().read()?.logs.len())?);
    let one = |count: u64| Counters::from([("records".to_owned(), count)]);
    let told = || exported().map(one);
    let sent = || arrived().map(one);
    cells.put(between(&case("every-record"), rung, told, sent, || {
        Ok(false)
    })?)?;
    let page = served.page()?;
    let _said = served.end()?;
    let exported = page.sum(EXPORTED, &[]);
    let read = || route.receiver().read();
    let is_whole = |read: &Read| Ok(u64::try_from(read.logs.len())? >= exported);
    let read = PATIENCE.last(read, is_whole)?;
    let failed = sums(&page, FAILED, "signal");
    let want = format!("{exported} taken before the end, failed requests {failed:?}");
    let (logs, different) = (read.logs.len(), read.different.len());
    let mut wrong = read.wrong;
    let got = format!(
        "{logs} records, {different} of them different, {} mistakes",
        wrong.len()
    );
    if logs != different {
        wrong.push("a record came twice".to_owned());
    }
    if exported > u64::try_from(logs)? {
        wrong.push("not every record arrived".to_owned());
    }
    if !failed.contains_key("logs") {
        wrong.push("no request has failed".to_owned());
    }
    cells.put(judged(&case("once"), rung, &want, &got, wrong))
}

/// Without any receiver: records that do not fit into the queue are counted, and the loss is
/// reported.
fn no_receiver(args: &Args) -> anyhow::Result<Cell> {
    // The port was free a moment ago, and is unlikely to be taken so soon.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let served = Served::start(&args.tried, ["--otlp", &format!("http://{address}")])?;
    let socket = net::open(Kind::Mptcp, Family::V4).context("cannot open a socket")?;
    for _ in 0..QUERIES {
        socket.protocol().context("cannot ask")?;
    }
    drop(socket);
    let asked = |page: &Page| page.sum("mptcp_trace_questions_total", &[]);
    let page = START.last(|| served.page(), |page| Ok(asked(page) >= QUERIES))?;
    let (queries, dropped) = (asked(&page), page.sum(DROPPED, &[]));
    let queued = page.sum("mptcp_trace_otlp_queued_logs", &[]);
    let said = served.end()?;
    let mut lines = said.lines();
    let lost = lines.find(|line| line.contains("did not reach a collector"));
    let is_right = dropped > 0
        && dropped + queued >= queries
        && queued >= WAITING_MAX
        && lost.is_some()
        && said.matches("does not accept data").count() == 1;
    let wrong = (!is_right).then(|| format!("not every finding is accounted for: {said}"));
    let want = format!("{queries} queries");
    let got = format!("{queued} wait, {dropped} dropped; {}", lost.unwrap_or(""));
    let (rung, wrong) = (&args.tried.attach, Vec::from_iter(wrong));
    Ok(judged("exported-no-receiver", rung, &want, &got, wrong))
}

/// Checks that the exported counts are at least those read before, and at most those read
/// afterwards. Does not wait once the comparison is `hopeless`.
fn between(
    case: &str,
    rung: &str,
    told: impl Fn() -> anyhow::Result<Counters>,
    sent: impl Fn() -> anyhow::Result<Counters>,
    hopeless: impl Fn() -> anyhow::Result<bool>,
) -> anyhow::Result<Cell> {
    let before = told()?;
    let got = ARRIVE.last(sent, |got| Ok(is_within(&before, got) || hopeless()?))?;
    let after = told()?;
    let total = |counts: &Counters| {
        let all: u64 = counts.values().sum();
        format!("{} sorts, {all} in all", counts.len())
    };
    let page = format!("{} before, {} after", total(&before), total(&after));
    let is_right = is_within(&before, &got) && is_within(&got, &after);
    let wrong = (!is_right).then(|| format!("{before:?} <= {got:?} <= {after:?} does not hold"));
    Ok(judged(
        case,
        rung,
        &page,
        &total(&got),
        Vec::from_iter(wrong),
    ))
}

/// Whether no count in `less` exceeds the one in `more`.
fn is_within(less: &Counters, more: &Counters) -> bool {
    less.iter()
        .all(|(name, count)| more.get(name).copied().unwrap_or(0) >= *count)
}

/// Sums of a metric of the page by a label, without zeros.
fn sums(page: &Page, name: &str, label: &str) -> Counters {
    let mut sums = page.by(name, label);
    sums.retain(|_label, sum| *sum > 0);
    sums
}

/// All counters of a page, with their labels as printed.
fn counters(page: &str) -> Counters {
    let samples = page.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        // Processor time has fractions.
        let value: f64 = value.parse().ok()?;
        Some((name.to_owned(), value.round() as u64))
    });
    samples.filter(|(name, _)| is_total(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_summed_by_a_label() {
        let page = "# TYPE x_total counter\nx_total{a=\"1\",b=\"2\"} 3\nx_total{a=\"1\",b=\"4\"} 4\n\
            x_total{a=\"5\"} 0\nxy_total{a=\"1\"} 9\ny_total 6.25\ng 7\n";
        let parsed = Page::parse(page).unwrap();
        let of = |name: &str, count| Counters::from([(name.to_owned(), count)]);
        assert_eq!(sums(&parsed, "x_total", "a"), of("1", 7));
        assert_eq!(sums(&parsed, "y_total", ""), of("", 6));
        assert_eq!(counters(page).len(), 5);
        assert_eq!(counters(page)["y_total"], 6);
    }
}
