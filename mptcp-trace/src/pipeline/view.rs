//! What is done with findings, and what was done.

use crate::{
    coalesce::AnswerCoalescer,
    correlate::Limits,
    model::{Reconciliation, SensorId},
    observe::Observer,
    tally::Sums,
    wanted::{FailOn, FindingFilter},
};

/// What is done with findings.
#[derive(Debug, Default)]
pub struct View {
    /// Which of them are shown.
    pub wanted: FindingFilter,
    /// Which of them fail the run, shown or not.
    pub fail_on: Vec<FailOn>,
    /// The network namespaces that the run is limited to (inode numbers); empty for all of them.
    pub within: Vec<u32>,
    /// Instead of showing them: what they are summed up by.
    pub summary: Sums,
    /// What was said last, where answers that repeat it are not shown.
    pub repeats: Option<AnswerCoalescer>,
    /// Who is told of each finding that is shown, beside the lines or in place of them.
    pub observers: Vec<Box<dyn Observer>>,
    /// How much is remembered for that.
    pub limits: Limits,
}

/// What is left when a run is over.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Findings printed.
    pub findings: u64,
    /// Of these, what applications asked, and what they were refused.
    pub queries: u64,
    /// And what was concluded when connections ended.
    pub verdicts: u64,
    /// Findings that the reader does not want to see.
    pub not_shown: u64,
    /// Answers that only repeated the one before, and are not shown for that.
    pub coalesced: u64,
    /// Findings that fail the run.
    pub failing: u64,
    /// The first of them, as a line of text.
    pub first_failing: Option<String>,
    /// Records that could not be decoded; each was complained about.
    pub undecodable: u64,
    /// What the kernel counted against what was traced.
    pub reconciled: Vec<Reconciliation>,
    /// Findings that would have been shown, after nothing could be written any more.
    pub unwritten: u64,
}

/// How much was printed at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Printed {
    pub(super) findings: u64,
    pub(super) queries: u64,
    pub(super) verdicts: u64,
}

impl Outcome {
    pub(super) fn printed(&self) -> Printed {
        Printed {
            findings: self.findings,
            queries: self.queries,
            verdicts: self.verdicts,
        }
    }

    /// What was printed since then was not written after all.
    pub(super) fn take_back(&mut self, to: Printed) {
        self.unwritten += self.findings.saturating_sub(to.findings);
        self.findings = to.findings;
        self.queries = to.queries;
        self.verdicts = to.verdicts;
    }

    /// How many findings a sensor made.
    #[must_use]
    pub fn of(&self, sensor: SensorId) -> u64 {
        match sensor {
            SensorId::Query => self.queries,
            SensorId::Fallback => self.findings - self.queries - self.verdicts,
        }
    }
}
