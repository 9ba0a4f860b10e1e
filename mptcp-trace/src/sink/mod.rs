//! Findings -> bytes. Formatting happens here, writing elsewhere.

mod jsonl;
mod sockets;
mod summary;
mod sums;
mod text;

pub use crate::escape::escape;
pub use summary::{
    coalesced, evicted, failing, last_words, not_shown, reconciled, summary, unwritten,
};

use crate::model::{
    ConnectionEvent, Facts, Finding, LastAsked, LossReport, Reconciliation, SumTable,
};

/// Origin of the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The kernel, now.
    Live,
    /// A capture file.
    Replay,
}

/// How findings are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Fixed columns for people.
    Text {
        /// With a line of column names.
        header: bool,
        /// With colours.
        colour: bool,
        /// In UTC instead of local time.
        utc: bool,
    },
    /// One JSON object a line (`docs/output.md`).
    Json,
    /// Not at all: somebody else is told of them.
    Nothing,
}

/// What became of the findings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// Those that were shown.
    pub findings: u64,
    /// Those that the reader did not want to see.
    pub not_shown: u64,
    /// Answers that only repeated the one before.
    pub coalesced: u64,
    /// Connections that were judged before their end, because too many were remembered.
    pub evicted: u64,
}

impl Format {
    /// What comes before the first finding.
    pub fn start(self, facts: &Facts, source: Source, out: &mut Vec<u8>) {
        match self {
            Self::Text { header: true, .. } => text::header(out),
            Self::Text { header: false, .. } | Self::Nothing => {}
            Self::Json => jsonl::start(facts, source, out),
        }
    }

    /// One finding: one line.
    pub fn finding(self, finding: &Finding, out: &mut Vec<u8>) {
        match self {
            Self::Text {
                header: _,
                colour,
                utc,
            } => text::finding(finding, colour, utc, out),
            Self::Json => jsonl::finding(finding, out),
            Self::Nothing => {}
        }
    }

    /// The names of the columns of [`Self::socket`].
    pub fn sockets(self, out: &mut Vec<u8>) {
        match self {
            Self::Text { header: true, .. } => sockets::header(out),
            Self::Text { header: false, .. } | Self::Json | Self::Nothing => {}
        }
    }

    /// A socket that is there, and what was answered last about it.
    pub fn socket(self, event: &ConnectionEvent, asked: Option<LastAsked>, out: &mut Vec<u8>) {
        match self {
            Self::Text { .. } => sockets::socket(event, asked, out),
            Self::Json => jsonl::socket(event, asked, out),
            Self::Nothing => {}
        }
    }

    /// Sums of findings.
    pub fn sums(self, table: &SumTable, out: &mut Vec<u8>) {
        match self {
            Self::Text { .. } => sums::text(table, out),
            Self::Json => jsonl::sums(table, out),
            Self::Nothing => {}
        }
    }

    /// What comes after the last finding.
    pub fn end(
        self,
        told: Told,
        losses: &LossReport,
        reconciled: &[Reconciliation],
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Text { .. } | Self::Nothing => {}
            Self::Json => jsonl::end(told, losses, reconciled, out),
        }
    }
}
