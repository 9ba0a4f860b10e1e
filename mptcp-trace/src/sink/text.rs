//! Text output: one line per finding, in columns that fit the terminal.

use std::{
    collections::{HashSet, VecDeque},
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use super::{
    Printed,
    columns::{Cell, Column, FINDINGS, Layout, Preset, SOCKETS, clipped, family_width, wrapped},
    open_paths::OpenPaths,
    row::{self, DIM, Row},
    times::{TimeStyle, Times},
    why::why,
};
use crate::model::{
    ConnectionEvent, ConnectionId, ConnectionKind, Finding, LastAsked, NeverTried, PathEvent,
    Verdict, parts,
};

const PLAIN: &str = "\x1b[0m";

/// Of at most this many connections it is known that the line of their fallback was printed.
const FALLEN_MAX: usize = 16_384;

/// Columns by which lines below a finding are indented.
const INDENT: usize = 4;

/// Width of the lines.
#[derive(Clone, Copy, Debug)]
pub enum Width {
    /// Lines are as wide as needed.
    Unlimited,
    /// This many columns.
    Fixed(usize),
    /// As wide as the terminal, which may change; unlimited if its width is unknown.
    Terminal(fn() -> Option<usize>),
}

/// How lines are presented.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Print the header.
    pub header: bool,
    /// Use colours.
    pub colour: bool,
    /// How times are shown.
    pub time: TimeStyle,
    /// The columns; empty for the usual ones.
    pub columns: Vec<Column>,
    /// Width of the lines.
    pub width: Width,
    /// Print the sentence of each finding below it.
    pub why: bool,
    /// Print the headers of the packet that decided below its line.
    pub packets: bool,
    /// Print a line for each socket that was open before tracing began, instead of their number.
    pub lists_existing: bool,
    /// Name of the interface with this index in the network namespace with this inode number, for
    /// link-local addresses; without one, the index is printed.
    pub interface: fn(u32, u32) -> Option<String>,
    /// Print closing verdicts `never-asked` even if the line of the fallback was printed.
    pub lists_never_asked: bool,
    /// Say of a connection that the peer opened that no join came.
    pub lists_no_join: bool,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            header: false,
            colour: false,
            time: TimeStyle::Local,
            columns: Vec::new(),
            width: Width::Unlimited,
            why: false,
            packets: false,
            lists_existing: false,
            interface: |_netns, _index| None,
            lists_never_asked: false,
            lists_no_join: false,
        }
    }
}

/// Formats findings as lines.
#[derive(Debug)]
pub struct TextLines {
    options: TextOptions,
    preset: &'static Preset,
    layout: Layout,
    times: Times,
    existing: Existing,
    fallen: Fallen,
}

/// Sockets that were open before tracing began, since the last line about them.
#[derive(Debug, Default)]
struct Existing {
    /// When the first of them was listed.
    time: Option<SystemTime>,
    mptcp: u64,
    fell_back: u64,
    unknown: u64,
}

/// Connections whose fallback has a line.
#[derive(Debug, Default)]
struct Fallen {
    known: HashSet<ConnectionId>,
    order: VecDeque<ConnectionId>,
}

impl Fallen {
    fn insert(&mut self, id: ConnectionId) {
        if !self.known.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > FALLEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn contains(&self, id: ConnectionId) -> bool {
        self.known.contains(&id)
    }
}

impl TextLines {
    /// Lines of findings.
    #[must_use]
    pub fn new(options: TextOptions) -> Self {
        Self::of(&FINDINGS, options)
    }

    /// Lines of open sockets.
    #[must_use]
    pub fn of_sockets(options: TextOptions) -> Self {
        Self::of(&SOCKETS, options)
    }

    fn of(preset: &'static Preset, options: TextOptions) -> Self {
        Self {
            preset,
            layout: Layout::new(
                preset,
                &options.columns,
                asked(options.width),
                options.time.extra(),
            ),
            times: Times::new(options.time),
            existing: Existing::default(),
            fallen: Fallen::default(),
            options,
        }
    }

    /// Prints no header: another one follows.
    pub fn without_header(&mut self) {
        self.options.header = false;
    }

    /// The header.
    pub(super) fn header(&self, out: &mut Vec<u8>) {
        if !self.options.header {
            return;
        }
        push(out, &self.layout.line(Cell::header));
    }

