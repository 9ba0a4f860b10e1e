//! Summary tables as text; columns adapt to their content.

use super::escape;
use crate::model::{Sum, SumRow, SumTable};

const COLUMNS: [&str; 6] = [
    "CONNECTIONS",
    "FALLBACKS",
    "SHARE",
    "QUERIES",
    "REFUSALS",
    "VERDICTS",
];

/// A table with its header.
pub(super) fn text(table: &SumTable, out: &mut Vec<u8>) {
    let SumTable {
        by,
        rows,
        others,
        forgotten,
    } = table;
    let mut cells = vec![line(by.name().to_uppercase(), COLUMNS.map(str::to_owned))];
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
    let widths: Vec<usize> = (0..=COLUMNS.len()).map(width).collect();
    for row in &cells {
        let mut text = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = width - cell.chars().count();
            let space = " ".repeat(gap);
            match column {
                0 => text.extend([cell, space.as_str()]),
                // Numbers are right-aligned.
                1..6 => text.extend(["  ", space.as_str(), cell]),
                _ => text.extend(["  ", cell]),
            }
        }
        out.extend(text.trim_end().bytes());
        out.push(b'\n');
    }
    if rows.is_empty() && others.is_none() {
        out.extend(b"(nothing)\n");
    }
    if *forgotten > 0 {
        let note = format!("({forgotten} connections were evicted: some may count twice)\n");
        out.extend(note.bytes());
    }
    out.push(b'\n');
}

fn line(key: String, columns: [String; COLUMNS.len()]) -> Vec<String> {
    std::iter::once(key).chain(columns).collect()
}

fn columns(sum: &Sum) -> [String; COLUMNS.len()] {
    let share = sum.share();
    let verdicts: Vec<String> = sum
        .verdicts
        .iter()
        .map(|(verdict, count)| format!("{count} {}", verdict.name()))
        .collect();
    [
        sum.connections.to_string(),
        sum.fallbacks.to_string(),
        share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0)),
        sum.queries.to_string(),
        sum.refusals.to_string(),
        verdicts.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{By, Verdict};

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
}
