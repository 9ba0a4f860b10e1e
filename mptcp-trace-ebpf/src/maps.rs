//! All maps and globals.

use crate::entry::Entry;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use mptcp_trace_common::{
    calibrated, counter,
    filter::FilterConfig,
    layout::{CounterNumbers, KernelLayout, KernelNumbers, SyscallNumbers},
    map_values::{Conn, InFlight, JoinRun, NetCounters, Path, Quota},
    record::ABI_VERSION,
};

/// Marks the version of the record layouts; the name is `record::ABI_SYMBOL`.
#[unsafe(no_mangle)]
static MPTCP_TRACE_ABI_9: Global<u32> = Global::new(ABI_VERSION);

/// Offsets in this kernel's structures. Written by the loader, then frozen.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: KernelLayout = KernelLayout::EMPTY;

/// The filter. Written by the loader, then frozen.
#[unsafe(no_mangle)]
pub(crate) static FILTER: FilterConfig = FilterConfig {
    flags: 0,
    own_tgid: 0,
    pidns_inum: 0,
};

/// 1 if `mptcp_getsockopt` itself is probed: a TCP function entered for a subflow without a query
/// in flight then belongs to a query that was left out. 0 if only inner functions are probed.
#[unsafe(no_mangle)]
pub(crate) static OUTERMOST_PROBED: Global<u32> = Global::new(1);

/// The attach method of this object's probes (`RecordRung`).
#[unsafe(no_mangle)]
pub(crate) static RUNG: Global<u32> = Global::new(0);

/// The kernel's architecture (`layout::Architecture`).
#[unsafe(no_mangle)]
pub(crate) static ARCHITECTURE: Global<u32> = Global::new(0);

/// 1 if `mptcp_can_accept_new_subflow` is probed: it shows whether a connection was asked about a join.
#[unsafe(no_mangle)]
pub(crate) static JOINS_ASKED: Global<u32> = Global::new(0);

/// 1 if the function that decides fallbacks is probed, so that no fallback has to be predicted.
#[unsafe(no_mangle)]
pub(crate) static DECISION_PROBED: Global<u32> = Global::new(0);

/// 1 if the function that removes a child from MPTCP, and the one that frees connections, are
/// probed.
#[unsafe(no_mangle)]
pub(crate) static CHILDREN_PROBED: Global<u32> = Global::new(0);

/// Values of the kernel's `enum mapping_status` and `enum skb_ext_id`. Written by the loader, then
/// frozen.
#[unsafe(no_mangle)]
pub(crate) static NUMBERS: KernelNumbers = KernelNumbers::NONE;

/// Indices of the MPTCP counters that are read per network namespace. Written by the loader, then
/// frozen.
#[unsafe(no_mangle)]
pub(crate) static COUNTER_NUMBERS: CounterNumbers = CounterNumbers::NONE;

/// Number of possible CPUs; 0 if their numbers have gaps.
#[unsafe(no_mangle)]
pub(crate) static CPUS: Global<u32> = Global::new(0);

/// Limit of traced queries per process and second; 0 for no limit.
#[unsafe(no_mangle)]
pub(crate) static CAP: Global<u32> = Global::new(10_000);

/// Numbers of the system calls of interest on this architecture. Written by the loader, then
/// frozen.
#[unsafe(no_mangle)]
pub(crate) static SYSCALLS: SyscallNumbers = SyscallNumbers::NONE;

/// 1 if the program at the return of system calls also handles sockets created and accepted, so
/// that one program serves both sensors.
#[unsafe(no_mangle)]
pub(crate) static LIFE_AT_RETURN: Global<u32> = Global::new(0);

/// 1 if several programs take turns at functions.
#[unsafe(no_mangle)]
pub(crate) static TURNS_AT_FUNCTIONS: Global<u32> = Global::new(0);
/// 1 if several programs take turns at tracepoints.
#[unsafe(no_mangle)]
pub(crate) static TURNS_AT_TRACEPOINTS: Global<u32> = Global::new(0);

/// Queries may fill the ring up to this many bytes. The rest is reserved for connection records.
#[unsafe(no_mangle)]
pub(crate) static ROOM_FOR_QUERIES: Global<u64> = Global::new(0);

/// Connection records other than fallbacks, and counter readings, may fill the ring up to this many
/// bytes. The rest is reserved for fallbacks.
#[unsafe(no_mangle)]
pub(crate) static ROOM_FOR_CONNECTIONS: Global<u64> = Global::new(0);

