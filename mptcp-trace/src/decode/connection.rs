//! Records about connections -> observations, with the cause.

use std::{borrow::Cow, mem::offset_of, time::Duration};

use mptcp_trace_common::record::{
    ADMITTED, BY_TRACER, CONN_ACTIVE, CONN_CONNECTING, CONN_EXISTING, CONN_OFF_UNREAD,
    CONN_RECORD_BYTES_V1, CONN_RECORD_BYTES_V2, CONN_TCP, CONN_UNACCEPTED, CONN_UNSEEN_BIRTH,
    CONN_UNTOLD, CONN_UNWATCHED, CONN_VALID_BYTES, CONN_VALID_FLAGS, CONN_VALID_OFF,
    CONN_VALID_SUBFLOW, CONN_VALID_SUBFLOWS, ConnRecord, EVIDENCE_BAD_CHECKSUM,
    EVIDENCE_INFINITE_RECEIVED, EVIDENCE_INFINITE_SENT, EVIDENCE_INVALID_MAPPING,
    EVIDENCE_MP_FAIL_RECEIVED, EVIDENCE_MP_FAIL_SENT, EVIDENCE_NO_DSS, EVIDENCE_SIMULTANEOUS,
    KIND_ACCEPTED, KIND_BLACKHOLE, KIND_CLOSED, KIND_EXISTING, KIND_FALLBACK, KIND_TCP_CHILD,
    NO_MIB, Owner as OwnerRecord, REFUSED, SITE_ACTIVE_DISABLE, SITE_CONNECT, SITE_DATA_AVAILABLE,
    SITE_DETECT_BLACKHOLE, SITE_DROPPED_CONTEXT, SITE_DSS_CORRUPTION, SITE_HANDSHAKE, SITE_LATER,
    SITE_LISTED, SITE_NO_CONTEXT, SITE_SIMULTANEOUS, SITE_TCP_CHILD, SITE_TRY_FALLBACK,
    SUBFLOW_CHECKSUMS, SUBFLOW_MP_CAPABLE, SUBFLOW_MPC_DROP, SUBFLOW_REMOTE_KEY,
    SUBFLOW_REQUEST_MPTCP, SUBFLOW_SERVER_SIDE, SUBFLOW_SIDE_KNOWN, VALID_INODE, VIA_ACCEPT,
    VIA_CONNECT, VIA_EXISTING, VIA_IO, VIA_LISTEN, VIA_LISTENER, VIA_QUERY, VIA_SOCKET,
};

use super::{
    DecodeError, Observation, address, as_on_host, comm, fallen, family_of, number, protocol_of,
    rung_of, sixteen,
};
use crate::model::{
    CauseCertainty, Change, ChangeKind, Connection, ConnectionId, ConnectionKind, Current,
    Evidence, Facts, Owner, Process, Side, Socket, SocketId, Stage, TcpState, Via, find_cause,
    name_of_enumerator,
};

macro_rules! field {
    ($bytes:expr, $ty:ty, $field:ident) => {{
        let mut value = [0; size_of::<$ty>()];
        let start = offset_of!(ConnRecord, $field);
        value.copy_from_slice(&$bytes[start..start + size_of::<$ty>()]);
        <$ty>::from_ne_bytes(value)
    }};
}

macro_rules! owner_field {
    ($bytes:expr, $ty:ty, $field:ident) => {{
        let mut value = [0; size_of::<$ty>()];
        let start = offset_of!(ConnRecord, owner) + offset_of!(OwnerRecord, $field);
        value.copy_from_slice(&$bytes[start..start + size_of::<$ty>()]);
        <$ty>::from_ne_bytes(value)
    }};
}

/// Converts a record of any version into the current layout.
fn whole_record(bytes: &[u8]) -> Result<[u8; size_of::<ConnRecord>()], DecodeError> {
    let mut whole = [0; size_of::<ConnRecord>()];
    match bytes.len() {
        length if length == whole.len() => whole.copy_from_slice(bytes),
        length @ (CONN_RECORD_BYTES_V1 | CONN_RECORD_BYTES_V2) => {
            whole[..length].copy_from_slice(bytes);
            // Older records only have ids of the initial PID namespace.
            let owner = |member| offset_of!(ConnRecord, owner) + member;
            for (host, here) in [
                (
                    owner(offset_of!(OwnerRecord, tgid)),
                    owner(offset_of!(OwnerRecord, ns_tgid)),
                ),
                (
                    owner(offset_of!(OwnerRecord, tid)),
                    owner(offset_of!(OwnerRecord, ns_tid)),
                ),
                (
                    offset_of!(ConnRecord, current_tgid),
                    offset_of!(ConnRecord, current_ns_tgid),
                ),
            ] {
                as_on_host(&mut whole, host, here);
            }
        }
        got => {
            return Err(DecodeError::Length {
                got,
                want: whole.len(),
            });
        }
    }
    Ok(whole)
}

