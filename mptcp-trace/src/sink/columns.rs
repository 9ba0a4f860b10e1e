//! Columns of text output: which ones, in which order, and how wide. Pure.

use std::net::SocketAddr;

use super::escape;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Replaces what does not fit.
pub(super) const ELLIPSIS: char = '…';

/// Spaces between two columns.
const GAP: usize = 1;

/// Longest IPv4 address with port: `255.255.255.255:65535`.
const IPV4_WIDTH: usize = 21;

/// Longest IPv6 address with port, without a zone.
const IPV6_WIDTH: usize = 47;

/// Longest name of a cause, and the mark of an inferred one.
const RESULT_WIDTH: usize = 24;

/// Defines the columns, each with its name and header.
macro_rules! columns {
    ($($(#[$doc:meta])* $column:ident $name:literal $header:literal,)*) => {
        /// A column of the lines.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Column {
            $($(#[$doc])* $column,)*
        }

        impl Column {
            /// The name as typed.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$column => $name,)*
                }
            }

            /// The name in the header.
            pub(super) fn header(self) -> &'static str {
                match self {
                    $(Self::$column => $header,)*
                }
            }
        }
    };
}

columns! {
    /// When it happened.
    Time "time" "TIME",
    /// The kind of the finding.
    Kind "kind" "KIND",
    /// The cause, the answer and its verdict, or the closing verdict.
    Result "result" "CAUSE OR VERDICT",
    /// Name and id of the process.
    Process "process" "PROCESS",
    /// Id of the process.
    Pid "pid" "PID",
    /// Name of the process.
    Comm "comm" "COMM",
    /// Local address and port.
    Local "local" "LOCAL",
    /// Remote address and port.
    Remote "remote" "REMOTE",
    /// State of the socket.
    State "state" "STATE",
    /// Whether the connection is MPTCP.
    Is "is" "IS",
    /// Number of subflows.
    Subflows "subflows" "SUBFLOWS",
    /// Inode number of the network namespace.
    Netns "netns" "NETNS",
    /// Identity of the connection.
    Id "id" "ID",
    /// A fallback: since the connect. A query: since the fallback. A closing verdict: from the last
    /// answer to the fallback. A path: its handshake, or its lifetime. A connection that ended: its
    /// duration.
    After "after" "AFTER",
    /// What has no column of its own.
    Details "details" "DETAILS",
}

impl Column {
    /// The columns that lines of findings can have.
    pub const FOR_FINDINGS: [Self; 13] = [
        Self::Time,
        Self::Kind,
        Self::Result,
        Self::Process,
        Self::Pid,
        Self::Comm,
        Self::Local,
        Self::Remote,
        Self::State,
        Self::Netns,
        Self::Id,
        Self::After,
        Self::Details,
    ];

    /// The column of findings with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::FOR_FINDINGS
            .into_iter()
            .find(|column| column.name().eq_ignore_ascii_case(name))
    }

    /// Width that shows nearly everything.
    fn full(self) -> usize {
        match self {
            Self::Time => 15,
            Self::Kind => 14,
            Self::Result => RESULT_WIDTH,
            Self::Process => 23,
            Self::Pid => 7,
            Self::Comm => 15,
            Self::Local | Self::Remote => IPV6_WIDTH,
            Self::State => 11,
            Self::Is => 9,
            Self::Subflows => 8,
            Self::Netns => 10,
            Self::Id => 40,
            Self::After => 7,
            Self::Details => 40,
        }
    }

    /// Least width that is of use.
    fn least(self) -> usize {
        match self {
            Self::Time => 8,
            Self::Kind => 9,
            Self::Result => 12,
            Self::Process => 10,
            Self::Comm => 8,
            Self::Local | Self::Remote => IPV4_WIDTH,
            Self::Details => 13,
            Self::Id => 20,
            Self::Pid | Self::State | Self::Is | Self::Subflows | Self::Netns | Self::After => {
                self.full()
            }
        }
    }

    /// Width below which a column shows nothing of use.
    fn floor(self) -> usize {
        match self {
            Self::Local | Self::Remote => 12,
            Self::Details | Self::Id => 8,
            Self::Time
            | Self::Kind
            | Self::Result
            | Self::Process
            | Self::Comm
            | Self::Pid
            | Self::State
            | Self::Is
            | Self::Subflows
            | Self::Netns
            | Self::After => self.least(),
        }
    }

    /// Numbers are right-aligned.
    fn is_number(self) -> bool {
        match self {
            Self::Pid | Self::Subflows | Self::Netns | Self::After => true,
            Self::Time
            | Self::Kind
            | Self::Result
            | Self::Process
            | Self::Comm
            | Self::Local
            | Self::Remote
            | Self::State
            | Self::Is
            | Self::Id
            | Self::Details => false,
        }
    }
}