/// The attach method of the subflow sensor (`RecordRung`); 0 if it is off.
#[unsafe(no_mangle)]
pub(crate) static PATHS_RUNG: Global<u32> = Global::new(0);

/// Paths that come up and end may fill the ring up to this many bytes.
#[unsafe(no_mangle)]
pub(crate) static ROOM_FOR_PATHS: Global<u64> = Global::new(0);

/// What a peer can cause without end, such as joins that fail, may fill the ring up to this many
/// bytes.
#[unsafe(no_mangle)]
pub(crate) static ROOM_FOR_JOINS: Global<u64> = Global::new(0);

/// Records on their way to userspace, in order. The loader sets the size.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(2 << 20, 0);

/// Counters of the query sensor, one slot each.
#[map]
pub(crate) static QUERY_COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Pairs of notes in [`RUNS`], as a power of two.
pub(crate) const RUN_PAIRS_BITS: u32 = 12;

/// Runs that one of the programs at a probe has already handled, in pairs of slots; see `turns`.
/// The loader reduces it to one pair if no programs take turns.
#[map]
pub(crate) static RUNS: Array<[u64; 2]> = Array::with_max_entries(1 << RUN_PAIRS_BITS, 0);

/// Queries in flight by `pid_tgid`.
#[map]
pub(crate) static IN_FLIGHT: HashMap<u64, InFlight> = HashMap::with_max_entries(8192, 0);

/// Slots of [`QUOTAS`].
pub(crate) const QUOTA_SLOTS: u32 = 4096;

/// Queries per process in the current second. Process ids are allocated sequentially, so that their
/// lower bits spread well over the slots.
#[map]
pub(crate) static QUOTAS: Array<Quota> = Array::with_max_entries(QUOTA_SLOTS, 0);

/// Processes that the user named, by id in the tracer's PID namespace.
#[map]
pub(crate) static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

/// Descendants of wanted processes, by id in the initial PID namespace (`--follow`).
#[map]
pub(crate) static FAMILY: HashMap<u32, u8> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// Thread names that the filter admits.
#[map]
pub(crate) static COMMS: HashMap<[u8; 16], u8> = HashMap::with_max_entries(64, 0);

/// Network namespaces that the filter admits.
#[map]
pub(crate) static NETNS: HashMap<u32, u8> = HashMap::with_max_entries(64, 0);

/// Values that userspace determines only after the probes are attached.
#[map]
pub(crate) static CALIBRATED: Array<u32> = Array::with_max_entries(calibrated::COUNT, 0);

/// The connection whose paths are read next (`read_task_file`): the address of its socket, or 0.
#[map]
pub(crate) static READ_NEXT: Array<u64> = Array::with_max_entries(1, 0);

/// Counters of the fallback sensor, one slot each.
#[map]
pub(crate) static FALLBACK_COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(counter::COUNT, 0);

/// State of each MPTCP socket, and of each TCP child of an MPTCP listener, by address. The loader
/// sets the size (`--sockets`).
#[map]
pub(crate) static CONNS: HashMap<u64, Conn> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// Maximum number of entries of [`CONNS`] per user (`--sockets-per-user`).
#[unsafe(no_mangle)]
pub(crate) static SHARE_MAX: Global<u64> = Global::new(65_536);

/// Number of entries of [`CONNS`] per user; [`SHARE_OF_OTHERS`] always has an entry.
#[map]
pub(crate) static SHARES: HashMap<u32, u64> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Connections of [`CONNS`] that have fallen back, with the time of the first observation. A
/// separate map, because only an insertion with `BPF_NOEXIST` tests and sets atomically. The loader
/// sets the size.
#[map]
pub(crate) static FALLEN: HashMap<u64, u64> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// Fallen connections without an entry in [`CONNS`] because it is full, with the time of the first
/// observation. Their fallback is reported, but without details. When this map is full, the least
/// recently used entry is evicted, and that connection may be reported again.
#[map]
pub(crate) static FALLEN_UNTRACKED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8192, 0);

/// The MPTCP listener of a TCP socket that was just cloned from it, by socket address; and the
/// listener of the last MPTCP child, by CPU and thread (see `owner::this_run`). Written and read
/// while one packet is processed, so that no entry is evicted before it is used.
#[map]
pub(crate) static CHILDREN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);

