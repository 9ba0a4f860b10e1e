//! The lines that the lab writes and reads.

use serde::{Deserialize, Serialize};

pub use mptcp_trace_scene::{lines::write_line, net::Endpoint, question::Truth, sys::errno_name};

/// Result of one query, from the caller's point of view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Name of the case.
    pub case: String,
    /// Querying process.
    pub pid: u32,
    /// Querying thread.
    pub tid: u32,
    /// Number of the query in this run, in order of time.
    pub seq: u64,
    /// Return value of the call.
    pub rc: i32,
    /// Errno, or none if the call succeeded.
    pub errno: Option<String>,
    /// Bytes that the kernel wrote as its answer.
    pub value_bytes: Vec<u8>,
    /// Length that the caller passed; none for an invalid `optlen` pointer.
    pub optlen_in: Option<i32>,
    /// Length that the kernel returned; none for an invalid `optlen` pointer.
    pub optlen_out: Option<i32>,
    /// Derived from the buffer if the kernel wrote to it, otherwise from how the socket was
    /// created.
    pub truth: Truth,
    /// `SO_PROTOCOL` of the socket: 6, 262, or another value.
    pub so_protocol: Option<i32>,
    /// `ipv4`, `ipv6`, or none for other families.
    pub family: Option<String>,
    /// TCP state, with the names of RFC 9293.
    pub state: Option<String>,
    /// Whether the case created an MPTCP socket whose connection fell back.
    pub fell_back: bool,
    /// `getsockname`.
    pub local: Option<Endpoint>,
    /// `getpeername`; the unspecified address and port 0 if the socket has no peer.
    pub remote: Option<Endpoint>,
    /// Target of a connecting socket: it has no peer yet, but the kernel knows this address.
    pub connecting_to: Option<Endpoint>,
    /// Inode number of the socket.
    pub inode: Option<u64>,
    /// Whether the call came through the kernel's 32-bit entry.
    pub compat: bool,
}

/// A line of the asker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum AskerLine {
    /// A query.
    Asked(Box<Asked>),
    /// A case that cannot run here.
    Skipped {
        /// Its name.
        case: String,
        /// Why.
        why: String,
    },
}

/// Outcome of a cell of the matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Caller and tracer agree.
    Ok,
    /// Caller and tracer differ.
    Mismatch,
    /// The attach method is unavailable on this kernel.
    Unavailable,
    /// The case cannot run on this kernel.
    Skipped,
}

/// One case with one attach method.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the case.
    pub case: String,
    /// Attach method.
    pub rung: String,
    /// Outcome of the comparison.
    pub outcome: Outcome,
    /// Answer to the caller.
    pub caller: String,
    /// Answer in the tracer's line.
    pub traced: String,
    /// Explanation if the outcome is not ok.
    pub why: String,
    /// What was wrong in the first try, if this is the result of the second one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_try: Option<String>,
    /// Suite of the cell, where several suites report together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
}

/// Result of a flood.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Flooded {
    /// Attach method.
    pub rung: String,
    /// Outcome of the comparison.
    pub outcome: Outcome,
    /// Querying threads.
    pub threads: u64,
    /// Queries made.
    pub queries: u64,
    /// Lines printed.
    pub lines: u64,
    /// Losses that the tracer counted.
    pub lost: u64,
    /// Surplus lines about a socket that already had one.
    pub duplicates: u64,
    /// Lines whose socket or thread does not match the query.
    pub mixed_up: u64,
    /// Lines whose answer differs from the socket's.
    pub wrong_answer: u64,
    /// Queries neither printed nor counted as lost.
    pub unaccounted: i64,
    /// Duration in seconds.
    pub seconds: f64,
    /// Summary of what the caller did.
    pub caller: String,
    /// Summary of what was traced.
    pub traced: String,
    /// Explanation if the outcome is not ok.
    pub why: String,
}

/// Phases of a suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// From the start of the tracer until it is live.
    Start,
    /// The traced actions.
    Play,
    /// The scenarios of `verdicts`, within `Play`.
    Scenarios,
    /// The recipes of `fallbacks`, within `Play`.
    Recipes,
    /// The queries of `matrix`, within `Play`.
    Queries,
    /// Until the tracer has printed the lines that it holds back, and has exited.
    End,
    /// The comparison, including replays.
    Judge,
}

/// Duration of one phase of a suite with one attach method.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Attach method.
    pub rung: String,
    /// The phase.
    pub phase: Phase,
    /// Duration in seconds.
    pub seconds: f64,
}

/// A line of `matrix` and `flood`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum MatrixLine {
    /// The running kernel.
    Host {
        /// `uname -r`.
        kernel: String,
    },
    /// One cell.
    Cell(Cell),
    /// One flood.
    Flood(Flooded),
    /// Duration of a phase.
    Phase(PhaseTime),
    /// The final line.
    Summary {
        /// Number of cells that are right.
        ok: u64,
        /// Number of cells that are wrong.
        mismatch: u64,
        /// Number of cells whose attach method is unavailable.
        unavailable: u64,
        /// Number of cases that cannot run.
        skipped: u64,
    },
}