/// The observations from which a cause is inferred.
fn sighting(bytes: &[u8]) -> Sighting {
    let (valid, state) = (field!(bytes, u32, valid), field!(bytes, u32, conn_state));
    let (has, is) = (|bit| valid & bit != 0, |bit| state & bit != 0);
    let flags = has(CONN_VALID_SUBFLOW).then(|| field!(bytes, u32, subflow_flags));
    let side = side(field!(bytes, u32, subflow_flags), state);
    Sighting {
        site: bytes[offset_of!(ConnRecord, site)],
        mib: field!(bytes, i32, mib),
        flags,
        side,
        evidence: field!(bytes, u32, evidence),
        watched: !is(CONN_EXISTING) && !is(CONN_UNSEEN_BIRTH) && !is(CONN_UNWATCHED),
        // Older records do not have it; they come from kernels on which MPTCP was disabled if the
        // counter existed.
        is_off: match (has(CONN_VALID_OFF), has(CONN_OFF_UNREAD)) {
            (true, _) => Some(field!(bytes, u32, off_ms) != 0),
            (false, true) => None,
            (false, false) => Some(true),
        },
    }
}

/// True if nothing has opened a connection: only its socket exists.
fn is_bare(kind: ConnectionKind, state: TcpState) -> bool {
    kind == ConnectionKind::Existing && matches!(state, TcpState::CLOSE | TcpState::LISTEN)
}

/// Decodes a [`ConnRecord`].
pub(super) fn connection(bytes: &[u8], facts: &Facts) -> Result<Observation, DecodeError> {
    let whole = whole_record(bytes)?;
    let bytes = &whole[..];
    let valid = field!(bytes, u32, valid);
    let has = |bit: u32| valid & bit == bit;
    let conn_state = field!(bytes, u32, conn_state);
    let is = |bit: u32| conn_state & bit == bit;
    let kind = match field!(bytes, u32, kind) {
        KIND_FALLBACK if has(REFUSED) => ConnectionKind::FallbackDenied,
        KIND_FALLBACK => ConnectionKind::Fallback,
        KIND_TCP_CHILD => ConnectionKind::Plain,
        KIND_ACCEPTED => return change(bytes, ChangeKind::Accepted),
        KIND_EXISTING => ConnectionKind::Existing,
        KIND_BLACKHOLE => ConnectionKind::Blackhole,
        KIND_CLOSED => return change(bytes, ChangeKind::Closed),
        other => return Err(DecodeError::Kind(other)),
    };
    let fell_back = has(CONN_VALID_FLAGS)
        .then(|| fallen(field!(bytes, u64, msk_flags), facts))
        .flatten();
    let sighting = sighting(bytes);
    let (cause, known) = match kind {
        ConnectionKind::Fallback | ConnectionKind::FallbackDenied => conclude(&sighting, facts)?,
        ConnectionKind::Existing if fell_back == Some(true) => conclude(&sighting, facts)?,
        ConnectionKind::Plain => (None, plain_known(sighting.site)?),
        ConnectionKind::Existing | ConnectionKind::Blackhole => (None, CauseCertainty::Unknown),
    };
    let at = Duration::from_nanos(field!(bytes, u64, boottime_ns));
    let socket = socket(bytes, has(VALID_INODE))?;
    let connect_ns = field!(bytes, u64, connect_ns);
    let connection = Connection {
        kind,
        at,
        id: id(bytes),
        side: sighting.side.filter(|_| !is_bare(kind, socket.state)),
        socket,
        netns_cookie: field!(bytes, u64, netns_cookie),
        owner: owner(bytes)?,
        unaccepted: is(CONN_UNACCEPTED),
        admitted: has(ADMITTED),
        stage: cause
            .as_deref()
            .and_then(stage)
            .or_else(|| plain_stage(sighting.site)),
        cause,
        known,
        since_connect: (connect_ns != 0)
            .then(|| at.saturating_sub(Duration::from_nanos(connect_ns))),
        bytes: has(CONN_VALID_BYTES).then(|| {
            (
                field!(bytes, u64, bytes_sent),
                field!(bytes, u64, bytes_received),
            )
        }),
        subflows: subflows(bytes, valid),
        evidence: evidence(sighting.evidence),
        untold: is(CONN_UNTOLD),
        connecting: is(CONN_CONNECTING),
        existing: kind == ConnectionKind::Existing || is(CONN_EXISTING) || is(CONN_UNSEEN_BIRTH),
        fell_back,
        late: sighting.site == SITE_LATER,
        current: Current {
            pid: match field!(bytes, u32, current_tgid) {
                // The idle task is the same in every namespace.
                0 => Some(0),
                _ => number(field!(bytes, u32, current_ns_tgid)),
            },
            host_pid: field!(bytes, u32, current_tgid),
            comm: comm(sixteen(bytes, offset_of!(ConnRecord, current_comm))),
        },
        off_for: (has(CONN_VALID_OFF) && kind == ConnectionKind::Blackhole)
            .then(|| Duration::from_millis(field!(bytes, u32, off_ms).into())),
        rung: rung_of(bytes[offset_of!(ConnRecord, rung)])?,
    };
    Ok(if has(BY_TRACER) {
        Observation::CanaryConnection(Box::new(connection))
    } else {
        Observation::Connection(Box::new(connection))
    })
}