    /// One finding.
    pub(super) fn finding(&mut self, finding: &Finding, out: &mut Vec<u8>) -> Printed {
        match finding {
            Finding::Connection(event)
                if event.connection.kind == ConnectionKind::Existing
                    && !self.options.lists_existing =>
            {
                let connection = &event.connection;
                self.existing.time.get_or_insert(event.time);
                match connection.fell_back {
                    Some(true) => {
                        self.existing.fell_back += 1;
                        self.fallen.insert(connection.id);
                    }
                    Some(false) => self.existing.mptcp += 1,
                    None => self.existing.unknown += 1,
                }
                return Printed::WithExisting;
            }
            Finding::Verdict(event)
                if event.judgement.verdict == Verdict::NeverAsked
                    && !self.options.lists_never_asked
                    && self.fallen.contains(event.id) =>
            {
                return Printed::WithFallback;
            }
            Finding::Closed(event)
                if event.closed.never_tried == Some(NeverTried::NoJoinCame)
                    && !self.options.lists_no_join =>
            {
                let mut event = event.clone();
                event.closed.never_tried = None;
                return self.finding(&Finding::Closed(event), out);
            }
            Finding::Connection(event) if event.connection.kind == ConnectionKind::Fallback => {
                self.fallen.insert(event.connection.id);
            }
            Finding::Connection(_)
            | Finding::Query(_)
            | Finding::Verdict(_)
            | Finding::Refusal(_)
            | Finding::Path(_)
            | Finding::Closed(_) => {}
        }
        self.existing(out);
        self.row(&Row::of(finding), out);
        if self.options.why {
            self.why(&why(finding), out);
        }
        if self.options.packets
            && let Some(packet) = finding.packet()
        {
            for line in packet.described() {
                self.why(&line, out);
            }
        }
        Printed::Line
    }

    /// The line of the sockets that were open before tracing began, if there are new ones.
    pub(super) fn existing(&mut self, out: &mut Vec<u8>) {
        let Existing {
            time,
            mptcp,
            fell_back,
            unknown,
        } = std::mem::take(&mut self.existing);
        let Some(time) = time else {
            return;
        };
        let all = mptcp + fell_back + unknown;
        let mut text = format!("{all} opened earlier: {mptcp} MPTCP, {fell_back} fell back");
        // Writing to memory does not fail.
        if unknown > 0 {
            let _infallible = write!(text, ", {unknown} unknown");
        }
        text.push_str(" (--kind existing)");
        self.fit(time, out);
        let when = self.times.shown(time, self.time_width());
        let before = self.layout.before(Column::Result);
        let (dim, plain) = self.paints(DIM);
        let start = format!("{when:<width$} existing", width = self.time_width());
        let line = match self.layout.width() {
            Some(width) => clipped(&format!("{start:<before$}{text}"), width),
            None => format!("{start:<before$}{text}"),
        };
        push(out, &format!("{dim}{line}{plain}"));
    }

    /// Adapts to a terminal whose width has changed, and reports a new date.
    fn fit(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        if let Width::Terminal(_) = self.options.width {
            let width = asked(self.options.width);
            if width != self.layout.width() {
                self.layout = Layout::new(
                    self.preset,
                    &self.options.columns,
                    width,
                    self.options.time.extra(),
                );
                self.header(out);
            }
        }
        if let Some((date, is_after_another)) = self.times.new_date(time)
            && (is_after_another || self.options.header)
        {
            let (dim, plain) = self.paints(DIM);
            push(out, &format!("{dim}-- {date}{plain}"));
        }
    }

    fn row(&mut self, row: &Row, out: &mut Vec<u8>) {
        self.fit(row.time, out);
        let when = self.times.shown(row.time, self.time_width());
        let paint = if self.options.colour { row.paint } else { "" };
        let natural = Some(family_width(row.local.or(row.remote)));
        let interface = |index| (self.options.interface)(row.netns, index);
        let line = self.layout.line(|column| match column {
            Column::Time => Cell::plain(&when),
            Column::Kind => Cell::painted(&row.kind, paint),
            Column::Result => Cell::painted(&row.result, paint),
            Column::Process => Cell::process(&row.comm, &row.pid),
            Column::Pid => Cell::plain(&row.pid),
            Column::Comm => Cell::plain(&row.comm),
            Column::Local => Cell::address(row.local, natural, interface),
            Column::Remote => Cell::address(row.remote, natural, interface),
            Column::State => Cell::plain(&row.state),
            Column::Netns => Cell::plain(row.netns.to_string()),
            Column::Id => Cell::plain(row.id.map_or_else(|| "-".to_owned(), |id| id.to_string())),
            Column::After => Cell::plain(row.after.map(lined_up).unwrap_or_default()),
            Column::Details => Cell::plain(row.details.join(", ")),
            // Columns of open sockets.
            Column::Is | Column::Subflows => Cell::plain(""),
        });
        push(out, &line);
    }

