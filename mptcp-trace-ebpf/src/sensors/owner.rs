//! Who holds a socket, and since when does it live?
//!
//! A fallback is decided wherever the packet happens to be processed: under the idle task, a worker, or the
//! other end's process. So whoever holds a socket is noted down where it is the current process: when it
//! makes the socket, connects it, listens, accepts, sends or receives, and asks.

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
    fallback::{EEXIST, LISTEN},
    tell,
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

/// The current process becomes the owner. Written where it stays: there is little stack.
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

/// Why a socket was not noted down.
enum Unnoted {
    /// It was already.
    Known,
    /// The table is full.
    NoRoom,
    /// Its user has as many as one user may have.
    OverShare,
}

impl Unnoted {
    /// Counts a socket of which nothing is noted: where it is born, so that each is counted once.
    #[inline(always)]
    fn count(self) {
        match self {
            Self::Known => {}
            Self::NoRoom => emit::count_fallback(counter::UNFOLLOWED),
            Self::OverShare => emit::count_fallback(counter::OVER_SHARE),
        }
    }
}

/// The user whose share this socket takes, and that share.
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

/// A socket that nothing is known of.
static BLANK: &Conn = &Conn::BLANK;

/// Notes down that a socket was born now, if nothing is noted of it and its user's share and the table have room.
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

/// Forgets what is noted of a socket.
#[inline(always)]
pub(crate) fn forget(sk: Sock) {
    if let Some(user) = conn(sk.0).map(|conn| conn.share)
        // Another CPU is noting it down.
        && user != SHARE_UNSET
        && CONNS.remove(sk.0).is_ok()
        && let Some(share) = share(user)
    {
        share.add(u64::MAX);
        // So that users who have nothing any more take no room of others. What another CPU adds meanwhile is lost, and that user
        // has room for one more.
        if user != SHARE_OF_OTHERS && share.is_empty() {
            let _gone = SHARES.remove(user);
        }
    }
    let _none = FALLEN.remove(sk.0);
    let _none = FALLEN_UNNOTED.remove(sk.0);
}

/// Notes a socket down, whatever stood at its address before. One of a self-test is missed by nobody.
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

/// Notes a socket down unless it is known already; none if it is, or if there is no room.
#[inline(always)]
pub(crate) fn note_down_new(sk: Sock) -> Option<&'static mut Conn> {
    if conn(sk.0).is_some() {
        return None;
    }
    insert(sk).map_err(Unnoted::count).ok()
}

/// The current process has made this socket.
#[inline(never)]
pub(crate) fn on_create(sk: u64, via: u32) -> u32 {
    let sk = Sock(sk);
    if let Some(new) = note_down(sk, is_own_task) {
        new.inode = sk.inode().unwrap_or(0);
        take_over(&mut new.owner, via as u8);
    }
    0
}

/// The current process does something with this MPTCP socket.
#[inline(never)]
pub(crate) fn set_owner(sk: u64, via: u32) -> u32 {
    let sk = Sock(sk);
    let inode = sk.inode().unwrap_or(0);
    // Another socket may live at this address now.
    let known = conn(sk.0).filter(|it| it.inode == 0 || inode == 0 || it.inode == inode);
    if let Some(conn) = known.or_else(|| note_unseen(sk)) {
        conn.inode = inode;
        take_over(&mut conn.owner, via as u8);
    }
    0
}

/// Notes down a socket whose birth was not observed, or for which there was no room then. It is from before tracing only if it can
/// have been open when those were listed.
#[inline(always)]
fn note_unseen(sk: Sock) -> Option<&'static mut Conn> {
    let since = unnoted_since(sk.0);
    if since.is_none() {
        forget(sk);
    }
    // Without room its birth was counted.
    let new = insert(sk).ok()?;
    new.state = match CALIBRATED
        .get(calibrated::LISTED)
        .is_some_and(|listed| *listed != 0)
    {
        true => CONN_UNWATCHED,
        false => CONN_UNSEEN_BIRTH,
    };
    if let Some(since) = since {
        // It has fallen back, and was reported without what is noted now.
        new.born_ns = since;
        new.state |= CONN_FELL;
        let _known = FALLEN.insert(sk.0, since, 0);
        let _gone = FALLEN_UNNOTED.remove(sk.0);
    }
    Some(new)
}

