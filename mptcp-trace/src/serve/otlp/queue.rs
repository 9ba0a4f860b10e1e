//! The queue of records to send: bounded in number and bytes; dropped records are counted. Pure.

use std::{collections::VecDeque, time::Duration};

/// Most queued records.
pub const RECORDS_MAX: usize = 8192;
/// Most queued bytes; a record has about 1,400.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most records per request.
pub const BATCH_MAX: usize = 512;
/// Most queued queries: as in the ring, a flood of queries must not displace fallbacks.
pub const QUERIES_MAX: usize = RECORDS_MAX / 4 * 3;
/// Most bytes of queued queries.
const QUERY_BYTES_MAX: usize = BYTES_MAX / 4 * 3;

/// Counts of records and requests since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// Records accepted by a collector.
    pub exported: u64,
    /// Records dropped because the queue was full.
    pub full: u64,
    /// Records of requests refused as a whole.
    pub refused: u64,
    /// Single records rejected by the collector.
    pub rejected: u64,
    /// Records queued when the export was switched off.
    pub off: u64,
    /// Failed requests with records, each attempt counted.
    pub failed_logs: u64,
    /// Failed requests with metrics, each attempt counted.
    pub failed_metrics: u64,
    /// Records queued now.
    pub queued: u64,
}

impl Sums {
    /// How many records no collector accepted, and why; `None` if it accepted all. For the end: those
    /// that are still queued were `waited` for.
    #[must_use]
    pub fn lost(&self, waited: Duration) -> Option<String> {
        let Self {
            exported: _,
            full,
            refused,
            rejected,
            off,
            failed_logs: _,
            failed_metrics: _,
            queued,
        } = *self;
        let waited = waited.as_secs();
        let reasons = [
            (full, "without room in the queue".to_owned()),
            (refused, "refused".to_owned()),
            (rejected, "rejected".to_owned()),
            (off, "queued when the export was switched off".to_owned()),
            (queued, format!("not accepted within {waited} s at the end")),
        ];
        let total: u64 = reasons.iter().map(|(count, _)| count).sum();
        let reasons: Vec<String> = reasons
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, why)| format!("{count} {why}"))
            .collect();
        let word = if total == 1 { "finding" } else { "findings" };
        (total > 0).then(|| {
            format!(
                "{total} {word} did not reach a collector: {}",
                reasons.join(", ")
            )
        })
    }
}

/// Queued records, oldest first: queries, and others, which are sent first.
#[derive(Debug, Default)]
pub struct Queue {
    first: VecDeque<String>,
    queries: VecDeque<String>,
    bytes: usize,
    /// The current request contains this many of the oldest records of both kinds.
    on_their_way: (usize, usize),
    sums: Sums,
}

impl Queue {
    /// True if there is room for a record, before it is formatted; counts it otherwise.
    pub fn has_room(&mut self, is_query: bool) -> bool {
        let (records, bytes) = if is_query {
            (QUERIES_MAX, QUERY_BYTES_MAX)
        } else {
            (RECORDS_MAX, BYTES_MAX)
        };
        let has_room = self.len() < records && self.bytes < bytes;
        self.sums.full += u64::from(!has_room);
        has_room
    }

    /// Adds a record, or counts it as dropped.
    pub fn push(&mut self, record: String, is_query: bool) {
        if self.len() >= RECORDS_MAX || self.bytes.saturating_add(record.len()) > BYTES_MAX {
            self.sums.full += 1;
            return;
        }
        self.bytes += record.len();
        match is_query {
            true => self.queries.push_back(record),
            false => self.first.push_back(record),
        }
    }

