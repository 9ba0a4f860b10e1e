//! Section on the paths of the drawn connections.

use super::*;
use crate::{
    model::amount,
    paths::{KnownPath, PATHS_MAX},
    report::{lanes::end_of, path_lanes::path_cause},
};

/// A longer table is folded.
const OPEN_MAX: usize = 15;

/// Columns after the connection.
const COLUMNS: [(&str, &str); 11] = [
    ("", "Path"),
    ("", "Role"),
    ("n", "Ids"),
    ("n", "Handshake"),
    ("n", "Lived"),
    ("", "State, cause"),
    ("n", "Sent"),
    ("n", "Received"),
    ("n", "Share"),
    ("n", "Retransmitted"),
    ("n", "RTT"),
];

/// The paths of a connection that have a lane: all, unless there is only one and it is well.
pub(super) fn shown_paths(life: &ReportedConnection) -> &[KnownPath] {
    let paths = life.paths.iter().as_slice();
    match paths.len() > 1 || life.paths.are_troubled() {
        true => paths,
        false => &[],
    }
}

/// Both addresses; the arrow leads from the end that sent the SYN.
pub(super) fn path_addresses(path: &KnownPath) -> Markup {
    let arrow = match path.side {
        Some(Side::Active) => "→",
        Some(Side::Passive) => "←",
        None => "–",
    };
    html! {
        span.mono.whole { (path.local) } " " span.whole { (arrow) " " span.mono { (path.remote) } }
    }
}

/// The paths of the drawn connections.
pub(super) fn paths(report: &Report<'_>) -> Markup {
    let drawn = report.gathered.drawn().zip(1..);
    let rows: Vec<(&ReportedConnection, usize, &KnownPath)> = drawn
        .flat_map(|(life, number)| {
            shown_paths(life)
                .iter()
                .map(move |path| (life, number, path))
        })
        .collect();
    if rows.is_empty() {
        return html! {};
    }
    let dropped: u64 = report
        .gathered
        .drawn()
        .map(|life| life.paths.dropped())
        .sum();
    let counts = report.gathered.paths;
    html! {
        section aria-labelledby="paths" {
            h2 id="paths" { "Paths" }
            p.note {
                (count(counts.paths_up, "path", "paths")) " came up or were open, "
                (count(counts.joins_failed, "join", "joins")) " failed, and a path became stale "
                (count(counts.stale, "time", "times")) ". The table has the paths of the drawn \
                 connections; bytes, retransmissions and RTT are those of the last event of each, \
                 and the share is relative to all paths of its connection."
            }
            details open[rows.len() <= OPEN_MAX] {
                summary { "Paths of the drawn connections" }
                div.scroll { table {
                    thead { tr {
                        th scope="col" { "Connection" }
                        @for (class, name) in COLUMNS { th class=(class) scope="col" { (name) } }
                    } }
                    tbody { @for (life, number, path) in rows { tr {
                        td { a href={ "#c" (number) } { (who(life)) } }
                        th scope="row" { (path_addresses(path)) }
                        @for (class, text) in cells(life, path) { td class=(class) { (text) } }
                    } } }
                } }
            }
            @if dropped > 0 {
                p.note { (count(dropped, "more path", "more paths")) " of these connections are not listed: at most " (PATHS_MAX) " of each are." }
            }
        }
    }
}

/// The cells of a path, after its connection and its addresses.
fn cells(life: &ReportedConnection, path: &KnownPath) -> [(&'static str, String); 10] {
    let unknown = || "-".to_owned();
    let ledger = path.ledger.as_ref();
    let handshake = path.up_at.map(|at| at.saturating_sub(path.from));
    let handshake = handshake.filter(|it| !it.is_zero() && !path.existing);
    let lived = end_of(life, path).saturating_sub(path.up_at.unwrap_or(path.from));
    let is_failed = path.end.as_ref().is_some_and(|end| end.is_failed);
    let all = life.paths.carried();
    let backup = if path.is_backup { ", backup" } else { "" };
    [
        ("", format!("{}{backup}", path.role_words())),
        ("n", path.ids_words()),
        ("n", handshake.map_or_else(unknown, fine)),
        ("n", if is_failed { unknown() } else { fine(lived) }),
        (
            "",
            match &path.end {
                Some(end) => format!("{}: {}", path.state(), path_cause(end)),
                None => path.state().to_owned(),
            },
        ),
        ("n", ledger.map_or_else(unknown, |it| amount(it.bytes_sent))),
        (
            "n",
            ledger.map_or_else(unknown, |it| amount(it.bytes_received)),
        ),
        (
            "n",
            path.carried().map_or_else(unknown, |it| percent(it, all)),
        ),
        (
            "n",
            ledger.map_or_else(unknown, |it| digits(u64::from(it.retransmissions))),
        ),
        ("n", ledger.and_then(|it| it.rtt).map_or_else(unknown, fine)),
    ]
}
