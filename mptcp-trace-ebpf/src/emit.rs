//! The only place that writes to the ring: reserve, write, submit - or count the loss.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    Global,
    bindings::BPF_RB_AVAIL_DATA,
    maps::{PerCpuArray, ring_buf::RingBufEntry},
};
use mptcp_trace_common::{
    counter,
    record::{ConnRecord, CountedRecord, Kind, PacketRecord, PathRecord, QueryRecord},
};

use crate::maps::{
    FALLBACK_COUNTERS, QUERY_COUNTERS, RECORDS, ROOM_FOR_CONNECTIONS, ROOM_FOR_JOINS,
    ROOM_FOR_PATHS, ROOM_FOR_QUERIES, SUBFLOW_COUNTERS,
};

/// Adds one to a counter of a sensor.
#[inline(always)]
pub(crate) fn count_in(counters: &PerCpuArray<u64>, slot: u32) {
    if let Some(value) = counters.get_ptr_mut(slot) {
        // SAFETY: the pointer is into this CPU's slot of the array, and aligned. The addition is
        // atomic because the program can be preempted, or a packet may arrive on this CPU in the
        // middle of a system call: the other program counts too.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, 1) };
    }
}

/// Adds one to a counter of the query sensor.
#[inline(always)]
pub(crate) fn count(slot: u32) {
    count_in(&QUERY_COUNTERS, slot);
}

/// True while the ring holds less than `limit` bytes.
#[inline(always)]
fn is_room(limit: &Global<u64>) -> bool {
    RECORDS.query(u64::from(BPF_RB_AVAIL_DATA)) < limit.load()
}

/// Reserves room in the ring for a record that is written in place, or counts
/// [`counter::RING_FULL`]. Queries may not use the last part of the ring: a flood of them leaves
/// room for fallbacks.
#[inline(always)]
pub(crate) fn reserve_query() -> Option<RingBufEntry<QueryRecord>> {
    let entry = if is_room(&ROOM_FOR_QUERIES) {
        RECORDS.reserve::<QueryRecord>(0)
    } else {
        None
    };
    if entry.is_none() {
        count(counter::RING_FULL);
    }
    entry
}

/// A record type for which all zeroes is a valid value: integers and arrays of integers. Its size
/// is a whole number of words.
pub(crate) trait Record {}

impl Record for QueryRecord {}
impl Record for ConnRecord {}
impl Record for PathRecord {}
impl Record for CountedRecord {}
impl Record for PacketRecord {}

/// Zeroes a reserved record. In place, because the stack of a program that calls functions is too
/// small for a record.
#[inline(always)]
pub(crate) fn blank<T: Record>(entry: &mut RingBufEntry<T>) -> &mut T {
    const {
        assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8);
    }
    let words = entry.as_mut_ptr().cast::<u64>();
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: the pointer is to the room for one record, which is a whole number of words. The
        // write is volatile so that the compiler does not turn the loop into a call of `memset`,
        // which writes byte by byte: the verifier would walk each iteration, at each call.
        unsafe { words.add(word).write_volatile(0) };
    }
    // SAFETY: all zeroes is a valid record (`Record`).
    unsafe { entry.assume_init_mut() }
}

/// Submits a reserved record.
#[inline(always)]
pub(crate) fn submit_query(entry: RingBufEntry<QueryRecord>) {
    entry.submit(0);
    count(counter::EMITTED);
}

/// Discards a reserved record, and counts it in the counter `why_not`.
#[inline(always)]
pub(crate) fn discard_query(entry: RingBufEntry<QueryRecord>, why_not: u32) {
    entry.discard(0);
    count(why_not);
}

/// Adds one to a counter of the fallback sensor.
#[inline(always)]
pub(crate) fn count_fallback(slot: u32) {
    count_in(&FALLBACK_COUNTERS, slot);
}

