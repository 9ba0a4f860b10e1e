//! Records what the kernel refuses to applications because they use MPTCP: socket options that a
//! TCP socket would accept, and the creation of the socket itself.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, maps::ring_buf::RingBufEntry};
use mptcp_trace_common::{
    counter,
    numbers::{AF_INET, AF_INET6, IPPROTO_MPTCP, SOL_IP, SOL_IPV6, SOL_TCP},
    record::{Kind, QueryFlags, QueryRecord, RecordRung},
};

use super::{begin, describe_socket, put_inode};
use crate::{
    admit::{admit_netns, admit_task, is_over_cap, is_own_task},
    emit,
    entry::get,
    kernel::{Fault, Sock, current_netns, is_mptcp, now_ns, put_comm},
    maps::conn,
    sensors::fallback::fell_back,
};

const ENOPROTOOPT: i32 = -92;
const EOPNOTSUPP: i32 = -95;

const SOCK_STREAM: u64 = 1;
/// Mask of the socket type without its flags.
const SOCK_TYPE_MASK: u64 = 0xf;

/// True for the levels of options that a TCP socket accepts and an MPTCP socket must handle itself.
#[inline(always)]
pub(super) fn is_ordinary(level: u32) -> bool {
    level == SOL_TCP || level == SOL_IP || level == SOL_IPV6
}

/// True for the errors of an unknown option.
#[inline(always)]
pub(super) fn is_refusal(ret: i32) -> bool {
    ret == ENOPROTOOPT || ret == EOPNOTSUPP
}

/// True for those errors, and the two between them.
#[inline(always)]
pub(super) fn may_be_refusal(ret: i32) -> bool {
    (EOPNOTSUPP..=ENOPROTOOPT).contains(&ret)
}

/// True for the arguments of an MPTCP socket.
#[inline(always)]
pub(super) fn is_mptcp_socket(family: u64, kind: u64, protocol: u64) -> bool {
    protocol as u32 == u32::from(IPPROTO_MPTCP)
        && kind & SOCK_TYPE_MASK == SOCK_STREAM
        && (family == u64::from(AF_INET) || family == u64::from(AF_INET6))
}

/// Result of a call, packed into one word.
#[inline(always)]
pub(super) fn outcome(ret: i32, is_set: bool, rung: RecordRung) -> u64 {
    u64::from(ret as u32) << 32 | u64::from(is_set) << 8 | u64::from(rung.0)
}

/// Reserves a record of a refusal if the filter admits the current task; otherwise counts the
/// reason.
#[inline(always)]
fn reserve_if_wanted(thread: u64) -> Option<RingBufEntry<QueryRecord>> {
    emit::count(counter::SEEN);
    if !admit_task() {
        emit::count(counter::FILTERED);
        return None;
    }
    if is_over_cap((thread >> 32) as u32, now_ns()) {
        emit::count(counter::CAPPED);
        return None;
    }
    emit::reserve_query()
}

/// The kernel refused an option. Reported only for a connection that is still MPTCP: after a
/// fallback, the refusal comes from TCP.
#[inline(never)]
pub(super) fn option_refused(sk: u64, option: u64, outcome: u64) -> u32 {
    let sk = Sock(sk);
    let Ok(protocol) = sk.protocol() else {
        return 0;
    };
    if !is_mptcp(protocol) || fell_back(sk) == Some(true) || is_own_task() {
        return 0;
    }
    let thread = bpf_get_current_pid_tgid();
    let Some(mut entry) = reserve_if_wanted(thread) else {
        return 0;
    };
    let record = emit::blank(&mut entry);
    record.kind = Kind::OPTION_REFUSED;
    record.protocol = protocol;
    begin(record, &sk, thread, RecordRung(outcome as u8), now_ns());
    put_comm(&mut record.comm);
    record.ret = (outcome >> 32) as i32;
    if outcome >> 8 & 1 != 0 {
        record.flags |= QueryFlags::IS_SET;
    }
    record.level = (option >> 32) as u32;
    record.optname = option as u32;
    if let Some(conn) = conn(sk.0) {
        record.born_ns = get!(conn, born_ns);
        record.connect_ns = get!(conn, connect_ns);
    }
    put_inode(record, sk.inode());
    match describe_socket(record, sk, &sk) {
        Ok(()) if !admit_netns(record.netns) => emit::discard_query(entry, counter::FILTERED),
        Ok(()) => emit::submit_query(entry),
        Err(Fault) => emit::discard_query(entry, counter::FAULTED),
    }
    0
}

/// The kernel refused to create a socket in the current task's network namespace.
#[inline(never)]
pub(super) fn socket_refused(family: u64, outcome: u64) -> u32 {
    if is_own_task() {
        return 0;
    }
    let thread = bpf_get_current_pid_tgid();
    let Some(mut entry) = reserve_if_wanted(thread) else {
        return 0;
    };
    let record = emit::blank(&mut entry);
    record.kind = Kind::SOCKET_REFUSED;
    begin(
        record,
        &Sock(0),
        thread,
        RecordRung(outcome as u8),
        now_ns(),
    );
    put_comm(&mut record.comm);
    record.ret = (outcome >> 32) as i32;
    record.family = family as u16;
    record.protocol = IPPROTO_MPTCP;
    match current_netns() {
        Ok(netns) => {
            record.netns = netns;
            if admit_netns(netns) {
                emit::submit_query(entry);
            } else {
                emit::discard_query(entry, counter::FILTERED);
            }
        }
        Err(Fault) => emit::discard_query(entry, counter::FAULTED),
    }
    0
}
