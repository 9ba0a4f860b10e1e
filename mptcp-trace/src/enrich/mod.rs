//! Observation -> event: adds the wall clock time and the process's control group, which a record
//! does not contain.

mod cgroups;
mod pods;

use std::time::{SystemTime, UNIX_EPOCH};

pub use cgroups::{CgroupCache, Learned, Lookup};
pub use pods::unreadable;

use crate::model::{
    Change, ChangeEvent, Connection, ConnectionEvent, Facts, Path, PathEvent, Place, Query,
    QueryEvent, Refusal, RefusalEvent,
};

/// Adds the wall clock time to a query.
///
/// The offset between `CLOCK_BOOTTIME` and the wall clock is taken once, when tracing begins:
/// stepping the clock later does not reorder events.
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

/// Adds the wall clock time and the owner's place to a connection.
#[must_use]
pub fn connection(
    facts: &Facts,
    cgroups: &mut CgroupCache,
    connection: Connection,
) -> ConnectionEvent {
    let time: SystemTime = UNIX_EPOCH + facts.boot_epoch + connection.at;
    let place = match &connection.owner {
        Some(owner) => cgroups.of(owner.process.pid, owner.process.cgroup_id),
        None => Place::default(),
    };
    ConnectionEvent {
        connection,
        time,
        place,
        // `correlate` adds earlier events.
        switched_off: None,
        packet: None,
        history: None,
    }
}

/// Adds the owner's place to a change of a connection.
#[must_use]
pub fn change(cgroups: &mut CgroupCache, change: Change) -> ChangeEvent {
    let place = match &change.owner {
        Some(owner) => cgroups.of(owner.process.pid, owner.process.cgroup_id),
        None => Place::default(),
    };
    ChangeEvent { change, place }
}

/// Adds the wall clock time and the owner's place to an event of a path.
#[must_use]
pub fn path(facts: &Facts, cgroups: &mut CgroupCache, path: Path) -> PathEvent {
    let time: SystemTime = UNIX_EPOCH + facts.boot_epoch + path.at;
    let place = match &path.owner {
        Some(owner) => cgroups.of(owner.process.pid, owner.process.cgroup_id),
        None => Place::default(),
    };
    PathEvent {
        path,
        time,
        place,
        // `correlate` adds up the paths of the connection.
        of_connection: None,
        packet: None,
    }
}

/// Adds the wall clock time to a refusal.
#[must_use]
pub fn refusal(facts: &Facts, refusal: Refusal) -> RefusalEvent {
    let time: SystemTime = UNIX_EPOCH + facts.boot_epoch + refusal.at;
    RefusalEvent { refusal, time }
}
