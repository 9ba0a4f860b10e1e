//! Every map and every global on one screen.

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
    record::{ABI_VERSION, Conn, InFlight, NetCounters, Quota},
};

/// Marks the object as speaking this version of the wire; its name is `record::ABI_SYMBOL`.
#[unsafe(no_mangle)]
static MPTCP_TRACE_ABI_5: Global<u32> = Global::new(ABI_VERSION);

/// Where this kernel keeps what the probes read. Written by the loader, then frozen.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: KernelLayout = KernelLayout::EMPTY;

/// Whose questions are wanted. Written by the loader, then frozen.
#[unsafe(no_mangle)]
pub(crate) static FILTER: FilterConfig = FilterConfig {
    flags: 0,
    own_tgid: 0,
    pidns_inum: 0,
};

/// 1 where `mptcp_getsockopt` itself is probed, so that a TCP function entered for a subflow without a
/// question in flight belongs to one that was left out; 0 where only inner functions are.
#[unsafe(no_mangle)]
pub(crate) static OUTERMOST_PROBED: Global<u32> = Global::new(1);

/// Which of `RUNG_*` the probes of this object are attached as.
#[unsafe(no_mangle)]
pub(crate) static RUNG: Global<u32> = Global::new(0);

/// 1 where the function that decides fallbacks is probed, so that nothing has to be foretold.
#[unsafe(no_mangle)]
pub(crate) static DECISION_PROBED: Global<u32> = Global::new(0);

/// 1 where the function that takes a child out of MPTCP is probed, and the one that frees connections.
#[unsafe(no_mangle)]
pub(crate) static CHILDREN_PROBED: Global<u32> = Global::new(0);

/// Numbers that the kernel gives to what it says of a mapping. Written by the loader, then frozen.
#[unsafe(no_mangle)]
pub(crate) static NUMBERS: KernelNumbers = KernelNumbers::NONE;

/// Numbers of the counters that are read of a network namespace. Written by the loader, then frozen.
#[unsafe(no_mangle)]
pub(crate) static COUNTER_NUMBERS: CounterNumbers = CounterNumbers::NONE;

/// How many CPUs there can be; 0 if their numbers have gaps.
#[unsafe(no_mangle)]
pub(crate) static CPUS: Global<u32> = Global::new(0);

/// How many questions of one process are traced in a second; 0 for all of them.
#[unsafe(no_mangle)]
pub(crate) static CAP: Global<u32> = Global::new(10_000);

/// The numbers by which this architecture knows some system calls. Written by the loader, then frozen.
#[unsafe(no_mangle)]
pub(crate) static SYSCALLS: SyscallNumbers = SyscallNumbers::NONE;

/// 1 where the program at the return of system calls sees sockets made and accepted, too: one place, one program.
#[unsafe(no_mangle)]
pub(crate) static LIFE_AT_RETURN: Global<u32> = Global::new(0);

/// 1 where several programs take turns at a function.
#[unsafe(no_mangle)]
pub(crate) static TURNS_AT_FUNCTIONS: Global<u32> = Global::new(0);
/// The same of tracepoints.
#[unsafe(no_mangle)]
pub(crate) static TURNS_AT_TRACEPOINTS: Global<u32> = Global::new(0);

/// Bytes in the ring up to which there is room for questions; what is left is for what happens to connections.
#[unsafe(no_mangle)]
pub(crate) static ROOM_FOR_QUESTIONS: Global<u64> = Global::new(0);

/// Bytes in the ring up to which there is room for what can be said later; what is left is for fallbacks.
#[unsafe(no_mangle)]
pub(crate) static ROOM_FOR_LIVES: Global<u64> = Global::new(0);

/// Records on their way to userspace, in order. The loader sets the size.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Counters of the query sensor, one slot each.
#[map]
pub(crate) static QUERY_COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Pairs of notes in [`RUNS`], as a power of two.
pub(crate) const RUN_PAIRS_BITS: u32 = 12;

/// Runs that one of several programs at a place has taken, each in one of two places; see `turns`. The loader leaves one pair
/// where no program takes turns.
#[map]
pub(crate) static RUNS: Array<[u64; 2]> = Array::with_max_entries(1 << RUN_PAIRS_BITS, 0);

/// Questions in flight by `pid_tgid`.
#[map]
pub(crate) static IN_FLIGHT: HashMap<u64, InFlight> = HashMap::with_max_entries(8192, 0);

/// Slots of [`QUOTAS`].
pub(crate) const QUOTA_SLOTS: u32 = 4096;

/// How often processes have asked in this second. Process ids are given out in turn, so that the lower bits of one are
/// a good place for it.
#[map]
pub(crate) static QUOTAS: Array<Quota> = Array::with_max_entries(QUOTA_SLOTS, 0);

/// Processes that were named by the user, as the tracer's PID namespace numbers them.
#[map]
pub(crate) static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

/// Their descendants, as the initial PID namespace numbers them (`--follow`).
#[map]
pub(crate) static FAMILY: HashMap<u32, u8> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// Thread names whose questions are wanted.
#[map]
pub(crate) static COMMS: HashMap<[u8; 16], u8> = HashMap::with_max_entries(64, 0);

/// Network namespaces whose sockets are wanted.
#[map]
pub(crate) static NETNS: HashMap<u32, u8> = HashMap::with_max_entries(64, 0);

/// What is found out only when the probes run already.
#[map]
pub(crate) static CALIBRATED: Array<u32> = Array::with_max_entries(calibrated::COUNT, 0);

/// Counters of the fallback sensor, one slot each.
#[map]
pub(crate) static FALLBACK_COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(counter::COUNT, 0);

