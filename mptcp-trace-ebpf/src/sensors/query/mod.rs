//! Records each query of an application whether its connection is still MPTCP, and the answer of
//! the kernel.
//!
//! One query is one record, although a connection that fell back passes it through three functions
//! and two sockets: the outermost function returns the answer; the inner ones only add to the path.
//! The path determines the answer; the caller's buffer is read only if the path was not observed.

mod fexit;
mod kprobe;
mod refused;
mod tracepoint;

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use mptcp_trace_common::{
    counter,
    map_values::Conn,
    numbers::{
        AF_INET6, MPTCP_FULL_INFO, MPTCP_INFO, SO_PROTOCOL, SOL_MPTCP, SOL_SOCKET, SOL_TCP,
        TCP_IS_MPTCP,
    },
    record::{ConnState, Kind, PathBits, QueryFlags, QueryRecord, RecordRung},
};

use crate::{
    admit::{admit_netns, admit_task, in_namespace, is_over_cap, is_own},
    emit,
    entry::{Entry, get, set},
    kernel::{
        Fault, ReadMember, Sock, current_task, endpoints, family_of, is_mptcp, netns_of,
        put_address, read_user_u8, read_user_u32, state_of,
    },
    maps::{OUTERMOST_PROBED, conn, untracked_since},
    sensors::{
        fallback::look_at_query,
        owner::{note_untraced, owner_for_query},
    },
};

/// True for `TCP_IS_MPTCP`, and for the options of MPTCP, whose answer or refusal shows the same.
/// Checked first, because all other calls must stay fast.
#[inline(always)]
fn is_query(level: u32, option: u32) -> bool {
    level == SOL_TCP && option == TCP_IS_MPTCP || is_mptcp_query(level, option)
}

/// True for the queries that only MPTCP sockets answer.
#[inline(always)]
fn is_mptcp_query(level: u32, option: u32) -> bool {
    level == SOL_MPTCP && (MPTCP_INFO..=MPTCP_FULL_INFO).contains(&option)
}

/// True for the query of the protocol that a socket was created with.
#[inline(always)]
fn is_protocol_query(level: u32, option: u32) -> bool {
    level == SOL_SOCKET && option == SO_PROTOCOL
}

/// Level and number of an option in one word, so that a function takes few arguments.
#[inline(always)]
fn option(level: u32, number: u32) -> u64 {
    u64::from(level) << 32 | u64::from(number)
}

/// Counts a query of `thread` (`pid_tgid`); true if it is to be traced. A query of another
/// instance's self-test may still be rejected later.
#[inline(always)]
fn is_wanted(sk: Sock, thread: u64, now_ns: u64) -> bool {
    emit::count(counter::SEEN);
    if !admit_task() {
        emit::count(unless_self_test(sk, thread, counter::FILTERED));
        return false;
    }
    // The tracer's self-test is exempt from the cap.
    if !is_own(thread) && is_over_cap((thread >> 32) as u32, now_ns) {
        emit::count(unless_self_test(sk, thread, counter::CAPPED));
        note_untraced(sk);
        return false;
    }
    true
}

/// The counter for a query that is not traced.
#[inline(always)]
fn unless_self_test(sk: Sock, thread: u64, counter: u32) -> u32 {
    match is_of_another_self_test(sk, thread) {
        true => counter::SELF_TEST,
        false => counter,
    }
}

/// True if another instance queries a socket of its self-test.
#[inline(always)]
fn is_of_another_self_test(sk: Sock, thread: u64) -> bool {
    // If only inner functions are probed, the queried socket is a subflow.
    let queried = match OUTERMOST_PROBED.load() {
        0 => sk.msk_of_subflow().unwrap_or(sk),
        _ => sk,
    };
    queried.is_of_self_test() && !is_own(thread)
}

/// Why a query is not written.
enum Unwritten {
    Fault,
    SelfTest,
}

impl From<Fault> for Unwritten {
    #[inline(always)]
    fn from(Fault: Fault) -> Self {
        Self::Fault
    }
}

/// A query that has been answered.
struct Answered {
    /// Thread that made the query (`pid_tgid`).
    thread: u64,
    /// The queried socket.
    sk: Sock,
    /// Its `sk_protocol`; 0 if it could not be read.
    protocol: u16,
    /// Its `struct socket`; 0 if it could not be read.
    socket: u64,
    rung: RecordRung,
    /// When the query was made; when it was answered, if only that is observed.
    at_ns: u64,
}

/// Writes the option and the answer.
#[inline(always)]
fn put_answer(record: &mut QueryRecord, option: u64, path: PathBits, ret: i32) {
    record.level = (option >> 32) as u32;
    record.optname = option as u32;
    record.path = path;
    record.ret = ret;
}

