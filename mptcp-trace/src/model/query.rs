//! An application's query about its socket, and the kernel's answer.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use super::{ConnectionId, Judgement, Rung};

/// Identity of a live socket: its kernel address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u64);

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// Protocol that the socket was created with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// A TCP socket (protocol 6).
    Tcp,
    /// An MPTCP socket (protocol 262), whether or not its connection fell back.
    Mptcp,
}

/// Address family of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`, also with IPv4-mapped addresses.
    Ipv6,
}

/// State of a connection; the numbers are the kernel's `TCP_*` (`include/net/tcp_states.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpState(pub u8);

impl TcpState {
    /// The SYN is not answered yet.
    pub const SYN_SENT: Self = Self(2);
    /// No connection: not yet, or no longer.
    pub const CLOSE: Self = Self(7);
    /// The socket accepts connections.
    pub const LISTEN: Self = Self(10);

    /// The name in RFC 9293 (except CLOSE, which is CLOSED there and printed as other tools do).
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 13] = [
            "?",
            "ESTABLISHED",
            "SYN_SENT",
            "SYN_RECV",
            "FIN_WAIT1",
            "FIN_WAIT2",
            "TIME_WAIT",
            "CLOSE",
            "CLOSE_WAIT",
            "LAST_ACK",
            "LISTEN",
            "CLOSING",
            "NEW_SYN_RECV",
        ];
        NAMES
            .get(usize::from(self.0))
            .copied()
            .filter(|_| self.0 != 0)
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&format!("STATE_{}", self.0)),
        }
    }
}

/// An errno, positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// `EOPNOTSUPP`: an MPTCP socket does not know the option.
    pub const EOPNOTSUPP: Self = Self(95);
    /// `ENOPROTOOPT`: a TCP socket does not know the option.
    pub const ENOPROTOOPT: Self = Self(92);
    /// `EPERM`.
    pub const EPERM: Self = Self(1);
    /// `ENOMEM`.
    pub const ENOMEM: Self = Self(12);
    /// `EACCES`.
    pub const EACCES: Self = Self(13);
    /// `ENFILE`: the system has too many files open.
    pub const ENFILE: Self = Self(23);
    /// `EMFILE`: the process has too many files open.
    pub const EMFILE: Self = Self(24);
    /// `EPROTONOSUPPORT`: a kernel without MPTCP refuses a socket.
    pub const EPROTONOSUPPORT: Self = Self(93);
    /// `EAFNOSUPPORT`.
    pub const EAFNOSUPPORT: Self = Self(97);
    /// `ENOBUFS`.
    pub const ENOBUFS: Self = Self(105);
    /// Something does not fit.
    pub const EINVAL: Self = Self(22);
    /// The address is in use.
    pub const EADDRINUSE: Self = Self(98);
    /// The host does not have the address.
    pub const EADDRNOTAVAIL: Self = Self(99);
    /// There is no connection.
    pub const ENOTCONN: Self = Self(107);
    /// A packet does not fit its connection.
    pub const EBADMSG: Self = Self(74);
    /// The network is unreachable.
    pub const ENETUNREACH: Self = Self(101);
    /// The connection was aborted at this end.
    pub const ECONNABORTED: Self = Self(103);
    /// No answer came.
    pub const ETIMEDOUT: Self = Self(110);
    /// The host is unreachable.
    pub const EHOSTUNREACH: Self = Self(113);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The errors of getsockopt, setsockopt and socket (from their manual pages, and from
        // security modules), and those with which TCP connections end.
        const NAMES: [(i32, &str); 33] = [
            (1, "EPERM"),
            (4, "EINTR"),
            (5, "EIO"),
            (9, "EBADF"),
            (11, "EAGAIN"),
            (12, "ENOMEM"),
            (13, "EACCES"),
            (14, "EFAULT"),
            (22, "EINVAL"),
            (23, "ENFILE"),
            (24, "EMFILE"),
            (38, "ENOSYS"),
            (32, "EPIPE"),
            (71, "EPROTO"),
            (74, "EBADMSG"),
            (88, "ENOTSOCK"),
            (92, "ENOPROTOOPT"),
            (93, "EPROTONOSUPPORT"),
            (94, "ESOCKTNOSUPPORT"),
            (95, "EOPNOTSUPP"),
            (97, "EAFNOSUPPORT"),
            (98, "EADDRINUSE"),
            (99, "EADDRNOTAVAIL"),
            (100, "ENETDOWN"),
            (101, "ENETUNREACH"),
            (103, "ECONNABORTED"),
            (104, "ECONNRESET"),
            (105, "ENOBUFS"),
            (107, "ENOTCONN"),
            (110, "ETIMEDOUT"),
            (111, "ECONNREFUSED"),
            (113, "EHOSTUNREACH"),
            (512, "ERESTARTSYS"),
        ];
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&format!("E{}", self.0)),
        }
    }
}

