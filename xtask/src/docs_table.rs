//! The tables of docs/kernels.md: case x kernel x rung, written by the tests and never by hand. There
//! is one block of them for each suite that has its place on the page. A run on some kernels replaces
//! their columns and keeps the others.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    kernels, markers,
    matrix::{self, Outcome, Report, Verdict},
    shapes::{Must, OLDEST, RUNNING, SOL_TCP},
    signature::Found,
    suite::RUNGS,
    suite::Suite,
};

/// Behind the release of a kernel that is the oldest of its series.
pub(crate) const OLDEST_MARK: &str = " (oldest)";
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

/// What one suite gave on one kernel.
pub(crate) struct Outcomes {
    pub(crate) suite: Suite,
    /// The kernel's name in the tables.
    pub(crate) label: String,
    pub(crate) report: Report,
}

/// The place of one suite on the page.
struct Block {
    suite: Suite,
    begin: &'static str,
    end: &'static str,
    /// Over the first column.
    head: &'static str,
    /// What a cell shows where all is well: both sides say the same, so the shorter one.
    word: Word,
}

const BLOCKS: [Block; 3] = [
    Block {
        suite: Suite::Queries,
        begin: "<!-- matrix:begin -->",
        end: "<!-- matrix:end -->",
        head: "case",
        word: |cell| cell.caller.as_ref(),
    },
    Block {
        suite: Suite::Fallbacks,
        begin: "<!-- fallbacks:begin -->",
        end: "<!-- fallbacks:end -->",
        head: "recipe",
        word: |cell| cell.traced.as_ref(),
    },
    Block {
        suite: Suite::Verdicts,
        begin: "<!-- verdicts:begin -->",
        end: "<!-- verdicts:end -->",
        head: "scenario",
        word: |cell| cell.traced.as_ref(),
    },
];

/// Puts the results into the page, which is made if it is not there.
/// The shapes replace those of before, if any were found.
pub(crate) fn update(path: &Path, results: &[Outcomes], shapes: &[Found]) -> Result<()> {
    let mut page = if path.exists() {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
    } else {
        let mut page = "# Kernels\n\nWritten by `cargo xtask test --update-docs`.\n".to_owned();
        for Block { begin, end, .. } in BLOCKS {
            page.push_str(&format!("\n{begin}\n{end}\n"));
        }
        page
    };
    for block in &BLOCKS {
        if results.iter().any(|result| result.suite == block.suite) {
            page = block
                .updated(&page, results)
                .with_context(|| format!("cannot write the tables of {}", path.display()))?;
        }
    }
    if !shapes.is_empty() {
        page = markers::replaced(&page, SHAPES_BEGIN, SHAPES_END, &shapes_table(shapes))?;
    }
    fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

const SHAPES_BEGIN: &str = "<!-- shapes:begin -->";
const SHAPES_END: &str = "<!-- shapes:end -->";

/// Kernels by shape, oldest first.
fn shapes_table(shapes: &[Found]) -> String {
    let mut sorted: Vec<&Found> = shapes.iter().collect();
    sorted.sort_by(|a, b| kernels::compare_versions(&a.kernel, &b.kernel));
    let mut rows: Vec<(&Found, Vec<&str>)> = Vec::new();
    for found in sorted {
        match rows
            .iter_mut()
            .find(|(first, _)| first.shape == found.shape)
        {
            Some((_, kernels)) => kernels.push(&found.kernel),
            None => rows.push((found, vec![&found.kernel])),
        }
    }
    let mut text = "\n| shape | kernels | attach methods |\n|---|---|---|\n".to_owned();
    for (Found { shape, rungs, .. }, kernels) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} |",
            shape.0,
            kernels.join(", "),
            rungs.join(", ")
        );
    }
    text.push('\n');
    text
}

impl Block {
    fn updated(&self, page: &str, results: &[Outcomes]) -> Result<String> {
        let Self { begin, end, .. } = self;
        let [_before, old, _after] = markers::split(page, begin, end)?;
        let mut tables = parse(old);
        for result in results.iter().filter(|result| result.suite == self.suite) {
            merge(&mut tables, &result.label, &result.report, self.word);
        }
        let tables = render(&tables, self.head);
        markers::replaced(page, begin, end, &tables)
    }
}

type Word = fn(&matrix::Cell) -> Option<&String>;

