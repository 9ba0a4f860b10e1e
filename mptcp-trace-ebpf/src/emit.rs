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
