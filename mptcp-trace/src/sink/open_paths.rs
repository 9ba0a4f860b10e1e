//! The open paths of sockets, as lines below each of them (`list --paths`). Pure.

use std::net::SocketAddr;

use super::{
    columns::{Cell, Text, granted},
    row,
};
use crate::model::{Path, PathEvent, PathRole, Side, amount, short};

/// Columns before a path: it belongs to the socket above it.
const INDENT: usize = 2;

/// Columns of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Local,
    Remote,
    Role,
    Ids,
    State,
    Sent,
    Received,
    Retransmitted,
    Rtt,
}

impl Column {
    /// From left to right.
    const ALL: [Self; 9] = [
        Self::Local,
        Self::Remote,
        Self::Role,
        Self::Ids,
        Self::State,
        Self::Sent,
        Self::Received,
        Self::Retransmitted,
        Self::Rtt,
    ];

    /// The most important first; each with the width below which it is left out.
    const RANKED: [(Self, usize); 9] = [
        (Self::Local, 12),
        (Self::Remote, 12),
        (Self::Role, 5),
        (Self::Sent, 7),
        (Self::Received, 8),
        (Self::Rtt, 7),
        (Self::State, 11),
        (Self::Ids, 5),
        (Self::Retransmitted, 7),
    ];

    fn header(self) -> &'static str {
        match self {
            Self::Local => "PATH LOCAL",
            Self::Remote => "REMOTE",
            Self::Role => "ROLE",
            Self::Ids => "IDS",
            Self::State => "STATE",
            Self::Sent => "SENT",
            Self::Received => "RECEIVED",
            Self::Retransmitted => "RETRANS",
            Self::Rtt => "RTT",
        }
    }

    fn is_number(self) -> bool {
        matches!(
            self,
            Self::Sent | Self::Received | Self::Retransmitted | Self::Rtt
        )
    }
}

/// The columns of all paths that are printed, aligned.
#[derive(Debug)]
pub(super) struct OpenPaths {
    columns: Vec<(Column, usize)>,
    interface: Interface,
}

/// Name of the interface with this index in the network namespace with this inode number.
type Interface = fn(u32, u32) -> Option<String>;

impl OpenPaths {
    /// Columns that fit these paths, and the width of the lines.
    pub(super) fn new<'a>(
        paths: impl Iterator<Item = &'a PathEvent>,
        width: Option<usize>,
        interface: Interface,
    ) -> Self {
        let mut full = Column::ALL.map(|it| (it, it.header().len()));
        for event in paths {
            for (column, width) in &mut full {
                *width = cell(*column, &event.path, interface).width().max(*width);
            }
        }
        let room = width.unwrap_or(usize::MAX / 4);
        let of = |column| full.iter().find(|(it, _)| *it == column).map(|it| it.1);
        let least = Column::RANKED.map(|(column, least)| {
            (
                column,
                of(column).map_or(least, |full| full.min(least.max(column.header().len()))),
            )
        });
        let most = Column::RANKED.map(|(column, least)| (column, of(column).unwrap_or(least)));
        let wishes: Vec<(Column, usize)> = least.into_iter().chain(most).collect();
        Self {
            columns: granted(&Column::ALL, &wishes, room.saturating_sub(INDENT)),
            interface,
        }
    }

    /// The header.
    pub(super) fn header(&self, out: &mut Vec<u8>) {
        self.line(|column| Text::Plain(column.header().to_owned()), out);
    }

    /// One path.
    pub(super) fn path(&self, path: &Path, out: &mut Vec<u8>) {
        self.line(|column| cell(column, path, self.interface), out);
    }

    fn line(&self, cell: impl Fn(Column) -> Text, out: &mut Vec<u8>) {
        let mut line = " ".repeat(INDENT);
        for (column, width) in &self.columns {
            let text = cell(*column).fitted(*width);
            let space = " ".repeat(width.saturating_sub(Text::Plain(text.clone()).width()));
            match column.is_number() {
                true => line.extend([space.as_str(), text.as_str()]),
                false => line.extend([text.as_str(), space.as_str()]),
            }
            line.push(' ');
        }
        out.extend(line.trim_end().as_bytes());
        out.push(b'\n');
    }
}

