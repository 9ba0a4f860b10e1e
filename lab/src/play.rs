//! `mptcp-lab play`: one recipe or scenario by its name, for whoever wants to look at it with a tool of their own. What
//! the applications were told, in the order of the names, and what the kernel counted.

use anyhow::bail;

use crate::{net::Family, played::Played, provoke, recipes::RECIPES, verdicts};

/// What to play.
#[derive(clap::Args)]
pub struct Args {
    /// Names of recipes and scenarios; without any they are listed
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// With which addresses
    #[arg(long, value_name = "v4|v6", value_parser = Family::parse, default_value = "v4")]
    pub family: Family,
}

/// Plays them, one after the other; true if everything happened as it is meant to.
///
/// # Errors
///
/// Fails if there is none of a name.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    if args.names.is_empty() {
        println!("recipes: {}", recipes().join(", "));
        println!("scenarios: {}", verdicts::names().join(", "));
        return Ok(true);
    }
    let mut right = true;
    for name in &args.names {
        let Some(played) = play(name, args.family) else {
            bail!(
                "there is neither a recipe nor a scenario {name}; the recipes are {}; the scenarios are {}",
                recipes().join(", "),
                verdicts::names().join(", ")
            );
        };
        right &= played.wrong.is_empty() && played.skipped.is_none();
        // What is printed may be that of a tracer which this runs under.
        for line in played.lines(name) {
            eprintln!("{line}");
        }
    }
    Ok(right)
}

fn play(name: &str, family: Family) -> Option<Played> {
    let Some(recipe) = RECIPES.iter().find(|recipe| recipe.name == name) else {
        return verdicts::play(name, family);
    };
    let (played, _left) = provoke::play(recipe, family);
    let counted = played.moved.values().map(|moved| {
        let moved: Vec<String> = moved
            .iter()
            .filter(|(_, count)| **count != 0)
            .map(|(name, count)| format!("{name} +{count}"))
            .collect();
        moved.join(", ")
    });
    Some(Played {
        counted: counted.filter(|it| !it.is_empty()).collect(),
        answers: played.answers,
        wrong: played.wrong,
        skipped: played.skipped,
    })
}

/// Everything that can be played.
#[must_use]
pub fn names() -> Vec<&'static str> {
    recipes().into_iter().chain(verdicts::names()).collect()
}

fn recipes() -> Vec<&'static str> {
    RECIPES.iter().map(|recipe| recipe.name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_means_one_thing() {
        let all = names();
        let different: BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(all.len(), different.len(), "{all:?}");
    }

    #[test]
    fn what_nobody_knows_is_not_played() {
        assert!(play("no-such-thing", Family::V4).is_none());
    }
}
