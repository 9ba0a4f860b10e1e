//! `mptcp-lab served`: the metrics of `mptcp-trace serve` must match the kernel's counters, on its
//! page and in a real Prometheus.

use std::path::PathBuf;

use anyhow::ensure;

use crate::{
    cells::{Cells, judged, mismatch, ok, skipped},
    cgroup::Cgroup,
    metrics::Page,
    netns::Counters,
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
    let before = fallbacks(&served.page()?, None)?;
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
            if let Some(dashboard) = &args.dashboard {
                cells.put(prometheus.draws(dashboard, rung)?)?;
            }
        }
    }
    drop(prometheus);
    served.reload()?;
    for path in ["/healthz", "/readyz"] {
        get(&served.address, path)?;
    }
    cells.put(settled("served-reload", rung, want, on_page)?)?;
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

/// Fallbacks by cause; limited to a control group if one is given.
fn fallbacks(page: &Page, cgroup: Option<&str>) -> anyhow::Result<Counters> {
    let only = cgroup.map(|path| ("cgroup", path));
    let mut counts = page.by_of("mptcp_trace_fallbacks_total", "cause", only.as_slice());
    ensure!(!counts.contains_key(""), "a fallback without a cause");
    counts.remove(THIRD_ACK);
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