/// The columns of one kind of line.
#[derive(Debug)]
pub(super) struct Preset {
    /// From left to right.
    usual: &'static [Column],
    /// What a line of limited width shows, the most important first: a column, and its width.
    wishes: &'static [(Column, usize)],
}

/// A line per finding.
pub(super) static FINDINGS: Preset = Preset {
    usual: &[
        Column::Time,
        Column::Kind,
        Column::Result,
        Column::Process,
        Column::Local,
        Column::Remote,
        Column::After,
        Column::Details,
    ],
    wishes: &[
        (Column::Result, 12),
        (Column::Kind, 9),
        (Column::Remote, IPV4_WIDTH),
        (Column::Time, 8),
        (Column::Process, 10),
        (Column::Result, RESULT_WIDTH),
        (Column::After, 7),
        (Column::Local, IPV4_WIDTH),
        // From 120 columns on, every column is shown.
        (Column::Details, 13),
        (Column::Process, 14),
        // With milliseconds.
        (Column::Time, 12),
        (Column::Process, 18),
        (Column::Details, 28),
        (Column::Kind, 14),
        (Column::Process, 23),
        // With microseconds.
        (Column::Time, 15),
        (Column::Remote, IPV6_WIDTH),
        (Column::Local, IPV6_WIDTH),
    ],
};

/// A line per open socket.
pub(super) static SOCKETS: Preset = Preset {
    usual: &[
        Column::State,
        Column::Is,
        Column::Subflows,
        Column::Process,
        Column::Netns,
        Column::Local,
        Column::Remote,
        Column::Details,
    ],
    wishes: &[
        (Column::Is, 9),
        (Column::Remote, IPV4_WIDTH),
        (Column::Process, 10),
        (Column::State, 11),
        // The cause, in a terminal of 80 columns.
        (Column::Details, RESULT_WIDTH),
        (Column::Subflows, 8),
        (Column::Local, IPV4_WIDTH),
        (Column::Netns, 10),
        (Column::Process, 23),
        (Column::Details, 40),
        (Column::Remote, IPV6_WIDTH),
        (Column::Local, IPV6_WIDTH),
    ],
};

/// The columns of a line, from left to right, with their widths.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    columns: Vec<(Column, usize)>,
    /// Width of the line; without one, nothing is truncated.
    width: Option<usize>,
}

impl Layout {
    /// The chosen columns, or else the usual ones, for lines of this width. Times are `time_extra`
    /// characters longer than a time of day.
    pub(super) fn new(
        preset: &'static Preset,
        chosen: &[Column],
        width: Option<usize>,
        time_extra: usize,
    ) -> Self {
        let room = width.map(|width| width.saturating_sub(time_extra));
        let mut columns = match (chosen, room) {
            ([], Some(width)) => granted(preset.usual, preset.wishes, width),
            ([], None) => preset.usual.iter().map(|it| (*it, it.full())).collect(),
            (chosen, None) => chosen.iter().map(|it| (*it, it.full())).collect(),
            (chosen, Some(width)) => shrunk(chosen, width),
        };
        if let Some((_, time)) = columns.iter_mut().find(|(it, _)| *it == Column::Time) {
            *time += time_extra;
        }
        Self { columns, width }
    }

