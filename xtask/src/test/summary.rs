//! The results of all steps of a test run: counts, failures, skips with reasons, second tries,
//! shapes and durations.

use std::{
    fs,
    path::Path,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{
    command::{self, is_root, say},
    docs_table::Outcomes,
    fleet::Visited,
    result::SuiteResult,
    signature::Found,
    skips::{self, Skip},
    step::Step,
    tally::Tally,
    times::{self, Time},
};

/// Maximum percentage of plays that need a second try: such a pass may be luck.
const SECOND_TRIES_PERCENT_MAX: u32 = 1;

/// One line of the summary.
#[derive(Serialize)]
struct Row {
    name: String,
    tally: Tally,
    seconds: f64,
}

/// A cell that passed only at the second attempt.
#[derive(Serialize)]
struct SecondTry {
    suite: String,
    case: String,
    rung: String,
    /// The mismatch of the first attempt.
    first: String,
}

/// The complete result, as written to the JSON file.
#[derive(Default, Serialize)]
struct Book {
    rows: Vec<Row>,
    /// The failures of the suites, one line each, repeated at the end of the output.
    failures: Vec<String>,
    skips: Vec<Skip>,
    second_tries: Vec<SecondTry>,
    /// Number of cells that were right or wrong.
    plays: u32,
    shapes: Vec<Found>,
    times: Vec<Time>,
    /// The results for docs/kernels.md.
    #[serde(skip)]
    outcomes: Vec<Outcomes>,
}

/// The summary of a run; concurrent steps write to it.
pub(super) struct Summary {
    book: Mutex<Book>,
    since: Instant,
}

impl Summary {
    pub(super) fn new() -> Self {
        Self {
            book: Mutex::new(Book::default()),
            since: Instant::now(),
        }
    }

    fn write(&self, act: impl FnOnce(&mut Book)) {
        act(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Runs a step. A failure does not stop the other steps.
    pub(super) fn step<S: Into<Step>>(&self, name: &str, act: impl FnOnce() -> Result<S>) {
        say(format_args!("test: {name}"));
        let since = Instant::now();
        let step = match act() {
            Ok(step) => step.into(),
            Err(error) => {
                command::report(&error);
                let line = format!("FAILED {name}: {error:#}");
                self.write(|book| book.failures.push(line));
                Tally::of(false).into()
            }
        };
        let took = since.elapsed();
        self.write(|book| {
            let Step { tally, skips } = step;
            book.skips.extend(skips);
            book.row(name, tally, took);
            book.times.push(Time::new(name, "step", took));
        });
    }

    /// Measures an activity that is not a test, such as a build.
    pub(super) fn timed<T>(&self, what: &str, phase: &str, act: impl FnOnce() -> T) -> T {
        let since = Instant::now();
        let done = act();
        self.write(|book| book.times.push(Time::new(what, phase, since.elapsed())));
        done
    }

    /// Records the result of one suite.
    pub(super) fn suite(&self, result: SuiteResult) {
        self.write(|book| book.suite(result));
    }

    /// Records the results of a visit to a kernel.
    pub(super) fn visited(&self, visited: Visited) {
        let Visited {
            results,
            found,
            times,
        } = visited;
        self.write(|book| {
            book.shapes.extend(found);
            book.times.extend(times);
            for result in results {
                book.suite(result);
            }
        });
    }

    /// Prints the summary, writes it to a file, and returns the exit code and the results for the
    /// docs.
    pub(super) fn close(self, file: &Path) -> (ExitCode, Vec<Outcomes>, Vec<Found>) {
        let mut book = self
            .book
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        book.judge(is_root());
        book.times
            .push(Time::new("the whole run", "run", self.since.elapsed()));
        match book.write_to(file) {
            Ok(()) => say(format_args!("the same as JSON: {}", file.display())),
            Err(error) => {
                command::report(&error);
                // The existing file is from an earlier run.
                book.failures.push(format!("FAILED summary: {error:#}"));
                book.row("summary as JSON", Tally::of(false), Duration::ZERO);
            }
        }
        let tally = book.print(self.since.elapsed());
        println!("\n{tally}");
        (tally.exit_code(), book.outcomes, book.shapes)
    }
}

impl Book {
    fn row(&mut self, name: &str, tally: Tally, took: Duration) {
        self.rows.push(Row {
            name: name.to_owned(),
            tally,
            seconds: took.as_secs_f64(),
        });
    }

    fn suite(&mut self, result: SuiteResult) {
        let (name, tally) = (result.name(), result.tally());
        self.failures.extend(result.failures());
        self.skips.extend(result.skips());
        self.times.extend(result.times());
        self.plays += tally.passed + tally.failed;
        for (case, rung, first) in result.report.second_tries() {
            self.second_tries.push(SecondTry {
                suite: name.clone(),
                case: case.to_owned(),
                rung: rung.to_owned(),
                first: first.to_owned(),
            });
        }
        self.row(&name, tally, result.took);
        self.outcomes.extend(result.for_docs());
    }

    /// Turns avoidable skips and too many second tries into failures of the run.
    fn judge(&mut self, can_install: bool) {
        if can_install {
            let unexcused = self.skips.iter().filter(|skip| !skip.is_fact());
            let lines: Vec<String> = unexcused
                .map(|skip| {
                    let Skip { what, why, count } = skip;
                    format!("FAILED {what}: {count} skipped unnecessarily: {why}")
                })
                .collect();
            if !lines.is_empty() {
                let failed = u32::try_from(lines.len()).unwrap_or(u32::MAX);
                let tally = Tally {
                    failed,
                    ..Tally::default()
                };
                self.row(
                    "skips that this machine could have run",
                    tally,
                    Duration::ZERO,
                );
                self.failures.extend(lines);
            }
        }
        let tries = u32::try_from(self.second_tries.len()).unwrap_or(u32::MAX);
        if is_luck(tries, self.plays) {
            self.row("second tries", Tally::of(false), Duration::ZERO);
            self.failures.push(format!(
                "FAILED second tries: {tries} of {} plays were right at the second try only, more than \
                 {SECOND_TRIES_PERCENT_MAX} %",
                self.plays
            ));
        }
    }

    fn write_to(&self, file: &Path) -> Result<()> {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let text = serde_json::to_string_pretty(self).context("cannot write the summary")?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Prints the summary and returns the total.
    fn print(&self, took: Duration) -> Tally {
        println!("\n{}", times::table(&self.times));
        print!("{}", skips::table(&self.skips));
        for Found {
            kernel,
            shape,
            rungs,
            is_first,
            number: _,
        } in &self.shapes
        {
            let what = if *is_first {
                "new, all tests"
            } else {
                "known, a few tests"
            };
            println!("shape {}: {kernel} ({what}; {})", shape.0, rungs.join(", "));
        }
        for SecondTry {
            suite,
            case,
            rung,
            first,
        } in &self.second_tries
        {
            println!("second try: {suite}: {case} on {rung}: at the first {first}");
        }
        println!(
            "second tries: {} of {} plays",
            self.second_tries.len(),
            self.plays
        );
        println!(
            "\n{:<54} {:>6} {:>6} {:>7} {:>8}",
            "summary", "passed", "failed", "skipped", "seconds"
        );
        let mut total = Tally::default();
        for Row {
            name,
            tally,
            seconds,
        } in &self.rows
        {
            println!(
                "{name:<54} {:>6} {:>6} {:>7} {seconds:>8.1}",
                tally.passed, tally.failed, tally.skipped
            );
            total.add(*tally);
        }
        println!("{:<54} {:>31.1}", "in all", took.as_secs_f64());
        for failure in &self.failures {
            println!("{failure}");
        }
        total
    }
}

/// True if more plays needed a second try than allowed.
fn is_luck(second_tries: u32, plays: u32) -> bool {
    u64::from(second_tries) * 100 > u64::from(plays) * u64::from(SECOND_TRIES_PERCENT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    #[test]
    fn more_than_one_in_a_hundred_is_luck() {
        for (tries, plays, want) in [
            (0, 0, false),
            (1, 50, true),
            (1, 100, false),
            (7, 700, false),
            (8, 700, true),
        ] {
            assert_eq!(is_luck(tries, plays), want, "{tries} of {plays}");
        }
    }

    #[test]
    fn a_skip_that_could_have_run_fails_the_run_of_root_alone() {
        let check = |why: &str, can_install: bool, failed: usize| {
            let mut book = Book::default();
            book.skips.push(Skip {
                what: "report".to_owned(),
                why: why.to_owned(),
                count: 2,
            });
            book.judge(can_install);
            assert_eq!(book.failures.len(), failed, "{why}");
            let total: u32 = book.rows.iter().map(|row| row.tally.failed).sum();
            assert_eq!(total as usize, failed, "{why}");
        };
        check("there is no Chromium", true, 1);
        check("there is no Chromium", false, 0);
        check("this kernel has no kprobes", true, 0);
    }

    #[test]
    fn second_tries_are_counted_and_too_many_fail() {
        let mut result = SuiteResult::empty("6.12", Suite::Fallbacks);
        for line in [
            r#"{"type":"cell","data":{"case":"a","rung":"fexit","outcome":"ok","first_try":"x"}}"#,
            r#"{"type":"cell","data":{"case":"b","rung":"fexit","outcome":"ok"}}"#,
        ] {
            result.report.read_line(line);
        }
        let mut book = Book::default();
        book.suite(result);
        book.judge(true);
        assert_eq!((book.plays, book.second_tries.len()), (2, 1));
        assert_eq!(book.failures.len(), 1);
    }
}
