//! Formats findings as bytes; the caller writes them.

mod columns;
mod explanation;
mod jsonl;
mod open_paths;
mod row;
mod summary;
mod sums;
mod text;
mod times;
mod why;

pub use self::{
    columns::{Column, Text, clipped, granted, wrapped},
    explanation::{culprits, explanation, term},
    text::{TextLines, TextOptions, Width, one_line},
    times::TimeStyle,
};
pub use crate::escape::{escape, without_error_numbers};
pub use summary::{
    agreement, brief, closing_verdict, coalesced, connections, evicted, failing, folded, not_shown,
    reconciled, summary, unwritten,
};

use crate::model::{
    ConnectionEvent, Facts, Finding, LastAsked, LossReport, PathEvent, Reconciliations, SumTable,
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
    /// Events of paths that work, or that were closed on purpose.
    pub routine: u64,
}

/// Number of connections by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionCounts {
    /// Connections that ended.
    pub closed: u64,
    /// Of these, those that were MPTCP to the end.
    pub mptcp: u64,
    /// Connections that fell back, whether they ended or not.
    pub fell_back: u64,
    /// Connections that ended, of which it is unknown whether they fell back.
    pub unknown: u64,
    /// Connections that are MPTCP and open.
    pub open: u64,
    /// Connections that could not be opened.
    pub not_opened: u64,
}

/// An open socket, the last answer about it, and its open paths.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The socket.
    pub event: &'a ConnectionEvent,
    /// The last answer, if any.
    pub asked: Option<LastAsked>,
    /// Its open paths.
    pub paths: &'a [PathEvent],
}

/// Number of findings by outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FindingCounts {
    /// Printed findings.
    pub findings: u64,
    /// Findings left out by filters.
    pub not_shown: u64,
    /// Events of paths that have a line only on request (`--kind path`).
    pub routine: u64,
    /// Answers identical to the previous one (`--coalesce`).
    pub coalesced: u64,
    /// Connections evicted before their end because the table was full.
    pub evicted: u64,
    /// Connections; `None` if the sensor of paths is off.
    pub connections: Option<ConnectionCounts>,
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

    /// Open sockets, each with its open paths; the header comes first.
    pub fn sockets_with_paths(&self, sockets: &[Listed<'_>], out: &mut Vec<u8>) {
        match self {
            Self::Text(lines) => {
                let all = sockets.iter().flat_map(|it| it.paths);
                let columns = lines.open_paths(all);
                lines.header(out);
                lines.path_header(&columns, out);
                for listed in sockets {
                    lines.socket(listed.event, listed.asked, out);
                    for path in listed.paths {
                        lines.open_path(&columns, path, out);
                    }
                }
            }
            Self::Json => {
                for listed in sockets {
                    jsonl::socket(listed.event, listed.asked, out);
                    for path in listed.paths {
                        jsonl::open_path(path, out);
                    }
                }
            }
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
        reconciled: &Reconciliations,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Text(_) | Self::Nothing => {}
            Self::Json => jsonl::end(counts, losses, reconciled, out),
        }
    }
}
