//! State of the user interface: table, sort order, filter. Pure: it turns keys into actions; the
//! screen is a function of this state and a [`Snapshot`].

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "keys are the terminal's: those that mean nothing here mean nothing"
)]

use std::{cmp::Ordering, rc::Rc, str::FromStr as _};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::board::{Row, SUMS, Snapshot};
use crate::model::{ConnectionId, Prefix, SumRow};

/// Longest filter, characters.
const FILTER_MAX: usize = 64;

/// What a key requests from the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Quit.
    Quit,
    /// Suspend, as Ctrl-Z does in every program.
    Suspend,
    /// Seek by this many seconds (replay).
    Seek(i64),
    /// Seek to the start or the end (replay).
    SeekTo(Edge),
    /// Double or halve the speed (replay).
    Speed(Faster),
}

/// The ends of a capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edge {
    /// First finding.
    Begin,
    /// Last finding.
    End,
}

/// Change of the replay speed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Faster {
    /// Double.
    Twice,
    /// Halve.
    Half,
}

/// Tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tab {
    /// Connections.
    Connections,
    /// A table of [`SUMS`].
    Sums(usize),
}

impl Tab {
    /// All tabs, in the order of their digits.
    pub const ALL: [Self; 1 + SUMS.len()] = [
        Self::Connections,
        Self::Sums(0),
        Self::Sums(1),
        Self::Sums(2),
    ];

    /// Title.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "Connections",
            Self::Sums(0) => "Processes",
            Self::Sums(1) => "Causes",
            Self::Sums(_) => "Destinations",
        }
    }

    fn number(self) -> usize {
        Self::ALL.iter().position(|tab| *tab == self).unwrap_or(0)
    }

    /// Available sort orders.
    fn orders(self) -> &'static [Order] {
        match self {
            Self::Connections => &[
                Order::Worst,
                Order::Latest,
                Order::Process,
                Order::Remote,
                Order::Cause,
                Order::Queries,
            ],
            Self::Sums(_) => &[
                Order::Fallbacks,
                Order::Share,
                Order::Connections,
                Order::Queries,
                Order::Name,
            ],
        }
    }
}

/// Sort orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Deceived applications first, then fallbacks; latest first.
    Worst,
    /// Last active first.
    Latest,
    /// By process name.
    Process,
    /// By remote address.
    Remote,
    /// By cause.
    Cause,
    /// Most queries first.
    Queries,
    /// Most fallbacks first.
    Fallbacks,
    /// Largest share of fallbacks first.
    Share,
    /// Most connections first.
    Connections,
    /// By name.
    Name,
}

impl Order {
    /// Name shown in the title.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Latest => "latest",
            Self::Process => "process",
            Self::Remote => "remote",
            Self::Cause => "cause",
            Self::Queries => "asked",
            Self::Fallbacks => "fell back",
            Self::Share => "share",
            Self::Connections => "connections",
            Self::Name => "name",
        }
    }
}

/// What covers the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overlay {
    /// Nothing.
    Nothing,
    /// The list of keys.
    Help,
    /// A connection, and the scroll position of its life.
    Connection(ConnectionId, usize),
}

/// View of one table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct TableState {
    /// Index into the sort orders.
    order: usize,
    is_reversed: bool,
    /// Line of the cursor.
    cursor: usize,
    /// First visible line.
    top: usize,
}

/// State of the user interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct App {
    tab: Tab,
    tables: [TableState; Tab::ALL.len()],
    filter: String,
    is_typing: bool,
    is_paused: bool,
    over: Overlay,
    is_replay: bool,
    /// Number of lines when the table was last drawn.
    height: usize,
}

impl App {
    /// The initial view.
    #[must_use]
    pub fn new(is_replay: bool) -> Self {
        Self {
            tab: Tab::Connections,
            tables: [TableState::default(); Tab::ALL.len()],
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            over: Overlay::Nothing,
            is_replay,
            height: 1,
        }
    }

    /// The selected tab.
    #[must_use]
    pub fn tab(&self) -> Tab {
        self.tab
    }

