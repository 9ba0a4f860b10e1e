//! Births and deaths of paths, from the state of their sockets.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use mptcp_trace_common::{
    counter,
    map_values::{Path, SHARE_OF_OTHERS, SHARE_UNSET},
    numbers::IPPROTO_TCP,
    record::{ConnectionBits, Kind, PathEvents, PathFlags, PathSite},
};

use super::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LISTEN, SYN_RECV, SYN_SENT,
    joins::{has_socket, joined},
    record::{emit, emit_open, msk_of, what},
};
use crate::{
    call_args::{CallSite, stash_args, take_args},
    emit,
    entry::{Entry, get, set},
    kernel::{
        PATHS_MAX, PathsOf, Sock, argument, is_fully_established, is_join, is_mptcp, is_stale,
        msk_of_context, now_ns, opaque, origin, sock_of_context, wants_backup,
    },
    maps::{PATH_SHARES, PATHS, PATHS_RUNG, SUBFLOW_COUNTERS, Share, conn, path, path_share},
    sensors::packet,
    turns::in_turns,
};

/// A path about which nothing is known.
static BLANK: &Path = &Path::BLANK;

/// True for a state change of a path or, at the end of its handshake, of a connection.
#[inline(always)]
fn is_of_path(ctx: &RawTracePointContext) -> bool {
    let sk = Sock(ctx.arg(0));
    match sk.protocol() {
        Ok(IPPROTO_TCP) => sk.tcp_is_mptcp().unwrap_or(false),
        Ok(protocol) => is_mptcp(protocol) && ctx.arg::<u64>(1) as u32 == SYN_SENT,
        Err(_fault) => false,
    }
}

in_turns! {
    subflow: #[raw_tracepoint]
    path_tp_state(RawTracePointContext), path_tp_state_2, path_tp_state_3, if is_of_path
}
/// `inet_sock_set_state(const struct sock *sk, int oldstate, int newstate)`.
#[inline(never)]
fn path_tp_state(ctx: RawTracePointContext) -> i32 {
    let mut sk = Sock(ctx.arg(0));
    let (old, new) = (ctx.arg::<u64>(1) as u32, ctx.arg::<u64>(2) as u32);
    let now = now_ns();
    // The verifier walks a callee once per call site, so that each callee has one call site here.
    let mut kind = Kind(0);
    if sk.protocol().is_ok_and(is_mptcp) {
        // The first path came up: only the connection knows, since its own state changes before the
        // SYN/ACK's options are looked at.
        if new == ESTABLISHED
            && let Some(first) = sk.first_subflow()
        {
            sk = first;
            kind = Kind::PATH_UP;
        }
    } else {
        match (old, new) {
            (CLOSE, SYN_SENT) => begins(sk, now),
            (SYN_RECV, ESTABLISHED) => {
                begins(sk, now);
                joined();
                kind = Kind::PATH_UP;
            }
            (LISTEN | CLOSE, CLOSE) => forget(sk),
            (_, CLOSE) => kind = Kind::PATH_ENDED,
            (ESTABLISHED, FIN_WAIT1) => happened(sk, PathEvents::FIN_SENT),
            (ESTABLISHED, CLOSE_WAIT) => happened(sk, PathEvents::FIN_RECEIVED),
            _ => {}
        }
    }
    if kind == Kind(0) {
        return 0;
    }
    if kind == Kind::PATH_UP
        && let Some(path) = path(sk.0)
    {
        set!(path, up_ns, now);
        // In a storm of connections, only the ends of paths are reported: they repeat it.
        if !emit::is_calm() {
            return 0;
        }
        set!(path, flags, get!(path, flags) | PathFlags::WAS_UP);
    }
    if kind == Kind::PATH_ENDED
        && let Some(path) = path(sk.0)
    {
        // The verifier need not walk what follows once for each state.
        if opaque(u32::from(is_lost_to_packet(sk, path, old))) != 0 {
            let msk = msk_of(sk, sk.subflow_context().unwrap_or(0));
            packet::emit_in_progress(&SUBFLOW_COUNTERS, origin(&ctx), sk, msk, now, 0);
        }
        opening(path, ONE_LESS);
    }
    emit(what(kind, PathSite::STATE, old), sk.0, now);
    if kind == Kind::PATH_ENDED {
        forget(sk);
    }
    0
}

