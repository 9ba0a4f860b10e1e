//! `mptcp-lab figures`: the cost of tracing, compared with equivalent bpftrace scripts in the same
//! run.
//!
//! Machines are noisy: each round measures every configuration once. The report shows the median,
//! over the rounds, of the difference from the untraced calls of the same round, and the difference
//! between the fastest batches.

use std::{collections::BTreeMap, fs, io::Write as _, path::PathBuf, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    bench::{Call, Measured},
    report::write_line,
    scratch::scratch,
};

mod beside;
pub(crate) mod rates;
pub(crate) mod resident;
pub(crate) mod start;

use beside::{Configuration, Ready, configurations};

/// The measured calls.
const CALLS: [Call; 4] = [Call::IsMptcp, Call::InBursts, Call::Other, Call::Unrelated];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to measure
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Number of rounds
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: u32,
    /// Calls per batch; a round takes the median of its batches
    #[arg(long, default_value_t = 20_000)]
    pub(crate) queries: u32,
    /// Batches per round
    #[arg(long, default_value_t = 15)]
    pub(crate) batches: u32,
    /// Skip bpftrace
    #[arg(long)]
    pub(crate) no_bpftrace: bool,
    /// Print JSON lines instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Measurements of one configuration.
#[derive(Default)]
struct Figures {
    calls: BTreeMap<Call, Vec<Measured>>,
    start_ms: Vec<f64>,
    resident_kb: Vec<f64>,
}

/// A line of the report.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Line<'a> {
    /// Duration of a call with one configuration; `added_*` are null without a tracer.
    Call {
        beside: &'a str,
        call: Call,
        ns_median: f64,
        ns_min: f64,
        added_ns_median: Option<f64>,
        added_ns_min: Option<f64>,
    },
    /// Resource usage of one configuration under that load.
    Footprint {
        beside: &'a str,
        start_ms: f64,
        resident_kb: f64,
    },
}

/// Measures, and prints a Markdown table or JSON lines.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let configurations = configurations(args)?;
    let mut figures: Vec<Figures> = configurations.iter().map(|_| Figures::default()).collect();
    for round in 0..args.rounds {
        eprintln!("mptcp-lab: round {} of {}", round + 1, args.rounds);
        for (configuration, figures) in configurations.iter().zip(&mut figures) {
            measure(args, configuration, figures)
                .with_context(|| format!("cannot measure {}", configuration.name))?;
        }
    }
    let base = figures.first().context("nothing was measured")?;
    let lines: Vec<Line<'_>> = configurations
        .iter()
        .zip(&figures)
        .flat_map(|(configuration, figures)| lines(configuration, figures, base))
        .collect();
    if args.json {
        for line in &lines {
            write_line(&mut std::io::stdout(), line)?;
        }
    } else {
        table(&lines)?;
    }
    for file in [
        "ready",
        "printing.bt",
        "counting.bt",
        "printing.out",
        "counting.out",
    ] {
        let _never_made = fs::remove_file(scratch(file));
    }
    Ok(())
}

fn measure(
    args: &Args,
    configuration: &Configuration,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let tracer = configuration.begin()?;
    figures
        .start_ms
        .extend(tracer.as_ref().map(|it| it.start_ms));
    if matches!(configuration.ready, Ready::Output(_)) {
        // bpftrace reports that it is attaching, not that it has attached.
        std::thread::sleep(Duration::from_millis(1500));
    }
    for measured in beside::ask(args, &CALLS)? {
        figures
            .calls
            .entry(measured.opt)
            .or_default()
            .push(measured);
    }
    if let Some(tracer) = tracer {
        figures.resident_kb.push(tracer.end()? as f64);
    }
    Ok(())
}

fn lines<'a>(configuration: &Configuration, figures: &Figures, base: &Figures) -> Vec<Line<'a>> {
    let beside = configuration.name;
    let is_nothing = configuration.command.is_empty();
    let mut lines: Vec<Line<'a>> = Vec::new();
    for (call, rounds) in &figures.calls {
        let medians: Vec<f64> = rounds.iter().map(|round| round.ns_median).collect();
        let untraced = base.calls.get(call).map_or(&[][..], Vec::as_slice);
        let untraced_medians: Vec<f64> = untraced.iter().map(|round| round.ns_median).collect();
        let added = median(&differences(&medians, &untraced_medians));
        lines.push(Line::Call {
            beside,
            call: *call,
            ns_median: median(&medians),
            ns_min: fastest(rounds),
            added_ns_median: (!is_nothing).then_some(added),
            added_ns_min: (!is_nothing).then(|| fastest(rounds) - fastest(untraced)),
        });
    }
    if !is_nothing {
        lines.push(Line::Footprint {
            beside,
            start_ms: median(&figures.start_ms),
            resident_kb: median(&figures.resident_kb),
        });
    }
    lines
}

fn table(lines: &[Line<'_>]) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| beside the caller | call | ns | added, median | added, fastest |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    for line in lines {
        match line {
            Line::Call {
                beside,
                call,
                ns_median,
                ns_min: _,
                added_ns_median,
                added_ns_min,
            } => {
                let added =
                    |ns: &Option<f64>| ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns:+.0}"));
                writeln!(
                    out,
                    "| {beside} | {call:?} | {ns_median:.0} | {} | {} |",
                    added(added_ns_median),
                    added(added_ns_min)
                )?;
            }
            Line::Footprint { .. } => {}
        }
    }
    writeln!(
        out,
        "\n| beside the caller | start, ms | resident, KB |\n|---|---|---|"
    )?;
    for line in lines {
        match line {
            Line::Footprint {
                beside,
                start_ms,
                resident_kb,
            } => writeln!(out, "| {beside} | {start_ms:.0} | {resident_kb:.0} |")?,
            Line::Call { .. } => {}
        }
    }
    Ok(())
}

fn fastest(rounds: &[Measured]) -> f64 {
    rounds
        .iter()
        .map(|round| round.ns_min)
        .fold(f64::INFINITY, f64::min)
}

fn differences(with: &[f64], without: &[f64]) -> Vec<f64> {
    with.iter()
        .zip(without)
        .map(|(with, without)| with - without)
        .collect()
}

/// The median; NaN for an empty slice.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
        assert_eq!(differences(&[3.0, 5.0], &[1.0, 1.0]), [2.0, 4.0]);
    }
}
