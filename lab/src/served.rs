//! `mptcp-lab served`: the metrics of `mptcp-trace serve` must match the kernel's counters, on its
//! page and in a real Prometheus.

use std::{
    fs,
    io::{Read as _, Seek as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{
    cells::{Cells, judged, mismatch, ok, skipped},
    cgroup::Cgroup,
    metrics::Page,
    netns::Counters,
    process::{Running, Status},
    prometheus::Prometheus,
    report::Cell,
    serving::{PATIENCE, Served, get},
    tracer::OneMethodArgs,
    truth::{THIRD_ACK, play, plus},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: OneMethodArgs,
    /// A Grafana dashboard, whose queries must return data in Prometheus
    #[arg(long, value_name = "FILE")]
    dashboard: Option<PathBuf>,
}

/// Serves, plays and compares; returns true if all metrics match the kernel's counters.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let rung = &args.tried.attach;
    let mut cells = Cells::new()?;
    let served = Served::start(&args.tried, ["--label", "cgroup"])?;
    let prometheus = Prometheus::start(&served.address)?;
    let first = served.page()?;
    let before = fallbacks(&first, None)?;
    // The tracer serves the whole host; its counters for our control group contain only our
    // processes.
    let cgroup = Cgroup::enter()
        .inspect_err(|why| eprintln!("mptcp-lab: the whole host is compared: {why:#}"))
        .ok();
    let whose = cgroup.as_ref().map(|cgroup| cgroup.path.as_str());
    let truth = play()?.counts;
    let at_least = plus(&before, &truth);
    let want = match whose {
        Some(_) => &truth,
        None => &at_least,
    };
    let on_page = || fallbacks(&served.page()?, whose);
    cells.put(settled("served-page", rung, want, on_page)?)?;
    let all = fallbacks(&served.page()?, None)?;
    cells.put(whole_host(rung, &at_least, &all))?;
    cells.put(linted(rung, &served.text()?)?)?;
    cells.put(process(rung, &served)?)?;
    match &prometheus {
        None => {
            let why = "there is no prometheus; Debian: apt-get install prometheus";
            cells.put(skipped("served-prometheus", rung, why))?;
        }
        Some(prometheus) => {
            let only = whose.map_or_else(String::new, |path| format!("{{cgroup=\"{path}\"}}"));
            let query = format!("sum by (cause) (mptcp_trace_fallbacks_total{only})");
            let there = || prometheus.by_cause(&query);
            cells.put(settled("served-prometheus", rung, want, there)?)?;
            cells.put(first_events(rung, prometheus, &truth)?)?;
            if let Some(dashboard) = &args.dashboard {
                cells.put(prometheus.draws(dashboard, rung)?)?;
            }
        }
    }
    drop(prometheus);
    let loaded = served.page()?;
    served.reload()?;
    for path in ["/healthz", "/readyz"] {
        get(&served.address, path)?;
    }
    cells.put(settled("served-reload", rung, want, on_page)?)?;
    let last = served.page()?;
    let series = format!(
        "{} series at the start, {} at the end",
        first.len(),
        last.len()
    );
    let wrong = [loaded.went_back(&first), last.went_back(&loaded)].concat();
    cells.put(judged(
        "served-series",
        rung,
        "none vanished",
        &series,
        wrong,
    ))?;
    let _said = served.end()?;
    cells.close()
}

/// Waits until the counters are as wanted.
fn settled(
    case: &str,
    rung: &str,
    want: &Counters,
    look: impl FnMut() -> anyhow::Result<Counters>,
) -> anyhow::Result<Cell> {
    let got = PATIENCE.last(look, |got| Ok(got == want))?;
    let wrong = (got != *want).then(|| "the kernel's counters differ".to_owned());
    let (want, got) = (format!("{want:?}"), format!("{got:?}"));
    Ok(judged(case, rung, &want, &got, Vec::from_iter(wrong)))
}

/// `promtool check metrics` must have no complaint about the page.
fn linted(rung: &str, page: &str) -> anyhow::Result<Cell> {
    const CASE: &str = "served-linted";
    let mut files = [tempfile::tempfile()?, tempfile::tempfile()?];
    let [text, said] = &mut files;
    text.write_all(page.as_bytes())?;
    text.rewind()?;
    let mut command = Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(text.try_clone()?)
        .stdout(Stdio::null())
        .stderr(said.try_clone()?);
    let Some(mut promtool) = Running::if_installed("promtool", &mut command)? else {
        let why = "there is no promtool; Debian: apt-get install prometheus";
        return Ok(skipped(CASE, rung, why));
    };
    let ended = promtool.wait(PATIENCE)?.context("promtool does not end")?;
    let mut complaints = String::new();
    said.rewind()?;
    said.read_to_string(&mut complaints)?;
    let mut wrong: Vec<String> = complaints.lines().map(str::to_owned).collect();
    if !ended.success() && wrong.is_empty() {
        wrong.push(format!("promtool: {ended}"));
    }
    let got = format!("{} lines, {} complaints", page.lines().count(), wrong.len());
    Ok(judged(CASE, rung, "no complaint of promtool", &got, wrong))
}

/// `CAP_SYS_PTRACE` and `CAP_BPF`: all that the tracer may keep (docs/security.md).
const KEPT: u64 = 1 << 19 | 1 << 39;

/// The tracer has dropped its privileges, and still exports what the kernel accounts to it.
fn process(rung: &str, served: &Served) -> anyhow::Result<Cell> {
    let pid = served.tracer.pid();
    let page = served.page()?;
    let status = Status::of(pid)?;
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let value = |name: &str| page.sum(name, &[]);
    let rows = [
        (
            "process_resident_memory_bytes",
            status.number("VmRSS:")? * 1024,
        ),
        (
            "process_virtual_memory_bytes",
            status.number("VmSize:")? * 1024,
        ),
        ("process_threads", status.number("Threads:")?),
        ("process_open_fds", fds),
        ("process_max_fds", limit.current.unwrap_or(0)),
    ];
    // The page was made a moment earlier: memory and clients differ a little.
    let is_near = |one: u64, other: u64| one.abs_diff(other) * 10 <= other.max(10);
    let mut wrong: Vec<String> = rows
        .iter()
        .filter(|(name, kernel)| !is_near(value(name), *kernel))
        .map(|(name, kernel)| format!("{name} is {}, the kernel has {kernel}", value(name)))
        .collect();
    let [started, traces] = [
        "process_start_time_seconds",
        "mptcp_trace_start_time_seconds",
    ]
    .map(value);
    if traces.abs_diff(started) > PATIENCE.limit.as_secs() {
        wrong.push(format!(
            "it started at {started}, and traces since {traces}"
        ));
    }
    let cpu = served.tracer.cpu_time()?;
    if value("process_cpu_seconds_total") > cpu.as_secs() + 1 {
        wrong.push(format!("process_cpu_seconds_total exceeds {cpu:?}"));
    }
    if !page.has("process_cpu_seconds_total") {
        wrong.push("process_cpu_seconds_total is missing".to_owned());
    }
    let held = status.hexadecimal("CapEff:")?;
    if held & !KEPT != 0 {
        wrong.push(format!("it still has the capabilities {held:x}"));
    }
    let kernel = format!("{rows:?}");
    let got = format!("the same, with the capabilities {held:x}");
    Ok(judged("served-process", rung, &kernel, &got, wrong))
}

/// Every fallback was the first of its owner, so it began a series. The sum over owners began at
/// zero, so a query of the form in docs/metrics.md does not miss it.
fn first_events(rung: &str, prometheus: &Prometheus, truth: &Counters) -> anyhow::Result<Cell> {
    let query = "increase(sum by (cause) (mptcp_trace_fallbacks_total)[5m:1s])";
    let is_enough = |got: &Counters| {
        let mut least = truth.iter();
        least.all(|(cause, least)| got.get(cause).is_some_and(|got| got >= least))
    };
    let got = PATIENCE.last(|| prometheus.by_cause(query), |got| Ok(is_enough(got)))?;
    let wrong = (!is_enough(&got)).then(|| "first events are missing".to_owned());
    let want = format!("an increase of at least {truth:?}");
    let wrong = Vec::from_iter(wrong);
    Ok(judged(
        "served-first-events",
        rung,
        &want,
        &format!("{got:?}"),
        wrong,
    ))
}

/// Connections of other processes may fall back too: the total must be at least the earlier value
/// plus ours.
fn whole_host(rung: &str, at_least: &Counters, got: &Counters) -> Cell {
    let case = "served-whole-host";
    let count = |of: &Counters, cause: &str| of.get(cause).copied().unwrap_or(0);
    let of_others: u64 = got
        .iter()
        .map(|(cause, count_of)| count_of.saturating_sub(count(at_least, cause)))
        .sum();
    let mut least = at_least.iter();
    let (want, traced) = (format!("{at_least:?}"), format!("{got:?}"));
    if least.any(|(cause, least)| count(got, cause) < *least) {
        let why = "the kernel counted more".into();
        return mismatch(case, rung, &want, &traced, why);
    }
    Cell {
        why: match of_others {
            0 => String::new(),
            of_others => format!("{of_others} from other processes on this host"),
        },
        ..ok(case, rung, &want, &traced)
    }
}

/// Fallbacks by cause, without zeros; limited to a control group if one is given.
fn fallbacks(page: &Page, cgroup: Option<&str>) -> anyhow::Result<Counters> {
    let only = cgroup.map(|path| ("cgroup", path));
    let mut counts = page.by_of("mptcp_trace_fallbacks_total", "cause", only.as_slice());
    ensure!(!counts.contains_key(""), "a fallback without a cause");
    counts.retain(|cause, count| cause != THIRD_ACK && *count > 0);
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    fn read(page: &str, cgroup: Option<&str>) -> anyhow::Result<Counters> {
        fallbacks(&Page::parse(page)?, cgroup)
    }

    #[test]
    fn fallbacks_are_summed_by_cause_whatever_other_labels_there_are() {
        let page = "# TYPE mptcp_trace_fallbacks_total counter\n\
            mptcp_trace_fallbacks_total{cause=\"A\",side=\"active\"} 2\n\
            mptcp_trace_fallbacks_total{side=\"passive\",cause=\"A\"} 3\n\
            mptcp_trace_fallbacks_total{cause=\"B\"} 1\n\
            mptcp_trace_fallbacks_total{cause=\"C\"} 0\n\
            mptcp_trace_other_total{cause=\"A\"} 9\n";
        let want = Counters::from([("A".to_owned(), 5), ("B".to_owned(), 1)]);
        assert_eq!(read(page, None).unwrap(), want);
        assert!(read("mptcp_trace_fallbacks_total{side=\"x\"} 1", None).is_err());
    }

    #[test]
    fn fallbacks_of_a_control_group_are_told_from_those_of_others() {
        let page = "mptcp_trace_fallbacks_total{cause=\"A\",cgroup=\"/x/lab\"} 2\n\
            mptcp_trace_fallbacks_total{cause=\"A\",cgroup=\"/x/lab2\"} 3\n\
            mptcp_trace_fallbacks_total{cause=\"A\"} 4\n";
        let of = |count| Counters::from([("A".to_owned(), count)]);
        assert_eq!(read(page, Some("/x/lab")).unwrap(), of(2));
        assert_eq!(read(page, None).unwrap(), of(9));
    }

    #[test]
    fn of_the_whole_host_there_may_be_more_and_never_less() {
        let of = |count| Counters::from([("A".to_owned(), count)]);
        for (got, want) in [
            (of(2), Outcome::Ok),
            (of(3), Outcome::Ok),
            (of(1), Outcome::Mismatch),
            (Counters::new(), Outcome::Mismatch),
        ] {
            assert_eq!(whole_host("fexit", &of(2), &got).outcome, want, "{got:?}");
        }
    }
}
