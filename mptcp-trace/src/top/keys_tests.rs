use std::time::Duration;

use super::*;
use crate::{
    model::fixture::Row as Fixture,
    top::{
        app::{Action, App, Overlay, Typing},
        board::{Board, Limits, Snapshot},
    },
};

const PAGE: &str = include_str!("../../../docs/top.md");
const MANUAL: &str = include_str!("../cli/top.man");

fn snapshot() -> Snapshot {
    let mut board = Board::new(Limits::STATED);
    for address in 1..9 {
        let row = Fixture {
            address,
            ..Fixture::default()
        };
        board.take(&row.connection(), &|_id| None);
    }
    board.snapshot(Duration::from_secs(8))
}

/// Every key that a terminal may report.
fn all_keys() -> Vec<KeyEvent> {
    let mut codes: Vec<KeyCode> = (' '..='~').map(KeyCode::Char).collect();
    codes.extend((1..=12).map(KeyCode::F));
    codes.extend([
        KeyCode::Backspace,
        KeyCode::Enter,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Delete,
        KeyCode::Insert,
        KeyCode::Esc,
    ]);
    let alone = codes.iter().map(|code| KeyEvent::from(*code));
    let control = codes.iter().filter(|it| matches!(it, KeyCode::Char(_)));
    let control = control.map(|code| KeyEvent::new(*code, KeyModifiers::CONTROL));
    alone.chain(control).collect()
}

/// The states in which a key may do something.
fn states(snapshot: &Snapshot) -> Vec<App> {
    let mut states = Vec::new();
    for is_replay in [false, true] {
        for keys in ["", "2", "jj", "jj\n", "jje", "?j", "/ab\n", "/ab"] {
            let mut app = App::new(is_replay);
            app.scroll(8, 3);
            for key in keys.chars() {
                let code = match key {
                    '\n' => KeyCode::Enter,
                    other => KeyCode::Char(other),
                };
                app.key(KeyEvent::from(code), snapshot);
            }
            states.push(app);
        }
        let mut app = App::new(is_replay);
        app.ask_file("name".to_owned());
        states.push(app);
    }
    states
}

/// True if the key does something in this state.
fn acts(app: &App, key: KeyEvent, snapshot: &Snapshot) -> bool {
    let mut after = app.clone();
    let action = after.key(key, snapshot);
    action != Action::Nothing || after != *app
}

#[test]
fn every_key_that_does_something_is_listed_and_every_listed_key_does_something() {
    let snapshot = snapshot();
    let states = states(&snapshot);
    let keys = all_keys();
    for key in &keys {
        // A letter that is typed does something, but is no command.
        let commands = states.iter().filter(|app| app.typing() == Typing::Nothing);
        let acts = commands.into_iter().any(|app| acts(app, *key, &snapshot));
        let of_commands = BINDINGS.iter().filter(|it| it.group != Group::Typing);
        let is_listed = of_commands
            .flat_map(|it| it.keys)
            .any(|listed| listed.is(key));
        assert_eq!(acts, is_listed, "{key:?}");
    }
    for binding in BINDINGS {
        for listed in binding.keys {
            let key = keys.iter().find(|key| listed.is(key));
            let key = key.unwrap_or_else(|| panic!("no terminal reports {listed:?}"));
            let acts = states.iter().any(|app| {
                let is_typing = app.typing() != Typing::Nothing;
                let it = command(key, is_typing, app.is_replay());
                it == Some(binding.command) && acts(app, *key, &snapshot)
            });
            assert!(acts, "{} does nothing: {}", listed.name(), binding.what);
        }
    }
}

#[test]
fn no_key_has_two_meanings() {
    let alone = |is_typing: bool| {
        let is_its = move |it: &&Binding| (it.group == Group::Typing) == is_typing;
        BINDINGS.iter().filter(is_its).flat_map(|it| it.keys)
    };
    for is_typing in [false, true] {
        let mut names: Vec<String> = alone(is_typing).map(|key| key.name()).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }
}

#[test]
fn the_help_closes_by_itself_only_with_the_keys_that_say_so() {
    let snapshot = snapshot();
    let mut app = App::new(false);
    app.key(KeyEvent::from(KeyCode::Char('?')), &snapshot);
    for code in [KeyCode::Down, KeyCode::PageDown, KeyCode::Char(' ')] {
        app.key(KeyEvent::from(code), &snapshot);
        assert_eq!(*app.over(), Overlay::Help, "{code}");
    }
}

/// The table of keys in docs/top.md.
fn table() -> String {
    let mut table = String::new();
    for group in Group::ALL {
        for (names, what) in lines(group) {
            let names = names.iter().map(|name| format!("`{name}`"));
            let names = names.collect::<Vec<_>>().join(" ");
            let title = match group {
                Group::Replay => "replay: ",
                Group::Typing => "while you type: ",
                Group::Move | Group::Selection | Group::View | Group::Program => "",
            };
            table.push_str(&format!("| {names} | {title}{what} |\n"));
        }
    }
    table
}

/// The section of the manual page about keys.
fn section() -> String {
    let roff = |text: &str| {
        text.replace('\\', "\\e")
            .replace('-', "\\-")
            .replace('`', "")
    };
    let capital = |text: &str| match text.split_at_checked(1) {
        Some((first, rest)) => format!("{}{rest}", first.to_uppercase()),
        None => text.to_owned(),
    };
    let mut section = String::from(".SH KEYS\n");
    for group in Group::ALL {
        section.push_str(&format!(".SS \"{}\"\n", roff(group.title())));
        for (names, what) in lines(group) {
            let names = roff(&names.join(" "));
            let what = capital(&roff(what));
            section.push_str(&format!(".TP\n\\fB{names}\\fR\n{what}.\n"));
        }
    }
    section
}

#[test]
fn the_documents_list_these_keys() {
    let (table, section) = (table(), section());
    assert!(PAGE.contains(&table), "docs/top.md must contain:\n{table}");
    assert!(
        MANUAL.contains(&section),
        "top.man must contain:\n{section}"
    );
}
