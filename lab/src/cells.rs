//! Cells of a report: how they are made, and the one place that prints them.

use std::io::Stdout;

use crate::report::{Cell, Flooded, MatrixLine, Outcome, write_line};

/// A cell in which caller and tracer agree.
pub(crate) fn ok(case: &str, rung: &str, caller: &str, traced: &str) -> Cell {
    Cell {
        case: case.into(),
        rung: rung.into(),
        outcome: Outcome::Ok,
        caller: caller.into(),
        traced: traced.into(),
        why: String::new(),
        first_try: None,
        suite: None,
    }
}

/// A cell in which caller and tracer differ.
pub(crate) fn mismatch(case: &str, rung: &str, caller: &str, traced: &str, why: String) -> Cell {
    Cell {
        outcome: Outcome::Mismatch,
        why,
        ..ok(case, rung, caller, traced)
    }
}

/// A cell of a case that cannot run here.
pub(crate) fn skipped(case: &str, rung: &str, why: impl Into<String>) -> Cell {
    Cell {
        outcome: Outcome::Skipped,
        why: why.into(),
        ..ok(case, rung, "", "")
    }
}

/// The cell of an attach method that this kernel lacks.
pub(crate) fn unavailable(case: &str, rung: &str, why: impl Into<String>) -> Cell {
    Cell {
        outcome: Outcome::Unavailable,
        ..skipped(case, rung, why)
    }
}

/// A cell that is right if nothing is wrong.
pub(crate) fn judged(
    case: &str,
    rung: &str,
    caller: &str,
    traced: &str,
    wrong: Vec<String>,
) -> Cell {
    match wrong.is_empty() {
        true => ok(case, rung, caller, traced),
        false => mismatch(case, rung, caller, traced, shown(wrong)),
    }
}

/// Maximum number of differences shown per cell; further ones are counted.
const SHOWN_MAX: usize = 8;

/// Differences in one line.
pub(crate) fn shown(mut sentences: Vec<String>) -> String {
    let more = sentences.len().saturating_sub(SHOWN_MAX);
    sentences.truncate(SHOWN_MAX);
    if more > 0 {
        sentences.push(format!("and {more} more"));
    }
    sentences.join("; ")
}

/// Name of the running kernel.
pub(crate) fn kernel() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}

/// Writes cells to stdout as they arrive, and a summary at the end.
pub(crate) struct Cells {
    out: Stdout,
    outcomes: Vec<Outcome>,
}

impl Cells {
    /// Starts the report with the host line.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut out = std::io::stdout();
        write_line(&mut out, &MatrixLine::Host { kernel: kernel() })?;
        Ok(Self {
            out,
            outcomes: Vec::new(),
        })
    }

    /// Writes a cell.
    pub(crate) fn put(&mut self, cell: Cell) -> anyhow::Result<()> {
        self.outcomes.push(cell.outcome);
        write_line(&mut self.out, &MatrixLine::Cell(cell))
    }

    pub(crate) fn put_all(&mut self, cells: impl IntoIterator<Item = Cell>) -> anyhow::Result<()> {
        cells.into_iter().try_for_each(|cell| self.put(cell))
    }

    /// Writes the result of a flood, which counts like a cell.
    pub(crate) fn put_flood(&mut self, flooded: Flooded) -> anyhow::Result<()> {
        self.outcomes.push(flooded.outcome);
        write_line(&mut self.out, &MatrixLine::Flood(flooded))
    }

    /// Writes the summary; returns true if no cell is wrong.
    pub(crate) fn close(mut self) -> anyhow::Result<bool> {
        let count = |wanted: Outcome| {
            let of_it = self.outcomes.iter().filter(|outcome| **outcome == wanted);
            of_it.count() as u64
        };
        let summary = MatrixLine::Summary {
            ok: count(Outcome::Ok),
            mismatch: count(Outcome::Mismatch),
            unavailable: count(Outcome::Unavailable),
            skipped: count(Outcome::Skipped),
        };
        let right = count(Outcome::Mismatch) == 0;
        write_line(&mut self.out, &summary)?;
        Ok(right)
    }
}
