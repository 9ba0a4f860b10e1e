//! Explanations of rows: of a cause, as `mptcp-trace explain` prints it; without one, of the
//! verdict and the state. Pure.

use std::collections::BTreeMap;

use super::board::{Row, SUMS, Snapshot};
use crate::{
    aggregation,
    model::{By, Cause, SumRow, Verdict, find_cause},
    sink::explanation,
};

/// An explanation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// What is explained: text from outside, to be escaped.
    pub title: String,
    /// Its paragraphs.
    pub parts: Vec<Part>,
}

/// A paragraph.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// What stands before it; further lines are indented by its column.
    pub label: Option<String>,
    /// The text. It may quote text from outside.
    pub text: String,
}

impl Part {
    fn text(text: impl Into<String>) -> Self {
        Self {
            label: None,
            text: text.into(),
        }
    }
}

/// Explains the cause of a connection's fallback, or its state.
#[must_use]
pub fn connection(row: &Row) -> Explanation {
    let title = format!(
        "{}: {} -> {}",
        aggregation::process(row.process.as_ref()),
        row.local,
        row.remote
    );
    let mut parts = Vec::new();
    if let Some(verdict) = row.verdict {
        parts.push(verdict_part(verdict));
        parts.push(Part::default());
    }
    match (row.state(), row.cause.as_deref()) {
        ("fell back", Some(cause)) => parts.extend(cause_parts(cause)),
        ("fell back", None) => parts.push(Part::text(UNKNOWN)),
        ("failed", _) => parts.push(Part::text("It could not be opened: its first path failed.")),
        ("MPTCP", _) => parts.push(Part::text(
            "It is MPTCP: no fallback was seen since it was opened, or since tracing began.",
        )),
        ("TCP", cause) => parts.extend(cause_parts(cause.unwrap_or("plain"))),
        _unknown => parts.push(Part::text(
            "Whether it fell back is unknown: it was open before tracing began, or the kernel does \
             not show its state with this attach method (see mptcp-trace doctor).",
        )),
    }
    parts.extend(path_parts(row));
    parts.extend(packet_parts(row));
    Explanation { title, parts }
}

/// What the packets that decided show, and what follows from it.
fn packet_parts(row: &Row) -> Vec<Part> {
    let mut parts = Vec::new();
    for conclusion in &row.conclusions {
        let term = conclusion.what.term();
        parts.push(Part::default());
        for (label, text) in [
            ("packet", conclusion.to_string()),
            ("", term.meaning.to_owned()),
            ("next", term.next.to_owned()),
        ] {
            let label = Some(label.to_owned()).filter(|it| !it.is_empty());
            parts.push(Part { label, text });
        }
    }
    parts
}

/// The causes of its paths that failed, or ended otherwise than by being closed.
fn path_parts(row: &Row) -> Vec<Part> {
    let mut known: Vec<&str> = Vec::new();
    let mut parts = Vec::new();
    for path in row.paths.iter() {
        let Some(end) = path.end.as_ref().filter(|end| end.is_failure) else {
            continue;
        };
        let cause = end.cause.as_deref().unwrap_or("unknown");
        parts.push(Part::default());
        parts.push(Part {
            label: Some(format!("path {}", path.state())),
            text: format!("{} -> {}: {cause}", path.local, path.remote),
        });
        if !known.contains(&cause) && cause != "unknown" {
            known.push(cause);
            parts.extend(cause_parts(cause));
        }
    }
    parts
}

/// Explains a line of a summary table: the causes of its connections, the most frequent first.
#[must_use]
pub fn group(table: usize, row: &SumRow, snapshot: &Snapshot) -> Explanation {
    let title = row.key.clone();
    let by = SUMS.get(table).copied().unwrap_or(By::Cause);
    let parts = match (by, row.key.as_str()) {
        (By::Cause, "-") => vec![Part::text(
            "Connections without a fallback, and queries about sockets that never were MPTCP.",
        )],
        (By::Cause, "unknown") => vec![Part::text(UNKNOWN)],
        (By::Cause, cause) => cause_parts(cause),
        (
            By::Process
            | By::Dest
            | By::Netns
            | By::Cgroup
            | By::Verdict
            | By::Path
            | By::Endpoint
            | By::Interface,
            _,
        ) => causes_of(by, row, snapshot),
    };
    Explanation { title, parts }
}

const UNKNOWN: &str = "It fell back, but no probe saw the cause: the fallback happened before \
                       tracing began, or its record was lost. The kernel's counters of its network \
                       namespace (nstat -az 'MPTcpExt*') show which causes occurred.";

fn verdict_part(verdict: Verdict) -> Part {
    Part {
        label: Some("verdict".to_owned()),
        text: format!("{}: {}", verdict.name(), verdict.meaning()),
    }
}

fn causes_of(by: By, row: &SumRow, snapshot: &Snapshot) -> Vec<Part> {
    let is_in = |it: &Row| match by {
        By::Process => aggregation::process(it.process.as_ref()) == row.key,
        By::Dest => aggregation::destination(it.remote) == row.key,
        By::Cause
        | By::Netns
        | By::Cgroup
        | By::Verdict
        | By::Path
        | By::Endpoint
        | By::Interface => false,
    };
    let mut causes: BTreeMap<&str, u64> = BTreeMap::new();
    for it in snapshot.rows.iter().filter(|it| is_in(it)) {
        if it.fell_back == Some(true) {
            let cause = it.cause.as_deref().unwrap_or("unknown");
            *causes.entry(cause).or_default() += 1;
        }
    }
    let mut causes: Vec<(&str, u64)> = causes.into_iter().collect();
    causes.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let mut parts = vec![Part::text(format!(
        "{} of {} connections fell back.",
        row.sum.fallbacks, row.sum.connections
    ))];
    for (verdict, count) in row.sum.verdicts.iter().filter(|it| it.0.deceives()) {
        let mut part = verdict_part(*verdict);
        part.text = format!("{} ({count} times)", part.text);
        parts.push(part);
    }
    for (cause, count) in causes {
        parts.push(Part::default());
        parts.push(Part {
            label: Some("fell back".to_owned()),
            text: format!("{count} times: {cause}"),
        });
        parts.extend(match cause {
            "unknown" => vec![Part::text(UNKNOWN)],
            cause => cause_parts(cause),
        });
    }
    parts
}