/// What is known of each MPTCP socket, and of the TCP children of MPTCP listeners, by address. The loader sets the size
/// (`--sockets`).
#[map]
pub(crate) static CONNS: HashMap<u64, Conn> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// How many entries of [`CONNS`] one user may have (`--sockets-per-user`).
#[unsafe(no_mangle)]
pub(crate) static SHARE_MAX: Global<u64> = Global::new(65_536);

/// How many entries of [`CONNS`] each user has; [`SHARE_OF_OTHERS`] is always there.
#[map]
pub(crate) static SHARES: HashMap<u32, u64> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Connections of [`CONNS`] of which it is known that they fell back. A map of its own, since only inserting into one
/// is a test and a set at once. The loader sets the size.
#[map]
pub(crate) static FALLEN: HashMap<u64, u64> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// The same of connections for which [`CONNS`] has no room, with the time at which they were first observed: detail is
/// missing, the fallback is not. Where this is full, the one that nobody looked at for longest makes room, and may be
/// reported again.
#[map]
pub(crate) static FALLEN_UNNOTED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8192, 0);

/// The MPTCP listener of TCP sockets that were just born of one, by address; and, by the number of a CPU, of the one that
/// was born last there. Filled and read while one packet is processed, so that nobody's entries push out others' in time.
#[map]
pub(crate) static CHILDREN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);

/// Network namespaces in which something was told of that the kernel counts, by cookie. Where this is full, the one that was
/// left alone for longest makes room, and is read at its next fallback again.
#[map]
pub(crate) static NETS: LruHashMap<u64, NetCounters> = LruHashMap::with_max_entries(4096, 0);

/// What a program answers that userspace runs itself.
#[map]
pub(crate) static ANSWER: Array<u64> = Array::with_max_entries(1, 0);

/// Has a value for each CPU whose address is known to us: by that it is found where the kernel keeps what is particular to a
/// CPU. Nothing is in it.
#[map]
pub(crate) static PER_CPU: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Arguments of functions that are to return, by thread (kprobes do not keep them).
#[map]
pub(crate) static ARGUMENTS: HashMap<u64, [u64; 2]> =
    HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Connections about which TCP has just answered, by thread: a note of the inner function for the outer one. What nobody
/// collects, because the question was not wanted, makes room for others.
#[map]
pub(crate) static ANSWERED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8192, 0);

/// What is known of a socket. Several CPUs may write to it, each of them plain data.
#[inline(always)]
pub(crate) fn conn(sk: u64) -> Option<&'static mut Conn> {
    // SAFETY: the pointer is to a value in the map, which stays mapped as long as a program runs.
    CONNS.get_ptr_mut(sk).map(|conn| unsafe { &mut *conn })
}

/// The MPTCP listener that is noted under `key`: an address, or the number of a CPU.
#[inline(always)]
pub(crate) fn listener_of(key: u64) -> Option<u64> {
    // SAFETY: as above.
    CHILDREN.get_ptr(key).map(|listener| unsafe { *listener })
}

/// When a connection without an entry in [`CONNS`] was first seen to have fallen back, if it was.
#[inline(always)]
pub(crate) fn unnoted_since(sk: u64) -> Option<u64> {
    // SAFETY: as above.
    FALLEN_UNNOTED.get_ptr(sk).map(|since| unsafe { *since })
}

/// Number of the counter in a slot; `NO_NUMBER` if there is none.
#[inline(always)]
pub(crate) fn counter_number(slot: usize) -> u8 {
    // SAFETY: COUNTER_NUMBERS is a static of this program. The read is volatile because the loader writes the value between
    // compilation and loading.
    unsafe { core::ptr::read_volatile(&raw const COUNTER_NUMBERS.0[slot]) }
}

/// A network namespace in which something was told of that the kernel counts.
#[inline(always)]
pub(crate) fn net_of(cookie: u64) -> Option<&'static mut NetCounters> {
    // SAFETY: as above.
    NETS.get_ptr_mut(cookie).map(|net| unsafe { &mut *net })
}

/// How many entries of [`CONNS`] a user has.
#[derive(Clone, Copy)]
pub(crate) struct Share(*mut u64);

/// That of a user; none if it is not counted yet.
#[inline(always)]
pub(crate) fn share(user: u32) -> Option<Share> {
    SHARES.get_ptr_mut(user).map(Share)
}

impl Share {
    /// Whether there is no room in it.
    #[inline(always)]
    pub(crate) fn is_full(self) -> bool {
        // SAFETY: the pointer is to a value in the map, from a lookup in this run.
        // Signed: what was added to it while it was taken out of the map is missing (see `owner::forget`).
        (unsafe { *self.0 }).cast_signed() >= SHARE_MAX.load().cast_signed()
    }

    /// Whether nothing is in it.
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

/// Arguments that were kept.
#[inline(always)]
pub(crate) fn arguments(slot: u64) -> Option<[u64; 2]> {
    // SAFETY: as above.
    ARGUMENTS
        .get_ptr(slot)
        .map(|arguments| unsafe { *arguments })
}

/// Collects the note that TCP has answered this thread about this connection; true if there was one.
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

/// Numbers that the kernel gives to what it says of a mapping.
#[inline(always)]
pub(crate) fn numbers() -> KernelNumbers {
    // SAFETY: NUMBERS is a static of this program. The read is volatile because the loader writes the value
    // between compilation and loading.
    unsafe { core::ptr::read_volatile(&raw const NUMBERS) }
}

/// The number of a system call that is looked for.
macro_rules! syscall {
    ($field:ident) => {{
        // SAFETY: SYSCALLS is a static of this program. The read is volatile because the loader writes the value
        // between compilation and loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::SYSCALLS.$field) }
    }};
}
pub(crate) use syscall;
