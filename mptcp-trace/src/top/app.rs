//! What the reader wants to see: which table, in which order, of whom. Pure: keys in, wishes out; what is shown is a
//! function of this and of a [`Snapshot`].

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

/// What a key asks of whoever holds the findings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// To end.
    Quit,
    /// To be put aside, as every program that Ctrl-Z is pressed in.
    Suspend,
    /// To go on from where it is, so many seconds later or earlier (a replay).
    Seek(i64),
    /// The beginning, or the end (a replay).
    SeekTo(Edge),
    /// Twice as fast, or half as fast (a replay).
    Speed(Faster),
}

/// The ends of a capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edge {
    /// Its first finding.
    Begin,
    /// Its last one.
    End,
}

/// Changes of speed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Faster {
    /// Twice.
    Twice,
    /// Half.
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
    /// All of them, in the order of their digits.
    pub const ALL: [Self; 1 + SUMS.len()] = [
        Self::Connections,
        Self::Sums(0),
        Self::Sums(1),
        Self::Sums(2),
    ];

    /// What it is called.
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

    /// Orders that it can be in.
    fn orders(self) -> &'static [Order] {
        match self {
            Self::Connections => &[
                Order::Worst,
                Order::Latest,
                Order::Process,
                Order::Remote,
                Order::Cause,
                Order::Questions,
            ],
            Self::Sums(_) => &[
                Order::Fallbacks,
                Order::Share,
                Order::Connections,
                Order::Questions,
                Order::Name,
            ],
        }
    }
}

/// Orders of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Applications that were deceived, then what fell back; the latest first.
    Worst,
    /// What was heard of last.
    Latest,
    /// By name of the process.
    Process,
    /// By the other end.
    Remote,
    /// By cause.
    Cause,
    /// Who asked most.
    Questions,
    /// Most fallbacks.
    Fallbacks,
    /// Largest part that fell back.
    Share,
    /// Most connections.
    Connections,
    /// By name.
    Name,
}

impl Order {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Latest => "latest",
            Self::Process => "process",
            Self::Remote => "remote",
            Self::Cause => "cause",
            Self::Questions => "asked",
            Self::Fallbacks => "fell back",
            Self::Share => "share",
            Self::Connections => "connections",
            Self::Name => "name",
        }
    }
}

/// What is on top of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overlay {
    /// Nothing.
    Nothing,
    /// The keys.
    Help,
    /// One connection, and how far its moments are scrolled.
    Connection(ConnectionId, usize),
}

/// How one table is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct TableState {
    /// Index into its orders.
    order: usize,
    is_reversed: bool,
    /// The line that the cursor is on.
    cursor: usize,
    /// The first line that is shown.
    top: usize,
}

/// What the reader wants to see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct App {
    tab: Tab,
    looks: [TableState; Tab::ALL.len()],
    filter: String,
    is_typing: bool,
    is_paused: bool,
    over: Overlay,
    is_replay: bool,
    /// Lines of the table when it was drawn last.
    height: usize,
}

impl App {
    /// What is seen at first.
    #[must_use]
    pub fn new(is_replay: bool) -> Self {
        Self {
            tab: Tab::Connections,
            looks: [TableState::default(); Tab::ALL.len()],
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            over: Overlay::Nothing,
            is_replay,
            height: 1,
        }
    }

    /// The table.
    #[must_use]
    pub fn tab(&self) -> Tab {
        self.tab
    }

    /// What is on top of it.
    #[must_use]
    pub fn over(&self) -> Overlay {
        self.over
    }

    /// What was typed to leave others out, and whether it is being typed.
    #[must_use]
    pub fn filter(&self) -> (&str, bool) {
        (&self.filter, self.is_typing)
    }

    /// The snapshot stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// It plays a capture.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// The order of the table, and whether it is turned round.
    #[must_use]
    pub fn order(&self) -> (Order, bool) {
        let look = self.look();
        let order = self.tab.orders().get(look.order).copied();
        (order.unwrap_or(Order::Name), look.is_reversed)
    }

    fn look(&self) -> TableState {
        self.looks
            .get(self.tab.number())
            .copied()
            .unwrap_or_default()
    }

