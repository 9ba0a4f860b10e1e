//! Records about paths -> observations, with why a path failed or ended.

mod options;
mod why;

use std::{borrow::Cow, time::Duration};

use mptcp_trace_common::record::{
    ConnState, ConnectionBits, ContextBits, JoinAnswer, Kind, PathEvents, PathFlags, PathRecord,
    PathSite,
};

use self::why::Seen;
use super::{
    DecodeError, Observation, address, connection::owner, family_of, known_ns, marks, rung_of,
};
use crate::model::{
    ConnectionId, Ledger, Path, PathId, PathKind, PathManager, PathRole, Protocol, Socket,
    SocketId, TcpState,
};

/// Decodes a [`PathRecord`].
pub(super) fn path(record: &PathRecord) -> Result<Observation, DecodeError> {
    let seen = Seen::of(record);
    let has = |flag| record.flags.contains(flag);
    let at = Duration::from_nanos(record.boottime_ns);
    let began_at = known_ns(record.path_born_ns);
    let kind = kind(record, &seen)?;
    let why = seen.why(kind)?;
    let path = Path {
        kind,
        at,
        path: (record.path != 0).then(|| PathId {
            socket: SocketId(record.path),
            began_at: began_at.unwrap_or_default(),
        }),
        connection: (record.socket != 0).then(|| ConnectionId {
            socket: SocketId(record.socket),
            born_at: Duration::from_nanos(record.born_ns),
            attempt: 0,
        }),
        socket: socket(record)?,
        netns_cookie: record.netns_cookie,
        owner: owner(&record.owner)?,
        unaccepted: record.conn_state.contains(ConnState::UNACCEPTED),
        admitted: has(PathFlags::ADMITTED),
        removed_ids: removed_ids(record),
        role: seen.role,
        side: seen.side,
        local_id: u8::try_from(record.local_id).ok(),
        remote_id: remote_id(record),
        backup_here: seen.is(ContextBits::REQUEST_BACKUP),
        backup_peer: match record.kind {
            Kind::PATH_BACKUP => true,
            Kind::PATH_REGULAR => false,
            _ => seen.is(ContextBits::BACKUP),
        },
        is_mptcp: seen.role == PathRole::Join || seen.is(ContextBits::MP_CAPABLE),
        began_at,
        up_at: known_ns(record.up_ns),
        was_reported_up: has(PathFlags::WAS_UP),
        cause: why.cause.map(Cow::Borrowed),
        known: why.known,
        decided_by: why.decided_by,
        reset: why.reset,
        rst_received: record.events.contains(PathEvents::RST_RECEIVED),
        rst_sent: record.events.contains(PathEvents::RST_SENT),
        errno: seen
            .errno()
            .filter(|_| kind != PathKind::Up && record.kind != Kind::ADDRESS_RECEIVED),
        ledger: has(PathFlags::LEDGER).then(|| ledger(record)),
        manager: has(PathFlags::MANAGER).then(|| manager(record)),
        token: match record.token {
            0 => seen.rst.token.unwrap_or(0),
            token => token,
        },
        marks: marks(&record.marks),
        is_stale: seen.is(ContextBits::STALE),
        existing: has(PathFlags::EXISTING),
        late: record.site == PathSite::SCAN,
        rung: rung_of(record.rung)?,
    };
    if record.site == PathSite::READING {
        return Ok(Observation::PathReading(Box::new(path)));
    }
    Ok(if has(PathFlags::BY_TRACER) {
        Observation::CanaryPath(Box::new(path))
    } else {
        Observation::Path(Box::new(path))
    })
}

/// The ends of a path, with the connection's socket.
fn socket(record: &PathRecord) -> Result<Socket, DecodeError> {
    let family = family_of(record.family)?;
    let has_inode = record.flags.contains(PathFlags::INODE);
    Ok(Socket {
        id: SocketId(record.socket),
        inode: has_inode.then_some(record.inode),
        netns: record.netns,
        protocol: Protocol::Mptcp,
        family,
        state: match record.kind {
            Kind::JOIN_FAILED => TcpState(0),
            _ => TcpState(record.old_state),
        },
        local: address(family, record.local_addr, record.local_port),
        remote: address(
            family,
            record.remote_addr,
            u16::from_be(record.remote_port_be),
        ),
    })
}

/// The peer's address id, if it is known.
fn remote_id(record: &PathRecord) -> Option<u8> {
    let is_known = match record.kind {
        Kind::JOIN_FAILED => match record.site {
            // Only a packet was seen.
            PathSite::RESET
            | PathSite::NO_LISTENER
            | PathSite::COOKIE
            | PathSite::PLAIN_REQUEST => false,
            PathSite::THIRD_ACK => !JoinAnswer::from_bits_retain(record.old_state.into())
                .contains(JoinAnswer::NO_CONTEXT),
            PathSite(_) => true,
        },
        Kind::ADDRESS_RECEIVED => true,
        _ => record.flags.contains(PathFlags::CONTEXT),
    };
    is_known.then_some(record.remote_id)
}

