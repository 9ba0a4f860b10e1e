//! `mptcp-lab served`: the metrics of `mptcp-trace serve` must match the kernel's counters, on its
//! page and in a real Prometheus.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    cgroup::Cgroup,
    compare::ok,
    net::Family,
    provoke,
    recipes::RECIPES,
    report::{Cell, Cells, Outcome},
    scratch::Scratch,
    sys,
};

/// Recipes played meanwhile: every cause that a middlebox provokes, and connections that do not
/// fall back.
const PLAYED: [&str; 6] = [
    "healthy",
    "strip-synack",
    "strip-client-after-3",
    "mptcp-to-tcp-listener",
    "tcp-to-mptcp-listener",
    "strip-both-after-3",
];
/// Where no function can be probed, a connection with this cause is indistinguishable from one of a
/// TCP client and counts as plain: not compared.
pub(crate) const THIRD_ACK: &str = "MPCapableFallbackACK";
/// Timeout of every condition.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Interval of the checks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Timeout until every query of a dashboard returns data.
const DRAWN_MAX: Duration = Duration::from_secs(10);
/// Scrape interval of Prometheus.
const SCRAPE_EVERY: &str = "1s";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Attach method
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub(crate) attach: String,
    /// A Grafana dashboard, whose queries must return data in Prometheus
    #[arg(long, value_name = "FILE")]
    pub(crate) dashboard: Option<PathBuf>,
}

/// Fallbacks by cause.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Results of the recipes.
#[derive(Default)]
pub(crate) struct Played {
    /// The kernel's counters.
    pub(crate) counts: Counts,
    /// Network namespaces and periods of the recipes: namespace numbers are reused.
    windows: Vec<(u64, std::ops::RangeInclusive<u64>)>,
}

/// Serves, plays and compares; returns true if all metrics match the kernel's counters.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new(std::io::stdout())?;
    let served = Served::start(
        &args.tracer,
        &args.attach,
        &["--label", "cgroup"].map(OsStr::new),
    )?;
    let prometheus = Prometheus::start(&served.address)?;
    if let Some(prometheus) = &prometheus {
        // Increases before the first scrape are not part of a rate.
        prometheus.until("up == 1", |values| values.len() == 1)?;
    }
    let before = fallbacks(&served.page()?, None)?;
    // The tracer serves the whole host; its counters for our control group contain only our
    // processes.
    let cgroup = Cgroup::enter()
        .inspect_err(|why| eprintln!("mptcp-lab: the whole host is compared: {why:#}"))
        .ok();
    let whose = cgroup.as_ref().map(|cgroup| cgroup.path.as_str());
    let truth = play()?.counts;
    let want = match whose {
        Some(_) => truth.clone(),
        None => plus(&before, &truth),
    };
    let got = until(&want, || fallbacks(&served.page()?, whose))?;
    cells.put(cell("served-page", &args.attach, &want, &got))?;
    let at_least = plus(&before, &truth);
    let all = fallbacks(&served.page()?, None)?;
    cells.put(whole_host(&args.attach, &at_least, &all))?;
    match &prometheus {
        None => cells.put(Cell {
            outcome: Outcome::Skipped,
            why: "there is no prometheus; Debian: apt-get install prometheus".into(),
            ..ok("served-prometheus", &args.attach, "", "")
        })?,
        Some(prometheus) => {
            let only = whose.map_or_else(String::new, |path| format!("{{cgroup=\"{path}\"}}"));
            let query = format!("sum by (cause) (mptcp_trace_fallbacks_total{only})");
            let got = until(&want, || prometheus.by_cause(&query))?;
            cells.put(cell("served-prometheus", &args.attach, &want, &got))?;
            if let Some(dashboard) = &args.dashboard {
                cells.put(prometheus.draws(dashboard, &args.attach)?)?;
            }
        }
    }
    drop(prometheus);
    served.reload()?;
    let after = until(&want, || fallbacks(&served.page()?, whose))?;
    cells.put(cell("served-reload", &args.attach, &want, &after))?;
    let _said = served.end()?;
    cells.close()
}

