//! Emits records about paths.

use aya_ebpf::maps::ring_buf::RingBufEntry;
use mptcp_trace_common::{
    counter,
    numbers::AF_INET6,
    record::{
        ConnState, ConnectionBits, Kind, Owner, OwnerVia, PathFlags, PathRecord, PathSite,
        RecordRung,
    },
};

use crate::{
    admit::{admit_owner, admit_socket_netns, is_over_cheap, is_tracer},
    emit,
    entry::{Entry, get, set},
    kernel::{
        Endpoints, Fault, JoinRequest, Net, PathEnd, Sock, address_ids, context_bits, copy_options,
        device_of_packet, endpoints_of_packet, msk_of_context, net_of_packet, now_ns, put_address,
        put_marks_of_packet, reset_reason, token_of,
    },
    maps::{PATHS_RUNG, SUBFLOW_COUNTERS, conn, join_run, listener_of, path, untracked_since},
    sensors::{owner::this_run, packet::emit_packet},
};
use mptcp_trace_common::map_values::Path;

/// What a record is about, packed into one word: kind, site, and the state before.
#[inline(always)]
pub(super) fn what(kind: Kind, site: PathSite, old_state: u32) -> u64 {
    u64::from(kind.0) | u64::from(site.0) << 32 | u64::from(old_state as u8) << 40
}

/// Emits a record about a path that has a socket. On failure, counts the reason.
///
/// Not inlined: several programs call it, and it is larger than most of them.
#[inline(never)]
pub(super) fn emit(what: u64, sk: u64, now: u64) -> u32 {
    let sk = Sock(sk);
    let context = sk.subflow_context().unwrap_or(0);
    let msk = msk_of(sk, context);
    emit::count_subflow(counter::SEEN);
    if is_of_another_self_test(msk) {
        emit::count_subflow(counter::SELF_TEST);
        return 1;
    }
    let Some(mut entry) = emit::reserve_path(Kind(what as u32)) else {
        return 0;
    };
    let record = emit::blank(&mut entry);
    begin(record, what, now);
    if context != 0 {
        record.context = context_bits(context);
        record.token = token_of(context);
        let (local, remote) = address_ids(context);
        record.local_id = local;
        record.remote_id = remote;
        record.reset_reason = reset_reason(context);
        record.flags |= PathFlags::CONTEXT;
    } else {
        record.local_id = -1;
    }
    record.path = sk.0;
    record.error = sk.error();
    sk.put_ledger(&mut record.ledger);
    sk.put_marks(msk, &mut record.marks);
    record.flags |= PathFlags::LEDGER;
    if let Some(path) = path(sk.0) {
        put_path(record, path);
    } else {
        record.flags |= PathFlags::EXISTING;
    }
    finish(entry, sk, msk, msk)
}

/// Emits a record about a path that is open. The owner is left out: the connection's own record says
/// that. Without error paths, because it is called in a loop, which the verifier walks step by step.
#[inline(always)]
pub(super) fn emit_open(sk: Sock, context: u64, msk: Sock, state: u32, site: PathSite) {
    let is_reading = site.0 == PathSite::READING.0;
    let reserved = if is_reading {
        emit::reserve_reading()
    } else {
        emit::count_subflow(counter::SEEN);
        emit::reserve_path(Kind::PATH_OPEN)
    };
    let Some(mut entry) = reserved else {
        return;
    };
    let record = emit::blank(&mut entry);
    begin(record, what(Kind::PATH_OPEN, site, state), 0);
    record.flags = PathFlags::CONTEXT
        .union(PathFlags::LEDGER)
        .union(PathFlags::EXISTING);
    record.path = sk.0;
    record.socket = msk.0;
    record.context = context_bits(context);
    record.token = token_of(context);
    let (local, remote) = address_ids(context);
    record.local_id = local;
    record.remote_id = remote;
    record.connection = msk.connection_bits();
    record.connection_state = msk.state().unwrap_or(0);
    sk.put_ledger(&mut record.ledger);
    sk.put_marks(msk, &mut record.marks);
    put_place_of_open(record, sk);
    if let Some(conn) = conn(msk.0) {
        record.born_ns = get!(conn, born_ns);
        let state = get!(conn, state);
        set!(conn, state, state | ConnState::HAS_PATHS);
        // The same bit, moved: without a branch.
        let admitted = state.bits() >> ConnState::ADMITTED.bits().trailing_zeros() & 1;
        record.flags |=
            PathFlags::from_bits_retain(admitted << PathFlags::ADMITTED.bits().trailing_zeros());
    }
    if is_reading {
        emit::submit_reading(entry);
    } else {
        emit::submit_path(entry);
    }
}