fn cell(column: Column, path: &Path, interface: Interface) -> Text {
    let unknown = || "?".to_owned();
    let ledger = path.ledger.as_ref();
    let address = |addr: SocketAddr| {
        let interface = |index| interface(path.socket.netns, index);
        Cell::address(row::endpoint(addr), None, interface).text
    };
    let text = match column {
        Column::Local => return address(path.socket.local),
        Column::Remote => return address(path.socket.remote),
        Column::Role => {
            let role = match (path.role, path.side) {
                (PathRole::First, _) => "first",
                (PathRole::Join, Some(Side::Passive)) => "join by peer",
                (PathRole::Join, Some(Side::Active) | None) => "join",
            };
            match path.backup_here || path.backup_peer {
                true => format!("{role}, backup"),
                false => role.to_owned(),
            }
        }
        Column::Ids => {
            let id = |id: Option<u8>| id.map_or_else(unknown, |id| id.to_string());
            format!("{}/{}", id(path.local_id), id(path.remote_id))
        }
        Column::State => path.socket.state.to_string(),
        Column::Sent => ledger.map_or_else(unknown, |it| amount(it.bytes_sent)),
        Column::Received => ledger.map_or_else(unknown, |it| amount(it.bytes_received)),
        Column::Retransmitted => ledger.map_or_else(unknown, |it| it.retransmissions.to_string()),
        Column::Rtt => ledger.and_then(|it| it.rtt).map_or_else(unknown, short),
    };
    Text::Plain(text)
}

#[cfg(test)]
mod tests {
    use crate::{
        model::{
            ConnectionKind, Finding, PathKind, PathRole,
            fixture::{Row, a_ledger, a_path},
        },
        sink::{Format, Listed, TextOptions, Width},
    };

    fn listed(format: &Format) -> String {
        let existing = Row {
            kind: ConnectionKind::Existing,
            cause: None,
            ..Row::default()
        };
        let Finding::Connection(event) = existing.connection() else {
            panic!("no socket")
        };
        let of = |remote, role, backup_here| {
            let row = Row { remote, ..existing };
            let Finding::Path(event) = row.path(crate::model::Path {
                role,
                backup_here,
                ledger: (role == PathRole::Join).then(a_ledger),
                ..a_path(PathKind::Open)
            }) else {
                panic!("no path")
            };
            *event
        };
        let paths = [
            of("192.0.2.7:443", PathRole::First, false),
            of("[2001:db8:1:2:3:4:5:6]:443", PathRole::Join, true),
        ];
        let mut out = Vec::new();
        let listed = Listed {
            event: &event,
            asked: None,
            paths: &paths,
        };
        format.sockets_with_paths(&[listed], &mut out);
        String::from_utf8(out).unwrap()
    }

    fn text(width: Width) -> String {
        let lines = crate::sink::TextLines::of_sockets(TextOptions {
            header: true,
            width,
            ..TextOptions::default()
        });
        listed(&Format::Text(Box::new(lines)))
    }

    #[test]
    fn open_paths_are_aligned_below_their_socket() {
        let text = text(Width::Unlimited);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("STATE") && lines[2].contains("curl 7"),
            "{text}"
        );
        assert_eq!(
            [lines[1], lines[3], lines[4]],
            [
                "  PATH LOCAL    REMOTE                     ROLE         IDS STATE          SENT RECEIVED RETRANS     RTT",
                "  10.0.0.1:1000 192.0.2.7:443              first        1/0 ESTABLISHED       ?        ?       ?       ?",
                "  10.0.0.1:1000 [2001:db8:1:2:3:4:5:6]:443 join, backup 1/0 ESTABLISHED 8.00 kB  1.20 kB       3 20.0 ms",
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_leaves_out_what_matters_least() {
        for (width, has, misses) in [
            (90, "RETRANS", "-"),
            (66, "RECEIVED", "RETRANS"),
            (30, "REMOTE", "SENT"),
        ] {
            let text = text(Width::Fixed(width));
            let header = text.lines().nth(1).unwrap();
            assert!(header.contains(has) && !header.contains(misses), "{text}");
            let fits = |line: &str| line.chars().count() <= width;
            assert!(text.lines().all(fits), "{text}");
        }
    }

    #[test]
    fn json_has_a_line_for_each_path_after_its_socket() {
        let text = listed(&Format::Json);
        let kinds: Vec<String> = text
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                format!("{} {}", line["type"], line["data"]["remote"]["addr"])
            })
            .collect();
        assert_eq!(
            kinds,
            [
                r#""socket" "192.0.2.7""#,
                r#""path_open" "192.0.2.7""#,
                r#""path_open" "2001:db8:1:2:3:4:5:6""#,
            ]
        );
    }
}
