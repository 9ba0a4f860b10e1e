//! `mptcp-lab call-cost`: the cost of a system call for its caller, with the tracer on each attach
//! method, and with hand-made kprobe events.
//!
//! Made for a machine whose clock counts instructions (`qemu -icount shift=0 -smp 1`), where
//! results repeat exactly. The reader is stopped while calls are measured, so only the cost inside
//! the call remains; the reader's cost for draining the ring is measured separately.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use serde::Serialize;

use crate::{
    bench::{Call, Caller},
    cells::kernel,
    events::Events,
    report::write_line,
    tracer::{Run, Tracer, TracerArgs},
};

/// Warm-up calls before the measured ones.
const WARM_CALLS: u32 = 100;
/// Time for a freshly booted machine to become idle.
const SETTLE: Duration = Duration::from_secs(2);
/// Time for the reader to drain the ring between two batches, including lines it holds back.
const DRAIN: Duration = Duration::from_millis(300);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    pub(crate) tried: TracerArgs,
    /// Calls per batch; the records of one batch must fit into the ring
    #[arg(long, default_value_t = 1000)]
    pub(crate) calls: u32,
    /// Number of batches; the fastest counts
    #[arg(long, default_value_t = 8)]
    pub(crate) batches: u32,
}

/// A line of the report.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Line<'a> {
    /// The running kernel.
    Host { kernel: String },
    /// Cost of one call.
    CallCost {
        /// `nothing`, an attach method, or `kprobe events`.
        beside: &'a str,
        call: Call,
        /// Fastest batch, with the reader stopped.
        ns: f64,
        /// CPU time of the reader per call.
        reader_ns: f64,
    },
    /// Not available on this kernel.
    Absent { beside: &'a str, why: String },
}

/// Measures, and prints one JSON line per call and attach method.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    say(&Line::Host { kernel: kernel() })?;
    std::thread::sleep(SETTLE);
    measure(args, "nothing", None)?;
    let rungs = args.tried.rungs();
    for rung in &rungs {
        match Run::live(&args.tried.tracer, rung)
            .uncapped()?
            .start()?
            .available()?
        {
            Ok(tracer) => {
                measure(args, rung, Some(&tracer))
                    .with_context(|| format!("cannot measure with attach method {rung}"))?;
                tracer.stop(Signal::INT)?.in_order()?;
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

fn measure(args: &Args, beside: &str, tracer: Option<&Tracer>) -> anyhow::Result<()> {
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

fn reader_ns(tracer: Option<&Tracer>) -> anyhow::Result<f64> {
    let time = tracer.map(Tracer::cpu_time).transpose()?;
    Ok(time.unwrap_or_default().as_nanos() as f64)
}

fn say(line: &Line<'_>) -> anyhow::Result<()> {
    write_line(&mut std::io::stdout(), line)
}
