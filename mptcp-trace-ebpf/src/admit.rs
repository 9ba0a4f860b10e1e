//! The filter: decides whether to trace a process, a thread name or a network namespace.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use mptcp_trace_common::{
    filter::{BY_COMM, BY_NETNS, BY_PID, FOLLOW},
    map_values::Quota,
    record::Owner,
};

use crate::{
    entry::{Entry, get, set},
    kernel::{as_number, current_task, number_in_pid_namespace, pid_namespace_level, task_leader},
    maps::{
        ANSWER, CAP, COMMS, FAMILY, FILTER, JOIN_QUOTA_SLOTS, NETNS, PIDS, QUOTA_SLOTS, join_quota,
        quota,
    },
};

macro_rules! filter {
    ($field:ident) => {{
        // SAFETY: FILTER is a static of this program. The read is volatile because the loader
        // writes the value between compilation and loading.
        unsafe { core::ptr::read_volatile(&raw const FILTER.$field) }
    }};
}

/// Process and thread id in the tracer's PID namespace; 0 if not in it.
#[derive(Clone, Copy)]
pub(crate) struct InNamespace {
    pub(crate) tgid: u32,
    pub(crate) tid: u32,
}

/// Translates a task's ids into the tracer's PID namespace; `thread` is its `pid_tgid` in the
/// initial one. If that is the tracer's namespace too, `task` is not evaluated.
#[inline(always)]
pub(crate) fn in_namespace(task: impl FnOnce() -> u64, thread: u64) -> InNamespace {
    if filter!(pidns_inum) == 0 {
        return InNamespace {
            tgid: (thread >> 32) as u32,
            tid: thread as u32,
        };
    }
    let task = task();
    InNamespace {
        tgid: process_in_namespace(task),
        tid: number_in_pid_namespace(task, filter!(pidns_inum)),
    }
}

#[inline(always)]
fn process_in_namespace(task: u64) -> u32 {
    number_in_pid_namespace(task_leader(task), filter!(pidns_inum))
}

/// The current process's id in the tracer's PID namespace, given its `pid_tgid`.
#[inline(always)]
fn pid_in_namespace(thread: u64) -> u32 {
    match filter!(pidns_inum) {
        0 => (thread >> 32) as u32,
        _ => process_in_namespace(current_task()),
    }
}

/// Returns the nesting level of the tracer's PID namespace. Userspace runs this program with
/// `BPF_PROG_TEST_RUN`; it is not attached.
#[raw_tracepoint]
pub(crate) fn pidns_level(_ctx: RawTracePointContext) -> i32 {
    let level = pid_namespace_level(current_task());
    let _set = ANSWER.set(0, u64::from(level), 0);
    0
}

/// True if the filter admits the current task.
#[inline(always)]
pub(crate) fn admit_task() -> bool {
    let flags = filter!(flags);
    if flags & (BY_PID | BY_COMM) == 0 || is_own_task() {
        return true;
    }
    if flags & BY_PID != 0 && !is_wanted_process() {
        return false;
    }
    if flags & BY_COMM != 0 {
        return match bpf_get_current_comm() {
            Ok(comm) => COMMS.get_ptr(comm).is_some(),
            Err(_errno) => false,
        };
    }
    true
}

/// True if the filter admits sockets of this network namespace.
#[inline(always)]
pub(crate) fn admit_netns(inum: u32) -> bool {
    filter!(flags) & BY_NETNS == 0 || is_own_task() || NETNS.get_ptr(inum).is_some()
}

/// True if the user named the current process or one of its ancestors.
#[inline(always)]
pub(crate) fn is_wanted_process() -> bool {
    PIDS.get_ptr(pid_in_namespace(bpf_get_current_pid_tgid()))
        .is_some()
        || filter!(flags) & FOLLOW != 0
            && FAMILY
                .get_ptr((bpf_get_current_pid_tgid() >> 32) as u32)
                .is_some()
}

