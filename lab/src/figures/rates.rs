//! `mptcp-lab rates`: the query rate at which a tracer loses its first query, and the CPU time of
//! its reader.

use std::{os::fd::AsFd as _, path::PathBuf, time::Duration};

use rustix::process::Signal;
use serde::Serialize;

use crate::{
    load, netns,
    report::write_line,
    tracer::{Counted, Run},
};

/// Time for the reader to drain the ring before its CPU time is read.
const DRAIN: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to measure
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Queries per second (repeatable); 0: as fast as possible
    #[arg(long, value_name = "RATE", required = true)]
    pub(crate) rate: Vec<u64>,
    /// Duration of each rate, seconds
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Querying threads
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: u32,
}

/// The report.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Line {
    /// Results of one rate.
    Rate {
        /// Intended queries per second; 0: as many as possible.
        offered: u64,
        seconds: f64,
        /// Queries made.
        asked: u64,
        /// Query lines.
        lines: u64,
        ring_full: u64,
        /// Any other difference between the two.
        otherwise_lost: u64,
        /// Whether every query is accounted for.
        balances: bool,
        /// CPU time of the tracer meanwhile.
        reader_cpu_s: f64,
        peak_kb: u64,
    },
}

/// Measures, and prints one JSON line per rate.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    for &rate in &args.rate {
        let word = if rate == 0 {
            "as many as possible".to_owned()
        } else {
            rate.to_string()
        };
        eprintln!(
            "mptcp-lab: {word} queries per second for {} s",
            args.seconds
        );
        write_line(&mut std::io::stdout(), &measure(args, rate)?)?;
    }
    Ok(())
}

fn measure(args: &Args, rate: u64) -> anyhow::Result<Line> {
    let namespace = netns::new()?;
    let number = netns::number(namespace.as_fd())?.to_string();
    let tracer = Run::live(&args.tracer, "auto")
        .uncapped()?
        .args(["--netns", &number])
        .reading(Counted::default())
        .start()?
        .live()?;
    let before = tracer.cpu_time()?;
    let load = load::Args {
        threads: args.threads,
        rate,
        seconds: args.seconds,
        queries: u64::MAX,
        begun: None,
    };
    let asked = netns::within(namespace.as_fd(), || load::ask(&load))?;
    std::thread::sleep(DRAIN);
    let cpu = tracer.cpu_time()?.saturating_sub(before);
    let peak_kb = tracer.memory()?.peak_kb;
    let counts = tracer.stop(Signal::INT)?.in_order()?.reader()?.close()?;
    let losses = counts.of_queries()?;
    Ok(Line::Rate {
        offered: rate,
        seconds: asked.seconds,
        asked: asked.asked,
        lines: counts.queries,
        ring_full: losses.ring_full,
        otherwise_lost: losses.lost() - losses.ring_full + losses.capped,
        balances: losses.balances()
            && losses.seen - losses.filtered == asked.asked
            && losses.emitted == counts.queries,
        reader_cpu_s: cpu.as_secs_f64(),
        peak_kb,
    })
}
