//! Actions on the tracer and their expected effects, counted by the actors.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, Instant};

use crate::{
    netns::Counters,
    recipes::{FALLBACK_COUNTERS, REFUSED_COUNTERS},
};

/// Maximum number of recorded failures; further ones are only counted.
const FAILURES_MAX: usize = 20;
/// Interval of the checks for the end.
const LOOK: Duration = Duration::from_millis(50);

/// Totals of the whole run.
#[derive(Clone, Default, Debug)]
pub(super) struct ActionLog {
    /// Queries made, and sockets refused.
    pub(super) asked: u64,
    /// Queries that were part of floods.
    pub(super) flooded: u64,
    pub(super) floods: u64,
    /// Fallbacks that the kernel counted, summed over all namespaces.
    pub(super) kernel: Counters,
    pub(super) plain: u64,
    pub(super) connections: u64,
    pub(super) recipes: u64,
    pub(super) namespaces: u64,
    /// Processes killed in the middle of a connection.
    pub(super) kills: u64,
    pub(super) hangups: u64,
    pub(super) bad_hangups: u64,
    pub(super) clock_steps: u64,
    pub(super) scrapes: u64,
    /// Clients that did not fetch a page.
    pub(super) visitors: u64,
    /// Clients turned away because of the limit.
    pub(super) sent_away: u64,
    pub(super) went_back: Vec<String>,
    /// Actions that failed, which makes the totals above unreliable.
    pub(super) failures: Vec<String>,
    pub(super) failed: u64,
    /// Recipes that deviated from their table, for example on a slow machine. The kernel's counts
    /// remain valid.
    pub(super) unlike: u64,
    /// Other processes on this machine that trace or query.
    pub(super) others: Vec<String>,
}

impl ActionLog {
    /// Adds the kernel's fallback counters.
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

/// State shared by all actors.
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

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Signals the end: no actor starts anything new.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Sleeps for this time, or until the end; returns true at the end.
    pub(super) fn rest(&self, time: Duration) -> bool {
        let start = Instant::now();
        while !self.is_over() && start.elapsed() < time {
            std::thread::sleep(LOOK.min(time.saturating_sub(start.elapsed())));
        }
        self.is_over()
    }

    pub(super) fn actions(&self) -> MutexGuard<'_, ActionLog> {
        // A panic of the other thread is reported elsewhere.
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a failed action.
    pub(super) fn note<T>(&self, what: &str, done: anyhow::Result<T>) -> Option<T> {
        done.map_err(|why| self.actions().fail(format!("{what}: {why:#}")))
            .ok()
    }
}
