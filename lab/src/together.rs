//! `mptcp-lab together`: queries, recipes, those of paths, and scenarios under a single start of the
//! tracer for each attach method. A start takes seconds on an emulated machine, and more than a
//! minute on kernels that wait for a grace period of every task.

use std::path::PathBuf;

use crate::{
    cells::ok,
    fallbacks, flood, matrix, paths,
    provoke::Choice,
    report::{AskerLine, Cell, Outcome, Phase},
    spread::Spread,
    stopwatch::Stopwatch,
    tracer::{
        TracerArgs,
        again::{self, Only},
        suite::{Said, Suite, no_mptcp},
    },
    verdicts,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    pub(crate) tried: TracerArgs,
    /// Recipes to play
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Also play the scenarios of `verdicts`, one at a time: a verdict depends on every query, and
    /// where trampolines and tracepoints are preemptible, a probe misses a query while another
    /// thread is preempted inside it
    #[arg(long)]
    pub(crate) verdicts: bool,
    /// Also play the recipes of `paths`
    #[arg(long)]
    pub(crate) paths: bool,
    /// Only this recipe of `paths` (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) path: Vec<String>,
    /// The program in Go (lab/go); a 32-bit one may be beside it, at PATH-32
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
    /// Also run a flood with each attach method, under a separate tracer
    #[arg(long)]
    pub(crate) flood: bool,
    /// Size of the flood
    #[command(flatten)]
    pub(crate) size: flood::Size,
}

/// Runs everything; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    again::on_rungs(&args.tried, |rung, only| one_rung(args, rung, only))
}

fn one_rung(args: &Args, rung: &str, only: Only<'_>) -> anyhow::Result<Vec<Cell>> {
    let scenarios = args.scenarios();
    let scenarios = match &scenarios {
        Some(scenarios) => Some(verdicts::Waiting::new(scenarios, rung, only)?),
        None => None,
    };
    let recipes = fallbacks::Waiting::new(&args.choice, rung, only)?;
    let paths = match args.paths {
        true => Some(paths::Waiting::new(&args.path_choice(), rung, only)?),
        false => None,
    };
    let perform = |watch: &mut Stopwatch| {
        let scenarios = scenarios.map(verdicts::Waiting::play);
        watch.lap(Phase::Scenarios)?;
        let recipes = recipes.play();
        watch.lap(Phase::Recipes)?;
        let paths = paths.map(paths::Waiting::play);
        watch.lap(Phase::Paths)?;
        // Queries cannot be selected by name: a wrong one gets no second try.
        let asked = match only.is_all() {
            true => Some(matrix::ask_all(args.choice.spread.family)?),
            false => None,
        };
        watch.lap(Phase::Queries)?;
        Ok((scenarios, recipes, paths, asked))
    };
    let judge = |(scenarios, recipes, paths, asked): Performed, said: &Said| {
        let mut cells = of("fallbacks", recipes.judge(rung, said));
        if let Some(paths) = paths {
            cells.extend(of("paths", paths.judge(rung, said)));
        }
        if let Some(scenarios) = scenarios {
            cells.extend(of("verdicts", scenarios.judge(rung, said)));
        }
        if let Some(asked) = &asked {
            cells.extend(of("queries", matrix::judge_all(rung, asked, &said.lines)));
        }
        cells
    };
    let suite = Suite::new(&args.tried, rung).replayed(None);
    let suite = match args.paths {
        true => suite.showing_all(),
        false => suite,
    };
    let mut cells = suite.run(perform, judge)?;
    // The replay prints mostly verdicts.
    for cell in cells.iter_mut().filter(|cell| cell.case == "replay") {
        cell.suite = Some("verdicts".to_owned());
    }
    let is_there = |cell: &Cell| cell.outcome != Outcome::Unavailable;
    if args.flood && only.is_all() && no_mptcp().is_none() && cells.iter().all(is_there) {
        let flooded = flood::flood(&args.tried, rung, args.size)?;
        let flooded = Cell {
            outcome: flooded.outcome,
            why: flooded.why,
            ..ok("flood", rung, &flooded.caller, &flooded.traced)
        };
        cells.extend(of("queries", vec![flooded]));
    }
    Ok(cells)
}

/// Results: scenarios, recipes, those of paths, and queries.
type Performed = (
    Option<verdicts::Performed>,
    fallbacks::Performed,
    Option<paths::Performed>,
    Option<Vec<AskerLine>>,
);

/// Marks cells with their suite.
fn of(suite: &str, mut cells: Vec<Cell>) -> Vec<Cell> {
    for cell in &mut cells {
        cell.suite = Some(suite.to_owned());
    }
    cells
}

impl Args {
    /// The recipes of `paths`.
    fn path_choice(&self) -> paths::Choice {
        paths::Choice {
            recipe: self.path.clone(),
            spread: self.choice.spread,
        }
    }

    /// The arguments for `verdicts`, if selected.
    fn scenarios(&self) -> Option<verdicts::Args> {
        self.verdicts.then(|| verdicts::Args {
            tried: self.tried.clone(),
            scenario: Vec::new(),
            without: Vec::new(),
            spread: Spread {
                at_once: 1,
                ..self.choice.spread
            },
            keep: false,
            go: self.go.clone(),
        })
    }
}
