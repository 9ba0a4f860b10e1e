//! The tracer's JSON lines, as far as the lab reads them (docs/output.md).

use serde::Deserialize;

use crate::report::Endpoint;

/// A line of `mptcp-trace --json`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum TracedLine {
    /// The first.
    Start(Start),
    /// An application asked.
    Query(Box<Traced>),
    /// The last.
    End(End),
}

/// What the tracer says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Start {
    /// Its sensors.
    pub sensors: Vec<Sensor>,
}

/// One sensor.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Sensor {
    /// The rung in use.
    pub rung: String,
    /// What it cannot tell.
    pub limits: Vec<String>,
}

/// One query.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Traced {
    /// Process that asked.
    pub pid: u32,
    /// Thread that asked.
    pub tid: u32,
    /// Inode number of the socket.
    pub inode: Option<u64>,
    /// What the application holds.
    pub protocol: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// State of the connection.
    pub state: String,
    /// Own address.
    pub local: Endpoint,
    /// The other end's address.
    pub remote: Endpoint,
    /// What the kernel said.
    pub answer: Option<String>,
    /// The error that the caller got.
    pub errno: Option<String>,
    /// Whether the connection fell back.
    pub fell_back: Option<bool>,
    /// How it was seen.
    pub rung: String,
}

/// The counters at the end.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct End {
    /// Lines before this one.
    pub findings: u64,
    /// One entry a sensor.
    pub losses: Vec<Losses>,
}

/// Counters of a sensor.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Losses {
    /// Questions that the probes saw.
    pub seen: u64,
    /// Put into the ring.
    pub emitted: u64,
    /// Left out by the filter.
    pub filtered: u64,
    /// Lost: ring full.
    pub ring_full: u64,
    /// Lost: not readable.
    pub faulted: u64,
    /// Lost: too many at once.
    pub table_full: u64,
    /// Lost: return not seen.
    pub unfinished: u64,
    /// Skipped by the kernel, never seen.
    pub missed: u64,
}

impl Losses {
    /// Seen, wanted, and not printed.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ring_full + self.faulted + self.table_full + self.unfinished
    }

    /// Everything seen is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.seen == self.emitted + self.filtered + self.lost()
    }
}
