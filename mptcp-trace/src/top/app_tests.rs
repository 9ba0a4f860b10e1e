use std::time::Duration;

use super::*;
use crate::{
    model::{Verdict, fixture::Row as Fixture},
    top::board::{Board, Limits},
};

fn snapshot() -> Snapshot {
    let rows = [
        Fixture {
            address: 1,
            at_ms: 10,
            comm: "curl",
            remote: "192.0.2.7:443",
            ..Fixture::default()
        },
        Fixture {
            address: 2,
            at_ms: 20,
            comm: "Nginx",
            pid: 8,
            remote: "198.51.100.9:80",
            cause: Some("MPCapableFallbackSYNACK"),
            ..Fixture::default()
        },
    ];
    let mut board = Board::new(Limits::STATED);
    for row in rows {
        board.take(&row.connection(), &|_id| None);
    }
    let misled = Fixture {
        address: 3,
        at_ms: 5,
        comm: "mail",
        pid: 9,
        verdict: Some(Verdict::Misled),
        ..Fixture::default()
    };
    board.take(&misled.query(), &|_id| None);
    board.snapshot(Duration::from_secs(1))
}

fn press(app: &mut App, snapshot: &Snapshot, keys: &str) -> Action {
    let mut action = Action::Nothing;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            '\t' => KeyCode::Tab,
            '^' => KeyCode::Up,
            'v' => KeyCode::Down,
            '<' => KeyCode::Left,
            '>' => KeyCode::Right,
            other => KeyCode::Char(other),
        };
        action = app.key(KeyEvent::from(code), snapshot);
    }
    action
}

fn shown(app: &App, snapshot: &Snapshot) -> Vec<String> {
    app.connections(snapshot)
        .iter()
        .map(|row| row.process.as_ref().unwrap().comm.clone())
        .collect()
}

#[test]
fn the_worst_comes_first_and_any_order_can_be_turned_round() {
    let snapshot = snapshot();
    let check = |keys: &str, want: [&str; 3]| {
        let mut app = App::new(false);
        press(&mut app, &snapshot, keys);
        assert_eq!(shown(&app, &snapshot), want, "{keys}");
    };
    check("", ["mail", "Nginx", "curl"]);
    check("r", ["curl", "Nginx", "mail"]);
    check("s", ["Nginx", "curl", "mail"]);
    check("ss", ["Nginx", "curl", "mail"]);
    check("sssr", ["Nginx", "mail", "curl"]);
    check("ssssss", ["mail", "Nginx", "curl"]);
}

#[test]
fn a_filter_works_while_it_is_typed_and_goes_with_escape() {
    let snapshot = snapshot();
    let check = |keys: &str, want: &[&str]| {
        let mut app = App::new(false);
        press(&mut app, &snapshot, keys);
        assert_eq!(shown(&app, &snapshot), want, "{keys}");
    };
    check("/nginx", &["Nginx"]);
    check("/nginx\u{8}\u{8}\u{8}\u{8}\u{8}443", &["mail", "curl"]);
    check("/192.0.2.0/24", &["mail", "curl"]);
    check("/!mail fell", &["Nginx", "curl"]);
    check("/synack\n", &["Nginx"]);
    check("/misled", &["mail"]);
    check("/nothing at all", &[]);
    check("/nginx\u{1b}", &["mail", "Nginx", "curl"]);
    check("/nginx\n\u{1b}", &["mail", "Nginx", "curl"]);
    // A letter that is typed is no command.
    let mut app = App::new(false);
    assert_eq!(press(&mut app, &snapshot, "/q"), Action::Nothing);
    assert_eq!(press(&mut app, &snapshot, "\nq"), Action::Quit);
}

#[test]
fn enter_leads_from_sums_to_connections_to_one_life_and_back() {
    let snapshot = snapshot();
    let mut app = App::new(false);
    press(&mut app, &snapshot, "2");
    assert_eq!(app.tab(), Tab::Sums(0));
    assert_eq!(app.sums(0, &snapshot)[0].key, "Nginx 8");
    press(&mut app, &snapshot, "\n");
    assert_eq!((app.tab(), app.filter()), (Tab::Connections, "Nginx 8"));
    assert_eq!(shown(&app, &snapshot), ["Nginx"]);
    press(&mut app, &snapshot, "\n");
    assert!(matches!(app.over(), Overlay::Connection(id) if id.socket.0 == 2));
    assert_eq!(press(&mut app, &snapshot, "vvq"), Action::Nothing);
    assert_eq!(*app.over(), Overlay::Nothing);
    assert_eq!(press(&mut app, &snapshot, "\u{1b}4\n"), Action::Nothing);
    assert_eq!(app.filter(), "192.0.2.0/24");
    assert_eq!(shown(&app, &snapshot), ["mail", "curl"]);
}

