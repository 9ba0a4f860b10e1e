//! The keys: which key requests what. The help, the manual page and docs/top.md list this table.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A key on the keyboard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// A key by itself.
    Alone(KeyCode),
    /// A letter together with Ctrl.
    Control(char),
}

impl Key {
    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Control(letter) => format!("Ctrl-{}", letter.to_ascii_uppercase()),
            Self::Alone(KeyCode::Char(' ')) => "Space".to_owned(),
            Self::Alone(KeyCode::BackTab) => "Shift-Tab".to_owned(),
            Self::Alone(KeyCode::PageUp) => "PgUp".to_owned(),
            Self::Alone(KeyCode::PageDown) => "PgDn".to_owned(),
            Self::Alone(KeyCode::Esc) => "Esc".to_owned(),
            Self::Alone(code) => code.to_string(),
        }
    }

    fn is(self, event: &KeyEvent) -> bool {
        let with_control = event.modifiers.contains(KeyModifiers::CONTROL);
        match self {
            Self::Control(letter) => with_control && event.code == KeyCode::Char(letter),
            Self::Alone(code) => {
                let is_letter = matches!(code, KeyCode::Char(_));
                event.code == code && !(is_letter && with_control)
            }
        }
    }
}

/// What a key requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Show this table.
    Tab(usize),
    /// Show the next table.
    NextTab,
    /// Show the previous table.
    PreviousTab,
    /// Move up by a line.
    Up,
    /// Move down by a line.
    Down,
    /// Move up by a page.
    PageUp,
    /// Move down by a page.
    PageDown,
    /// Move to the first line.
    First,
    /// Move to the last line.
    Last,
    /// Open the selection.
    Open,
    /// Explain the selection.
    Explain,
    /// Show the paths of the connection.
    Paths,
    /// Go back.
    Back,
    /// Begin to type a filter.
    Filter,
    /// Sort by the next column.
    Sort,
    /// Reverse the order.
    Reverse,
    /// Pause or resume the display.
    Pause,
    /// Start or stop a capture.
    Capture,
    /// Use the mouse, or stop that.
    Mouse,
    /// Ten seconds back.
    Behind,
    /// Ten seconds ahead.
    Ahead,
    /// A minute back.
    MinuteBehind,
    /// A minute ahead.
    MinuteAhead,
    /// To the begin of the capture.
    Begin,
    /// To the end of the capture.
    End,
    /// Twice as fast.
    Faster,
    /// Half as fast.
    Slower,
    /// Show the keys.
    Help,
    /// Suspend the program.
    Suspend,
    /// Close what is open, else quit.
    Leave,
    /// Quit.
    Quit,
    /// Take what was typed.
    Enter,
    /// Drop what was typed.
    Drop,
    /// Delete the last character.
    Erase,
}

/// Groups of keys, in the order of the help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Movement.
    Move,
    /// The selected row.
    Selection,
    /// The view.
    View,
    /// Keys of a replay.
    Replay,
    /// The program.
    Program,
    /// While text is typed.
    Typing,
}

impl Group {
    /// All groups.
    pub const ALL: [Self; 6] = [
        Self::Move,
        Self::Selection,
        Self::View,
        Self::Replay,
        Self::Program,
        Self::Typing,
    ];

    /// Its title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Move => "Move",
            Self::Selection => "The selected row",
            Self::View => "View",
            Self::Replay => "With --replay",
            Self::Program => "Program",
            Self::Typing => "While you type a filter or a file name",
        }
    }
}

/// Keys with the same command.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Its group.
    pub group: Group,
    /// Each of them has this command.
    pub keys: &'static [Key],
    /// What they request.
    pub command: Command,
    /// What that does; consecutive bindings with the same words share a line of the help.
    pub what: &'static str,
}

const fn letter(letter: char) -> Key {
    Alone(KeyCode::Char(letter))
}

/// Defines the bindings: a line of the help, and its keys with their commands.
macro_rules! bindings {
    ($($group:ident $what:literal { $([$($key:expr),+] $command:expr,)+ })+) => {
        /// All bindings, in the order of the help.
        pub const BINDINGS: &[Binding] = &[$($(Binding {
            group: Group::$group,
            keys: &[$($key),+],
            command: $command,
            what: $what,
        },)+)+];
    };
}

use Command as Do;
use Key::{Alone, Control};