/// True if a packet may have ended a path: it did not come up, or it ends with an error that a packet
/// causes. A path that is closed in both directions ends in another state, so that nothing is read.
#[inline(always)]
fn is_lost_to_packet(sk: Sock, path: Entry<Path>, old: u32) -> bool {
    const EPIPE: i32 = 32;
    const EBADMSG: i32 = 74;
    const ECONNRESET: i32 = 104;
    const ECONNREFUSED: i32 = 111;
    if old != ESTABLISHED && old != SYN_SENT && old != SYN_RECV && old != CLOSE_WAIT {
        return false;
    }
    get!(path, flags).contains(PathFlags::OPENING)
        || matches!(sk.error(), EPIPE | EBADMSG | ECONNRESET | ECONNREFUSED)
            && !Sock(get!(path, msk))
                .connection_bits()
                .contains(ConnectionBits::RECEIVED_FASTCLOSE)
}

/// The user that a path counts against, and that user's share of the table.
#[inline(always)]
fn share_of(sk: Sock) -> Option<(u32, Share)> {
    let user = sk.user();
    if let Some(known) = path_share(user) {
        return Some((user, known));
    }
    let _no_room = PATH_SHARES.insert(user, 0, u64::from(BPF_NOEXIST));
    match path_share(user) {
        Some(new) => Some((user, new)),
        None => path_share(SHARE_OF_OTHERS).map(|others| (SHARE_OF_OTHERS, others)),
    }
}

/// Adds a path to the table; `None`, and counted, if its user's share or the table is full.
#[inline(always)]
fn track(sk: Sock) -> Option<Entry<Path>> {
    let Some((user, share)) = share_of(sk).filter(|(_user, share)| !share.is_full()) else {
        untracked(sk, counter::OVER_SHARE);
        return None;
    };
    if PATHS.insert(sk.0, BLANK, u64::from(BPF_NOEXIST)).is_err() {
        untracked(sk, counter::UNFOLLOWED);
        return None;
    }
    share.add(1);
    let path = path(sk.0)?;
    set!(path, share, user);
    Some(path)
}

/// Counts a path for which there is no room, unless it belongs to a self-test.
#[inline(always)]
fn untracked(sk: Sock, why: u32) {
    if !sk.msk_of_subflow().is_some_and(Sock::is_of_self_test) {
        emit::count_subflow(why);
    }
}

/// Removes a path from the table.
#[inline(always)]
fn forget(sk: Sock) {
    if let Some(user) = path(sk.0).map(|path| get!(path, share))
        && PATHS.remove(sk.0).is_ok()
        // It was there when tracing began.
        && user != SHARE_UNSET
        && let Some(share) = path_share(user)
    {
        share.add(u64::MAX);
    }
}

/// A path begins.
#[inline(always)]
fn begins(sk: Sock, now: u64) {
    let Some(context) = sk.subflow_context() else {
        return;
    };
    has_socket();
    forget(sk);
    let Some(path) = track(sk) else {
        return;
    };
    set!(path, born_ns, now);
    set!(path, backup, u8::from(wants_backup(context)));
    belongs_to(path, msk_of_context(context));
    // A passive join is up when it begins.
    if is_join(context) && sk.state().is_ok_and(|state| u32::from(state) == CLOSE) {
        opening(path, ONE_MORE);
    }
}

/// Changes of the number of paths that are being opened.
const ONE_MORE: u8 = 1;
const ONE_LESS: u8 = u8::MAX;

/// Counts the paths that this host is opening for a connection: one more, or one less.
#[inline(always)]
fn opening(path: Entry<Path>, change: u8) {
    let is_counted = get!(path, flags).contains(PathFlags::OPENING);
    if is_counted == (change == ONE_MORE) {
        return;
    }
    set!(path, flags, get!(path, flags) ^ PathFlags::OPENING);
    if let Some(conn) = conn(get!(path, msk)) {
        let pending = get!(conn, pending_paths);
        set!(conn, pending_paths, pending.wrapping_add(change));
    }
}

/// Notes the connection of a path.
#[inline(always)]
fn belongs_to(path: Entry<Path>, msk: Option<Sock>) {
    if let Some(msk) = msk {
        set!(path, msk, msk.0);
        if let Some(conn) = conn(msk.0) {
            set!(path, msk_born_ns, get!(conn, born_ns));
        }
    }
}

