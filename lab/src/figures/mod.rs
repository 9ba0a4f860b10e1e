//! `mptcp-lab figures`: the cost of tracing, compared with equivalent bpftrace scripts in the same
//! run.
//!
//! Machines are noisy: each round measures every configuration once. The report shows the median,
//! over the rounds, of the difference from the untraced calls of the same round, and the difference
//! between the fastest batches.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;
use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;

use crate::{
    bench::{Call, Measured},
    process::{lines_of, own},
    report::write_line,
};

mod beside;
pub(crate) mod rates;
pub(crate) mod resident;
pub(crate) mod start;

use beside::{Beside, Configuration, configurations};

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

/// Measures, and prints Markdown tables or JSON lines.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let configurations = configurations(args);
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
    print(args.json, &lines)
}

/// Prints lines as JSON, or each type of line as a Markdown table.
pub(crate) fn print(json: bool, lines: &[impl Serialize]) -> anyhow::Result<()> {
    if json {
        let mut out = std::io::stdout();
        return lines.iter().try_for_each(|line| write_line(&mut out, line));
    }
    let lines = lines.iter().map(serde_json::to_value);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>()?;
    let mut tables: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for line in &lines {
        let kind = line["type"].to_string();
        tables.entry(kind).or_default().push(&line["data"]);
    }
    for rows in tables.values() {
        let columns = rows.iter().find_map(|row| row.as_object());
        let columns: Vec<&String> = columns.into_iter().flat_map(|row| row.keys()).collect();
        let row = |cells: &mut dyn Iterator<Item = String>| {
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        };
        row(&mut columns.iter().map(|&name| name.clone()));
        row(&mut columns.iter().map(|_| "---".to_owned()));
        for data in rows {
            let cell = |name: &&String| match data[*name].as_f64() {
                Some(number) => format!("{number:.1}"),
                None => data[*name].to_string(),
            };
            row(&mut columns.iter().map(cell));
        }
        println!();
    }
    Ok(())
}

fn measure(
    args: &Args,
    configuration: &Configuration,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let tracer = configuration.beside.start(&args.tracer)?;
    figures
        .start_ms
        .extend(tracer.as_ref().map(|it| it.start.as_secs_f64() * 1e3));
    for measured in ask(args, &CALLS)? {
        let all = figures.calls.entry(measured.opt).or_default();
        all.push(measured);
    }
    if let Some(tracer) = tracer {
        figures
            .resident_kb
            .push(tracer.memory()?.resident_kb as f64);
        tracer.stop(Signal::INT)?.in_order()?;
    }
    Ok(())
}

/// Makes the calls in another process; returns the measurements.
fn ask(args: &Args, calls: &[Call]) -> anyhow::Result<Vec<Measured>> {
    let mut command = own("bench-asker")?;
    command.args(["--queries", &args.queries.to_string()]);
    command.args(["--batches", &args.batches.to_string()]);
    command.args(calls.iter().flat_map(|call| ["--opt", call.word()]));
    lines_of("the asker", &mut command)
}

fn lines<'a>(configuration: &Configuration, figures: &Figures, base: &Figures) -> Vec<Line<'a>> {
    let beside = configuration.name;
    let is_nothing = matches!(configuration.beside, Beside::Nothing);
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
