//! Options that an application may set or ask for although its socket may be MPTCP: a row of a table each, and the one
//! raw call. Whether the kernel takes them is not for this file to know.

use std::os::fd::RawFd;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{
    question::SOL_TCP,
    sys::{self, LowBuffer, errno_name},
};

/// One option, and what is done with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Its name, if it has one.
    pub name: Option<&'static str>,
    /// It is set; else it is asked for.
    pub is_set: bool,
    /// Its level.
    pub level: i32,
    /// Its number.
    pub optname: i32,
    /// What it is set to; as much as this is asked for.
    pub value: &'static [u8],
}

/// The same on its way to who does it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    is_set: bool,
    level: i32,
    optname: i32,
    value: Vec<u8>,
}

impl Choice {
    /// The system call.
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
    /// Does it: `ok`, or the name of the errno.
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
/// A number that no level of options has.
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

/// What is tried on a socket, in this order. None of them changes a connection that takes it.
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
