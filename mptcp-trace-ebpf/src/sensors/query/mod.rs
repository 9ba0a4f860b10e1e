//! Who asks the kernel "is this still MPTCP?", about which connection, and what was the answer?
//!
//! One query is one record, although a connection that fell back is answered by three functions with
//! two different sockets: the outermost function opens the question, its return closes it, and what is
//! entered in between only adds to the path. The path and the return value tell the answer; the
//! caller's memory is not asked.

mod fexit;
mod kprobe;
mod refused;
mod tracepoint;

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid},
};
use aya_log_ebpf::debug;
use mptcp_trace_common::{
    counter,
    record::{
        BY_TRACER, CONN_ASKED, InFlight, KIND_QUERY, PATH_MPTCP, PATH_TCP, PATH_UNSEEN,
        QueryRecord, VALID_FLAGS_ENTER, VALID_FLAGS_EXIT, VALID_INODE,
    },
};

use crate::{
    admit::{admit_netns, admit_task, is_own_task},
    emit,
    kernel::{Fault, Sock, current_cgroup, is_mptcp, now_ns},
    maps::{IN_FLIGHT, OUTERMOST_PROBED, conn},
    sensors::{fallback::look_later, owner::asked},
};

const SOL_SOCKET: u32 = 1;
const SOL_TCP: u32 = 6;
const SOL_MPTCP: u32 = 284;
const SO_PROTOCOL: u32 = 38;
const TCP_IS_MPTCP: u32 = 43;
/// First and last of MPTCP's own options.
const MPTCP_INFO: u32 = 1;
const MPTCP_FULL_INFO: u32 = 4;

/// True for the option that was made for this question, and for those whose answer, or refusal, tells the same.
/// Asked first: everything else is not ours to slow down.
#[inline(always)]
fn is_query(level: u32, option: u32) -> bool {
    level == SOL_TCP && option == TCP_IS_MPTCP || is_mptcp_query(level, option)
}

/// True for those of them that only MPTCP sockets answer.
#[inline(always)]
fn is_mptcp_query(level: u32, option: u32) -> bool {
    level == SOL_MPTCP && (MPTCP_INFO..=MPTCP_FULL_INFO).contains(&option)
}

/// True for the question of which protocol a socket was made with.
#[inline(always)]
fn is_protocol_query(level: u32, option: u32) -> bool {
    level == SOL_SOCKET && option == SO_PROTOCOL
}

/// Level and number of an option in one word, so that a function takes few arguments.
#[inline(always)]
fn option(level: u32, number: u32) -> u64 {
    u64::from(level) << 32 | u64::from(number)
}

/// A function that answers queries was entered; `step` says which kind (`PATH_*`), `option` what it was asked for.
#[inline(always)]
fn enter(ctx: &impl EbpfContext, step: u8, sk: Sock, option: u64) {
    let thread = bpf_get_current_pid_tgid();
    if let Some(open) = IN_FLIGHT.get_ptr_mut(thread) {
        // SAFETY: the slot belongs to this thread, which is here and nowhere else.
        let open = unsafe { &mut *open };
        if step == PATH_TCP && open.path == PATH_MPTCP {
            open.path |= PATH_TCP;
            return;
        }
        // The return of the previous question was never seen.
        emit::count(counter::UNFINISHED);
        let _gone = IN_FLIGHT.remove(thread);
    }
    if step == PATH_TCP && OUTERMOST_PROBED.load() != 0 && sk.msk_of_subflow().is_some() {
        // The inner half of a question that was left out (and counted) at its outer half.
        return;
    }
    emit::count(counter::SEEN);
    if !admit_task() {
        emit::count(counter::FILTERED);
        return;
    }
    let open = InFlight {
        boottime_ns: now_ns(),
        socket: sk.0,
        level: (option >> 32) as u32,
        optname: option as u32,
        path: step,
        reserved: [0; 7],
    };
    if IN_FLIGHT.insert(thread, open, 0).is_err() {
        emit::count(counter::TABLE_FULL);
        debug!(ctx, "thread {}: no room for its question", ctx.pid());
    }
}

/// A function that answers for whatever socket was entered: of sockets that are no MPTCP, the answer is no news.
#[inline(always)]
fn enter_protocol(ctx: &impl EbpfContext, sk: Sock) {
    if sk.protocol().is_ok_and(is_mptcp) {
        enter(ctx, PATH_UNSEEN, sk, option(SOL_SOCKET, SO_PROTOCOL));
    }
}

