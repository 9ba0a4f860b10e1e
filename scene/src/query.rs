//! One query as a raw system call, and what its caller can conclude from the result.

use std::os::fd::RawFd;

use anyhow::{Context as _, ensure};

use crate::{
    net::Kind,
    sys::{self, LowBuffer, Returned, errno_name},
};

/// `SOL_TCP`.
pub const SOL_TCP: i32 = 6;
/// `TCP_IS_MPTCP`, Linux 6.10 and later.
pub const TCP_IS_MPTCP: i32 = 43;

/// What the query reports to its caller.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Truth {
    /// The connection is MPTCP.
    Mptcp,
    /// The connection is TCP.
    Tcp,
    /// This kernel does not know the option.
    Unsupported,
    /// The call failed otherwise.
    Failed,
    /// The socket is not a TCP socket, so this is no query.
    OtherSocket,
    /// Another option, so this is no query.
    OtherOption,
}

/// The application's socket, by how it was created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// TCP, MPTCP, or neither.
    pub kind: Option<Kind>,
    /// Whether it is an MPTCP socket whose connection fell back.
    pub fell_back: bool,
}

impl Holding {
    /// `SO_PROTOCOL` of such a socket.
    #[must_use]
    pub fn protocol(self) -> Option<i32> {
        self.kind.map(|kind| match kind {
            Kind::Tcp => libc::IPPROTO_TCP,
            Kind::Mptcp => libc::IPPROTO_MPTCP,
        })
    }
}

/// Kernel entry point of the query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// `getsockopt`.
    Native,
    /// `getsockopt` of a 32-bit program.
    Compat,
    /// `socketcall` of a 32-bit program.
    Socketcall,
}

/// APIs that report whether a connection is MPTCP.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `TCP_IS_MPTCP`.
    #[default]
    TcpIsMptcp,
    /// `MPTCP_INFO`.
    MptcpInfo,
    /// `MPTCP_TCPINFO`.
    MptcpTcpinfo,
    /// `MPTCP_SUBFLOW_ADDRS`.
    MptcpSubflowAddrs,
    /// `MPTCP_FULL_INFO`.
    MptcpFullInfo,
    /// `SO_PROTOCOL`.
    SoProtocol,
}

/// `SOL_MPTCP`.
const SOL_MPTCP: i32 = 284;
/// Bytes of `struct mptcp_subflow_data`.
const SUBFLOW_DATA_BYTES: i32 = 16;
/// Bytes of `struct mptcp_full_info` up to `mptcp_info`, which may be left out.
const FULL_INFO_BYTES: i32 = 40;

/// Queries with one of these APIs in its simplest form; returns the answer as a word.
///
/// # Errors
///
/// Fails if the kernel reports success but writes nothing.
pub fn ask(fd: RawFd, api: Api) -> anyhow::Result<String> {
    let (level, option, length) = match api {
        Api::TcpIsMptcp => (SOL_TCP, TCP_IS_MPTCP, 4),
        // As Go does.
        Api::MptcpInfo => (SOL_MPTCP, 1, 4),
        Api::MptcpTcpinfo => (SOL_MPTCP, 2, SUBFLOW_DATA_BYTES),
        Api::MptcpSubflowAddrs => (SOL_MPTCP, 3, SUBFLOW_DATA_BYTES),
        Api::MptcpFullInfo => (SOL_MPTCP, 4, FULL_INFO_BYTES),
        Api::SoProtocol => (libc::SOL_SOCKET, libc::SO_PROTOCOL, 4),
    };
    let buffer = LowBuffer::new().context("cannot map memory below 4 GiB")?;
    const LENGTH: u32 = 0;
    const VALUE: u32 = 2;
    buffer.set(LENGTH, length);
    const UNTOUCHED: i32 = -1;
    match api {
        Api::TcpIsMptcp | Api::SoProtocol => buffer.set(VALUE, UNTOUCHED),
        // The structure starts with its own size; everything else is zero: no room for subflows.
        Api::MptcpTcpinfo | Api::MptcpSubflowAddrs => buffer.set(VALUE, SUBFLOW_DATA_BYTES),
        Api::MptcpInfo | Api::MptcpFullInfo => {}
    }
    let returned = sys::getsockopt(
        fd,
        level,
        option,
        buffer.word(VALUE) as usize,
        buffer.word(LENGTH) as usize,
    );
    Ok(match (returned.errno, api) {
        (0, Api::TcpIsMptcp | Api::SoProtocol) => {
            let value = buffer.get(VALUE);
            ensure!(value != UNTOUCHED, "the kernel answered nothing");
            value.to_string()
        }
        (0, Api::MptcpInfo | Api::MptcpTcpinfo | Api::MptcpSubflowAddrs | Api::MptcpFullInfo) => {
            "ok".to_owned()
        }
        (errno, _) => errno_name(errno),
    })
}