/// The socket option of a query.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Api {
    /// `getsockopt(fd, SOL_TCP, TCP_IS_MPTCP)`, Linux 6.10 and later.
    TcpIsMptcp,
    /// `getsockopt(fd, SOL_MPTCP, MPTCP_INFO)`: fails after a fallback. Used by Go.
    MptcpInfo,
    /// `getsockopt(fd, SOL_MPTCP, MPTCP_TCPINFO)`: fails after a fallback.
    MptcpTcpinfo,
    /// `getsockopt(fd, SOL_MPTCP, MPTCP_SUBFLOW_ADDRS)`: fails after a fallback.
    MptcpSubflowAddrs,
    /// `getsockopt(fd, SOL_MPTCP, MPTCP_FULL_INFO)`: fails after a fallback.
    MptcpFullInfo,
    /// `getsockopt(fd, SOL_SOCKET, SO_PROTOCOL)`: always `IPPROTO_MPTCP`, also after a fallback.
    SoProtocol,
}

impl Api {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::TcpIsMptcp,
        Self::MptcpInfo,
        Self::MptcpTcpinfo,
        Self::MptcpSubflowAddrs,
        Self::MptcpFullInfo,
        Self::SoProtocol,
    ];

    /// The name of the socket option.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TcpIsMptcp => "TCP_IS_MPTCP",
            Self::MptcpInfo => "MPTCP_INFO",
            Self::MptcpTcpinfo => "MPTCP_TCPINFO",
            Self::MptcpSubflowAddrs => "MPTCP_SUBFLOW_ADDRS",
            Self::MptcpFullInfo => "MPTCP_FULL_INFO",
            Self::SoProtocol => "SO_PROTOCOL",
        }
    }

    /// True if the answer shows whether a connection fell back.
    #[must_use]
    pub fn sees_fallbacks(self) -> bool {
        match self {
            Self::TcpIsMptcp
            | Self::MptcpInfo
            | Self::MptcpTcpinfo
            | Self::MptcpSubflowAddrs
            | Self::MptcpFullInfo => true,
            Self::SoProtocol => false,
        }
    }
}

/// The kernel's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is MPTCP (1).
    Mptcp,
    /// It is TCP (0): never was MPTCP, or fell back.
    Tcp,
    /// This kernel does not support the query; no information about the connection.
    Unsupported(Errno),
    /// The call failed for another reason.
    Failed(Errno),
    /// The call succeeded, but this attach method could not read the answer.
    Unknown,
}

impl Answer {
    /// The name as printed; `None` if the answer is unknown.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Mptcp => Some("mptcp"),
            Self::Tcp => Some("tcp"),
            Self::Unsupported(_) => Some("unsupported"),
            Self::Failed(_) => Some("failed"),
            Self::Unknown => None,
        }
    }

    /// The error that the caller got, if any.
    #[must_use]
    pub fn errno(self) -> Option<Errno> {
        match self {
            Self::Unsupported(errno) | Self::Failed(errno) => Some(errno),
            Self::Mptcp | Self::Tcp | Self::Unknown => None,
        }
    }
}