    /// The overlay on top of it.
    #[must_use]
    pub fn over(&self) -> Overlay {
        self.over
    }

    /// The filter, and whether it is being edited.
    #[must_use]
    pub fn filter(&self) -> (&str, bool) {
        (&self.filter, self.is_typing)
    }

    /// True if the display is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// True if it plays a capture.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// The sort order, and whether it is reversed.
    #[must_use]
    pub fn order(&self) -> (Order, bool) {
        let table = self.table();
        let order = self.tab.orders().get(table.order).copied();
        (order.unwrap_or(Order::Name), table.is_reversed)
    }

    fn table(&self) -> TableState {
        self.tables
            .get(self.tab.number())
            .copied()
            .unwrap_or_default()
    }

    fn change(&mut self, change: impl FnOnce(&mut TableState)) {
        if let Some(table) = self.tables.get_mut(self.tab.number()) {
            change(table);
        }
    }

    /// Adjusts the view to a table of this many lines and this much room; returns the first visible
    /// line and the cursor.
    pub fn scroll(&mut self, lines: usize, height: usize) -> (usize, usize) {
        self.height = height.max(1);
        let height = self.height;
        self.change(|table| {
            table.cursor = table.cursor.min(lines.saturating_sub(1));
            table.top = table.top.min(table.cursor);
            if table.cursor >= table.top + height {
                table.top = table.cursor + 1 - height;
            }
            table.top = table.top.min(lines.saturating_sub(height));
        });
        let table = self.table();
        (table.top, table.cursor)
    }

    /// Adjusts the scroll position to this many lines and this much room; returns the first visible
    /// line.
    pub fn scroll_moments(&mut self, lines: usize, height: usize) -> usize {
        self.height = height.max(1);
        match &mut self.over {
            Overlay::Connection(_, top) => {
                *top = (*top).min(lines.saturating_sub(height));
                *top
            }
            Overlay::Nothing | Overlay::Help => 0,
        }
    }