/// Owner or end of a connection.
fn change(bytes: &[u8], kind: ChangeKind) -> Result<Observation, DecodeError> {
    let valid = field!(bytes, u32, valid);
    let state = field!(bytes, u32, conn_state);
    let change = Change {
        kind,
        at: Duration::from_nanos(field!(bytes, u64, boottime_ns)),
        id: id(bytes),
        socket: socket(bytes, valid & VALID_INODE != 0)?,
        owner: owner(bytes)?,
        admitted: valid & ADMITTED != 0,
        untold: state & CONN_UNTOLD != 0,
        connecting: state & CONN_CONNECTING != 0,
    };
    Ok(match valid & BY_TRACER {
        0 => Observation::Change(Box::new(change)),
        _ => Observation::CanaryChange(Box::new(change)),
    })
}

fn id(bytes: &[u8]) -> ConnectionId {
    ConnectionId {
        socket: SocketId(field!(bytes, u64, socket)),
        born_at: Duration::from_nanos(field!(bytes, u64, born_ns)),
        attempt: 0,
    }
}

/// The kernel does not count the first subflow among the others.
fn subflows(bytes: &[u8], valid: u32) -> Option<u16> {
    if valid & CONN_VALID_SUBFLOWS == 0 {
        return None;
    }
    let extra = u16::from(bytes[offset_of!(ConnRecord, extra_subflows)]);
    let first = TcpState(bytes[offset_of!(ConnRecord, subflow_state)]);
    let has_first = first != TcpState(0) && first != TcpState::CLOSE;
    Some(extra + u16::from(has_first))
}

fn socket(bytes: &[u8], has_inode: bool) -> Result<Socket, DecodeError> {
    let family = family_of(field!(bytes, u16, family))?;
    Ok(Socket {
        id: SocketId(field!(bytes, u64, socket)),
        inode: has_inode.then(|| field!(bytes, u64, inode)),
        netns: field!(bytes, u32, netns),
        protocol: protocol_of(field!(bytes, u16, protocol))?,
        family,
        state: TcpState(bytes[offset_of!(ConnRecord, state)]),
        local: address(
            family,
            sixteen(bytes, offset_of!(ConnRecord, local_addr)),
            field!(bytes, u16, local_port),
        ),
        remote: address(
            family,
            sixteen(bytes, offset_of!(ConnRecord, remote_addr)),
            u16::from_be(field!(bytes, u16, remote_port_be)),
        ),
    })
}

