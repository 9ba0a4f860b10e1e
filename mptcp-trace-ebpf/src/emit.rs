//! The only place that touches the ring: reserve, write, submit - or count.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::maps::ring_buf::RingBufEntry;
use mptcp_trace_common::{
    counter,
    record::{ConnRecord, QueryRecord},
};

use crate::maps::{FALLBACK_COUNTERS, QUERY_COUNTERS, RECORDS};

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

/// Room in the ring for a record that is written in place, or counts that there was none.
#[inline(always)]
pub(crate) fn reserve_query() -> Option<RingBufEntry<QueryRecord>> {
    let entry = RECORDS.reserve::<QueryRecord>(0);
    if entry.is_none() {
        count(counter::RING_FULL);
    }
    entry
}

/// A record that says nothing yet, in reserved room. In place: on the stack of a program that calls others a record has
/// no room.
#[inline(always)]
pub(crate) fn blank(entry: &mut RingBufEntry<QueryRecord>) -> &mut QueryRecord {
    // SAFETY: the pointer is to the room for one record, and a record of nothing but zeroes is valid: integers and arrays
    // of integers.
    unsafe {
        core::ptr::write_bytes(entry.as_mut_ptr(), 0, 1);
        entry.assume_init_mut()
    }
}

/// Sends off what was written into reserved room.
#[inline(always)]
pub(crate) fn submit_query(entry: RingBufEntry<QueryRecord>) {
    entry.submit(0);
    count(counter::EMITTED);
}

/// Gives reserved room back, and counts why.
#[inline(always)]
pub(crate) fn discard_query(entry: RingBufEntry<QueryRecord>, why_not: u32) {
    entry.discard(0);
    count(why_not);
}

/// Adds one to a counter of the fallback sensor.
#[inline(always)]
pub(crate) fn count_fallback(slot: u32) {
    if let Some(value) = FALLBACK_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is into this CPU's slot of the array, and aligned. An atomic addition, since a
        // packet may arrive on this CPU in the middle of a system call that counts too.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, 1) };
    }
}

/// Room in the ring for what is said about a connection, or counts that there was none.
#[inline(always)]
pub(crate) fn reserve_connection() -> Option<RingBufEntry<ConnRecord>> {
    let entry = RECORDS.reserve::<ConnRecord>(0);
    if entry.is_none() {
        count_fallback(counter::RING_FULL);
    }
    entry
}

/// Sends off what was written into reserved room.
#[inline(always)]
pub(crate) fn submit_connection(entry: RingBufEntry<ConnRecord>) {
    entry.submit(0);
    count_fallback(counter::EMITTED);
}

/// Gives reserved room back: what was to be written there could not be read.
#[inline(always)]
pub(crate) fn discard_connection(entry: RingBufEntry<ConnRecord>) {
    entry.discard(0);
    count_fallback(counter::FAULTED);
}
