//! `mptcp-lab start-time`: time from exec until the tracer reports that it is live.

use std::path::PathBuf;

use serde::Serialize;

use super::median;
use crate::{
    beside::{Beside, Lines, Memory},
    report::write_line,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to measure
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Number of starts
    #[arg(long, default_value_t = 10)]
    pub(crate) starts: u32,
}

/// The report.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Line {
    /// All starts.
    Start {
        ms_min: f64,
        ms_median: f64,
        resident_kb: u64,
        peak_kb: u64,
    },
}

/// Measures, and prints a JSON line.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut all_ms = Vec::new();
    let mut memory = Memory {
        resident_kb: 0,
        peak_kb: 0,
    };
    for _ in 0..args.starts {
        let beside = Beside::start(&args.tracer, &[], Lines::Dropped)?
            .map_err(|why| anyhow::anyhow!("this kernel cannot be traced: {why}"))?;
        all_ms.push(beside.start.as_secs_f64() * 1e3);
        memory = beside.memory()?;
        beside.end()?;
    }
    let line = Line::Start {
        ms_min: all_ms.iter().copied().fold(f64::INFINITY, f64::min),
        ms_median: median(&all_ms),
        resident_kb: memory.resident_kb,
        peak_kb: memory.peak_kb,
    };
    write_line(&mut std::io::stdout(), &line)
}