bindings! {
    Move "connections, processes, causes, destinations" {
        [letter('1')] Do::Tab(0),
        [letter('2')] Do::Tab(1),
        [letter('3')] Do::Tab(2),
        [letter('4')] Do::Tab(3),
    }
    Move "the next table, the previous one" {
        [Alone(KeyCode::Tab)] Do::NextTab,
        [Alone(KeyCode::BackTab)] Do::PreviousTab,
    }
    Move "move the selection, or scroll" {
        [Alone(KeyCode::Up), letter('k')] Do::Up,
        [Alone(KeyCode::Down), letter('j')] Do::Down,
        [Alone(KeyCode::PageUp)] Do::PageUp,
        [Alone(KeyCode::PageDown)] Do::PageDown,
        [Alone(KeyCode::Home), letter('g')] Do::First,
        [Alone(KeyCode::End), letter('G')] Do::Last,
    }
    Selection "open it: the connections of a process, cause or destination, the life of a connection" {
        [Alone(KeyCode::Enter)] Do::Open,
    }
    Selection "explain its cause, as `mptcp-trace explain` does; without one, its state and verdict" {
        [letter('e')] Do::Explain,
    }
    Selection "the paths of the connection: up, stale, down or failed and why, and what each carries, live" {
        [letter('o')] Do::Paths,
    }
    Selection "back; from a table: drop the filter" {
        [Alone(KeyCode::Esc), Alone(KeyCode::Backspace)] Do::Back,
    }
    View "filter as you type: every word must match, !word must not; 192.0.2.0/24 is a network" {
        [letter('/'), letter('f')] Do::Filter,
    }
    View "sort by the next column, reverse the order" {
        [letter('s')] Do::Sort,
        [letter('r')] Do::Reverse,
    }
    View "pause the display; tracing continues" {
        [Alone(KeyCode::Char(' ')), letter('p')] Do::Pause,
    }
    View "mouse on or off (wheel, tabs, rows, column headers); while it is on, most terminals select text only with Shift" {
        [letter('m')] Do::Mouse,
    }
    View "write a capture from now on: asks for a file name, a second time ends it" {
        [letter('w')] Do::Capture,
    }
    Replay "ten seconds back, ahead" {
        [Alone(KeyCode::Left)] Do::Behind,
        [Alone(KeyCode::Right)] Do::Ahead,
    }
    Replay "a minute back, ahead" {
        [letter('[')] Do::MinuteBehind,
        [letter(']')] Do::MinuteAhead,
    }
    Replay "to the beginning, to the end" {
        [letter('0')] Do::Begin,
        [letter('$')] Do::End,
    }
    Replay "twice as fast, half as fast" {
        [letter('+'), letter('=')] Do::Faster,
        [letter('-')] Do::Slower,
    }
    Program "this list" {
        [letter('?'), letter('h'), Alone(KeyCode::F(1))] Do::Help,
    }
    Program "suspend; `fg` resumes" {
        [Control('z')] Do::Suspend,
    }
    Program "close what is open; from a table: quit" {
        [letter('q')] Do::Leave,
    }
    Program "quit" {
        [Control('c')] Do::Quit,
    }
    Typing "keep the filter; start the capture" {
        [Alone(KeyCode::Enter)] Do::Enter,
    }
    Typing "drop what is typed" {
        [Alone(KeyCode::Esc)] Do::Drop,
    }
    Typing "delete the last character" {
        [Alone(KeyCode::Backspace)] Do::Erase,
    }
}

/// The command of a key, if it has one. While text is typed, only the keys for that and those with
/// Ctrl have one.
#[must_use]
pub fn command(event: &KeyEvent, is_typing: bool, is_replay: bool) -> Option<Command> {
    let is_bound = |binding: &&Binding| {
        let is_its_time = match binding.group {
            Group::Typing => is_typing,
            Group::Replay => is_replay && !is_typing,
            Group::Move | Group::Selection | Group::View | Group::Program => {
                !is_typing || matches!(binding.keys, [Control(_)])
            }
        };
        is_its_time && binding.keys.iter().any(|key| key.is(event))
    };
    BINDINGS.iter().find(is_bound).map(|it| it.command)
}

/// The lines of the help about a group: names of keys, and what they do.
#[must_use]
pub fn lines(group: Group) -> Vec<(Vec<String>, &'static str)> {
    let mut lines: Vec<(Vec<String>, &'static str)> = Vec::new();
    for binding in BINDINGS.iter().filter(|it| it.group == group) {
        let names = binding.keys.iter().map(|key| key.name());
        match lines.last_mut() {
            Some((keys, what)) if *what == binding.what => keys.extend(names),
            Some(_) | None => lines.push((names.collect(), binding.what)),
        }
    }
    lines
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
