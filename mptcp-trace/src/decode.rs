//! Bytes from the ring or a capture -> observation. The only file that knows both the wire and the
//! model.
//!
//! It interprets the raw numbers of a record, and decides what they leave unknown.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use mptcp_trace_common::{
    numbers::{
        AF_INET, AF_INET6, IPPROTO_MPTCP, IPPROTO_TCP, MPTCP_FULL_INFO, MPTCP_INFO,
        MPTCP_SUBFLOW_ADDRS, MPTCP_TCPINFO, SO_PROTOCOL, SOL_MPTCP, SOL_SOCKET, SOL_TCP,
        TCP_IS_MPTCP,
    },
    record::{
        CountedRecord, Kind, Marks as MarksRecord, PathBits, QueryFlags, QueryRecord, RecordRung,
        zone,
    },
};
use zerocopy::FromBytes;

use crate::model::{
    Answer, Api, Change, Connection, ConnectionId, Errno, Facts, Family, Marks, NetnsCounters,
    Packet, PacketKey, Path, Process, Protocol, Query, Refusal, Refused, Rung, SensorId, Socket,
    SocketId, TcpState, fallback_causes,
};

mod connection;
mod packet;
mod path;

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
    /// An event of a path.
    Path(Box<Path>),
    /// An event of a path of one of the tracer's own connections.
    CanaryPath(Box<Path>),
    /// What an open path has carried so far, read on request: no event.
    PathReading(Box<Path>),
    /// The packet that decided an event, whose record follows.
    Packet(PacketKey, Box<Packet>),
    /// The kernel's own counters in a network namespace.
    Counters(Box<NetnsCounters>),
    /// The kernel's own counters when tracing began.
    CountersAtStart(Box<NetnsCounters>),
}

/// Decodes one record.
///
/// # Errors
///
/// A record of unknown kind, wrong length or impossible content is an error, never skipped
/// silently.
pub fn decode(bytes: &[u8], facts: &Facts) -> Result<Observation, DecodeError> {
    let Ok((kind, _rest)) = Kind::read_from_prefix(bytes) else {
        return Err(DecodeError::Length {
            got: bytes.len(),
            want: size_of::<QueryRecord>(),
        });
    };
    match kind {
        Kind::QUERY => query(&whole(bytes)?, facts),
        Kind::OPTION_REFUSED | Kind::SOCKET_REFUSED => refusal(&whole(bytes)?),
        Kind::FALLBACK
        | Kind::TCP_CHILD
        | Kind::ACCEPTED
        | Kind::EXISTING
        | Kind::BLACKHOLE
        | Kind::CLOSED => connection::connection(&whole(bytes)?, facts),
        Kind::PATH_UP
        | Kind::PATH_ENDED
        | Kind::PATH_OPEN
        | Kind::JOIN_FAILED
        | Kind::PATH_STALE
        | Kind::PATH_BACKUP
        | Kind::PATH_REGULAR
        | Kind::PATH_OWN_PRIORITY
        | Kind::PATH_RECOVERED
        | Kind::ADDRESS_RECEIVED
        | Kind::ADDRESS_ANNOUNCED
        | Kind::ADDRESS_ECHOED
        | Kind::ADDRESS_REMOVED
        | Kind::ADDRESS_REMOVED_BY_PEER => path::path(&whole(bytes)?),
        Kind::PACKET => packet::packet(&whole(bytes)?),
        Kind::COUNTED => Ok(Observation::Counters(counters(&whole(bytes)?, facts))),
        Kind::COUNTED_AT_START => Ok(Observation::CountersAtStart(counters(
            &whole(bytes)?,
            facts,
        ))),
        Kind(other) => Err(DecodeError::Kind(other)),
    }
}

/// The sensor whose losses a record belongs to; `None` for a reading of the kernel's counters.
#[must_use]
pub fn sensor_of(record: &[u8]) -> Option<SensorId> {
    let (kind, _rest) = Kind::read_from_prefix(record).ok()?;
    match kind {
        Kind::QUERY | Kind::OPTION_REFUSED | Kind::SOCKET_REFUSED => Some(SensorId::Query),
        Kind::FALLBACK
        | Kind::TCP_CHILD
        | Kind::ACCEPTED
        | Kind::EXISTING
        | Kind::BLACKHOLE
        | Kind::CLOSED => Some(SensorId::Fallback),
        Kind::COUNTED | Kind::COUNTED_AT_START => None,
        Kind(_of_paths) => Some(SensorId::Subflow),
    }
}

