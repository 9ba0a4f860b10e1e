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
    assert_eq!(
        (app.tab(), app.filter()),
        (Tab::Connections, ("Nginx 8", false))
    );
    assert_eq!(shown(&app, &snapshot), ["Nginx"]);
    press(&mut app, &snapshot, "\n");
    assert!(matches!(app.over(), Overlay::Connection(id, 0) if id.socket.0 == 2));
    assert_eq!(press(&mut app, &snapshot, "vvq"), Action::Nothing);
    assert_eq!(app.over(), Overlay::Nothing);
    assert_eq!(press(&mut app, &snapshot, "\u{1b}4\n"), Action::Nothing);
    assert_eq!(app.filter().0, "192.0.2.0/24");
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
    assert_eq!(app.filter(), ("", true));
}
