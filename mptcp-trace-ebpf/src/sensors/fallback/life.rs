//! Birth, handshake, acceptance and death of connections.
//!
//! The tracepoint for socket states exists in every kernel and serves every attach method. It does
//! not show which process creates or accepts a socket, or when the socket is freed: probed
//! functions or, without those, system calls do.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext,
    },
};
use mptcp_trace_common::{
    counter,
    record::{ConnState, EvidenceBits, Kind, NO_MIB, OwnerVia, Site, SubflowBits},
};

use super::{
    CLOSE, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT, add_evidence,
    decision::blackhole, fell_back, flush_pending, forget_fallen, look, no_packet,
};
use crate::{
    admit::is_tracer,
    call_args::{CallSite, stash_args, take_args},
    emit,
    entry::{get, set},
    kernel::{
        AtReturn, Sock, argument, current_file, is_mptcp, is_syscall_of_32_bits, msk_of_context,
        now_ns, opaque, origin, sock_of_socket, socket_of_file, subflow_bits, syscall_number,
    },
    maps::{CHILDREN_PROBED, FALLBACK_COUNTERS, conn, syscall},
    sensors::{
        connection_record::{self, site_and_cause},
        counted,
        owner::{
            accepted, cloned, forget, forget_birth, has_another_owner, has_mptcp_listener,
            is_out_of_reach, note_io, on_create, on_destroy, set_owner, track_child, was_reported,
        },
        packet,
        subflow::lacks_context,
    },
    turns::in_turns,
};

in_turns! {
    fallback: #[raw_tracepoint]
    life_tp_state(RawTracePointContext), life_tp_state_2, life_tp_state_3
}
/// `inet_sock_set_state(const struct sock *sk, int oldstate, int newstate)`.
#[inline(never)]
fn life_tp_state(ctx: RawTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    let (old, new) = (ctx.arg::<u64>(1) as u32, ctx.arg::<u64>(2) as u32);
    let Ok(protocol) = sk.protocol() else {
        return 0;
    };
    // The verifier walks a callee once per call site, so each callee has one call site here.
    let mut is_connection = is_mptcp(protocol);
    let is_child = !is_connection
        && (old, new) == (SYN_RECV, ESTABLISHED)
        && CHILDREN_PROBED.load() == 0
        && sk.tcp_is_mptcp().is_ok_and(|is| !is)
        && has_mptcp_listener(sk);
    if is_child {
        emit::count_fallback(counter::SEEN);
    }
    if is_child || is_connection && (old, new) == (LISTEN, ESTABLISHED) {
        let state = match is_child {
            true => ConnState::TCP | ConnState::REPORTED,
            false => ConnState::empty(),
        };
        track_child(sk, state);
    }
    let (mut sk, mut old, mut new) = (sk, old, new);
    // A connection closed with unread data ends before its subflow does.
    if !is_connection
        && (new == FIN_WAIT1 || new == LAST_ACK)
        && let Some(msk) = ended_with(sk)
    {
        (sk, is_connection, old, new) = (msk, true, CLOSE, CLOSE);
    }
    match (is_connection, old, new) {
        (true, CLOSE, SYN_SENT) | (true, CLOSE | LISTEN, LISTEN) => begins(sk, new),
        (true, LISTEN, ESTABLISHED) => {}
        (true, _, _) => connection_changes(sk, old, new, &ctx),
        (false, LISTEN, SYN_RECV) => cloned(sk),
        // Simultaneous open: a client that receives a SYN.
        (false, SYN_SENT, SYN_RECV) => {
            forget_birth(sk);
            if let Some(msk) = sk.msk_of_subflow() {
                add_evidence(msk, EvidenceBits::SIMULTANEOUS);
            }
        }
        (false, _, _) if is_child => {
            let what = site_and_cause(Site::TCP_CHILD, NO_MIB, false);
            connection_record::emit(Kind::TCP_CHILD, sk.0, what, 0);
        }
        // It remains a subflow, or was reported when the kernel dropped its context.
        (false, SYN_RECV, ESTABLISHED) => forget_birth(sk),
        (false, _, _) => {}
    }
    0
}