fn cell(case: &str, rung: &str, want: &Counts, got: &Counts) -> Cell {
    let (caller, traced) = (format!("{want:?}"), format!("{got:?}"));
    let mut cell = ok(case, rung, &caller, &traced);
    if want != got {
        cell.outcome = Outcome::Mismatch;
        cell.why = "the kernel's counters differ".into();
    }
    cell
}

/// Connections of other processes may fall back too: the total must be at least the earlier value
/// plus ours.
fn whole_host(rung: &str, at_least: &Counts, got: &Counts) -> Cell {
    let case = "served-whole-host";
    let mut cell = ok(case, rung, &format!("{at_least:?}"), &format!("{got:?}"));
    let count = |of: &Counts, cause: &str| of.get(cause).copied().unwrap_or(0);
    let of_others: u64 = got
        .iter()
        .map(|(cause, count_of)| count_of.saturating_sub(count(at_least, cause)))
        .sum();
    if at_least
        .iter()
        .any(|(cause, least)| count(got, cause) < *least)
    {
        cell.outcome = Outcome::Mismatch;
        cell.why = "the kernel counted more".into();
    } else if of_others > 0 {
        cell.why = format!("{of_others} from other processes on this host");
    }
    cell
}

/// Plays all recipes simultaneously; returns the kernel's counters, summed over all namespaces.
pub(crate) fn play() -> anyhow::Result<Played> {
    let all = std::thread::scope(|scope| {
        let plays = PLAYED.map(|name| scope.spawn(move || play_one(name)));
        let done = plays.map(|play| {
            play.join()
                .map_err(|_panic| anyhow::anyhow!("a playing thread panicked"))?
        });
        done.into_iter().collect::<anyhow::Result<Vec<Played>>>()
    })?;
    Ok(all.into_iter().fold(Played::default(), Played::and))
}

fn play_one(name: &str) -> anyhow::Result<Played> {
    let recipe = RECIPES.iter().find(|recipe| recipe.name == name);
    let recipe = recipe.with_context(|| format!("there is no recipe {name}"))?;
    let from_ns = sys::boottime_ns();
    let (played, _left) = provoke::play(recipe, Family::V4);
    ensure!(
        played.wrong.is_empty() && played.skipped.is_none(),
        "{name} cannot be played: {:?} {:?}",
        played.wrong,
        played.skipped
    );
    let mut all = Played::default();
    for (netns, moved) in &played.moved {
        all.windows.push((*netns, from_ns..=sys::boottime_ns()));
        for (cause, count) in moved {
            if played.counters.contains(cause) && cause != THIRD_ACK && *count > 0 {
                *all.counts.entry(cause.clone()).or_default() += *count;
            }
        }
    }
    Ok(all)
}

impl Played {
    /// Whether an event belongs to the recipes, whatever else happens on this host.
    pub(crate) fn has(&self, netns: u64, at_ns: u64) -> bool {
        let mut windows = self.windows.iter();
        windows.any(|(of, when)| *of == netns && when.contains(&at_ns))
    }

    /// Merges two results.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.counts = plus(&self.counts, &other.counts);
        self.windows.extend(other.windows);
        self
    }
}

fn plus(one: &Counts, other: &Counts) -> Counts {
    let mut sum = one.clone();
    for (cause, count) in other {
        *sum.entry(cause.clone()).or_default() += count;
    }
    sum
}

/// Repeats a check until it succeeds or times out; returns the last result.
pub(crate) fn until(
    want: &Counts,
    look: impl Fn() -> anyhow::Result<Counts>,
) -> anyhow::Result<Counts> {
    let start = Instant::now();
    loop {
        let got = look()?;
        if got == *want || start.elapsed() > WAIT_MAX {
            return Ok(got);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Fallbacks by cause, from a page in Prometheus' text format; limited to a control group if one is
/// given.
fn fallbacks(page: &str, cgroup: Option<&str>) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for line in page.lines() {
        let Some(labels) = line.strip_prefix("mptcp_trace_fallbacks_total{") else {
            continue;
        };
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0)
        };
        if cgroup.is_some() && label("cgroup") != cgroup {
            continue;
        }
        let cause = label("cause");
        let value = labels.rsplit_once(' ').and_then(|(_, it)| it.parse().ok());
        let (cause, count): (_, u64) = cause
            .zip(value)
            .with_context(|| format!("cannot read {line:?}"))?;
        if cause == THIRD_ACK {
            continue;
        }
        *counts.entry(cause.to_owned()).or_default() += count;
    }
    Ok(counts)
}

