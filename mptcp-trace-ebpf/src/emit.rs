//! The only place that touches the ring: reserve, write, submit - or count.

use mptcp_trace_common::{counter, record::QueryRecord};

use crate::maps::{QUERY_COUNTERS, RECORDS};

/// Adds one to a counter of the query sensor.
#[inline(always)]
pub(crate) fn count(slot: u32) {
    if let Some(value) = QUERY_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is into this CPU's slot of the array. A program that interrupts this one on
        // the same CPU could lose an increment; the programs of this sensor run in process context only.
        unsafe { *value += 1 };
    }
}

/// Puts a query into the ring, or counts that there was no room.
#[inline(always)]
pub(crate) fn query(record: &QueryRecord) {
    if let Some(mut entry) = RECORDS.reserve::<QueryRecord>(0) {
        entry.write(*record);
        entry.submit(0);
        count(counter::EMITTED);
    } else {
        count(counter::RING_FULL);
    }
}
