//! Which connection fell back to TCP, when, and what was observed of the cause?
//!
//! If the kernel has `__mptcp_try_fallback`, that function's argument is the cause. Otherwise the
//! edge of the fallback bit is detected at the functions that can set it; the innermost of them
//! reports it. If no function can be probed, tracepoints next to the decisions predict or detect
//! it.
//!
//! Each connection is reported once: by the probe that enters it into `FALLEN`.

mod decision;
mod edge;
mod life;
mod listed;
mod path;

pub(crate) use life::life_returns;

use aya_ebpf::bindings::BPF_NOEXIST;
use mptcp_trace_common::{
    calibrated, counter,
    record::{ConnState, EvidenceBits, Kind, NO_MIB, Site},
    state::Conn,
};

use super::connection_record::{self, where_and_why};
use crate::{
    emit,
    entry::{Entry, get, set},
    kernel::{Sock, forgotten, now_ns},
    maps::{CALIBRATED, FALLEN, FALLEN_UNNOTED, conn, unnoted_since},
};

/// `TCP_*` of `include/net/tcp_states.h`, part of the kernel's UAPI.
const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const SYN_RECV: u32 = 3;
const FIN_WAIT1: u32 = 4;
const CLOSE: u32 = 7;
const LAST_ACK: u32 = 9;
pub(crate) const LISTEN: u32 = 10;

pub(crate) const EEXIST: i32 = -17;

/// Whether the state bit of a connection is set; `None` if its number is not known (yet).
#[inline(always)]
pub(crate) fn fell_back(msk: Sock) -> Option<bool> {
    says_fallen(msk.msk_flags().ok()?)
}

/// Variant for state bits that were read already.
#[inline(always)]
pub(crate) fn says_fallen(flags: u64) -> Option<bool> {
    let number = *CALIBRATED.get(calibrated::FALLBACK_BIT)?;
    if number == 0 || number > 64 {
        return None;
    }
    Some(flags >> (number - 1) & 1 == 1)
}

/// Reports a fallback observed at `now`, unless it was reported before.
#[inline(never)]
fn report(msk: u64, site: u32, mib: i32, now: u64) -> u32 {
    match enter_fallen(msk, now) {
        Ok(()) => {}
        Err(EEXIST) => return 0,
        Err(_errno) => {
            emit::count_fallback(counter::SEEN);
            emit::count_fallback(counter::TABLE_FULL);
            return 0;
        }
    }
    emit::count_fallback(counter::SEEN);
    let sk = Sock(msk);
    let mut kind = Kind::FALLBACK;
    match conn(msk) {
        Some(conn) => {
            let mut state = get!(conn, state) | ConnState::FELL;
            set!(conn, state, state);
            // In the middle of connect() the connection has no addresses yet: its report waits for
            // them.
            if sk.state().is_ok_and(|state| u32::from(state) == SYN_SENT)
                && sk
                    .first_subflow()
                    .is_some_and(|it| it.state().is_ok_and(|state| u32::from(state) == CLOSE))
            {
                set!(conn, waits_since_or_at, now);
                set!(conn, pending_site, Site(site as u8));
                set!(conn, pending_mib, mib);
                state |= ConnState::PENDING;
                set!(conn, state, state);
                return 0;
            }
            if site == u32::from(Site::LATER.0) && state.contains(ConnState::UNSEEN_BIRTH) {
                kind = Kind::EXISTING;
            }
        }
        // Once all sockets open at the start are listed, an unknown one was created later.
        None if site == u32::from(Site::LATER.0)
            && CALIBRATED
                .get(calibrated::LISTED)
                .is_none_or(|listed| *listed == 0) =>
        {
            kind = Kind::EXISTING;
        }
        None => {}
    }
    if connection_record::emit(
        Kind(forgotten(kind.0)),
        msk,
        where_and_why(Site(site as u8), mib, false),
        now,
    ) == 0
    {
        // The loss was counted; the next probe that looks at the connection reports it again.
        forget_fallen(msk);
    }
    0
}

/// Adds a connection to those that fell back; [`EEXIST`] if it is among them already.
#[inline(always)]
fn enter_fallen(msk: u64, now: u64) -> Result<(), i32> {
    let once = u64::from(BPF_NOEXIST);
    if conn(msk).is_some() {
        match FALLEN.insert(msk, now, once) {
            Ok(()) => return Ok(()),
            Err(EEXIST) => return Err(EEXIST),
            // That table is full: the other one evicts an entry.
            Err(_full) => {}
        }
    }
    FALLEN_UNNOTED.insert(msk, now, once)
}

/// True if the connection is among those that fell back.
#[inline(always)]
fn is_entered(msk: u64) -> bool {
    FALLEN.get_ptr(msk).is_some() || unnoted_since(msk).is_some()
}

/// Removes a connection from those that fell back.
#[inline(always)]
fn forget_fallen(msk: u64) {
    let _none = FALLEN.remove(msk);
    let _none = FALLEN_UNNOTED.remove(msk);
}

/// Reports a fallback that the kernel did not allow: the subflow is reset.
#[inline(always)]
fn report_refused(msk: Sock, site: Site, mib: i32) {
    emit::count_fallback(counter::SEEN);
    connection_record::emit(Kind::FALLBACK, msk.0, where_and_why(site, mib, true), 0);
}

/// Reports a pending fallback.
#[inline(always)]
fn flush_pending(msk: Sock) {
    if let Some(conn) = conn(msk.0)
        && let state = get!(conn, state)
        && state.contains(ConnState::PENDING)
    {
        set!(conn, state, state.difference(ConnState::PENDING));
        let what = where_and_why(get!(conn, pending_site), get!(conn, pending_mib), false);
        let since = get!(conn, waits_since_or_at);
        connection_record::emit(Kind::FALLBACK, msk.0, what, since);
    }
}

/// Checks whether a connection has fallen back unobserved.
#[inline(always)]
pub(crate) fn look(msk: Sock, site: Site) {
    look_at(msk, site, now_ns());
}

#[inline(always)]
fn look_at(msk: Sock, site: Site, now: u64) {
    let fallen = fell_back(msk);
    if fallen == Some(false) && is_entered(msk.0) {
        // connect(AF_UNSPEC) cleared the bit: the next fallback is a new one.
        forget_fallen(msk.0);
    }
    if fallen == Some(true) && !is_entered(msk.0) {
        let mut site = site;
        if conn(msk.0).is_none() {
            // The connection is not tracked, so the time of its fallback is unknown. Without an
            // open file it matters to no process, and is not reported.
            if msk.state().is_ok_and(|state| u32::from(state) == CLOSE) || msk.inode().is_err() {
                return;
            }
            // At the end of the handshake the time is known, tracked or not.
            if site != Site::HANDSHAKE {
                site = Site::LATER;
            }
        }
        report(msk.0, u32::from(site.0), NO_MIB, now);
    }
}

/// Variant for a query at `asked_ns`: a fallback happened before that. A connection that never fell
/// back is not looked up among those that did.
#[inline(always)]
pub(crate) fn look_when_asked(msk: Sock, flags: u64, known: Option<Entry<Conn>>, asked_ns: u64) {
    let is_told = known.is_none_or(|conn| get!(conn, state).contains(ConnState::FELL));
    if is_told || says_fallen(flags) == Some(true) {
        look_at(msk, Site::LATER, asked_ns.saturating_sub(1));
    }
}

/// Adds to the evidence about a connection.
#[inline(always)]
fn add_evidence(msk: Sock, evidence: EvidenceBits) {
    if let Some(conn) = conn(msk.0) {
        set!(conn, evidence, get!(conn, evidence) | evidence);
    }
}