/// Writes the ends and the network namespace of an open path.
#[inline(always)]
fn put_place_of_open(record: &mut PathRecord, sk: Sock) {
    record.family = sk.family().unwrap_or(0);
    let ends = sk.ends_or_zero(record.family);
    put_ends(record, &ends);
    record.netns = sk.netns_or_zero();
}

/// Emits a record about a SYN that asks to join and is refused. The listener's owner holds the join
/// if it belongs to no connection: neither to that of the request nor to `msk`. On failure, counts the
/// reason.
#[inline(never)]
pub(super) fn emit_failed(
    what: u64,
    request: u64,
    listener: u64,
    error_and_reason: u64,
    msk: u64,
) -> u32 {
    let request = JoinRequest(request);
    let msk = request.connection().unwrap_or(Sock(msk));
    let now = now_ns();
    // The SYN, if this host answers it with a reason.
    let packet = match (what >> 32) as u8 == PathSite::SYN.0 {
        true => join_run(this_run()).map_or(0, |run| get!(run, packet)),
        false => 0,
    };
    let Some(mut entry) = reserve_after(of_request(msk, listener), packet, msk, now) else {
        return 0;
    };
    let record = emit::blank(&mut entry);
    begin(record, what, now);
    record.token = request.token();
    let (local, remote) = request.address_ids();
    record.local_id = local;
    record.remote_id = remote;
    record.error = error_and_reason as i32;
    record.flags |= PathFlags::RETURNED;
    request.put_marks(record.site != PathSite::SYN, &mut record.marks);
    put_reason(record, (error_and_reason >> 32) as u32);
    finish(
        entry,
        Sock(request.0),
        msk,
        holder_of_join(msk, Sock(listener)),
    )
}

/// Emits a record about a third ACK that was refused, at the child that it created. On failure, counts
/// the reason.
#[inline(never)]
pub(super) fn emit_dropped(
    child: u64,
    context: u64,
    msk: u64,
    packet: u64,
    answer_and_reason: u64,
) -> u32 {
    let now = now_ns();
    let Some(mut entry) = reserve_after(of_request(Sock(msk), child), packet, Sock(msk), now)
    else {
        return 0;
    };
    let record = emit::blank(&mut entry);
    begin(
        record,
        what(
            Kind::JOIN_FAILED,
            PathSite::THIRD_ACK,
            answer_and_reason as u32,
        ),
        now,
    );
    record.local_id = -1;
    if context != 0 {
        record.token = token_of(context);
        let (local, remote) = address_ids(context);
        record.local_id = local;
        record.remote_id = remote;
    }
    Sock(child).put_marks(Sock(msk), &mut record.marks);
    put_reason(record, (answer_and_reason >> 32) as u32);
    if packet != 0 {
        record.options_len = copy_options(packet, &raw mut record.options);
        record.flags |= PathFlags::OPTIONS;
    }
    // Without a context, only its listener is known.
    let holder = match context {
        0 => listener_of(child).unwrap_or(0),
        _ => msk,
    };
    finish(entry, Sock(child), Sock(msk), Sock(holder))
}

/// Writes the reason for an RST, which is one less than `reason`; 0 is none.
#[inline(always)]
fn put_reason(record: &mut PathRecord, reason: u32) {
    if reason != 0 {
        record.reset_reason = (reason - 1) as u8;
        record.flags |= PathFlags::REASON;
    }
}

/// Emits a record about a packet of a join that fails; `reason` is that of the RST plus one, or 0.
/// Without a listener, the network namespace is that of the packet's device, and the limit is one of
/// the namespace. On failure, counts the reason.
#[inline(never)]
pub(super) fn emit_refused_packet(what: u64, listener: u64, skb: u64, reason: u32) -> u32 {
    let net = match listener {
        0 => net_of_packet(skb),
        _ => Sock(listener).net(),
    };
    let limited = match (listener, &net) {
        (0, Ok(net)) => net.0,
        _ => listener,
    };
    let now = now_ns();
    let Some(mut entry) = reserve_after(limited, skb, Sock(0), now) else {
        return 0;
    };
    let record = emit::blank(&mut entry);
    begin(record, what, now);
    record.local_id = -1;
    put_reason(record, reason);
    record.options_len = copy_options(skb, &raw mut record.options);
    if record.options_len != 0 {
        record.flags |= PathFlags::OPTIONS;
    }
    put_marks_of_packet(skb, &mut record.marks);
    let (family, mut ends) = endpoints_of_packet(skb);
    record.family = family;
    if family == AF_INET6 {
        ends.put_zone(|| device_of_packet(skb));
    }
    put_ends(record, &ends);
    let holder = match listener {
        0 => Sock(0),
        _ => holder_of_join(Sock(0), Sock(listener)),
    };
    finish_in(net, entry, Sock(listener), Sock(0), holder)
}

