//! Tracks which process owns a socket, and when the socket was created.
//!
//! The kernel decides a fallback in the context in which it processes the packet: the idle task, a
//! kernel worker, or the peer's process. So the owner is recorded at another time, while it is the
//! current process: when it creates the socket, connects, listens, accepts, sends, receives or
//! queries.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid},
};
use mptcp_trace_common::{
    calibrated, counter,
    map_values::{Conn, SHARE_OF_OTHERS, SHARE_UNSET},
    record::{ConnState, Kind, Owner, OwnerVia},
};

use super::{
    connection_record,
    fallback::{EEXIST, LISTEN},
};
use crate::{
    admit::{in_namespace, is_own_task, is_tracer},
    emit,
    entry::{Entry, get, set},
    kernel::{
        Sock, current_cgroup, current_cpu, current_task, is_kernel_thread, is_mptcp, now_ns,
        put_process_comm,
    },
    maps::{
        CALIBRATED, CHILDREN, CONNS, FALLEN, FALLEN_UNTRACKED, OUTERMOST_PROBED, SHARES, Share,
        conn, listener_of, share, untracked_since,
    },
};

/// Makes the kernel the owner of one of its own sockets, with the current thread if that is one of
/// the kernel's: a process may make such a socket in a system call that it does not hold
/// afterwards.
#[inline(always)]
pub(crate) fn kernel_takes_over(conn: Entry<Conn>) {
    if get!(conn, owner.via) != OwnerVia::KERNEL {
        set!(conn, owner.cgroup_id, 0);
        set!(conn, owner.tgid, 0);
        set!(conn, owner.tid, 0);
        set!(conn, owner.ns_tgid, 0);
        set!(conn, owner.ns_tid, 0);
        set!(conn, owner.uid, 0);
        set!(conn, owner.via, OwnerVia::KERNEL);
        set!(conn, owner.comm, Owner::KERNEL_COMM);
    }
    let (task, pid_tgid) = (current_task(), bpf_get_current_pid_tgid());
    if is_kernel_thread(task, pid_tgid as u32) {
        set!(conn, owner.tid, pid_tgid as u32);
        set!(conn, owner.ns_tid, in_namespace(|| task, pid_tgid).tid);
        put_process_comm(conn, task);
    }
}