    /// Number of queued records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len() + self.queries.len()
    }

    /// True if the queue is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next request: the oldest records, which stay queued until [`Self::leave`].
    pub fn batch(&mut self) -> Vec<&str> {
        let first = self.first.len().min(BATCH_MAX);
        let queries = self.queries.len().min(BATCH_MAX - first);
        self.on_their_way = (first, queries);
        self.first
            .iter()
            .take(first)
            .chain(self.queries.iter().take(queries))
            .map(String::as_str)
            .collect()
    }

    /// The last batch was accepted, except for this many records.
    pub fn taken(&mut self, rejected: u64) {
        let count = self.leave();
        let rejected = rejected.min(count);
        self.sums.exported += count - rejected;
        self.sums.rejected += rejected;
    }

    /// The whole last batch was refused.
    pub fn refused(&mut self) {
        self.sums.refused += self.leave();
        self.sums.failed_logs += 1;
    }

    /// A request failed; its records stay queued.
    pub fn failed(&mut self) {
        self.sums.failed_logs += 1;
    }

    /// A request with metrics failed.
    pub fn failed_metrics(&mut self) {
        self.sums.failed_metrics += 1;
    }

    /// Drops all records, since the export was switched off.
    pub fn switch_off(&mut self) {
        self.sums.off += u64::try_from(self.len()).unwrap_or(u64::MAX);
        *self = Self {
            sums: self.sums,
            ..Self::default()
        };
    }

    /// The counts.
    #[must_use]
    pub fn sums(&self) -> Sums {
        Sums {
            queued: u64::try_from(self.len()).unwrap_or(u64::MAX),
            ..self.sums
        }
    }

    /// Removes the last batch; returns its size.
    fn leave(&mut self) -> u64 {
        let (first, queries) = std::mem::take(&mut self.on_their_way);
        let gone = self.first.drain(..first);
        for record in gone.chain(self.queries.drain(..queries)) {
            self.bytes -= record.len();
        }
        u64::try_from(first + queries).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(queue: &mut Queue, is_query: bool, count: usize, size: usize) {
        for _ in 0..count {
            if queue.has_room(is_query) {
                queue.push("x".repeat(size), is_query);
            }
        }
    }

    #[test]
    fn records_without_room_are_counted_and_queries_leave_room_for_others() {
        let mut queue = Queue::default();
        fill(&mut queue, true, RECORDS_MAX, 1);
        assert_eq!(queue.len(), QUERIES_MAX);
        assert_eq!(queue.sums().full, 2048);
        fill(&mut queue, false, RECORDS_MAX, 1);
        assert_eq!(queue.len(), RECORDS_MAX);
        assert_eq!(queue.sums().full, 2048 + 6144);
        let mut queue = Queue::default();
        fill(&mut queue, false, 9, BYTES_MAX / 8);
        assert_eq!((queue.len(), queue.sums().full), (8, 1));
        queue.push("x".into(), false);
        assert_eq!((queue.len(), queue.sums().full), (8, 2));
    }

    #[test]
    fn a_flood_of_queries_does_not_displace_other_records() {
        let mut queue = Queue::default();
        fill(&mut queue, true, RECORDS_MAX, 1);
        queue.push("fallback".into(), false);
        let batch = queue.batch();
        assert_eq!((batch.len(), batch[0]), (BATCH_MAX, "fallback"));
        queue.taken(0);
        assert_eq!(queue.len(), QUERIES_MAX + 1 - BATCH_MAX);
        assert_eq!(queue.batch()[0], "x");
    }

    #[test]
    fn every_record_is_in_one_sum_at_the_end() {
        let mut queue = Queue::default();
        fill(&mut queue, false, RECORDS_MAX + 5, 10);
        assert_eq!(queue.batch().len(), BATCH_MAX);
        queue.failed();
        // New records arrive during a request.
        assert_eq!(queue.batch().len(), BATCH_MAX);
        queue.taken(12);
        fill(&mut queue, false, 1, 10);
        queue.batch();
        queue.refused();
        queue.batch();
        queue.switch_off();
        // A late response has no effect.
        queue.taken(0);
        fill(&mut queue, false, 3, 10);
        queue.failed_metrics();
        let sums = queue.sums();
        assert_eq!(
            sums,
            Sums {
                exported: 500,
                full: 5,
                refused: 512,
                rejected: 12,
                off: 8192 - 1024 + 1,
                failed_logs: 2,
                failed_metrics: 1,
                queued: 3,
            }
        );
        let all = sums.exported + sums.full + sums.refused + sums.rejected + sums.off + sums.queued;
        assert_eq!(all, 8192 + 5 + 1 + 3);
        assert_eq!(queue.bytes, 30);
        assert_eq!(
            sums.lost(Duration::from_secs(5)).unwrap(),
            "7701 findings did not reach a collector: 5 without room in the queue, 512 refused, 12 \
             rejected, 7169 queued when the export was switched off, 3 not accepted within 5 s at the end"
        );
    }

    #[test]
    fn nothing_is_reported_lost_if_all_was_accepted() {
        let sums = Sums {
            exported: 7,
            failed_logs: 2,
            ..Sums::default()
        };
        assert_eq!(sums.lost(Duration::ZERO), None);
    }
}
