//! Reports which connection fell back to TCP, when, and the evidence of its cause.
//!
//! If the kernel has `__mptcp_try_fallback`, that function's argument is the cause. Otherwise the
//! functions that can set the fallback bit are probed; the innermost one that finds the bit newly
//! set reports the fallback. If no function can be probed, tracepoints next to the decisions
//! predict or detect it.
//!
//! Each connection is reported once, by the probe that inserts it into `FALLEN`.

mod decision;
mod edge;
mod life;
mod listed;
mod path;

pub(crate) use life::life_returns;

use aya_ebpf::bindings::BPF_NOEXIST;
use mptcp_trace_common::{
    calibrated, counter,
    map_values::Conn,
    record::{ConnState, EvidenceBits, Kind, NO_MIB, Site, SubflowBits},
};

use super::{
    connection_record::{self, site_and_cause},
    packet,
};
use crate::{
    emit,
    entry::{Entry, get, set},
    kernel::{Sock, now_ns, opaque, subflow_bits},
    maps::{CALIBRATED, FALLBACK_COUNTERS, FALLEN, FALLEN_UNTRACKED, conn, untracked_since},
};

/// `TCP_*` of `include/net/tcp_states.h`, part of the kernel's UAPI.
const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const SYN_RECV: u32 = 3;
const FIN_WAIT1: u32 = 4;
const CLOSE: u32 = 7;
const LAST_ACK: u32 = 9;
pub(crate) const LISTEN: u32 = 10;

/// The flags SYN and ACK of a TCP header (RFC 9293 section 3.1).
const SYN_ACK: u32 = 0x12;

pub(crate) const EEXIST: i32 = -17;

/// Whether the fallback bit of a connection is set; `None` while the number of the bit is unknown.
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

/// Reports a fallback observed at `now`, unless it was reported before. `origin` is the context of
/// the program, if it runs while a packet is processed that may have decided, or that packet; else 0.
#[inline(never)]
fn report(msk: u64, site: u32, mib: i32, now: u64, origin: u64) -> u32 {
    match insert_fallen(msk, now) {
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
    if origin != 0
        && let Some(first) = sk.first_subflow()
        && (site != u32::from(Site::HANDSHAKE.0) || asked_for_mptcp(first))
    {
        let flags = match site == u32::from(Site::HANDSHAKE.0) {
            true => SYN_ACK,
            false => 0,
        };
        packet::emit_in_progress(&FALLBACK_COUNTERS, origin, first, sk, now, flags);
    }
    let mut kind = Kind::FALLBACK;
    match conn(msk) {
        Some(conn) => {
            let mut state = get!(conn, state) | ConnState::FELL;
            set!(conn, state, state);
            // During connect() the connection has no addresses yet: the report waits for them.
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
        Kind(opaque(kind.0)),
        msk,
        site_and_cause(Site(site as u8), mib, false),
        now,
    ) == 0
    {
        // The loss was counted; the next probe that looks at the connection reports it again.
        forget_fallen(msk);
    }
    0
}

/// True if the last SYN of a client had MPTCP: then it is the SYN/ACK that decides.
#[inline(always)]
fn asked_for_mptcp(subflow: Sock) -> bool {
    subflow
        .subflow_context()
        .is_some_and(|context| subflow_bits(context).contains(SubflowBits::REQUEST_MPTCP))
}

/// Marks a connection as fallen back; [`EEXIST`] if it was marked before.
#[inline(always)]
fn insert_fallen(msk: u64, now: u64) -> Result<(), i32> {
    let once = u64::from(BPF_NOEXIST);
    if conn(msk).is_some() {
        match FALLEN.insert(msk, now, once) {
            Ok(()) => return Ok(()),
            Err(EEXIST) => return Err(EEXIST),
            // This table is full; the other one evicts an entry to make room.
            Err(_full) => {}
        }
    }
    FALLEN_UNTRACKED.insert(msk, now, once)
}

/// True if the connection is marked as fallen back.
#[inline(always)]
fn is_in_fallen(msk: u64) -> bool {
    FALLEN.get_ptr(msk).is_some() || untracked_since(msk).is_some()
}

/// Removes the mark that a connection fell back.
#[inline(always)]
fn forget_fallen(msk: u64) {
    let _none = FALLEN.remove(msk);
    let _none = FALLEN_UNTRACKED.remove(msk);
}

/// Reports a fallback that the kernel did not allow: the subflow is reset, if it is known which (else
/// 0).
#[inline(always)]
fn report_refused(msk: Sock, site: Site, mib: i32, subflow: u64) {
    emit::count_fallback(counter::SEEN);
    let what = site_and_cause(site, mib, true);
    connection_record::emit_of_path(Kind::FALLBACK, msk.0, what, 0, subflow);
}

/// Reports a pending fallback.
#[inline(always)]
fn flush_pending(msk: Sock) {
    if let Some(conn) = conn(msk.0)
        && let state = get!(conn, state)
        && state.contains(ConnState::PENDING)
    {
        set!(conn, state, state.difference(ConnState::PENDING));
        let what = site_and_cause(get!(conn, pending_site), get!(conn, pending_mib), false);
        let since = get!(conn, waits_since_or_at);
        connection_record::emit(Kind::FALLBACK, msk.0, what, since);
    }
}

/// The origin of a report where no packet is processed.
#[inline(always)]
pub(crate) fn no_packet() -> u64 {
    0
}

/// Reports the connection if it has fallen back unobserved. `origin` returns that of [`report`], and is
/// only called then.
#[inline(always)]
pub(crate) fn look(msk: Sock, site: Site, origin: impl FnOnce() -> u64) {
    look_at(msk, site, now_ns(), origin);
}

#[inline(always)]
fn look_at(msk: Sock, site: Site, now: u64, origin: impl FnOnce() -> u64) {
    let fallen = fell_back(msk);
    if fallen == Some(false) && is_in_fallen(msk.0) {
        // connect(AF_UNSPEC) cleared the bit: the next fallback is a new one.
        forget_fallen(msk.0);
    }
    if fallen == Some(true) && !is_in_fallen(msk.0) {
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
        report(msk.0, u32::from(site.0), NO_MIB, now, origin());
    }
}

/// [`look`] for a query at `queried_ns`: a fallback that is found happened before the query. For a
/// connection that never fell back, the lookup in `FALLEN` is skipped.
#[inline(always)]
pub(crate) fn look_at_query(msk: Sock, flags: u64, known: Option<Entry<Conn>>, queried_ns: u64) {
    let may_be_known = known.is_none_or(|conn| get!(conn, state).contains(ConnState::FELL));
    if may_be_known || says_fallen(flags) == Some(true) {
        look_at(msk, Site::LATER, queried_ns.saturating_sub(1), no_packet);
    }
}

/// Adds to the evidence about a connection.
#[inline(always)]
fn add_evidence(msk: Sock, evidence: EvidenceBits) {
    if let Some(conn) = conn(msk.0) {
        set!(conn, evidence, get!(conn, evidence) | evidence);
    }
}
