//! Who is told of findings beside the printed line: a screen, a page, metrics. They know findings and sums, no stage.

use std::fmt;

use crate::model::{Finding, LossReport, Reconciliation};

/// Somebody who is told of each finding that is shown, in their order.
pub trait Observer: fmt::Debug {
    /// One finding. `path_of` knows paths of control groups that the finding itself does not.
    fn finding<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>);
}

/// What is so at a moment of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// What was seen, and what was lost.
    pub losses: LossReport,
    /// What the kernel counted against what was traced.
    pub reconciled: Vec<Reconciliation>,
    /// Findings that were shown.
    pub findings: u64,
    /// Findings that the reader did not want.
    pub not_shown: u64,
    /// Records that could not be understood.
    pub undecodable: u64,
    /// Connections that were judged before their end, because too many were remembered.
    pub evicted: u64,
    /// Connections that are remembered.
    pub remembered: usize,
}