/// A socket connects, or listens.
#[inline(always)]
fn begins(msk: Sock, new: u32) {
    let via = if new == LISTEN {
        OwnerVia::LISTEN
    } else {
        OwnerVia::CONNECT
    };
    set_owner(msk.0, u32::from(via.0));
    if new == LISTEN {
        return;
    }
    // On some kernels, a socket that fell back can connect again with the bit still set.
    if fell_back(msk) != Some(true) {
        forget_fallen(msk.0);
    }
    if let Some(conn) = conn(msk.0) {
        const STAYS: ConnState = ConnState::EXISTING
            .union(ConnState::ASKED)
            .union(ConnState::FELL)
            .union(ConnState::QUERY_UNTRACED)
            .union(ConnState::UNWATCHED);
        set!(conn, connect_ns, now_ns());
        set!(conn, evidence, EvidenceBits::empty());
        let begins = ConnState::ACTIVE.union(ConnState::CONNECTING);
        set!(conn, state, begins | get!(conn, state) & STAYS);
    }
}

// Bits that describe a state change of a connection.
/// The handshake completed.
const HANDSHAKE: u32 = 1 << 0;
/// Its fallback was reported before the handshake completed.
const REPORTED: u32 = 1 << 1;
/// It is being closed.
const CLOSES: u32 = 1 << 2;
/// It ends, and no other probe will report that.
const ENDS: u32 = 1 << 3;

/// Any other state change of a connection.
#[inline(always)]
fn connection_changes(msk: Sock, old: u32, new: u32, ctx: &RawTracePointContext) {
    let mut what = 0;
    if (old, new) == (SYN_SENT, ESTABLISHED) {
        what |= HANDSHAKE;
        if mark_established(msk) {
            what |= REPORTED;
        }
    }
    // A connection with unread data is closed without a FIN (`mptcp_do_fastclose`).
    if new == FIN_WAIT1 || new == LAST_ACK || new == CLOSE && old != CLOSE {
        what |= CLOSES;
    }
    // The tracepoint fires before the change. If no probe observes how sockets end, this is the
    // only sign of the end of a socket that is closed unused, that waits for `accept` at a listener
    // being closed, or that no longer has a file.
    if new == CLOSE
        && CHILDREN_PROBED.load() == 0
        && (old == CLOSE && msk.first_subflow().is_none() || is_out_of_reach(msk))
    {
        what |= ENDS;
    }
    let what = opaque(what);
    flush_pending(msk);
    let site = match what & HANDSHAKE {
        0 => Site::LATER,
        _ => Site::HANDSHAKE,
    };
    // What else a connection falls back for is reported where it happens.
    look(msk, site, || match site {
        Site::HANDSHAKE => origin(ctx),
        _ => 0,
    });
    let kind = match () {
        () if what & REPORTED != 0 => Kind::ACCEPTED,
        () if what & ENDS != 0 && was_reported(msk) => Kind::CLOSED,
        () if what & CLOSES != 0 && has_another_owner(msk) => Kind::ACCEPTED,
        () => Kind(0),
    };
    if kind != Kind(0) {
        emit::count_fallback(counter::SEEN);
        connection_record::emit(kind, msk.0, 0, 0);
    }
    if what & ENDS != 0 {
        forget(msk);
    }
    if what & HANDSHAKE != 0 && CHILDREN_PROBED.load() == 0 {
        blackhole_after_handshake(msk);
    }
}

/// Marks the connection as established; true if its fallback was reported before.
#[inline(always)]
fn mark_established(msk: Sock) -> bool {
    let Some(conn) = conn(msk.0) else {
        return false;
    };
    let state = get!(conn, state).difference(ConnState::CONNECTING);
    set!(conn, state, state);
    let of_fallback = state & ConnState::FELL.union(ConnState::PENDING);
    of_fallback == ConnState::FELL && !is_tracer(get!(conn, owner.ns_tgid))
}

/// A SYN without MPTCP was answered after SYNs with MPTCP were not: MPTCP is disabled now (by
/// `mptcp_active_disable`, which has just been called).
#[inline(always)]
fn blackhole_after_handshake(msk: Sock) {
    if let Some(context) = msk.first_subflow().and_then(Sock::subflow_context)
        && subflow_bits(context).contains(SubflowBits::MPC_DROP)
    {
        blackhole(msk);
    }
}

