//! The lines that the lab writes, and reads back.

use std::io::Write;

use serde::{Deserialize, Serialize};

/// An address and a port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address.
    pub addr: String,
    /// The port.
    pub port: u16,
}

impl From<std::net::SocketAddr> for Endpoint {
    fn from(address: std::net::SocketAddr) -> Self {
        Self {
            addr: address.ip().to_string(),
            port: address.port(),
        }
    }
}

/// What one question got, as its caller saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Name of the case.
    pub case: String,
    /// Process that asked.
    pub pid: u32,
    /// Thread that asked.
    pub tid: u32,
    /// Errno, or none if the call succeeded.
    pub errno: Option<String>,
    /// What the kernel must have said, by the buffer where something was written, by how the socket was made
    /// where not: `mptcp`, `tcp`, `unsupported`, `failed`.
    pub answer: String,
    /// `SO_PROTOCOL` of the socket: 6, 262, or something else.
    pub protocol: Option<i32>,
    /// The case made an MPTCP socket whose connection fell back.
    pub fell_back: bool,
    /// Own address.
    pub local: Option<Endpoint>,
    /// The other end's address.
    pub remote: Option<Endpoint>,
    /// Inode number of the socket.
    pub inode: Option<u64>,
    /// The call came through the kernel's 32-bit entry.
    pub compat: bool,
}

/// A line of the asker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum AskerLine {
    /// A question.
    Asked(Asked),
    /// A case that cannot be made here.
    Skipped {
        /// Its name.
        case: String,
        /// Why.
        why: String,
    },
}

/// How a cell of the matrix came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Caller and tracer agree.
    Ok,
    /// They do not.
    Mismatch,
    /// The rung cannot be attached on this kernel.
    Unavailable,
    /// The case cannot be made on this kernel.
    Skipped,
}

/// A case on a rung.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the case.
    pub case: String,
    /// The rung.
    pub rung: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What the caller was told.
    pub caller: String,
    /// What the tracer says it was told.
    pub traced: String,
    /// Why it is not ok.
    pub why: String,
}

/// Result of a flood.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Flooded {
    /// The rung.
    pub rung: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Threads that asked.
    pub threads: u64,
    /// Questions asked.
    pub queries: u64,
    /// Lines printed.
    pub lines: u64,
    /// Losses that the tracer counted.
    pub lost: u64,
    /// Lines whose socket was printed before.
    pub duplicates: u64,
    /// Lines about a socket or from a thread that is not the one that asked.
    pub mixed_up: u64,
    /// Lines with another answer than the socket gives.
    pub wrong_answer: u64,
    /// Questions that are neither printed nor counted as lost.
    pub unaccounted: i64,
    /// How long it took.
    pub seconds: f64,
    /// In a few words what the caller did.
    pub caller: String,
    /// In a few words what was traced.
    pub traced: String,
    /// Why it is not ok.
    pub why: String,
}

/// A line of `matrix` and `flood`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum MatrixLine {
    /// Which kernel this is.
    Host {
        /// `uname -r`.
        kernel: String,
    },
    /// One cell.
    Cell(Cell),
    /// One flood.
    Flood(Flooded),
    /// The end.
    Summary {
        /// Cells that are right.
        ok: u64,
        /// Cells that are wrong.
        mismatch: u64,
        /// Cells of rungs that are not to be had.
        unavailable: u64,
        /// Cases that cannot be made.
        skipped: u64,
    },
}

/// Writes one JSON line and flushes.
///
/// # Errors
///
/// Fails if nobody reads it any more.
pub fn write_line(out: &mut impl Write, line: &impl Serialize) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    out.write_all(&bytes)?;
    out.flush()?;
    Ok(())
}

/// The name of an errno that `getsockopt` can end with.
#[must_use]
pub fn errno_name(errno: i32) -> String {
    match errno {
        libc::EFAULT => "EFAULT".into(),
        libc::EINVAL => "EINVAL".into(),
        libc::EBADF => "EBADF".into(),
        libc::ENOTSOCK => "ENOTSOCK".into(),
        libc::ENOSYS => "ENOSYS".into(),
        libc::ENOPROTOOPT => "ENOPROTOOPT".into(),
        libc::EOPNOTSUPP => "EOPNOTSUPP".into(),
        other => format!("E{other}"),
    }
}
