use std::time::Duration;

use super::*;
use crate::{
    model::{Verdict, fixture::Row as Fixture},
    top::board::{Board, Limits},
};

fn picture() -> Picture {
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
    board.picture(Duration::from_secs(1))
}

fn press(app: &mut App, picture: &Picture, keys: &str) -> Wish {
    let mut wish = Wish::Nothing;
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
        wish = app.key(KeyEvent::from(code), picture);
    }
    wish
}

fn shown(app: &App, picture: &Picture) -> Vec<String> {
    app.connections(picture)
        .iter()
        .map(|row| row.process.as_ref().unwrap().comm.clone())
        .collect()
}

#[test]
fn the_worst_comes_first_and_any_order_can_be_turned_round() {
    let picture = picture();
    let check = |keys: &str, want: [&str; 3]| {
        let mut app = App::new(false);
        press(&mut app, &picture, keys);
        assert_eq!(shown(&app, &picture), want, "{keys}");
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
    let picture = picture();
    let check = |keys: &str, want: &[&str]| {
        let mut app = App::new(false);
        press(&mut app, &picture, keys);
        assert_eq!(shown(&app, &picture), want, "{keys}");
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
    assert_eq!(press(&mut app, &picture, "/q"), Wish::Nothing);
    assert_eq!(press(&mut app, &picture, "\nq"), Wish::Quit);
}

#[test]
fn enter_leads_from_sums_to_connections_to_one_life_and_back() {
    let picture = picture();
    let mut app = App::new(false);
    press(&mut app, &picture, "2");
    assert_eq!(app.tab(), Tab::Sums(0));
    assert_eq!(app.sums(0, &picture)[0].key, "Nginx 8");
    press(&mut app, &picture, "\n");
    assert_eq!(
        (app.tab(), app.filter()),
        (Tab::Connections, ("Nginx 8", false))
    );
    assert_eq!(shown(&app, &picture), ["Nginx"]);
    press(&mut app, &picture, "\n");
    assert!(matches!(app.over(), Over::Connection(id, 0) if id.socket.0 == 2));
    assert_eq!(press(&mut app, &picture, "vvq"), Wish::Nothing);
    assert_eq!(app.over(), Over::Nothing);
    assert_eq!(press(&mut app, &picture, "\u{1b}4\n"), Wish::Nothing);
    assert_eq!(app.filter().0, "192.0.2.0/24");
    assert_eq!(shown(&app, &picture), ["mail", "curl"]);
}

#[test]
fn the_cursor_stays_in_the_table_and_the_table_in_the_window() {
    let picture = picture();
    let mut app = App::new(false);
    assert_eq!(app.scroll(3, 2), (0, 0));
    press(&mut app, &picture, "vv");
    assert_eq!(app.scroll(3, 2), (1, 2));
    press(&mut app, &picture, "v");
    assert_eq!(app.scroll(3, 2), (1, 2));
    press(&mut app, &picture, "^^");
    assert_eq!(app.scroll(3, 2), (0, 0));
    press(&mut app, &picture, "G");
    assert_eq!(app.scroll(100, 10), (90, 99));
    // The window grows, then the table shrinks, then there is no room at all.
    assert_eq!(app.scroll(100, 50), (50, 99));
    assert_eq!(app.scroll(3, 10), (0, 2));
    assert_eq!(app.scroll(0, 0), (0, 0));
}

#[test]
fn only_a_replay_has_a_time_to_travel_in() {
    let picture = picture();
    for (keys, want) in [
        (">", Wish::Seek(10)),
        ("<", Wish::Seek(-10)),
        ("]", Wish::Seek(60)),
        ("0", Wish::SeekTo(Edge::Begin)),
        ("$", Wish::SeekTo(Edge::End)),
        ("+", Wish::Speed(Faster::Twice)),
        ("-", Wish::Speed(Faster::Half)),
        ("\n>", Wish::Seek(10)),
    ] {
        assert_eq!(press(&mut App::new(true), &picture, keys), want, "{keys}");
        let live = press(&mut App::new(false), &picture, keys);
        assert_eq!(live, Wish::Nothing, "{keys}");
    }
}

#[test]
fn control_keys_work_even_while_something_is_typed() {
    let picture = picture();
    let control = |character| KeyEvent::new(KeyCode::Char(character), KeyModifiers::CONTROL);
    let mut app = App::new(false);
    press(&mut app, &picture, "/");
    assert_eq!(app.key(control('z'), &picture), Wish::Suspend);
    assert_eq!(app.key(control('c'), &picture), Wish::Quit);
    assert_eq!(app.key(control('x'), &picture), Wish::Nothing);
    assert_eq!(app.filter(), ("", true));
}
