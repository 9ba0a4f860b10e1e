use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent},
};

use super::*;
use crate::{
    model::{
        Outcome, Path, PathId, PathKind, PathRole, SocketId, Verdict,
        fixture::{Row as Fixture, a_path},
    },
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
    frame_of(&snapshot(), width, height, keys, around)
}

pub(super) fn frame_of(
    snapshot: &Snapshot,
    width: u16,
    height: u16,
    keys: &[KeyCode],
    around: &Around,
) -> Buffer {
    let mut app = App::new(around.playing.is_some());
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut show = |app: &mut App| {
        let shown = terminal.draw(|frame| draw(frame, app, snapshot, around, escape));
        shown.unwrap().buffer.clone()
    };
    for code in keys {
        show(&mut app);
        app.key(KeyEvent::from(*code), snapshot);
    }
    show(&mut app)
}

fn screen(width: u16, height: u16, keys: &[KeyCode], around: &Around) -> String {
    text_of(&frame(width, height, keys, around), width, height)
}

pub(super) fn text_of(buffer: &Buffer, width: u16, height: u16) -> String {
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn around() -> Around {
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
            paths_under_way: 0,
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
    let none = || account(3, 3, false);
    for (fallbacks, paths, says) in [
        (account(5, 3, false), none(), "kernel counted 2 more"),
        (account(3, 5, false), none(), "counters differ"),
        (account(0, 5, true), none(), "counters unread"),
        (none(), account(0, 5, true), "counters unread"),
        (none(), account(5, 3, false), "counters of paths differ"),
    ] {
        let mut around = around.clone();
        around.state = Some(State {
            reconciled: Reconciliations {
                fallbacks: vec![fallbacks],
                paths: vec![paths],
            },
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

/// A healthy connection of two paths, one of which was stale and ended, and a join that failed; one
/// that closed; one that could not be opened.
fn with_paths() -> Snapshot {
    let mut board = Board::new(Limits::STATED);
    let row = |address, at_ms, remote| Fixture {
        address,
        at_ms,
        remote,
        cause: None,
        ..Fixture::default()
    };
    let path = |socket, role, kind| Path {
        path: Some(PathId {
            socket: SocketId(socket),
            began_at: Duration::from_secs(1),
        }),
        role,
        began_at: Some(Duration::from_secs(1)),
        up_at: (kind != PathKind::Failed).then(|| Duration::from_millis(1_020)),
        ..a_path(kind)
    };
    let lost = Path {
        cause: Some("timeout".into()),
        ..path(2, PathRole::Join, PathKind::Down)
    };
    let main = "192.0.2.7:443";
    for finding in [
        row(1, 1_020, main).path(path(1, PathRole::First, PathKind::Up)),
        row(1, 2_000, "192.0.2.8:443").path(path(2, PathRole::Join, PathKind::Up)),
        row(1, 3_000, "192.0.2.8:443").path(path(2, PathRole::Join, PathKind::Stale)),
        row(1, 5_000, "192.0.2.8:443").path(lost),
        row(1, 6_000, main).path(path(1, PathRole::First, PathKind::Stale)),
        row(1, 6_500, "192.0.2.9:443").path(path(3, PathRole::Join, PathKind::Failed)),
        row(2, 1_020, main).path(path(9, PathRole::First, PathKind::Up)),
        row(2, 2_000, main).closed(|it| it.outcome = Outcome::Mptcp),
        row(3, 2_000, main).path(path(8, PathRole::First, PathKind::ConnectFailed)),
    ] {
        board.take(&finding, &|_id| None);
    }
    board.snapshot(Duration::from_secs(8))
}

fn screen_with_paths(keys: &[KeyCode]) -> String {
    let buffer = frame_of(&with_paths(), 80, 30, keys, &around());
    text_of(&buffer, 80, 30)
}

#[test]
fn healthy_connections_are_mptcp_and_have_their_outcome_when_they_end() {
    let text = screen_with_paths(&[]);
    assert!(text.contains("2 connections, 0 fell back (0%)"), "{text}");
    for wanted in [
        // The addresses of a join are not those of the connection.
        "MPTCP curl 7 192.0.2.7:443 1s",
        "MPTCP curl 7 192.0.2.7:443 MPTCP to the end 6s.",
        "failed curl 7 192.0.2.7:443 MPCapableSynRefused 6s",
    ] {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_it = |line: &str| words(line) == wanted;
        assert!(text.lines().any(is_it), "{wanted:?} is not in\n{text}");
    }
}

#[test]
fn a_connection_opens_into_its_paths() {
    // From the table, and from the life of the connection; the key closes them too.
    let [from_table, from_life, closed] = ["o", "\no", "\noo"].map(|keys| {
        let code = |key| match key {
            '\n' => KeyCode::Enter,
            key => KeyCode::Char(key),
        };
        screen_with_paths(&keys.chars().map(code).collect::<Vec<_>>())
    });
    assert!(
        closed.contains("Life") && !closed.contains("Paths of"),
        "{closed}"
    );
    assert!(from_life.contains("Paths of"), "{from_life}");
    for wanted in [
        "Paths of 10.0.0.1:1000 -> 192.0.2.7:443",
        "1 stale, 1 down, 1 failed",
        "stale   10.0.0.1:1000 -> 192.0.2.7:443  first, ids",
        "up 6s ago after 20.0 ms, stale since 2s, 8.00 kB sent, 1.20 kB received",
        "down    10.0.0.1:1000 -> 192.0.2.8:443  join, ids 1/0",
        "was stale for 2.00 s, down 3s ago: timeout,",
        "failed  10.0.0.1:1000 -> 192.0.2.9:443  join, ids 1/0",
        "failed 1s ago: MPJoinAckRejected (prohibited), decided by",
    ] {
        assert!(
            from_table.contains(wanted),
            "{wanted:?} is not in\n{from_table}"
        );
    }
    let on_a_sum = screen_with_paths(&[KeyCode::Char('2'), KeyCode::Char('o')]);
    assert!(on_a_sum.contains("no connection is selected"), "{on_a_sum}");
}

#[test]
fn causes_cover_joins_and_ends() {
    let text = screen_with_paths(&[KeyCode::Char('3')]);
    let row = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let words = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        let words: Vec<&str> = words.split_whitespace().collect();
        words[..5].join(" ")
    };
    assert_eq!(row("CAUSE"), "CAUSE CONNS FELL FAILED ENDED");
    assert!(row("MPJoinAckRejected").ends_with("0 1 0"), "{text}");
    assert!(row("MPCapableSynRefused").ends_with("0 1 0"), "{text}");
    assert!(row("timeout").ends_with("0 0 1"), "{text}");
    let order = |name: &str| text.find(name).unwrap();
    assert!(order("MPJoinAckRejected") < order("timeout"), "{text}");
    // Enter opens the connections whose path had the cause.
    let opened = screen_with_paths(&[KeyCode::Char('3'), KeyCode::Enter]);
    assert!(opened.contains("192.0.2.7:443"), "{opened}");
}

#[test]
fn the_life_and_the_explanation_of_a_connection_name_its_paths() {
    let life = screen_with_paths(&[KeyCode::Enter]);
    for wanted in [
        "path 10.0.0.1:1000 -> 192.0.2.8:443 (join) is stale",
        "FAILED: MPJoinAckRejected",
    ] {
        let life = life.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(life.contains(wanted), "{wanted:?} is not in\n{life}");
    }
    let explained = screen_with_paths(&[KeyCode::Char('e')]);
    assert!(explained.contains("path down"), "{explained}");
    assert!(explained.contains("192.0.2.8:443: timeout"), "{explained}");
}
