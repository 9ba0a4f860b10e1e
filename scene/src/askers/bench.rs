//! `mptcp-lab bench-asker`: the cost of one system call for its caller.

use std::{
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::{
    lines::write_line,
    net::{Family, Kind, open},
    query::{SOL_TCP, TCP_IS_MPTCP},
    sys,
};

/// Calls per burst, and the pause after it: bpftrace's buffer holds a few thousand lines.
const BURST: u32 = 500;
const BURST_PAUSE: Duration = Duration::from_millis(20);
/// Bursts that replace one batch of back-to-back calls.
const BURSTS_PER_BATCH: u32 = 4;

/// Arguments of `mptcp-lab bench-asker`.
#[derive(clap::Args)]
pub struct Args {
    /// Calls per batch
    #[arg(long, default_value_t = 20_000)]
    pub queries: u32,
    /// Number of batches; reports median and minimum
    #[arg(long, default_value_t = 15)]
    pub batches: u32,
    /// Call to measure (repeatable); one line each
    #[arg(long, value_enum, default_value = "is-mptcp")]
    pub opt: Vec<Call>,
}

/// A system call to measure.
#[derive(
    clap::ValueEnum, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// `TCP_IS_MPTCP` of an MPTCP socket: the traced call
    IsMptcp,
    /// `TCP_IS_MPTCP` in bursts of 500, 20 ms apart: slow enough for every tracer that must not
    /// lose any
    InBursts,
    /// `SO_TYPE` of an MPTCP socket: an option at another level
    Other,
    /// `TCP_NODELAY` of an MPTCP socket: another option that passes the same kernel functions
    OtherTcp,
    /// `TCP_NODELAY` of a TCP socket: unrelated to MPTCP, but passes a probe
    PlainTcp,
    /// `getppid`: another system call
    Unrelated,
}

impl Call {
    /// All calls that differ for the kernel.
    pub const ALL: [Self; 5] = [
        Self::IsMptcp,
        Self::OtherTcp,
        Self::Other,
        Self::PlainTcp,
        Self::Unrelated,
    ];

    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::IsMptcp => "is-mptcp",
            Self::InBursts => "in-bursts",
            Self::Other => "other",
            Self::OtherTcp => "other-tcp",
            Self::PlainTcp => "plain-tcp",
            Self::Unrelated => "unrelated",
        }
    }
}

/// Duration of one call, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The call measured.
    pub opt: Call,
    /// Median of the batches.
    pub ns_median: f64,
    /// Fastest batch.
    pub ns_min: f64,
    /// Slowest batch.
    pub ns_max: f64,
}

/// Makes the calls, on its own socket.
pub struct Caller {
    call: Call,
    socket: Socket,
}

impl Caller {
    /// Creates a caller with a new socket.
    pub fn new(call: Call) -> anyhow::Result<Self> {
        let kind = match call {
            Call::IsMptcp | Call::InBursts | Call::Other | Call::OtherTcp | Call::Unrelated => {
                Kind::Mptcp
            }
            Call::PlainTcp => Kind::Tcp,
        };
        let socket = open(kind, Family::V4).with_context(|| format!("cannot open {kind:?}"))?;
        Ok(Self { call, socket })
    }

    /// Makes this number of calls; returns their total duration.
    pub fn batch(&self, calls: u32) -> Duration {
        let fd = self.socket.as_raw_fd();
        let (level, option) = match self.call {
            Call::IsMptcp | Call::InBursts => (SOL_TCP, TCP_IS_MPTCP),
            Call::Other => (libc::SOL_SOCKET, libc::SO_TYPE),
            Call::OtherTcp | Call::PlainTcp => (SOL_TCP, libc::TCP_NODELAY),
            Call::Unrelated => return unrelated(calls),
        };
        let start = Instant::now();
        for _ in 0..calls {
            let mut value = -1_i32;
            let mut length = 4_i32;
            let (optval, optlen) = (&raw mut value as usize, &raw mut length as usize);
            let _what_it_says = sys::getsockopt(fd, level, option, optval, optlen);
        }
        start.elapsed()
    }
}

fn unrelated(calls: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..calls {
        let _parent = rustix::process::getppid();
    }
    start.elapsed()
}

/// Measures, and prints one JSON line per call.
pub fn run(args: &Args) -> anyhow::Result<()> {
    for &call in &args.opt {
        write_line(&mut std::io::stdout(), &measure(call, args)?)?;
    }
    Ok(())
}

fn measure(call: Call, args: &Args) -> anyhow::Result<Measured> {
    anyhow::ensure!(args.queries > 0 && args.batches > 0, "nothing to measure");
    let caller = Caller::new(call)?;
    let (count, queries, pause) = match call {
        Call::InBursts => (args.batches * BURSTS_PER_BATCH, BURST, BURST_PAUSE),
        Call::IsMptcp | Call::Other | Call::OtherTcp | Call::PlainTcp | Call::Unrelated => {
            (args.batches, args.queries, Duration::ZERO)
        }
    };
    let mut batches: Vec<f64> = (0..count)
        .map(|_| {
            let took = caller.batch(queries);
            std::thread::sleep(pause);
            took.as_nanos() as f64 / f64::from(queries)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    Ok(Measured {
        opt: call,
        ns_median: batches[batches.len() / 2],
        ns_min: batches[0],
        ns_max: batches[batches.len() - 1],
    })
}
