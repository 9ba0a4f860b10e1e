//! Observation -> event: adds what the record itself cannot know, the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::{Facts, Query, QueryEvent};

/// Puts a query on the wall clock.
///
/// The offset between `CLOCK_BOOTTIME` and the wall clock is taken once, when tracing begins: a clock
/// that is stepped later does not reorder what was seen.
#[must_use]
pub fn query(facts: &Facts, query: Query) -> QueryEvent {
    let time: SystemTime = UNIX_EPOCH + facts.boot_epoch + query.asked_at;
    QueryEvent { query, time }
}
