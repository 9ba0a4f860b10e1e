//! The question itself: one raw system call, and what its caller can conclude from what comes back.

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

/// What the caller was told, in one word.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Truth {
    /// It is MPTCP.
    Mptcp,
    /// It is TCP.
    Tcp,
    /// This kernel does not know the option.
    Unsupported,
    /// The call failed otherwise.
    Failed,
    /// The question was about something that is no TCP socket: no query.
    OtherSocket,
    /// The question was another one: no query.
    OtherOption,
}

/// What the application holds, by how it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// TCP, MPTCP, or none of both.
    pub kind: Option<Kind>,
    /// An MPTCP socket whose connection fell back.
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

/// Through which door of the kernel the question goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// `getsockopt`.
    Native,
    /// `getsockopt` of a 32-bit program.
    Compat,
    /// `socketcall` of a 32-bit program.
    Socketcall,
}

/// What an application can ask to learn whether its connection is MPTCP.
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

/// Asks in one of these ways, as simply as it can be done: a word for what came back.
///
/// # Errors
///
/// Fails if the kernel says that all is well, and writes nothing.
pub fn ask(fd: RawFd, api: Api) -> anyhow::Result<String> {
    let (level, option, length) = match api {
        Api::TcpIsMptcp => (SOL_TCP, TCP_IS_MPTCP, 4),
        // What Go does.
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
        // Its own size stands at the beginning; everything else is zero: no room for any subflow.
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

/// How the question is put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// Level of the option.
    pub level: i32,
    /// The option.
    pub option: i32,
    /// What stands in `*optlen`.
    pub optlen: i32,
    /// `optval` points nowhere.
    pub bad_optval: bool,
    /// `optlen` points nowhere.
    pub bad_optlen: bool,
    /// Which entry of the kernel.
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

/// What came of one question.
pub struct Reply {
    /// The return value, and errno.
    pub returned: Returned,
    /// The bytes that the kernel wrote into the caller's buffer.
    pub value: Vec<u8>,
    /// Length that the kernel gave back; none where that pointer points nowhere.
    pub optlen: Option<i32>,
}

/// A byte that no answer has: where it stands, nothing was written.
const UNTOUCHED: u8 = 0xaa;
/// An address that no process has anything at.
const NOWHERE: u32 = 1;

/// The one raw call.
pub fn question(fd: RawFd, form: Form) -> anyhow::Result<Reply> {
    // Every door is given the same buffers, so that nothing but the door differs.
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

/// What the caller was told.
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
        // Success without a written answer (optlen 0): how the socket was made tells what it is.
        (0, None) if holding.kind == Some(Kind::Mptcp) && !holding.fell_back => Truth::Mptcp,
        (0, None) => Truth::Tcp,
        _ => Truth::Failed,
    }
}
