//! The account of a run: losses, reconciliation, and whether the absence of findings is conclusive.

use std::{fmt::Write as _, io::Write, time::Duration};

use super::{
    proof::gap,
    stages::Stages,
    view::{Detail, Outcome, View},
};
use crate::{
    correlate::{FallbackLedger, reconcile},
    filter::FindingFilter,
    model::{Loss, LossReport, Reconciliation, SensorId},
    observe::State,
    sink::{
        Format, agreement, brief, closing_verdict, coalesced, evicted, failing, folded, not_shown,
        reconciled, summary, unwritten,
    },
};

impl<W: Write> Stages<W> {
    /// Traced fallbacks so far, for the comparison with the kernel's counters.
    #[must_use]
    pub fn fallback_ledger(&self) -> &FallbackLedger {
        self.correlator.fallback_ledger()
    }

    /// The current state: losses, and the reconciliation with the kernel's counters, whose reading
    /// began at `read_at`. An ended namespace is included one last time.
    ///
    /// Callers compare successive states, so all records count here, including those that only
    /// report an owner: how many of these there are is only known after they have been read, later
    /// than the BPF side has counted them.
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

    /// Compares traced fallbacks so far with the kernel's counters.
    #[must_use]
    pub fn reconcile(&self, losses: &LossReport) -> Vec<Reconciliation> {
        reconcile(self.fallback_ledger(), losses, &self.facts)
    }

    /// The losses for output: events that userspace left out count as filtered, and records that
    /// only report an owner do not count.
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

    /// The final report on stderr: how much was observed and shown, what was lost, and whether the
    /// kernel's counters agree. One line if nothing was lost and they agree, unless all of it is
    /// wanted.
    #[must_use]
    pub fn account(
        &self,
        losses: &LossReport,
        reconciliation: &[Reconciliation],
        detail: Detail,
    ) -> String {
        let is_well = self.is_well(losses, reconciliation);
        let is_unread = reconciliation.iter().any(|it| it.unread);
        match (detail, is_well) {
            (Detail::Full, _) | (Detail::Brief | Detail::Trouble, false) => {
                self.full_account(losses, reconciliation)
            }
            (Detail::Trouble, true) if !is_unread => self.failing(),
            (Detail::Brief | Detail::Trouble, true) => {
                self.brief_account(reconciliation) + &self.failing()
            }
        }
    }

    /// True if nothing was lost or left out against the user's wish, and the kernel agrees where its
    /// counters could be read.
    fn is_well(&self, losses: &LossReport, reconciliation: &[Reconciliation]) -> bool {
        let Outcome {
            findings: _,
            by_sensor: _,
            verdicts: _,
            folded: _,
            not_shown: _,
            coalesced: _,
            failing: _,
            first_failing: _,
            undecodable,
            reconciled: _,
            unwritten,
        } = &self.outcome;
        let is_complete = |loss: &Loss| {
            loss.balances() && loss.untraced() == 0 && loss.unfollowed == 0 && loss.over_share == 0
        };
        let mut optional = SensorId::ALL.into_iter().filter(|it| it.is_optional());
        *undecodable == 0
            && *unwritten == 0
            && self.correlator.evicted() == 0
            && losses.sensors.iter().all(is_complete)
            && optional.all(|sensor| self.facts.has_sensor(sensor))
            && reconciliation.iter().all(|it| it.unread || it.agrees())
    }

    /// The line of `--fail-on`, if a finding matched.
    fn failing(&self) -> String {
        let first = self.outcome.first_failing.as_ref();
        first.map_or_else(String::new, |first| failing(self.outcome.failing, first))
    }

    fn brief_account(&self, reconciliation: &[Reconciliation]) -> String {
        let outcome = &self.outcome;
        let mut text = brief(outcome.findings, outcome.folded);
        if self.view.wanted != FindingFilter::default() {
            text.push_str(&format!(", {} not shown", outcome.not_shown));
        }
        if self.view.repeats.is_some() {
            text.push_str(&format!(", {} coalesced", outcome.coalesced));
        }
        text.push_str(&agreement(reconciliation));
        text
    }

    fn full_account(&self, losses: &LossReport, reconciliation: &[Reconciliation]) -> String {
        let losses = self.with_filtered(losses);
        let done = match (&self.format, self.view.summary.is_empty()) {
            (Format::Nothing, _) => "counted",
            (Format::Text(_) | Format::Json, true) => "printed",
            (Format::Text(_) | Format::Json, false) => "summed up",
        };
        let mut text = summary(done, |sensor| *self.outcome.by_sensor.of(sensor), &losses);
        for sensor in SensorId::ALL.into_iter().filter(|it| it.is_optional()) {
            if !self.facts.has_sensor(sensor) {
                let events = sensor.events(0);
                // Writing to memory does not fail.
                let _infallible = writeln!(
                    text,
                    "{sensor}: the sensor is off: {events} were not traced"
                );
            }
        }
        text.push_str(&closing_verdict(done, self.outcome.verdicts));
        text.push_str(&folded(self.outcome.folded));
        if self.view.wanted != FindingFilter::default() {
            text.push_str(&not_shown(self.outcome.not_shown));
        }
        if self.view.repeats.is_some() {
            text.push_str(&coalesced(self.outcome.coalesced));
        }
        if self.correlator.evicted() > 0 {
            text.push_str(&evicted(self.correlator.evicted()));
        }
        text.push_str(&self.failing());
        if self.outcome.unwritten > 0 {
            text.push_str(&unwritten(self.outcome.unwritten));
        }
        text.push_str(&reconciled(reconciliation));
        text
    }

    /// Why the absence of a finding that `--fail-on` names is inconclusive; `None` if it is
    /// conclusive, or if there is such a finding.
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

    /// True if `--fail-on` is in use.
    #[must_use]
    pub fn may_fail(&self) -> bool {
        !self.view.fail_on.is_empty()
    }

    /// The result so far.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}
