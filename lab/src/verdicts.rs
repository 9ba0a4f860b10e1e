//! `mptcp-lab verdicts`: applications that query at every stage of a connection, or never, and the
//! tracer's verdicts on each answer and each connection.

use std::{
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::Value;

use crate::{
    findings::balanced,
    net::{self, Family, Kind},
    process::is_in_path,
    query::{Api, ask},
    recipes::{Cleared, Stage},
    report::Cell,
    scene::Scene,
    side_by_side,
    spread::{Selection, Spread},
    sys,
    traced::is_known,
    tracer::{
        TracerArgs,
        again::{self, Only},
        suite::{Said, Suite, no_mptcp},
    },
};

mod judge;
mod scenarios;
mod scripts;

use judge::{Acted, Other, judge};
use scenarios::{Need, SCENARIOS, Scenario};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    pub(crate) tried: TracerArgs,
    /// Only this scenario (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) scenario: Vec<String>,
    /// Skip this scenario (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) without: Vec<String>,
    /// Address families and parallelism
    #[command(flatten)]
    pub(crate) spread: Spread,
    /// Also print the capture and the live lines, as a line of the report
    #[arg(long)]
    pub(crate) keep: bool,
    /// The program in Go (lab/go); a 32-bit one may be beside it, at PATH-32
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
}

/// Runs everything; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    again::on_rungs(&args.tried, |rung, only| {
        let waiting = Waiting::new(args, rung, only)?;
        let suite = Suite::new(&args.tried, rung).replayed(args.keep.then_some("verdicts"));
        let judge = |performed: Performed, said: &Said| performed.judge(rung, said);
        suite.run(|_watch| Ok(waiting.play()), judge)
    })
}

/// Names of all scenarios.
pub(crate) fn names() -> Vec<&'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name).collect()
}

/// Plays the scenario of that name, if it exists, without any checks.
pub(crate) fn play(name: &str, family: Family) -> Option<Scene> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name)?;
    let (acted, _left) = Play::new(scenario, family, None).act();
    Some(acted.scene)
}

/// Scenarios ready to be played; the preparation before the tracer's start is done.
pub(crate) struct Waiting {
    plays: Vec<Play>,
    at_once: u32,
    has_option: bool,
}

/// Results of the scenarios. Their namespaces live as long as this value.
pub(crate) struct Performed {
    acted: Vec<Acted>,
    _left: Vec<Option<Cleared>>,
    has_option: bool,
}

impl Waiting {
    /// Selects the scenarios for an attach method.
    pub(crate) fn new(args: &Args, rung: &str, only: Only<'_>) -> anyhow::Result<Self> {
        let is_possible = no_mptcp().is_none();
        let has_option = is_possible && has_option()?;
        let selection = Selection {
            kind: "scenario",
            names: &args.scenario,
            without: &args.without,
            only,
        };
        let name = |scenario: &Scenario| scenario.name;
        let mut chosen = selection.of(SCENARIOS, name, args.spread, rung)?;
        if !is_possible {
            chosen.clear();
        }
        let at_once = args.spread.at_once;
        let plays = side_by_side::each(chosen, at_once, |(scenario, family)| {
            Play::new(scenario, family, args.go.as_deref())
        });
        Ok(Self {
            plays,
            at_once,
            has_option,
        })
    }

    /// Plays the scenarios.
    pub(crate) fn play(self) -> Performed {
        let (acted, left) = side_by_side::each(self.plays, self.at_once, Play::act)
            .into_iter()
            .unzip();
        Performed {
            acted,
            _left: left,
            has_option: self.has_option,
        }
    }
}

impl Performed {
    /// One cell per scenario, and those about the run as a whole.
    pub(crate) fn judge(self, rung: &str, said: &Said) -> Vec<Cell> {
        let others = others(&said.text);
        let mut cells = judge(rung, self.has_option, &self.acted, &said.lines, &others);
        cells.push(balanced(rung, &said.lines));
        cells
    }
}

