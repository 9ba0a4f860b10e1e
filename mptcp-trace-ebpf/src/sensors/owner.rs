//! Which process holds a socket, and how old is the socket?
//!
//! A fallback is decided in the context where the packet is processed: the idle task, a worker, or
//! the peer's process. So the owner is recorded while it is the current process: when it creates
//! the socket, connects, listens, accepts, sends or receives, and queries.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid},
};
use mptcp_trace_common::{
    calibrated, counter,
    record::{
        CONN_ASKED, CONN_EXISTING, CONN_FELL, CONN_TCP, CONN_TOLD, CONN_UNACCEPTED,
        CONN_UNSEEN_BIRTH, CONN_UNTOLD, CONN_UNWATCHED, Conn, KIND_ACCEPTED, KIND_CLOSED, Owner,
        SHARE_OF_OTHERS, SHARE_UNSET, VIA_ACCEPT, VIA_LISTENER, VIA_QUERY,
    },
};

use super::{
    connection_record,
    fallback::{EEXIST, LISTEN},
};
use crate::{
    admit::{in_namespace, is_own_task, is_tracer},
    emit,
    kernel::{Sock, current_cgroup, current_cpu, current_task, is_mptcp, now_ns, put_process_comm},
    maps::{
        CALIBRATED, CHILDREN, CONNS, FALLEN, FALLEN_UNNOTED, OUTERMOST_PROBED, SHARES, Share, conn,
        listener_of, share, unnoted_since,
    },
};

/// Makes the current process the owner. Written in place: the stack is small.
#[inline(always)]
fn take_over(owner: &mut Owner, via: u8) {
    let pid_tgid = bpf_get_current_pid_tgid();
    owner.cgroup_id = current_cgroup();
    owner.tgid = (pid_tgid >> 32) as u32;
    owner.tid = pid_tgid as u32;
    let task = current_task();
    let here = in_namespace(|| task, pid_tgid);
    owner.ns_tgid = here.tgid;
    owner.ns_tid = here.tid;
    owner.uid = bpf_get_current_uid_gid() as u32;
    owner.via = via;
    put_process_comm(&mut owner.comm, task);
}

/// Why a socket was not added to the table.
enum Unnoted {
    /// It was in the table already.
    Known,
    /// The table is full.
    NoRoom,
    /// Its user has reached the limit per user.
    OverShare,
}

impl Unnoted {
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

/// A socket of which nothing is known.
static BLANK: &Conn = &Conn::BLANK;

/// Adds a socket that was created now, unless it is tracked already, or its user's share or the
/// table is full.
#[inline(always)]
fn insert(sk: Sock) -> Result<&'static mut Conn, Unnoted> {
    let Some((user, share)) = share_of(sk).filter(|(_user, share)| !share.is_full()) else {
        return Err(Unnoted::OverShare);
    };
    match CONNS.insert(sk.0, BLANK, u64::from(BPF_NOEXIST)) {
        Ok(()) => share.add(1),
        Err(EEXIST) => return Err(Unnoted::Known),
        Err(_full) => return Err(Unnoted::NoRoom),
    }
    let conn = conn(sk.0).ok_or(Unnoted::Known)?;
    conn.share = user;
    conn.born_ns = now_ns();
    Ok(conn)
}

/// Removes a socket from the table.
#[inline(always)]
pub(crate) fn forget(sk: Sock) {
    if let Some(user) = conn(sk.0).map(|conn| conn.share)
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
    let _none = FALLEN_UNNOTED.remove(sk.0);
}

/// Adds a socket, replacing any other at its address. A self-test's socket that finds no room is
/// not counted.
#[inline(always)]
fn note_down(sk: Sock, is_self_test: impl FnOnce() -> bool) -> Option<&'static mut Conn> {
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
pub(crate) fn note_down_new(sk: Sock) -> Option<&'static mut Conn> {
    if conn(sk.0).is_some() {
        return None;
    }
    insert(sk).map_err(Unnoted::count).ok()
}

