//! `mptcp-lab bench-asker`: what one getsockopt costs its caller.

use std::{os::fd::AsRawFd as _, time::Instant};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    net::{Family, Kind, open},
    question::{SOL_TCP, TCP_IS_MPTCP},
    report::write_line,
    sys,
};

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Calls in a batch
    #[arg(long, default_value_t = 20_000)]
    pub queries: u32,
    /// Batches; the median is reported
    #[arg(long, default_value_t = 15)]
    pub batches: u32,
    /// Which option
    #[arg(long, value_enum, default_value_t = What::IsMptcp)]
    pub opt: What,
}

/// Which option to ask for.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// `TCP_IS_MPTCP`
    IsMptcp,
    /// `SO_TYPE`: another option
    Other,
    /// `TCP_NODELAY`: another option that passes the same functions of the kernel
    OtherTcp,
}

#[derive(Serialize)]
struct Measured {
    opt: What,
    ns_median: f64,
    ns_min: f64,
    ns_max: f64,
}

/// Measures, and prints one JSON line.
///
/// # Errors
///
/// Fails if there is no socket to ask about.
pub fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.queries > 0 && args.batches > 0, "nothing to measure");
    let socket = open(Kind::Mptcp, Family::V4).context("cannot open an MPTCP socket")?;
    let (level, option) = match args.opt {
        What::IsMptcp => (SOL_TCP, TCP_IS_MPTCP),
        What::Other => (libc::SOL_SOCKET, libc::SO_TYPE),
        What::OtherTcp => (SOL_TCP, libc::TCP_NODELAY),
    };
    let fd = socket.as_raw_fd();
    let mut batches: Vec<f64> = (0..args.batches)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..args.queries {
                let mut value = -1_i32;
                let mut length = 4_i32;
                let (optval, optlen) = (&raw mut value as usize, &raw mut length as usize);
                let _what_it_says = sys::getsockopt(fd, level, option, optval, optlen);
            }
            start.elapsed().as_nanos() as f64 / f64::from(args.queries)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    let measured = Measured {
        opt: args.opt,
        ns_median: batches[batches.len() / 2],
        ns_min: batches[0],
        ns_max: batches[batches.len() - 1],
    };
    write_line(&mut std::io::stdout(), &measured)
}
