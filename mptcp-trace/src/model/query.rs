//! A question of an application about its socket, and the kernel's answer.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use super::{ConnectionId, Judgement, Rung};

/// A socket as long as it lives: the kernel's address of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketId(pub u64);

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// What the application holds.
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
    /// Waits for the answer to its SYN.
    pub const SYN_SENT: Self = Self(2);
    /// No connection: not yet, or not any more.
    pub const CLOSE: Self = Self(7);
    /// Waits for connections.
    pub const LISTEN: Self = Self(10);

    /// The name in RFC 9293's words (the kernel's CLOSE is CLOSED there, and is kept as tools print it).
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

/// An error number of the kernel, positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// `EOPNOTSUPP`: how an MPTCP socket refuses an option that it does not know.
    pub const EOPNOTSUPP: Self = Self(95);
    /// `ENOPROTOOPT`: how a TCP socket refuses an option that it does not know.
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
    /// `EPROTONOSUPPORT`: how a kernel without MPTCP refuses a socket.
    pub const EPROTONOSUPPORT: Self = Self(93);
    /// `EAFNOSUPPORT`.
    pub const EAFNOSUPPORT: Self = Self(97);
    /// `ENOBUFS`.
    pub const ENOBUFS: Self = Self(105);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The errors that getsockopt, setsockopt and socket can end with (their manual pages, and what security modules
        // return).
        const NAMES: [(i32, &str); 21] = [
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
            (88, "ENOTSOCK"),
            (92, "ENOPROTOOPT"),
            (93, "EPROTONOSUPPORT"),
            (94, "ESOCKTNOSUPPORT"),
            (95, "EOPNOTSUPP"),
            (97, "EAFNOSUPPORT"),
            (105, "ENOBUFS"),
            (107, "ENOTCONN"),
            (512, "ERESTARTSYS"),
        ];
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&format!("E{}", self.0)),
        }
    }
}

/// How the application asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Api {
    /// `getsockopt(fd, SOL_TCP, TCP_IS_MPTCP)`, Linux 6.10 and later.
    TcpIsMptcp,
    /// `getsockopt(fd, SOL_MPTCP, MPTCP_INFO)`: fails where the connection fell back. What Go asks.
    MptcpInfo,
    /// `getsockopt(fd, SOL_MPTCP, MPTCP_TCPINFO)`: the same.
    MptcpTcpinfo,
    /// `getsockopt(fd, SOL_MPTCP, MPTCP_SUBFLOW_ADDRS)`: the same.
    MptcpSubflowAddrs,
    /// `getsockopt(fd, SOL_MPTCP, MPTCP_FULL_INFO)`: the same.
    MptcpFullInfo,
    /// `getsockopt(fd, SOL_SOCKET, SO_PROTOCOL)`: stays `IPPROTO_MPTCP` whatever happens.
    SoProtocol,
}

impl Api {
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

    /// True if the answer can tell that a connection fell back.
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

/// What the kernel said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is MPTCP (1).
    Mptcp,
    /// It is TCP (0): never was MPTCP, or fell back.
    Tcp,
    /// This kernel does not know the question; says nothing about the connection.
    Unsupported(Errno),
    /// The call failed for a reason of its own.
    Failed(Errno),
    /// The call succeeded, but this rung could not learn what it said.
    Unknown,
}

impl Answer {
    /// The word for it; none where the answer could not be learnt.
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

    /// The error the caller got, if it got one.
    #[must_use]
    pub fn errno(self) -> Option<Errno> {
        match self {
            Self::Unsupported(errno) | Self::Failed(errno) => Some(errno),
            Self::Mptcp | Self::Tcp | Self::Unknown => None,
        }
    }
}

/// Who asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// Process id where the tracer stands: in its PID namespace; none if the process is not in there.
    pub pid: Option<u32>,
    /// Thread id, in the same namespace.
    pub tid: Option<u32>,
    /// Process id in the initial PID namespace, which every process has.
    pub host_pid: u32,
    /// Thread id in the initial PID namespace.
    pub host_tid: u32,
    /// Real user id, initial user namespace.
    pub uid: u32,
    /// Inode number of the cgroup (v2).
    pub cgroup_id: u64,
    /// Name of the thread: bytes from outside, not yet fit for a terminal.
    pub comm: String,
}

impl Process {
    /// Its process id for people: `?` where it has none in the tracer's PID namespace.
    #[must_use]
    pub fn number(&self) -> String {
        self.pid
            .map_or_else(|| "?".to_owned(), |pid| pid.to_string())
    }
}

/// About which socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Socket {
    /// Its identity.
    pub id: SocketId,
    /// Its inode number.
    pub inode: Option<u64>,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// What the application holds.
    pub protocol: Protocol,
    /// Address family.
    pub family: Family,
    /// State of the connection.
    pub state: TcpState,
    /// Local address and port; unspecified and 0 where there is none yet.
    pub local: SocketAddr,
    /// Remote address and port; unspecified and 0 where there is none yet.
    pub remote: SocketAddr,
}

/// One question with its answer, as observed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// When it was asked, on `CLOCK_BOOTTIME`; when it was answered, where only that is seen.
    pub asked_at: Duration,
    /// From question to answer; none where only the answer is seen.
    pub latency: Option<Duration>,
    /// Who asked.
    pub process: Process,
    /// About what.
    pub socket: Socket,
    /// The identity of the socket, if it was noted down when it was made.
    pub id: Option<ConnectionId>,
    /// When its connection began to connect, or was born of its listener, if that is known.
    pub connected_at: Option<Duration>,
    /// How.
    pub api: Api,
    /// What the kernel said.
    pub answer: Answer,
    /// The error that the caller got, whatever it means; none if the call succeeded.
    pub errno: Option<Errno>,
    /// An MPTCP socket whose connection fell back; none where that could not be learnt.
    pub fell_back: Option<bool>,
    /// A question about the same socket before this one was not traced.
    pub after_untold: bool,
    /// How it was seen.
    pub rung: Rung,
    /// State bits of the MPTCP connection when it was answered, where they were read. What they mean is
    /// calibrated, never assumed.
    pub state_bits: Option<u64>,
}

impl Query {
    /// When it was answered, on `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn answered_at(&self) -> Duration {
        self.asked_at + self.latency.unwrap_or_default()
    }

    /// What the application holds.
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
    /// When it was asked, wall clock.
    pub time: SystemTime,
    /// What is concluded of the answer; none before that.
    pub judgement: Option<Judgement>,
    /// How often the answer before this one was repeated, without a line of its own (`--coalesce`).
    pub repeats: u64,
}