/// Makes the current process the owner, or the kernel if the socket is its own. Writes in place,
/// because the stack is small.
#[inline(always)]
fn take_over(sk: Sock, conn: Entry<Conn>, via: OwnerVia) {
    if sk.is_of_kernel() {
        kernel_takes_over(conn);
        return;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    set!(conn, owner.cgroup_id, current_cgroup());
    set!(conn, owner.tgid, (pid_tgid >> 32) as u32);
    set!(conn, owner.tid, pid_tgid as u32);
    let task = current_task();
    let here = in_namespace(|| task, pid_tgid);
    set!(conn, owner.ns_tgid, here.tgid);
    set!(conn, owner.ns_tid, here.tid);
    set!(conn, owner.uid, bpf_get_current_uid_gid() as u32);
    set!(conn, owner.via, via);
    put_process_comm(conn, task);
}

/// Why a socket was not added to the table.
enum Untracked {
    /// It was in the table already.
    Known,
    /// The table is full.
    NoRoom,
    /// Its user has reached the limit per user.
    OverShare,
}

impl Untracked {
    /// Counts an untracked socket. Called at its birth only, so that each is counted once.
    #[inline(always)]
    fn count(self) {
        match self {
            Self::Known => {}
            Self::NoRoom => emit::count_fallback(counter::UNFOLLOWED),
            Self::OverShare => emit::count_fallback(counter::OVER_SHARE),
        }
    }
}

/// The user that this socket counts against, and that user's share.
#[inline(always)]
fn share_of(sk: Sock) -> Option<(u32, Share)> {
    let user = sk.user();
    if let Some(known) = share(user) {
        return Some((user, known));
    }
    let _no_room = SHARES.insert(user, 0, u64::from(BPF_NOEXIST));
    match share(user) {
        Some(new) => Some((user, new)),
        None => share(SHARE_OF_OTHERS).map(|others| (SHARE_OF_OTHERS, others)),
    }
}

/// A socket about which nothing is known.
static BLANK: &Conn = &Conn::BLANK;

/// Adds a socket that was created now, unless it is tracked already, or its user's share or the
/// table is full.
#[inline(always)]
fn insert(sk: Sock) -> Result<Entry<Conn>, Untracked> {
    let Some((user, share)) = share_of(sk).filter(|(_user, share)| !share.is_full()) else {
        return Err(Untracked::OverShare);
    };
    match CONNS.insert(sk.0, BLANK, u64::from(BPF_NOEXIST)) {
        Ok(()) => share.add(1),
        Err(EEXIST) => return Err(Untracked::Known),
        Err(_full) => return Err(Untracked::NoRoom),
    }
    let conn = conn(sk.0).ok_or(Untracked::Known)?;
    set!(conn, share, user);
    set!(conn, born_ns, now_ns());
    Ok(conn)
}

/// Removes a socket from the table.
#[inline(always)]
pub(crate) fn forget(sk: Sock) {
    if let Some(user) = conn(sk.0).map(|conn| get!(conn, share))
        // Another CPU is adding it.
        && user != SHARE_UNSET
        && CONNS.remove(sk.0).is_ok()
        && let Some(share) = share(user)
    {
        share.add(u64::MAX);
        // Empty shares are removed, so that they take no room from other users. Additions on
        // another CPU in between are lost, which lets that user exceed the limit by one.
        if user != SHARE_OF_OTHERS && share.is_empty() {
            let _gone = SHARES.remove(user);
        }
    }
    let _none = FALLEN.remove(sk.0);
    let _none = FALLEN_UNTRACKED.remove(sk.0);
}

/// Adds a socket, replacing any other at its address. If there is no room, the socket is counted,
/// unless it belongs to a self-test.
#[inline(always)]
fn track(sk: Sock, is_self_test: impl FnOnce() -> bool) -> Option<Entry<Conn>> {
    forget(sk);
    match insert(sk) {
        Ok(new) => Some(new),
        Err(why) => {
            if !is_self_test() {
                why.count();
            }
            None
        }
    }
}

/// Adds a socket unless it is tracked already; `None` if it is, or if there is no room.
#[inline(always)]
pub(crate) fn track_new(sk: Sock) -> Option<Entry<Conn>> {
    if conn(sk.0).is_some() {
        return None;
    }
    insert(sk).map_err(Untracked::count).ok()
}

/// The current process created this socket.
#[inline(never)]
pub(crate) fn on_create(sk: u64, via: u32) -> u32 {
    let sk = Sock(sk);
    if let Some(new) = track(sk, is_own_task) {
        set!(new, inode, sk.inode().unwrap_or(0));
        take_over(sk, new, OwnerVia(via as u8));
    }
    0
}

/// The current process uses this MPTCP socket.
#[inline(never)]
pub(crate) fn set_owner(sk: u64, via: u32) -> u32 {
    let sk = Sock(sk);
    let inode = sk.inode().unwrap_or(0);
    // Another socket may have been created at this address.
    let known = conn(sk.0).filter(|it| {
        let known = get!(*it, inode);
        known == 0 || inode == 0 || known == inode
    });
    if let Some(conn) = known.or_else(|| track_unseen(sk)) {
        set!(conn, inode, inode);
        take_over(sk, conn, OwnerVia(via as u8));
    }
    0
}

/// Adds a socket whose creation was not observed, or for which there was no room at that time. It
/// counts as older than the trace only if the list of open sockets is still incomplete.
#[inline(always)]
fn track_unseen(sk: Sock) -> Option<Entry<Conn>> {
    let since = untracked_since(sk.0);
    if since.is_none() {
        forget(sk);
    }
    // If there is no room, the socket was counted when it was created.
    let new = insert(sk).ok()?;
    let mut state = match CALIBRATED
        .get(calibrated::LISTED)
        .is_some_and(|listed| *listed != 0)
    {
        true => ConnState::UNWATCHED,
        false => ConnState::UNSEEN_BIRTH,
    };
    if let Some(since) = since {
        // It fell back, and was reported without the detail recorded now.
        set!(new, born_ns, since);
        state |= ConnState::FELL;
        let _known = FALLEN.insert(sk.0, since, 0);
        let _gone = FALLEN_UNTRACKED.remove(sk.0);
    }
    set!(new, state, state);
    Some(new)
}

/// [`set_owner`] for every send and receive: returns early if the owner is unchanged.
#[inline(always)]
pub(crate) fn note_io(sk: Sock, via: OwnerVia) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let is_unchanged = |conn: Entry<Conn>| match get!(conn, owner.via) {
        // The first thread stays: there may be many, for example workers.
        OwnerVia::KERNEL => get!(conn, owner.tid) != 0,
        _ => get!(conn, owner.tgid) == tgid,
    };
    if !conn(sk.0).is_some_and(is_unchanged) {
        set_owner(sk.0, u32::from(via.0));
    }
}