    /// Handles a key.
    pub fn key(&mut self, key: KeyEvent, snapshot: &Snapshot) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Nothing;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if with_control => Action::Quit,
            KeyCode::Char('z') if with_control => Action::Suspend,
            KeyCode::Char(_) if with_control => Action::Nothing,
            code if self.is_typing => {
                self.type_filter(code);
                Action::Nothing
            }
            code => match self.over {
                Overlay::Nothing => self.command(code, snapshot),
                Overlay::Help => {
                    self.over = Overlay::Nothing;
                    Action::Nothing
                }
                Overlay::Connection(id, top) => self.look_closer(code, id, top),
            },
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(character) if self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(character);
            }
            _ => {}
        }
        self.change(|table| table.cursor = 0);
    }

    /// Handles keys that work both in a table and in a connection.
    fn anywhere(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Char(' ' | 'p') => self.is_paused = !self.is_paused,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.over = Overlay::Help,
            KeyCode::Right if self.is_replay => return Action::Seek(10),
            KeyCode::Left if self.is_replay => return Action::Seek(-10),
            KeyCode::Char(']') if self.is_replay => return Action::Seek(60),
            KeyCode::Char('[') if self.is_replay => return Action::Seek(-60),
            KeyCode::Char('0') if self.is_replay => return Action::SeekTo(Edge::Begin),
            KeyCode::Char('$') if self.is_replay => return Action::SeekTo(Edge::End),
            KeyCode::Char('+' | '=') if self.is_replay => return Action::Speed(Faster::Twice),
            KeyCode::Char('-') if self.is_replay => return Action::Speed(Faster::Half),
            _ => {}
        }
        Action::Nothing
    }

    fn command(&mut self, code: KeyCode, snapshot: &Snapshot) -> Action {
        let page = self.height;
        match code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Char('/' | 'f') => self.is_typing = true,
            KeyCode::Char('s') => {
                let orders = self.tab.orders().len();
                self.change(|table| table.order = (table.order + 1) % orders);
            }
            KeyCode::Char('r') => self.change(|table| table.is_reversed = !table.is_reversed),
            KeyCode::Tab => self.turn_to(self.tab.number() + 1),
            KeyCode::BackTab => self.turn_to(self.tab.number() + Tab::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='4') => self.turn_to(digit as usize - '1' as usize),
            KeyCode::Down | KeyCode::Char('j') => self.change(|table| table.cursor += 1),
            KeyCode::Up | KeyCode::Char('k') => {
                self.change(|table| table.cursor = table.cursor.saturating_sub(1));
            }
            KeyCode::PageDown => self.change(|table| table.cursor += page),
            KeyCode::PageUp => {
                self.change(|table| table.cursor = table.cursor.saturating_sub(page));
            }
            KeyCode::Home | KeyCode::Char('g') => self.change(|table| table.cursor = 0),
            KeyCode::End | KeyCode::Char('G') => self.change(|table| table.cursor = usize::MAX / 2),
            KeyCode::Enter => self.drill_down(snapshot),
            other => return self.anywhere(other),
        }
        Action::Nothing
    }

    fn turn_to(&mut self, number: usize) {
        if let Some(tab) = Tab::ALL.get(number % Tab::ALL.len()) {
            self.tab = *tab;
        }
    }

    /// Opens the connections of a summary line, or the life of a connection.
    fn drill_down(&mut self, snapshot: &Snapshot) {
        let cursor = self.table().cursor;
        match self.tab {
            Tab::Connections => {
                let rows = self.connections(snapshot);
                // The table may have become shorter since the cursor was drawn.
                if let Some(row) = rows.get(cursor).or_else(|| rows.last()) {
                    self.over = Overlay::Connection(row.id, 0);
                }
            }
            Tab::Sums(table) => {
                let rows = self.sums(table, snapshot);
                if let Some(row) = rows.get(cursor).or_else(|| rows.last()) {
                    self.filter = row.key.chars().take(FILTER_MAX).collect();
                    self.tab = Tab::Connections;
                    self.change(|table| table.cursor = 0);
                }
            }
        }
    }

    fn look_closer(&mut self, code: KeyCode, id: ConnectionId, top: usize) -> Action {
        let page = self.height;
        let top = match code {
            KeyCode::Char('q') | KeyCode::Esc | KeyCode::Backspace | KeyCode::Enter => {
                self.over = Overlay::Nothing;
                return Action::Nothing;
            }
            KeyCode::Down | KeyCode::Char('j') => top + 1,
            KeyCode::Up | KeyCode::Char('k') => top.saturating_sub(1),
            KeyCode::PageDown => top + page,
            KeyCode::PageUp => top.saturating_sub(page),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX / 2,
            other => return self.anywhere(other),
        };
        self.over = Overlay::Connection(id, top);
        Action::Nothing
    }

    /// Filtered and sorted connections.
    #[must_use]
    pub fn connections(&self, snapshot: &Snapshot) -> Vec<Rc<Row>> {
        let words = Words::of(&self.filter);
        let mut rows: Vec<Rc<Row>> = snapshot
            .rows
            .iter()
            .filter(|row| words.match_row(row))
            .cloned()
            .collect();
        let (order, is_reversed) = self.order();
        rows.sort_by(|one, other| {
            let ordered = compare_rows(order, one, other);
            // Ties keep a stable order, so that lines do not jump.
            turned(ordered, is_reversed).then_with(|| key_of(one).cmp(&key_of(other)))
        });
        rows
    }

    /// Filtered and sorted lines of a summary table.
    #[must_use]
    pub fn sums(&self, table: usize, snapshot: &Snapshot) -> Vec<SumRow> {
        let words = Words::of(&self.filter);
        let Some(sums) = snapshot.sums.get(table) else {
            return Vec::new();
        };
        let mut rows: Vec<SumRow> = sums
            .rows
            .iter()
            .filter(|row| words.match_text(&row.key.to_lowercase()))
            .cloned()
            .collect();
        let (order, is_reversed) = self.order();
        rows.sort_by(|one, other| {
            let ordered = compare_sums(order, one, other);
            turned(ordered, is_reversed).then_with(|| one.key.cmp(&other.key))
        });
        rows
    }
}

