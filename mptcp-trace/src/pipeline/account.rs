//! What a run says of itself: losses, the account, whether silence proves anything.

use std::{io::Write, time::Duration};

use super::{
    proof::gap,
    stages::Stages,
    view::{Outcome, View},
};
use crate::{
    correlate::{FallbackLedger, reconcile},
    model::{LossReport, Reconciliation, SensorId},
    observe::State,
    sink::{
        Format, coalesced, evicted, failing, last_words, not_shown, reconciled, summary, unwritten,
    },
    wanted::FindingFilter,
};

impl<W: Write> Stages<W> {
    /// What was traced so far, for the comparison with the kernel's counters.
    #[must_use]
    pub fn books(&self) -> &FallbackLedger {
        self.correlator.books()
    }

    /// What is so now: what was lost, and whether the kernel's counters agree, which were read from `read_at` on. A
    /// namespace that is gone is told of this once more.
    ///
    /// Whoever asks again and again compares: here all records count, also those that only tell whose something else is.
    /// How many these are is known once they have been read, later than the kernel has counted them.
    pub fn state(&mut self, losses: &LossReport, read_at: Duration) -> State {
        let state = State {
            losses: self.with_filtered_of(losses, 0),
            reconciled: self.reconcile(losses),
            findings: self.outcome.findings,
            not_shown: self.outcome.not_shown,
            undecodable: self.outcome.undecodable,
            evicted: self.correlator.evicted(),
            remembered: self.correlator.remembered(),
        };
        self.correlator.forget_gone(&losses.counted, read_at);
        state
    }

    /// Compares what was traced so far with what the kernel counted.
    #[must_use]
    pub fn reconcile(&self, losses: &LossReport) -> Vec<Reconciliation> {
        reconcile(self.books(), losses, &self.facts)
    }

    /// The losses as they are told: what was sorted out on this side of the ring counts as filtered, and what
    /// only tells whose something else is does not count.
    #[must_use]
    pub fn with_filtered(&self, losses: &LossReport) -> LossReport {
        self.with_filtered_of(losses, self.correlator.acceptances())
    }

    fn with_filtered_of(&self, losses: &LossReport, acceptances: u64) -> LossReport {
        let mut losses = losses.clone();
        for loss in &mut losses.sensors {
            if loss.sensor == SensorId::Fallback {
                let acceptances = acceptances.min(loss.emitted);
                loss.seen = loss.seen.saturating_sub(acceptances);
                loss.emitted -= acceptances;
                let filtered = self.correlator.filtered().min(loss.emitted);
                loss.emitted -= filtered;
                loss.filtered = loss.filtered.saturating_add(filtered);
            }
        }
        losses
    }

    /// The last words on stderr: how much was seen and shown, what was not, and whether the kernel's counters
    /// agree.
    #[must_use]
    pub fn account(&self, losses: &LossReport, reconciliation: &[Reconciliation]) -> String {
        let losses = self.with_filtered(losses);
        let done = match (self.format, self.view.summary.is_empty()) {
            (Format::Nothing, _) => "counted",
            (Format::Text { .. } | Format::Json, true) => "printed",
            (Format::Text { .. } | Format::Json, false) => "summed up",
        };
        let mut text = summary(done, |sensor| self.outcome.of(sensor), &losses);
        if !self.has_fallbacks {
            text.push_str("fallback: the sensor is off: fallbacks were not traced\n");
        }
        text.push_str(&last_words(done, self.outcome.verdicts));
        if self.view.wanted != FindingFilter::default() {
            text.push_str(&not_shown(self.outcome.not_shown));
        }
        if self.view.repeats.is_some() {
            text.push_str(&coalesced(self.outcome.coalesced));
        }
        if self.correlator.evicted() > 0 {
            text.push_str(&evicted(self.correlator.evicted()));
        }
        if let Some(first) = &self.outcome.first_failing {
            text.push_str(&failing(self.outcome.failing, first));
        }
        if self.outcome.unwritten > 0 {
            text.push_str(&unwritten(self.outcome.unwritten));
        }
        text.push_str(&reconciled(reconciliation));
        text
    }

    /// Why the absence of a finding that `--fail-on` names proves nothing; none if it does, or if there is such a finding.
    #[must_use]
    pub fn gap(&self, losses: &LossReport) -> Option<String> {
        if self.outcome.failing > 0 {
            return None;
        }
        let View {
            fail_on, within, ..
        } = &self.view;
        gap(
            fail_on,
            within,
            losses,
            &self.outcome.reconciled,
            &self.facts,
        )
    }

    /// True if some finding shall fail the run.
    #[must_use]
    pub fn may_fail(&self) -> bool {
        !self.view.fail_on.is_empty()
    }

    /// What was done.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}
