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
    counter,
    record::{
        CONN_ASKED, CONN_EXISTING, CONN_FELL, CONN_TCP, CONN_TOLD, CONN_UNACCEPTED,
        CONN_UNSEEN_BIRTH, CONN_UNTOLD, Conn, KIND_ACCEPTED, KIND_CLOSED, NO_MIB, Owner,
        VIA_ACCEPT, VIA_LISTENER, VIA_QUERY,
    },
};

use super::tell;
use crate::{
    admit::{current_pid_in_namespace, is_tracer},
    emit,
    kernel::{Sock, current_cgroup, current_task, is_mptcp, now_ns, process_comm},
    maps::{CONNS, FALLEN, LISTENERS, OUTERMOST_PROBED, conn, listener},
};

/// The current process, as an owner.
#[inline(always)]
fn current(via: u8) -> Owner {
    let pid_tgid = bpf_get_current_pid_tgid();
    Owner {
        cgroup_id: current_cgroup(),
        tgid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        ns_tgid: current_pid_in_namespace(),
        uid: bpf_get_current_uid_gid() as u32,
        via,
        reserved: [0; 7],
        comm: process_comm(current_task()),
    }
}

/// A socket that nothing is known of yet.
#[inline(always)]
pub(crate) fn newborn(state: u32, owner: Owner, inode: u64) -> Conn {
    Conn {
        born_ns: now_ns(),
        connect_ns: 0,
        inode,
        pending_ns: 0,
        owner,
        evidence: 0,
        state,
        pending_mib: NO_MIB,
        pending_site: 0,
    }
}

/// Notes a socket down, whatever stood at its address before.
#[inline(always)]
pub(crate) fn note_down(sk: Sock, conn: &Conn) {
    let _none = FALLEN.remove(sk.0);
    if CONNS.insert(sk.0, conn, 0).is_err() {
        emit::count_fallback(counter::UNFOLLOWED);
    }
}

/// Notes a socket down unless it is known already; true if it was not.
#[inline(always)]
pub(crate) fn note_down_new(sk: Sock, conn: &Conn) -> bool {
    CONNS.insert(sk.0, conn, u64::from(BPF_NOEXIST)).is_ok()
}

/// The current process has made this socket.
#[inline(never)]
pub(crate) fn made(sk: u64, via: u32) -> u32 {
    let sk = Sock(sk);
    let conn = newborn(0, current(via as u8), sk.inode().unwrap_or(0));
    note_down(sk, &conn);
    0
}

/// The current process does something with this MPTCP socket.
#[inline(never)]
pub(crate) fn touched(sk: u64, via: u32) -> u32 {
    let sk = Sock(sk);
    let inode = sk.inode().unwrap_or(0);
    // Made in either case, in one place: there is little stack.
    let new = newborn(CONN_UNSEEN_BIRTH, current(via as u8), inode);
    if let Some(conn) = conn(sk.0)
        && (conn.inode == 0 || inode == 0 || conn.inode == inode)
    {
        conn.inode = inode;
        conn.owner = new.owner;
        return 0;
    }
    // Not known, or another socket lives at this address now; we have not seen it being made.
    note_down(sk, &new);
    0
}

/// The same for what is done with every packet: nothing to do if the owner is known.
#[inline(always)]
pub(crate) fn used(sk: Sock, via: u8) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if conn(sk.0).is_none_or(|conn| conn.owner.tgid != tgid) {
        touched(sk.0, u32::from(via));
    }
}

/// The same where it matters whether the socket is the one that was noted down: another may live at its address
/// now, if nobody saw it being made. `tgid` is the current process; what is known of the socket then.
#[inline(always)]
pub(crate) fn asked(sk: Sock, inode: u64, tgid: u32) -> Option<&'static mut Conn> {
    match conn(sk.0) {
        Some(conn) if conn.owner.tgid == tgid && conn.inode == inode => Some(conn),
        Some(_) | None => {
            touched(sk.0, u32::from(VIA_QUERY));
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
            conn.owner = current(VIA_ACCEPT);
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
        used(sk, VIA_ACCEPT);
    }
}

/// A socket that a listener gave birth to belongs to the listener's owner until it is accepted.
#[inline(always)]
pub(crate) fn child(sk: Sock, state: u32) -> Conn {
    let mut owner = Owner::NONE;
    if let Some(known) = listener_key(sk).and_then(listener).and_then(conn) {
        owner = known.owner;
        owner.via = VIA_LISTENER;
    }
    let mut conn = newborn(state | CONN_UNACCEPTED, owner, 0);
    conn.connect_ns = conn.born_ns;
    conn
}

/// Network namespace and local port in one word.
#[inline(always)]
fn listener_key(sk: Sock) -> Option<u64> {
    let netns = sk.netns().ok()?;
    let port = sk.local_port().ok()?;
    (port != 0).then_some(u64::from(netns) << 16 | u64::from(port))
}

/// Remembers a listener.
#[inline(always)]
pub(crate) fn listens(sk: Sock) {
    if let Some(key) = listener_key(sk)
        && LISTENERS.insert(key, sk.0, 0).is_err()
    {
        emit::count_fallback(counter::UNFOLLOWED);
    }
}

/// True if this TCP socket was born of a listener of MPTCP.
#[inline(always)]
pub(crate) fn has_mptcp_listener(sk: Sock) -> bool {
    listener_key(sk).and_then(listener).is_some()
}

/// Forgets a listener that listens no more.
#[inline(always)]
pub(crate) fn listens_no_more(sk: Sock) {
    if let Some(key) = listener_key(sk)
        && listener(key) == Some(sk.0)
    {
        let _gone = LISTENERS.remove(key);
    }
}

/// The socket is no more: its address may be given to another. If something was said of it, its end is told, so
/// that whoever reads knows that nothing more will come.
#[inline(always)]
pub(crate) fn gone(sk: Sock) {
    const SPOKEN_OF: u32 = CONN_ASKED | CONN_FELL | CONN_EXISTING;
    if let Some(conn) = conn(sk.0)
        && conn.state & SPOKEN_OF != 0
        && !is_tracer(&conn.owner)
    {
        emit::count_fallback(counter::SEEN);
        tell::connection(KIND_CLOSED, sk.0, 0, 0);
    }
    let _unknown = CONNS.remove(sk.0);
    let _unknown = FALLEN.remove(sk.0);
}
