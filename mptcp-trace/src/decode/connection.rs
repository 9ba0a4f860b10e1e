//! Records about connections -> observations, with the cause.

use std::{borrow::Cow, time::Duration};

use mptcp_trace_common::record::{
    ConnFlags, ConnRecord, ConnState, EvidenceBits, Kind, NO_MIB, Owner as OwnerRecord, OwnerVia,
    Site, SubflowBits,
};

use super::{
    DecodeError, Observation, address, comm, fallen, family_of, known_ns, marks, number,
    protocol_of, rung_of,
};
use crate::model::{
    CauseCertainty, Change, ChangeKind, Connection, ConnectionId, ConnectionKind, Current,
    Evidence, Facts, Owner, Process, Side, Socket, SocketId, Stage, TcpState, Via, find_cause,
    name_of_enumerator,
};

/// The observations from which a cause is inferred.
fn sighting(record: &ConnRecord) -> Sighting {
    const UNWATCHED: ConnState = ConnState::EXISTING
        .union(ConnState::UNSEEN_BIRTH)
        .union(ConnState::UNWATCHED);
    let has = |flag| record.flags.contains(flag);
    Sighting {
        site: record.site,
        mib: record.mib,
        subflow: has(ConnFlags::SUBFLOW).then_some(record.subflow),
        side: side(record),
        evidence: record.evidence,
        watched: !record.conn_state.intersects(UNWATCHED),
        // Older records have neither flag; they come from kernels on which MPTCP was disabled if
        // the counter existed.
        is_off: match (has(ConnFlags::OFF), has(ConnFlags::OFF_UNREAD)) {
            (true, _) => Some(record.off_ms != 0),
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
pub(super) fn connection(record: &ConnRecord, facts: &Facts) -> Result<Observation, DecodeError> {
    let has = |flag| record.flags.contains(flag);
    let is = |state| record.conn_state.contains(state);
    let kind = match record.kind {
        Kind::FALLBACK if has(ConnFlags::REFUSED) => ConnectionKind::FallbackDenied,
        Kind::FALLBACK => ConnectionKind::Fallback,
        Kind::TCP_CHILD => ConnectionKind::Plain,
        Kind::ACCEPTED => return change(record, ChangeKind::Accepted, facts),
        Kind::EXISTING => ConnectionKind::Existing,
        Kind::BLACKHOLE => ConnectionKind::Blackhole,
        Kind::CLOSED => return change(record, ChangeKind::Closed, facts),
        Kind(other) => return Err(DecodeError::Kind(other)),
    };
    let fell_back = has(ConnFlags::MSK_FLAGS)
        .then(|| fallen(record.msk_flags, facts))
        .flatten();
    let sighting = sighting(record);
    let (cause, known) = match kind {
        ConnectionKind::Fallback | ConnectionKind::FallbackDenied => conclude(&sighting, facts)?,
        ConnectionKind::Existing if fell_back == Some(true) => conclude(&sighting, facts)?,
        ConnectionKind::Plain => (None, plain_known(sighting.site)?),
        ConnectionKind::Existing | ConnectionKind::Blackhole => (None, CauseCertainty::Unknown),
    };
    let at = Duration::from_nanos(record.boottime_ns);
    let socket = socket(record)?;
    let connection = Connection {
        kind,
        at,
        id: id(record),
        side: sighting.side.filter(|_| !is_bare(kind, socket.state)),
        socket,
        netns_cookie: record.netns_cookie,
        owner: owner(&record.owner)?,
        unaccepted: is(ConnState::UNACCEPTED),
        admitted: has(ConnFlags::ADMITTED),
        stage: cause
            .as_deref()
            .and_then(stage)
            .or_else(|| plain_stage(sighting.site)),
        cause,
        known,
        since_connect: known_ns(record.connect_ns).map(|connected| at.saturating_sub(connected)),
        bytes: has(ConnFlags::BYTES).then_some((record.bytes_sent, record.bytes_received)),
        subflows: subflows(record),
        evidence: evidence(sighting.evidence),
        query_untraced: is(ConnState::QUERY_UNTRACED),
        connecting: is(ConnState::CONNECTING),
        existing: kind == ConnectionKind::Existing
            || is(ConnState::EXISTING)
            || is(ConnState::UNSEEN_BIRTH),
        fell_back,
        late: sighting.site == Site::LATER,
        current: Current {
            pid: match record.current_tgid {
                // The idle task is the same in every namespace.
                0 => Some(0),
                _ => number(record.current_ns_tgid),
            },
            host_pid: record.current_tgid,
            comm: comm(record.current_comm),
        },
        off_for: (has(ConnFlags::OFF) && kind == ConnectionKind::Blackhole)
            .then(|| Duration::from_millis(record.off_ms.into())),
        marks: marks(&record.marks),
        rung: rung_of(record.rung)?,
    };
    Ok(if has(ConnFlags::BY_TRACER) {
        Observation::CanaryConnection(Box::new(connection))
    } else {
        Observation::Connection(Box::new(connection))
    })
}

/// Owner or end of a connection.
fn change(
    record: &ConnRecord,
    kind: ChangeKind,
    facts: &Facts,
) -> Result<Observation, DecodeError> {
    let change = Box::new(Change {
        kind,
        at: Duration::from_nanos(record.boottime_ns),
        id: id(record),
        socket: socket(record)?,
        owner: owner(&record.owner)?,
        admitted: record.flags.contains(ConnFlags::ADMITTED),
        query_untraced: record.conn_state.contains(ConnState::QUERY_UNTRACED),
        connecting: record.conn_state.contains(ConnState::CONNECTING),
        fell_back: record
            .flags
            .contains(ConnFlags::MSK_FLAGS)
            .then(|| fallen(record.msk_flags, facts))
            .flatten(),
        pending_paths: record.pending_paths,
    });
    Ok(match record.flags.contains(ConnFlags::BY_TRACER) {
        false => Observation::Change(change),
        true => Observation::CanaryChange(change),
    })
}

fn id(record: &ConnRecord) -> ConnectionId {
    ConnectionId {
        socket: SocketId(record.socket),
        born_at: Duration::from_nanos(record.born_ns),
        attempt: 0,
    }
}

/// The kernel does not count the first subflow among the others.
fn subflows(record: &ConnRecord) -> Option<u16> {
    let first = TcpState(record.subflow_state);
    let has_first = first != TcpState(0) && first != TcpState::CLOSE;
    record
        .flags
        .contains(ConnFlags::SUBFLOWS)
        .then(|| u16::from(record.extra_subflows) + u16::from(has_first))
}

fn socket(record: &ConnRecord) -> Result<Socket, DecodeError> {
    let family = family_of(record.family)?;
    let has_inode = record.flags.contains(ConnFlags::INODE);
    Ok(Socket {
        id: SocketId(record.socket),
        inode: has_inode.then_some(record.inode),
        netns: record.netns,
        protocol: protocol_of(record.protocol)?,
        family,
        state: TcpState(record.state),
        local: address(family, record.local_addr, record.local_port),
        remote: address(
            family,
            record.remote_addr,
            u16::from_be(record.remote_port_be),
        ),
    })
}

pub(super) fn owner(owner: &OwnerRecord) -> Result<Option<Owner>, DecodeError> {
    let is_kernel = owner.via == OwnerVia::KERNEL;
    if owner.tgid == 0 && !is_kernel {
        return Ok(None);
    }
    let via = match owner.via {
        OwnerVia::SOCKET => Via::Socket,
        OwnerVia::CONNECT => Via::Connect,
        OwnerVia::LISTEN => Via::Listen,
        OwnerVia::ACCEPT => Via::Accept,
        OwnerVia::IO => Via::Io,
        OwnerVia::QUERY => Via::Query,
        OwnerVia::LISTENER => Via::Listener,
        OwnerVia::EXISTING => Via::Existing,
        OwnerVia::KERNEL => Via::Kernel,
        OwnerVia(other) => return Err(DecodeError::Field("way to the owner", other.into())),
    };
    Ok(Some(Owner {
        process: Process {
            pid: match is_kernel {
                // The kernel is the same in every namespace.
                true => Some(0),
                false => number(owner.ns_tgid),
            },
            tid: number(owner.ns_tid),
            host_pid: owner.tgid,
            host_tid: owner.tid,
            uid: owner.uid,
            cgroup_id: owner.cgroup_id,
            comm: comm(owner.comm),
        },
        via,
    }))
}

/// The connection's own flag, else the observed beginning.
fn side(record: &ConnRecord) -> Option<Side> {
    if record.subflow.contains(SubflowBits::SIDE_KNOWN) {
        return Some(match record.subflow.contains(SubflowBits::SERVER_SIDE) {
            true => Side::Passive,
            false => Side::Active,
        });
    }
    let is = |state| record.conn_state.contains(state);
    match (is(ConnState::ACTIVE), is(ConnState::TCP)) {
        (true, _) => Some(Side::Active),
        (false, true) => Some(Side::Passive),
        (false, false) => None,
    }
}

fn evidence(bits: EvidenceBits) -> Vec<Evidence> {
    [
        (EvidenceBits::BAD_CHECKSUM, Evidence::BadChecksum),
        (EvidenceBits::NO_DSS, Evidence::NoDss),
        (EvidenceBits::INVALID_MAPPING, Evidence::InvalidMapping),
        (EvidenceBits::MP_FAIL_RECEIVED, Evidence::MpFailReceived),
        (EvidenceBits::MP_FAIL_SENT, Evidence::MpFailSent),
        (
            EvidenceBits::INFINITE_RECEIVED,
            Evidence::InfiniteMappingReceived,
        ),
        (EvidenceBits::INFINITE_SENT, Evidence::InfiniteMappingSent),
        (EvidenceBits::SIMULTANEOUS, Evidence::SimultaneousOpen),
    ]
    .into_iter()
    .filter(|(bit, _)| bits.contains(*bit))
    .map(|(_, evidence)| evidence)
    .collect()
}

/// What a record shows about the cause.
pub(super) struct Sighting {
    pub(super) site: Site,
    pub(super) mib: i32,
    /// Bits of the first subflow, if there was one.
    pub(super) subflow: Option<SubflowBits>,
    pub(super) side: Option<Side>,
    pub(super) evidence: EvidenceBits,
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
        Site::TRY_FALLBACK | Site::ACTIVE_DISABLE => Ok((None, CauseCertainty::Unknown)),
        Site::DATA_AVAILABLE => inferred(DSS),
        Site::DSS_CORRUPTION => inferred(CORRUPTION),
        Site::DROPPED_CONTEXT => inferred(THIRD_ACK),
        // The state bit was found set at this site: that shows when, not why. Functions of the
        // handshake run at other times too.
        Site::CONNECT
        | Site::SIMULTANEOUS
        | Site::DETECT_BLACKHOLE
        | Site::HANDSHAKE
        | Site::LATER
        | Site::LISTED => Ok(match from_traces(sighting, facts) {
            Some(name) => (Some(Cow::Borrowed(name)), CauseCertainty::Inferred),
            None => (None, CauseCertainty::Unknown),
        }),
        Site(other) => Err(DecodeError::Field("site", other.into())),
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
    let subflow = sighting.subflow?;
    let has = |bit| subflow.contains(bit);
    let seen = |bits| sighting.evidence.intersects(bits);
    if sighting.side == Some(Side::Active) {
        // The kernel clears its request in this case, so this comes first.
        if seen(EvidenceBits::SIMULTANEOUS) {
            return Some(SIMULTANEOUS);
        }
        if !has(SubflowBits::REQUEST_MPTCP) {
            return if has(SubflowBits::MPC_DROP) {
                Some(SYN_DROP)
            } else {
                refused_to_ask(sighting, facts)
            };
        }
        if !has(SubflowBits::MP_CAPABLE) && !has(SubflowBits::REMOTE_KEY) {
            return Some(SYN_ACK);
        }
    }
    if !has(SubflowBits::MP_CAPABLE) {
        return Some(FIRST_DATA);
    }
    // The side that receives the MP_FAIL answers with an infinite mapping
    // (mptcp_pm_mp_fail_received).
    let complained_to = seen(EvidenceBits::MP_FAIL_RECEIVED) && !seen(EvidenceBits::MP_FAIL_SENT);
    if seen(EvidenceBits::INFINITE_SENT) || complained_to {
        return Some(INFINITE);
    }
    if seen(EvidenceBits::NO_DSS | EvidenceBits::INVALID_MAPPING | EvidenceBits::BAD_CHECKSUM) {
        return Some(DSS);
    }
    // Its data was observed, and each packet had a mapping. The remaining cause is a mapping that
    // does not match its data (mptcp_dss_corruption); with checksums, those detect it first, and
    // the remaining cause is an MP_FAIL from the peer.
    sighting.watched.then_some(if has(SubflowBits::CHECKSUMS) {
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
fn plain_known(site: Site) -> Result<CauseCertainty, DecodeError> {
    match site {
        Site::NO_CONTEXT => Ok(CauseCertainty::Inferred),
        Site::TCP_CHILD => Ok(CauseCertainty::Unknown),
        Site(other) => Err(DecodeError::Field("site", other.into())),
    }
}

fn plain_stage(site: Site) -> Option<Stage> {
    (site == Site::NO_CONTEXT).then_some(Stage::Syn)
}

#[cfg(test)]
mod tests;