/// A record of this type and no more.
fn whole<T: FromBytes>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes).map_err(|_length| DecodeError::Length {
        got: bytes.len(),
        want: size_of::<T>(),
    })
}

/// The counters of a network namespace, in the order of [`fallback_causes`].
fn counters(record: &CountedRecord, facts: &Facts) -> Box<NetnsCounters> {
    let counters = fallback_causes()
        .zip(record.counters)
        .filter(|(name, count)| facts.counts(name) && *count > 0)
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
    Box::new(NetnsCounters {
        netns: record.netns,
        cookie: record.cookie,
        at: Duration::from_nanos(record.boottime_ns),
        counters,
    })
}

fn query(record: &QueryRecord, facts: &Facts) -> Result<Observation, DecodeError> {
    let has = |flag| record.flags.contains(flag);
    let api = api_of(record.level, record.optname)?;
    let protocol = protocol_of(record.protocol)?;
    let family = family_of(record.family)?;
    let rung = rung_of(record.rung)?;
    let state_bits = has(QueryFlags::MSK_FLAGS).then_some(record.msk_flags);
    if record.ret > 0 {
        // No answer ends this way: the probe is at the wrong place.
        return Err(DecodeError::Field(
            "return value",
            u64::from(record.ret.unsigned_abs()),
        ));
    }
    let (answer, fell_back) = conclude(&Evidence {
        api,
        ret: record.ret,
        path: record.path,
        protocol,
        fallen: state_bits.and_then(|flags| fallen(flags, facts)),
        user_value: has(QueryFlags::USER_VALUE).then_some(record.user_value),
    })?;
    let query = Query {
        asked_at: Duration::from_nanos(record.boottime_ns),
        latency: known_ns(record.latency_ns),
        process: process(record),
        socket: socket(record, protocol, family),
        id: known_ns(record.born_ns).map(|born_at| ConnectionId {
            socket: SocketId(record.socket),
            born_at,
            attempt: 0,
        }),
        connected_at: known_ns(record.connect_ns),
        api,
        answer,
        errno: errno_of(record.ret),
        fell_back,
        rung,
        after_untraced: has(QueryFlags::AFTER_UNTRACED),
        state_bits,
    };
    Ok(if has(QueryFlags::BY_TRACER) {
        Observation::Canary(query)
    } else {
        Observation::Query(query)
    })
}

/// A time; 0 is unknown.
fn known_ns(ns: u64) -> Option<Duration> {
    (ns != 0).then(|| Duration::from_nanos(ns))
}

/// The calling process.
fn process(record: &QueryRecord) -> Process {
    Process {
        pid: number(record.ns_tgid),
        tid: number(record.ns_tid),
        host_pid: record.tgid,
        host_tid: record.tid,
        uid: record.uid,
        cgroup_id: record.cgroup_id,
        comm: comm(record.comm),
    }
}