    /// Width of a column; 0 if it is absent.
    pub(super) fn width_of(&self, column: Column) -> usize {
        let found = self.columns.iter().find(|(it, _)| *it == column);
        found.map_or(0, |(_, width)| *width)
    }

    /// Width of the line.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Width of all that precedes a column.
    pub(super) fn before(&self, column: Column) -> usize {
        let before = self.columns.iter().take_while(|(it, _)| *it != column);
        before.map(|(_, width)| width + GAP).sum()
    }

    /// Puts the cells together; `cell` returns the text of a column, and how it is painted.
    pub(super) fn line(&self, mut cell: impl FnMut(Column) -> Cell) -> String {
        let mut line = String::new();
        let mut used = 0;
        for (at, (column, width)) in self.columns.iter().enumerate() {
            let Cell {
                text,
                paint,
                natural,
            } = cell(*column);
            let is_last = at + 1 == self.columns.len();
            let (text, width) = match self.width {
                Some(all) => {
                    let rest = all.saturating_sub(used);
                    match column.is_number() {
                        // No part of a number is shown.
                        true if *width > rest => (clipped(&ELLIPSIS.to_string(), rest), rest),
                        true => (text.fitted(*width), *width),
                        // The last column has the rest of the line.
                        false if is_last => (text.fitted(rest), rest),
                        false => (text.fitted(rest.min(*width)), rest.min(*width)),
                    }
                }
                None => (text.whole(), natural.unwrap_or(*width)),
            };
            let space = " ".repeat(width.saturating_sub(text.width()));
            used += width + GAP;
            let painted = match paint {
                "" => text,
                paint => format!("{paint}{text}\x1b[0m"),
            };
            match column.is_number() {
                true => line.extend([space.as_str(), &painted]),
                false => line.extend([painted.as_str(), &space]),
            }
            line.push_str(&" ".repeat(GAP));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Grants wishes for columns, the most important first, until the width is used up. Returns the
/// columns in their usual order, each with its width.
#[must_use]
pub fn granted<C: Copy + PartialEq>(
    usual: &[C],
    wishes: &[(C, usize)],
    width: usize,
) -> Vec<(C, usize)> {
    let mut granted: Vec<(C, usize)> = Vec::new();
    let mut used = 0;
    for (column, wanted) in wishes {
        let known = granted.iter_mut().find(|(it, _)| it == column);
        let left = width.saturating_sub(used);
        match known {
            // A column may grow by less than wanted, but not begin with less.
            Some((_, has)) => {
                let more = wanted.saturating_sub(*has).min(left);
                *has += more;
                used += more;
            }
            None => {
                // The first column has no gap before it.
                let more = if used == 0 { *wanted } else { wanted + GAP };
                if more <= left {
                    granted.push((*column, *wanted));
                    used += more;
                }
            }
        }
    }
    let order = |column: &C| usual.iter().position(|it| it == column);
    granted.sort_by_key(|(column, _)| order(column));
    granted
}

/// The chosen columns at their full width, or at their least if that does not fit; between them,
/// those on the left get what is left over. Where not even that fits, those on the right lose more.
fn shrunk(chosen: &[Column], width: usize) -> Vec<(Column, usize)> {
    let mut columns: Vec<(Column, usize)> = chosen.iter().map(|it| (*it, it.least())).collect();
    let gaps = chosen.len().saturating_sub(1) * GAP;
    let used: usize = columns.iter().map(|(_, width)| width).sum();
    let mut over = (used + gaps).saturating_sub(width);
    for (column, width) in columns.iter_mut().rev() {
        let less = width.saturating_sub(column.floor()).min(over);
        *width -= less;
        over -= less;
    }
    let mut left = width.saturating_sub(used + gaps);
    for (column, width) in &mut columns {
        let more = column.full().saturating_sub(*width).min(left);
        *width += more;
        left -= more;
    }
    columns
}

/// One cell.
pub(super) struct Cell {
    pub(super) text: Text,
    /// Escape sequence of the colour, or empty.
    pub(super) paint: &'static str,
    /// Width where nothing is truncated, if it depends on the content.
    pub(super) natural: Option<usize>,
}

impl Cell {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::painted(text, "")
    }

    pub(super) fn process(comm: &str, pid: &str) -> Self {
        Self {
            text: Text::Process(comm.to_owned(), pid.to_owned()),
            ..Self::plain("")
        }
    }

    /// One end of a connection. `natural` is its width where nothing is truncated; `interface`
    /// returns the name of the zone of a link-local address.
    pub(super) fn address(
        addr: Option<SocketAddr>,
        natural: Option<usize>,
        interface: impl Fn(u32) -> Option<String>,
    ) -> Self {
        let text = match addr {
            None => "-".to_owned(),
            Some(SocketAddr::V6(v6))
                if v6.scope_id() != 0
                    && let Some(name) = interface(v6.scope_id()) =>
            {
                format!("[{}%{}]:{}", v6.ip(), escape(&name), v6.port())
            }
            Some(addr) => addr.to_string(),
        };
        Self {
            text: Text::Address(text),
            natural,
            ..Self::plain("")
        }
    }

    pub(super) fn header(column: Column) -> Self {
        Self {
            // In the header the addresses have the width of IPv4.
            natural: matches!(column, Column::Local | Column::Remote).then_some(IPV4_WIDTH),
            ..Self::plain(column.header())
        }
    }

    pub(super) fn painted(text: impl Into<String>, paint: &'static str) -> Self {
        Self {
            text: Text::Plain(text.into()),
            paint,
            natural: None,
        }
    }
}

/// What a cell contains: each kind has its own way to become shorter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Text {
    /// Loses its end.
    Plain(String),
    /// Loses the end of the name, never the number.
    Process(String, String),
    /// An address with a port: loses the middle of the address, never the port.
    Address(String),
}

impl Text {
    /// Display width of the whole text.
    pub(super) fn width(&self) -> usize {
        self.clone().whole().width()
    }

