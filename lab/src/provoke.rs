//! `mptcp-lab provoke`: plays recipes, and records the expected findings, the answers to the
//! applications and the kernel's counters.

use std::{collections::BTreeMap, fs::File, io::Write, path::PathBuf, time::Instant};

use anyhow::{Context as _, ensure};

use crate::{
    findings::{Namespaces, Played, Wanted},
    net::Family,
    recipes::{Cleared, FALLBACK_COUNTERS, NotHere, RECIPES, Recipe, Stage},
    report::write_line,
    spread::Spread,
    sys,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Recipes to play
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Number of repetitions
    #[arg(long, default_value_t = 1)]
    pub(crate) repeat: u32,
    /// Write the lines to FILE instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Selection of recipes.
#[derive(clap::Args)]
pub(crate) struct Choice {
    /// Only this recipe (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) recipe: Vec<String>,
    /// Address families and parallelism
    #[command(flatten)]
    pub(crate) spread: Spread,
}

impl Choice {
    /// The selected recipes, each with its address families for an attach method.
    pub(crate) fn chosen(&self, rung: &str) -> anyhow::Result<Vec<(&'static Recipe, Family)>> {
        for name in &self.recipe {
            let names: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
            ensure!(
                names.contains(&name.as_str()),
                "there is no recipe {name}; the recipes are {}",
                names.join(", ")
            );
        }
        let is_wanted = |recipe: &&Recipe| {
            self.recipe.is_empty() || self.recipe.iter().any(|name| name == recipe.name)
        };
        Ok(RECIPES
            .iter()
            .enumerate()
            .filter(|(_, recipe)| is_wanted(recipe))
            .flat_map(|(number, recipe)| {
                let families = self.spread.families(number, rung);
                families.into_iter().map(move |family| (recipe, family))
            })
            .collect())
    }
}

/// Plays the recipes; returns true if everything went as the scripts intend.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut out: Box<dyn Write> = match &args.out {
        Some(path) => Box::new(
            File::create(path).with_context(|| format!("cannot write to {}", path.display()))?,
        ),
        None => Box::new(std::io::stdout()),
    };
    let mut right = true;
    for _ in 0..args.repeat {
        for (recipe, family) in args.choice.chosen("")? {
            let (mut played, _left) = play(recipe, family);
            if played.skipped.is_none() {
                let unlike = played.unlike_the_table();
                played.wrong.extend(unlike);
            }
            for why in &played.wrong {
                eprintln!("mptcp-lab: {}: {why}", played.case());
            }
            right &= played.wrong.is_empty();
            write_line(&mut out, &played)?;
        }
    }
    Ok(right)
}

/// Plays one recipe. The namespaces live as long as the returned value.
pub(crate) fn play(recipe: &Recipe, family: Family) -> (Played, Option<Cleared>) {
    let start = Instant::now();
    let mut played = Played {
        recipe: recipe.name.into(),
        family,
        namespaces: Namespaces { near: 0, far: 0 },
        since_ns: sys::boottime_ns(),
        cast: BTreeMap::new(),
        wanted: Vec::new(),
        moved: BTreeMap::new(),
        counters: FALLBACK_COUNTERS.map(str::to_owned).into(),
        answers: BTreeMap::new(),
        wrong: Vec::new(),
        skipped: None,
        seconds: 0.0,
    };
    let left = match Stage::new(recipe, family) {
        Ok(stage) => match perform(recipe, stage, &mut played) {
            Ok(left) => Some(left),
            Err(why) => {
                played.wrong.push(format!("{why:#}"));
                None
            }
        },
        Err(why) => {
            played.skipped = Some(format!("{why:#}"));
            None
        }
    };
    played.seconds = start.elapsed().as_secs_f64();
    (played, left)
}

fn perform(recipe: &Recipe, mut stage: Stage, played: &mut Played) -> anyhow::Result<Cleared> {
    let done = (recipe.script)(&mut stage);
    if let Err(why) = done {
        match why.downcast_ref::<NotHere>() {
            Some(not_here) => played.skipped = Some(not_here.to_string()),
            None => played.wrong.push(format!("{why:#}")),
        }
    }
    let cast = stage.cast();
    let (connections, answers) = (stage.connections.clone(), stage.answers.clone());
    let left = stage.clear()?;
    played.namespaces = left.numbers()?;
    recount(played, &left)?;
    let names = left.counter_names();
    played.counters.retain(|name| names.contains(name));
    played.cast = cast
        .iter()
        .map(|(who, pid)| (*pid, who.comm().to_owned()))
        .collect();
    for expected in recipe.expected {
        let happens = |counter: &str| names.iter().any(|name| name == counter);
        if !expected.only_with.is_none_or(happens) {
            continue;
        }
        match connections.get(expected.connection) {
            Some(ends) => {
                let wanted = Wanted::new(expected, ends, played.namespaces, &cast);
                played.wanted.push(wanted);
            }
            None => played
                .wrong
                .push(format!("connection {} was not made", expected.connection)),
        }
    }
    played.answers = answers.into_iter().collect();
    for (name, right) in recipe.answers {
        let told = played.answers.get(*name).map(String::as_str);
        if !is_answer(right, told) {
            played
                .wrong
                .push(format!("{name}: the kernel says {told:?}, not {right}"));
        }
    }
    Ok(left)
}

/// Reads the kernel's counters again.
pub(crate) fn recount(played: &mut Played, left: &Cleared) -> anyhow::Result<()> {
    let Namespaces { near, far } = played.namespaces;
    let moved = left.moved()?;
    played.moved = [near, far].into_iter().zip(moved).collect();
    Ok(())
}

/// Kernels without `TCP_IS_MPTCP` distinguish the two kinds of socket by the errno.
pub(crate) fn is_answer(right: &str, told: Option<&str>) -> bool {
    told == Some(right)
        || matches!(
            (right, told),
            ("1", Some("EOPNOTSUPP")) | ("0", Some("ENOPROTOOPT"))
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernels_errno_answers_too_and_another_one_does_not() {
        for (right, told, is_right) in [
            ("1", Some("1"), true),
            ("0", Some("0"), true),
            ("1", Some("EOPNOTSUPP"), true),
            ("0", Some("ENOPROTOOPT"), true),
            ("1", Some("0"), false),
            ("0", Some("1"), false),
            ("1", Some("ENOPROTOOPT"), false),
            ("0", Some("EOPNOTSUPP"), false),
            ("ENOPROTOOPT", Some("ENOPROTOOPT"), true),
            ("0", None, false),
        ] {
            assert_eq!(is_answer(right, told), is_right, "{right} {told:?}");
        }
    }
}
