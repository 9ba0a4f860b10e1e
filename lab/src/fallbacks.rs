//! `mptcp-lab fallbacks`: every recipe with each attach method, compared with the kernel's
//! counters.

use std::time::Duration;

use crate::{
    compare::{mismatch, ok},
    findings::{Played, compare},
    keep::Capture,
    net::{self, Family, Kind},
    provoke::{Choice, play, recount},
    recipes::{Cleared, Recipe},
    report::{Cell, Cells, Outcome, Phase},
    side_by_side,
    stopwatch::Stopwatch,
    tracer::{Said, Started, Tracer, TracerArgs},
};

/// Longer than a tracer may hold a line back.
pub(crate) const KEPT_BACK: Duration = Duration::from_millis(1_500);

/// Maximum number of wrong cells for a second try: the lab does not control packets and clocks of a
/// busy machine, but what is wrong twice, or in more places, is wrong. A second try is reported as
/// one: `cargo xtask test` counts them and fails when there are many.
const SECOND_TRIES_MAX: usize = 2;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    pub(crate) tried: TracerArgs,
    /// Recipes to play
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Also print the capture and the live lines, as a line of the report
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Runs everything; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    on_rungs(&args.tried, |rung, only| one_rung(args, rung, only))
}

/// Runs something with these attach methods, or with all three, and reports the cells; returns true
/// if every check passes.
pub(crate) fn on_rungs(
    tried: &TracerArgs,
    one_rung: impl Fn(&str, Only) -> anyhow::Result<Vec<Cell>>,
) -> anyhow::Result<bool> {
    let mut cells = Cells::new(std::io::stdout())?;
    let rungs = tried.rungs();
    for rung in &rungs {
        eprintln!("mptcp-lab: attach method {rung}");
        let first = one_rung(rung, Only(&[]))?;
        let wrong: Vec<String> = first
            .iter()
            .filter(|cell| cell.outcome == Outcome::Mismatch)
            .map(|cell| cell.case.clone())
            .collect();
        let judged = if (1..=SECOND_TRIES_MAX).contains(&wrong.len()) {
            eprintln!(
                "mptcp-lab: attach method {rung}: trying {} again",
                wrong.join(", ")
            );
            let second = one_rung(rung, once_more(&wrong))?;
            for cell in &second {
                if cell.outcome == Outcome::Mismatch {
                    eprintln!(
                        "mptcp-lab: attach method {rung}: {} is wrong: {}",
                        cell.case, cell.why
                    );
                }
            }
            second_try(first, &second)
        } else {
            first
        };
        for cell in judged {
            cells.put(cell)?;
        }
    }
    cells.close()
}

/// The cases to play; empty means all.
#[derive(Clone, Copy)]
pub(crate) struct Only<'a>(&'a [String]);

impl Only<'_> {
    /// Whether it selects every case.
    pub(crate) fn is_all(self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn has(self, case: &str) -> bool {
        self.is_all() || self.0.iter().any(|named| named == case)
    }
}

/// What to play again if these cells were wrong: their cases, or all if one of them is not about a
/// single case.
fn once_more(wrong: &[String]) -> Only<'_> {
    let is_case = |cell: &String| {
        let with = |family: &Family| cell.ends_with(&format!("-{}", family.suffix()));
        Family::BOTH.iter().any(with)
    };
    match wrong.iter().all(is_case) {
        true => Only(wrong),
        false => Only(&[]),
    }
}

/// The cells of the first run, with a wrong one replaced by its second try if everything is right
/// there. If anything is wrong in the second run too, everything wrong in either run stays wrong.
fn second_try(first: Vec<Cell>, second: &[Cell]) -> Vec<Cell> {
    let wrong = |cell: &Cell| cell.outcome == Outcome::Mismatch;
    let stumbled = !second.iter().any(wrong);
    let judge = |cell: Cell| {
        let same = |again: &&Cell| again.case == cell.case && again.suite == cell.suite;
        let Some(again) = second.iter().find(same) else {
            return cell;
        };
        if !wrong(&cell) {
            return if wrong(again) { again.clone() } else { cell };
        }
        if !stumbled {
            return cell;
        }
        let wrong = format!("{}, not {}: {}", cell.traced, cell.caller, cell.why);
        Cell {
            first_try: Some(wrong),
            ..again.clone()
        }
    };
    first.into_iter().map(judge).collect()
}

/// The reason why no connection can fall back here, if so.
pub(crate) fn no_mptcp() -> Option<String> {
    net::open(Kind::Mptcp, Family::V4)
        .err()
        .map(|why| format!("no MPTCP socket: {why}"))
}

/// Plays something under a tracer with an attach method, and passes the result and the lines to
/// `judge`.
pub(crate) fn under_tracer<T>(
    tracer: &std::path::Path,
    rung: &str,
    more: &[String],
    perform: impl FnOnce() -> anyhow::Result<T>,
    judge: impl FnOnce(T, &[crate::traced::TracedLine]) -> Vec<Cell>,
) -> anyhow::Result<Vec<Cell>> {
    let judge = |performed, said: &Said| judge(performed, &said.lines);
    under_tracer_as_said(tracer, rung, more, |_watch| perform(), judge)
}