    fn whole(self) -> String {
        match self {
            Self::Plain(text) | Self::Address(text) => text,
            Self::Process(comm, pid) if comm == pid => comm,
            Self::Process(comm, pid) => format!("{comm} {pid}"),
        }
    }

    /// The text in a cell of this width, with an ellipsis in place of what does not fit.
    #[must_use]
    pub fn fitted(self, width: usize) -> String {
        match self {
            // Both are unknown.
            Self::Process(comm, pid) if comm == pid => clipped(&comm, width),
            Self::Process(comm, pid) => {
                let room = width.saturating_sub(pid.width() + 1);
                match room {
                    0 => clipped(&pid, width),
                    room => format!("{} {pid}", clipped(&comm, room)),
                }
            }
            Self::Address(text) => without_middle(&text, width),
            Self::Plain(text) => clipped(&text, width),
        }
    }
}

/// The address without its middle, if it is wider than this. Its end is what distinguishes the hosts
/// of a network.
fn without_middle(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if text.width() <= width || width == 0 {
        return clipped(text, width);
    }
    let port = text.rsplit_once(':').map_or(0, |(_, port)| port.len());
    let tail = (width / 2).max(port + 4).min(width - 1).min(count);
    let ends: String = text.chars().skip(count - tail).collect();
    let begins: String = text.chars().take(width - 1 - tail).collect();
    format!("{begins}{ELLIPSIS}{ends}")
}

/// Width where nothing is truncated: addresses of one family are aligned.
pub(super) fn family_width(addr: Option<SocketAddr>) -> usize {
    match addr {
        Some(SocketAddr::V6(_)) => IPV6_WIDTH,
        Some(SocketAddr::V4(_)) | None => IPV4_WIDTH,
    }
}

/// The text, with an ellipsis if it is wider than this.
#[must_use]
pub fn clipped(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 0;
    for character in text.chars() {
        let wide = character.width().unwrap_or(0);
        if used + wide + 1 > width {
            break;
        }
        used += wide;
        short.push(character);
    }
    if width > 0 {
        short.push(ELLIPSIS);
    }
    short
}

/// Wraps text at this width; longer words stay whole.
#[must_use]
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}
