//! The paths of a connection.

use super::*;
use crate::{
    model::{CauseCertainty, DecidedBy, Ledger, amount},
    paths::{KnownPath, PATHS_MAX, Paths},
};

/// Columns before the second line of a path.
const INDENT: usize = 8;

pub(super) fn draw_paths(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &mut App,
    row: &Row,
    now: Duration,
    paint: Paint,
    escape: Escape,
) {
    let width = usize::from(area.width);
    let mut lines: Vec<Line<'static>> = Vec::new();
    for path in row.paths.iter() {
        lines.extend(path_lines(path, &row.paths, now, width, paint, escape));
    }
    match row.paths.dropped() {
        0 => {}
        1 => lines.push(Line::raw("1 earlier path omitted")),
        many => lines.push(Line::raw(format!(
            "{many} earlier paths omitted: {PATHS_MAX} are shown"
        ))),
    }
    if row.paths.is_empty() {
        let why = "No event of a path so far: none came up, failed or ended since tracing began, \
                   or the sensor of paths is off (see mptcp-trace doctor).";
        lines.extend(wrapped(why, width).into_iter().map(Line::raw));
    }
    let room = usize::from(area.height.saturating_sub(2));
    let top = app.scroll_over(lines.len(), room);
    let more = lines.len().saturating_sub(top + room);
    lines.drain(..top);
    let title = format!("Paths of {} -> {}", row.local, row.remote);
    let mut counts = counted(&row.paths);
    if let Some(at) = row.paths.read_at() {
        counts.push_str(&format!("; read {} ago", ago(now, at)));
    }
    if more > 0 {
        counts.push_str(&format!(" ({more} more lines below)"));
    }
    lines.insert(0, Line::raw(clipped(&counts, width)));
    lines.insert(0, Line::styled(clipped(&title, width), paint.title()));
    frame.render_widget(Paragraph::new(lines), area);
}

/// `2 up, 1 stale, 1 failed`.
fn counted(paths: &Paths) -> String {
    let of = |state: &str| paths.iter().filter(|it| it.state() == state).count();
    let states = ["up", "stale", "down", "failed"];
    let counts = states.map(|state| (of(state), state));
    let words: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {state}"))
        .collect();
    words.join(", ")
}

fn path_lines(
    path: &KnownPath,
    all: &Paths,
    now: Duration,
    width: usize,
    paint: Paint,
    escape: Escape,
) -> Vec<Line<'static>> {
    let is_bad = path.end.as_ref().is_some_and(|end| end.is_failure);
    let style = match is_bad {
        true => paint.bad(),
        false => style_if(path.is_stale(), paint.worth_a_look()),
    };
    let backup = if path.is_backup { ", backup" } else { "" };
    let ids = path.ids_words();
    let head = format!(
        "{} -> {}  {}, ids {ids}{backup}",
        path.local,
        path.remote,
        path.role_words()
    );
    let first = Line::from(vec![
        Span::styled(format!("{:<INDENT$}", path.state()), style),
        Span::raw(clipped(&head, width.saturating_sub(INDENT))),
    ]);
    let room = width.saturating_sub(INDENT).max(20);
    let more = wrapped(&words(path, all, now, escape), room);
    let indented = |text: String| Line::raw(format!("{:INDENT$}{text}", ""));
    std::iter::once(first)
        .chain(more.into_iter().map(indented))
        .collect()
}

/// When it came up, was stale and ended, and what it had carried at its last event.
fn words(path: &KnownPath, all: &Paths, now: Duration, escape: Escape) -> String {
    let mut words = Vec::new();
    match (path.existing, path.up_at) {
        (true, _) => words.push("opened before tracing began".to_owned()),
        (false, Some(at)) => {
            let took = at.saturating_sub(path.from);
            // A passive path begins with its third ACK.
            let after = match took.is_zero() {
                true => String::new(),
                false => format!(" after {}", short(took)),
            };
            words.push(format!("up {} ago{after}", ago(now, at)));
        }
        (false, None) => words.push(format!("began {} ago", ago(now, path.from))),
    }
    match path.stale.as_slice() {
        [] => {}
        [.., (from, None)] => words.push(format!("stale since {}", ago(now, *from))),
        [(from, Some(to))] => {
            words.push(format!("was stale for {}", short(to.saturating_sub(*from))));
        }
        many => words.push(format!("was stale {} times", many.len())),
    }
    if let Some(end) = &path.end {
        let cause = match (&end.cause, end.known) {
            (Some(cause), CauseCertainty::Reported) => escape(cause),
            (Some(cause), CauseCertainty::Inferred | CauseCertainty::Unknown) => {
                format!("{} (inferred)", escape(cause))
            }
            (None, _) => "cause unknown".to_owned(),
        };
        let reset = end.reset.filter(|it| it.code != 0);
        let reset = reset.map_or_else(String::new, |it| format!(" ({it})"));
        let by = match end.decided_by {
            Some(DecidedBy::Here) => ", decided by this end",
            Some(DecidedBy::Peer) => ", decided by the peer",
            Some(DecidedBy::Nobody) | None => "",
        };
        words.push(format!(
            "{} {} ago: {cause}{reset}{by}",
            path.state(),
            ago(now, end.at)
        ));
    }
    if let Some(ledger) = &path.ledger {
        let (sum, carried) = (all.carried(), path.carried().unwrap_or_default());
        let share = match sum > carried {
            true => format!(" ({} %)", u128::from(carried) * 100 / u128::from(sum)),
            false => String::new(),
        };
        words.push(carried_words(path, ledger, &share));
    }
    words.join(", ")
}

