//! What was done to the tracer, and what there is to be found because of it: counted by those who did it.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, Instant};

use crate::{
    netns::Counters,
    recipes::{FALLBACK_COUNTERS, REFUSED_COUNTERS},
};

/// Failures that are written down; of those beyond only the count is.
const FAILURES_MAX: usize = 20;
/// Between two looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// Sums over the whole run.
#[derive(Clone, Default, Debug)]
pub(super) struct ActionLog {
    /// Questions that were asked, and sockets that were refused.
    pub(super) asked: u64,
    /// Of these, those of floods.
    pub(super) flooded: u64,
    /// Bursts of them.
    pub(super) floods: u64,
    /// Fallbacks that the kernel counted, over all namespaces.
    pub(super) kernel: Counters,
    /// TCP clients of MPTCP listeners.
    pub(super) plain: u64,
    /// Connections that were made.
    pub(super) connections: u64,
    /// Recipes that were played.
    pub(super) recipes: u64,
    /// Network namespaces that came and went.
    pub(super) namespaces: u64,
    /// Processes that were killed in the middle of a connection.
    pub(super) kills: u64,
    /// Hangups with settings that can be understood.
    pub(super) hangups: u64,
    /// And with others.
    pub(super) bad_hangups: u64,
    /// Times that the clock was wrong for a while.
    pub(super) clock_steps: u64,
    /// Pages that were read.
    pub(super) scrapes: u64,
    /// Clients that wanted something else than a page.
    pub(super) visitors: u64,
    /// Of these, those that were sent away because there were too many.
    pub(super) sent_away: u64,
    /// Counters that went back.
    pub(super) went_back: Vec<String>,
    /// What could not be done, which makes the sums above wrong.
    pub(super) failures: Vec<String>,
    /// How many of those there are.
    pub(super) failed: u64,
    /// Recipes that did not go as they are meant to: the machine was too slow, say. What the kernel counted counts all the same.
    pub(super) unlike: u64,
    /// Others on this machine who trace or ask.
    pub(super) others: Vec<String>,
}

impl ActionLog {
    /// Adds what the kernel counted, as far as it is about fallbacks.
    pub(super) fn add_counted(&mut self, moved: &Counters) {
        for (name, count) in moved {
            let name = name.as_str();
            if FALLBACK_COUNTERS.contains(&name) || REFUSED_COUNTERS.contains(&name) {
                *self.kernel.entry(name.to_owned()).or_default() += count;
            }
        }
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(why);
        }
    }
}

/// What all who act have in common.
pub(super) struct Churn {
    actions: Mutex<ActionLog>,
    over: AtomicBool,
    began: Instant,
}

impl Churn {
    pub(super) fn begin() -> Self {
        Self {
            actions: Mutex::default(),
            over: AtomicBool::new(false),
            began: Instant::now(),
        }
    }

    /// Time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Nobody begins anything any more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Waits so long, or until it is over; true if it is.
    pub(super) fn rest(&self, time: Duration) -> bool {
        let start = Instant::now();
        while !self.is_over() && start.elapsed() < time {
            std::thread::sleep(LOOK.min(time.saturating_sub(start.elapsed())));
        }
        self.is_over()
    }

    /// The sums.
    pub(super) fn actions(&self) -> MutexGuard<'_, ActionLog> {
        // Whoever panicked while adding is told of elsewhere.
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what could not be done.
    pub(super) fn note<T>(&self, what: &str, done: anyhow::Result<T>) -> Option<T> {
        done.map_err(|why| self.actions().fail(format!("{what}: {why:#}")))
            .ok()
    }
}