/// Period of the cap on queries.
const SECOND_NS: u64 = 1_000_000_000;
/// Slots that are tried for a process. If other processes occupy all of them, this process is not
/// capped.
const QUOTA_STEPS: u32 = 4;

/// Counts a query of process `tgid`; true if it exceeds the cap for this second. Threads on several
/// CPUs count without a lock, so a few extra queries may be admitted. The caller counts every query
/// that is left out.
#[inline(always)]
pub(crate) fn is_over_cap(tgid: u32, now_ns: u64) -> bool {
    let cap = CAP.load();
    if cap == 0 {
        return false;
    }
    for step in 0..QUOTA_STEPS {
        let slot = quota(tgid.wrapping_add(step) % QUOTA_SLOTS);
        if let Some(is_over) = count_in(slot, tgid, cap, now_ns) {
            return is_over;
        }
    }
    false
}

/// At most this many events per second of a connection or listener that a peer can cause without
/// end.
const CHEAP_MAX: u32 = 100;

/// Counts such an event of the socket at `sk`; true if it exceeds the limit for this second.
#[inline(always)]
pub(crate) fn is_over_cheap(sk: u64, now_ns: u64) -> bool {
    // Sockets are aligned to 64 bytes at least.
    let key = (as_number(sk) >> 6) as u32;
    for step in 0..QUOTA_STEPS {
        let slot = join_quota(key.wrapping_add(step) % JOIN_QUOTA_SLOTS);
        if let Some(is_over) = count_in(slot, key, CHEAP_MAX, now_ns) {
            return is_over;
        }
    }
    // All slots are taken: this one is not limited, the ring's room for such events is.
    false
}

/// Counts an event of `key` in a slot; `None` if the slot is taken.
#[inline(always)]
fn count_in(slot: Option<Entry<Quota>>, key: u32, cap: u32, now_ns: u64) -> Option<bool> {
    let Some(quota) = slot else {
        return Some(false);
    };
    let is_over = now_ns.wrapping_sub(get!(quota, since_ns)) >= SECOND_NS;
    let is_its = get!(quota, tgid) == key;
    if is_its && !is_over {
        let events = get!(quota, queries) + 1;
        set!(quota, queries, events);
        return Some(events > cap);
    }
    if is_its || is_over {
        set!(quota, tgid, key);
        set!(quota, since_ns, now_ns);
        set!(quota, queries, 1);
        return Some(false);
    }
    None
}

/// True for the tracer itself: its canary passes every filter.
#[inline(always)]
pub(crate) fn is_own_task() -> bool {
    is_own(bpf_get_current_pid_tgid())
}

/// Variant for callers that already have the `pid_tgid` of the current task.
#[inline(always)]
pub(crate) fn is_own(thread: u64) -> bool {
    pid_in_namespace(thread) == filter!(own_tgid)
}

/// True if the filter admits the sockets of this process.
#[inline(always)]
pub(crate) fn admit_owner(owner: &Owner) -> bool {
    let flags = filter!(flags);
    if flags & (BY_PID | BY_COMM) == 0 || is_tracer(owner.ns_tgid) {
        return true;
    }
    if flags & BY_PID != 0
        && !(PIDS.get_ptr(owner.ns_tgid).is_some()
            || flags & FOLLOW != 0 && FAMILY.get_ptr(owner.tgid).is_some())
    {
        return false;
    }
    flags & BY_COMM == 0 || COMMS.get_ptr(owner.comm).is_some()
}

/// True if the filter admits sockets of this network namespace, independent of the current task.
#[inline(always)]
pub(crate) fn admit_socket_netns(inum: u32) -> bool {
    filter!(flags) & BY_NETNS == 0 || NETNS.get_ptr(inum).is_some()
}

/// True for the tracer's own sockets: its canary. `ns_tgid` is that of the owner.
#[inline(always)]
pub(crate) fn is_tracer(ns_tgid: u32) -> bool {
    ns_tgid != 0 && ns_tgid == filter!(own_tgid)
}
