//! Summary tables as text; columns adapt to their content.

use super::escape;
use crate::model::{PathSum, PeerHistory, Sum, SumRow, SumTable, amount};

/// Columns of every table.
const COLUMNS: [&str; 3] = ["CONNECTIONS", "FALLBACKS", "SHARE"];
/// The further ones of a table about connections.
const OF_CONNECTIONS: [&str; 3] = ["QUERIES", "REFUSALS", "VERDICTS"];
/// The further ones of a table about paths.
const OF_PATHS: [&str; 6] = ["UP", "FAILED", "DOWN", "SENT", "RECEIVED", "RETRANS"];

/// A table with its header.
pub(super) fn text(table: &SumTable, out: &mut Vec<u8>) {
    let SumTable {
        by,
        rows,
        others,
        forgotten,
    } = table;
    let columns = |sum: &Sum| match by.is_of_paths() {
        true => of_paths(sum),
        false => of_connections(sum),
    };
    let names: Vec<&str> = match by.is_of_paths() {
        true => COLUMNS.into_iter().chain(OF_PATHS).collect(),
        false => COLUMNS.into_iter().chain(OF_CONNECTIONS).collect(),
    };
    let names = names.into_iter().map(str::to_owned).collect();
    let mut cells = vec![line(by.name().to_uppercase(), names)];
    cells.extend(
        rows.iter()
            .map(|SumRow { key, sum }| line(escape(key), columns(sum))),
    );
    cells.extend(
        others
            .as_ref()
            .map(|sum| line("(others)".into(), columns(sum))),
    );
    let width = |column: usize| {
        let longest = cells.iter().map(|row| row[column].chars().count()).max();
        longest.unwrap_or_default()
    };
    let widths: Vec<usize> = (0..cells[0].len()).map(width).collect();
    // Numbers are right-aligned, and the verdicts, at the end, are text.
    let numbers = match by.is_of_paths() {
        true => 1..widths.len(),
        false => 1..widths.len() - 1,
    };
    for row in &cells {
        let mut text = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = width - cell.chars().count();
            let space = " ".repeat(gap);
            match column {
                0 => text.extend([cell, space.as_str()]),
                _ if numbers.contains(&column) => text.extend(["  ", space.as_str(), cell]),
                _ => text.extend(["  ", cell]),
            }
        }
        out.extend(text.trim_end().bytes());
        out.push(b'\n');
    }
    if rows.is_empty() && others.is_none() {
        out.extend(b"(nothing)\n");
    }
    for SumRow { key, sum } in rows {
        if let Some(sentence) = sum.history.as_ref().and_then(PeerHistory::sentence) {
            out.extend(format!("{}: {}\n", escape(key), escape(&sentence)).bytes());
        }
    }
    if *forgotten > 0 {
        let note = format!("({forgotten} connections were evicted: some may count twice)\n");
        out.extend(note.bytes());
    }
    out.push(b'\n');
}

fn line(key: String, columns: Vec<String>) -> Vec<String> {
    std::iter::once(key).chain(columns).collect()
}

fn of_all(sum: &Sum) -> [String; COLUMNS.len()] {
    let share = sum.share();
    [
        sum.connections.to_string(),
        sum.fallbacks.to_string(),
        share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0)),
    ]
}

fn of_connections(sum: &Sum) -> Vec<String> {
    let verdicts: Vec<String> = sum
        .verdicts
        .iter()
        .map(|(verdict, count)| format!("{count} {}", verdict.name()))
        .collect();
    let rest: [String; OF_CONNECTIONS.len()] = [
        sum.queries.to_string(),
        sum.refusals.to_string(),
        verdicts.join(", "),
    ];
    of_all(sum).into_iter().chain(rest).collect()
}

