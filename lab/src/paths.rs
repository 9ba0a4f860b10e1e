//! `mptcp-lab paths`: every recipe of paths with each attach method, compared with the kernel's
//! counters.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};

use crate::{
    findings::balanced,
    net::{Endpoint, Family},
    netns::{Counters, Namespaces},
    recipes::{
        Cleared, End, Place, Stage, Who,
        paths::{Fate, PATH_RECIPES, PathRecipe, Way},
    },
    report::Cell,
    rules::Rules,
    scene::Scene,
    side_by_side,
    spread::{Selection, Spread},
    tracer::{
        TracerArgs,
        again::{self, Only},
        suite::{Said, Suite},
    },
};

pub(crate) mod cost;
mod counts;
pub(crate) mod joined;
mod judge;
pub(crate) mod ledgers;
mod line;
pub(crate) mod managers;
pub(crate) mod many;
#[cfg(test)]
mod tests;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
    /// Recipes to play
    #[command(flatten)]
    choice: Choice,
    /// Also print the capture and the live lines, as a line of the report
    #[arg(long)]
    keep: bool,
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

/// Runs everything; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    again::on_rungs(&args.tried, |rung, only| {
        let waiting = Waiting::new(&args.choice, rung, only)?;
        let mut suite = Suite::new(&args.tried, rung).showing_all();
        if args.keep {
            suite = suite.replayed(Some("paths"));
        }
        let judge = |performed: Performed, said: &Said| performed.judge(rung, said);
        suite.run(|_watch| Ok(waiting.play()), judge)
    })
}

/// How many more recipes of paths than others are played at a time.
const WAITING_MORE: u32 = 3;

