//! The lines that the lab writes and reads.

use serde::{Deserialize, Serialize};

pub use mptcp_trace_scene::{
    askers::asker::{Asked, AskerLine},
    lines::write_line,
    net::Endpoint,
    query::Truth,
};

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
    /// The recipes of `paths`, within `Play`.
    Paths,
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
    /// Why the lab stopped.
    Failed {
        /// In words.
        why: String,
    },
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
