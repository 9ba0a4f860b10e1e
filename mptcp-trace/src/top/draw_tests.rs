use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
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

fn frame(width: u16, height: u16, keys: &[KeyCode], around: &Around) -> Buffer {
    let snapshot = snapshot();
    let mut app = App::new(around.playing.is_some());
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut show = |app: &mut App| {
        let shown = terminal.draw(|frame| draw(frame, app, &snapshot, around, escape));
        shown.unwrap().buffer.clone()
    };
    for code in keys {
        show(&mut app);
        app.key(KeyEvent::from(*code), &snapshot);
    }
    show(&mut app)
}

fn screen(width: u16, height: u16, keys: &[KeyCode], around: &Around) -> String {
    let buffer = frame(width, height, keys, around);
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
        text.contains("fell back curl 7            192.0.2.7:443"),
        "{text}"
    );
    assert!(text.contains("misled DssFallback"), "{text}");
    assert!(text.contains("MPCapableFallbackSYNACK    6s"), "{text}");
    // Nothing reaches the terminal unescaped.
    assert!(text.contains("\\u{1b}[31mevil 7"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(text.contains("q quit"), "{text}");
}

#[test]
fn more_columns_are_shown_where_they_fit_and_none_is_wider_than_the_screen() {
    let header = |width| {
        let text = screen(width, 24, &[], &around());
        let line = text.lines().nth(3).unwrap().to_owned();
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (width, wanted) in [
        (20, "STATE PROCESS"),
        (40, "STATE REMOTE AGO"),
        (60, "STATE PROCESS REMOTE AGO"),
        (80, "STATE PROCESS REMOTE CAUSE AGO"),
        (100, "STATE PROCESS REMOTE VERDICT CAUSE AGO"),
        (120, "STATE PROCESS LOCAL REMOTE VERDICT CAUSE AGO"),
        (
            140,
            "STATE PROCESS LOCAL REMOTE SIDE VERDICT CAUSE ASKED AGO",
        ),
        (
            160,
            "STATE PROCESS LOCAL REMOTE SIDE NETNS VERDICT CAUSE ASKED AGO",
        ),
        (
            200,
            "STATE PROCESS LOCAL REMOTE SIDE NETNS VERDICT CAUSE ASKED CGROUP AGO",
        ),
    ] {
        assert_eq!(header(width), wanted, "{width}");
    }
    let text = screen(200, 24, &[], &around());
    for wanted in ["misled       DssFallback", "10.0.0.1:1000", "/a/b.service"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let sums = |width| screen(width, 24, &[KeyCode::Char('2')], &around());
    assert!(
        !sums(40).contains("SHARE") && sums(40).contains("FELL"),
        "{}",
        sums(40)
    );
    assert!(sums(120).contains("REFUSED"), "{}", sums(120));
}

#[test]
fn a_long_address_loses_its_middle_and_never_its_port() {
    let mut board = Board::new(Limits::STATED);
    let row = Fixture {
        remote: "[2001:db8:1111:2222:3333:4444:5555:6666]:50443",
        comm: "日本語のプロセス",
        pid: 1_234_567,
        ..Fixture::default()
    };
    board.take(&row.connection(), &|_id| None);
    let snapshot = board.snapshot(Duration::from_secs(8));
    let line = |width| {
        let mut terminal = Terminal::new(TestBackend::new(width, 10)).unwrap();
        let mut app = App::new(false);
        let shown = terminal.draw(|frame| draw(frame, &mut app, &snapshot, &around(), escape));
        let buffer = shown.unwrap().buffer.clone();
        (0..width)
            .map(|x| buffer[(x, 4)].symbol())
            .collect::<String>()
    };
    let narrow = line(80);
    assert!(
        narrow.contains("[2001:db8:") && narrow.contains("…"),
        "{narrow}"
    );
    assert!(narrow.contains("]:50443"), "{narrow}");
    assert!(narrow.contains("… 1234567"), "{narrow}");
    let wide = line(130);
    assert!(
        wide.contains("[2001:db8:1111:2222:3333:4444:5555:6666]:50443"),
        "{wide}"
    );
}

#[test]
fn nothing_on_any_screen_is_unreadable_or_said_by_colour_alone() {
    use crate::top::paint::tests::fault;
    let mut around = around();
    around.state = Some(State {
        undecodable: 3,
        ..State::default()
    });
    around.recording = Some(Recording {
        file: "a.mpt".to_owned(),
        bytes: 1_234_567,
        records: 1,
    });
    let keys = [
        &[][..],
        &[KeyCode::Enter],
        &[KeyCode::Char('2')],
        &[KeyCode::Char('3')],
        &[KeyCode::Char('?')],
        &[KeyCode::Char('e')],
        &[KeyCode::Char('/'), KeyCode::Char('x')],
        &[KeyCode::Char(' ')],
    ];
    for keys in keys {
        let mut texts = Vec::new();
        for has_colour in [true, false] {
            around.has_colour = has_colour;
            let buffer = frame(100, 30, keys, &around);
            for cell in &buffer.content {
                assert_eq!(fault(cell.style()), None, "{keys:?}");
                assert!(has_colour || cell.fg == ratatui::style::Color::Reset);
            }
            texts.push(screen(100, 30, keys, &around));
        }
        assert_eq!(texts[0], texts[1]);
    }
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
fn any_size_is_drawn_whatever_is_open() {
    for (width, height) in [(1, 1), (10, 3), (20, 5), (79, 23), (300, 100)] {
        for keys in [
            &[][..],
            &[KeyCode::Enter],
            &[KeyCode::Char('2')],
            &[KeyCode::Char('?'), KeyCode::Down],
            &[KeyCode::Char('e'), KeyCode::Down],
        ] {
            screen(width, height, keys, &around());
        }
    }
}

#[test]
fn the_help_scrolls_where_it_does_not_fit_and_says_so() {
    let text = screen(100, 60, &[KeyCode::Char('?')], &around());
    assert!(text.contains("pause the display"), "{text}");
    assert!(text.contains("While you type a filter"), "{text}");
    assert!(!text.contains("ten seconds back"), "{text}");
    assert!(!text.contains("more lines below"), "{text}");
    let mut around = around();
    around.playing = Some(Playing {
        at: Duration::ZERO,
        length: Duration::ZERO,
        speed: 1.0,
        has_ended: false,
    });
    let text = screen(100, 60, &[KeyCode::Char('?')], &around);
    assert!(text.contains("ten seconds back"), "{text}");
    // A small terminal shows all of it, page by page.
    let mut keys = vec![KeyCode::Char('?')];
    let mut seen = String::new();
    loop {
        let text = screen(80, 10, &keys, &around);
        seen.push_str(&text);
        if !text.contains("more lines below: Down, PgDn") {
            break;
        }
        keys.push(KeyCode::PageDown);
        assert!(keys.len() < 20, "{text}");
    }
    assert!(keys.len() > 3, "{seen}");
    assert!(seen.contains("lines above: Up, PgUp"), "{seen}");
    for group in crate::top::keys::Group::ALL {
        assert!(seen.contains(group.title()), "{}: {seen}", group.title());
        for (names, what) in crate::top::keys::lines(group) {
            for word in names.iter().map(String::as_str).chain(what.split(' ')) {
                assert!(seen.contains(word), "{word}: {seen}");
            }
        }
    }
}

#[test]
fn an_explanation_is_what_the_command_prints() {
    let text = screen(80, 60, &[KeyCode::Char('3'), KeyCode::Char('e')], &around());
    let cause = text
        .lines()
        .find_map(|line| line.strip_prefix("Explanation of "));
    let cause = find_cause(cause.unwrap()).unwrap();
    let words = crate::sink::explanation(cause, 80);
    for word in words.split_whitespace() {
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = screen(40, 10, &[KeyCode::Char('e')], &around());
    assert!(text.contains("more lines below"), "{text}");
}

#[test]
fn a_capture_and_its_name_are_shown() {
    let mut around = around();
    around.recording = Some(Recording {
        file: "a\u{1b}.mpt".to_owned(),
        bytes: 1_234_567,
        records: 1,
    });
    let text = screen(80, 24, &[], &around);
    assert!(
        text.contains("recording a\\u{1b}.mpt 1.2 MB, 1 record\n"),
        "{text}"
    );
    let snapshot = snapshot();
    let mut app = App::new(false);
    app.ask_file(format!("{}end.mpt", "long/".repeat(30)));
    let mut terminal = Terminal::new(TestBackend::new(40, 10)).unwrap();
    let shown = terminal.draw(|frame| draw(frame, &mut app, &snapshot, &around, escape));
    let buffer = shown.unwrap().buffer.clone();
    let line: String = (0..40).map(|x| buffer[(x, 9)].symbol()).collect();
    // The end is where it is typed.
    assert!(line.starts_with("capture to: …"), "{line}");
    assert!(line.contains("end.mpt "), "{line}");
}

#[test]
fn losses_stand_in_the_head_by_kind_and_go_when_they_do_not_hold() {
    let loss = Loss {
        ring_full: 2,
        missed: 1,
        capped: 9,
        ..Loss::none(SensorId::Query)
    };
    let untracked = Loss {
        unfollowed: 4,
        ..Loss::none(SensorId::Fallback)
    };
    let mut around = around();
    around.state = Some(State {
        losses: crate::model::LossReport {
            sensors: vec![loss, untracked],
            counted: Vec::new(),
        },
        evicted: 5,
        ..State::default()
    });
    around.off = vec![SensorId::Fallback];
    let text = screen(80, 30, &[], &around);
    for wanted in [
        "! lost 3 (2 ring full, 1 missed)",
        "! capped 9 queries (--cap)",
        "! 4 sockets not tracked",
        "! 5 connections evicted (--max-connections)",
        "! fallback sensor off: only queries are traced",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(!text.contains("lost 0"), "{text}");
    // A small screen keeps room for the table.
    let text = screen(80, 10, &[], &around);
    assert!(text.contains("more: q prints all"), "{text}");
    assert!(text.contains("STATE"), "{text}");
    around.state = Some(State::default());
    around.off.clear();
    let text = screen(80, 30, &[], &around);
    assert!(text.contains(", lost 0"), "{text}");
    assert!(!text.contains('!'), "{text}");
}

#[test]
fn sizes_are_short() {
    for (bytes, want) in [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (u64::MAX, "18446744.0 TB"),
    ] {
        assert_eq!(head::size(bytes), want);
    }
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
        assert_eq!(tables::bar(share), want);
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