fn owner(bytes: &[u8]) -> Result<Option<Owner>, DecodeError> {
    let host_pid = owner_field!(bytes, u32, tgid);
    if host_pid == 0 {
        return Ok(None);
    }
    let owner = offset_of!(ConnRecord, owner);
    let via = match bytes[owner + offset_of!(OwnerRecord, via)] {
        VIA_SOCKET => Via::Socket,
        VIA_CONNECT => Via::Connect,
        VIA_LISTEN => Via::Listen,
        VIA_ACCEPT => Via::Accept,
        VIA_IO => Via::Io,
        VIA_QUERY => Via::Query,
        VIA_LISTENER => Via::Listener,
        VIA_EXISTING => Via::Existing,
        other => return Err(DecodeError::Field("way to the owner", other.into())),
    };
    Ok(Some(Owner {
        process: Process {
            pid: number(owner_field!(bytes, u32, ns_tgid)),
            tid: number(owner_field!(bytes, u32, ns_tid)),
            host_pid,
            host_tid: owner_field!(bytes, u32, tid),
            uid: owner_field!(bytes, u32, uid),
            cgroup_id: owner_field!(bytes, u64, cgroup_id),
            comm: comm(sixteen(bytes, owner + offset_of!(OwnerRecord, comm))),
        },
        via,
    }))
}

/// The connection's own flag, else the observed beginning.
fn side(flags: u32, conn_state: u32) -> Option<Side> {
    if flags & SUBFLOW_SIDE_KNOWN != 0 {
        return Some(if flags & SUBFLOW_SERVER_SIDE != 0 {
            Side::Passive
        } else {
            Side::Active
        });
    }
    match (conn_state & CONN_ACTIVE != 0, conn_state & CONN_TCP != 0) {
        (true, _) => Some(Side::Active),
        (false, true) => Some(Side::Passive),
        (false, false) => None,
    }
}

fn evidence(bits: u32) -> Vec<Evidence> {
    [
        (EVIDENCE_BAD_CHECKSUM, Evidence::BadChecksum),
        (EVIDENCE_NO_DSS, Evidence::NoDss),
        (EVIDENCE_INVALID_MAPPING, Evidence::InvalidMapping),
        (EVIDENCE_MP_FAIL_RECEIVED, Evidence::MpFailReceived),
        (EVIDENCE_MP_FAIL_SENT, Evidence::MpFailSent),
        (
            EVIDENCE_INFINITE_RECEIVED,
            Evidence::InfiniteMappingReceived,
        ),
        (EVIDENCE_INFINITE_SENT, Evidence::InfiniteMappingSent),
        (EVIDENCE_SIMULTANEOUS, Evidence::SimultaneousOpen),
    ]
    .into_iter()
    .filter(|(bit, _)| bits & bit != 0)
    .map(|(_, evidence)| evidence)
    .collect()
}

/// What a record shows about the cause.
pub(super) struct Sighting {
    pub(super) site: u8,
    pub(super) mib: i32,
    /// `SUBFLOW_*` bits of the first subflow, if there was one.
    pub(super) flags: Option<u32>,
    pub(super) side: Option<Side>,
    pub(super) evidence: u32,
    /// The connection was observed since its birth.
    pub(super) watched: bool,
    /// Whether MPTCP is, or recently was, disabled in its network namespace, if readable.
    pub(super) is_off: Option<bool>,
}

