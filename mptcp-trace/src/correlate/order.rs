//! Events in the order in which they happened, whatever the order in which they come.

use std::{collections::VecDeque, time::Duration};

use crate::model::Finding;

/// Room for so many is kept when none wait: a burst is over then.
const ROOM_KEPT: usize = 1024;

/// Events that wait for others that happened before them. Most come in order: those cost nothing but their place.
#[derive(Debug, Default)]
pub(super) struct Arriving(VecDeque<(Duration, Finding)>);

impl Arriving {
    /// Takes an event that happened then; after those of the same moment that came before.
    pub(super) fn insert(&mut self, at: Duration, event: Finding) {
        let place = match self.0.back() {
            Some((last, _)) if *last > at => self.0.partition_point(|(it, _)| *it <= at),
            Some(_) | None => self.0.len(),
        };
        self.0.insert(place, (at, event));
    }

    /// The first of all, if it happened until then.
    pub(super) fn pop_until(&mut self, until: Duration) -> Option<Finding> {
        let Some((at, _)) = self.0.front() else {
            self.0.shrink_to(ROOM_KEPT);
            return None;
        };
        if *at > until {
            return None;
        }
        self.0.pop_front().map(|(_, event)| event)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::model::ConnectionKind;

    #[test]
    fn what_happened_first_comes_first_and_of_one_moment_what_was_heard_first() {
        let mut arriving = Arriving::default();
        for (at_ms, address) in [(5, 1), (9, 2), (5, 3), (1, 4), (9, 5), (7, 6)] {
            let at = Duration::from_millis(at_ms);
            let event = event(connection(ConnectionKind::Fallback, at_ms, address));
            arriving.insert(at, event);
        }
        let mut until = |at_ms| -> Vec<u64> {
            let until = Duration::from_millis(at_ms);
            std::iter::from_fn(|| arriving.pop_until(until))
                .map(|event| match event {
                    Finding::Connection(event) => event.connection.id.socket.0,
                    other @ (Finding::Query(_) | Finding::Verdict(_) | Finding::Refusal(_)) => {
                        panic!("{other:?} was never put in")
                    }
                })
                .collect()
        };
        assert_eq!(until(0), [0_u64; 0]);
        assert_eq!(until(5), [4, 1, 3]);
        assert_eq!(until(100), [6, 2, 5]);
        assert_eq!((arriving.len(), arriving.is_empty()), (0, true));
    }
}