fn turned(ordered: Ordering, is_reversed: bool) -> Ordering {
    match is_reversed {
        true => ordered.reverse(),
        false => ordered,
    }
}

fn key_of(row: &Row) -> (u64, u128) {
    (row.id.socket.0, row.id.born_at.as_nanos())
}

fn compare_rows(order: Order, one: &Row, other: &Row) -> Ordering {
    let latest = || other.heard_at.cmp(&one.heard_at);
    let comm = |row: &Row| row.process.as_ref().map(|it| (it.comm.clone(), it.pid));
    match order {
        Order::Process => comm(one).cmp(&comm(other)).then_with(latest),
        Order::Remote => one.remote.cmp(&other.remote).then_with(latest),
        Order::Cause => {
            // Connections without a cause come last.
            let cause = |row: &Row| (row.cause.is_none(), row.cause.clone());
            cause(one).cmp(&cause(other)).then_with(latest)
        }
        Order::Queries => other.queries.cmp(&one.queries).then_with(latest),
        Order::Worst => {
            let badness = |row: &Row| (row.is_deceived(), row.fell_back == Some(true));
            badness(other).cmp(&badness(one)).then_with(latest)
        }
        Order::Latest | Order::Fallbacks | Order::Share | Order::Connections | Order::Name => {
            latest()
        }
    }
}

fn compare_sums(order: Order, one: &SumRow, other: &SumRow) -> Ordering {
    let (one_sum, other_sum) = (&one.sum, &other.sum);
    let fallbacks = || other_sum.fallbacks.cmp(&one_sum.fallbacks);
    match order {
        Order::Share => {
            // Of equal shares the one with more connections comes first, since it is more reliable.
            let share = |row: &SumRow| row.sum.share().unwrap_or(-1.0);
            share(other).total_cmp(&share(one)).then_with(fallbacks)
        }
        Order::Connections => other_sum.connections.cmp(&one_sum.connections),
        Order::Queries => other_sum.queries.cmp(&one_sum.queries),
        Order::Name => Ordering::Equal,
        Order::Fallbacks
        | Order::Worst
        | Order::Latest
        | Order::Process
        | Order::Remote
        | Order::Cause => fallbacks(),
    }
}

/// The words of a filter: all must match, except those after `!`, which must not.
#[derive(Debug)]
struct Words {
    words: Vec<(bool, String, Option<Prefix>)>,
}

impl Words {
    fn of(filter: &str) -> Self {
        let word = |word: &str| {
            let (is_wanted, word) = match word.strip_prefix('!') {
                Some(word) => (false, word),
                None => (true, word),
            };
            // An address matches as text; a network needs a comparison.
            let network = word
                .contains('/')
                .then(|| Prefix::from_str(word).ok())
                .flatten();
            (is_wanted, word.to_lowercase(), network)
        };
        Self {
            words: filter
                .split_whitespace()
                .map(word)
                .filter(|(_, word, _)| !word.is_empty())
                .collect(),
        }
    }

    fn match_text(&self, text: &str) -> bool {
        self.words
            .iter()
            .all(|(is_wanted, word, _)| text.contains(word.as_str()) == *is_wanted)
    }

    fn match_row(&self, row: &Row) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let text = haystack(row);
        self.words.iter().all(|(is_wanted, word, network)| {
            let is_in =
                |network: &Prefix| network.contains(row.remote) || network.contains(row.local);
            let matches = network.as_ref().is_some_and(is_in) || text.contains(word.as_str());
            matches == *is_wanted
        })
    }
}

/// All text of a connection that is shown, in lower case.
fn haystack(row: &Row) -> String {
    let (comm, pid) = row.process.as_ref().map_or_else(
        || ("?", "?".to_owned()),
        |process| (process.comm.as_str(), process.number()),
    );
    format!(
        "{} {comm} {pid} {} {} {} {} {} {}",
        row.state(),
        row.local,
        row.remote,
        row.cause.as_deref().unwrap_or_default(),
        row.verdict.map_or("", |verdict| verdict.name()),
        row.cgroup.as_deref().unwrap_or_default(),
        row.netns,
    )
    .to_lowercase()
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