/// The current process created this socket.
#[inline(never)]
pub(crate) fn on_create(sk: u64, via: u32) -> u32 {
    let sk = Sock(sk);
    if let Some(new) = note_down(sk, is_own_task) {
        new.inode = sk.inode().unwrap_or(0);
        take_over(&mut new.owner, via as u8);
    }
    0
}

/// The current process uses this MPTCP socket.
#[inline(never)]
pub(crate) fn set_owner(sk: u64, via: u32) -> u32 {
    let sk = Sock(sk);
    let inode = sk.inode().unwrap_or(0);
    // Another socket may have been created at this address.
    let known = conn(sk.0).filter(|it| it.inode == 0 || inode == 0 || it.inode == inode);
    if let Some(conn) = known.or_else(|| note_unseen(sk)) {
        conn.inode = inode;
        take_over(&mut conn.owner, via as u8);
    }
    0
}

/// Adds a socket whose birth was not observed, or found no room. It counts as older than the trace
/// only if the list of open sockets was still incomplete.
#[inline(always)]
fn note_unseen(sk: Sock) -> Option<&'static mut Conn> {
    let since = unnoted_since(sk.0);
    if since.is_none() {
        forget(sk);
    }
    // If there is no room, its birth was counted.
    let new = insert(sk).ok()?;
    new.state = match CALIBRATED
        .get(calibrated::LISTED)
        .is_some_and(|listed| *listed != 0)
    {
        true => CONN_UNWATCHED,
        false => CONN_UNSEEN_BIRTH,
    };
    if let Some(since) = since {
        // It fell back, and was reported without the detail recorded now.
        new.born_ns = since;
        new.state |= CONN_FELL;
        let _known = FALLEN.insert(sk.0, since, 0);
        let _gone = FALLEN_UNNOTED.remove(sk.0);
    }
    Some(new)
}

/// Variant for every send and receive: returns early if the owner is unchanged.
#[inline(always)]
pub(crate) fn note_io(sk: Sock, via: u8) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if conn(sk.0).is_none_or(|conn| conn.owner.tgid != tgid) {
        set_owner(sk.0, u32::from(via));
    }
}

/// Variant that verifies that the tracked socket is the same one: if its creation was not observed,
/// another may have taken its address. `tgid` is the current process. Returns the entry.
#[inline(always)]
pub(crate) fn owner_for_query(sk: Sock, inode: u64, tgid: u32) -> Option<&'static mut Conn> {
    match conn(sk.0) {
        Some(conn) if conn.owner.tgid == tgid && conn.inode == inode => Some(conn),
        Some(_) | None => {
            set_owner(sk.0, u32::from(VIA_QUERY));
            conn(sk.0)
        }
    }
}

/// A query on this socket was not traced: the verdict on the connection must take that into
/// account.
#[inline(always)]
pub(crate) fn untold(sk: Sock) {
    // If only inner functions are probed, the queried socket is a subflow.
    let known = match conn(sk.0) {
        None if OUTERMOST_PROBED.load() == 0 => sk.msk_of_subflow().and_then(|msk| conn(msk.0)),
        known => known,
    };
    if let Some(conn) = known {
        conn.state |= CONN_UNTOLD;
    }
}

/// The current process accepted this socket.
#[inline(always)]
pub(crate) fn accepted(sk: Sock) {
    let Ok(protocol) = sk.protocol() else { return };
    if let Some(conn) = conn(sk.0) {
        if conn.state & CONN_UNACCEPTED != 0 {
            take_over(&mut conn.owner, VIA_ACCEPT);
            conn.inode = sk.inode().unwrap_or(0);
            let told = conn.state & CONN_TOLD != 0;
            conn.state &= !(CONN_UNACCEPTED | CONN_TOLD);
            if told {
                emit::count_fallback(counter::SEEN);
                connection_record::emit(KIND_ACCEPTED, sk.0, 0, 0);
            }
            return;
        }
        if conn.state & CONN_TCP != 0 {
            return;
        }
    }
    if is_mptcp(protocol) {
        note_io(sk, VIA_ACCEPT);
    }
}

