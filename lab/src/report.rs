//! The lines that the lab writes, and reads back.

use std::io::Write;

use serde::{Deserialize, Serialize};

pub use mptcp_trace_scene::{lines::write_line, net::Endpoint, question::Truth, sys::errno_name};

/// What one question got, as its caller saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Name of the case.
    pub case: String,
    /// Process that asked.
    pub pid: u32,
    /// Thread that asked.
    pub tid: u32,
    /// Number of the question in this run: the order in which they were asked.
    pub seq: u64,
    /// What the call returned.
    pub rc: i32,
    /// Errno, or none if the call succeeded.
    pub errno: Option<String>,
    /// The bytes that the kernel wrote as its answer.
    pub value_bytes: Vec<u8>,
    /// Length that the caller offered; none where that pointer points nowhere.
    pub optlen_in: Option<i32>,
    /// Length that the kernel gave back; none where that pointer points nowhere.
    pub optlen_out: Option<i32>,
    /// By the buffer where something was written, by how the socket was made where not.
    pub truth: Truth,
    /// `SO_PROTOCOL` of the socket: 6, 262, or something else.
    pub so_protocol: Option<i32>,
    /// `ipv4`, `ipv6`, or none of both.
    pub family: Option<String>,
    /// In the words of RFC 9293.
    pub state: Option<String>,
    /// The case made an MPTCP socket whose connection fell back.
    pub fell_back: bool,
    /// `getsockname`.
    pub local: Option<Endpoint>,
    /// `getpeername`; the unspecified address and port 0 if the socket has no peer.
    pub remote: Option<Endpoint>,
    /// Where the socket is connecting to: it has no peer yet, but the kernel knows this one.
    pub connecting_to: Option<Endpoint>,
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
    Asked(Box<Asked>),
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
    /// What was wrong at the first try, if this is what the second one gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_try: Option<String>,
    /// Which suite it is of, where several report together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
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

/// What a suite spends time on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// From the start of the tracer until it is live.
    Start,
    /// What is traced.
    Play,
    /// Of what is traced, the scenarios of `verdicts`.
    Scenarios,
    /// Of what is traced, the recipes of `fallbacks`.
    Recipes,
    /// Of what is traced, the queries of `matrix`.
    Queries,
    /// Until the tracer has printed what it keeps back, and has ended.
    End,
    /// Comparing, replays included.
    Judge,
}

/// How long one phase of a suite took on one rung.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PhaseTime {
    /// The rung.
    pub rung: String,
    /// Which phase.
    pub phase: Phase,
    /// Seconds.
    pub seconds: f64,
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
    /// How long something took.
    Phase(PhaseTime),
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

/// Writes cells as they come, and the summary at the end.
pub struct Cells<W: Write> {
    out: W,
    outcomes: Vec<Outcome>,
}

impl<W: Write> Cells<W> {
    /// Begins with the line about the host.
    ///
    /// # Errors
    ///
    /// Fails if nobody reads it.
    pub fn new(mut out: W) -> anyhow::Result<Self> {
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        write_line(&mut out, &MatrixLine::Host { kernel })?;
        Ok(Self {
            out,
            outcomes: Vec::new(),
        })
    }

    /// Writes a cell.
    ///
    /// # Errors
    ///
    /// Fails if nobody reads it any more.
    pub fn put(&mut self, cell: Cell) -> anyhow::Result<()> {
        self.outcomes.push(cell.outcome);
        write_line(&mut self.out, &MatrixLine::Cell(cell))
    }

    /// Writes the summary; true if nothing is wrong.
    ///
    /// # Errors
    ///
    /// Fails if nobody reads it any more.
    pub fn close(mut self) -> anyhow::Result<bool> {
        let count = |wanted: Outcome| {
            let of_it = self.outcomes.iter().filter(|outcome| **outcome == wanted);
            of_it.count() as u64
        };
        let summary = MatrixLine::Summary {
            ok: count(Outcome::Ok),
            mismatch: count(Outcome::Mismatch),
            unavailable: count(Outcome::Unavailable),
            skipped: count(Outcome::Skipped),
        };
        let right = count(Outcome::Mismatch) == 0;
        write_line(&mut self.out, &summary)?;
        Ok(right)
    }
}
