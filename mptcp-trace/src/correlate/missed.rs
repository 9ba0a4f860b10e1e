//! Questions that the kernel kept from the probes: how many are lost for sure, and until when may one more have been?

use std::{collections::VecDeque, time::Duration};

use crate::model::MissedRuns;

/// Another program that takes a run which the first one missed has counted it by then, unless its thread stood still for so long.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// So many are lost for sure.
    lost: u64,
    /// How many runs were missed at which moment, where that changed; the first one is the last that has settled.
    readings: VecDeque<(Duration, u64)>,
    /// By when one more may have been lost.
    by: Option<Duration>,
}

impl Missed {
    /// So much was missed until `at`; true if more may be lost than was known to be.
    ///
    /// A run that one program misses is counted at once, and only later that another one took it. So the difference of the two says
    /// nothing yet of what was missed lately; but what was missed long ago, less all that was taken since the start, is lost.
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
        // Where nobody takes what is missed, it is lost at once.
        if !takes_turns {
            self.lost = self.lost.max(missed);
        }
        is_news
    }

    /// One more may have been lost until then.
    pub(super) fn doubt_until(&mut self, by: Duration) {
        self.by = self.by.max(Some(by));
    }

    /// True if a question about a connection that was born then may be lost.
    pub(super) fn is_in_doubt(&self, born_at: Duration) -> bool {
        self.by.is_some_and(|by| by >= born_at)
    }
}