/// A TCP socket was just cloned from a listener, and still has the listener's subflow context,
/// which leads to the listener's MPTCP socket, if any.
#[inline(always)]
pub(crate) fn cloned(sk: Sock) {
    if let Some(listener) = sk.msk_of_subflow() {
        let _full = CHILDREN.insert(sk.0, listener.0, 0);
        let _full = CHILDREN.insert(this_run(), listener.0, 0);
    } else {
        // Another socket had this address before.
        forget_birth(sk);
    }
}

/// Identifies one run of the kernel's packet processing, as a number that is no address: the CPU
/// and the interrupted thread, or, where packet processing is preemptible, the thread that runs it.
#[inline(always)]
fn this_run() -> u64 {
    let thread = bpf_get_current_pid_tgid() as u32;
    u64::from(current_cpu()) << 32 | u64::from(thread)
}

/// The listener of this new child: a TCP child has a note of its own; the listener of an MPTCP
/// child is the last one noted in the same run.
#[inline(always)]
fn listener_of_child(sk: Sock, state: u32) -> u64 {
    let at = match state & CONN_TCP {
        0 => this_run(),
        _ => sk.0,
    };
    let listener = listener_of(at).unwrap_or(0);
    let _none = CHILDREN.remove(at);
    listener
}

/// Adds a child of a listener: it belongs to the listener's owner until it is accepted.
#[inline(always)]
pub(crate) fn note_child(sk: Sock, state: u32) {
    let listener = listener_of_child(sk, state);
    let Some(new) = note_down(sk, || sk.is_of_self_test()) else {
        return;
    };
    new.connect_ns = new.born_ns;
    new.waits_since_or_at = listener;
    new.state = state | CONN_UNACCEPTED;
    if let Some(known) = conn(listener) {
        new.owner = known.owner;
        new.owner.via = VIA_LISTENER;
    }
}

/// True if this TCP socket is a child of an MPTCP listener.
#[inline(always)]
pub(crate) fn has_mptcp_listener(sk: Sock) -> bool {
    listener_of(sk.0).is_some()
}

/// The note about the birth of a TCP socket is no longer needed.
#[inline(always)]
pub(crate) fn forget_birth(sk: Sock) {
    let _none = CHILDREN.remove(sk.0);
}

/// True for a closed MPTCP socket that no process can reach any more: it has no file, and does not
/// wait for `accept` either.
#[inline(always)]
pub(crate) fn is_out_of_reach(msk: Sock) -> bool {
    if msk.inode().is_ok() {
        return false;
    }
    let Some(conn) = conn(msk.0) else { return true };
    if conn.state & CONN_UNACCEPTED == 0 {
        return true;
    }
    // A closing listener drops its waiting children; at that point its subflow no longer listens.
    let listener = Sock(conn.waits_since_or_at);
    let subflow = listener.first_subflow().unwrap_or(Sock(0));
    let listens = |sk: Sock| sk.state().is_ok_and(|state| u32::from(state) == LISTEN);
    !(listens(listener) && listens(subflow))
}

/// True if another process has used the connection since its last record. A connection that is
/// being closed, by `close` or `shutdown`, may live on without a file for a minute, and get its
/// verdict meanwhile: the new owner is reported before that.
#[inline(always)]
pub(crate) fn has_another_owner(sk: Sock) -> bool {
    conn(sk.0).is_some_and(|conn| {
        conn.told_tgid != 0 && conn.told_tgid != conn.owner.tgid && !is_tracer(&conn.owner)
    })
}

/// True if a record mentioned the connection, so that its end is reported.
#[inline(always)]
pub(crate) fn was_told_of(sk: Sock) -> bool {
    const SPOKEN_OF: u32 = CONN_ASKED | CONN_FELL | CONN_EXISTING;
    conn(sk.0).is_some_and(|conn| conn.state & SPOKEN_OF != 0 && !is_tracer(&conn.owner))
}

/// The socket is destroyed: its address may be reused. If a record mentioned it, its end is
/// reported, so that the reader knows that no more records follow.
#[inline(always)]
pub(crate) fn on_destroy(sk: Sock) {
    if was_told_of(sk) {
        emit::count_fallback(counter::SEEN);
        connection_record::emit(KIND_CLOSED, sk.0, 0, 0);
    }
    forget(sk);
}
