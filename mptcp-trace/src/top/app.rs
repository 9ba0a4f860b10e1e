//! State of the user interface. Pure: it turns keys and clicks into actions; the screen is a
//! function of this state and a [`Snapshot`].

use std::rc::Rc;

use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::{
    board::{Row, Snapshot},
    explain::{self, Explanation},
    hits::{Hit, Hits},
    keys::{self, Command},
    table::{self, Order, Tab},
};
use crate::model::{ConnectionId, SumRow};

/// Longest filter, characters.
const FILTER_MAX: usize = 64;
/// Longest file name that can be typed, characters.
const FILE_MAX: usize = 1024;
/// Lines by which a turn of the wheel moves.
const WHEEL: usize = 3;

/// What a key requests from the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Quit.
    Quit,
    /// Suspend, as Ctrl-Z does in every program.
    Suspend,
    /// Stop the capture, or ask for the name of a new one (live).
    Capture,
    /// Start a capture in the file [`App::file`] (live).
    Begin,
    /// Report clicks and the wheel, or stop that.
    Mouse(bool),
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

/// What covers the tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Overlay {
    /// Nothing.
    Nothing,
    /// The list of keys.
    Help,
    /// The life of a connection.
    Connection(ConnectionId),
    /// The paths of a connection.
    Paths(ConnectionId),
    /// An explanation.
    Explanation(Rc<Explanation>),
}

/// What letters are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Typing {
    /// Commands.
    Nothing,
    /// The filter.
    Filter,
    /// The name of a file.
    File,
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
    file: String,
    typing: Typing,
    is_paused: bool,
    /// What is open over the tables, each with its first visible line; the last one is shown.
    over: Vec<(Overlay, usize)>,
    is_replay: bool,
    has_mouse: bool,
    /// A message, until the next key.
    notice: Option<String>,
    /// Number of lines when the table or overlay was last drawn.
    height: usize,
    /// Where clicks lead.
    hits: Hits,
}

impl App {
    /// The initial view.
    #[must_use]
    pub fn new(is_replay: bool) -> Self {
        Self {
            tab: Tab::Connections,
            tables: [TableState::default(); Tab::ALL.len()],
            filter: String::new(),
            file: String::new(),
            typing: Typing::Nothing,
            is_paused: false,
            over: Vec::new(),
            is_replay,
            has_mouse: false,
            notice: None,
            height: 1,
            hits: Hits::default(),
        }
    }

    /// The selected tab.
    #[must_use]
    pub fn tab(&self) -> Tab {
        self.tab
    }

    /// The overlay on top of it.
    #[must_use]
    pub fn over(&self) -> &Overlay {
        self.over.last().map_or(&Overlay::Nothing, |(over, _)| over)
    }