/// Emits a record about a path that could not be opened, and has no socket: `local` and `remote` are
/// its ends. On failure, counts the reason.
#[inline(never)]
pub(super) fn emit_not_opened(msk: u64, local: u64, remote: u64, error: i32) -> u32 {
    let (local, remote) = (PathEnd(local), PathEnd(remote));
    let Some(mut entry) = reserve_cheap(msk) else {
        return 0;
    };
    let record = emit::blank(&mut entry);
    begin(record, what(Kind::JOIN_FAILED, PathSite::CONNECT, 0), 0);
    record.local_id = i16::from(local.id());
    record.remote_id = remote.id();
    record.error = error;
    record.flags |= PathFlags::RETURNED;
    record.family = remote.family();
    let ends = Endpoints {
        local_addr: local.address(),
        remote_addr: remote.address(),
        local_port: u16::from_be(local.port_be()),
        remote_port_be: remote.port_be(),
    };
    put_ends(record, &ends);
    finish(entry, Sock(msk), Sock(msk), Sock(msk))
}

/// Emits a record about an address of a connection, or about the ids of addresses. On failure, counts
/// the reason.
#[inline(never)]
pub(super) fn emit_address(what: u64, msk: u64, address: u64, ids: u64, error: u32) -> u32 {
    let kind = Kind(what as u32);
    let address = PathEnd(address);
    let Some(mut entry) = reserve_cheap(msk) else {
        return 0;
    };
    let record = emit::blank(&mut entry);
    begin(record, what, 0);
    record.local_id = -1;
    record.error = error as i32;
    if address.0 == 0 {
        record.options_len = error as u8;
        // SAFETY: eight of forty bytes; the array is aligned to eight bytes in the record.
        unsafe {
            (&raw mut record.options).cast::<u64>().write(ids);
        }
    } else {
        let is_peer = kind == Kind::ADDRESS_RECEIVED;
        let first = Sock(msk).first_subflow().unwrap_or(Sock(msk));
        record.family = address.family();
        if let Ok(mut ends) = first.lasting_endpoints(record.family) {
            if is_peer {
                ends.remote_addr = address.address();
                ends.remote_port_be = address.port_be();
                record.remote_id = address.id();
            } else {
                ends.local_addr = address.address();
                ends.local_port = u16::from_be(address.port_be());
                record.local_id = i16::from(address.id());
            }
            put_ends(record, &ends);
        }
    }
    let of = Sock(msk).first_subflow().unwrap_or(Sock(msk));
    finish(entry, of, Sock(msk), Sock(msk))
}

#[inline(always)]
fn put_ends(record: &mut PathRecord, ends: &Endpoints) {
    put_address(&mut record.local_addr, ends.local_addr);
    put_address(&mut record.remote_addr, ends.remote_addr);
    record.local_port = ends.local_port;
    record.remote_port_be = ends.remote_port_be;
}

/// Reserves room for an event that a peer can cause without end, of the socket at `sk`; or counts
/// why not.
#[inline(always)]
fn reserve_cheap(sk: u64) -> Option<RingBufEntry<PathRecord>> {
    reserve_after(sk, 0, Sock(0), now_ns())
}

/// [`reserve_cheap`] for an event of the connection `msk` at the time `now` that a packet caused: its
/// headers come first. 0 is no packet.
#[inline(always)]
fn reserve_after(sk: u64, packet: u64, msk: Sock, now: u64) -> Option<RingBufEntry<PathRecord>> {
    emit::count_subflow(counter::SEEN);
    if is_over_cheap(sk, now) {
        emit::count_subflow(counter::CAPPED);
        return None;
    }
    if packet != 0 {
        emit_packet(&SUBFLOW_COUNTERS, packet, Sock(0), msk, now);
    }
    emit::reserve_path(Kind::JOIN_FAILED)
}

/// The socket whose limit a request counts against: the connection, else the other one.
#[inline(always)]
fn of_request(msk: Sock, other: u64) -> u64 {
    match msk.0 {
        0 => other,
        _ => msk.0,
    }
}

/// The connection of a path; its address is 0 if it is unknown.
#[inline(always)]
pub(super) fn msk_of(sk: Sock, context: u64) -> Sock {
    match path(sk.0).map_or(0, |path| get!(path, msk)) {
        0 => msk_of_context(context).unwrap_or(Sock(0)),
        msk => Sock(msk),
    }
}

