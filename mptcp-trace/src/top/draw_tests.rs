use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent},
};

use super::*;
use crate::{
    model::{Verdict, fixture::Row as Fixture},
    sink::escape,
    top::board::{Board, Limits},
};

fn snapshot() -> Snapshot {
    let mut board = Board::new(Limits::STATED);
    let evil = Fixture {
        address: 2,
        at_ms: 2_000,
        comm: "\u{1b}[31mevil",
        cause: Some("MPCapableFallbackSYNACK"),
        remote: "[2001:db8::7]:443",
        ..Fixture::default()
    };
    board.take(&Fixture::default().connection(), &|_id| None);
    board.take(&evil.connection(), &|_id| None);
    let misled = Fixture {
        at_ms: 3_000,
        verdict: Some(Verdict::Misled),
        ..Fixture::default()
    };
    board.take(&misled.query(), &|_id| None);
    board.snapshot(Duration::from_secs(8))
}

fn screen(width: u16, height: u16, keys: &[KeyCode], around: &Around) -> String {
    let snapshot = snapshot();
    let mut app = App::new(around.playing.is_some());
    for code in keys {
        app.key(KeyEvent::from(*code), &snapshot);
    }
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, &mut app, &snapshot, around, escape))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn around() -> Around {
    Around {
        source: "6.18.5 tracepoint".to_owned(),
        clock: "12:00:00".to_owned(),
        ..Around::default()
    }
}

#[test]
fn connections_have_room_in_eighty_columns() {
    let text = screen(80, 24, &[], &around());
    assert!(
        text.contains("2 connections, 2 fell back (100%), asked 1, deceived 1"),
        "{text}"
    );
    assert!(
        text.contains("fell back curl 7                192.0.2.7:443"),
        "{text}"
    );
    assert!(text.contains("misled DssFallback"), "{text}");
    assert!(text.contains("MPCapableFallbackSYNACK    6s"), "{text}");
    assert!(text.contains("\\u{1b}[31mevil"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(text.contains("q quit"), "{text}");
}

#[test]
fn wide_terminals_have_verdicts_and_both_ends() {
    let text = screen(140, 24, &[], &around());
    assert!(text.contains("LOCAL"), "{text}");
    assert!(text.contains("misled       DssFallback"), "{text}");
    assert!(text.contains("10.0.0.1:1000"), "{text}");
}

#[test]
fn sums_have_bars_and_a_life_its_moments_and_its_cause() {
    let text = screen(80, 24, &[KeyCode::Char('3')], &around());
    assert!(text.contains("CAUSE"), "{text}");
    assert!(text.contains("██████████ 100%"), "{text}");
    let text = screen(80, 40, &[KeyCode::Enter], &around());
    assert!(text.contains("FELL BACK: DssFallback (reported)"), "{text}");
    assert!(
        text.contains("asked TCP_IS_MPTCP, told mptcp: misled"),
        "{text}"
    );
    assert!(text.contains("What DssFallback means"), "{text}");
    assert!(text.contains("cgroup   /a/b.service"), "{text}");
}

#[test]
fn any_size_is_drawn_and_help_is_over_it() {
    for (width, height) in [(1, 1), (10, 3), (20, 5), (79, 23), (300, 100)] {
        for keys in [
            &[][..],
            &[KeyCode::Enter],
            &[KeyCode::Char('2')],
            &[KeyCode::Char('?')],
        ] {
            screen(width, height, keys, &around());
        }
    }
    let text = screen(80, 24, &[KeyCode::Char('?')], &around());
    assert!(text.contains("pause the display"), "{text}");
    assert!(!text.contains("back, ahead by 10 seconds"), "{text}");
}

#[test]
fn a_replay_shows_its_position_and_losses() {
    let mut around = around();
    around.playing = Some(Playing {
        at: Duration::from_secs(61),
        length: Duration::from_secs(3_700),
        speed: 4.0,
        has_ended: false,
    });
    around.state = Some(State {
        undecodable: 3,
        ..State::default()
    });
    let text = screen(100, 24, &[], &around);
    assert!(text.contains("[1:01 of 1:01:40]"), "{text}");
    assert!(text.contains("lost 3"), "{text}");
    assert!(!text.contains("kernel counted"), "{text}");
    let account = |counted: u64, traced: u64, unread| Reconciliation {
        counted: [("A".to_owned(), counted)].into(),
        traced: [("A".to_owned(), traced)].into(),
        why: (unread || counted != traced).then(|| "because".to_owned()),
        unread,
        ..Reconciliation::default()
    };
    for (account, says) in [
        (account(5, 3, false), "kernel counted 2 more"),
        (account(3, 5, false), "counters differ"),
        (account(0, 5, true), "counters unread"),
    ] {
        let mut around = around.clone();
        around.state = Some(State {
            reconciled: vec![account],
            ..State::default()
        });
        let text = screen(130, 24, &[], &around);
        assert!(text.contains(says), "{says}: {text}");
    }
    assert!(text.contains("x4"), "{text}");
    let text = screen(100, 24, &[KeyCode::Char('/'), KeyCode::Char('z')], &around);
    assert!(text.contains("Nothing matches the filter"), "{text}");
    assert!(text.contains("filter: z"), "{text}");
}

#[test]
fn shares_and_times_are_short() {
    for (share, want) in [
        (0.0, "             0%"),
        (0.5, "█████       50%"),
        (1.0, "██████████ 100%"),
    ] {
        assert_eq!(bar(share), want);
    }
    for (seconds, want) in [
        (0, "0s"),
        (99, "99s"),
        (100, "1m"),
        (7_200, "2h"),
        (864_000, "10d"),
    ] {
        assert_eq!(ago(Duration::from_secs(seconds), Duration::ZERO), want);
    }
}