/// Reserves room in the ring for a record about a connection, or counts [`counter::RING_FULL`].
/// Fallbacks may use the whole ring; other records may not, because any process that creates
/// sockets in a loop causes them.
#[inline(always)]
pub(crate) fn reserve_connection(kind: Kind) -> Option<RingBufEntry<ConnRecord>> {
    let is_fallback = kind == Kind::FALLBACK || kind == Kind::BLACKHOLE;
    let entry = if is_fallback || is_room(&ROOM_FOR_CONNECTIONS) {
        RECORDS.reserve::<ConnRecord>(0)
    } else {
        None
    };
    if entry.is_none() {
        count_fallback(counter::RING_FULL);
    }
    entry
}

/// Reserves room in the ring for a reading of the kernel's counters. A full ring is not counted as
/// a loss, because the counters are read again.
#[inline(always)]
pub(crate) fn reserve_counted() -> Option<RingBufEntry<CountedRecord>> {
    match is_room(&ROOM_FOR_CONNECTIONS) {
        true => RECORDS.reserve::<CountedRecord>(0),
        false => None,
    }
}

/// Submits a reserved record.
#[inline(always)]
pub(crate) fn submit_connection(entry: RingBufEntry<ConnRecord>) {
    entry.submit(0);
    count_fallback(counter::EMITTED);
}

/// Discards a reserved record whose content could not be read.
#[inline(always)]
pub(crate) fn discard_connection(entry: RingBufEntry<ConnRecord>) {
    entry.discard(0);
    count_fallback(counter::FAULTED);
}

/// Adds one to a counter of the subflow sensor.
#[inline(always)]
pub(crate) fn count_subflow(slot: u32) {
    count_in(&SUBFLOW_COUNTERS, slot);
}

/// Reserves room in the ring for a record about a path, or counts [`counter::RING_FULL`]. Paths that
/// come up and end may use more than what a peer can cause without end, and less than queries and
/// connections: a storm of short connections has more records of paths than of all other kinds.
#[inline(always)]
pub(crate) fn reserve_path(kind: Kind) -> Option<RingBufEntry<PathRecord>> {
    let is_room = match kind {
        Kind::PATH_UP
        | Kind::PATH_ENDED
        | Kind::PATH_STALE
        | Kind::PATH_RECOVERED
        | Kind::PATH_OPEN => is_room(&ROOM_FOR_PATHS),
        _ => is_room(&ROOM_FOR_JOINS),
    };
    let entry = match is_room {
        true => RECORDS.reserve::<PathRecord>(0),
        false => None,
    };
    if entry.is_none() {
        count_subflow(counter::RING_FULL);
    }
    entry
}

/// Reserves room in the ring for the headers of a packet. They may use no more of it than joins that
/// fail: in a flood, what happened is worth more than the packet.
#[inline(always)]
pub(crate) fn reserve_packet() -> Option<RingBufEntry<PacketRecord>> {
    match is_room(&ROOM_FOR_JOINS) {
        true => RECORDS.reserve::<PacketRecord>(0),
        false => None,
    }
}

/// True while the ring is nearly empty: there is room for records that a later one repeats.
#[inline(always)]
pub(crate) fn is_calm() -> bool {
    RECORDS.query(u64::from(BPF_RB_AVAIL_DATA)) < ROOM_FOR_JOINS.load() / 2
}

/// Reserves room in the ring for a reading of a path. It is no event, and is repeated: neither it nor
/// a ring without room for it is counted.
#[inline(always)]
pub(crate) fn reserve_reading() -> Option<RingBufEntry<PathRecord>> {
    match is_calm() {
        true => RECORDS.reserve::<PathRecord>(0),
        false => None,
    }
}

/// Submits it.
#[inline(always)]
pub(crate) fn submit_reading(entry: RingBufEntry<PathRecord>) {
    entry.submit(0);
}

/// Submits a reserved record.
#[inline(always)]
pub(crate) fn submit_path(entry: RingBufEntry<PathRecord>) {
    entry.submit(0);
    count_subflow(counter::EMITTED);
}

/// Discards a reserved record whose content could not be read.
#[inline(always)]
pub(crate) fn discard_path(entry: RingBufEntry<PathRecord>) {
    entry.discard(0);
    count_subflow(counter::FAULTED);
}
