//! `mptcp-lab call-cost`: what a system call costs its caller beside the tracer on each rung, and beside kprobe events
//! that were attached by hand.
//!
//! Made for a machine whose time is the number of its instructions (`qemu -icount shift=0 -smp 1`), where the figures
//! repeat. The reader is stopped while calls are measured, which leaves what happens in the call alone; what the reader
//! takes for what they left in the ring is measured by itself.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use serde::Serialize;

use crate::{
    bench::{Call, Caller},
    beside::{Beside, Lines},
    events::Events,
    report::write_line,
    tracer::TracerArgs,
};

/// Calls before those that count: they find everything cold.
const WARM_CALLS: u32 = 100;
/// Time for a machine that has just booted to come to rest.
const SETTLE: Duration = Duration::from_secs(2);
/// Time for the reader to empty the ring between two batches, and to hold lines back.
const DRAIN: Duration = Duration::from_millis(300);

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// The tracer
    #[command(flatten)]
    pub tried: TracerArgs,
    /// Calls in a batch; those of one batch must fit into the ring
    #[arg(long, default_value_t = 1000)]
    pub calls: u32,
    /// Batches; the fastest counts
    #[arg(long, default_value_t = 8)]
    pub batches: u32,
}

/// A line of the report.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Line<'a> {
    /// The kernel.
    Host { kernel: String },
    /// What one call takes.
    CallCost {
        /// `nothing`, a rung, or `kprobe events`.
        beside: &'a str,
        call: Call,
        /// The fastest batch, the reader being stopped.
        ns: f64,
        /// Processor time of the reader for each call.
        reader_ns: f64,
    },
    /// This kernel does not have it.
    Absent { beside: &'a str, why: String },
}

/// Measures, and prints a JSON line for each call beside each rung.
///
/// # Errors
///
/// Says which step failed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    say(&Line::Host { kernel })?;
    std::thread::sleep(SETTLE);
    measure(args, "nothing", None)?;
    let rungs = args.tried.rungs();
    for rung in &rungs {
        let words = ["--attach".to_owned(), rung.clone()];
        match Beside::start(&args.tried.tracer, &words, Lines::Dropped)? {
            Ok(beside) => {
                measure(args, rung, Some(&beside))
                    .with_context(|| format!("cannot measure beside rung {rung}"))?;
                beside.end()?;
            }
            Err(why) => say(&Line::Absent { beside: rung, why })?,
        }
    }
    let by_hand = "kprobe events";
    match Events::attach() {
        Ok(_attached) => measure(args, by_hand, None),
        Err(why) => say(&Line::Absent {
            beside: by_hand,
            why: format!("{why:#}"),
        }),
    }
}

fn measure(args: &Args, beside: &str, tracer: Option<&Beside>) -> anyhow::Result<()> {
    for call in Call::ALL {
        let caller = Caller::new(call)?;
        let mut best = f64::INFINITY;
        let before = reader_ns(tracer)?;
        for _ in 0..args.batches {
            if let Some(tracer) = tracer {
                tracer.signal(Signal::STOP)?;
            }
            let _cold = caller.batch(WARM_CALLS);
            best = best.min(caller.batch(args.calls).as_nanos() as f64);
            if let Some(tracer) = tracer {
                tracer.signal(Signal::CONT)?;
            }
            std::thread::sleep(DRAIN);
        }
        let calls = (args.calls + WARM_CALLS) * args.batches;
        say(&Line::CallCost {
            beside,
            call,
            ns: best / f64::from(args.calls),
            reader_ns: (reader_ns(tracer)? - before) / f64::from(calls),
        })?;
    }
    Ok(())
}

fn reader_ns(tracer: Option<&Beside>) -> anyhow::Result<f64> {
    let time = tracer.map(Beside::cpu_time).transpose()?;
    Ok(time.unwrap_or_default().as_nanos() as f64)
}

fn say(line: &Line<'_>) -> anyhow::Result<()> {
    write_line(&mut std::io::stdout(), line)
}
