//! Bytes from the ring or a capture -> observation. The only file that knows both the wire and the
//! model.
//!
//! It interprets the raw numbers of a record, and decides what they leave unknown.

use std::{
    fmt,
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use mptcp_trace_common::record::{
    AFTER_UNTOLD, BY_TRACER, CountedRecord, KIND_ACCEPTED, KIND_BLACKHOLE, KIND_CLOSED,
    KIND_COUNTED, KIND_COUNTED_AT_START, KIND_EXISTING, KIND_FALLBACK, KIND_OPTION_REFUSED,
    KIND_QUERY, KIND_SOCKET_REFUSED, KIND_TCP_CHILD, PATH_MPTCP, PATH_TCP, PATH_UNSEEN,
    QUERY_RECORD_BYTES_V1, QUERY_RECORD_BYTES_V2, QUERY_RECORD_BYTES_V4, QueryRecord, RUNG_FEXIT,
    RUNG_KPROBE, RUNG_TRACEPOINT, VALID_FLAGS_ENTER, VALID_FLAGS_EXIT, VALID_INODE,
    VALID_USER_VALUE,
};

use crate::model::{
    Answer, Api, Change, Connection, ConnectionId, Errno, Facts, Family, NetnsCounters, Process,
    Protocol, Query, Refusal, Refused, Rung, Socket, SocketId, TcpState, fallback_causes,
};

mod connection;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// Why a record could not be decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// Its length does not match its kind.
    Length {
        /// Length of the record, bytes.
        got: usize,
        /// Length of its kind, bytes.
        want: usize,
    },
    /// A kind unknown to this version.
    Kind(u32),
    /// A field with a value that the BPF side never writes.
    Field(&'static str, u64),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { got, want } => {
                write!(f, "record of {got} bytes where {want} were expected")
            }
            Self::Kind(kind) => write!(f, "record of unknown kind {kind}"),
            Self::Field(name, value) => write!(f, "record with impossible {name} {value}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Content of one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Observation {
    /// A query by an application.
    Query(Query),
    /// A query by the tracer itself, to verify that its probes fire.
    Canary(Query),
    /// An event of a connection.
    Connection(Box<Connection>),
    /// An event of one of the tracer's own connections.
    CanaryConnection(Box<Connection>),
    /// A change of a known connection.
    Change(Box<Change>),
    /// A change of one of the tracer's own connections.
    CanaryChange(Box<Change>),
    /// The kernel refused something to an application because it uses MPTCP.
    Refusal(Box<Refusal>),
    /// The kernel's own counters in a network namespace.
    Counters(Box<NetnsCounters>),
    /// The kernel's own counters when tracing began.
    CountersAtStart(Box<NetnsCounters>),
}

macro_rules! field {
    ($bytes:expr, $ty:ty, $field:ident) => {{
        let mut value = [0; size_of::<$ty>()];
        let start = offset_of!(QueryRecord, $field);
        value.copy_from_slice(&$bytes[start..start + size_of::<$ty>()]);
        <$ty>::from_ne_bytes(value)
    }};
}

/// Decodes one record.
///
/// # Errors
///
/// A record of unknown kind, wrong length or impossible content is an error, never skipped
/// silently.
pub fn decode(bytes: &[u8], facts: &Facts) -> Result<Observation, DecodeError> {
    let Some(kind) = bytes.first_chunk::<4>() else {
        return Err(DecodeError::Length {
            got: bytes.len(),
            want: size_of::<QueryRecord>(),
        });
    };
    match u32::from_ne_bytes(*kind) {
        KIND_QUERY => query(bytes, facts),
        KIND_OPTION_REFUSED | KIND_SOCKET_REFUSED => refusal(bytes),
        KIND_FALLBACK | KIND_TCP_CHILD | KIND_ACCEPTED | KIND_EXISTING | KIND_BLACKHOLE
        | KIND_CLOSED => connection::connection(bytes, facts),
        KIND_COUNTED => counters(bytes, facts).map(Observation::Counters),
        KIND_COUNTED_AT_START => counters(bytes, facts).map(Observation::CountersAtStart),
        other => Err(DecodeError::Kind(other)),
    }
}

/// The counters of a network namespace: one word each, in the order of [`fallback_causes`].
fn counters(bytes: &[u8], facts: &Facts) -> Result<Box<NetnsCounters>, DecodeError> {
    let want = size_of::<CountedRecord>();
    if bytes.len() != want {
        return Err(DecodeError::Length {
            got: bytes.len(),
            want,
        });
    }
    let word = |at: usize| {
        let mut value = [0; 8];
        value.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(value)
    };
    let mut netns = [0; 4];
    let at = offset_of!(CountedRecord, netns);
    netns.copy_from_slice(&bytes[at..at + 4]);
    let counters = fallback_causes()
        .zip(0..)
        .filter(|(name, _)| facts.counts(name))
        .map(|(name, slot)| {
            let at = offset_of!(CountedRecord, counters) + slot * 8;
            (name.to_owned(), word(at))
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    Ok(Box::new(NetnsCounters {
        netns: u32::from_ne_bytes(netns),
        cookie: word(offset_of!(CountedRecord, cookie)),
        at: Duration::from_nanos(word(offset_of!(CountedRecord, boottime_ns))),
        counters,
    }))
}

fn query(bytes: &[u8], facts: &Facts) -> Result<Observation, DecodeError> {
    let whole = whole_query(bytes, QUERY_RECORD_BYTES_V1)?;
    let api = if bytes.len() >= QUERY_RECORD_BYTES_V4 {
        api_of(field!(whole, u32, level), field!(whole, u32, optname))?
    } else {
        // Older records are all of the only API traced at that time.
        Api::TcpIsMptcp
    };
    let bytes = &whole[..];
    let valid = field!(bytes, u32, valid);
    let has = |bit: u32| valid & bit == bit;
    let protocol = protocol_of(field!(bytes, u16, protocol))?;
    let family = family_of(field!(bytes, u16, family))?;
    let rung = rung_of(bytes[offset_of!(QueryRecord, rung)])?;
    let before = has(VALID_FLAGS_ENTER).then(|| field!(bytes, u64, msk_flags_enter));
    let after = has(VALID_FLAGS_EXIT).then(|| field!(bytes, u64, msk_flags_exit));
    let ret = field!(bytes, i32, ret);
    if ret > 0 {
        // No answer ends this way: the probe is at the wrong place.
        return Err(DecodeError::Field(
            "return value",
            u64::from(ret.unsigned_abs()),
        ));
    }
    let (answer, fell_back) = conclude(&Evidence {
        api,
        ret,
        path: bytes[offset_of!(QueryRecord, path)],
        protocol,
        before: before.and_then(|flags| fallen(flags, facts)),
        after: after.and_then(|flags| fallen(flags, facts)),
        told: has(VALID_USER_VALUE).then(|| field!(bytes, u32, user_value)),
    })?;
    let query = Query {
        asked_at: Duration::from_nanos(field!(bytes, u64, boottime_ns)),
        latency: Some(field!(bytes, u64, latency_ns))
            .filter(|latency_ns| *latency_ns != 0)
            .map(Duration::from_nanos),
        process: process(bytes),
        socket: socket(bytes, protocol, family),
        id: Some(field!(bytes, u64, born_ns))
            .filter(|born_ns| *born_ns != 0)
            .map(|born_ns| ConnectionId {
                socket: SocketId(field!(bytes, u64, socket)),
                born_at: Duration::from_nanos(born_ns),
                attempt: 0,
            }),
        connected_at: Some(field!(bytes, u64, connect_ns))
            .filter(|connect_ns| *connect_ns != 0)
            .map(Duration::from_nanos),
        api,
        answer,
        errno: errno_of(field!(bytes, i32, ret)),
        fell_back,
        rung,
        after_untold: has(AFTER_UNTOLD),
        state_bits: after,
    };
    Ok(if has(BY_TRACER) {
        Observation::Canary(query)
    } else {
        Observation::Query(query)
    })
}

/// The calling process.
fn process(bytes: &[u8]) -> Process {
    Process {
        pid: number(field!(bytes, u32, ns_tgid)),
        tid: number(field!(bytes, u32, ns_tid)),
        host_pid: field!(bytes, u32, tgid),
        host_tid: field!(bytes, u32, tid),
        uid: field!(bytes, u32, uid),
        cgroup_id: field!(bytes, u64, cgroup_id),
        comm: comm(sixteen(bytes, offset_of!(QueryRecord, comm))),
    }
}

/// Converts a record of any version since `oldest` (its length) into the current layout.
fn whole_query(bytes: &[u8], oldest: usize) -> Result<[u8; size_of::<QueryRecord>()], DecodeError> {
    let mut whole = [0; size_of::<QueryRecord>()];
    let got = bytes.len();
    let is_known = [
        QUERY_RECORD_BYTES_V1,
        QUERY_RECORD_BYTES_V2,
        QUERY_RECORD_BYTES_V4,
        whole.len(),
    ]
    .contains(&got);
    if !is_known || got < oldest {
        let want = whole.len();
        return Err(DecodeError::Length { got, want });
    }
    whole[..got].copy_from_slice(bytes);
    if got < whole.len() {
        // Older records only have ids of the initial PID namespace.
        for (host, here) in [
            (
                offset_of!(QueryRecord, tgid),
                offset_of!(QueryRecord, ns_tgid),
            ),
            (
                offset_of!(QueryRecord, tid),
                offset_of!(QueryRecord, ns_tid),
            ),
        ] {
            as_on_host(&mut whole, host, here);
        }
    }
    Ok(whole)
}

/// A process or thread id; 0 is none.
fn number(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

/// Copies the id of the initial PID namespace to that of the tracer's.
fn as_on_host(record: &mut [u8], host: usize, here: usize) {
    record.copy_within(host..host + size_of::<u32>(), here);
}

/// The queried socket.
fn socket(bytes: &[u8], protocol: Protocol, family: Family) -> Socket {
    let has_inode = field!(bytes, u32, valid) & VALID_INODE != 0;
    let local_port = field!(bytes, u16, local_port);
    let state = TcpState(bytes[offset_of!(QueryRecord, state)]);
    // connect(AF_UNSPEC) and a reset leave the old peer in the socket; like getpeername, go by the
    // state.
    let (remote_addr, remote_port) = if state == TcpState::CLOSE {
        ([0; 16], 0)
    } else {
        (
            sixteen(bytes, offset_of!(QueryRecord, remote_addr)),
            u16::from_be(field!(bytes, u16, remote_port_be)),
        )
    };
    Socket {
        id: SocketId(field!(bytes, u64, socket)),
        inode: has_inode.then(|| field!(bytes, u64, inode)),
        netns: field!(bytes, u32, netns),
        protocol,
        family,
        state,
        local: address(
            family,
            sixteen(bytes, offset_of!(QueryRecord, local_addr)),
            local_port,
        ),
        remote: address(family, remote_addr, remote_port),
    }
}

/// A refusal, with the layout of a query. Captures older than version 4 have none.
fn refusal(bytes: &[u8]) -> Result<Observation, DecodeError> {
    let whole = whole_query(bytes, QUERY_RECORD_BYTES_V4)?;
    let bytes = &whole[..];
    let ret = field!(bytes, i32, ret);
    let errno = errno_of(ret).ok_or(DecodeError::Field(
        "return value of a refusal",
        u64::from(ret.unsigned_abs()),
    ))?;
    let family = family_of(field!(bytes, u16, family))?;
    let protocol = protocol_of(field!(bytes, u16, protocol))?;
    let what = if field!(bytes, u32, kind) == KIND_SOCKET_REFUSED {
        Refused::Socket {
            family,
            netns: field!(bytes, u32, netns),
        }
    } else {
        Refused::Option {
            socket: socket(bytes, protocol, family),
            level: field!(bytes, u32, level),
            optname: field!(bytes, u32, optname),
            is_set: field!(bytes, u32, is_set) != 0,
        }
    };
    Ok(Observation::Refusal(Box::new(Refusal {
        at: Duration::from_nanos(field!(bytes, u64, boottime_ns)),
        process: process(bytes),
        what,
        errno,
        rung: rung_of(bytes[offset_of!(QueryRecord, rung)])?,
    })))
}

fn protocol_of(number: u16) -> Result<Protocol, DecodeError> {
    match number {
        IPPROTO_TCP => Ok(Protocol::Tcp),
        IPPROTO_MPTCP => Ok(Protocol::Mptcp),
        other => Err(DecodeError::Field("protocol", other.into())),
    }
}

fn family_of(number: u16) -> Result<Family, DecodeError> {
    match number {
        AF_INET => Ok(Family::Ipv4),
        AF_INET6 => Ok(Family::Ipv6),
        other => Err(DecodeError::Field("address family", other.into())),
    }
}

fn rung_of(number: u8) -> Result<Rung, DecodeError> {
    match number {
        RUNG_FEXIT => Ok(Rung::Fexit),
        RUNG_KPROBE => Ok(Rung::Kprobe),
        RUNG_TRACEPOINT => Ok(Rung::Tracepoint),
        other => Err(DecodeError::Field("rung", other.into())),
    }
}

/// The API behind level and number of a socket option.
fn api_of(level: u32, optname: u32) -> Result<Api, DecodeError> {
    const SOL_SOCKET: u32 = 1;
    const SOL_TCP: u32 = 6;
    const SOL_MPTCP: u32 = 284;
    match (level, optname) {
        (SOL_TCP, 43) => Ok(Api::TcpIsMptcp),
        (SOL_MPTCP, 1) => Ok(Api::MptcpInfo),
        (SOL_MPTCP, 2) => Ok(Api::MptcpTcpinfo),
        (SOL_MPTCP, 3) => Ok(Api::MptcpSubflowAddrs),
        (SOL_MPTCP, 4) => Ok(Api::MptcpFullInfo),
        (SOL_SOCKET, 38) => Ok(Api::SoProtocol),
        (level, optname) => Err(DecodeError::Field(
            "option",
            u64::from(level) << 32 | u64::from(optname),
        )),
    }
}

/// The errno of a failed call.
fn errno_of(ret: i32) -> Option<Errno> {
    (ret < 0).then(|| Errno(ret.wrapping_neg()))
}

/// What a record shows about its answer.
struct Evidence {
    api: Api,
    ret: i32,
    path: u8,
    protocol: Protocol,
    /// Whether it had fallen back when queried, if known.
    before: Option<bool>,
    /// Whether it had fallen back when answered, if known.
    after: Option<bool>,
    /// Content of the caller's buffer after the call.
    told: Option<u32>,
}

impl Evidence {
    /// Whether it had fallen back, if the bits are conclusive: nothing clears the bit during a
    /// query, so a connection that has not fallen back afterwards had not before.
    fn by_bits(&self) -> Option<bool> {
        match (self.before, self.after) {
            (Some(before), Some(after)) if before == after => Some(before),
            (None, Some(false)) => Some(false),
            (Some(_) | None, Some(_) | None) => None,
        }
    }

    /// The best guess if only the bit after the call is known: a fallback during the call is rare.
    fn by_last_bit(&self) -> Option<bool> {
        self.after.filter(|_| self.before.is_none())
    }
}

/// What the kernel answered, and whether the connection of an MPTCP socket has fallen back.
///
/// An observed path decides: the MPTCP code answers 1 itself and passes a fallen connection on to
/// the TCP code, which answers 0 (`mptcp_getsockopt`, `do_tcp_getsockopt`). Otherwise the state
/// bits decide if they are conclusive; if the connection may have fallen back in between, only the
/// caller's buffer decides.
fn conclude(evidence: &Evidence) -> Result<(Answer, Option<bool>), DecodeError> {
    match evidence.api {
        Api::TcpIsMptcp => conclude_asked_plainly(evidence),
        Api::MptcpInfo | Api::MptcpTcpinfo | Api::MptcpSubflowAddrs | Api::MptcpFullInfo => {
            conclude_asked_for_details(evidence)
        }
        Api::SoProtocol => conclude_asked_for_protocol(evidence),
    }
}

/// Options that only a connection with MPTCP has: success means MPTCP. A refusal means a fallback,
/// or, if the connection has not fallen back, that this kernel does not support the option.
fn conclude_asked_for_details(evidence: &Evidence) -> Result<(Answer, Option<bool>), DecodeError> {
    let errno = errno_of(evidence.ret);
    let fell_back = match (evidence.path, evidence.protocol) {
        (PATH_MPTCP, Protocol::Mptcp) => Some(false),
        (PATH_TCP | PATH_UNSEEN, Protocol::Tcp) => Some(false),
        (both, Protocol::Mptcp) if both == PATH_MPTCP | PATH_TCP => Some(true),
        // If the bits are inconclusive, it fell back in between, or the bit is unknown.
        (PATH_UNSEEN, Protocol::Mptcp) => evidence.by_bits().or_else(|| match errno {
            None => Some(false),
            Some(_) => evidence.by_last_bit(),
        }),
        (path, _) => return Err(DecodeError::Field("path", path.into())),
    };
    let answer = match (errno, evidence.protocol, fell_back) {
        (None, _, _) => Answer::Mptcp,
        (Some(Errno::EOPNOTSUPP | Errno::ENOPROTOOPT), Protocol::Tcp, _)
        | (Some(Errno::EOPNOTSUPP | Errno::ENOPROTOOPT), Protocol::Mptcp, Some(true)) => {
            Answer::Tcp
        }
        (Some(errno @ (Errno::EOPNOTSUPP | Errno::ENOPROTOOPT)), Protocol::Mptcp, Some(false)) => {
            Answer::Unsupported(errno)
        }
        (Some(Errno::EOPNOTSUPP | Errno::ENOPROTOOPT), Protocol::Mptcp, None) => Answer::Unknown,
        (Some(errno), _, _) => Answer::Failed(errno),
    };
    Ok((answer, fell_back))
}

/// The protocol that the socket was created with: always MPTCP.
fn conclude_asked_for_protocol(evidence: &Evidence) -> Result<(Answer, Option<bool>), DecodeError> {
    if (evidence.path, evidence.protocol) != (PATH_UNSEEN, Protocol::Mptcp) {
        return Err(DecodeError::Field("path", evidence.path.into()));
    }
    let fell_back = evidence.by_bits().or_else(|| evidence.by_last_bit());
    let answer = errno_of(evidence.ret).map_or(Answer::Mptcp, Answer::Failed);
    Ok((answer, fell_back))
}

/// `TCP_IS_MPTCP`, the option made for this query.
fn conclude_asked_plainly(evidence: &Evidence) -> Result<(Answer, Option<bool>), DecodeError> {
    let Evidence {
        api: _,
        ret,
        path,
        protocol,
        before: _,
        after: _,
        told,
    } = *evidence;
    let errno = errno_of(ret);
    let fell_back = match (path, protocol) {
        (PATH_MPTCP, Protocol::Mptcp) => Some(false),
        (PATH_TCP, Protocol::Tcp) | (PATH_UNSEEN, Protocol::Tcp) => Some(false),
        (both, Protocol::Mptcp) if both == PATH_MPTCP | PATH_TCP => Some(true),
        // On a kernel without the option, the errno shows which code refused.
        (PATH_UNSEEN, Protocol::Mptcp) if errno == Some(Errno::EOPNOTSUPP) => Some(false),
        (PATH_UNSEEN, Protocol::Mptcp) if errno == Some(Errno::ENOPROTOOPT) => Some(true),
        (PATH_UNSEEN, Protocol::Mptcp) => evidence.by_bits().or_else(|| match (ret, told) {
            (0, Some(0)) => Some(true),
            // An answer shorter than an int is its first byte, where 1 means MPTCP too.
            (0, Some(1)) => Some(false),
            _ => evidence.by_last_bit(),
        }),
        (path, _) => return Err(DecodeError::Field("path", path.into())),
    };
    let answer = match (errno, protocol, fell_back) {
        (Some(errno @ (Errno::EOPNOTSUPP | Errno::ENOPROTOOPT)), _, _) => {
            Answer::Unsupported(errno)
        }
        (Some(errno), _, _) => Answer::Failed(errno),
        (None, Protocol::Tcp, _) | (None, Protocol::Mptcp, Some(true)) => Answer::Tcp,
        (None, Protocol::Mptcp, Some(false)) => Answer::Mptcp,
        (None, Protocol::Mptcp, None) => Answer::Unknown,
    };
    Ok((answer, fell_back))
}

/// Whether the calibrated fallback bit is set.
fn fallen(flags: u64, facts: &Facts) -> Option<bool> {
    facts.fallback_bit.map(|bit| flags >> bit & 1 == 1)
}

fn sixteen(bytes: &[u8], start: usize) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&bytes[start..start + 16]);
    out
}

fn address(family: Family, bytes: [u8; 16], port: u16) -> SocketAddr {
    let ip = match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(bytes)),
    };
    SocketAddr::new(ip, port)
}

fn comm(bytes: [u8; 16]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests;