fn of_paths(sum: &Sum) -> Vec<String> {
    let PathSum {
        up,
        failed,
        down,
        bytes_sent,
        bytes_received,
        retransmissions,
    } = sum.paths;
    let rest: [String; OF_PATHS.len()] = [
        up.to_string(),
        failed.to_string(),
        down.to_string(),
        amount(bytes_sent),
        amount(bytes_received),
        retransmissions.to_string(),
    ];
    of_all(sum).into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{By, Verdict, Whose};

    #[test]
    fn columns_are_aligned_and_names_cannot_drive_the_terminal() {
        let row = |key: &str, connections, fallbacks| SumRow {
            key: key.into(),
            sum: Sum {
                connections,
                fallbacks,
                deceived: 0,
                queries: 3,
                refusals: 12,
                verdicts: [(Verdict::Stale, 2), (Verdict::Explained, 1)].into(),
                paths: PathSum::default(),
                history: None,
            },
        };
        let table = SumTable {
            by: By::Process,
            rows: vec![row("curl 7", 1000, 500), row("\u{1b}[31m 8", 0, 0)],
            others: Some(Sum::default()),
            forgotten: 2,
        };
        let mut out = Vec::new();
        text(&table, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "PROCESS       CONNECTIONS  FALLBACKS  SHARE  QUERIES  REFUSALS  VERDICTS\n\
             curl 7               1000        500    50%        3        12  1 explained, 2 stale\n\
             \\u{1b}[31m 8            0          0      -        3        12  1 explained, 2 stale\n\
             (others)                0          0      -        0         0\n\
             (2 connections were evicted: some may count twice)\n\n"
        );
    }

    #[test]
    fn a_table_of_paths_has_their_columns() {
        let table = SumTable {
            by: By::Path,
            rows: vec![SumRow {
                key: "10.0.0.1 - 192.0.2.7".into(),
                sum: Sum {
                    connections: 3,
                    fallbacks: 1,
                    paths: PathSum {
                        up: 3,
                        failed: 14,
                        down: 2,
                        bytes_sent: 8_000,
                        bytes_received: 12,
                        retransmissions: 5,
                    },
                    ..Sum::default()
                },
            }],
            others: None,
            forgotten: 0,
        };
        let mut out = Vec::new();
        text(&table, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "PATH                  CONNECTIONS  FALLBACKS  SHARE  UP  FAILED  DOWN     SENT  RECEIVED  RETRANS\n\
             10.0.0.1 - 192.0.2.7            3          1    33%   3      14     2  8.00 kB      12 B        5\n\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_marked_as_empty() {
        let mut out = Vec::new();
        let table = SumTable {
            by: By::Dest,
            rows: Vec::new(),
            others: None,
            forgotten: 0,
        };
        text(&table, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "DEST  CONNECTIONS  FALLBACKS  SHARE  QUERIES  REFUSALS  VERDICTS\n(nothing)\n\n"
        );
    }

    #[test]
    fn what_the_history_of_a_peer_says_stands_below_the_table_with_its_numbers() {
        let spoke = |local: &str, mptcp, tcp| crate::model::Spoke {
            local: local.into(),
            mptcp,
            tcp,
        };
        let said = |whose, spoke| {
            let history = Some(PeerHistory { whose, spoke });
            let table = SumTable {
                by: By::Dest,
                rows: vec![SumRow {
                    key: "192.0.2.0/24".into(),
                    sum: Sum {
                        history,
                        ..Sum::default()
                    },
                }],
                others: None,
                forgotten: 0,
            };
            let mut out = Vec::new();
            text(&table, &mut out);
            let out = String::from_utf8(out).unwrap();
            out.lines().nth(2).unwrap_or_default().to_owned()
        };
        let both = || vec![spoke("eth0", 12, 1), spoke("\u{1b}1", 0, 5)];
        assert_eq!(
            said(Whose::Path(vec!["\u{1b}1".into()]), both()),
            "192.0.2.0/24: the path over \\u{1b}1 takes MPTCP away: the peer spoke it in 12 of 13 over \
             eth0, 0 of 5 over \\u{1b}1"
        );
        assert_eq!(
            said(Whose::Peer, vec![spoke("eth0", 0, 3)]),
            "192.0.2.0/24: the peer is without MPTCP: 0 of 3 over eth0, where others speak it"
        );
        assert_eq!(said(Whose::Unknown, both()), "");
    }
}
