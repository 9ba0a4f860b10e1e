//! Every map and every global on one screen.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use mptcp_trace_common::{
    counter,
    filter::FilterConfig,
    layout::KernelLayout,
    record::{ABI_VERSION, InFlight, SyscallInFlight},
};

/// Marks the object as speaking this version of the wire; its name is `record::ABI_SYMBOL`.
#[unsafe(no_mangle)]
static MPTCP_TRACE_ABI_1: Global<u32> = Global::new(ABI_VERSION);

/// Where this kernel keeps what the probes read. Written by the loader, then frozen.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: KernelLayout = KernelLayout::EMPTY;

/// Whose questions are wanted. Written by the loader, then frozen.
#[unsafe(no_mangle)]
pub(crate) static FILTER: FilterConfig = FilterConfig {
    flags: 0,
    own_tgid: 0,
    pidns_dev: 0,
    pidns_ino: 0,
};

/// 1 where `mptcp_getsockopt` itself is probed, so that a TCP function entered for a subflow without a
/// question in flight belongs to one that was left out; 0 where only inner functions are.
#[unsafe(no_mangle)]
pub(crate) static OUTERMOST_PROBED: Global<u32> = Global::new(1);

/// Records on their way to userspace, in order. The loader sets the size.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Counters of the query sensor, one slot each.
#[map]
pub(crate) static QUERY_COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Questions in flight by `pid_tgid`: probes on functions.
#[map]
pub(crate) static IN_FLIGHT: HashMap<u64, InFlight> = HashMap::with_max_entries(8192, 0);

/// Questions in flight by `pid_tgid`: syscall tracepoints.
#[map]
pub(crate) static SYSCALL_IN_FLIGHT: HashMap<u64, SyscallInFlight> =
    HashMap::with_max_entries(8192, 0);

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