/// The token of a connection (`MPTCP_INFO`, `mptcp_info.mptcpi_token`).
///
/// # Errors
///
/// Fails if the socket is not MPTCP.
pub fn token(fd: RawFd) -> anyhow::Result<u32> {
    const INFO: i32 = 1;
    /// Words of the structure, of which the fourth is the token.
    const BYTES: u32 = 16;
    const TOKEN: u32 = 3;
    let buffer = LowBuffer::new().context("cannot map memory below 4 GiB")?;
    const LENGTH: u32 = 0;
    const VALUE: u32 = 2;
    buffer.set(LENGTH, BYTES as i32);
    let returned = sys::getsockopt(
        fd,
        SOL_MPTCP,
        INFO,
        buffer.word(VALUE) as usize,
        buffer.word(LENGTH) as usize,
    );
    ensure!(returned.errno == 0, "MPTCP_INFO: errno {}", returned.errno);
    Ok(buffer.get(VALUE + TOKEN) as u32)
}

/// Arguments of the query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// `level` argument.
    pub level: i32,
    /// `optname` argument.
    pub option: i32,
    /// Value of `*optlen`.
    pub optlen: i32,
    /// Pass an invalid `optval` pointer.
    pub bad_optval: bool,
    /// Pass an invalid `optlen` pointer.
    pub bad_optlen: bool,
    /// Kernel entry point.
    pub door: Door,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            level: SOL_TCP,
            option: TCP_IS_MPTCP,
            optlen: 4,
            bad_optval: false,
            bad_optlen: false,
            door: Door::Native,
        }
    }
}

/// Result of one query.
pub struct Reply {
    /// Return value and errno.
    pub returned: Returned,
    /// Bytes that the kernel wrote to the caller's buffer.
    pub value: Vec<u8>,
    /// Length that the kernel returned; none if the `optlen` pointer is invalid.
    pub optlen: Option<i32>,
}

/// Fill byte that occurs in no answer: where it remains, the kernel wrote nothing.
const UNTOUCHED: u8 = 0xaa;
/// An unmapped address.
const NOWHERE: u32 = 1;

/// Makes the raw call.
pub fn query(fd: RawFd, form: Form) -> anyhow::Result<Reply> {
    // Every entry point gets the same buffers, so that only the entry point differs.
    let buffer = LowBuffer::new().context("cannot map memory below 4 GiB")?;
    const VALUE: [u32; 2] = [0, 1];
    const LENGTH: u32 = 2;
    const ARGUMENTS: u32 = 4;
    for word in VALUE {
        buffer.set(word, i32::from_ne_bytes([UNTOUCHED; 4]));
    }
    buffer.set(LENGTH, form.optlen);
    let pointer = |bad: bool, word: u32| if bad { NOWHERE } else { buffer.word(word) };
    let optval = pointer(form.bad_optval, VALUE[0]);
    let optlen = pointer(form.bad_optlen, LENGTH);
    let returned = match form.door {
        Door::Native => sys::getsockopt(
            fd,
            form.level,
            form.option,
            optval as usize,
            optlen as usize,
        ),
        Door::Compat => sys::getsockopt_32(fd, form.level, form.option, optval, optlen),
        Door::Socketcall => {
            let pointers = [optval, optlen].map(u32::cast_signed);
            let arguments = [fd, form.level, form.option, pointers[0], pointers[1]];
            for (word, argument) in (ARGUMENTS..).zip(arguments) {
                buffer.set(word, argument);
            }
            sys::getsockopt_socketcall(buffer.word(ARGUMENTS))
        }
    };
    let mut value = VALUE.map(|word| buffer.get(word).to_ne_bytes()).concat();
    let written = value.iter().rposition(|&byte| byte != UNTOUCHED);
    value.truncate(written.map_or(0, |last| last + 1));
    Ok(Reply {
        returned,
        value,
        optlen: (!form.bad_optlen).then(|| buffer.get(LENGTH)),
    })
}

/// What the query reports to its caller.
pub fn truth(reply: &Reply, form: Form, holding: Holding) -> Truth {
    if (form.level, form.option) != (SOL_TCP, TCP_IS_MPTCP) {
        return Truth::OtherOption;
    }
    if holding.kind.is_none() {
        return Truth::OtherSocket;
    }
    match (reply.returned.errno, reply.value.first()) {
        (libc::EOPNOTSUPP | libc::ENOPROTOOPT, _) => Truth::Unsupported,
        (0, Some(0)) => Truth::Tcp,
        (0, Some(1)) => Truth::Mptcp,
        // Success without a written answer (optlen 0): decide from how the socket was created.
        (0, None) if holding.kind == Some(Kind::Mptcp) && !holding.fell_back => Truth::Mptcp,
        (0, None) => Truth::Tcp,
        _ => Truth::Failed,
    }
}