#[test]
fn the_cursor_stays_in_the_table_and_the_table_in_the_window() {
    let snapshot = snapshot();
    let mut app = App::new(false);
    assert_eq!(app.scroll(3, 2), (0, 0));
    press(&mut app, &snapshot, "vv");
    assert_eq!(app.scroll(3, 2), (1, 2));
    press(&mut app, &snapshot, "v");
    assert_eq!(app.scroll(3, 2), (1, 2));
    press(&mut app, &snapshot, "^^");
    assert_eq!(app.scroll(3, 2), (0, 0));
    press(&mut app, &snapshot, "G");
    assert_eq!(app.scroll(100, 10), (90, 99));
    // The window grows, then the table shrinks, then there is no room at all.
    assert_eq!(app.scroll(100, 50), (50, 99));
    assert_eq!(app.scroll(3, 10), (0, 2));
    assert_eq!(app.scroll(0, 0), (0, 0));
}

#[test]
fn only_a_replay_has_a_time_to_travel_in() {
    let snapshot = snapshot();
    for (keys, want) in [
        (">", Action::Seek(10)),
        ("<", Action::Seek(-10)),
        ("]", Action::Seek(60)),
        ("0", Action::SeekTo(Edge::Begin)),
        ("$", Action::SeekTo(Edge::End)),
        ("+", Action::Speed(Faster::Twice)),
        ("-", Action::Speed(Faster::Half)),
        ("\n>", Action::Seek(10)),
    ] {
        assert_eq!(press(&mut App::new(true), &snapshot, keys), want, "{keys}");
        let live = press(&mut App::new(false), &snapshot, keys);
        assert_eq!(live, Action::Nothing, "{keys}");
    }
}

#[test]
fn control_keys_work_even_while_something_is_typed() {
    let snapshot = snapshot();
    let control = |character| KeyEvent::new(KeyCode::Char(character), KeyModifiers::CONTROL);
    let mut app = App::new(false);
    press(&mut app, &snapshot, "/");
    assert_eq!(app.key(control('z'), &snapshot), Action::Suspend);
    assert_eq!(app.key(control('c'), &snapshot), Action::Quit);
    assert_eq!(app.key(control('x'), &snapshot), Action::Nothing);
    assert_eq!((app.filter(), app.typing()), ("", Typing::Filter));
}

#[test]
fn an_explanation_lies_over_what_it_explains() {
    let snapshot = snapshot();
    let mut app = App::new(false);
    let title = |app: &App| match app.over() {
        Overlay::Explanation(it) => it.title.clone(),
        other @ (Overlay::Nothing | Overlay::Help | Overlay::Connection(_) | Overlay::Paths(_)) => {
            format!("{other:?}")
        }
    };
    press(&mut app, &snapshot, "v\ne");
    assert!(
        title(&app).starts_with("Nginx 8: 10.0.0.1:1000"),
        "{}",
        title(&app)
    );
    // Help lies over it, and each goes by itself.
    press(&mut app, &snapshot, "?");
    assert_eq!(*app.over(), Overlay::Help);
    press(&mut app, &snapshot, "\u{1b}");
    assert!(title(&app).starts_with("Nginx 8"), "{}", title(&app));
    press(&mut app, &snapshot, "q");
    assert!(matches!(app.over(), Overlay::Connection(_)));
    assert_eq!(press(&mut app, &snapshot, "\u{1b}"), Action::Nothing);
    assert_eq!(*app.over(), Overlay::Nothing);
    for (keys, wanted) in [
        ("2e", "Nginx 8"),
        ("3e", "DssFallback"),
        ("4e", "192.0.2.0/24"),
    ] {
        let mut app = App::new(false);
        press(&mut app, &snapshot, keys);
        assert_eq!(title(&app), wanted, "{keys}");
    }
    let mut app = App::new(false);
    press(&mut app, &Snapshot::default(), "e");
    assert!(app.notice().unwrap().contains("no row is selected"));
}

