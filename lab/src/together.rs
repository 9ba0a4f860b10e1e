//! `mptcp-lab together`: queries, recipes and scenarios under one start of the tracer on each rung. A start takes seconds in
//! an emulated machine, and more than a minute on kernels that wait for every task to pass by.

use std::{path::PathBuf, thread};

use crate::{
    compare::{mismatch, ok},
    fallbacks::{self, KEPT_BACK, Only, no_mptcp, on_rungs},
    flood,
    keep::Capture,
    matrix,
    provoke::Choice,
    report::{Cell, Outcome, Phase},
    spread::Spread,
    stopwatch::Stopwatch,
    tracer::{Started, Tracer, TracerArgs},
    verdicts,
};

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// The tracer
    #[command(flatten)]
    pub tried: TracerArgs,
    /// Which recipes
    #[command(flatten)]
    pub choice: Choice,
    /// Play the scenarios of `verdicts` too, one after the other: a verdict depends on each query, and where trampolines and
    /// tracepoints can be preempted, a probe misses a query while another thread was preempted inside of it
    #[arg(long)]
    pub verdicts: bool,
    /// The program in Go (lab/go)
    #[arg(long, value_name = "PATH")]
    pub go: Option<PathBuf>,
    /// Also flood each rung, under a tracer of its own
    #[arg(long)]
    pub flood: bool,
    /// Threads of the flood
    #[arg(long, default_value_t = 8)]
    pub threads: u32,
    /// Questions of each of its threads
    #[arg(long, default_value_t = 50_000)]
    pub queries: u32,
}

/// Runs all; true if nothing is wrong.
///
/// # Errors
///
/// Fails if the tracer cannot be run or what it prints cannot be read.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    on_rungs(&args.tried, |rung, only| one_rung(args, rung, only))
}

fn one_rung(args: &Args, rung: &str, only: Only<'_>) -> anyhow::Result<Vec<Cell>> {
    if let Some(why) = no_mptcp() {
        return Ok(vec![Cell {
            outcome: Outcome::Skipped,
            why,
            ..ok("rung", rung, "", "")
        }]);
    }
    let mut watch = Stopwatch::start(rung);
    let scenarios = args.scenarios();
    let scenarios = match &scenarios {
        Some(scenarios) => Some(verdicts::Waiting::new(scenarios, rung, only)?),
        None => None,
    };
    let recipes = fallbacks::Waiting::new(&args.choice, rung, only)?;
    let capture = Capture::new();
    let mut more = args.tried.tracer_arg.clone();
    more.extend(capture.arguments()?);
    let tracer = match Tracer::start(&args.tried.tracer, rung, &more)? {
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
    let scenarios = scenarios.map(verdicts::Waiting::play);
    watch.lap(Phase::Scenarios)?;
    let recipes = recipes.play();
    watch.lap(Phase::Recipes)?;
    // Queries are asked for by no name: what is wrong about one is wrong.
    let asked = match only.is_all() {
        true => Some(matrix::ask_all(args.choice.spread.family)?),
        false => None,
    };
    watch.lap(Phase::Queries)?;
    thread::sleep(KEPT_BACK);
    let said = tracer.finish()?;
    watch.lap(Phase::End)?;
    let mut cells = of("fallbacks", recipes.judge(rung, &said));
    if let Some(scenarios) = scenarios {
        cells.extend(of("verdicts", scenarios.judge(rung, &said)));
    }
    if let Some(asked) = &asked {
        let judged = matrix::judge_all(rung, asked, &said.lines)?;
        cells.extend(of("queries", judged));
    }
    let replayed = capture.replayed(&args.tried.tracer, rung, &said.text);
    cells.extend(of("verdicts", vec![replayed]));
    if let Some(why) = said.broken {
        cells.push(mismatch("run", rung, "exit 0", "otherwise", why));
    }
    watch.lap(Phase::Judge)?;
    if args.flood && only.is_all() {
        cells.extend(of("queries", vec![args.flood_on(rung)?]));
    }
    Ok(cells)
}

/// Cells that say which suite they are of.
fn of(suite: &str, mut cells: Vec<Cell>) -> Vec<Cell> {
    for cell in &mut cells {
        cell.suite = Some(suite.to_owned());
    }
    cells
}

impl Args {
    /// The arguments that `verdicts` would have, if it is wanted.
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
            middlebox: self.choice.middlebox,
            go: self.go.clone(),
        })
    }

    fn flood_on(&self, rung: &str) -> anyhow::Result<Cell> {
        let flooded = flood::flood(&flood::Args {
            tracer: self.tried.tracer.clone(),
            attach: rung.to_owned(),
            threads: self.threads,
            queries: self.queries,
            tracer_arg: self.tried.tracer_arg.clone(),
        })?;
        Ok(Cell {
            outcome: flooded.outcome,
            why: flooded.why,
            ..ok("flood", rung, &flooded.caller, &flooded.traced)
        })
    }
}
