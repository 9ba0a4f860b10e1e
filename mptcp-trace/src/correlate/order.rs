//! Sorts events by time, whatever their order of arrival.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::model::Event;

/// Capacity kept while no events wait, after a burst.
const ROOM_KEPT: usize = 1024;

/// Events that wait for earlier ones. Most arrive in order and are only queued. Late ones are kept
/// separately, so that many of them do not move all the others again and again.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    in_order: VecDeque<(Duration, Event)>,
    /// Key: time, and number of events that arrived before.
    late: BTreeMap<(Duration, u64), Event>,
    came: u64,
}

impl Arriving {
    /// Inserts an event that happened at `at`, after earlier arrivals of the same time.
    pub(super) fn insert(&mut self, at: Duration, event: Event) {
        match self.in_order.back() {
            Some((last, _)) if *last > at => {
                self.late.insert((at, self.came), event);
                self.came += 1;
            }
            Some(_) | None => self.in_order.push_back((at, event)),
        }
    }

    /// Removes the earliest event if it happened until `until`.
    pub(super) fn pop_until(&mut self, until: Duration) -> Option<Event> {
        let first = self.in_order.front().map(|(at, _)| *at);
        let late = self.late.first_key_value().map(|((at, _), _)| *at);
        match (first, late) {
            // Of the same time, the event in order arrived first; else it would be among the late
            // ones.
            (Some(first), Some(late)) if late < first => self.pop_late(late, until),
            (None, Some(late)) => self.pop_late(late, until),
            (Some(first), _) if first <= until => self.in_order.pop_front().map(|(_, it)| it),
            (Some(_), _) => None,
            (None, None) => {
                self.in_order.shrink_to(ROOM_KEPT);
                None
            }
        }
    }

    fn pop_late(&mut self, at: Duration, until: Duration) -> Option<Event> {
        match at <= until {
            true => self.late.pop_first().map(|(_, event)| event),
            false => None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.in_order.len() + self.late.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_order.is_empty() && self.late.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

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
                    Event::Connection(event) => event.connection.id.socket.0,
                    other @ (Event::Query(_)
                    | Event::Change(_)
                    | Event::Refusal(_)
                    | Event::Path(_)) => {
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

    /// The author of a capture controls the order of its records.
    #[test]
    fn many_that_come_late_take_no_quadratic_time() {
        const THIRD: u64 = 20_000;
        const PATIENCE: Duration = Duration::from_secs(5);
        // CPU time of this thread, independent of the machine's load.
        let worked = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let start = worked();
        let mut arriving = Arriving::default();
        // Early ones, late ones, and then all in between in reverse order.
        let in_order = (0..THIRD).chain(2 * THIRD..3 * THIRD);
        for at in in_order.chain((THIRD..2 * THIRD).rev()) {
            let event = event(connection(ConnectionKind::Fallback, 1, at));
            arriving.insert(Duration::from_nanos(at), event);
        }
        assert_eq!(arriving.len() as u64, 3 * THIRD);
        while arriving.pop_until(Duration::MAX).is_some() {}
        let took = worked() - start;
        assert!(took < PATIENCE, "{took:?}");
    }
}