/// An MPTCP listener got a child that is plain TCP.
#[inline(always)]
fn tcp_child(sk: Sock, site: Site, origin: impl FnOnce() -> u64) {
    let (kind, fell) = if site == Site::DROPPED_CONTEXT {
        (Kind::FALLBACK, ConnState::FELL)
    } else {
        (Kind::TCP_CHILD, ConnState::empty())
    };
    track_child(sk, ConnState::TCP | ConnState::REPORTED | fell);
    emit::count_fallback(counter::SEEN);
    let now = now_ns();
    if kind == Kind::FALLBACK {
        packet::emit_in_progress(&FALLBACK_COUNTERS, origin(), sk, sk, now, 0);
    }
    connection_record::emit(kind, sk.0, site_and_cause(site, NO_MIB, false), now);
}

/// `mptcp_subflow_drop_ctx(child)`: the child does not become a subflow. Not reported are joining
/// subflows, which are rejected elsewhere, and children that already belong to a connection, which
/// are being closed.
#[inline(always)]
fn context_dropped(sk: Sock, origin: impl FnOnce() -> u64) {
    if sk.0 == 0 {
        return;
    }
    match sk.ulp_data() {
        // A join without a context is refused.
        Ok(0) if lacks_context(sk) => {}
        Ok(0) => tcp_child(sk, Site::NO_CONTEXT, no_packet),
        Ok(context) => {
            if msk_of_context(context).is_none()
                && !subflow_bits(context).contains(SubflowBits::MP_JOIN)
            {
                tcp_child(sk, Site::DROPPED_CONTEXT, origin);
            }
        }
        Err(_fault) => {
            emit::count_fallback(counter::SEEN);
            emit::count_fallback(counter::FAULTED);
        }
    }
}