#[test]
fn a_capture_gets_a_name_first_and_a_replay_records_nothing() {
    let snapshot = snapshot();
    let mut app = App::new(false);
    assert_eq!(press(&mut app, &snapshot, "vw"), Action::Capture);
    app.ask_file("a.mpt".to_owned());
    // Letters are part of the name.
    assert_eq!(press(&mut app, &snapshot, "\u{8}qw/"), Action::Nothing);
    assert_eq!((app.file(), app.typing()), ("a.mpqw/", Typing::File));
    assert_eq!(press(&mut app, &snapshot, "\n"), Action::Begin);
    assert_eq!((app.file(), app.typing()), ("a.mpqw/", Typing::Nothing));
    // The selection stays where it was.
    assert_eq!(app.scroll(3, 3), (0, 1));
    for keys in ["\u{1b}", "\u{8}\n"] {
        app.ask_file("a".to_owned());
        assert_eq!(
            press(&mut app, &snapshot, keys),
            Action::Nothing,
            "{keys:?}"
        );
        assert_eq!(app.typing(), Typing::Nothing);
    }
    let mut replay = App::new(true);
    assert_eq!(press(&mut replay, &snapshot, "w"), Action::Nothing);
    assert!(replay.notice().unwrap().contains("nothing to record"));
    // A message stays until the next key.
    press(&mut replay, &snapshot, "v");
    assert_eq!(replay.notice(), None);
}

#[test]
fn the_mouse_selects_opens_sorts_and_scrolls() {
    let snapshot = snapshot();
    let mut app = App::new(false);
    assert_eq!(press(&mut app, &snapshot, "m"), Action::Mouse(true));
    let event = |kind, column, row| MouseEvent {
        kind,
        column,
        row,
        modifiers: KeyModifiers::NONE,
    };
    let click = |column, row| event(MouseEventKind::Down(MouseButton::Left), column, row);
    app.hits().add(0, 0..10, Hit::Tab(Tab::Sums(1)));
    app.hits().add(1, 5..9, Hit::Column(Order::Share));
    app.hits().add(2, 0..80, Hit::Row(0));
    app.hits().add(3, 0..80, Hit::Row(1));
    app.mouse(click(3, 0), &snapshot);
    assert_eq!(app.tab(), Tab::Sums(1));
    app.mouse(click(5, 1), &snapshot);
    assert_eq!(app.order(), (Order::Share, false));
    app.mouse(click(5, 1), &snapshot);
    assert_eq!(app.order(), (Order::Share, true));
    app.mouse(click(9, 1), &snapshot);
    assert_eq!(app.order(), (Order::Share, true));
    app.mouse(click(0, 3), &snapshot);
    assert_eq!(app.scroll(9, 9), (0, 1));
    app.mouse(event(MouseEventKind::ScrollDown, 0, 0), &snapshot);
    assert_eq!(app.scroll(9, 9), (0, 4));
    app.mouse(event(MouseEventKind::ScrollUp, 0, 0), &snapshot);
    assert_eq!(app.scroll(9, 9), (0, 1));
    app.mouse(click(0, 3), &snapshot);
    assert_eq!(
        (app.tab(), app.filter().is_empty()),
        (Tab::Connections, false)
    );
    // While something is typed, and over the help, a click selects nothing.
    press(&mut app, &snapshot, "\u{1b}?");
    app.mouse(click(3, 0), &snapshot);
    assert_eq!((app.tab(), app.over()), (Tab::Connections, &Overlay::Help));
    assert_eq!(press(&mut app, &snapshot, "m"), Action::Mouse(false));
}

#[test]
fn paths_are_read_only_while_a_connection_is_shown() {
    let snapshot = snapshot();
    let mut app = App::new(false);
    let second = snapshot.rows.iter().find(|row| row.id.socket.0 == 2);
    let second = second.map(|row| row.id);
    for (keys, open) in [
        ("r", None),
        ("/nginx\n\n", second),
        ("o", second),
        ("?", None),
        ("?", second),
        ("e", None),
        ("\u{1b}\u{1b}\u{1b}", None),
        ("o", second),
        ("2", None),
    ] {
        press(&mut app, &snapshot, keys);
        assert_eq!(app.open_connection(), open, "{keys:?}");
    }
}