/// A process or thread id; 0 is none.
fn number(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

/// The queried socket.
fn socket(record: &QueryRecord, protocol: Protocol, family: Family) -> Socket {
    let has_inode = record.flags.contains(QueryFlags::INODE);
    let state = TcpState(record.state);
    // connect(AF_UNSPEC) and a reset leave the old peer in the socket; like getpeername, go by the
    // state.
    let (remote_addr, remote_port) = match state {
        TcpState::CLOSE => ([0; 16], 0),
        _ => (record.remote_addr, u16::from_be(record.remote_port_be)),
    };
    Socket {
        id: SocketId(record.socket),
        inode: has_inode.then_some(record.inode),
        netns: record.netns,
        protocol,
        family,
        state,
        local: address(family, record.local_addr, record.local_port),
        remote: address(family, remote_addr, remote_port),
    }
}

/// A refusal, with the layout of a query.
fn refusal(record: &QueryRecord) -> Result<Observation, DecodeError> {
    let errno = errno_of(record.ret).ok_or(DecodeError::Field(
        "return value of a refusal",
        u64::from(record.ret.unsigned_abs()),
    ))?;
    let family = family_of(record.family)?;
    let protocol = protocol_of(record.protocol)?;
    let what = match record.kind {
        Kind::SOCKET_REFUSED => Refused::Socket {
            family,
            netns: record.netns,
        },
        _ => Refused::Option {
            socket: socket(record, protocol, family),
            level: record.level,
            optname: record.optname,
            is_set: record.flags.contains(QueryFlags::IS_SET),
        },
    };
    Ok(Observation::Refusal(Box::new(Refusal {
        at: Duration::from_nanos(record.boottime_ns),
        process: process(record),
        what,
        errno,
        rung: rung_of(record.rung)?,
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

fn rung_of(rung: RecordRung) -> Result<Rung, DecodeError> {
    match rung {
        RecordRung::FEXIT => Ok(Rung::Fexit),
        RecordRung::KPROBE => Ok(Rung::Kprobe),
        RecordRung::TRACEPOINT => Ok(Rung::Tracepoint),
        RecordRung(other) => Err(DecodeError::Field("rung", other.into())),
    }
}

/// The API behind level and number of a socket option.
fn api_of(level: u32, optname: u32) -> Result<Api, DecodeError> {
    match (level, optname) {
        (SOL_TCP, TCP_IS_MPTCP) => Ok(Api::TcpIsMptcp),
        (SOL_MPTCP, MPTCP_INFO) => Ok(Api::MptcpInfo),
        (SOL_MPTCP, MPTCP_TCPINFO) => Ok(Api::MptcpTcpinfo),
        (SOL_MPTCP, MPTCP_SUBFLOW_ADDRS) => Ok(Api::MptcpSubflowAddrs),
        (SOL_MPTCP, MPTCP_FULL_INFO) => Ok(Api::MptcpFullInfo),
        (SOL_SOCKET, SO_PROTOCOL) => Ok(Api::SoProtocol),
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

/// The MPTCP code passed the query on to the TCP code: the connection has fallen back.
const THROUGH_BOTH: PathBits = PathBits::MPTCP.union(PathBits::TCP);

fn impossible(path: PathBits) -> DecodeError {
    DecodeError::Field("path", path.bits().into())
}

/// What a record shows about its answer.
struct Evidence {
    api: Api,
    ret: i32,
    path: PathBits,
    protocol: Protocol,
    /// Whether it had fallen back when answered, if known.
    fallen: Option<bool>,
    /// Content of the caller's buffer after the call.
    user_value: Option<u32>,
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
        (PathBits::MPTCP, Protocol::Mptcp) => Some(false),
        (PathBits::TCP | PathBits::UNSEEN, Protocol::Tcp) => Some(false),
        (THROUGH_BOTH, Protocol::Mptcp) => Some(true),
        // After an answer the bit may be set: it fell back in between.
        (PathBits::UNSEEN, Protocol::Mptcp) => match (evidence.fallen, errno) {
            (Some(false), _) | (_, None) => Some(false),
            (fallen, Some(_)) => fallen,
        },
        (path, _) => return Err(impossible(path)),
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
    if (evidence.path, evidence.protocol) != (PathBits::UNSEEN, Protocol::Mptcp) {
        return Err(impossible(evidence.path));
    }
    let fell_back = evidence.fallen;
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
        fallen,
        user_value,
    } = *evidence;
    let errno = errno_of(ret);
    let fell_back = match (path, protocol) {
        (PathBits::MPTCP, Protocol::Mptcp) => Some(false),
        (PathBits::TCP | PathBits::UNSEEN, Protocol::Tcp) => Some(false),
        (THROUGH_BOTH, Protocol::Mptcp) => Some(true),
        // On a kernel without the option, the errno shows which code refused.
        (PathBits::UNSEEN, Protocol::Mptcp) if errno == Some(Errno::EOPNOTSUPP) => Some(false),
        (PathBits::UNSEEN, Protocol::Mptcp) if errno == Some(Errno::ENOPROTOOPT) => Some(true),
        (PathBits::UNSEEN, Protocol::Mptcp) => match (fallen, ret, user_value) {
            // Nothing clears the bit during a query: it had not fallen back before either.
            (Some(false), _, _) => Some(false),
            // If the bit is set, it may have fallen back in between: the buffer decides.
            (_, 0, Some(0)) => Some(true),
            // An answer shorter than an int is its first byte, where 1 means MPTCP too.
            (_, 0, Some(1)) => Some(false),
            // A fallback in between is rare.
            (fallen, _, _) => fallen,
        },
        (path, _) => return Err(impossible(path)),
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

/// What the other end knows too. By chance a number is 0 once in 2^32 times, and counts as unknown.
fn marks(record: &MarksRecord) -> Marks {
    let known = |number: u32| (number != 0).then_some(number);
    Marks {
        sent: known(record.sent),
        received: known(record.received),
        keys: known(record.keys),
    }
}

fn address(family: Family, bytes: [u8; 16], port: u16) -> SocketAddr {
    match family {
        Family::Ipv4 => {
            let ip = Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
            SocketAddr::new(ip.into(), port)
        }
        Family::Ipv6 => {
            let (bytes, zone) = zone::split(bytes);
            SocketAddrV6::new(bytes.into(), port, 0, zone).into()
        }
    }
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