/// Notes what happened to a path.
#[inline(always)]
pub(super) fn happened(sk: Sock, what: PathEvents) {
    const DECIDES: PathEvents = PathEvents::RST_RECEIVED
        .union(PathEvents::REMOVED)
        .union(PathEvents::RESET)
        .union(PathEvents::ERROR)
        .union(PathEvents::ABORTED);
    let Some(path) = path(sk.0) else {
        return;
    };
    let mut events = get!(path, events) | what;
    let msk = Sock(get!(path, msk));
    if msk
        .state()
        .is_ok_and(|state| u32::from(state) != ESTABLISHED)
    {
        events |= PathEvents::CONNECTION_CLOSED;
    }
    set!(path, events, events);
    if get!(path, first_event).is_empty() && DECIDES.contains(what) {
        set!(path, first_event, what);
    }
}

/// Looks at the paths of a connection: reports one that came up, became stale or recovered. A second
/// one is reported the next time.
///
/// The record is written after the loop, because the verifier walks what is in a loop once per
/// iteration.
#[inline(never)]
fn look_at_paths(msk: u64, site: u32) -> u32 {
    let mut paths = PathsOf::connection(Sock(msk));
    let mut found = 0;
    let mut kind = 0;
    for _ in 0..PATHS_MAX {
        let Some(context) = paths.next() else {
            break;
        };
        let Some(sk) = sock_of_context(context) else {
            continue;
        };
        kind = news_of(sk, context);
        if kind != 0 {
            found = sk.0;
            break;
        }
    }
    if kind != 0 {
        let state = u32::from(Sock(found).state().unwrap_or(0));
        emit(what(Kind(kind), PathSite(site as u8), state), found, 0);
    }
    0
}

/// Reports all paths of a connection that are open; at [`PathSite::SCAN`], tracks them from now on.
/// Returns how many there are.
#[inline(never)]
fn list_paths(msk: u64, site: u32) -> u32 {
    let mut paths = PathsOf::connection(Sock(msk));
    let mut count = 0;
    for _ in 0..PATHS_MAX {
        let Some(context) = paths.next() else {
            break;
        };
        if let Some(sk) = sock_of_context(context) {
            count += listed(sk, context, msk, site);
        }
    }
    count
}

/// The kind of record if the path came up, became stale or recovered; else 0.
#[inline(never)]
fn news_of(sk: Sock, context: u64) -> u32 {
    let Some(path) = path(sk.0) else {
        return 0;
    };
    let is_up = is_join(context)
        && is_fully_established(context)
        && !get!(path, flags).contains(PathFlags::WAS_UP);
    let stale = u8::from(is_stale(context));
    let backup = u8::from(wants_backup(context));
    let kind = match () {
        () if is_up => {
            set!(path, up_ns, now_ns());
            set!(path, flags, get!(path, flags) | PathFlags::WAS_UP);
            opening(path, ONE_LESS);
            Kind::PATH_UP
        }
        () if stale != get!(path, stale) => {
            set!(path, stale, stale);
            match stale {
                0 => Kind::PATH_RECOVERED,
                _ => Kind::PATH_STALE,
            }
        }
        () if backup != get!(path, backup) => {
            set!(path, backup, backup);
            Kind::PATH_OWN_PRIORITY
        }
        () => Kind(0),
    };
    opaque(kind.0)
}

/// Reports an open path; at [`PathSite::SCAN`], tracks it from now on. Returns 0 for a listener.
#[inline(never)]
fn listed(sk: Sock, context: u64, msk: u64, site: u32) -> u32 {
    let state = sk.state().map_or(0, u32::from);
    if state == LISTEN || state == CLOSE {
        return 0;
    }
    // Without a share of its user: the verifier would walk the choice once per path of the loop.
    if site == u32::from(PathSite::SCAN.0)
        && path(sk.0).is_none()
        && PATHS.insert(sk.0, BLANK, u64::from(BPF_NOEXIST)).is_ok()
        && let Some(path) = path(sk.0)
    {
        let is_up = !is_join(context) || is_fully_established(context);
        let up = match is_up {
            true => PathFlags::WAS_UP,
            false => PathFlags::empty(),
        };
        set!(path, flags, PathFlags::EXISTING | up);
        set!(path, stale, u8::from(is_stale(context)));
        set!(path, backup, u8::from(wants_backup(context)));
        belongs_to(path, Some(Sock(msk)));
    }
    emit_open(sk, context, Sock(msk), state, PathSite(site as u8));
    opaque(1)
}

