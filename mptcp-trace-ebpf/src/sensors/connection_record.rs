//! Emits records about connections.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use mptcp_trace_common::{
    counter,
    numbers::AF_INET6,
    record::{
        ConnFlags, ConnRecord, ConnState, Kind, Owner, OwnerVia, RecordRung, Site, SubflowBits,
    },
};

use super::counted;
use crate::{
    admit::{admit_owner, admit_socket_netns, in_namespace, is_tracer},
    emit,
    entry::{get, set},
    kernel::{
        Fault, Sock, current_task, endpoints, is_mptcp, now_ns, put_address, put_comm, subflow_bits,
    },
    maps::{RUNG, conn, untracked_since},
};

/// Site and cause of an event, packed into one word.
#[inline(always)]
pub(crate) fn site_and_cause(site: Site, mib: i32, refused: bool) -> u64 {
    u64::from(mib as u32) << 32 | u64::from(refused) << 8 | u64::from(site.0)
}

/// Emits a record of this kind about a socket. On failure, counts the reason and returns 0.
/// `happened_ns` 0 means the current time. `path` is the subflow that it happened to, if it happened
/// to one, and the addresses are its; else 0.
///
/// Not inlined: many programs call it, and it is larger than most of them.
#[inline(never)]
pub(crate) fn emit_of_path(
    kind: Kind,
    sk: u64,
    site_and_cause: u64,
    happened_ns: u64,
    path: u64,
) -> u32 {
    if is_of_another_self_test(Sock(sk)) {
        emit::count_fallback(counter::SELF_TEST);
        return 1;
    }
    let Some(mut entry) = emit::reserve_connection(kind) else {
        return 0;
    };
    let record = emit::blank(&mut entry);
    record.kind = kind;
    record.boottime_ns = if happened_ns == 0 {
        now_ns()
    } else {
        happened_ns
    };
    record.site = Site(site_and_cause as u8);
    record.mib = (site_and_cause >> 32) as i32;
    if site_and_cause & 1 << 8 != 0 {
        record.flags |= ConnFlags::REFUSED;
    }
    record.rung = RecordRung(RUNG.load() as u8);
    let pid_tgid = bpf_get_current_pid_tgid();
    record.current_tgid = (pid_tgid >> 32) as u32;
    record.current_tid = pid_tgid as u32;
    record.current_ns_tgid = in_namespace(current_task, pid_tgid).tgid;
    put_comm(&mut record.current_comm);
    match describe(record, Sock(sk), Sock(path)) {
        Ok(()) => {
            emit::submit_connection(entry);
            1
        }
        Err(Fault) => {
            emit::discard_connection(entry);
            0
        }
    }
}

/// [`emit_of_path`] for an event of the whole connection.
#[inline(always)]
pub(crate) fn emit(kind: Kind, sk: u64, site_and_cause: u64, happened_ns: u64) -> u32 {
    emit_of_path(kind, sk, site_and_cause, happened_ns, 0)
}

/// True for a socket of another instance's self-test.
#[inline(always)]
fn is_of_another_self_test(sk: Sock) -> bool {
    sk.is_of_self_test() && !conn(sk.0).is_some_and(|conn| is_tracer(get!(conn, owner.ns_tgid)))
}

/// Writes the fields that only an MPTCP socket has, and returns the socket from which to read the
/// addresses: before the end of the handshake, only the first subflow has them.
#[inline(always)]
fn describe_connection(record: &mut ConnRecord, sk: Sock) -> Result<Sock, Fault> {
    let mut named = sk;
    if let Some(subflow) = sk.first_subflow() {
        record.subflow_state = subflow.state()?;
        if subflow.local_port()? != 0 {
            named = subflow;
        }
        if let Some(context) = subflow.subflow_context() {
            record.subflow = subflow_bits(context);
            record.flags |= ConnFlags::SUBFLOW;
        }
    }
    if let Some(server_side) = sk.msk_server_side() {
        record.subflow |= SubflowBits::SIDE_KNOWN;
        if server_side {
            record.subflow |= SubflowBits::SERVER_SIDE;
        }
    }
    if sk.msk_has_checksums() {
        record.subflow |= SubflowBits::CHECKSUMS;
    }
    if let Ok(flags) = sk.msk_flags() {
        record.msk_flags = flags;
        record.flags |= ConnFlags::MSK_FLAGS;
    }
    if let Ok((sent, received)) = sk.msk_bytes() {
        record.bytes_sent = sent;
        record.bytes_received = received;
        record.flags |= ConnFlags::BYTES;
    }
    if let Ok(extra) = sk.msk_extra_subflows() {
        record.extra_subflows = extra;
        record.flags |= ConnFlags::SUBFLOWS;
    }
    Ok(named)
}

