//! Observation -> event: adds what the record itself cannot know: the wall clock, and where a process lives.

mod places;

use std::time::{SystemTime, UNIX_EPOCH};

pub use places::CgroupCache;

use crate::model::{
    Change, ChangeEvent, Connection, ConnectionEvent, Facts, Place, Query, QueryEvent, Refusal,
    RefusalEvent,
};

/// Puts a query on the wall clock.
///
/// The offset between `CLOCK_BOOTTIME` and the wall clock is taken once, when tracing begins: a clock
/// that is stepped later does not reorder what was seen.
#[must_use]
pub fn query(facts: &Facts, query: Query) -> QueryEvent {
    let time: SystemTime = UNIX_EPOCH + facts.boot_epoch + query.asked_at;
    QueryEvent {
        query,
        time,
        judgement: None,
        repeats: 0,
    }
}

/// Puts a connection on the wall clock, and says where its owner lives.
#[must_use]
pub fn connection(
    facts: &Facts,
    places: &mut CgroupCache,
    connection: Connection,
) -> ConnectionEvent {
    let time: SystemTime = UNIX_EPOCH + facts.boot_epoch + connection.at;
    let place = match &connection.owner {
        Some(owner) => places.of(owner.process.pid, owner.process.cgroup_id),
        None => Place::default(),
    };
    ConnectionEvent {
        connection,
        time,
        place,
        // What came before is for correlate to remember.
        switched_off: None,
    }
}

/// Says where the owner of a connection lives of which something changed.
#[must_use]
pub fn change(places: &mut CgroupCache, change: Change) -> ChangeEvent {
    let place = match &change.owner {
        Some(owner) => places.of(owner.process.pid, owner.process.cgroup_id),
        None => Place::default(),
    };
    ChangeEvent { change, place }
}

/// Puts a refusal on the wall clock.
#[must_use]
pub fn refusal(facts: &Facts, refusal: Refusal) -> RefusalEvent {
    let time: SystemTime = UNIX_EPOCH + facts.boot_epoch + refusal.at;
    RefusalEvent { refusal, time }
}
