//! The tables of docs/kernels.md: case x kernel x rung, written by the tests and never by hand.
//! A run on some kernels replaces their columns and keeps the others.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    kernels,
    matrix::{self, Outcome, Report, Verdict},
    shapes::{Must, RUNGS, RUNNING, SOL_TCP},
};

const BEGIN: &str = "<!-- matrix:begin -->";
const END: &str = "<!-- matrix:end -->";
const MISMATCH: &str = "**MISMATCH**";
const ABSENT: &str = "-";

/// One cell: a word, and the sentence behind it if it is no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    word: String,
    note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    kernel: String,
    /// Case and entry, in the order of the lab.
    entries: Vec<(String, Entry)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    rung: String,
    columns: Vec<Column>,
}

/// Puts the results of these kernels into the page, which is made if it is not there.
pub(crate) fn update(path: &Path, results: &[(String, Report)]) -> Result<()> {
    let page = if path.exists() {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
    } else {
        format!("# Kernels\n\nWritten by `cargo xtask test --update-docs`.\n\n{BEGIN}\n{END}\n")
    };
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| {
        rest.split_once(END)
            .map(|(tables, after)| (before, tables, after))
    });
    let (before, old, after) = parts.ok_or_else(|| {
        anyhow!(
            "{} has no place for the tables: add a line {BEGIN} and a line {END}",
            path.display()
        )
    })?;
    let mut tables = parse(old);
    for (label, report) in results {
        merge(&mut tables, label, report);
    }
    let page = format!("{before}{BEGIN}\n{}{END}{after}", render(&tables));
    fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn merge(tables: &mut Vec<Table>, label: &str, report: &Report) {
    // What this kernel said last time is gone, on the rungs that were asked this time.
    for table in tables.iter_mut() {
        if report.cells.iter().any(|cell| cell.rung == table.rung) {
            table
                .columns
                .retain(|column| key(&column.kernel) != key(label));
        }
    }
    for cell in &report.cells {
        let index = tables
            .iter()
            .position(|table| table.rung == cell.rung)
            .unwrap_or_else(|| {
                tables.push(Table {
                    rung: cell.rung.clone(),
                    columns: Vec::new(),
                });
                tables.len() - 1
            });
        let Some(table) = tables.get_mut(index) else {
            continue;
        };
        let index = table
            .columns
            .iter()
            .position(|column| column.kernel == label);
        let index = index.unwrap_or_else(|| {
            table.columns.push(Column {
                kernel: label.to_owned(),
                entries: Vec::new(),
            });
            table.columns.len() - 1
        });
        let Some(column) = table.columns.get_mut(index) else {
            continue;
        };
        column.entries.push((cell.case.clone(), entry(cell)));
    }
    tables.retain(|table| !table.columns.is_empty());
    tables.sort_by_key(|table| {
        RUNGS
            .iter()
            .position(|rung| *rung == table.rung)
            .unwrap_or(RUNGS.len())
    });
    for table in tables {
        table.columns.sort_by(|a, b| {
            rank(&a.kernel)
                .cmp(&rank(&b.kernel))
                .then_with(|| kernels::compare_versions(&a.kernel, &b.kernel))
        });
    }
}

fn entry(cell: &matrix::Cell) -> Entry {
    let why = match matrix::verdict(cell, Must::Nothing) {
        Verdict::Passed => None,
        Verdict::Failed(why) | Verdict::Skipped(why) => Some(why),
    };
    let word = match cell.outcome {
        Outcome::Ok => cell.caller.clone().unwrap_or_else(|| "ok".to_owned()),
        Outcome::Mismatch => MISMATCH.to_owned(),
        Outcome::Unavailable | Outcome::Skipped => ABSENT.to_owned(),
    };
    Entry {
        word: one_line(&word),
        note: why.as_deref().map(one_line),
    }
}