/// Recipes ready to be played.
pub(crate) struct Waiting {
    chosen: Vec<(&'static PathRecipe, Family)>,
    at_once: u32,
}

/// Results of the recipes, and resources to keep until the tracer has ended.
pub(crate) struct Performed {
    played: Vec<Played>,
    left: Vec<Option<Cleared>>,
}

/// A recipe that was played, with the kernel's counters.
pub(crate) struct Played {
    scene: Scene,
    recipe: &'static PathRecipe,
    /// Process numbers of the actors.
    owners: BTreeMap<Who, u32>,
    wanted: Vec<Wanted>,
    /// Changes of the kernel's counters at the client's and the server's end.
    moved: [Counters; 2],
    /// The counters of this kernel.
    counters: BTreeSet<String>,
}

/// The life of a path that the tracer must report.
struct Wanted {
    fate: &'static Fate,
    netns: u64,
    /// Port 0 is any.
    local: Endpoint,
    remote: Endpoint,
}

impl Waiting {
    /// Selects the recipes for an attach method.
    pub(crate) fn new(choice: &Choice, rung: &str, only: Only<'_>) -> anyhow::Result<Self> {
        let selection = Selection {
            kind: "recipe",
            names: &choice.recipe,
            without: &[],
            only,
        };
        let mut chosen = selection.of(PATH_RECIPES, |recipe| recipe.name, choice.spread, rung)?;
        chosen.sort_by_key(|(recipe, _family)| !recipe.is_slow);
        Ok(Self {
            chosen,
            // A recipe of paths waits for timers most of the time.
            at_once: choice.spread.at_once.saturating_mul(WAITING_MORE),
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
    /// One cell per recipe, and one for the tracer's loss accounting.
    pub(crate) fn judge(mut self, rung: &str, said: &Said) -> Vec<Cell> {
        for (played, left) in self.played.iter_mut().zip(&self.left) {
            let Some(left) = left else { continue };
            // Connections close after the script has ended.
            match left.moved() {
                Ok(moved) => played.moved = moved,
                Err(why) => played.scene.wrong.push(format!("{why:#}")),
            }
        }
        let cell = |played: &Played| judge::cell(rung, played, &said.lines);
        let mut cells: Vec<Cell> = self.played.iter().map(cell).collect();
        cells.push(balanced(rung, &said.lines));
        cells
    }
}

/// Plays the recipe with this name.
pub(crate) fn play_one(name: &str, family: Family) -> anyhow::Result<()> {
    let recipe = PATH_RECIPES.iter().find(|recipe| recipe.name == name);
    let recipe = recipe.with_context(|| format!("there is no recipe {name}"))?;
    let (played, _left) = play(recipe, family);
    let scene = &played.scene;
    ensure!(
        scene.wrong.is_empty() && scene.skipped.is_none(),
        "{name} cannot be played: {:?} {:?}",
        scene.wrong,
        scene.skipped
    );
    Ok(())
}

/// Plays one recipe. The namespaces live as long as the returned value.
fn play(recipe: &'static PathRecipe, family: Family) -> (Played, Option<Cleared>) {
    let mut played = Played {
        scene: Scene::new(recipe.name, family),
        recipe,
        owners: BTreeMap::new(),
        wanted: Vec::new(),
        moved: [Counters::new(), Counters::new()],
        counters: BTreeSet::new(),
    };
    let left = match Stage::new(Place::TwoPaths, Rules::NONE, &[], family) {
        Ok(stage) => perform(stage, &mut played)
            .map_err(|why| played.scene.wrong.push(format!("{why:#}")))
            .ok(),
        Err(why) => {
            played.scene.skipped = Some(format!("{why:#}"));
            None
        }
    };
    (played, left)
}

fn perform(mut stage: Stage, played: &mut Played) -> anyhow::Result<Cleared> {
    let recipe = played.recipe;
    stage.set_rules(1, recipe.rules)?;
    played.scene.note((recipe.script)(&mut stage));
    let ways: Vec<(Endpoint, Endpoint)> = match stage.connections.is_empty() {
        true => Vec::new(),
        false => {
            let of = |fate: &Fate| stage.way(0, fate.way);
            recipe.fates.iter().map(of).collect::<anyhow::Result<_>>()?
        }
    };
    let cast = stage.cast();
    let left = played.scene.close(stage, &[])?;
    let Namespaces { near, far } = played.scene.namespaces;
    played.counters = left.counter_names().into_iter().collect();
    played.owners = cast.into_iter().collect();
    for (fate, (client, server)) in recipe.fates.iter().zip(ways) {
        let is_here = |counter: &str| played.counters.contains(counter);
        if !fate.since.is_none_or(is_here) {
            continue;
        }
        let (netns, local, remote) = match fate.at {
            End::Client => (near, client, server),
            End::Server => (far, server, client),
        };
        played.wanted.push(Wanted {
            fate,
            netns,
            local,
            remote,
        });
    }
    Ok(left)
}

impl Played {
    fn case(&self) -> String {
        self.scene.case()
    }

    /// Number of the end in this network namespace.
    fn end(&self, netns: u64) -> Option<End> {
        match netns {
            _ if netns == self.scene.namespaces.near => Some(End::Client),
            _ if netns == self.scene.namespaces.far => Some(End::Server),
            _ => None,
        }
    }

    /// Whether this process holds the connections of an end.
    fn owns(&self, at: End, pid: u32) -> bool {
        let who = match at {
            End::Client => Who::Client,
            End::Server => Who::Server,
        };
        self.owners.get(&who) == Some(&pid)
    }

    /// Growth of a counter at an end.
    fn count(&self, at: End, name: &str) -> u64 {
        let moved = match at {
            End::Client => &self.moved[0],
            End::Server => &self.moved[1],
        };
        moved.get(name).copied().unwrap_or(0)
    }
}

/// Word for an end in messages.
fn end_word(at: End) -> &'static str {
    match at {
        End::Client => "client",
        End::Server => "server",
    }
}

/// Word for a path in messages.
fn way_word(way: Way) -> &'static str {
    match way {
        Way::First => "first",
        Way::Second => "second",
        Way::Third => "third",
        Way::Foreign => "foreign",
        Way::Announced(_) => "announced",
    }
}