/// Looks at the paths of a connection that was found by a walk over all sockets: with `lists`,
/// reports all that are open. Returns how many records that are.
#[inline(always)]
pub(crate) fn scan(msk: Sock, lists: bool) -> u32 {
    match (PATHS_RUNG.load(), lists) {
        (0, _) => 0,
        (_, true) => list_paths(msk.0, u32::from(PathSite::SCAN.0)),
        (_, false) => look_at_paths(msk.0, u32::from(PathSite::SCAN.0)),
    }
}

/// Reports all open paths of a connection because userspace asked for them: no event.
#[inline(always)]
pub(crate) fn read(msk: Sock) {
    if PATHS_RUNG.load() != 0 {
        list_paths(msk.0, u32::from(PathSite::READING.0));
    }
}

/// `mptcp_pm_subflow_established(msk)` is entered: a path is fully established.
#[fentry]
pub(crate) fn path_fentry_established(ctx: FEntryContext) -> i32 {
    look_at_paths(ctx.arg(0), u32::from(PathSite::FOURTH_ACK.0));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_established(ctx: ProbeContext) -> u32 {
    look_at_paths(argument(&ctx, 0), u32::from(PathSite::FOURTH_ACK.0));
    0
}

/// `mptcp_pm_subflow_chk_stale(msk, ssk)`, or `mptcp_pm_chk_stale(msk)`, returns: paths may be stale
/// now.
#[fexit]
pub(crate) fn path_fexit_stale(ctx: FExitContext) -> i32 {
    look_at_paths(ctx.arg(0), u32::from(PathSite::STALE.0));
    0
}

/// One of the two is entered.
#[kprobe]
pub(crate) fn path_kprobe_stale(ctx: ProbeContext) -> u32 {
    stash_args(CallSite::CheckStale, argument(&ctx, 0), 0);
    0
}

/// One of the two returns.
#[kretprobe]
pub(crate) fn path_kretprobe_stale(_ctx: RetProbeContext) -> u32 {
    if let Some([msk, _none]) = take_args(CallSite::CheckStale) {
        look_at_paths(msk, u32::from(PathSite::STALE.0));
    }
    0
}

/// `mptcp_pm_mp_prio_send_ack(msk, ...)` returns: this host changed the priority of a path.
#[fexit]
pub(crate) fn path_fexit_prio(ctx: FExitContext) -> i32 {
    look_at_paths(ctx.arg(0), u32::from(PathSite::PRIORITY.0));
    0
}

/// `mptcp_pm_mp_prio_send_ack` is entered.
#[kprobe]
pub(crate) fn path_kprobe_prio(ctx: ProbeContext) -> u32 {
    stash_args(CallSite::SendPriority, argument(&ctx, 0), 0);
    0
}

/// `mptcp_pm_mp_prio_send_ack` returns.
#[kretprobe]
pub(crate) fn path_kretprobe_prio(_ctx: RetProbeContext) -> u32 {
    if let Some([msk, _none]) = take_args(CallSite::SendPriority) {
        look_at_paths(msk, u32::from(PathSite::PRIORITY.0));
    }
    0
}

/// `mptcp_subflow_set_active(context)`: the path is not stale any more. Entered before the bit
/// changes; called for paths that are not stale, too.
#[inline(always)]
fn recovers(context: u64) {
    if let Some(sk) = sock_of_context(context)
        && let Some(path) = path(sk.0)
        && get!(path, stale) == 1
    {
        set!(path, stale, 0);
        emit(
            what(Kind::PATH_RECOVERED, PathSite::STALE, ESTABLISHED),
            sk.0,
            0,
        );
    }
}

/// `mptcp_subflow_set_active` is entered.
#[fentry]
pub(crate) fn path_fentry_active(ctx: FEntryContext) -> i32 {
    recovers(ctx.arg(0));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_active(ctx: ProbeContext) -> u32 {
    recovers(argument(&ctx, 0));
    0
}