fn one_line(text: &str) -> String {
    text.replace('|', "/")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// What two columns of the same kernel have in common across point releases.
fn key(kernel: &str) -> String {
    if kernel.starts_with(RUNNING) {
        return RUNNING.to_owned();
    }
    if kernel.contains(SOL_TCP) {
        return SOL_TCP.to_owned();
    }
    kernels::series_of(kernel).unwrap_or_else(|_| kernel.to_owned())
}

fn rank(kernel: &str) -> u8 {
    match key(kernel).as_str() {
        SOL_TCP => 1,
        RUNNING => 2,
        _ => 0,
    }
}

fn render(tables: &[Table]) -> String {
    let mut text = String::new();
    let mut notes: Vec<&str> = Vec::new();
    for table in tables {
        let mut cases: Vec<&str> = Vec::new();
        for (case, _) in table.columns.iter().flat_map(|column| &column.entries) {
            if !cases.contains(&case.as_str()) {
                cases.push(case);
            }
        }
        let header: Vec<&str> = table
            .columns
            .iter()
            .map(|column| column.kernel.as_str())
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\n### {}\n\n| case | {} |",
            table.rung,
            header.join(" | ")
        );
        let _ = writeln!(text, "|---|{}", "---|".repeat(header.len()));
        for case in cases {
            let _ = write!(text, "| {case} |");
            for column in &table.columns {
                let entry = column.entries.iter().find(|(name, _)| name == case);
                let _ = match entry.map(|(_, entry)| (entry.word.as_str(), entry.note.as_deref())) {
                    None => write!(text, "  |"),
                    Some((word, None)) => write!(text, " {word} |"),
                    Some((word, Some(note))) => {
                        let known = notes.iter().position(|known| *known == note);
                        let index = known.unwrap_or_else(|| {
                            notes.push(note);
                            notes.len() - 1
                        });
                        write!(text, " {word} ({}) |", index + 1)
                    }
                };
            }
            text.push('\n');
        }
    }
    text.push('\n');
    for (index, note) in notes.iter().enumerate() {
        let _ = writeln!(text, "- ({}) {note}", index + 1);
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    text
}

fn parse(text: &str) -> Vec<Table> {
    let notes: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("- (")?.split_once(") "))
        .collect();
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines() {
        if let Some(rung) = line.strip_prefix("### ") {
            tables.push(Table {
                rung: rung.trim().to_owned(),
                columns: Vec::new(),
            });
            continue;
        }
        let (Some(table), true) = (tables.last_mut(), line.starts_with("| ")) else {
            continue;
        };
        let words: Vec<&str> = line
            .trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let Some((case, words)) = words.split_first() else {
            continue;
        };
        if table.columns.is_empty() {
            table.columns = words
                .iter()
                .map(|kernel| Column {
                    kernel: (*kernel).to_owned(),
                    entries: Vec::new(),
                })
                .collect();
            continue;
        }
        for (column, word) in table
            .columns
            .iter_mut()
            .zip(words)
            .filter(|(_, word)| !word.is_empty())
        {
            column
                .entries
                .push(((*case).to_owned(), parse_entry(word, &notes)));
        }
    }
    tables
}

fn parse_entry(text: &str, notes: &[(&str, &str)]) -> Entry {
    let with_note = text
        .strip_suffix(')')
        .and_then(|text| text.rsplit_once(" ("))
        .and_then(|(word, number)| {
            let (_, note) = notes.iter().find(|(known, _)| *known == number)?;
            Some(Entry {
                word: word.to_owned(),
                note: Some((*note).to_owned()),
            })
        });
    with_note.unwrap_or_else(|| Entry {
        word: text.to_owned(),
        note: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cells: &[(&str, &str, &str, &str)]) -> Report {
        let mut report = Report::default();
        for (case, rung, outcome, why) in cells {
            report.read_line(&format!(
                r#"{{"type":"cell","data":{{"case":"{case}","rung":"{rung}","outcome":"{outcome}","caller":"mptcp","traced":"tcp","why":"{why}"}}}}"#
            ));
        }
        report
    }

    #[test]
    fn the_tables_read_back_as_they_were_written() {
        let mut tables = Vec::new();
        let cells = [
            ("fresh", "fexit", "ok", ""),
            ("compat", "fexit", "skipped", "no 32-bit (here)"),
        ];
        merge(&mut tables, "6.12.1-cloud", &report(&cells));
        merge(
            &mut tables,
            "running: 6.18.44",
            &report(&[("fresh", "kprobe", "unavailable", "no kprobes")]),
        );
        merge(
            &mut tables,
            "6.2.1-cloud",
            &report(&[("fresh", "fexit", "mismatch", "x | y")]),
        );
        assert_eq!(parse(&render(&tables)), tables);
    }

    #[test]
    fn a_new_run_replaces_its_own_column_and_no_other() {
        let path = tempfile::tempdir().unwrap();
        let page = path.path().join("kernels.md");
        fs::write(&page, format!("before\n{BEGIN}\n{END}\nafter\n")).unwrap();
        let ok = || report(&[("fresh", "fexit", "ok", "")]);
        update(
            &page,
            &[("6.12.1-cloud".into(), ok()), ("6.2.9-cloud".into(), ok())],
        )
        .unwrap();
        update(
            &page,
            &[(
                "6.12.2-cloud".into(),
                report(&[("fresh", "fexit", "mismatch", "")]),
            )],
        )
        .unwrap();
        let want = format!(
            "before\n{BEGIN}\n\n### fexit\n\n| case | 6.2.9-cloud | 6.12.2-cloud |\n|---|---|---|\n\
             | fresh | mptcp | **MISMATCH** (1) |\n\n\
             - (1) the caller was told mptcp, the trace says tcp\n\n{END}\nafter\n"
        );
        assert_eq!(fs::read_to_string(&page).unwrap(), want);
    }
}
