//! The one way to wait for something: look, sleep, and give up at the timeout.

use std::time::{Duration, Instant};

/// How long to wait, and how often to look.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) limit: Duration,
    pub(crate) every: Duration,
}

impl Patience {
    pub(crate) const fn new(limit: Duration, every: Duration) -> Self {
        Self { limit, every }
    }

    /// Looks until the result is right; returns the last one at the timeout.
    pub(crate) fn last<T>(
        self,
        mut look: impl FnMut() -> anyhow::Result<T>,
        mut is_right: impl FnMut(&T) -> anyhow::Result<bool>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            let seen = look()?;
            if is_right(&seen)? || start.elapsed() > self.limit {
                return Ok(seen);
            }
            std::thread::sleep(self.every);
        }
    }

    /// Looks until there is a value; none at the timeout.
    pub(crate) fn until<T>(
        self,
        look: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        self.last(look, |seen| Ok(seen.is_some()))
    }

    /// Looks until the condition holds; false at the timeout.
    pub(crate) fn holds(
        self,
        mut look: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        Ok(self.until(|| Ok(look()?.then_some(())))?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_what_was_looked_for_or_at_the_timeout() {
        let patience = Patience::new(Duration::from_millis(30), Duration::from_millis(1));
        let mut looks = 0;
        let mut look = || {
            looks += 1;
            Ok(looks)
        };
        assert_eq!(patience.last(&mut look, |seen| Ok(*seen == 3)).unwrap(), 3);
        assert!(patience.last(look, |_seen| Ok(false)).unwrap() > 4);
        assert!(!patience.holds(|| Ok(false)).unwrap());
        assert!(patience.until::<()>(|| anyhow::bail!("broken")).is_err());
    }
}
