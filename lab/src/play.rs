//! `mptcp-lab play`: plays one recipe or scenario by name, to be observed with another tool. Prints
//! the answers to the applications, sorted by name, and the kernel's counters.

use anyhow::bail;

use crate::{net::Family, provoke, recipes::RECIPES, scene::Scene, verdicts};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of recipes and scenarios; without any, list them
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Address family
    #[arg(long, value_name = "v4|v6", value_parser = Family::parse, default_value = "v4")]
    pub(crate) family: Family,
}

/// Plays them in turn; returns true if everything went as the scripts intend.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    if args.names.is_empty() {
        println!("recipes: {}", recipes().join(", "));
        println!("scenarios: {}", verdicts::names().join(", "));
        return Ok(true);
    }
    let mut right = true;
    for name in &args.names {
        let Some((played, counted)) = play(name, args.family) else {
            bail!(
                "there is neither a recipe nor a scenario {name}; the recipes are {}; the scenarios are {}",
                recipes().join(", "),
                verdicts::names().join(", ")
            );
        };
        let Scene {
            answers,
            wrong,
            skipped,
            ..
        } = played;
        right &= wrong.is_empty() && skipped.is_none();
        // A surrounding tracer may print to the same output.
        for (when, answer) in answers {
            eprintln!("{name}: {when} got {answer}");
        }
        for what in counted {
            eprintln!("{name}: the kernel counted {what}");
        }
        for why in wrong {
            eprintln!("{name}: went wrong: {why}");
        }
        if let Some(why) = skipped {
            eprintln!("{name}: cannot be played here: {why}");
        }
    }
    Ok(right)
}

/// Plays one; returns it with the kernel's counters of each namespace of a recipe.
fn play(name: &str, family: Family) -> Option<(Scene, Vec<String>)> {
    let Some(recipe) = RECIPES.iter().find(|recipe| recipe.name == name) else {
        return Some((verdicts::play(name, family)?, Vec::new()));
    };
    let (played, _left) = provoke::play(recipe, family);
    let counted = played.moved.values().filter(|moved| !moved.is_empty());
    let counted = counted.map(|moved| {
        let moved = moved.iter().map(|(name, count)| format!("{name} +{count}"));
        moved.collect::<Vec<_>>().join(", ")
    });
    Some((played.scene, counted.collect()))
}

/// Names of everything that can be played.
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
