//! `mptcp-lab provoke`: plays recipes, and records the expected findings, the answers to the
//! applications and the kernel's counters.

use std::{collections::BTreeMap, time::Instant};

use crate::{
    findings::{Played, Wanted},
    net::Family,
    netns::Namespaces,
    recipes::{Cleared, FALLBACK_COUNTERS, RECIPES, Recipe, Stage},
    report::write_line,
    scene::Scene,
    spread::{Selection, Spread},
    tracer::again::Only,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Recipes to play
    #[command(flatten)]
    choice: Choice,
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
    pub(crate) fn chosen(
        &self,
        rung: &str,
        only: Only<'_>,
    ) -> anyhow::Result<Vec<(&'static Recipe, Family)>> {
        let selection = Selection {
            kind: "recipe",
            names: &self.recipe,
            without: &[],
            only,
        };
        selection.of(RECIPES, |recipe| recipe.name, self.spread, rung)
    }
}

/// Plays the recipes; returns true if everything went as the scripts intend.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut right = true;
    for (recipe, family) in args.choice.chosen("", Only::ALL)? {
        let (mut played, _left) = play(recipe, family);
        if played.scene.skipped.is_none() {
            let unlike = played.unlike_the_table();
            played.scene.wrong.extend(unlike);
        }
        for why in &played.scene.wrong {
            eprintln!("mptcp-lab: {}: {why}", played.case());
        }
        right &= played.scene.wrong.is_empty();
        write_line(&mut std::io::stdout(), &played)?;
    }
    Ok(right)
}

/// A scene that was not played yet.
pub(crate) fn unplayed(name: &str, family: Family) -> Played {
    Played {
        scene: Scene::new(name, family),
        cast: BTreeMap::new(),
        wanted: Vec::new(),
        moved: BTreeMap::new(),
        counters: FALLBACK_COUNTERS.map(str::to_owned).into(),
        seconds: 0.0,
    }
}

/// Plays one recipe. The namespaces live as long as the returned value.
pub(crate) fn play(recipe: &Recipe, family: Family) -> (Played, Option<Cleared>) {
    let start = Instant::now();
    let mut played = unplayed(recipe.name, family);
    let stage = Stage::new(recipe.place, recipe.rules, recipe.sysctls, family);
    let left = match stage {
        Ok(stage) => perform(recipe, stage, &mut played)
            .map_err(|why| played.scene.wrong.push(format!("{why:#}")))
            .ok(),
        Err(why) => {
            played.scene.skipped = Some(format!("{why:#}"));
            None
        }
    };
    played.seconds = start.elapsed().as_secs_f64();
    (played, left)
}

fn perform(recipe: &Recipe, mut stage: Stage, played: &mut Played) -> anyhow::Result<Cleared> {
    played.scene.note((recipe.script)(&mut stage));
    let (cast, connections) = (stage.cast(), stage.connections.clone());
    let left = played.scene.close(stage, recipe.answers)?;
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
                let wanted = Wanted::new(expected, ends, played.scene.namespaces, &cast);
                played.wanted.push(wanted);
            }
            None => played
                .scene
                .wrong
                .push(format!("connection {} was not made", expected.connection)),
        }
    }
    Ok(left)
}

/// Reads the kernel's counters again.
pub(crate) fn recount(played: &mut Played, left: &Cleared) -> anyhow::Result<()> {
    let Namespaces { near, far } = played.scene.namespaces;
    let moved = left.moved()?;
    played.moved = [near, far].into_iter().zip(moved).collect();
    Ok(())
}