    fn change(&mut self, change: impl FnOnce(&mut TableState)) {
        if let Some(look) = self.looks.get_mut(self.tab.number()) {
            change(look);
        }
    }

    /// A table of so many lines is drawn in so much room: which of them is the first, and which the cursor is on.
    pub fn scroll(&mut self, lines: usize, height: usize) -> (usize, usize) {
        self.height = height.max(1);
        let height = self.height;
        self.change(|look| {
            look.cursor = look.cursor.min(lines.saturating_sub(1));
            look.top = look.top.min(look.cursor);
            if look.cursor >= look.top + height {
                look.top = look.cursor + 1 - height;
            }
            look.top = look.top.min(lines.saturating_sub(height));
        });
        let look = self.look();
        (look.top, look.cursor)
    }

    /// The moments of a connection are drawn, so many lines in so much room: which is the first.
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

    /// Takes a key.
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
        self.change(|look| look.cursor = 0);
    }

    /// A key that is understood in a table and over one connection.
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
                self.change(|look| look.order = (look.order + 1) % orders);
            }
            KeyCode::Char('r') => self.change(|look| look.is_reversed = !look.is_reversed),
            KeyCode::Tab => self.turn_to(self.tab.number() + 1),
            KeyCode::BackTab => self.turn_to(self.tab.number() + Tab::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='4') => self.turn_to(digit as usize - '1' as usize),
            KeyCode::Down | KeyCode::Char('j') => self.change(|look| look.cursor += 1),
            KeyCode::Up | KeyCode::Char('k') => {
                self.change(|look| look.cursor = look.cursor.saturating_sub(1));
            }
            KeyCode::PageDown => self.change(|look| look.cursor += page),
            KeyCode::PageUp => self.change(|look| look.cursor = look.cursor.saturating_sub(page)),
            KeyCode::Home | KeyCode::Char('g') => self.change(|look| look.cursor = 0),
            KeyCode::End | KeyCode::Char('G') => self.change(|look| look.cursor = usize::MAX / 2),
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

    /// From a line of sums to its connections, from a connection to its life.
    fn drill_down(&mut self, snapshot: &Snapshot) {
        let cursor = self.look().cursor;
        match self.tab {
            Tab::Connections => {
                let rows = self.connections(snapshot);
                // The cursor may not have been drawn since the table became shorter.
                if let Some(row) = rows.get(cursor).or_else(|| rows.last()) {
                    self.over = Overlay::Connection(row.id, 0);
                }
            }
            Tab::Sums(table) => {
                let rows = self.sums(table, snapshot);
                if let Some(row) = rows.get(cursor).or_else(|| rows.last()) {
                    self.filter = row.key.chars().take(FILTER_MAX).collect();
                    self.tab = Tab::Connections;
                    self.change(|look| look.cursor = 0);
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

    /// The connections that are wanted, in the order that is wanted.
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
            // No line jumps about only because two are equal.
            turned(ordered, is_reversed).then_with(|| key_of(one).cmp(&key_of(other)))
        });
        rows
    }

    /// The lines of a table of sums that are wanted, in the order that is wanted.
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
            // What has no cause comes last.
            let cause = |row: &Row| (row.cause.is_none(), row.cause.clone());
            cause(one).cmp(&cause(other)).then_with(latest)
        }
        Order::Questions => other.questions.cmp(&one.questions).then_with(latest),
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
            // Of the same part the larger number, which is the surer one.
            let share = |row: &SumRow| row.sum.share().unwrap_or(-1.0);
            share(other).total_cmp(&share(one)).then_with(fallbacks)
        }
        Order::Connections => other_sum.connections.cmp(&one_sum.connections),
        Order::Questions => other_sum.questions.cmp(&one_sum.questions),
        Order::Name => Ordering::Equal,
        Order::Fallbacks
        | Order::Worst
        | Order::Latest
        | Order::Process
        | Order::Remote
        | Order::Cause => fallbacks(),
    }
}

/// The words of a filter: all of them must match, those behind a `!` must not.
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
            // An address alone is found as it is written; a network has to be reckoned.
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

/// Everything of a connection that is shown, in small letters.
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