fn kind(record: &PathRecord, seen: &Seen<'_>) -> Result<PathKind, DecodeError> {
    Ok(match record.kind {
        Kind::PATH_UP => PathKind::Up,
        Kind::PATH_OPEN => PathKind::Open,
        Kind::JOIN_FAILED => PathKind::Failed,
        Kind::PATH_STALE => PathKind::Stale,
        Kind::PATH_RECOVERED => PathKind::Recovered,
        Kind::PATH_BACKUP | Kind::PATH_REGULAR | Kind::PATH_OWN_PRIORITY => PathKind::Priority,
        Kind::ADDRESS_RECEIVED => received(record),
        Kind::ADDRESS_ANNOUNCED => PathKind::AddressAnnounced,
        Kind::ADDRESS_ECHOED => PathKind::AddressEchoed,
        Kind::ADDRESS_REMOVED | Kind::ADDRESS_REMOVED_BY_PEER => PathKind::AddressRemoved,
        Kind::PATH_ENDED => match seen.role {
            _ if seen.was_up() => PathKind::Down,
            PathRole::Join => PathKind::Failed,
            PathRole::First => PathKind::ConnectFailed,
        },
        Kind(other) => return Err(DecodeError::Kind(other)),
    })
}

/// What becomes of an address that the peer announced (`mptcp_pm_add_addr_received`).
fn received(record: &PathRecord) -> PathKind {
    /// `MPTCP_PM_ADD_ADDR_RECEIVED` of `enum mptcp_pm_status`: an earlier one is waiting.
    const WAITS: i32 = 1;
    match () {
        () if record.error & WAITS != 0 => PathKind::AddressDropped,
        () if record.manager.kind == 0 && record.manager.accept_addr == 0 => {
            PathKind::AddressOverLimit
        }
        () => PathKind::AddressAnnounced,
    }
}

/// Ids of the addresses that a record says are removed.
fn removed_ids(record: &PathRecord) -> Vec<u8> {
    match record.kind {
        Kind::ADDRESS_REMOVED | Kind::ADDRESS_REMOVED_BY_PEER => record
            .options
            .iter()
            .take(usize::from(record.options_len).min(REMOVED_MAX))
            .copied()
            .collect(),
        _ => Vec::new(),
    }
}

/// At most this many addresses are removed at once (`MPTCP_RM_IDS_MAX`).
const REMOVED_MAX: usize = 8;

fn ledger(record: &PathRecord) -> Ledger {
    let it = &record.ledger;
    let micros = |us: u32| (us != 0 && us != u32::MAX).then(|| Duration::from_micros(us.into()));
    // A SYN or FIN of the peer counts as a byte.
    let fin = u64::from(fin_received(record));
    Ledger {
        bytes_sent: it.bytes_sent.saturating_sub(it.bytes_retrans),
        bytes_retransmitted: it.bytes_retrans,
        bytes_received: it.bytes_received.saturating_sub(fin),
        retransmissions: it.total_retrans,
        segments_sent: it.segs_out,
        segments_received: it.segs_in,
        rtt: (it.srtt_8us != 0).then(|| Duration::from_nanos(u64::from(it.srtt_8us) * 125)),
        rtt_min: micros(it.rtt_min_us),
    }
}

/// True if the peer's FIN arrived, by the state that the socket had.
fn fin_received(record: &PathRecord) -> bool {
    const CLOSE_WAIT: u8 = 8;
    const LAST_ACK: u8 = 9;
    const CLOSING: u8 = 11;
    const TIME_WAIT: u8 = 6;
    const FIN_WAIT2: u8 = 5;
    // From FIN_WAIT2 a socket is closed by the FIN, unless it is reset or times out.
    matches!(
        record.old_state,
        CLOSE_WAIT | LAST_ACK | CLOSING | TIME_WAIT
    ) || record.old_state == FIN_WAIT2
        && record.kind == Kind::PATH_ENDED
        && record.error == 0
        && record.first_event.is_empty()
}

fn manager(record: &PathRecord) -> PathManager {
    let it = &record.manager;
    PathManager {
        in_userspace: it.kind != 0,
        accepts_paths: it.accept_subflow != 0,
        accepts_addresses: it.accept_addr != 0,
        peer_denies_id0: it.remote_deny_join_id0 != 0,
        established: record
            .connection
            .contains(ConnectionBits::FULLY_ESTABLISHED),
        has_work: it.work_pending != 0,
        addresses_accepted: it.add_addr_accepted,
        addresses_used: it.local_addr_used,
        extra_paths: it.extra_subflows,
    }
}

#[cfg(test)]
mod tests;
