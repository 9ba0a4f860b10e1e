//! `mptcp-lab start-time`: time from exec until the tracer reports that it is live.

use std::path::PathBuf;

use rustix::process::Signal;
use serde::Serialize;

use super::median;
use crate::{process::Memory, report::write_line, tracer::Run};

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
    let mut memory = Memory::default();
    for _ in 0..args.starts {
        let run = Run::live(&args.tracer, "auto").uncapped()?.measured();
        let tracer = run.start()?.live()?;
        all_ms.push(tracer.start.as_secs_f64() * 1e3);
        memory = tracer.memory()?;
        tracer.stop(Signal::INT)?.in_order()?;
    }
    let line = Line::Start {
        ms_min: all_ms.iter().copied().fold(f64::INFINITY, f64::min),
        ms_median: median(&all_ms),
        resident_kb: memory.resident_kb,
        peak_kb: memory.peak_kb,
    };
    write_line(&mut std::io::stdout(), &line)
}
