//! `mptcp-lab fallbacks`: every recipe with each attach method, compared with the kernel's
//! counters.

use crate::{
    findings::{Played, compare},
    net::Family,
    provoke::{Choice, play, recount},
    recipes::{Cleared, Recipe},
    report::Cell,
    side_by_side,
    tracer::{
        TracerArgs,
        again::{self, Only},
        suite::{Said, Suite},
    },
};

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

/// Runs everything; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    again::on_rungs(&args.tried, |rung, only| {
        let waiting = Waiting::new(&args.choice, rung, only)?;
        let mut suite = Suite::new(&args.tried, rung);
        if args.keep {
            suite = suite.replayed(Some("fallbacks"));
        }
        let judge = |performed: Performed, said: &Said| performed.judge(rung, said);
        suite.run(|_watch| Ok(waiting.play()), judge)
    })
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
        Ok(Self {
            chosen: choice.chosen(rung, only)?,
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
                played.scene.wrong.push(format!("{why:#}"));
            }
        }
        compare(rung, &self.played, &said.lines)
    }
}