/// [`set_owner`] for a query: returns the entry, after a check that it belongs to this socket. If
/// the creation of the socket was not observed, the entry may belong to an earlier socket at the
/// same address. `tgid` is the current process.
#[inline(always)]
pub(crate) fn owner_for_query(sk: Sock, inode: u64, tgid: u32) -> Option<Entry<Conn>> {
    match conn(sk.0) {
        Some(conn) if get!(conn, owner.tgid) == tgid && get!(conn, inode) == inode => Some(conn),
        Some(_) | None => {
            set_owner(sk.0, u32::from(OwnerVia::QUERY.0));
            conn(sk.0)
        }
    }
}

/// Notes that a query on this socket was not traced, which makes the verdict on the connection
/// doubtful.
#[inline(always)]
pub(crate) fn note_untraced(sk: Sock) {
    // If only inner functions are probed, the queried socket is a subflow.
    let known = match conn(sk.0) {
        None if OUTERMOST_PROBED.load() == 0 => sk.msk_of_subflow().and_then(|msk| conn(msk.0)),
        known => known,
    };
    if let Some(conn) = known {
        set!(conn, state, get!(conn, state) | ConnState::QUERY_UNTRACED);
    }
}

/// The current process accepted this socket.
#[inline(always)]
pub(crate) fn accepted(sk: Sock) {
    let Ok(protocol) = sk.protocol() else { return };
    if let Some(conn) = conn(sk.0) {
        let state = get!(conn, state);
        if state.contains(ConnState::UNACCEPTED) {
            take_over(sk, conn, OwnerVia::ACCEPT);
            set!(conn, inode, sk.inode().unwrap_or(0));
            let both = ConnState::UNACCEPTED.union(ConnState::REPORTED);
            set!(conn, state, state.difference(both));
            if state.contains(ConnState::REPORTED) {
                emit::count_fallback(counter::SEEN);
                connection_record::emit(Kind::ACCEPTED, sk.0, 0, 0);
            }
            return;
        }
        if state.contains(ConnState::TCP) {
            return;
        }
    }
    if is_mptcp(protocol) {
        note_io(sk, OwnerVia::ACCEPT);
    }
}

/// A TCP socket was just cloned from a listener. It still has the listener's subflow context, which
/// points to the listener's MPTCP socket, if any.
#[inline(always)]
pub(crate) fn cloned(sk: Sock) {
    if let Some(listener) = sk.msk_of_subflow() {
        let _full = CHILDREN.insert(sk.0, listener.0, 0);
        let _full = CHILDREN.insert(this_run(), listener.0, 0);
    } else {
        // A note under this address belongs to an earlier socket.
        forget_birth(sk);
    }
}

