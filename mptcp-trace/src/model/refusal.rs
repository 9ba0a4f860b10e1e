//! Refusals because an application uses MPTCP: an option that a TCP socket would have accepted, or
//! the socket itself.

use std::time::{Duration, SystemTime};

use super::{Errno, Family, Process, Rung, Socket};

/// What the kernel refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// A socket option, to an MPTCP socket whose connection has not fallen back.
    Option {
        /// The socket.
        socket: Socket,
        /// Level of the option.
        level: u32,
        /// Number of the option.
        optname: u32,
        /// True for `setsockopt`, false for `getsockopt`.
        is_set: bool,
    },
    /// An MPTCP socket.
    Socket {
        /// Its address family.
        family: Family,
        /// Inode number of the network namespace.
        netns: u32,
    },
}

/// One refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// When it happened, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// The calling process.
    pub process: Process,
    /// What the kernel refused.
    pub what: Refused,
    /// The errno of the call.
    pub errno: Errno,
    /// The attach method that observed it.
    pub rung: Rung,
}

/// A refusal with its wall clock time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusalEvent {
    /// The refusal.
    pub refusal: Refusal,
    /// When it happened, wall clock.
    pub time: SystemTime,
}

impl Refusal {
    /// An explanation, in one sentence.
    #[must_use]
    pub fn why(&self) -> &'static str {
        match &self.what {
            Refused::Option { is_set: true, .. } => {
                "MPTCP sockets of this kernel do not support this option, TCP sockets may; the \
                 connection continues without it"
            }
            Refused::Option { is_set: false, .. } => {
                "MPTCP sockets of this kernel do not support this option, TCP sockets may"
            }
            Refused::Socket { family, .. } => match self.errno {
                Errno::ENOPROTOOPT => "net.mptcp.enabled is 0 in this network namespace",
                Errno::EPROTONOSUPPORT if *family == Family::Ipv6 => {
                    "this kernel has no MPTCP for IPv6 (CONFIG_MPTCP_IPV6)"
                }
                Errno::EPROTONOSUPPORT => "this kernel has no MPTCP",
                Errno::EPERM | Errno::EACCES => "a security module forbids it",
                Errno::EAFNOSUPPORT => "this kernel does not have this address family",
                Errno::EMFILE | Errno::ENFILE => "too many files are open",
                Errno::ENOMEM | Errno::ENOBUFS => "not enough memory",
                _ => "for a reason unrelated to MPTCP",
            },
        }
    }

    /// The name of the refused option, if it is an option of TCP.
    #[must_use]
    pub fn option(&self) -> Option<&'static str> {
        match self.what {
            Refused::Option { level, optname, .. } => option_name(level, optname),
            Refused::Socket { .. } => None,
        }
    }

    /// The system call that failed.
    #[must_use]
    pub fn call(&self) -> &'static str {
        match self.what {
            Refused::Option { is_set: true, .. } => "setsockopt",
            Refused::Option { is_set: false, .. } => "getsockopt",
            Refused::Socket { .. } => "socket",
        }
    }
}

/// The name of an option of level `SOL_TCP` (`include/uapi/linux/tcp.h`).
fn option_name(level: u32, optname: u32) -> Option<&'static str> {
    const SOL_TCP: u32 = 6;
    const NAMES: [&str; 47] = [
        "",
        "TCP_NODELAY",
        "TCP_MAXSEG",
        "TCP_CORK",
        "TCP_KEEPIDLE",
        "TCP_KEEPINTVL",
        "TCP_KEEPCNT",
        "TCP_SYNCNT",
        "TCP_LINGER2",
        "TCP_DEFER_ACCEPT",
        "TCP_WINDOW_CLAMP",
        "TCP_INFO",
        "TCP_QUICKACK",
        "TCP_CONGESTION",
        "TCP_MD5SIG",
        "",
        "TCP_THIN_LINEAR_TIMEOUTS",
        "TCP_THIN_DUPACK",
        "TCP_USER_TIMEOUT",
        "TCP_REPAIR",
        "TCP_REPAIR_QUEUE",
        "TCP_QUEUE_SEQ",
        "TCP_REPAIR_OPTIONS",
        "TCP_FASTOPEN",
        "TCP_TIMESTAMP",
        "TCP_NOTSENT_LOWAT",
        "TCP_CC_INFO",
        "TCP_SAVE_SYN",
        "TCP_SAVED_SYN",
        "TCP_REPAIR_WINDOW",
        "TCP_FASTOPEN_CONNECT",
        "TCP_ULP",
        "TCP_MD5SIG_EXT",
        "TCP_FASTOPEN_KEY",
        "TCP_FASTOPEN_NO_COOKIE",
        "TCP_ZEROCOPY_RECEIVE",
        "TCP_INQ",
        "TCP_TX_DELAY",
        "TCP_AO_ADD_KEY",
        "TCP_AO_DEL_KEY",
        "TCP_AO_INFO",
        "TCP_AO_GET_KEY",
        "TCP_AO_REPAIR",
        "TCP_IS_MPTCP",
        "TCP_RTO_MAX_MS",
        "TCP_RTO_MIN_US",
        "TCP_DELACK_MAX_US",
    ];
    if level != SOL_TCP {
        return None;
    }
    let name = NAMES.get(usize::try_from(optname).ok()?)?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_tcp_have_the_names_of_the_kernels_header() {
        for (level, optname, name) in [
            (6, 1, Some("TCP_NODELAY")),
            (6, 14, Some("TCP_MD5SIG")),
            (6, 15, None),
            (6, 23, Some("TCP_FASTOPEN")),
            (6, 31, Some("TCP_ULP")),
            (6, 43, Some("TCP_IS_MPTCP")),
            (6, 46, Some("TCP_DELACK_MAX_US")),
            (6, 47, None),
            (6, u32::MAX, None),
            (0, 1, None),
            (41, 31, None),
        ] {
            assert_eq!(option_name(level, optname), name, "{level}, {optname}");
        }
    }
}