/// True for a connection of another instance's self-test.
#[inline(always)]
fn is_of_another_self_test(msk: Sock) -> bool {
    msk.0 != 0
        && msk.is_of_self_test()
        && !conn(msk.0).is_some_and(|conn| is_tracer(get!(conn, owner.ns_tgid)))
}

#[inline(always)]
fn begin(record: &mut PathRecord, what: u64, now: u64) {
    record.kind = Kind(what as u32);
    record.site = PathSite((what >> 32) as u8);
    record.old_state = (what >> 40) as u8;
    record.boottime_ns = if now == 0 { now_ns() } else { now };
    record.rung = RecordRung(PATHS_RUNG.load() as u8);
}

#[inline(always)]
fn put_path(record: &mut PathRecord, path: Entry<Path>) {
    record.path_born_ns = get!(path, born_ns);
    record.up_ns = get!(path, up_ns);
    record.born_ns = get!(path, msk_born_ns);
    record.events = get!(path, events);
    record.first_event = get!(path, first_event);
    record.flags |= get!(path, flags);
    record.options_len = get!(path, options_len);
    if record.options_len != 0 {
        record.options = get!(path, options);
    }
}

/// The connection whose owner holds a join: its own, or that of the listener.
#[inline(always)]
fn holder_of_join(msk: Sock, listener: Sock) -> Sock {
    match msk.0 {
        0 => listener.msk_of_subflow().unwrap_or(Sock(0)),
        _ => msk,
    }
}

/// Writes what all records have, and submits. The owner of `holder` is the owner.
#[inline(always)]
fn finish(entry: RingBufEntry<PathRecord>, of: Sock, msk: Sock, holder: Sock) -> u32 {
    finish_in(of.net(), entry, of, msk, holder)
}

/// [`finish`] in a network namespace that is known from elsewhere.
#[inline(always)]
fn finish_in(
    net: Result<Net, Fault>,
    mut entry: RingBufEntry<PathRecord>,
    of: Sock,
    msk: Sock,
    holder: Sock,
) -> u32 {
    // SAFETY: `emit::blank` has written the whole record.
    let record = unsafe { entry.assume_init_mut() };
    match net.and_then(|net| describe(record, net, of, msk, holder)) {
        Ok(()) => {
            emit::submit_path(entry);
            1
        }
        Err(Fault) => {
            emit::discard_path(entry);
            0
        }
    }
}

#[inline(always)]
fn describe(
    record: &mut PathRecord,
    net: Net,
    of: Sock,
    msk: Sock,
    holder: Sock,
) -> Result<(), Fault> {
    record.netns = net.inode()?;
    record.netns_cookie = net.cookie().unwrap_or(0);
    // Of a path without a socket, the ends are known already.
    if record.family == 0 {
        record.family = of.family()?;
        let mut ends = of.lasting_endpoints(record.family)?;
        if record.family == AF_INET6 {
            ends.put_zone(|| of.device(false));
        }
        put_ends(record, &ends);
    }
    record.conn_state = ConnState::QUERY_UNTRACED;
    if msk.0 != 0 {
        record.socket = msk.0;
        record.connection_state = msk.state().unwrap_or(0);
        record.connection = msk.connection_bits();
        if msk.first_subflow() == Some(of) {
            record.connection |= ConnectionBits::FIRST_PATH;
        }
        msk.put_path_manager(&mut record.manager);
        record.flags |= PathFlags::MANAGER;
        if let Ok(inode) = msk.inode() {
            record.inode = inode;
            record.flags |= PathFlags::INODE;
        }
        if let Some(conn) = conn(msk.0) {
            record.born_ns = get!(conn, born_ns);
            record.conn_state = get!(conn, state);
            set!(conn, state, record.conn_state | ConnState::HAS_PATHS);
        } else if record.born_ns == 0 {
            record.born_ns = untracked_since(msk.0).unwrap_or(0);
        }
    }
    if let Some(conn) = conn(holder.0) {
        conn.put_owner(&mut record.owner);
    } else if holder.0 != 0 && holder.is_of_kernel() {
        record.owner.via = OwnerVia::KERNEL;
        record.owner.comm = Owner::KERNEL_COMM;
    }
    if admit_socket_netns(record.netns) && admit_owner(&record.owner) {
        record.flags |= PathFlags::ADMITTED;
    }
    if is_tracer(record.owner.ns_tgid) {
        record.flags |= PathFlags::BY_TRACER;
    }
    Ok(())
}
