//! A connection: that it fell back to TCP, why, and whose it is.

use std::{
    borrow::Cow,
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use super::{Process, Rung, Socket, SocketId};

/// A connection, and no other ever: the address of its socket, when that was first seen, and which of its connections it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionId {
    /// Kernel address of the socket.
    pub socket: SocketId,
    /// When the socket was first seen, on `CLOCK_BOOTTIME`.
    pub born_at: Duration,
    /// How often the socket has connected anew before; 0 as long as nobody has found out.
    pub attempt: u32,
}

impl ConnectionId {
    /// The same for all connections of the socket.
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

/// How an owner came to be known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// It made the socket.
    Socket,
    /// It connected the socket.
    Connect,
    /// It listens with the socket.
    Listen,
    /// It accepted the socket.
    Accept,
    /// It sent or received.
    Io,
    /// It asked about the socket.
    Query,
    /// It owns the listener of the socket; nobody has accepted it yet.
    Listener,
    /// It had the socket open when tracing began.
    Existing,
}

impl Via {
    /// The word for it.
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
        }
    }
}

/// The process that holds a socket: the last that was seen doing something with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Who; the name is that of the process, not of a thread.
    pub process: Process,
    /// How we know.
    pub via: Via,
}

/// How the cause is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CauseCertainty {
    /// The kernel named it.
    Reported,
    /// From the function that decided, the state of the connection and what its data was like.
    Inferred,
    /// Not at all.
    Unknown,
}

impl CauseCertainty {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Inferred => "inferred",
            Self::Unknown => "unknown",
        }
    }
}

/// Which end opened the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// This one.
    Active,
    /// The other one.
    Passive,
}

impl Side {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// How far the connection had come (RFC 8684 section 3.1: `MP_CAPABLE` is in the first three packets).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The first packet.
    Syn,
    /// Its answer.
    SynAck,
    /// What completes the handshake.
    ThirdAck,
    /// After the handshake.
    Data,
}

impl Stage {
    /// The words for it.
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

/// What was seen around a connection before it fell back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// A data packet with a wrong MPTCP checksum.
    BadChecksum,
    /// A data packet without a data sequence signal.
    NoDss,
    /// A mapping that makes no sense, or (on older kernels) a packet without one.
    InvalidMapping,
    /// The other end complained of a checksum.
    MpFailReceived,
    /// This end complained of a checksum.
    MpFailSent,
    /// A mapping without an end arrived.
    InfiniteMappingReceived,
    /// A mapping without an end was sent.
    InfiniteMappingSent,
    /// Both ends opened at the same time.
    SimultaneousOpen,
}

impl Evidence {
    /// The word for it.
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

/// What is said of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionKind {
    /// It fell back to TCP.
    Fallback,
    /// The kernel wanted it to fall back, was not allowed to, and resets the subflow.
    FallbackDenied,
    /// A TCP socket was born of an MPTCP listener.
    Plain,
    /// It was there before tracing began.
    Existing,
    /// MPTCP is switched off for a while in its network namespace.
    Blackhole,
}

impl ConnectionKind {
    /// The word for it.
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

/// The task that happened to run when something was seen: the idle task, a worker, the other end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Current {
    /// Its process where the tracer stands: in its PID namespace; none if it is not in there.
    pub pid: Option<u32>,
    /// The same in the initial PID namespace; 0 is the idle task.
    pub host_pid: u32,
    /// Name of the thread.
    pub comm: String,
}

/// Something about a connection, as observed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// What.
    pub kind: ConnectionKind,
    /// When it happened, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// Its identity.
    pub id: ConnectionId,
    /// Its socket.
    pub socket: Socket,
    /// The number of its network namespace that no other namespace ever gets (`net.net_cookie`); 0 if unknown. Inode numbers
    /// are given to others.
    pub netns_cookie: u64,
    /// Who holds it, if that is known.
    pub owner: Option<Owner>,
    /// Nobody has accepted it yet.
    pub unaccepted: bool,
    /// The filter wants it.
    pub admitted: bool,
    /// Name of the counter of the kernel that stands for the cause.
    pub cause: Option<Cow<'static, str>>,
    /// How the cause is known.
    pub known: CauseCertainty,
    /// Which end opened it, if that is known.
    pub side: Option<Side>,
    /// How far it had come, if that is known.
    pub stage: Option<Stage>,
    /// Since it began to connect, or was born of its listener.
    pub since_connect: Option<Duration>,
    /// Payload that went over MPTCP before, sent and received, bytes.
    pub bytes: Option<(u64, u64)>,
    /// How many subflows it has: the first one, unless that is closed, and those that the kernel counts beside it.
    pub subflows: Option<u16>,
    /// What was seen before.
    pub evidence: Vec<Evidence>,
    /// It was there before tracing began.
    pub existing: bool,
    /// It was asked about since the last question that was traced, and that one was not: capped, or lost.
    pub untold: bool,
    /// It is connecting, or that has failed: there is no connection (yet).
    pub connecting: bool,
    /// Whether it has fallen back by now, if that is known.
    pub fell_back: Option<bool>,
    /// It was not seen when it happened, but found later.
    pub late: bool,
    /// The task that happened to run; says nothing about the owner.
    pub current: Current,
    /// For how long MPTCP is off ([`ConnectionKind::Blackhole`]).
    pub off_for: Option<Duration>,
    /// How it was seen.
    pub rung: Rung,
}

/// The same with its wall clock time, and with its owner in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionEvent {
    /// What was observed.
    pub connection: Connection,
    /// When it happened, wall clock.
    pub time: SystemTime,
    /// Where the owner lives.
    pub place: Place,
    /// Why MPTCP was off, if that is the cause and was seen.
    pub switched_off: Option<SwitchedOff>,
}

/// That MPTCP was switched off for a while in a network namespace ([`ConnectionKind::Blackhole`]), and by which
/// connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwitchedOff {
    /// When, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// For how long, where the kernel lets that be read.
    pub off_for: Option<Duration>,
    /// The connection whose SYNs were answered only without MPTCP.
    pub id: ConnectionId,
    /// Where that wanted to.
    pub remote: SocketAddr,
    /// Who held it, if that is known.
    pub owner: Option<Owner>,
}

/// Where a process lives: its control group in words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Path of the control group, from the root of the hierarchy.
    pub cgroup: Option<String>,
    /// The container's id, where the path names one.
    pub container: Option<String>,
    /// The systemd unit, where the path names one.
    pub unit: Option<String>,
}
