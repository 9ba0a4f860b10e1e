//! Observers of findings besides the printed line: a screen, a page, metrics. They know findings
//! and sums, but no stage.

use std::fmt;

use crate::model::{Finding, LossReport, Reconciliation};

/// Receives each finding that is shown, in order.
pub trait Observer: fmt::Debug {
    /// Takes one finding. `path_of` returns control group paths that the finding does not contain.
    fn finding<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>);
}

/// State of a run at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Observed and lost events.
    pub losses: LossReport,
    /// The kernel's counts compared with the traced events.
    pub reconciled: Vec<Reconciliation>,
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
}
