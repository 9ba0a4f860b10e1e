//! Socket options that an application may set or get on an MPTCP socket: one table row each, and
//! one function that makes the raw call. Whether the kernel accepts them is decided elsewhere.

use std::os::fd::RawFd;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{
    query::SOL_TCP,
    sys::{self, LowBuffer, errno_name},
};

/// One option and the operation on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Name of the option, if it has one.
    pub name: Option<&'static str>,
    /// Whether to set the option; otherwise get it.
    pub is_set: bool,
    /// `level` argument.
    pub level: i32,
    /// `optname` argument.
    pub optname: i32,
    /// Value to set; for a get, its length is the buffer size.
    pub value: &'static [u8],
}

/// A [`Choice`] in serializable form, as sent to an actor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    is_set: bool,
    level: i32,
    optname: i32,
    value: Vec<u8>,
}

impl Choice {
    /// Name of the system call.
    #[must_use]
    pub fn call(self) -> &'static str {
        if self.is_set {
            "setsockopt"
        } else {
            "getsockopt"
        }
    }
}

impl From<Choice> for Attempt {
    fn from(choice: Choice) -> Self {
        Self {
            is_set: choice.is_set,
            level: choice.level,
            optname: choice.optname,
            value: choice.value.to_vec(),
        }
    }
}

impl Attempt {
    /// Makes the call; returns `ok`, or the name of the errno.
    pub fn on(&self, fd: RawFd) -> anyhow::Result<String> {
        let returned = if self.is_set {
            sys::setsockopt(fd, self.level, self.optname, &self.value)
        } else {
            const LENGTH: u32 = 0;
            const VALUE: u32 = 1;
            let buffer = LowBuffer::new().context("cannot map memory below 4 GiB")?;
            buffer.set(LENGTH, i32::try_from(self.value.len())?);
            let (value, length) = (buffer.word(VALUE), buffer.word(LENGTH));
            sys::getsockopt(
                fd,
                self.level,
                self.optname,
                value as usize,
                length as usize,
            )
        };
        Ok(match returned.errno {
            0 => "ok".to_owned(),
            errno => errno_name(errno),
        })
    }
}

/// Bytes of `struct tcp_md5sig`.
const MD5SIG_BYTES: usize = 216;
/// An option number that no level defines.
const NO_OPTION: i32 = 200;
const OFF: &[u8] = &[0; 4];

const fn set(name: &'static str, optname: i32, value: &'static [u8]) -> Choice {
    Choice {
        name: Some(name),
        is_set: true,
        level: SOL_TCP,
        optname,
        value,
    }
}

const fn unknown(is_set: bool, level: i32) -> Choice {
    Choice {
        name: None,
        is_set,
        level,
        optname: NO_OPTION,
        value: OFF,
    }
}

/// The options tried on a socket, in this order. None of them changes a connection that accepts it.
pub const CHOICES: &[Choice] = &[
    set("TCP_MD5SIG", 14, &[0; MD5SIG_BYTES]),
    set("TCP_ULP", 31, b"tls"),
    set("TCP_FASTOPEN", 23, OFF),
    set("TCP_FASTOPEN_CONNECT", 30, OFF),
    set("TCP_FASTOPEN_KEY", 33, &[7; 16]),
    set("TCP_FASTOPEN_NO_COOKIE", 34, OFF),
    unknown(true, SOL_TCP),
    unknown(false, SOL_TCP),
    unknown(true, libc::SOL_IP),
    unknown(false, libc::SOL_IPV6),
];