/// Whether this kernel has `TCP_IS_MPTCP`.
fn has_option() -> anyhow::Result<bool> {
    // A socket of TCP: here net.mptcp.enabled may be 0.
    let socket = net::open(Kind::Tcp, Family::V4).context("cannot open a socket")?;
    Ok(ask(socket.as_raw_fd(), Api::TcpIsMptcp)? == "0")
}

/// A scenario ready to be played.
struct Play {
    scenario: &'static Scenario,
    acted: Acted,
    /// Environment in which the preparation before the tracer's start was done.
    stage: Option<Stage>,
    /// The program in Go.
    go: Option<PathBuf>,
}

impl Play {
    /// Prepares the scenario before the tracer's start.
    fn new(scenario: &'static Scenario, family: Family, go: Option<&Path>) -> Self {
        let mut play = Self {
            scenario,
            acted: Acted::new(scenario, family),
            stage: None,
            go: go.map(Path::to_owned),
        };
        let mut needs = scenario.needs.iter();
        play.acted.scene.skipped = needs.find_map(|need| missing(*need, go));
        if let (Some(before), None) = (scenario.before, &play.acted.scene.skipped)
            && let Some(mut stage) = play.set_up()
        {
            play.acted.scene.note(before(&mut stage));
            play.stage = Some(stage);
        }
        play
    }

    fn set_up(&mut self) -> Option<Stage> {
        let Scenario {
            place,
            rules,
            sysctls,
            ..
        } = self.scenario;
        let scene = &mut self.acted.scene;
        scene.since_ns = sys::boottime_ns();
        let stage = Stage::new(*place, *rules, sysctls, scene.family);
        let stage = stage.map_err(|why| scene.skipped = Some(format!("{why:#}")));
        let mut stage = stage.ok()?;
        stage.go.clone_from(&self.go);
        Some(stage)
    }

    /// Plays the scenario. The namespaces live as long as the returned value.
    fn act(mut self) -> (Acted, Option<Cleared>) {
        if self.acted.scene.skipped.is_some() {
            return (self.acted, None);
        }
        let Some(mut stage) = self.stage.take().or_else(|| self.set_up()) else {
            return (self.acted, None);
        };
        let mut acted = self.acted;
        if acted.scene.wrong.is_empty() {
            let done = (self.scenario.script)(&mut stage);
            acted.scene.note(done);
        }
        acted.cast = stage.cast();
        acted.connections = stage.connections.clone();
        acted.tried = stage.tried.clone();
        let left = acted.scene.close(stage, self.scenario.answers);
        let left = left.map_err(|why| acted.scene.wrong.push(format!("{why:#}")));
        (acted, left.ok())
    }
}

fn missing(need: Need, go: Option<&Path>) -> Option<String> {
    let why = match need {
        Need::Python if !is_in_path("python3") => "there is no python3 here",
        Need::Go if go.is_none() => {
            "there is no program in Go: --go names one, which cargo xtask test builds"
        }
        Need::Go32 if !go.is_some_and(|go| scripts::beside(go).is_file()) => {
            "there is no 32-bit program in Go: cargo xtask test builds one beside that of --go"
        }
        Need::Python | Need::Go | Need::Go32 => return None,
    };
    Some(why.to_owned())
}

/// Lines of types that no other code here parses.
fn others(text: &str) -> Vec<Other> {
    text.lines()
        .filter_map(|line| {
            let value: Value = serde_json::from_str(line).ok()?;
            let kind = value.get("type")?.as_str()?;
            let netns = value.get("data")?.get("netns")?.as_u64()?;
            (!is_known(kind)).then(|| Other {
                kind: kind.to_owned(),
                netns,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_other_types_are_counted_here() {
        let text = "{\"type\":\"query\",\"data\":{\"netns\":1}}\n\
                    {\"type\":\"news\",\"data\":{\"netns\":2}}\n\
                    {\"type\":\"news\",\"data\":{}}\nbroken\n";
        let expected = [Other {
            kind: "news".to_owned(),
            netns: 2,
        }];
        assert_eq!(others(text), expected);
    }
}