/// Writes the marks of the path that it happened to, else those of the first one or, of a TCP socket,
/// its own.
#[inline(always)]
fn put_marks(record: &mut ConnRecord, sk: Sock, path: Sock) {
    let (of, msk) = match is_mptcp(record.protocol) {
        true => (sk.first_subflow().unwrap_or(Sock(0)), sk),
        false => (sk, Sock(0)),
    };
    let of = if path.0 == 0 { of } else { path };
    of.put_marks(msk, &mut record.marks);
}

#[inline(always)]
fn describe(record: &mut ConnRecord, sk: Sock, path: Sock) -> Result<(), Fault> {
    record.socket = sk.0;
    record.family = sk.family()?;
    record.protocol = sk.protocol()?;
    record.state = sk.state()?;
    let net = sk.net()?;
    record.netns = net.inode()?;
    record.netns_cookie = net.cookie().unwrap_or(0);
    let named = match is_mptcp(record.protocol) {
        true => describe_connection(record, sk)?,
        false => sk,
    };
    put_marks(record, sk, path);
    let named = if path.0 == 0 { named } else { path };
    // Explains why a client did not request MPTCP: it was disabled, or no token was available.
    let requested_mptcp = !record.flags.contains(ConnFlags::SUBFLOW)
        || record
            .subflow
            .intersects(SubflowBits::REQUEST_MPTCP.union(SubflowBits::SERVER_SIDE));
    if record.kind == Kind::BLACKHOLE || !requested_mptcp {
        if let Some(off_ms) = sk.mptcp_off_ms() {
            record.off_ms = off_ms;
            record.flags |= ConnFlags::OFF;
        } else {
            record.flags |= ConnFlags::OFF_UNREAD;
        }
    }
    let mut ends = endpoints(&named, record.family)?;
    if record.family == AF_INET6 {
        ends.put_zone(|| sk.device(is_mptcp(record.protocol)));
    }
    put_address(&mut record.local_addr, ends.local_addr);
    put_address(&mut record.remote_addr, ends.remote_addr);
    record.local_port = ends.local_port;
    record.remote_port_be = ends.remote_port_be;
    if let Ok(inode) = sk.inode() {
        record.inode = inode;
        record.flags |= ConnFlags::INODE;
    }
    if let Some(conn) = conn(sk.0) {
        record.born_ns = get!(conn, born_ns);
        record.connect_ns = get!(conn, connect_ns);
        record.pending_paths = get!(conn, pending_paths);
        conn.put_owner(&mut record.owner);
        record.evidence = get!(conn, evidence);
        record.conn_state = get!(conn, state);
        set!(conn, reported_tgid, record.owner.tgid);
        if record.conn_state.contains(ConnState::UNACCEPTED) {
            set!(conn, state, record.conn_state | ConnState::REPORTED);
        }
    } else {
        record.born_ns = untracked_since(sk.0).unwrap_or(0);
        if is_mptcp(record.protocol) && sk.is_of_kernel() {
            record.owner.via = OwnerVia::KERNEL;
            record.owner.comm = Owner::KERNEL_COMM;
        }
        // Whether it was queried is unknown.
        record.conn_state = ConnState::QUERY_UNTRACED;
    }
    if admit_socket_netns(record.netns) && admit_owner(&record.owner) {
        record.flags |= ConnFlags::ADMITTED;
        if let Some(conn) = conn(sk.0) {
            set!(conn, state, get!(conn, state) | ConnState::ADMITTED);
        }
    }
    if is_tracer(record.owner.ns_tgid) {
        record.flags |= ConnFlags::BY_TRACER;
    }
    counted::changes(record.kind, net.0, record.netns_cookie);
    Ok(())
}