/// Counters of the subflow sensor, one slot each.
#[map]
pub(crate) static SUBFLOW_COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(counter::COUNT, 0);

/// State of each path, by address of its TCP socket. The loader sets the size.
#[map]
pub(crate) static PATHS: HashMap<u64, Path> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// Number of entries of [`PATHS`] per user; [`SHARE_OF_OTHERS`] always has an entry.
#[map]
pub(crate) static PATH_SHARES: HashMap<u32, u64> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Slots of [`JOIN_QUOTAS`].
pub(crate) const JOIN_QUOTA_SLOTS: u32 = 1024;

/// Events per connection or listener in the current second, of kinds that a peer can cause without
/// end.
#[map]
pub(crate) static JOIN_QUOTAS: Array<Quota> = Array::with_max_entries(JOIN_QUOTA_SLOTS, 0);

/// What was observed of a join while one packet is processed, by CPU and thread (see
/// `owner::this_run`). Under the address of a request to join: its timer has run.
#[map]
pub(crate) static JOIN_RUNS: LruHashMap<u64, JoinRun> = LruHashMap::with_max_entries(4096, 0);

/// The subflow whose data was bad last, by CPU and thread (see `owner::this_run`). Under the address of
/// a connection, with its lowest bit set: when `mptcp_dss_corruption` last decided about it.
#[map]
pub(crate) static DATA_OF: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Network namespaces with a reported event that the kernel counts, by cookie. When full, the least
/// recently used one is evicted; its next fallback adds it again.
#[map]
pub(crate) static NETS: LruHashMap<u64, NetCounters> = LruHashMap::with_max_entries(4096, 0);

/// Result of a program that userspace runs itself.
#[map]
pub(crate) static ANSWER: Array<u64> = Array::with_max_entries(1, 0);

/// A per-CPU map used only for its address on each CPU: per-CPU data of the kernel is located
/// relative to it. The values are unused.
#[map]
pub(crate) static PER_CPU: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Arguments of a function until it returns, by thread and function; see `call_args`.
#[map]
pub(crate) static ARGUMENTS: HashMap<u64, [u64; 2]> =
    HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Connections for which the TCP code has just answered a query, by thread: the inner function
/// leaves this note for the outer one. If the query is not wanted, the outer function does not
/// remove the note, and it is evicted later.
#[map]
pub(crate) static ANSWERED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8192, 0);

/// The entry of a socket in [`CONNS`].
#[inline(always)]
pub(crate) fn conn(sk: u64) -> Option<Entry<Conn>> {
    // SAFETY: from a lookup of this run.
    CONNS
        .get_ptr_mut(sk)
        .map(|conn| unsafe { Entry::new(conn) })
}

/// The entry of a path in [`PATHS`].
#[inline(always)]
pub(crate) fn path(sk: u64) -> Option<Entry<Path>> {
    // SAFETY: from a lookup of this run.
    PATHS
        .get_ptr_mut(sk)
        .map(|path| unsafe { Entry::new(path) })
}

/// What was observed of a join in this run.
#[inline(always)]
pub(crate) fn join_run(key: u64) -> Option<Entry<JoinRun>> {
    // SAFETY: from a lookup of this run.
    JOIN_RUNS
        .get_ptr_mut(key)
        .map(|run| unsafe { Entry::new(run) })
}

/// The MPTCP listener noted under `key`: a socket address, or a CPU and thread.
#[inline(always)]
pub(crate) fn listener_of(key: u64) -> Option<u64> {
    // SAFETY: the pointer is to a value in the map, which stays mapped while a program runs.
    CHILDREN.get_ptr(key).map(|listener| unsafe { *listener })
}

/// The subflow whose data was bad last in a run, or when a connection was decided about.
#[inline(always)]
pub(crate) fn data_of(key: u64) -> Option<u64> {
    // SAFETY: the pointer is to a value in the map, which stays mapped while a program runs.
    DATA_OF.get_ptr(key).map(|value| unsafe { *value })
}

/// When a connection without an entry in [`CONNS`] was first observed as fallen back; `None` if it
/// was not.
#[inline(always)]
pub(crate) fn untracked_since(sk: u64) -> Option<u64> {
    // SAFETY: as above.
    FALLEN_UNTRACKED.get_ptr(sk).map(|since| unsafe { *since })
}

