//! Suites that run with each attach method, and play once more what was wrong.

use super::TracerArgs;
use crate::{
    cells::Cells,
    net::Family,
    report::{Cell, Outcome},
};

/// Maximum number of wrong cells for a second try: the lab does not control packets and clocks of a
/// busy machine, but what is wrong twice, or in more places, is wrong. A second try is reported as
/// one: `cargo xtask test` counts them and fails when there are many.
const SECOND_TRIES_MAX: usize = 2;

/// Runs something with these attach methods, or with all three, and reports the cells; returns true
/// if every check passes. Nothing is tried again.
pub(crate) fn once_on_rungs(
    tried: &TracerArgs,
    one_rung: impl Fn(&str) -> anyhow::Result<Vec<Cell>>,
) -> anyhow::Result<bool> {
    let mut cells = Cells::new()?;
    for rung in tried.rungs() {
        cells.put_all(one_rung(&rung)?)?;
    }
    cells.close()
}

/// Like `once_on_rungs`, with a second try.
pub(crate) fn on_rungs(
    tried: &TracerArgs,
    one_rung: impl Fn(&str, Only) -> anyhow::Result<Vec<Cell>>,
) -> anyhow::Result<bool> {
    once_on_rungs(tried, |rung| {
        eprintln!("mptcp-lab: attach method {rung}");
        let first = one_rung(rung, Only::ALL)?;
        let is_wrong = |cell: &&Cell| cell.outcome == Outcome::Mismatch;
        let wrong: Vec<String> = first
            .iter()
            .filter(is_wrong)
            .map(|cell| cell.case.clone())
            .collect();
        if !(1..=SECOND_TRIES_MAX).contains(&wrong.len()) {
            return Ok(first);
        }
        let again = wrong.join(", ");
        eprintln!("mptcp-lab: attach method {rung}: trying {again} again");
        let second = one_rung(rung, once_more(&wrong))?;
        for Cell { case, why, .. } in second.iter().filter(is_wrong) {
            eprintln!("mptcp-lab: attach method {rung}: {case} is wrong: {why}");
        }
        Ok(second_try(first, &second))
    })
}

/// Plays once more if it could not be played to its end: a busy machine may take longer than the
/// patience of the lab. This is a second try of the first cell.
pub(crate) fn or_once_more(
    play: impl Fn() -> anyhow::Result<Vec<Cell>>,
) -> anyhow::Result<Vec<Cell>> {
    let why = match play() {
        Ok(cells) => return Ok(cells),
        Err(why) => format!("{why:#}"),
    };
    eprintln!("mptcp-lab: trying again: {why}");
    let mut cells = play()?;
    if let Some(first) = cells.first_mut() {
        first.first_try = Some(why);
    }
    Ok(cells)
}

/// The cases to play; empty means all.
#[derive(Clone, Copy)]
pub(crate) struct Only<'a>(&'a [String]);

impl Only<'_> {
    pub(crate) const ALL: Self = Self(&[]);

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
        false => Only::ALL,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::{mismatch, ok};

    #[test]
    fn what_could_not_be_played_is_played_once_more_and_reported() {
        let tries = std::cell::Cell::new(0);
        let play = |bad: u32| {
            tries.set(0);
            or_once_more(|| {
                tries.set(tries.get() + 1);
                anyhow::ensure!(tries.get() > bad, "no bytes arrived");
                Ok(vec![ok("mix", "fexit", "", "")])
            })
        };
        assert_eq!(play(0).unwrap()[0].first_try, None);
        let why = Some("no bytes arrived".to_owned());
        assert_eq!(play(1).unwrap()[0].first_try, why);
        assert!(play(2).is_err());
    }

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