/// Fetches a path; returns the body.
pub(crate) fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the response has no end of its headers")?;
    let status = head.split(' ').nth(1).unwrap_or("");
    ensure!(status == "200", "{path}: {head}");
    Ok(body.to_owned())
}

/// A serving tracer.
pub(crate) struct Served {
    child: Child,
    /// Address that it listens on.
    pub(crate) address: String,
    output: Scratch,
}

impl Served {
    /// Starts one with additional arguments, and waits until it serves.
    pub(crate) fn start(tracer: &Path, rung: &str, more: &[&OsStr]) -> anyhow::Result<Self> {
        let output = Scratch::new("served.err");
        let mut child = Command::new(tracer)
            .args(["serve", "--listen", "127.0.0.1:0", "--attach", rung])
            .args(more)
            .stdin(Stdio::null())
            .stderr(File::create(&output.0)?)
            .spawn()
            .with_context(|| format!("cannot run {}", tracer.display()))?;
        let start = Instant::now();
        loop {
            let said = fs::read_to_string(&output.0)?;
            if let Some((_, rest)) = said.split_once("http://")
                && let Some((address, _)) = rest.split_once("/metrics")
            {
                return Ok(Self {
                    child,
                    address: address.to_owned(),
                    output,
                });
            }
            if let Some(status) = child.try_wait()? {
                bail!("the tracer ended with {status}: {said}");
            }
            ensure!(
                start.elapsed() < WAIT_MAX,
                "the tracer does not serve: {said}"
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its stderr so far.
    pub(crate) fn said(&self) -> anyhow::Result<String> {
        let said = fs::read(&self.output.0).context("cannot read the tracer's stderr")?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal the tracer")
    }

    /// Fetches the page of metrics.
    pub(crate) fn page(&self) -> anyhow::Result<String> {
        get(&self.address, "/metrics")
    }

    fn reload(&self) -> anyhow::Result<()> {
        self.signal(Signal::HUP)?;
        for path in ["/healthz", "/readyz"] {
            get(&self.address, path)?;
        }
        Ok(())
    }

    /// Stops it, which must succeed in order; returns its stderr.
    pub(crate) fn end(mut self) -> anyhow::Result<String> {
        self.signal(Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the tracer ended with {status}");
        Ok(fs::read_to_string(&self.output.0)?)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A private Prometheus that scrapes the tracer.
struct Prometheus {
    child: Child,
    address: String,
    _files: tempfile::TempDir,
}

impl Prometheus {
    /// None if it is not installed.
    fn start(target: &str) -> anyhow::Result<Option<Self>> {
        let files = tempfile::tempdir()?;
        let config = files.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: {SCRAPE_EVERY}, scrape_timeout: {SCRAPE_EVERY}}}\n\
                 scrape_configs: [{{job_name: mptcp-trace, static_configs: [{{targets: ['{target}']}}]}}]\n"
            ),
        )?;
        // The port was free a moment ago, and is unlikely to be taken so soon.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let spawned = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                files.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Ok(child) => Ok(Some(Self {
                child,
                address,
                _files: files,
            })),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why).context("cannot run prometheus"),
        }
    }

    /// Evaluates a query now.
    fn query(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", escaped(query));
        let answer: Value = serde_json::from_str(&get(&self.address, &path)?)?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        Ok(answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    fn until(&self, query: &str, is_right: impl Fn(&[Value]) -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            match self.query(query) {
                Ok(values) if is_right(&values) => return Ok(()),
                Ok(_) | Err(_) if start.elapsed() < WAIT_MAX => std::thread::sleep(LOOK_EVERY),
                Ok(values) => bail!("prometheus says {values:?} to {query}"),
                Err(why) => return Err(why),
            }
        }
    }

    fn by_cause(&self, query: &str) -> anyhow::Result<Counts> {
        let samples = self.query(query)?;
        let count = |sample: &Value| {
            let cause = sample["metric"]["cause"].as_str()?;
            if cause == THIRD_ACK {
                return None;
            }
            let value: f64 = sample["value"][1].as_str()?.parse().ok()?;
            Some((cause.to_owned(), value.round() as u64))
        };
        Ok(samples.iter().filter_map(count).collect())
    }

    /// Every query of the dashboard must return data.
    fn draws(&self, dashboard: &Path, rung: &str) -> anyhow::Result<Cell> {
        let text = fs::read_to_string(dashboard)
            .with_context(|| format!("cannot read {}", dashboard.display()))?;
        let queries = queries(&serde_json::from_str(&text)?);
        let start = Instant::now();
        // A rate needs at least two scrapes.
        let empty = loop {
            let mut empty = Vec::new();
            for (panel, query) in &queries {
                if self.query(query)?.is_empty() {
                    empty.push(format!("{panel}: {query}"));
                }
            }
            if empty.is_empty() || start.elapsed() > DRAWN_MAX {
                break empty;
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let asked = queries.len();
        let mut cell = ok(
            "served-dashboard",
            rung,
            &format!("{asked} queries"),
            &format!("{} answered", asked - empty.len()),
        );
        if asked == 0 || !empty.is_empty() {
            cell.outcome = Outcome::Mismatch;
            cell.why = empty.join("; ");
        }
        Ok(cell)
    }
}

/// The queries of a dashboard, with the titles of their panels.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    panels
        .flat_map(|panel| {
            let targets = panel["targets"].as_array().into_iter().flatten();
            targets.filter_map(|target| {
                let expr = target["expr"].as_str()?;
                let query = expr
                    .replace("$__rate_interval", "1m")
                    .replace("$instance", ".*");
                Some((panel["title"].to_string(), query))
            })
        })
        .collect()
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Percent-encodes a URL query component (RFC 3986, section 2.1).
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallbacks_are_summed_by_cause_whatever_other_labels_there_are() {
        let page = "# TYPE mptcp_trace_fallbacks_total counter\n\
            mptcp_trace_fallbacks_total{cause=\"A\",side=\"active\"} 2\n\
            mptcp_trace_fallbacks_total{side=\"passive\",cause=\"A\"} 3\n\
            mptcp_trace_fallbacks_total{cause=\"B\"} 1\n\
            mptcp_trace_other_total{cause=\"A\"} 9\n";
        let want = Counts::from([("A".to_owned(), 5), ("B".to_owned(), 1)]);
        assert_eq!(fallbacks(page, None).unwrap(), want);
        assert!(fallbacks("mptcp_trace_fallbacks_total{side=\"x\"} 1", None).is_err());
    }

    #[test]
    fn fallbacks_of_a_control_group_are_told_from_those_of_others() {
        let page = "mptcp_trace_fallbacks_total{cause=\"A\",cgroup=\"/x/lab\"} 2\n\
            mptcp_trace_fallbacks_total{cause=\"A\",cgroup=\"/x/lab2\"} 3\n\
            mptcp_trace_fallbacks_total{cause=\"A\"} 4\n";
        let of = |count| Counts::from([("A".to_owned(), count)]);
        assert_eq!(fallbacks(page, Some("/x/lab")).unwrap(), of(2));
        assert_eq!(fallbacks(page, None).unwrap(), of(9));
    }

    #[test]
    fn of_the_whole_host_there_may_be_more_and_never_less() {
        let of = |count| Counts::from([("A".to_owned(), count)]);
        for (got, want) in [
            (of(2), Outcome::Ok),
            (of(3), Outcome::Ok),
            (of(1), Outcome::Mismatch),
            (Counts::new(), Outcome::Mismatch),
        ] {
            assert_eq!(whole_host("fexit", &of(2), &got).outcome, want, "{got:?}");
        }
    }

    #[test]
    fn a_query_survives_in_a_url() {
        assert_eq!(escaped("sum(a_1) > 2"), "sum%28a_1%29%20%3E%202");
    }
}