/// Index of the counter in a slot; `NO_NUMBER` if the kernel does not have it.
#[inline(always)]
pub(crate) fn counter_number(slot: usize) -> u8 {
    // SAFETY: COUNTER_NUMBERS is a static of this program. The read is volatile because the loader
    // writes the value between compilation and loading.
    unsafe { core::ptr::read_volatile(&raw const COUNTER_NUMBERS.0[slot]) }
}

/// A network namespace with a reported event that the kernel counts.
#[inline(always)]
pub(crate) fn net_of(cookie: u64) -> Option<Entry<NetCounters>> {
    // SAFETY: from a lookup of this run.
    NETS.get_ptr_mut(cookie)
        .map(|net| unsafe { Entry::new(net) })
}

/// A slot of [`QUOTAS`].
#[inline(always)]
pub(crate) fn quota(slot: u32) -> Option<Entry<Quota>> {
    // SAFETY: from a lookup of this run.
    QUOTAS
        .get_ptr_mut(slot)
        .map(|quota| unsafe { Entry::new(quota) })
}

/// The query in flight of a thread.
#[inline(always)]
pub(crate) fn in_flight(thread: u64) -> Option<Entry<InFlight>> {
    // SAFETY: from a lookup of this run.
    IN_FLIGHT
        .get_ptr_mut(thread)
        .map(|open| unsafe { Entry::new(open) })
}

/// Number of a user's entries in [`CONNS`].
#[derive(Clone, Copy)]
pub(crate) struct Share(*mut u64);

/// A slot of [`JOIN_QUOTAS`].
#[inline(always)]
pub(crate) fn join_quota(slot: u32) -> Option<Entry<Quota>> {
    // SAFETY: from a lookup of this run.
    JOIN_QUOTAS
        .get_ptr_mut(slot)
        .map(|quota| unsafe { Entry::new(quota) })
}

/// The share of paths of a user; `None` if the user has no entry yet.
#[inline(always)]
pub(crate) fn path_share(user: u32) -> Option<Share> {
    PATH_SHARES.get_ptr_mut(user).map(Share)
}

/// The share of a user; `None` if the user has no entry yet.
#[inline(always)]
pub(crate) fn share(user: u32) -> Option<Share> {
    SHARES.get_ptr_mut(user).map(Share)
}

impl Share {
    /// True if the user has reached the limit.
    #[inline(always)]
    pub(crate) fn is_full(self) -> bool {
        // SAFETY: the pointer is to a value in the map, from a lookup in this run.
        // Signed: additions made while `owner::forget` removed the share from the map are lost.
        (unsafe { *self.0 }).cast_signed() >= SHARE_MAX.load().cast_signed()
    }

    /// True if the user has no entries.
    #[inline(always)]
    pub(crate) fn is_empty(self) -> bool {
        // SAFETY: as above.
        unsafe { *self.0 == 0 }
    }

    /// Adds to it.
    #[inline(always)]
    pub(crate) fn add(self, change: u64) {
        // SAFETY: the pointer is to a value in the map; several CPUs add to it, atomically.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0, change) };
    }
}

/// The arguments stored under a key.
#[inline(always)]
pub(crate) fn arguments(slot: u64) -> Option<[u64; 2]> {
    // SAFETY: as above.
    ARGUMENTS
        .get_ptr(slot)
        .map(|arguments| unsafe { *arguments })
}

/// Removes the note that the TCP code answered this thread's query about this connection; true if
/// it existed.
#[inline(always)]
pub(crate) fn answered_by_tcp(thread: u64, msk: u64) -> bool {
    // SAFETY: as above.
    let is_noted = ANSWERED
        .get_ptr(thread)
        .is_some_and(|noted| unsafe { *noted } == msk);
    if is_noted {
        let _gone = ANSWERED.remove(thread);
    }
    is_noted
}

/// Values of the kernel's `enum mapping_status` and `enum skb_ext_id`.
#[inline(always)]
pub(crate) fn numbers() -> KernelNumbers {
    // SAFETY: NUMBERS is a static of this program. The read is volatile because the loader writes
    // the value between compilation and loading.
    unsafe { core::ptr::read_volatile(&raw const NUMBERS) }
}

/// Number of a system call of interest.
macro_rules! syscall {
    ($field:ident) => {{
        // SAFETY: SYSCALLS is a static of this program. The read is volatile because the loader
        // writes the value between compilation and loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::SYSCALLS.$field) }
    }};
}
pub(crate) use syscall;
