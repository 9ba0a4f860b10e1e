//! A connection: its fallback, the cause, and its owner.

use std::{
    borrow::Cow,
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Marks, Packet, PeerHistory, Process, Rung, Socket, SocketId};

/// Identity of a connection, never reused: the address of its socket, when that was first observed,
/// and the number of the socket's earlier connections.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionId {
    /// Kernel address of the socket.
    pub socket: SocketId,
    /// When the socket was first observed, on `CLOCK_BOOTTIME`.
    pub born_at: Duration,
    /// Number of the socket's earlier connections; 0 while unknown.
    pub attempt: u32,
}

impl ConnectionId {
    /// The id that all connections of the socket share.
    #[must_use]
    pub fn of_socket(self) -> Self {
        Self { attempt: 0, ..self }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.socket, self.born_at.as_nanos())?;
        match self.attempt {
            0 => Ok(()),
            attempt => write!(f, "#{}", u64::from(attempt) + 1),
        }
    }
}

/// How an owner was learnt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// It created the socket.
    Socket,
    /// It connected the socket.
    Connect,
    /// It listens with the socket.
    Listen,
    /// It accepted the socket.
    Accept,
    /// It sent or received data.
    Io,
    /// It made a query on the socket.
    Query,
    /// It owns the listener of the socket, which has not been accepted yet.
    Listener,
    /// It had the socket open when tracing began.
    Existing,
    /// The kernel created the socket for itself: the process has no number but 0.
    Kernel,
}

impl Via {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Connect => "connect",
            Self::Listen => "listen",
            Self::Accept => "accept",
            Self::Io => "io",
            Self::Query => "query",
            Self::Listener => "listener",
            Self::Existing => "existing",
            Self::Kernel => "kernel",
        }
    }
}

/// The process that holds a socket: the last one observed using it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The process; the name is that of the process, not of a thread.
    pub process: Process,
    /// How the owner was learnt.
    pub via: Via,
}

/// How the cause is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CauseCertainty {
    /// The kernel reported it.
    Reported,
    /// Inferred from the function that decided, the state of the connection, and its data.
    Inferred,
    /// Unknown.
    Unknown,
}

impl CauseCertainty {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Inferred => "inferred",
            Self::Unknown => "unknown",
        }
    }
}

/// Which side opened the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// This host.
    Active,
    /// The peer.
    Passive,
}

impl Side {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// Stage of the connection (RFC 8684 section 3.1: `MP_CAPABLE` is in the first three packets).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The SYN.
    Syn,
    /// The SYN/ACK.
    SynAck,
    /// The third ACK.
    ThirdAck,
    /// After the handshake.
    Data,
}

impl Stage {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Syn => "SYN",
            Self::SynAck => "SYN/ACK",
            Self::ThirdAck => "third ACK",
            Self::Data => "data",
        }
    }
}

/// Observations on a connection before it fell back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// A data packet with a wrong MPTCP checksum.
    BadChecksum,
    /// A data packet without a data sequence signal.
    NoDss,
    /// An invalid mapping, or (on older kernels) a packet without one.
    InvalidMapping,
    /// The peer reported a checksum failure (`MP_FAIL`).
    MpFailReceived,
    /// This host reported a checksum failure (`MP_FAIL`).
    MpFailSent,
    /// An infinite mapping was received.
    InfiniteMappingReceived,
    /// An infinite mapping was sent.
    InfiniteMappingSent,
    /// Both ends opened at the same time.
    SimultaneousOpen,
}

impl Evidence {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadChecksum => "bad-checksum",
            Self::NoDss => "no-dss",
            Self::InvalidMapping => "invalid-mapping",
            Self::MpFailReceived => "mp-fail-received",
            Self::MpFailSent => "mp-fail-sent",
            Self::InfiniteMappingReceived => "infinite-mapping-received",
            Self::InfiniteMappingSent => "infinite-mapping-sent",
            Self::SimultaneousOpen => "simultaneous-open",
        }
    }
}

/// What a connection event reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionKind {
    /// It fell back to TCP.
    Fallback,
    /// The kernel wanted it to fall back, was not allowed to, and resets the subflow.
    FallbackDenied,
    /// An MPTCP listener got a child that is plain TCP.
    Plain,
    /// It was open before tracing began.
    Existing,
    /// The kernel disabled MPTCP for a while in its network namespace.
    Blackhole,
}