in_turns! {
    fallback: #[fentry]
    life_fentry_drop(FEntryContext), life_fentry_drop_2, life_fentry_drop_3
}
/// `mptcp_subflow_drop_ctx` is entered.
#[inline(never)]
fn life_fentry_drop(ctx: FEntryContext) -> i32 {
    context_dropped(Sock(ctx.arg(0)), || origin(&ctx));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn life_kprobe_drop(ctx: ProbeContext) -> u32 {
    context_dropped(Sock(argument(&ctx, 0)), || origin(&ctx));
    0
}

in_turns! {
    fallback: #[fentry]
    life_fentry_init(FEntryContext), life_fentry_init_2, life_fentry_init_3
}
/// `mptcp_init_sock(sk)` is entered, in the process that creates the socket.
#[inline(never)]
fn life_fentry_init(ctx: FEntryContext) -> i32 {
    on_create(ctx.arg(0), u32::from(OwnerVia::SOCKET.0));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn life_kprobe_init(ctx: ProbeContext) -> u32 {
    on_create(argument(&ctx, 0), u32::from(OwnerVia::SOCKET.0));
    0
}

/// A connection is about to be freed.
#[inline(always)]
fn destroyed(msk: Sock) {
    flush_pending(msk);
    look(msk, Site::LATER, no_packet);
    on_destroy(msk);
}

in_turns! {
    fallback: #[fentry]
    life_fentry_destroy(FEntryContext), life_fentry_destroy_2, life_fentry_destroy_3
}
/// `mptcp_destroy(msk)` is entered.
#[inline(never)]
fn life_fentry_destroy(ctx: FEntryContext) -> i32 {
    destroyed(Sock(ctx.arg(0)));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn life_kprobe_destroy(ctx: ProbeContext) -> u32 {
    destroyed(Sock(argument(&ctx, 0)));
    0
}

in_turns! {
    fallback: #[fexit]
    life_fexit_accept(FExitContext), life_fexit_accept_2, life_fexit_accept_3
}
/// `mptcp_stream_accept(sock, newsock, ...)` returns.
#[inline(never)]
fn life_fexit_accept(ctx: FExitContext) -> i32 {
    if let Some(sk) = sock_of_socket(ctx.arg(1)) {
        accepted(sk);
    }
    0
}

/// `mptcp_stream_accept` is entered.
#[kprobe]
pub(crate) fn life_kprobe_accept(ctx: ProbeContext) -> u32 {
    stash_args(CallSite::Accept, argument(&ctx, 1), 0);
    0
}

/// `mptcp_stream_accept` returns.
#[kretprobe]
pub(crate) fn life_kretprobe_accept(_ctx: RetProbeContext) -> u32 {
    if let Some([socket, _none]) = take_args(CallSite::Accept)
        && let Some(sk) = sock_of_socket(socket)
    {
        accepted(sk);
    }
    0
}

/// `mptcp_sendmsg(sk, ...)` is entered.
#[fentry]
pub(crate) fn life_fentry_send(ctx: FEntryContext) -> i32 {
    note_io(Sock(ctx.arg(0)), OwnerVia::IO);
    0
}

/// `mptcp_recvmsg(sk, ...)` is entered.
#[fentry]
pub(crate) fn life_fentry_receive(ctx: FEntryContext) -> i32 {
    note_io(Sock(ctx.arg(0)), OwnerVia::IO);
    0
}

/// kprobe variant of both.
#[kprobe]
pub(crate) fn life_kprobe_io(ctx: ProbeContext) -> u32 {
    note_io(Sock(argument(&ctx, 0)), OwnerVia::IO);
    0
}

/// `sock_send_length(struct sock *sk, int ret, int flags)`, and `sock_recv_length`.
#[raw_tracepoint]
pub(crate) fn life_tp_io(ctx: RawTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    if sk.protocol().is_ok_and(is_mptcp) {
        note_io(sk, OwnerVia::IO);
    }
    0
}

in_turns! {
    fallback: #[raw_tracepoint]
    life_tp_destroy(RawTracePointContext), life_tp_destroy_2, life_tp_destroy_3
}
/// `tcp_destroy_sock(struct sock *sk)`: for TCP sockets, including subflows.
#[inline(never)]
fn life_tp_destroy(ctx: RawTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    if conn(sk.0).is_some() {
        on_destroy(sk);
    } else if sk.subflow_context().is_some() {
        subflow_ends(sk);
    } else {
        return 0;
    }
    counted::at_end(sk);
    0
}

/// The end of a subflow.
#[inline(always)]
fn subflow_ends(sk: Sock) {
    if let Some(msk) = ended_with(sk) {
        destroyed(msk);
    }
}

/// The connection that ends together with this first subflow, where the end of connections itself
/// is not probed: a closed connection without a file cannot be reopened (`mptcp_destroy_common`).
#[inline(always)]
fn ended_with(sk: Sock) -> Option<Sock> {
    if CHILDREN_PROBED.load() != 0 {
        return None;
    }
    sk.msk_of_subflow().filter(|msk| {
        msk.first_subflow() == Some(sk)
            && msk.state().is_ok_and(|state| u32::from(state) == CLOSE)
            && msk.inode().is_err()
    })
}

in_turns! {
    fallback: #[btf_tracepoint]
    life_tp_return(BtfTracePointContext), life_tp_return_2, life_tp_return_3
}
/// `sys_exit(struct pt_regs *regs, long ret)`: a system call returns.
#[inline(never)]
fn life_tp_return(ctx: BtfTracePointContext) -> i32 {
    life_returns(&ctx, syscall_number(&ctx));
    0
}

in_turns! {
    fallback: #[raw_tracepoint]
    life_raw_return(RawTracePointContext), life_raw_return_2, life_raw_return_3
}
/// Variant for kernels without BTF.
#[inline(never)]
fn life_raw_return(ctx: RawTracePointContext) -> i32 {
    life_returns(&ctx, syscall_number(&ctx));
    0
}

/// Records a socket that the system call `number` created or accepted.
#[inline(always)]
pub(crate) fn life_returns(ctx: &impl AtReturn, number: u32) {
    let is_made = number == syscall!(socket);
    if !is_made && number != syscall!(accept) && number != syscall!(accept4)
        || is_syscall_of_32_bits(ctx)
    {
        return;
    }
    let Some(sk) = returned_socket(ctx) else {
        return;
    };
    let is_ours = sk.protocol().is_ok_and(is_mptcp);
    if is_made {
        if is_ours {
            on_create(sk.0, u32::from(OwnerVia::SOCKET.0));
        }
    } else if is_ours || conn(sk.0).is_some() {
        accepted(sk);
    }
}

/// The socket of the descriptor that a system call returns.
#[inline(always)]
fn returned_socket(ctx: &impl AtReturn) -> Option<Sock> {
    let fd = u32::try_from(ctx.returned()).ok()?;
    socket_of_file(current_file(fd).ok()?)
}
