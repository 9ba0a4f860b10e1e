//! Sums over findings.

use std::collections::BTreeMap;

use super::Verdict;

/// The property by which findings are grouped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum By {
    /// The process that made the query or holds the connection.
    Process,
    /// The cause of fallbacks.
    Cause,
    /// The network of the peer.
    Dest,
    /// The network namespace.
    Netns,
    /// The control group of the process.
    Cgroup,
    /// The verdict.
    Verdict,
}

impl By {
    /// The default groupings.
    pub const USUAL: [Self; 3] = [Self::Process, Self::Cause, Self::Dest];

    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Cause => "cause",
            Self::Dest => "dest",
            Self::Netns => "netns",
            Self::Cgroup => "cgroup",
            Self::Verdict => "verdict",
        }
    }
}

/// Sums of a group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    /// Distinct connections that began as MPTCP.
    pub connections: u64,
    /// Of these, known to have fallen back.
    pub fallbacks: u64,
    /// Of these, the ones whose application believes in MPTCP.
    pub deceived: u64,
    /// Queries of applications.
    pub queries: u64,
    /// Options and sockets that were refused because of MPTCP.
    pub refusals: u64,
    /// Verdicts on answers, and closing verdicts.
    pub verdicts: BTreeMap<Verdict, u64>,
}

impl Sum {
    /// Share of the connections that fell back, 0 to 1; `None` without connections.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of more than 2^52 connections is right to 15 digits"
    )]
    pub fn share(&self) -> Option<f64> {
        (self.connections > 0).then(|| self.fallbacks as f64 / self.connections as f64)
    }
}

/// A group and its sums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SumRow {
    /// Its name: untrusted bytes, to be escaped before output.
    pub key: String,
    /// The sums.
    pub sum: Sum,
}

/// All groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SumTable {
    /// The grouping property.
    pub by: By,
    /// Most fallbacks first.
    pub rows: Vec<SumRow>,
    /// The sum of the groups beyond the limit.
    pub others: Option<Sum>,
    /// Connections that may have been counted again, because they were evicted in between.
    pub forgotten: u64,
}
