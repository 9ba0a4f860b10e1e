//! The account of a run: losses, reconciliation, and whether the absence of findings is conclusive.

use std::{fmt::Write as _, io::Write, time::Duration};

use super::{
    proof::gap,
    stages::Stages,
    view::{Detail, Outcome, View},
};
use crate::{
    correlate::{FallbackLedger, reconcile, reconcile_paths},
    filter::FindingFilter,
    model::{Facts, Loss, LossReport, Reconciliation, Reconciliations, SensorId},
    observe::State,
    sink::{
        ConnectionCounts, Format, agreement, brief, closing_verdict, coalesced, connections,
        evicted, failing, folded, not_shown, reconciled, summary, unwritten,
    },
};

impl<W: Write> Stages<W> {
    /// Traced fallbacks so far, for the comparison with the kernel's counters.
    #[must_use]
    pub fn fallback_ledger(&self) -> &FallbackLedger {
        self.correlator.fallback_ledger()
    }

    /// True if something that the kernel counts was traced at this time or later.
    pub(super) fn has_counted_since(&self, at: Duration) -> bool {
        let paths = self.correlator.path_counts();
        self.fallback_ledger().last_at() >= Some(at) || paths.last_at() >= Some(at)
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
            peers: self.view.peers.counts(),
        };
        self.correlator.forget_gone(&losses.counted, read_at);
        state
    }

    /// Compares what was traced so far with the kernel's counters.
    #[must_use]
    pub fn reconcile(&self, losses: &LossReport) -> Reconciliations {
        Reconciliations {
            fallbacks: reconcile(self.fallback_ledger(), losses, &self.facts),
            paths: reconcile_paths(self.correlator.path_counts(), losses, &self.facts),
        }
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
            let (acceptances, filtered) = match loss.sensor {
                SensorId::Query => continue,
                SensorId::Fallback => (acceptances, self.correlator.filtered()),
                SensorId::Subflow => (0, self.correlator.paths_filtered()),
            };
            let acceptances = acceptances.min(loss.emitted);
            loss.seen = loss.seen.saturating_sub(acceptances);
            loss.emitted -= acceptances;
            let filtered = filtered.min(loss.emitted);
            loss.emitted -= filtered;
            loss.filtered = loss.filtered.saturating_add(filtered);
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
        reconciliation: &Reconciliations,
        detail: Detail,
    ) -> String {
        let is_well = self.is_well(losses, reconciliation);
        let Reconciliations { fallbacks, paths } = reconciliation;
        let is_unread = fallbacks.iter().chain(paths).any(|it| it.unread);
        match (detail, is_well) {
            (Detail::Full, _) | (Detail::Brief | Detail::Trouble, false) => {
                self.full_account(losses, reconciliation)
            }
            (Detail::Trouble, true) if !is_unread => self.failing(),
            (Detail::Brief | Detail::Trouble, true) => {
                let about = self.of_connections() + &self.view.peers.account();
                self.brief_account(reconciliation) + &about + &self.failing()
            }
        }
    }

    /// True if nothing was lost or left out against the user's wish, and the kernel agrees where its
    /// counters could be read.
    fn is_well(&self, losses: &LossReport, reconciliation: &Reconciliations) -> bool {
        let Outcome {
            findings: _,
            by_sensor: _,
            verdicts: _,
            closed: _,
            folded: _,
            connections: _,
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
        let Reconciliations { fallbacks, paths } = reconciliation;
        // Without the sensor of paths, nothing about fallbacks and queries is missing.
        let needed = [SensorId::Query, SensorId::Fallback];
        *undecodable == 0
            && *unwritten == 0
            && self.correlator.evicted() == 0
            && losses.sensors.iter().all(is_complete)
            && needed
                .into_iter()
                .all(|sensor| self.facts.has_sensor(sensor))
            && !fallbacks.iter().chain(paths).any(Reconciliation::differs)
    }

    /// The connections of the run; `None` if the sensor of paths is off.
    pub(super) fn connections(&self) -> Option<ConnectionCounts> {
        let is_on = self.facts.has_sensor(SensorId::Subflow);
        is_on.then(|| self.outcome.connections.counts())
    }

    /// What became of them, in a sentence.
    fn of_connections(&self) -> String {
        let counts = self.connections();
        counts.map_or_else(String::new, |counts| {
            connections(counts, self.view.is_of_command)
        })
    }

    /// The line of `--fail-on`, if a finding matched.
    fn failing(&self) -> String {
        let first = self.outcome.first_failing.as_ref();
        first.map_or_else(String::new, |first| failing(self.outcome.failing, first))
    }

    fn brief_account(&self, reconciliation: &Reconciliations) -> String {
        let outcome = &self.outcome;
        let mut text = brief(outcome.findings, outcome.folded);
        if self.view.wanted != FindingFilter::default() {
            text.push_str(&format!(", {} not shown", outcome.not_shown));
        }
        if self.view.repeats.is_some() {
            text.push_str(&format!(", {} coalesced", outcome.coalesced));
        }
        text.push_str(&agreement(reconciliation, self.facts.dump.is_some()));
        text
    }

    fn full_account(&self, losses: &LossReport, reconciliation: &Reconciliations) -> String {
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
        text.push_str(&self.of_connections());
        text.push_str(&self.view.peers.account());
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
        match self.facts.dump {
            Some(_) => text.push_str(&format!("counters: {}\n", Facts::UNCOUNTED)),
            None => text.push_str(&reconciled(reconciliation)),
        }
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