/// Identifies one run of the kernel's packet processing by the CPU and the interrupted thread or,
/// where packet processing is preemptible, the thread that runs it. It never equals an address.
#[inline(always)]
pub(crate) fn this_run() -> u64 {
    let thread = bpf_get_current_pid_tgid() as u32;
    u64::from(current_cpu()) << 32 | u64::from(thread)
}

/// The listener of this new child. For a TCP child, it is noted under the child's address; for an
/// MPTCP child, it is the last listener noted in the same run.
#[inline(always)]
fn listener_of_child(sk: Sock, state: ConnState) -> u64 {
    let at = match state.contains(ConnState::TCP) {
        true => sk.0,
        false => this_run(),
    };
    let listener = listener_of(at).unwrap_or(0);
    let _none = CHILDREN.remove(at);
    listener
}

/// Adds a child of a listener: it belongs to the listener's owner until it is accepted.
#[inline(always)]
pub(crate) fn track_child(sk: Sock, state: ConnState) {
    let listener = listener_of_child(sk, state);
    let Some(new) = track(sk, || sk.is_of_self_test()) else {
        return;
    };
    set!(new, connect_ns, get!(new, born_ns));
    set!(new, waits_since_or_at, listener);
    set!(new, state, state | ConnState::UNACCEPTED);
    if let Some(known) = conn(listener) {
        new.set_owner_of(known);
        if get!(known, owner.via) != OwnerVia::KERNEL {
            set!(new, owner.via, OwnerVia::LISTENER);
        }
    }
}

/// True if this TCP socket is a child of an MPTCP listener.
#[inline(always)]
pub(crate) fn has_mptcp_listener(sk: Sock) -> bool {
    listener_of(sk.0).is_some()
}

/// Removes the note about the creation of a TCP socket.
#[inline(always)]
pub(crate) fn forget_birth(sk: Sock) {
    let _none = CHILDREN.remove(sk.0);
}

/// True for a closed MPTCP socket that no process can reach any more: it has no file, and is not
/// waiting for `accept`.
#[inline(always)]
pub(crate) fn is_out_of_reach(msk: Sock) -> bool {
    if msk.inode().is_ok() {
        return false;
    }
    let Some(conn) = conn(msk.0) else { return true };
    if !get!(conn, state).contains(ConnState::UNACCEPTED) {
        return true;
    }
    // A closing listener drops its waiting children; at that point its subflow no longer listens.
    let listener = Sock(get!(conn, waits_since_or_at));
    let subflow = listener.first_subflow().unwrap_or(Sock(0));
    let listens = |sk: Sock| sk.state().is_ok_and(|state| u32::from(state) == LISTEN);
    !(listens(listener) && listens(subflow))
}

/// True if another process has used the connection since its last record. A connection that is
/// being closed, by `close` or `shutdown`, may exist without a file for another minute, and get its
/// verdict in that time: the new owner is reported before that.
#[inline(always)]
pub(crate) fn has_another_owner(sk: Sock) -> bool {
    conn(sk.0).is_some_and(|conn| {
        let reported = get!(conn, reported_tgid);
        reported != 0 && reported != get!(conn, owner.tgid) && !is_tracer(get!(conn, owner.ns_tgid))
    })
}

/// True if a record mentioned the connection: its end is reported too.
#[inline(always)]
pub(crate) fn was_reported(sk: Sock) -> bool {
    const REPORTED: ConnState = ConnState::ASKED
        .union(ConnState::FELL)
        .union(ConnState::EXISTING)
        .union(ConnState::HAS_PATHS);
    conn(sk.0).is_some_and(|conn| {
        get!(conn, state).intersects(REPORTED) && !is_tracer(get!(conn, owner.ns_tgid))
    })
}

/// The socket is destroyed, and its address may be reused. If a record mentioned it, its end is
/// reported, so that userspace knows that no more records follow.
#[inline(always)]
pub(crate) fn on_destroy(sk: Sock) {
    if was_reported(sk) {
        emit::count_fallback(counter::SEEN);
        connection_record::emit(Kind::CLOSED, sk.0, 0, 0);
    }
    forget(sk);
}