/// The same for what is done with every packet: nothing to do if the owner is known.
#[inline(always)]
pub(crate) fn note_io(sk: Sock, via: u8) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if conn(sk.0).is_none_or(|conn| conn.owner.tgid != tgid) {
        set_owner(sk.0, u32::from(via));
    }
}

/// The same where it matters whether the socket is the one that was noted down: another may live at its address
/// now, if nobody saw it being made. `tgid` is the current process; what is known of the socket then.
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

/// A question about this socket was not traced: whoever judges the connection must know.
#[inline(always)]
pub(crate) fn untold(sk: Sock) {
    // Where only inner functions are probed, it is a subflow that was asked.
    let known = match conn(sk.0) {
        None if OUTERMOST_PROBED.load() == 0 => sk.msk_of_subflow().and_then(|msk| conn(msk.0)),
        known => known,
    };
    if let Some(conn) = known {
        conn.state |= CONN_UNTOLD;
    }
}

/// The current process has accepted this socket.
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
                tell::connection(KIND_ACCEPTED, sk.0, 0, 0);
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

/// A TCP socket was just cloned from a listener, and its subflow context is still that of the listener: it leads to the
/// listener's MPTCP socket, if there is one.
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

/// A run of the kernel's code for packets, as a number that is no address: the CPU, and the thread on top of which it runs, which
/// it is itself where it can be preempted.
#[inline(always)]
fn this_run() -> u64 {
    let thread = bpf_get_current_pid_tgid() as u32;
    u64::from(current_cpu()) << 32 | u64::from(thread)
}

/// The listener that this child was just born of: a TCP socket has a note of its own, and that of its MPTCP socket was the
/// last one in the same run of the kernel.
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

/// Notes down a socket that a listener gave birth to: it belongs to the listener's owner until it is accepted.
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

/// True if this TCP socket was born of a listener of MPTCP.
#[inline(always)]
pub(crate) fn has_mptcp_listener(sk: Sock) -> bool {
    listener_of(sk.0).is_some()
}

/// The note about the birth of a TCP socket has served.
#[inline(always)]
pub(crate) fn forget_birth(sk: Sock) {
    let _none = CHILDREN.remove(sk.0);
}

/// True for a closed MPTCP socket that no process can reach any more: no file stands for it, and it does not wait for
/// being accepted either.
#[inline(always)]
pub(crate) fn is_out_of_reach(msk: Sock) -> bool {
    if msk.inode().is_ok() {
        return false;
    }
    let Some(conn) = conn(msk.0) else { return true };
    if conn.state & CONN_UNACCEPTED == 0 {
        return true;
    }
    // A listener that is being closed drops those that wait; its subflow listens no more at that point.
    let listener = Sock(conn.waits_since_or_at);
    let subflow = listener.first_subflow().unwrap_or(Sock(0));
    let listens = |sk: Sock| sk.state().is_ok_and(|state| u32::from(state) == LISTEN);
    !(listens(listener) && listens(subflow))
}

/// True if another process used the connection since something was said of it. One that is being closed, by `close` or
/// `shutdown`, may live on without a file for a minute, and be judged meanwhile: then that is said before.
#[inline(always)]
pub(crate) fn has_another_owner(sk: Sock) -> bool {
    conn(sk.0).is_some_and(|conn| {
        conn.told_tgid != 0 && conn.told_tgid != conn.owner.tgid && !is_tracer(&conn.owner)
    })
}

/// True if something was said of the connection, so that its end is news.
#[inline(always)]
pub(crate) fn was_told_of(sk: Sock) -> bool {
    const SPOKEN_OF: u32 = CONN_ASKED | CONN_FELL | CONN_EXISTING;
    conn(sk.0).is_some_and(|conn| conn.state & SPOKEN_OF != 0 && !is_tracer(&conn.owner))
}

/// The socket is no more: its address may be given to another. If something was said of it, its end is told, so
/// that whoever reads knows that nothing more will come.
#[inline(always)]
pub(crate) fn on_destroy(sk: Sock) {
    if was_told_of(sk) {
        emit::count_fallback(counter::SEEN);
        tell::connection(KIND_CLOSED, sk.0, 0, 0);
    }
    forget(sk);
}
