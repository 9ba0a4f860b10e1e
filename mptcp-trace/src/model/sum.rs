//! Sums over many findings.

use std::collections::BTreeMap;

use super::Verdict;

/// What findings are grouped by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum By {
    /// Who asked, or who holds the connection.
    Process,
    /// Why connections fell back.
    Cause,
    /// The network of the other end.
    Dest,
    /// The network namespace.
    Netns,
    /// The control group of the process.
    Cgroup,
    /// What was concluded.
    Verdict,
}

impl By {
    /// What is printed if nothing is said.
    pub const USUAL: [Self; 3] = [Self::Process, Self::Cause, Self::Dest];

    /// The word for it.
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

/// What was seen of a group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    /// Different connections that began as MPTCP.
    pub connections: u64,
    /// Of these, known to have fallen back.
    pub fallbacks: u64,
    /// Of these, with an application that believes in MPTCP.
    pub deceived: u64,
    /// Questions of applications.
    pub questions: u64,
    /// Options and sockets that were refused because of MPTCP.
    pub refusals: u64,
    /// Verdicts about answers, and last words.
    pub verdicts: BTreeMap<Verdict, u64>,
}

impl Sum {
    /// Which part of the connections fell back, 0 to 1; none if there are none.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of more than 2^52 connections is right to 15 digits"
    )]
    pub fn share(&self) -> Option<f64> {
        (self.connections > 0).then(|| self.fallbacks as f64 / self.connections as f64)
    }
}

/// A group and what was seen of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SumRow {
    /// Its name: bytes from outside, not yet fit for a terminal.
    pub key: String,
    /// The sums.
    pub sum: Sum,
}

/// All groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SumTable {
    /// What they are grouped by.
    pub by: By,
    /// Most fallbacks first.
    pub rows: Vec<SumRow>,
    /// What there was no room for.
    pub others: Option<Sum>,
    /// Connections that may have been counted again, because too many were remembered.
    pub forgotten: u64,
}