fn merge(tables: &mut Vec<Table>, label: &str, report: &Report, word: Word) {
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
        column.entries.push((cell.case.clone(), entry(cell, word)));
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

fn entry(cell: &matrix::Cell, word: Word) -> Entry {
    let why = match matrix::verdict(cell, Must::Nothing) {
        Verdict::Passed => None,
        Verdict::Failed(why) | Verdict::Skipped(why) => Some(why),
    };
    let word = match cell.outcome {
        Outcome::Ok => word(cell).cloned().unwrap_or_else(|| "ok".to_owned()),
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
    let series = kernels::series_of(kernel).unwrap_or_else(|_| kernel.to_owned());
    if kernel.ends_with(OLDEST_MARK) {
        series + OLDEST
    } else {
        series
    }
}

fn rank(kernel: &str) -> u8 {
    match key(kernel).as_str() {
        SOL_TCP => 1,
        RUNNING => 2,
        _ => 0,
    }
}

fn render(tables: &[Table], head: &str) -> String {
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
            "\n### {}\n\n| {head} | {} |",
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

    const CALLER: Word = |cell| cell.caller.as_ref();

    #[test]
    fn the_tables_read_back_as_they_were_written() {
        let mut tables = Vec::new();
        let cells = [
            ("fresh", "fexit", "ok", ""),
            ("compat", "fexit", "skipped", "no 32-bit (here)"),
        ];
        for (label, report) in [
            ("6.12.1-cloud", report(&cells)),
            (
                "running: 6.18.44",
                report(&[("fresh", "kprobe", "unavailable", "no kprobes")]),
            ),
            (
                "6.2.1-cloud",
                report(&[("fresh", "fexit", "mismatch", "x | y")]),
            ),
        ] {
            merge(&mut tables, label, &report, CALLER);
        }
        assert_eq!(parse(&render(&tables, "case")), tables);
    }

    fn outcomes(suite: Suite, label: &str, cells: &[(&str, &str, &str, &str)]) -> Outcomes {
        Outcomes {
            suite,
            label: label.to_owned(),
            report: report(cells),
        }
    }

    /// What is left of a page after some updates, one after the other.
    fn updated(page: &str, updates: &[&[Outcomes]]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kernels.md");
        fs::write(&path, page).unwrap();
        for results in updates {
            update(&path, results, &[]).unwrap();
        }
        fs::read_to_string(&path).unwrap()
    }

    const PAGE: &str = "before\n<!-- matrix:begin -->\n<!-- matrix:end -->\nbetween\n\
                        <!-- fallbacks:begin -->\n<!-- fallbacks:end -->\nafter\n";

    #[test]
    fn a_new_run_replaces_its_own_column_and_no_other() {
        let ok = [("fresh", "fexit", "ok", "")];
        let got = updated(
            PAGE,
            &[
                &[
                    outcomes(Suite::Queries, "6.12.1-cloud", &ok),
                    outcomes(Suite::Queries, "6.2.9-cloud", &ok),
                    outcomes(Suite::Queries, "6.12.0-cloud (oldest)", &ok),
                ],
                &[outcomes(
                    Suite::Queries,
                    "6.12.2-cloud",
                    &[("fresh", "fexit", "mismatch", "")],
                )],
            ],
        );
        let tables = "\n### fexit\n\n\
             | case | 6.2.9-cloud | 6.12.0-cloud (oldest) | 6.12.2-cloud |\n|---|---|---|---|\n\
             | fresh | mptcp | mptcp | **MISMATCH** (1) |\n\n\
             - (1) the program saw mptcp, the trace says tcp\n\n";
        let want = PAGE.replacen(
            "<!-- matrix:end -->",
            &format!("{tables}<!-- matrix:end -->"),
            1,
        );
        assert_eq!(got, want);
    }

    #[test]
    fn fallbacks_have_their_own_block_and_show_the_trace() {
        let cells = [
            ("strip-syn", "fexit", "ok", ""),
            ("md5", "fexit", "skipped", "no MD5 here"),
            ("strip-syn", "kprobe", "unavailable", "no kprobes"),
        ];
        let got = updated(
            PAGE,
            &[
                &[outcomes(Suite::Fallbacks, "6.12.43-cloud (oldest)", &cells)],
                &[outcomes(Suite::Fallbacks, "6.12.118-cloud", &cells[..2])],
            ],
        );
        let tables = "\n### fexit\n\n\
             | recipe | 6.12.43-cloud (oldest) | 6.12.118-cloud |\n|---|---|---|\n\
             | strip-syn | tcp | tcp |\n| md5 | - (1) | - (1) |\n\n\
             ### kprobe\n\n| recipe | 6.12.43-cloud (oldest) |\n|---|---|\n\
             | strip-syn | - (2) |\n\n- (1) no MD5 here\n- (2) no kprobes\n\n";
        let want = PAGE.replacen(
            "<!-- fallbacks:end -->",
            &format!("{tables}<!-- fallbacks:end -->"),
            1,
        );
        assert_eq!(got, want);
    }

    #[test]
    fn verdicts_have_their_own_block() {
        let page = format!("{PAGE}<!-- verdicts:begin -->\n<!-- verdicts:end -->\n");
        let cells = [("stale", "fexit", "ok", "")];
        let got = updated(
            &page,
            &[&[outcomes(Suite::Verdicts, "6.12.1-cloud", &cells)]],
        );
        let table = "\n### fexit\n\n| scenario | 6.12.1-cloud |\n|---|---|\n| stale | tcp |\n\n";
        let want = page.replacen(
            "<!-- verdicts:end -->",
            &format!("{table}<!-- verdicts:end -->"),
            1,
        );
        assert_eq!(got, want);
    }

    #[test]
    fn a_page_without_a_place_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kernels.md");
        fs::write(&path, "<!-- matrix:begin -->\n<!-- matrix:end -->\n").unwrap();
        let results = [outcomes(
            Suite::Fallbacks,
            "6.12.1",
            &[("a", "fexit", "ok", "")],
        )];
        let error = format!("{:#}", update(&path, &results, &[]).unwrap_err());
        assert!(
            error.contains("add a line <!-- fallbacks:begin -->"),
            "{error}"
        );
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .starts_with("<!-- matrix:begin -->\n<!-- m")
        );
        fs::remove_file(&path).unwrap();
        update(&path, &results, &[]).unwrap();
    }
}