/// Like `under_tracer`, but `judge` also gets the raw lines, and `perform` may report phases of its
/// own.
pub(crate) fn under_tracer_as_said<T>(
    tracer: &std::path::Path,
    rung: &str,
    more: &[String],
    perform: impl FnOnce(&mut Stopwatch) -> anyhow::Result<T>,
    judge: impl FnOnce(T, &Said) -> Vec<Cell>,
) -> anyhow::Result<Vec<Cell>> {
    if let Some(why) = no_mptcp() {
        return Ok(vec![Cell {
            outcome: Outcome::Skipped,
            why,
            ..ok("rung", rung, "", "")
        }]);
    }
    let mut watch = Stopwatch::start(rung);
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
    watch.lap(Phase::Start)?;
    let performed = perform(&mut watch)?;
    watch.lap(Phase::Play)?;
    std::thread::sleep(KEPT_BACK);
    let said = tracer.finish()?;
    watch.lap(Phase::End)?;
    let mut cells = judge(performed, &said);
    watch.lap(Phase::Judge)?;
    if let Some(why) = said.broken {
        cells.push(mismatch("run", rung, "exit 0", "otherwise", why));
    }
    Ok(cells)
}

fn one_rung(args: &Args, rung: &str, only: Only<'_>) -> anyhow::Result<Vec<Cell>> {
    let waiting = Waiting::new(&args.choice, rung, only)?;
    let capture = args.keep.then(Capture::new);
    let mut more = args.tried.tracer_arg.clone();
    if let Some(capture) = &capture {
        more.extend(capture.arguments()?);
    }
    let judge = |performed: Performed, said: &Said| {
        let mut cells = performed.judge(rung, said);
        if let Some(capture) = &capture {
            cells.push(capture.replayed(&args.tried.tracer, rung, &said.text));
            if let Err(why) = capture.keep("fallbacks", rung, said) {
                cells.push(mismatch("keep", rung, "kept", "not", format!("{why:#}")));
            }
        }
        cells
    };
    let perform = |_watch: &mut Stopwatch| Ok(waiting.play());
    under_tracer_as_said(&args.tried.tracer, rung, &more, perform, judge)
}

/// Recipes ready to be played.
pub(crate) struct Waiting {
    chosen: Vec<(&'static Recipe, Family)>,
    at_once: u32,
}

/// Results of the recipes, and resources to keep until the tracer has ended.
pub(crate) struct Performed {
    played: Vec<Played>,
    left: Vec<Option<Cleared>>,
}

impl Waiting {
    /// Selects the recipes for an attach method.
    pub(crate) fn new(choice: &Choice, rung: &str, only: Only<'_>) -> anyhow::Result<Self> {
        let mut chosen = choice.chosen(rung)?;
        chosen.retain(|(recipe, family)| only.has(&format!("{}-{}", recipe.name, family.suffix())));
        Ok(Self {
            chosen,
            at_once: choice.spread.at_once,
        })
    }

    /// Plays the recipes.
    pub(crate) fn play(self) -> Performed {
        let act = |(recipe, family)| play(recipe, family);
        let (played, left) = side_by_side::each(self.chosen, self.at_once, act)
            .into_iter()
            .unzip();
        Performed { played, left }
    }
}

impl Performed {
    /// One cell per recipe, and those about the run as a whole.
    pub(crate) fn judge(mut self, rung: &str, said: &Said) -> Vec<Cell> {
        for (played, left) in self.played.iter_mut().zip(&self.left) {
            let Some(left) = left else { continue };
            // The tracer also reports connections that fell back while the sockets were closed.
            if let Err(why) = recount(played, left) {
                played.wrong.push(format!("{why:#}"));
            }
        }
        compare(rung, &self.played, &said.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_is_played_once_more_and_all_if_it_was_about_all() {
        let wrong = ["early-v4".to_owned()];
        let only = once_more(&wrong);
        assert!(only.has("early-v4") && !only.has("early-v6"));
        let wrong = ["early-v4".to_owned(), "identity".to_owned()];
        assert!(once_more(&wrong).has("early-v6"));
        assert!(Only(&[]).has("early-v6"));
    }

    #[test]
    fn what_is_wrong_twice_is_wrong_and_what_is_right_then_says_so() {
        let wrong = |case: &str| mismatch(case, "fexit", "a", "b", "c".into());
        let right = |case: &str| ok(case, "fexit", "a", "a");
        let outcomes = |second: &[Cell]| -> Vec<Outcome> {
            second_try(vec![right("one"), wrong("two"), wrong("three")], second)
                .iter()
                .map(|cell| cell.outcome)
                .collect()
        };
        use Outcome::{Mismatch, Ok};
        let all_right = [right("one"), right("two"), right("three")];
        assert_eq!(outcomes(&all_right), [Ok, Ok, Ok]);
        let one_wrong_again = [right("one"), right("two"), wrong("three")];
        assert_eq!(outcomes(&one_wrong_again), [Ok, Mismatch, Mismatch]);
        let another_wrong = [wrong("one"), right("two"), right("three")];
        assert_eq!(outcomes(&another_wrong), [Mismatch, Mismatch, Mismatch]);
        let not_played_again = [right("one"), right("two")];
        assert_eq!(outcomes(&not_played_again), [Ok, Ok, Mismatch]);
        let tried = second_try(vec![right("one"), wrong("two")], &all_right);
        let said: Vec<Option<&str>> = tried.iter().map(|cell| cell.first_try.as_deref()).collect();
        assert_eq!(said, [None, Some("b, not a: c")]);
    }
}