/// Emits the record of a wanted query; `sock` reads its socket, `put` writes the option and the
/// answer, `more` adds details that only the caller knows.
#[inline(always)]
fn answer(
    ctx: &impl EbpfContext,
    sock: &impl ReadMember,
    answered: &Answered,
    put: impl FnOnce(&mut QueryRecord),
    more: impl FnOnce(&mut QueryRecord),
) {
    let sk = answered.sk;
    let Some(mut entry) = emit::reserve_query() else {
        note_untraced(sk);
        return;
    };
    let record = emit::blank(&mut entry);
    record.kind = Kind::QUERY;
    begin(record, sock, answered.thread, answered.rung, answered.at_ns);
    put_inode(record, sock.inode(answered.socket));
    record.protocol = answered.protocol;
    sock.put_comm(&mut record.comm);
    put(record);
    match describe(record, sock, sk) {
        Ok(()) if !admit_netns(record.netns) => emit::discard_query(entry, counter::FILTERED),
        Ok(()) => {
            more(record);
            debug!(
                ctx,
                "thread {}: path {} returned {}",
                record.tid,
                record.path.bits(),
                record.ret
            );
            emit::submit_query(entry);
        }
        Err(Unwritten::SelfTest) => emit::discard_query(entry, counter::SELF_TEST),
        Err(Unwritten::Fault) => {
            emit::discard_query(entry, counter::FAULTED);
            note_untraced(sk);
            debug!(
                ctx,
                "thread {}: socket 0x{:x} could not be read",
                ctx.pid(),
                sk.0
            );
        }
    }
}

/// Writes the thread and the time of a query. In place: two records exceed the stack of a program
/// that calls functions.
#[inline(always)]
fn begin(
    record: &mut QueryRecord,
    sock: &impl ReadMember,
    thread: u64,
    rung: RecordRung,
    boottime_ns: u64,
) {
    if is_own(thread) {
        record.flags |= QueryFlags::BY_TRACER;
    }
    record.boottime_ns = boottime_ns;
    record.cgroup_id = sock.caller_cgroup();
    record.tgid = (thread >> 32) as u32;
    record.tid = thread as u32;
    let here = in_namespace(current_task, thread);
    record.ns_tgid = here.tgid;
    record.ns_tid = here.tid;
    record.uid = sock.caller_uid();
    record.rung = rung;
}

/// Writes the socket's data, and marks the socket as queried.
#[inline(always)]
fn describe(record: &mut QueryRecord, sock: &impl ReadMember, sk: Sock) -> Result<(), Unwritten> {
    if record.protocol == 0 {
        return Err(Unwritten::Fault);
    }
    let is_mptcp = is_mptcp(record.protocol);
    let known = match is_mptcp {
        true => owner_for_query(sk, record.inode, record.tgid),
        false => conn(sk.0),
    };
    // On the first query of a socket, check whether it belongs to a self-test.
    if known.is_none_or(|it| !get!(it, state).contains(ConnState::ASKED))
        && !record.flags.contains(QueryFlags::BY_TRACER)
        && sk.is_of_self_test()
    {
        return Err(Unwritten::SelfTest);
    }
    if is_mptcp {
        // Read once: either the path or these bits show the answer.
        if let Ok(flags) = sk.msk_flags() {
            record.msk_flags = flags;
            record.flags |= QueryFlags::MSK_FLAGS;
            look_at_query(sk, flags, known, record.boottime_ns);
        }
    }
    note(record, known);
    if record.born_ns == 0 {
        record.born_ns = untracked_since(sk.0).unwrap_or(0);
    }
    Ok(describe_socket(record, sk, sock)?)
}

/// Writes the socket's birth, and marks it as queried.
#[inline(always)]
fn note(record: &mut QueryRecord, known: Option<Entry<Conn>>) {
    if let Some(conn) = known {
        let state = get!(conn, state);
        if state.contains(ConnState::QUERY_UNTRACED) {
            record.flags |= QueryFlags::AFTER_UNTRACED;
        }
        set!(
            conn,
            state,
            state.difference(ConnState::QUERY_UNTRACED) | ConnState::ASKED
        );
        record.born_ns = get!(conn, born_ns);
        record.connect_ns = get!(conn, connect_ns);
    }
}

/// Adds the content of the caller's buffer: `optval` and `optlen` are addresses in its memory.
#[inline(always)]
fn put_user_value(record: &mut QueryRecord, optval: u64, optlen: u64) {
    if let Ok(len) = read_user_u32(optlen)
        && len > 0
    {
        let value = if len >= 4 {
            read_user_u32(optval)
        } else {
            // The kernel truncates the answer to the caller's buffer; its first byte is sufficient.
            read_user_u8(optval).map(u32::from)
        };
        if let Ok(value) = value {
            record.user_value = value;
            record.flags |= QueryFlags::USER_VALUE;
        }
    }
}

/// Writes the socket's data except its protocol.
#[inline(always)]
fn describe_socket(
    record: &mut QueryRecord,
    sk: Sock,
    sock: &impl ReadMember,
) -> Result<(), Fault> {
    record.socket = sk.0;
    record.family = family_of(sock)?;
    record.state = state_of(sock)?;
    record.netns = netns_of(sock)?;
    let mut ends = endpoints(sock, record.family)?;
    if record.family == AF_INET6 {
        ends.put_zone(|| sk.device(is_mptcp(record.protocol)));
    }
    put_address(&mut record.local_addr, ends.local_addr);
    put_address(&mut record.remote_addr, ends.remote_addr);
    record.local_port = ends.local_port;
    record.remote_port_be = ends.remote_port_be;
    Ok(())
}

/// Writes the inode number that processes see.
#[inline(always)]
fn put_inode(record: &mut QueryRecord, inode: Result<u64, Fault>) {
    if let Ok(inode) = inode {
        record.inode = inode;
        record.flags |= QueryFlags::INODE;
    }
}
