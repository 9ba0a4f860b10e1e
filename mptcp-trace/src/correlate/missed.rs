//! Queries for which the kernel skipped the probes: how many are certainly lost, and which
//! connections another one may concern.

use std::{collections::VecDeque, time::Duration};

use crate::model::MissedRuns;

/// After this time the next program has counted a run that the first one missed, unless its thread
/// was preempted for longer.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// State of the missed queries.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// Number of queries that are certainly lost.
    lost: u64,
    /// Readings of the total number of missed runs, where it changed; the first one is the last
    /// that has settled.
    readings: VecDeque<(Duration, u64)>,
    /// Time until which one more query may have been lost.
    by: Option<Duration>,
}

impl Missed {
    /// Takes a reading at `at`; true if more queries may be lost than before.
    ///
    /// The kernel counts a missed run immediately, but the backup program that handles it counts
    /// later. So the current difference of the two counters is inconclusive. Lost is the number of
    /// runs missed some time ago, minus those that backup programs have handled so far.
    pub(super) fn read(&mut self, at: Duration, runs: MissedRuns) -> bool {
        let MissedRuns {
            missed,
            taken,
            takes_turns,
        } = runs;
        let is_settled = |reading: &(Duration, u64)| reading.0.saturating_add(SETTLED_AFTER) <= at;
        while self.readings.get(1).is_some_and(is_settled) {
            self.readings.pop_front();
        }
        if let Some((_at, missed)) = self.readings.front().filter(|it| is_settled(it)) {
            self.lost = self.lost.max(missed.saturating_sub(taken));
        }
        if self.readings.back().is_none_or(|last| last.1 != missed) {
            self.readings.push_back((at, missed));
        }
        let is_news = runs.lost_at_most() > self.lost;
        if is_news {
            self.doubt_until(at);
        }
        // If programs do not take turns, a missed run is lost at once.
        if !takes_turns {
            self.lost = self.lost.max(missed);
        }
        is_news
    }

    /// One more query may have been lost until this time.
    pub(super) fn doubt_until(&mut self, by: Duration) {
        self.by = self.by.max(Some(by));
    }

    /// Time until which a query may have been lost.
    pub(super) fn until(&self) -> Option<Duration> {
        self.by
    }

    /// True if a lost query may concern a connection born at this time.
    pub(super) fn is_in_doubt(&self, born_at: Duration) -> bool {
        self.by.is_some_and(|by| by >= born_at)
    }
}
