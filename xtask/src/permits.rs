//! Limits concurrency: one permit stands for about one processor.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A number of permits. A caller that takes several waits until all of them are free at once.
pub(crate) struct Permits {
    free: Mutex<usize>,
    given_back: Condvar,
    all: usize,
}

/// Permits that are held until this is dropped.
pub(crate) struct Held<'a> {
    permits: &'a Permits,
    number: usize,
}

impl Permits {
    /// Creates this many permits.
    pub(crate) fn new(all: usize) -> Self {
        Self {
            free: Mutex::new(all),
            given_back: Condvar::new(),
            all,
        }
    }

    /// Waits for `number` permits, capped at the total.
    pub(crate) fn take(&self, number: usize) -> Held<'_> {
        let number = number.min(self.all);
        let mut free = self.free();
        while *free < number {
            free = self
                .given_back
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *free -= number;
        Held {
            permits: self,
            number,
        }
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.permits.free() += self.number;
        self.permits.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn no_more_run_than_there_are_permits_and_who_takes_all_is_alone() {
        let permits = Permits::new(2);
        let running = AtomicUsize::new(0);
        thread::scope(|scope| {
            for wanted in [1, 2, 1, 1, 5, 1] {
                let (permits, running) = (&permits, &running);
                scope.spawn(move || {
                    let held = permits.take(wanted);
                    let before = running.fetch_add(held.number, Ordering::SeqCst);
                    assert!(before + held.number <= 2);
                    thread::sleep(Duration::from_millis(5));
                    running.fetch_sub(held.number, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(*permits.free(), 2);
    }
}