impl ConnectionKind {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fallback => "fallback",
            Self::FallbackDenied => "refused",
            Self::Plain => "plain",
            Self::Existing => "existing",
            Self::Blackhole => "blackhole",
        }
    }
}

/// The current task at the time of an event: the idle task, a worker, or the peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Current {
    /// Its process id in the tracer's PID namespace; `None` if it is not in it.
    pub pid: Option<u32>,
    /// Its process id in the initial PID namespace; 0 is the idle task.
    pub host_pid: u32,
    /// Name of the thread.
    pub comm: String,
}

/// An observed event of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// What the event reports.
    pub kind: ConnectionKind,
    /// When it happened, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// Its identity.
    pub id: ConnectionId,
    /// Its socket.
    pub socket: Socket,
    /// Cookie of its network namespace (`net.net_cookie`), never reused; 0 if unknown. Inode
    /// numbers are reused.
    pub netns_cookie: u64,
    /// The process that holds it, if known.
    pub owner: Option<Owner>,
    /// It has not been accepted yet.
    pub unaccepted: bool,
    /// The filter admits it.
    pub admitted: bool,
    /// Name of the kernel counter of the cause.
    pub cause: Option<Cow<'static, str>>,
    /// How the cause is known.
    pub known: CauseCertainty,
    /// Which side opened it, if known.
    pub side: Option<Side>,
    /// The stage of the fallback, if known.
    pub stage: Option<Stage>,
    /// Time since it began to connect, or was created by its listener.
    pub since_connect: Option<Duration>,
    /// Payload sent and received over MPTCP before, bytes.
    pub bytes: Option<(u64, u64)>,
    /// Number of subflows: the first one, unless it is closed, and those that the kernel counts
    /// besides it.
    pub subflows: Option<u16>,
    /// Earlier observations.
    pub evidence: Vec<Evidence>,
    /// It was open before tracing began.
    pub existing: bool,
    /// It was queried since the last traced query, and that query was not traced: capped, or lost.
    pub query_untraced: bool,
    /// It is connecting, or connecting failed: the connection is not established.
    pub connecting: bool,
    /// Whether it has fallen back, if known.
    pub fell_back: Option<bool>,
    /// It was not observed when it happened, but detected later.
    pub late: bool,
    /// The current task; unrelated to the owner.
    pub current: Current,
    /// For how long MPTCP is disabled ([`ConnectionKind::Blackhole`]).
    pub off_for: Option<Duration>,
    /// What the other end knows too of the path that it happened to, else of the first one.
    pub marks: Marks,
    /// The attach method that observed it.
    pub rung: Rung,
}

/// A connection event with its wall clock time and its owner's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionEvent {
    /// What was observed.
    pub connection: Connection,
    /// When it happened, wall clock.
    pub time: SystemTime,
    /// The place of the owner.
    pub place: Place,
    /// What disabled MPTCP, if that is the cause and was observed.
    pub switched_off: Option<SwitchedOff>,
    /// The packet that decided, if one did and was observed.
    pub packet: Option<Box<Packet>>,
    /// How often the peer spoke MPTCP so far in this run, if it answered this connection without.
    pub history: Option<Box<PeerHistory>>,
}

/// The event that disabled MPTCP in a network namespace ([`ConnectionKind::Blackhole`]), and its
/// connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwitchedOff {
    /// Time of the event, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// For how long MPTCP is disabled, if readable.
    pub off_for: Option<Duration>,
    /// The connection whose SYNs were only answered without MPTCP.
    pub id: ConnectionId,
    /// Its remote address.
    pub remote: SocketAddr,
    /// The process that held it, if known.
    pub owner: Option<Owner>,
}

/// The control group of a process, and what its path shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Path of the control group, from the root of the hierarchy.
    pub cgroup: Option<String>,
    /// The container id, if the path contains one.
    pub container: Option<String>,
    /// The systemd unit, if the path contains one.
    pub unit: Option<String>,
    /// The pod, if the path contains its UID, or the names of log files its container.
    pub pod: Option<Arc<Pod>>,
}

/// A Kubernetes pod and the container in it; what is unknown is `None`. All are words that
/// Kubernetes accepts as such.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pod {
    /// Its UID.
    pub uid: Option<String>,
    /// The namespace (of Kubernetes) that it is in.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Name of the container.
    pub container: Option<String>,
}
