//! Formats findings as bytes; the caller writes them.

mod jsonl;
mod sockets;
mod summary;
mod sums;
mod text;

pub use crate::escape::escape;
pub use summary::{
    closing_verdict, coalesced, evicted, failing, not_shown, reconciled, summary, unwritten,
};

use crate::model::{
    ConnectionEvent, Facts, Finding, LastAsked, LossReport, Reconciliation, SumTable,
};

/// Origin of the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The running kernel.
    Live,
    /// A capture file.
    Replay,
}

/// Output format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Text in fixed columns.
    Text {
        /// Print the column header.
        header: bool,
        /// Use colours.
        colour: bool,
        /// Print times in UTC instead of local time.
        utc: bool,
    },
    /// JSON lines (`docs/output.md`).
    Json,
    /// No output; an observer receives the findings.
    Nothing,
}

/// Number of findings by outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FindingCounts {
    /// Printed findings.
    pub findings: u64,
    /// Findings left out by filters.
    pub not_shown: u64,
    /// Answers identical to the previous one (`--coalesce`).
    pub coalesced: u64,
    /// Connections evicted before their end because the table was full.
    pub evicted: u64,
}

impl Format {
    /// Output before the first finding.
    pub fn start(self, facts: &Facts, source: Source, out: &mut Vec<u8>) {
        match self {
            Self::Text { header: true, .. } => text::header(out),
            Self::Text { header: false, .. } | Self::Nothing => {}
            Self::Json => jsonl::start(facts, source, out),
        }
    }

    /// One line per finding.
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

    /// Column header of [`Self::socket`].
    pub fn sockets(self, out: &mut Vec<u8>) {
        match self {
            Self::Text { header: true, .. } => sockets::header(out),
            Self::Text { header: false, .. } | Self::Json | Self::Nothing => {}
        }
    }

    /// An open socket, and the last answer about it.
    pub fn socket(self, event: &ConnectionEvent, asked: Option<LastAsked>, out: &mut Vec<u8>) {
        match self {
            Self::Text { .. } => sockets::socket(event, asked, out),
            Self::Json => jsonl::socket(event, asked, out),
            Self::Nothing => {}
        }
    }

    /// Summary tables.
    pub fn sums(self, table: &SumTable, out: &mut Vec<u8>) {
        match self {
            Self::Text { .. } => sums::text(table, out),
            Self::Json => jsonl::sums(table, out),
            Self::Nothing => {}
        }
    }

    /// Output after the last finding.
    pub fn end(
        self,
        counts: FindingCounts,
        losses: &LossReport,
        reconciled: &[Reconciliation],
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Text { .. } | Self::Nothing => {}
            Self::Json => jsonl::end(counts, losses, reconciled, out),
        }
    }
}
