//! Observers of findings besides the printed line: a screen, a page, metrics. They know findings
//! and sums, but no stage.

use std::fmt;

use crate::model::{Finding, LossReport, Path, PeerCounts, Reconciliations};

/// Receives each finding that is shown, in order.
pub trait Observer: fmt::Debug {
    /// Takes one finding. `path_of` returns control group paths that the finding does not contain.
    fn finding<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>);

    /// Takes what an open path has carried so far; only an observer that asked for it uses it.
    fn reading(&mut self, _path: &Path) {}
}

/// State of a run at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Observed and lost events.
    pub losses: LossReport,
    /// The kernel's counts compared with the traced events.
    pub reconciled: Reconciliations,
    /// Findings shown.
    pub findings: u64,
    /// Findings that the filter left out.
    pub not_shown: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Connections that got their verdict before their end, because the table was full.
    pub evicted: u64,
    /// Tracked connections.
    pub remembered: usize,
    /// Whether peers or paths take MPTCP away.
    pub peers: PeerCounts,
}