/// The function of kind `step` returned `ret`.
#[inline(always)]
fn leave(ctx: &impl EbpfContext, step: u8, rung: u8, ret: i32) {
    let thread = bpf_get_current_pid_tgid();
    let Some(open) = IN_FLIGHT.get_ptr(thread) else {
        return;
    };
    // SAFETY: the slot belongs to this thread, which is here and nowhere else.
    let open = unsafe { *open };
    if step == PATH_TCP && open.path & PATH_MPTCP != 0 {
        // The outermost function is still to return.
        return;
    }
    if (step == PATH_UNSEEN) != (open.path == PATH_UNSEEN) {
        // The return of a function that this question did not go through.
        return;
    }
    let _gone = IN_FLIGHT.remove(thread);

    let Some(mut entry) = emit::reserve_query() else {
        return;
    };
    let record = emit::blank(&mut entry);
    record.kind = KIND_QUERY;
    begin(record, rung, open.boottime_ns);
    record.latency_ns = now_ns() - open.boottime_ns;
    record.ret = ret;
    record.path = open.path;
    record.level = open.level;
    record.optname = open.optname;
    let mut sk = Sock(open.socket);
    if open.path == PATH_TCP
        && let Some(msk) = sk.msk_of_subflow()
    {
        // Only inner functions are probed: the TCP code was asked on behalf of a connection.
        record.path |= PATH_MPTCP;
        sk = msk;
    }
    let described = describe(record, sk);
    // The path has told the answer; the bits are read to learn which of them says "fell back".
    if is_mptcp(record.protocol)
        && let Ok(flags) = sk.msk_flags()
    {
        record.msk_flags_enter = flags;
        record.msk_flags_exit = flags;
        record.valid |= VALID_FLAGS_ENTER | VALID_FLAGS_EXIT;
    }
    match described {
        Ok(()) if !admit_netns(record.netns) => emit::discard_query(entry, counter::FILTERED),
        Ok(()) => {
            debug!(
                ctx,
                "thread {}: path {} returned {} after {} ns",
                record.tid,
                record.path,
                record.ret,
                record.latency_ns
            );
            emit::submit_query(entry);
        }
        Err(Fault) => {
            emit::discard_query(entry, counter::FAULTED);
            debug!(
                ctx,
                "thread {}: socket 0x{:x} could not be read",
                ctx.pid(),
                sk.0
            );
        }
    }
}

/// A record that says nothing yet.
pub(super) const NOTHING: QueryRecord = QueryRecord {
    kind: KIND_QUERY,
    valid: 0,
    boottime_ns: 0,
    latency_ns: 0,
    socket: 0,
    msk_flags_enter: 0,
    msk_flags_exit: 0,
    inode: 0,
    cgroup_id: 0,
    born_ns: 0,
    connect_ns: 0,
    level: 0,
    optname: 0,
    is_set: 0,
    reserved_2: 0,
    tgid: 0,
    tid: 0,
    uid: 0,
    netns: 0,
    ret: 0,
    user_value: 0,
    user_len: 0,
    protocol: 0,
    family: 0,
    local_port: 0,
    remote_port_be: 0,
    state: 0,
    rung: 0,
    path: 0,
    reserved: 0,
    local_addr: [0; 16],
    remote_addr: [0; 16],
    comm: [0; 16],
};

/// Writes down who asks, and when. In place: two records are more than fits on the stack of a program that
/// calls others.
#[inline(always)]
fn begin(record: &mut QueryRecord, rung: u8, boottime_ns: u64) {
    let pid_tgid = bpf_get_current_pid_tgid();
    record.valid = if is_own_task() { BY_TRACER } else { 0 };
    record.boottime_ns = boottime_ns;
    record.cgroup_id = current_cgroup();
    record.tgid = (pid_tgid >> 32) as u32;
    record.tid = pid_tgid as u32;
    record.uid = bpf_get_current_uid_gid() as u32;
    record.rung = rung;
    record.comm = bpf_get_current_comm().unwrap_or([0; 16]);
}

/// Writes down what the socket is, and that it was asked about.
#[inline(always)]
fn describe(record: &mut QueryRecord, sk: Sock) -> Result<(), Fault> {
    record.protocol = sk.protocol()?;
    if is_mptcp(record.protocol) {
        asked(sk);
        look_later(sk);
    }
    if let Some(conn) = conn(sk.0) {
        conn.state |= CONN_ASKED;
    }
    describe_socket(record, sk)
}

/// Writes down what the socket is.
#[inline(always)]
fn describe_socket(record: &mut QueryRecord, sk: Sock) -> Result<(), Fault> {
    record.socket = sk.0;
    record.family = sk.family()?;
    record.protocol = sk.protocol()?;
    record.state = sk.state()?;
    record.netns = sk.netns()?;
    let ends = sk.endpoints(record.family)?;
    record.local_addr = ends.local_addr;
    record.remote_addr = ends.remote_addr;
    record.local_port = ends.local_port;
    record.remote_port_be = ends.remote_port_be;
    if let Ok(inode) = sk.inode() {
        record.inode = inode;
        record.valid |= VALID_INODE;
    }
    if let Some(conn) = conn(sk.0) {
        record.born_ns = conn.born_ns;
        record.connect_ns = conn.connect_ns;
    }
    Ok(())
}