/// The calling process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// Process id in the tracer's PID namespace; `None` if the process is not in it.
    pub pid: Option<u32>,
    /// Thread id, in the same namespace.
    pub tid: Option<u32>,
    /// Process id in the initial PID namespace.
    pub host_pid: u32,
    /// Thread id in the initial PID namespace.
    pub host_tid: u32,
    /// Real user id, initial user namespace.
    pub uid: u32,
    /// Inode number of the cgroup (v2).
    pub cgroup_id: u64,
    /// Name of the thread: untrusted bytes, to be escaped before output.
    pub comm: String,
}

impl Process {
    /// Its process id for output: `?` if it has none in the tracer's PID namespace.
    #[must_use]
    pub fn number(&self) -> String {
        self.pid
            .map_or_else(|| "?".to_owned(), |pid| pid.to_string())
    }

    /// Its name for output, to be escaped: of a kernel thread with `kernel:` before it.
    #[must_use]
    pub fn title(&self) -> Cow<'_, str> {
        match self.pid {
            Some(0) if self.comm != KERNEL => format!("{KERNEL}:{}", self.comm).into(),
            Some(_) | None => self.comm.as_str().into(),
        }
    }
}

/// Name of the owner of a kernel socket that no kernel thread was seen to use.
const KERNEL: &str = "kernel";

/// The queried socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Socket {
    /// Its identity.
    pub id: SocketId,
    /// Its inode number.
    pub inode: Option<u64>,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Protocol that it was created with.
    pub protocol: Protocol,
    /// Address family.
    pub family: Family,
    /// State of the connection.
    pub state: TcpState,
    /// Local address and port; unspecified and 0 if it has none yet.
    pub local: SocketAddr,
    /// Remote address and port; unspecified and 0 if it has none yet.
    pub remote: SocketAddr,
}

/// An address as it is displayed: an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) is that of an
/// IPv4 peer on an IPv6 socket.
#[must_use]
pub fn displayed(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => (v4, addr.port()).into(),
        // Unchanged: it may have a zone.
        IpAddr::V6(_) => addr,
    }
}

/// One observed query with its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// When it was made, on `CLOCK_BOOTTIME`; when it was answered, if only that is observed.
    pub asked_at: Duration,
    /// From query to answer; `None` if only the answer is observed.
    pub latency: Option<Duration>,
    /// The calling process.
    pub process: Process,
    /// The queried socket.
    pub socket: Socket,
    /// Identity of the socket, if it is tracked.
    pub id: Option<ConnectionId>,
    /// When its connection began to connect, or was created by its listener, if known.
    pub connected_at: Option<Duration>,
    /// The socket option.
    pub api: Api,
    /// The kernel's answer.
    pub answer: Answer,
    /// The error that the caller got; `None` if the call succeeded.
    pub errno: Option<Errno>,
    /// Whether the connection of an MPTCP socket fell back; `None` if unknown.
    pub fell_back: Option<bool>,
    /// An earlier query on the same socket was not traced.
    pub after_untraced: bool,
    /// The attach method that observed it.
    pub rung: Rung,
    /// State bits of the MPTCP connection when it was answered, if they were read. Their meaning is
    /// calibrated, never assumed.
    pub state_bits: Option<u64>,
}

impl Query {
    /// When it was answered, on `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn answered_at(&self) -> Duration {
        self.asked_at + self.latency.unwrap_or_default()
    }

    /// Protocol that the socket was created with.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.socket.protocol
    }
}

/// A query with its wall clock time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryEvent {
    /// The query.
    pub query: Query,
    /// When it was made, wall clock.
    pub time: SystemTime,
    /// The verdict on the answer; `None` before it is reached.
    pub judgement: Option<Judgement>,
    /// How often the previous answer was repeated without a line of its own (`--coalesce`).
    pub repeats: u64,
}