/// What it carried, with the rates between the last two readings and its share.
fn carried_words(path: &KnownPath, ledger: &Ledger, share: &str) -> String {
    let rate =
        |rate: Option<u64>| rate.map_or_else(String::new, |it| format!(" ({}/s)", amount(it)));
    let mut words = vec![
        format!(
            "{} sent{}",
            amount(ledger.bytes_sent),
            rate(path.rate.map(|it| it.0))
        ),
        format!(
            "{} received{}{share}",
            amount(ledger.bytes_received),
            rate(path.rate.map(|it| it.1))
        ),
    ];
    if ledger.retransmissions > 0 {
        words.push(format!("{} retransmitted", ledger.retransmissions));
    }
    words.extend(ledger.rtt.map(|rtt| format!("RTT {}", short(rtt))));
    words.join(", ")
}

/// The open paths of a connection, a line each: what they have carried so far.
pub(super) fn open_paths(row: &Row) -> impl Iterator<Item = String> {
    let open = row.paths.iter().filter(|path| path.end.is_none());
    open.map(|path| {
        let carried = path.ledger.as_ref().map(|it| carried_words(path, it, ""));
        let carried = carried.map_or_else(String::new, |it| format!(", {it}"));
        format!(
            "{}  {} -> {}{carried}",
            path.state(),
            path.local,
            path.remote
        )
    })
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyCode;

    use super::super::tests::{around, frame_of, text_of};
    use crate::{
        model::{
            Finding, Ledger, Path, PathId, PathKind, PathRole, SocketId,
            fixture::{Row as Fixture, a_ledger, a_path},
        },
        top::board::{Board, Limits, Snapshot},
    };
    use std::time::Duration;

    fn path(socket: u64, kind: PathKind, at_ms: u64) -> Finding {
        let row = Fixture {
            at_ms,
            cause: None,
            ..Fixture::default()
        };
        row.path(Path {
            path: Some(PathId {
                socket: SocketId(socket),
                began_at: Duration::from_secs(1),
            }),
            role: PathRole::First,
            up_at: Some(Duration::from_secs(1)),
            ledger: None,
            ..a_path(kind)
        })
    }

    /// What the first of two paths has sent and received at this time.
    fn reading(at_ms: u64, bytes_sent: u64, bytes_received: u64) -> Path {
        let Finding::Path(event) = path(1, PathKind::Open, at_ms) else {
            panic!("no path")
        };
        Path {
            // A listing does not know when the path began.
            path: Some(PathId {
                socket: SocketId(1),
                began_at: Duration::ZERO,
            }),
            ledger: Some(Ledger {
                bytes_sent,
                bytes_received,
                ..a_ledger()
            }),
            ..event.path
        }
    }

    fn screen(snapshot: &Snapshot, keys: &[KeyCode]) -> String {
        let text = text_of(&frame_of(snapshot, 80, 24, keys, &around()), 80, 24);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_open_path_shows_what_was_read_and_how_fast_that_grows() {
        let mut board = Board::new(Limits::STATED);
        for socket in [1, 2] {
            board.take(&path(socket, PathKind::Up, 1_000), &|_id| None);
        }
        let shown = |board: &Board, at_s| {
            let snapshot = board.snapshot(Duration::from_secs(at_s));
            [KeyCode::Char('o'), KeyCode::Enter].map(|key| screen(&snapshot, &[key]))
        };
        let [paths, life] = shown(&board, 2);
        assert!(!paths.contains("sent") && paths.contains("2 up"), "{paths}");
        assert!(life.contains("path up 10.0.0.1:1000 ->"), "{life}");
        board.read(&reading(2_000, 1_000_000, 5_000));
        let [paths, _life] = shown(&board, 5);
        for wanted in [
            "2 up; read 3s ago",
            "1.00 MB sent, 5.00 kB received, 3 retransmitted, RTT",
        ] {
            assert!(paths.contains(wanted), "{wanted:?} is not in {paths}");
        }
        board.read(&reading(4_000, 4_000_000, 5_000));
        let [paths, life] = shown(&board, 4);
        for wanted in [
            "read 0s ago",
            "4.00 MB sent (1.50 MB/s), 5.00 kB received (0 B/s)",
        ] {
            assert!(paths.contains(wanted), "{wanted:?} is not in {paths}");
        }
        assert!(
            life.contains(":443, 4.00 MB sent (1.50 MB/s), 5.00"),
            "{life}"
        );
        // One that ended has no rate, and is not read any more.
        board.take(&path(1, PathKind::Down, 6_000), &|_id| None);
        board.read(&reading(7_000, 9_000_000, 5_000));
        let [paths, life] = shown(&board, 7);
        assert!(!paths.contains("9.00 MB"), "{paths}");
        assert_eq!(life.matches("path up ").count(), 1, "{life}");
    }
}
