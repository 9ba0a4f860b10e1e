//! `mptcp-lab fallbacks`: every recipe on every rung, and what is traced against what the kernel counted.

use std::{path::PathBuf, time::Duration};

use crate::{
    compare::{mismatch, ok},
    findings::{Played, compare},
    net::{self, Family, Kind},
    provoke::{Choice, play, recount},
    recipes::Cleared,
    report::{Cell, Cells, Outcome},
    tracer::{Said, Started, Tracer},
};

/// Longer than a tracer may keep a line back.
pub(crate) const KEPT_BACK: Duration = Duration::from_millis(1_500);

/// How many cells of a rung may be wrong for all to be played once more: packets and clocks of a busy machine
/// are not the lab's to command, and what is wrong twice, or in more places, is wrong.
const STUMBLES_MAX: usize = 2;

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub tracer: PathBuf,
    /// Only this rung (repeatable); all three if none is named
    #[arg(long, value_name = "RUNG")]
    pub attach: Vec<String>,
    /// More arguments for the tracer (repeatable)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub tracer_arg: Vec<String>,
    /// Which recipes
    #[command(flatten)]
    pub choice: Choice,
}

/// Runs all; true if nothing is wrong.
///
/// # Errors
///
/// Fails if the tracer cannot be run or what it prints cannot be read.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    on_rungs(&args.attach, |rung| one_rung(args, rung))
}

/// Runs something on these rungs, or on all three, and reports the cells; true if nothing is wrong.
pub(crate) fn on_rungs(
    attach: &[String],
    one_rung: impl Fn(&str) -> anyhow::Result<Vec<Cell>>,
) -> anyhow::Result<bool> {
    let mut cells = Cells::new(std::io::stdout())?;
    let rungs = if attach.is_empty() {
        ["fexit", "kprobe", "tracepoint"]
            .map(str::to_owned)
            .to_vec()
    } else {
        attach.to_vec()
    };
    for rung in &rungs {
        eprintln!("mptcp-lab: rung {rung}");
        let first = one_rung(rung)?;
        let wrong = first
            .iter()
            .filter(|cell| cell.outcome == Outcome::Mismatch)
            .count();
        let judged = if (1..=STUMBLES_MAX).contains(&wrong) {
            eprintln!("mptcp-lab: rung {rung}: {wrong} wrong, all once more");
            second_try(first, &one_rung(rung)?)
        } else {
            first
        };
        for cell in judged {
            cells.put(cell)?;
        }
    }
    cells.close()
}

/// The cells of the first run, but what was wrong there and is right in the second one is right, and says so.
fn second_try(first: Vec<Cell>, second: &[Cell]) -> Vec<Cell> {
    first
        .into_iter()
        .map(|cell| {
            let again = second
                .iter()
                .find(|it| it.case == cell.case && it.outcome == Outcome::Ok);
            match (cell.outcome, again) {
                (Outcome::Mismatch, Some(again)) => {
                    let why = format!(
                        "right at the second try; at the first: {}, not {}: {}",
                        cell.traced, cell.caller, cell.why
                    );
                    eprintln!("mptcp-lab: {} on {}: {why}", cell.case, cell.rung);
                    Cell {
                        why,
                        ..again.clone()
                    }
                }
                _ => cell,
            }
        })
        .collect()
}

/// Why no connection can fall back here, if none can.
pub(crate) fn no_mptcp() -> Option<String> {
    net::open(Kind::Mptcp, Family::V4)
        .err()
        .map(|why| format!("no MPTCP socket: {why}"))
}

/// What is played under a tracer, and what of it must live until the tracer has ended.
type Performed = (Vec<Played>, Vec<Option<Cleared>>);

/// Plays something under a tracer on a rung, and gives the played and the lines to `judge`.
pub(crate) fn under_tracer<T>(
    tracer: &std::path::Path,
    rung: &str,
    more: &[String],
    perform: impl FnOnce() -> anyhow::Result<T>,
    judge: impl FnOnce(T, &[crate::traced::TracedLine]) -> Vec<Cell>,
) -> anyhow::Result<Vec<Cell>> {
    let judge = |performed, said: &Said| judge(performed, &said.lines);
    under_tracer_as_said(tracer, rung, more, perform, judge)
}

/// The same, and `judge` has the lines also as they were written.
pub(crate) fn under_tracer_as_said<T>(
    tracer: &std::path::Path,
    rung: &str,
    more: &[String],
    perform: impl FnOnce() -> anyhow::Result<T>,
    judge: impl FnOnce(T, &Said) -> Vec<Cell>,
) -> anyhow::Result<Vec<Cell>> {
    if let Some(why) = no_mptcp() {
        return Ok(vec![Cell {
            outcome: Outcome::Skipped,
            why,
            ..ok("rung", rung, "", "")
        }]);
    }
    let tracer = match Tracer::start(tracer, rung, more)? {
        Started::Live(tracer) => tracer,
        Started::Unavailable(why) => {
            return Ok(vec![Cell {
                outcome: Outcome::Unavailable,
                why,
                ..ok("rung", rung, "", "")
            }]);
        }
        Started::Broken(why) => {
            return Ok(vec![mismatch("run", rung, "it is live", "otherwise", why)]);
        }
    };
    let performed = perform()?;
    std::thread::sleep(KEPT_BACK);
    let said = tracer.finish()?;
    let mut cells = judge(performed, &said);
    if let Some(why) = said.broken {
        cells.push(mismatch("run", rung, "exit 0", "otherwise", why));
    }
    Ok(cells)
}

fn one_rung(args: &Args, rung: &str) -> anyhow::Result<Vec<Cell>> {
    let chosen = args.choice.chosen()?;
    let perform = || {
        let (played, left): Performed = chosen
            .iter()
            .map(|(recipe, family)| play(recipe, *family, args.choice.middlebox))
            .unzip();
        Ok((played, left))
    };
    under_tracer(
        &args.tracer,
        rung,
        &args.tracer_arg,
        perform,
        |(mut played, left): Performed, lines| {
            for (played, left) in played.iter_mut().zip(&left) {
                let Some(left) = left else { continue };
                // What fell back while the sockets were closed was traced too.
                if let Err(why) = recount(played, left) {
                    played.wrong.push(format!("{why:#}"));
                }
            }
            compare(rung, &played, lines)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_twice_is_wrong_and_what_is_right_then_says_so() {
        let wrong = |case: &str| mismatch(case, "fexit", "a", "b", "c".into());
        let first = vec![ok("one", "fexit", "a", "a"), wrong("two"), wrong("three")];
        let second = [wrong("one"), ok("two", "fexit", "a", "a"), wrong("three")];
        let judged = second_try(first, &second);
        let outcomes: Vec<Outcome> = judged.iter().map(|cell| cell.outcome).collect();
        assert_eq!(outcomes, [Outcome::Ok, Outcome::Ok, Outcome::Mismatch]);
        assert_eq!(
            judged[1].why,
            "right at the second try; at the first: b, not a: c"
        );
    }
}