/// The explanation of a cause, as `mptcp-trace explain` prints it.
fn cause_parts(name: &str) -> Vec<Part> {
    match find_cause(name) {
        Some(cause) => parts_of(cause),
        None => vec![Part::text(format!(
            "{name}: this version knows no explanation of this cause."
        ))],
    }
}

/// Width of the labels in an explanation, with the space after them.
const LABEL: usize = 11;

fn parts_of(cause: &Cause) -> Vec<Part> {
    let mut parts = Vec::new();
    let text = explanation(cause, usize::MAX);
    for (number, section) in text.splitn(3, "\n\n").enumerate() {
        for line in section.lines() {
            parts.push(match line.split_at_checked(LABEL).filter(|_| number == 2) {
                Some((label, text)) => Part {
                    label: Some(label.trim_end().to_owned()),
                    text: text.to_owned(),
                },
                None => Part::text(line),
            });
        }
        if number < 2 {
            parts.push(Part::default());
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{
            CAUSES, PeerHistory, Shown, Whose,
            fixture::{Row as Fixture, cleared},
        },
        top::board::{Board, Limits},
    };

    fn all(explanation: &Explanation) -> String {
        let line = |part: &Part| format!("{} {}", part.label.as_deref().unwrap_or(""), part.text);
        explanation
            .parts
            .iter()
            .map(line)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn a_cause_is_explained_as_the_command_does_and_nothing_is_left_out() {
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for cause in CAUSES {
            let parts = parts_of(cause);
            let shown = all(&Explanation {
                title: String::new(),
                parts,
            });
            assert_eq!(
                words(&shown),
                words(&explanation(cause, 80)),
                "{}",
                cause.name
            );
        }
    }

    #[test]
    fn every_kind_of_row_has_an_explanation() {
        let mut board = Board::new(Limits::STATED);
        let other = Fixture {
            address: 2,
            cause: Some("MPCapableFallbackSYNACK"),
            ..Fixture::default()
        };
        let third = Fixture {
            address: 3,
            ..other
        };
        let misled = Fixture {
            at_ms: 3_000,
            verdict: Some(Verdict::Misled),
            ..Fixture::default()
        };
        for row in [&Fixture::default(), &other, &third] {
            board.take(&row.connection(), &|_id| None);
        }
        board.take(&misled.query(), &|_id| None);
        let snapshot = board.snapshot(Duration::from_secs(8));
        for (table, wanted) in [
            (0, "2 times: MPCapableFallbackSYNACK"),
            (1, "culprits"),
            (2, "1 times: DssFallback"),
        ] {
            let shown = all(&group(table, &snapshot.sums[table].rows[0], &snapshot));
            assert!(shown.contains(wanted), "{table}: {shown}");
        }
        let processes = all(&group(0, &snapshot.sums[0].rows[0], &snapshot));
        assert!(
            processes.contains("3 of 3 connections fell back"),
            "{processes}"
        );
        assert!(processes.contains("verdict misled: "), "{processes}");
        let row = snapshot.rows.iter().find(|row| row.verdict.is_some());
        let shown = all(&connection(row.unwrap()));
        assert!(shown.contains("verdict misled: asked in a way"), "{shown}");
        assert!(shown.contains("decided by"), "{shown}");
    }

    #[test]
    fn what_its_packet_shows_is_in_the_history_of_a_connection_and_is_explained() {
        let mut board = Board::new(Limits::STATED);
        let mut finding = cleared(Fixture::default().connection());
        if let crate::model::Finding::Connection(event) = &mut finding {
            event.history = Some(Box::new(PeerHistory {
                whose: Whose::Peer,
                spoke: Vec::new(),
            }));
        }
        for _ in 0..20 {
            board.take(&finding, &|_id| None);
        }
        let snapshot = board.snapshot(Duration::from_secs(8));
        let row = &snapshot.rows[0];
        let has = |words: &str| row.moments.iter().any(|it| it.words.starts_with(words));
        assert!(has("the packet shows option-cleared (certain): 12 bytes"));
        assert!(has("by the connections so far, the peer is without MPTCP"));
        assert!(row.conclusions.len() < 20, "bounded");
        let shown = all(&connection(row));
        assert!(shown.contains("packet option-cleared (certain)"), "{shown}");
        assert!(shown.contains(Shown::Cleared.term().meaning), "{shown}");
    }

    #[test]
    fn without_a_fallback_the_state_is_explained() {
        let row = |is_mptcp, fell_back| {
            let mut board = Board::new(Limits::STATED);
            board.take(&Fixture::default().connection(), &|_id| None);
            let snapshot = board.snapshot(Duration::from_secs(8));
            let mut row = (*snapshot.rows[0]).clone();
            (row.is_mptcp, row.fell_back, row.cause) = (is_mptcp, fell_back, None);
            row
        };
        for (row, wanted) in [
            (row(true, Some(false)), "It is MPTCP"),
            (row(true, None), "is unknown"),
            (row(true, Some(true)), "no probe saw the cause"),
            (row(false, None), "A client without MPTCP connected"),
        ] {
            let shown = all(&connection(&row));
            assert!(shown.contains(wanted), "{wanted}: {shown}");
        }
    }
}