    /// What the finding means, below its line.
    fn why(&self, sentence: &str, out: &mut Vec<u8>) {
        let width = self.layout.width().unwrap_or(usize::MAX);
        let (dim, plain) = self.paints(DIM);
        for line in wrapped(sentence, width.saturating_sub(INDENT).max(1)) {
            push(out, &format!("{:INDENT$}{dim}{line}{plain}", ""));
        }
    }

    /// The lines of these open paths.
    pub(super) fn open_paths<'a>(&self, paths: impl Iterator<Item = &'a PathEvent>) -> OpenPaths {
        OpenPaths::new(paths, asked(self.options.width), self.options.interface)
    }

    /// Their header, below that of the sockets.
    pub(super) fn path_header(&self, columns: &OpenPaths, out: &mut Vec<u8>) {
        if self.options.header {
            columns.header(out);
        }
    }

    /// An open path of the socket above it.
    pub(super) fn open_path(&self, columns: &OpenPaths, event: &PathEvent, out: &mut Vec<u8>) {
        columns.path(&event.path, out);
    }

    /// An open socket, and the last answer about it.
    pub(super) fn socket(
        &self,
        event: &ConnectionEvent,
        asked: Option<LastAsked>,
        out: &mut Vec<u8>,
    ) {
        let connection = &event.connection;
        let socket = &connection.socket;
        let (pid, comm) = row::who(connection.owner.as_ref());
        let mut details = Vec::new();
        let (is, paint) = match connection.fell_back {
            Some(true) => {
                details.push(row::cause(connection));
                ("FELL BACK", row::RED)
            }
            Some(false) => ("MPTCP", row::GREEN),
            None => ("?", DIM),
        };
        let paint = if self.options.colour { paint } else { "" };
        if let Some(LastAsked { at: _, api, answer }) = asked {
            let word = answer.word().unwrap_or("?");
            details.push(format!("told {word} ({})", api.name()));
        }
        let (local, remote) = (row::endpoint(socket.local), row::endpoint(socket.remote));
        let natural = Some(family_width(local.or(remote)));
        let interface = |index| (self.options.interface)(socket.netns, index);
        let line = self.layout.line(|column| match column {
            Column::State => Cell::plain(socket.state.to_string()),
            Column::Is => Cell::painted(is, paint),
            Column::Subflows => Cell::plain(
                connection
                    .subflows
                    .map_or_else(|| "?".to_owned(), |count| count.to_string()),
            ),
            Column::Process => Cell::process(&comm, &pid),
            Column::Pid => Cell::plain(&pid),
            Column::Comm => Cell::plain(&comm),
            Column::Netns => Cell::plain(socket.netns.to_string()),
            Column::Local => Cell::address(local, natural, interface),
            Column::Remote => Cell::address(remote, natural, interface),
            Column::Id => Cell::plain(connection.id.to_string()),
            Column::Details => Cell::plain(details.join(", ")),
            // Columns of findings.
            Column::Time | Column::Kind | Column::Result | Column::After => Cell::plain(""),
        });
        push(out, &line);
    }

    fn time_width(&self) -> usize {
        self.layout.width_of(Column::Time)
    }

    fn paints(&self, paint: &'static str) -> (&'static str, &'static str) {
        match self.options.colour {
            true => (paint, PLAIN),
            false => ("", ""),
        }
    }
}

fn asked(width: Width) -> Option<usize> {
    match width {
        Width::Unlimited => None,
        Width::Fixed(width) => Some(width),
        Width::Terminal(ask) => ask(),
    }
}

/// A duration whose unit is at the same place in all lines: in seven characters.
fn lined_up(duration: Duration) -> String {
    let (number, unit) = parts(duration);
    format!("{number:>4} {unit:<2}")
}

/// A finding as one line without truncation, in UTC: for logs and messages.
#[must_use]
pub fn one_line(finding: &Finding) -> String {
    let options = TextOptions {
        time: TimeStyle::Utc,
        lists_existing: true,
        lists_never_asked: true,
        ..TextOptions::default()
    };
    let mut line = Vec::new();
    TextLines::new(options).finding(finding, &mut line);
    let line = String::from_utf8_lossy(&line);
    let words: Vec<&str> = line.split_whitespace().collect();
    words.join(" ")
}

fn push(out: &mut Vec<u8>, line: &str) {
    out.extend(line.trim_end().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
