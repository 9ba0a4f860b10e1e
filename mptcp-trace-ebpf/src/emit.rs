//! The only place that touches the ring: reserve, write, submit - or count.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{Global, bindings::BPF_RB_AVAIL_DATA, maps::ring_buf::RingBufEntry};
use mptcp_trace_common::{
    counter,
    record::{ConnRecord, CountedRecord, KIND_BLACKHOLE, KIND_FALLBACK, QueryRecord},
};

use crate::maps::{FALLBACK_COUNTERS, QUERY_COUNTERS, RECORDS, ROOM_FOR_LIVES, ROOM_FOR_QUESTIONS};

/// Adds one to a counter of the query sensor.
#[inline(always)]
pub(crate) fn count(slot: u32) {
    if let Some(value) = QUERY_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is into this CPU's slot of the array, and aligned. An atomic addition, since trampolines
        // are preempted, and those count too.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, 1) };
    }
}

/// True while there is room for whatever may fill the ring only up to `limit`.
#[inline(always)]
fn is_room(limit: &Global<u64>) -> bool {
    RECORDS.query(u64::from(BPF_RB_AVAIL_DATA)) < limit.load()
}

/// Room in the ring for a record that is written in place, or counts that there was none. The last part of the ring is not
/// for questions: however many there are, a fallback finds room.
#[inline(always)]
pub(crate) fn reserve_query() -> Option<RingBufEntry<QueryRecord>> {
    let entry = if is_room(&ROOM_FOR_QUESTIONS) {
        RECORDS.reserve::<QueryRecord>(0)
    } else {
        None
    };
    if entry.is_none() {
        count(counter::RING_FULL);
    }
    entry
}

/// A kind of record, of which one that is nothing but zeroes is valid: integers and arrays of integers, a whole number of
/// words long.
pub(crate) trait Record {}

impl Record for QueryRecord {}
impl Record for ConnRecord {}
impl Record for CountedRecord {}

/// A record that says nothing yet, in reserved room. In place: on the stack of a program that calls others a record has
/// no room.
#[inline(always)]
pub(crate) fn blank<T: Record>(entry: &mut RingBufEntry<T>) -> &mut T {
    const {
        assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8);
    }
    let words = entry.as_mut_ptr().cast::<u64>();
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: the pointer is to the room for one record, which is a whole number of words. The write is volatile lest
        // the compiler makes one call of it to a function that writes byte by byte: the kernel goes through such a loop
        // byte by byte too when it looks at the program, each time that it comes there.
        unsafe { words.add(word).write_volatile(0) };
    }
    // SAFETY: a record of nothing but zeroes is valid (`Record`).
    unsafe { entry.assume_init_mut() }
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

/// Room in the ring for what is said about a connection, or counts that there was none. Fallbacks may have all of it; what
/// is said beside them, which whoever makes sockets in a loop causes too, may not.
#[inline(always)]
pub(crate) fn reserve_connection(kind: u32) -> Option<RingBufEntry<ConnRecord>> {
    let is_fallback = kind == KIND_FALLBACK || kind == KIND_BLACKHOLE;
    let entry = if is_fallback || is_room(&ROOM_FOR_LIVES) {
        RECORDS.reserve::<ConnRecord>(0)
    } else {
        None
    };
    if entry.is_none() {
        count_fallback(counter::RING_FULL);
    }
    entry
}

/// Room in the ring for what the kernel has counted. That is read again, so that it counts nowhere if there is none.
#[inline(always)]
pub(crate) fn reserve_counted() -> Option<RingBufEntry<CountedRecord>> {
    match is_room(&ROOM_FOR_LIVES) {
        true => RECORDS.reserve::<CountedRecord>(0),
        false => None,
    }
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