    /// The connection that is open: its life or its paths are shown.
    #[must_use]
    pub fn open_connection(&self) -> Option<ConnectionId> {
        match self.over() {
            Overlay::Connection(id) | Overlay::Paths(id) => Some(*id),
            Overlay::Nothing | Overlay::Help | Overlay::Explanation(_) => None,
        }
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The name of the file for a capture.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// What is being typed.
    #[must_use]
    pub fn typing(&self) -> Typing {
        self.typing
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

    /// The message for the last line, if any.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Shows a message until the next key.
    pub fn notify(&mut self, message: impl Into<String>) {
        self.notice = Some(message.into());
    }

    /// Asks for a file name, and proposes this one.
    pub fn ask_file(&mut self, proposal: String) {
        self.file = proposal;
        self.typing = Typing::File;
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

    /// Adjusts the overlay to this many lines and this much room; returns the first visible line.
    pub fn scroll_over(&mut self, lines: usize, height: usize) -> usize {
        self.height = height.max(1);
        let height = self.height;
        match self.over.last_mut() {
            Some((_, top)) => {
                *top = (*top).min(lines.saturating_sub(height));
                *top
            }
            None => 0,
        }
    }

    /// Sets where clicks lead, when a frame is drawn.
    pub fn hits(&mut self) -> &mut Hits {
        &mut self.hits
    }

    /// Handles a key.
    pub fn key(&mut self, key: KeyEvent, snapshot: &Snapshot) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Nothing;
        }
        self.notice = None;
        let is_typing = self.typing != Typing::Nothing;
        match keys::command(&key, is_typing, self.is_replay) {
            Some(command) => self.run(command, snapshot),
            None => {
                let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
                if let KeyCode::Char(character) = key.code
                    && is_typing
                    && !with_control
                {
                    self.type_character(character);
                }
                Action::Nothing
            }
        }
    }

    /// Handles a click or a turn of the wheel.
    pub fn mouse(&mut self, event: MouseEvent, snapshot: &Snapshot) -> Action {
        let is_click = event.kind == MouseEventKind::Down(MouseButton::Left);
        if event.kind == MouseEventKind::ScrollDown {
            self.step(|line| line.saturating_add(WHEEL));
        } else if event.kind == MouseEventKind::ScrollUp {
            self.step(|line| line.saturating_sub(WHEEL));
        } else if is_click && self.typing == Typing::Nothing && *self.over() != Overlay::Help {
            self.notice = None;
            self.click(event.column, event.row, snapshot);
        }
        Action::Nothing
    }

    fn click(&mut self, x: u16, y: u16, snapshot: &Snapshot) {
        match self.hits.at(x, y) {
            Some(Hit::Tab(tab)) => {
                self.over.clear();
                self.tab = tab;
            }
            Some(Hit::Column(order)) => {
                let wanted = self.tab.orders().iter().position(|it| *it == order);
                if let Some(wanted) = wanted {
                    self.change(|table| {
                        table.is_reversed = table.order == wanted && !table.is_reversed;
                        table.order = wanted;
                    });
                }
            }
            // A click on the selected row opens it.
            Some(Hit::Row(row)) if row == self.table().cursor => self.open(snapshot),
            Some(Hit::Row(row)) => self.change(|table| table.cursor = row),
            None => {}
        }
    }

    fn type_character(&mut self, character: char) {
        let length_max = match self.typing {
            Typing::File => FILE_MAX,
            Typing::Nothing | Typing::Filter => FILTER_MAX,
        };
        let text = self.text();
        if text.chars().count() < length_max {
            text.push(character);
        }
    }

    /// The text that is typed. The rows that match another filter are others.
    fn text(&mut self) -> &mut String {
        match self.typing {
            Typing::File => &mut self.file,
            Typing::Nothing | Typing::Filter => {
                self.change(|table| table.cursor = 0);
                &mut self.filter
            }
        }
    }

    fn run(&mut self, command: Command, snapshot: &Snapshot) -> Action {
        let page = self.height;
        let orders = self.tab.orders().len();
        match command {
            Command::Tab(number) => self.turn_to(number),
            Command::NextTab => self.turn_to(self.tab.number() + 1),
            Command::PreviousTab => self.turn_to(self.tab.number() + Tab::ALL.len() - 1),
            Command::Up => self.step(|line| line.saturating_sub(1)),
            Command::Down => self.step(|line| line.saturating_add(1)),
            Command::PageUp => self.step(|line| line.saturating_sub(page)),
            Command::PageDown => self.step(|line| line.saturating_add(page)),
            Command::First => self.step(|_line| 0),
            Command::Last => self.step(|_line| usize::MAX / 2),
            Command::Open => self.open(snapshot),
            Command::Explain => self.explain(snapshot),
            Command::Paths => self.open_paths(snapshot),
            Command::Back => {
                if self.over.pop().is_none() {
                    self.filter.clear();
                }
            }
            Command::Filter => {
                self.over.clear();
                self.typing = Typing::Filter;
            }
            Command::Sort => self.change(|table| table.order = (table.order + 1) % orders),
            Command::Reverse => self.change(|table| table.is_reversed = !table.is_reversed),
            Command::Pause => self.is_paused = !self.is_paused,
            Command::Help => self.help(),
            Command::Enter | Command::Drop | Command::Erase => return self.typed(command),
            Command::Leave => {
                if self.over.pop().is_none() {
                    return Action::Quit;
                }
            }
            Command::Quit => return Action::Quit,
            Command::Suspend => return Action::Suspend,
            Command::Mouse => {
                self.has_mouse = !self.has_mouse;
                return Action::Mouse(self.has_mouse);
            }
            Command::Capture if self.is_replay => {
                self.notify("nothing to record: this is a capture already");
            }
            Command::Capture => return Action::Capture,
            Command::Behind => return Action::Seek(-10),
            Command::Ahead => return Action::Seek(10),
            Command::MinuteBehind => return Action::Seek(-60),
            Command::MinuteAhead => return Action::Seek(60),
            Command::Begin => return Action::SeekTo(Edge::Begin),
            Command::End => return Action::SeekTo(Edge::End),
            Command::Faster => return Action::Speed(Faster::Twice),
            Command::Slower => return Action::Speed(Faster::Half),
        }
        Action::Nothing
    }

    /// Moves the cursor, or scrolls what is open.
    fn step(&mut self, to: impl FnOnce(usize) -> usize) {
        match self.over.last_mut() {
            Some((_, top)) => *top = to(*top),
            None => self.change(|table| table.cursor = to(table.cursor)),
        }
    }

    fn help(&mut self) {
        match self.over() {
            Overlay::Help => {
                self.over.pop();
            }
            Overlay::Nothing
            | Overlay::Connection(_)
            | Overlay::Paths(_)
            | Overlay::Explanation(_) => {
                self.over.push((Overlay::Help, 0));
            }
        }
    }

    fn typed(&mut self, command: Command) -> Action {
        if command == Command::Erase {
            self.text().pop();
            return Action::Nothing;
        }
        if command == Command::Drop {
            self.text().clear();
        }
        let typing = std::mem::replace(&mut self.typing, Typing::Nothing);
        let is_named = typing == Typing::File && !self.file.is_empty();
        match is_named {
            true => Action::Begin,
            false => Action::Nothing,
        }
    }

    fn turn_to(&mut self, number: usize) {
        if let Some(tab) = Tab::ALL.get(number % Tab::ALL.len()) {
            self.over.clear();
            self.tab = *tab;
        }
    }

    /// Opens the connections of a summary line, or the life of a connection; closes what is open.
    fn open(&mut self, snapshot: &Snapshot) {
        if self.over.pop().is_some() {
            return;
        }
        match self.selected(snapshot) {
            Some(Selected::Connection(row)) => {
                self.over.push((Overlay::Connection(row.id), 0));
            }
            Some(Selected::Sum(_, row)) => {
                self.filter = row.key.chars().take(FILTER_MAX).collect();
                self.tab = Tab::Connections;
                self.change(|table| table.cursor = 0);
            }
            None => {}
        }
    }

    /// Opens the paths of the connection that is open, or selected; closes them.
    fn open_paths(&mut self, snapshot: &Snapshot) {
        let id = match self.over() {
            Overlay::Help | Overlay::Explanation(_) => return,
            Overlay::Paths(_) => {
                self.over.pop();
                return;
            }
            Overlay::Connection(id) => Some(*id),
            Overlay::Nothing => match self.selected(snapshot) {
                Some(Selected::Connection(row)) => Some(row.id),
                Some(Selected::Sum(..)) | None => None,
            },
        };
        match id {
            Some(id) => self.over.push((Overlay::Paths(id), 0)),
            None => self.notify("no paths to show: no connection is selected"),
        }
    }

    /// Explains the connection that is open, or the selected row.
    fn explain(&mut self, snapshot: &Snapshot) {
        let explanation = match self.over() {
            Overlay::Help | Overlay::Explanation(_) => return,
            Overlay::Connection(id) | Overlay::Paths(id) => {
                let row = snapshot.rows.iter().find(|row| row.id == *id);
                row.map(|row| explain::connection(row))
            }
            Overlay::Nothing => self.selected(snapshot).map(|selected| match selected {
                Selected::Connection(row) => explain::connection(&row),
                Selected::Sum(table, row) => explain::group(table, &row, snapshot),
            }),
        };
        match explanation {
            Some(explanation) => {
                let over = Overlay::Explanation(Rc::new(explanation));
                self.over.push((over, 0));
            }
            None => self.notify("nothing to explain: no row is selected"),
        }
    }

    /// The row under the cursor. The table may have become shorter since the cursor was drawn.
    fn selected(&self, snapshot: &Snapshot) -> Option<Selected> {
        let cursor = self.table().cursor;
        match self.tab {
            Tab::Connections => {
                let rows = self.connections(snapshot);
                let row = rows.get(cursor).or_else(|| rows.last())?;
                Some(Selected::Connection(row.clone()))
            }
            Tab::Sums(table) => {
                let rows = self.sums(table, snapshot);
                let row = rows.get(cursor).or_else(|| rows.last())?;
                Some(Selected::Sum(table, row.clone()))
            }
        }
    }

    /// Filtered and sorted connections.
    #[must_use]
    pub fn connections(&self, snapshot: &Snapshot) -> Vec<Rc<Row>> {
        table::connections(snapshot, &self.filter, self.order())
    }

    /// Filtered and sorted lines of a summary table.
    #[must_use]
    pub fn sums(&self, table: usize, snapshot: &Snapshot) -> Vec<SumRow> {
        table::sums(table, snapshot, &self.filter, self.order())
    }
}

/// The selected row.
enum Selected {
    Connection(Rc<Row>),
    /// A line of this summary table.
    Sum(usize, SumRow),
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