type Conclusion = (Option<Cow<'static, str>>, CauseCertainty);

const SYN_ACK: &str = "MPCapableFallbackSYNACK";
const THIRD_ACK: &str = "MPCapableFallbackACK";
const SYN_DROP: &str = "MPCapableSYNTXDrop";
const SYN_DISABLED: &str = "MPCapableSYNTXDisabled";
const TOKEN: &str = "MPFallbackTokenInit";
const SIMULTANEOUS: &str = "SimultConnectFallback";
const FIRST_DATA: &str = "MPCapableDataFallback";
const DSS: &str = "DssFallback";
const CORRUPTION: &str = "DSSCorruptionFallback";
const INFINITE: &str = "InfiniteMapTx";

/// The cause: as reported by the kernel, else inferred from the bits of the first subflow and its
/// data.
pub(super) fn conclude(sighting: &Sighting, facts: &Facts) -> Result<Conclusion, DecodeError> {
    let inferred = |name: &'static str| Ok((Some(Cow::Borrowed(name)), CauseCertainty::Inferred));
    if sighting.mib != NO_MIB {
        return Ok(named_by_kernel(sighting.mib, facts));
    }
    match sighting.site {
        SITE_TRY_FALLBACK | SITE_ACTIVE_DISABLE => Ok((None, CauseCertainty::Unknown)),
        SITE_DATA_AVAILABLE => inferred(DSS),
        SITE_DSS_CORRUPTION => inferred(CORRUPTION),
        SITE_DROPPED_CONTEXT => inferred(THIRD_ACK),
        // The state bit was found set at this site: that shows when, not why. Functions of the
        // handshake run at other times too.
        SITE_CONNECT
        | SITE_SIMULTANEOUS
        | SITE_DETECT_BLACKHOLE
        | SITE_HANDSHAKE
        | SITE_LATER
        | SITE_LISTED => Ok(match from_traces(sighting, facts) {
            Some(name) => (Some(Cow::Borrowed(name)), CauseCertainty::Inferred),
            None => (None, CauseCertainty::Unknown),
        }),
        other => Err(DecodeError::Field("site", other.into())),
    }
}

fn named_by_kernel(mib: i32, facts: &Facts) -> Conclusion {
    let enumerator = facts
        .causes
        .iter()
        .find(|(number, _)| *number == mib)
        .map(|(_, enumerator)| enumerator);
    match enumerator {
        Some(enumerator) => {
            // A cause newer than this program keeps the kernel's name.
            let name = name_of_enumerator(enumerator)
                .map_or_else(|| Cow::Owned(enumerator.clone()), Cow::Borrowed);
            (Some(name), CauseCertainty::Reported)
        }
        None => (None, CauseCertainty::Unknown),
    }
}

/// Why a connection did not request MPTCP: the kernel remembers lost SYNs with MPTCP, or no token
/// was available. If the kernel does not have such a memory, or it is empty, it was the token; if
/// its content is unknown, the cause is ambiguous.
fn refused_to_ask(sighting: &Sighting, facts: &Facts) -> Option<&'static str> {
    match (facts.counts(SYN_DISABLED), sighting.is_off) {
        (false, _) | (true, Some(false)) => Some(TOKEN),
        (true, Some(true)) => Some(SYN_DISABLED),
        (true, None) => None,
    }
}

/// Checked in the order of a connection's life: the first match is the cause, since a fallback
/// happens once.
fn from_traces(sighting: &Sighting, facts: &Facts) -> Option<&'static str> {
    let flags = sighting.flags?;
    let has = |bit: u32| flags & bit != 0;
    let seen = |bits: u32| sighting.evidence & bits != 0;
    if sighting.side == Some(Side::Active) {
        // The kernel clears its request in this case, so this comes first.
        if seen(EVIDENCE_SIMULTANEOUS) {
            return Some(SIMULTANEOUS);
        }
        if !has(SUBFLOW_REQUEST_MPTCP) {
            return if has(SUBFLOW_MPC_DROP) {
                Some(SYN_DROP)
            } else {
                refused_to_ask(sighting, facts)
            };
        }
        if !has(SUBFLOW_MP_CAPABLE) && !has(SUBFLOW_REMOTE_KEY) {
            return Some(SYN_ACK);
        }
    }
    if !has(SUBFLOW_MP_CAPABLE) {
        return Some(FIRST_DATA);
    }
    // The side that receives the MP_FAIL answers with an infinite mapping
    // (mptcp_pm_mp_fail_received).
    let complained_to = seen(EVIDENCE_MP_FAIL_RECEIVED) && !seen(EVIDENCE_MP_FAIL_SENT);
    if seen(EVIDENCE_INFINITE_SENT) || complained_to {
        return Some(INFINITE);
    }
    if seen(EVIDENCE_NO_DSS | EVIDENCE_INVALID_MAPPING | EVIDENCE_BAD_CHECKSUM) {
        return Some(DSS);
    }
    // Its data was observed, and each packet had a mapping. The remaining cause is a mapping that
    // does not match its data (mptcp_dss_corruption); with checksums, those detect it first, and
    // the remaining cause is an MP_FAIL from the peer.
    sighting.watched.then_some(if has(SUBFLOW_CHECKSUMS) {
        INFINITE
    } else {
        CORRUPTION
    })
}

/// The stage of the connection at which the cause occurs.
fn stage(cause: &str) -> Option<Stage> {
    find_cause(cause)?.stage
}

/// Whether it is known that the client did not request MPTCP.
fn plain_known(site: u8) -> Result<CauseCertainty, DecodeError> {
    match site {
        SITE_NO_CONTEXT => Ok(CauseCertainty::Inferred),
        SITE_TCP_CHILD => Ok(CauseCertainty::Unknown),
        other => Err(DecodeError::Field("site", other.into())),
    }
}

fn plain_stage(site: u8) -> Option<Stage> {
    (site == SITE_NO_CONTEXT).then_some(Stage::Syn)
}

#[cfg(test)]
mod tests;
