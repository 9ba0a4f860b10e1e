//! How findings are shown, and the result of a run.

use super::{connections::Connections, peers::PeerBook};
use crate::{
    aggregation::Sums,
    coalesce::AnswerCoalescer,
    correlate::Limits,
    filter::{FailOn, FindingFilter},
    model::{Finding, PerSensor, Reconciliations},
    observe::Observer,
    sink::{self, Folded},
};

/// How findings are shown.
#[derive(Debug, Default)]
pub struct View {
    /// Which of them are shown.
    pub wanted: FindingFilter,
    /// Findings that fail the run, shown or not.
    pub fail_on: Vec<FailOn>,
    /// Findings of [`Finding::is_routine`](crate::model::Finding::is_routine) have no line, unless
    /// the filter names their kind.
    pub hides_routine: bool,
    /// The run traces one command, of which it is worth saying that it made no MPTCP connection.
    pub is_of_command: bool,
    /// The network namespaces that the run is limited to (inode numbers); empty for all.
    pub within: Vec<u32>,
    /// Summaries that replace the findings, if any.
    pub summary: Sums,
    /// How often peers spoke MPTCP so far.
    pub peers: PeerBook,
    /// The summaries are printed later, with what another capture adds.
    pub sums_follow: bool,
    /// The last answers, if repeated ones are suppressed.
    pub repeats: Option<AnswerCoalescer>,
    /// Observers of each shown finding, in addition to the lines or instead of them.
    pub observers: Vec<Box<dyn Observer>>,
    /// Limits of the correlator.
    pub limits: Limits,
}

/// How much of the account is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Detail {
    /// Nothing, unless something was lost or does not agree.
    Trouble,
    /// One line, unless something was lost or does not agree.
    #[default]
    Brief,
    /// All of it.
    Full,
}

/// Result of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Findings printed.
    pub findings: u64,
    /// Of these, the ones that a sensor observed.
    pub by_sensor: PerSensor<u64>,
    /// Of these, closing verdicts.
    pub verdicts: u64,
    /// Of these, ends of connections.
    pub closed: u64,
    /// Findings without a line of their own.
    pub folded: Folded,
    /// Connections, shown or not.
    pub connections: Connections,
    /// Findings that the filter left out.
    pub not_shown: u64,
    /// Repeated answers that were suppressed.
    pub coalesced: u64,
    /// Findings that fail the run.
    pub failing: u64,
    /// The first of them, as a line of text.
    pub first_failing: Option<String>,
    /// Records that could not be decoded; each was reported.
    pub undecodable: u64,
    /// The kernel's counts compared with the traced events.
    pub reconciled: Reconciliations,
    /// Findings that would have been shown after output became impossible.
    pub unwritten: u64,
}

/// How much was printed at some moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Printed {
    pub(super) findings: u64,
    pub(super) by_sensor: PerSensor<u64>,
    pub(super) verdicts: u64,
    pub(super) closed: u64,
}

impl Outcome {
    /// Counts a finding that is shown, with or without a line of its own.
    pub(super) fn count(&mut self, finding: &Finding, printed: sink::Printed) {
        match printed {
            sink::Printed::Line => {}
            sink::Printed::WithExisting => {
                self.folded.existing += 1;
                return;
            }
            sink::Printed::WithFallback => {
                self.folded.never_asked += 1;
                return;
            }
        }
        self.findings += 1;
        match finding.sensor() {
            Some(sensor) => *self.by_sensor.of_mut(sensor) += 1,
            None if matches!(finding, Finding::Closed(_)) => self.closed += 1,
            None => self.verdicts += 1,
        }
    }

    pub(super) fn printed(&self) -> Printed {
        Printed {
            findings: self.findings,
            by_sensor: self.by_sensor,
            verdicts: self.verdicts,
            closed: self.closed,
        }
    }

    /// Findings that were printed, in lines of their own or in others: as many in each format.
    #[must_use]
    pub fn with_folded(&self) -> u64 {
        let Folded {
            existing,
            never_asked,
            // Not part of another line: hidden.
            routine: _,
        } = self.folded;
        self.findings + existing + never_asked
    }

    /// Subtracts what was printed since then, because it was not written.
    pub(super) fn take_back(&mut self, to: Printed) {
        self.unwritten += self.findings.saturating_sub(to.findings);
        self.findings = to.findings;
        self.by_sensor = to.by_sensor;
        self.verdicts = to.verdicts;
        self.closed = to.closed;
    }
}
