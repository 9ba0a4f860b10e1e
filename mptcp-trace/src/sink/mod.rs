//! Formats findings as bytes; the caller writes them.

mod columns;
mod explanation;
mod jsonl;
mod row;
mod summary;
mod sums;
mod text;
mod times;
mod why;

pub use self::{
    columns::{Column, Text, clipped, granted, wrapped},
    explanation::{culprits, explanation},
    text::{TextLines, TextOptions, Width, one_line},
    times::TimeStyle,
};
pub use crate::escape::{escape, without_error_numbers};
pub use summary::{
    agreement, brief, closing_verdict, coalesced, evicted, failing, folded, not_shown, reconciled,
    summary, unwritten,
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
#[derive(Debug)]
pub enum Format {
    /// Text in columns.
    Text(Box<TextLines>),
    /// JSON lines (`docs/output.md`).
    Json,
    /// No output; an observer receives the findings.
    Nothing,
}

/// Where a finding was printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Printed {
    /// In a line of its own.
    Line,
    /// In the line that counts the sockets that were open before tracing began.
    WithExisting,
    /// In the line of the fallback: the closing verdict is `never-asked`.
    WithFallback,
}

/// Findings without a line of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Folded {
    /// Sockets that were open before tracing began.
    pub existing: u64,
    /// Closing verdicts `never-asked` of connections whose fallback has a line.
    pub never_asked: u64,
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
    /// Text with these options.
    #[must_use]
    pub fn text(options: TextOptions) -> Self {
        Self::Text(Box::new(TextLines::new(options)))
    }

    /// Output before the first finding.
    pub fn start(&self, facts: &Facts, source: Source, out: &mut Vec<u8>) {
        match self {
            Self::Text(lines) => lines.header(out),
            Self::Nothing => {}
            Self::Json => jsonl::start(facts, source, out),
        }
    }

    /// One line per finding, unless it is part of another one.
    pub fn finding(&mut self, finding: &Finding, out: &mut Vec<u8>) -> Printed {
        match self {
            Self::Text(lines) => lines.finding(finding, out),
            Self::Json => {
                jsonl::finding(finding, out);
                Printed::Line
            }
            Self::Nothing => Printed::Line,
        }
    }

    /// Output before the lines are written: what was only counted so far.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Text(lines) => lines.existing(out),
            Self::Json | Self::Nothing => {}
        }
    }

    /// Column header of [`Self::socket`].
    pub fn sockets(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(lines) => lines.header(out),
            Self::Json | Self::Nothing => {}
        }
    }

    /// An open socket, and the last answer about it.
    pub fn socket(&self, event: &ConnectionEvent, asked: Option<LastAsked>, out: &mut Vec<u8>) {
        match self {
            Self::Text(lines) => lines.socket(event, asked, out),
            Self::Json => jsonl::socket(event, asked, out),
            Self::Nothing => {}
        }
    }

    /// Summary tables.
    pub fn sums(&self, table: &SumTable, out: &mut Vec<u8>) {
        match self {
            Self::Text(_) => sums::text(table, out),
            Self::Json => jsonl::sums(table, out),
            Self::Nothing => {}
        }
    }

    /// Output after the last finding.
    pub fn end(
        &self,
        counts: FindingCounts,
        losses: &LossReport,
        reconciled: &[Reconciliation],
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Text(_) | Self::Nothing => {}
            Self::Json => jsonl::end(counts, losses, reconciled, out),
        }
    }
}
