//! `mptcp-lab verdicts`: applications that query at every stage of a connection, or never, and the
//! tracer's verdicts on each answer and each connection.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    compare::mismatch,
    fallbacks::{Only, no_mptcp, on_rungs, under_tracer_as_said},
    findings::{Namespaces, balanced},
    keep::Capture,
    net::{self, Family, Kind},
    netns,
    played::Played,
    provoke::is_answer,
    question::{Api, ask},
    recipes::{Cleared, NotHere, Place, Stage, Sysctl, TestBed},
    report::Cell,
    side_by_side,
    spread::Spread,
    stopwatch::Stopwatch,
    sys,
    traced::is_known,
    tracer::{Said, TracerArgs},
};

mod judge;
mod scenarios;

use judge::{Acted, Other, judge};
use scenarios::{Need, Programs, SCENARIOS, Scenario};

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
    /// The program in Go (lab/go)
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
}

/// Runs everything; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    for name in args.scenario.iter().chain(&args.without) {
        ensure!(
            names().contains(&name.as_str()),
            "there is no scenario {name}; the scenarios are {}",
            names().join(", ")
        );
    }
    on_rungs(&args.tried, |rung, only| one_rung(args, rung, only))
}

/// Names of all scenarios.
pub(crate) fn names() -> Vec<&'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name).collect()
}

/// Plays the scenario of that name, if it exists, without any checks.
pub(crate) fn play(name: &str, family: Family) -> Option<Played> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name)?;
    let programs = Programs { go: None };
    let (acted, _left) = Play::new(scenario, family, programs).act(programs);
    Some(Played {
        answers: acted.answers,
        counted: Vec::new(),
        wrong: acted.wrong,
        skipped: acted.skipped,
    })
}

impl Args {
    fn wants(&self, scenario: &Scenario) -> bool {
        let is_among = |names: &[String]| names.iter().any(|name| name == scenario.name);
        (self.scenario.is_empty() || is_among(&self.scenario)) && !is_among(&self.without)
    }
}

fn one_rung(args: &Args, rung: &str, only: Only<'_>) -> anyhow::Result<Vec<Cell>> {
    let capture = Capture::new();
    let mut more = args.tried.tracer_arg.clone();
    more.extend(capture.arguments()?);
    let waiting = Waiting::new(args, rung, only)?;
    let judge = |performed: Performed, said: &Said| {
        let mut cells = performed.judge(rung, said);
        cells.push(capture.replayed(&args.tried.tracer, rung, &said.text));
        if args.keep
            && let Err(why) = capture.keep("verdicts", rung, said)
        {
            cells.push(mismatch("keep", rung, "kept", "not", format!("{why:#}")));
        }
        cells
    };
    let perform = |_watch: &mut Stopwatch| Ok(waiting.play());
    under_tracer_as_said(&args.tried.tracer, rung, &more, perform, judge)
}

/// Scenarios ready to be played; the preparation before the tracer's start is done.
pub(crate) struct Waiting<'a> {
    plays: Vec<Play>,
    programs: Programs<'a>,
    at_once: u32,
    has_option: bool,
}

/// Results of the scenarios. Their namespaces live as long as this value.
pub(crate) struct Performed {
    acted: Vec<Acted>,
    _left: Vec<Option<Cleared>>,
    has_option: bool,
}

impl<'a> Waiting<'a> {
    /// Selects the scenarios for an attach method.
    pub(crate) fn new(args: &'a Args, rung: &str, only: Only<'_>) -> anyhow::Result<Self> {
        let is_possible = no_mptcp().is_none();
        let has_option = is_possible && has_option()?;
        let programs = Programs {
            go: args.go.as_deref(),
        };
        let chosen: Vec<(&Scenario, Family)> = SCENARIOS
            .iter()
            .enumerate()
            .filter(|(_, scenario)| is_possible && args.wants(scenario))
            .flat_map(|(number, scenario)| {
                let families = args.spread.families(number, rung);
                families.into_iter().map(move |family| (scenario, family))
            })
            .filter(|(scenario, family)| {
                only.has(&format!("{}-{}", scenario.name, family.suffix()))
            })
            .collect();
        let at_once = args.spread.at_once;
        let plays = side_by_side::each(chosen, at_once, |(scenario, family)| {
            Play::new(scenario, family, programs)
        });
        Ok(Self {
            plays,
            programs,
            at_once,
            has_option,
        })
    }

    /// Plays the scenarios.
    pub(crate) fn play(self) -> Performed {
        let programs = self.programs;
        let (acted, left) = side_by_side::each(self.plays, self.at_once, |play| play.act(programs))
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
    use std::os::fd::AsRawFd as _;
    let socket = net::open(Kind::Mptcp, Family::V4).context("cannot open a socket")?;
    Ok(ask(socket.as_raw_fd(), Api::TcpIsMptcp)? == "1")
}

/// A scenario ready to be played.
struct Play {
    scenario: &'static Scenario,
    acted: Acted,
    /// Environment in which the preparation before the tracer's start was done.
    stage: Option<Stage>,
}

impl Play {
    /// Prepares the scenario before the tracer's start.
    fn new(scenario: &'static Scenario, family: Family, programs: Programs<'_>) -> Self {
        let mut play = Self {
            scenario,
            acted: Acted {
                name: scenario.name.to_owned(),
                family,
                namespaces: Namespaces { near: 0, far: 0 },
                since_ns: 0,
                cast: Vec::new(),
                connections: Vec::new(),
                expected: scenario.expected.to_vec(),
                tried: Vec::new(),
                off_ms: scenario.off_ms,
                answers: Default::default(),
                wrong: Vec::new(),
                skipped: scenario
                    .needs
                    .iter()
                    .find_map(|need| missing(*need, programs)),
            },
            stage: None,
        };
        if let (Some(before), None) = (scenario.before, &play.acted.skipped)
            && let Some(mut stage) = play.set_up()
        {
            let done = before(&mut stage, programs);
            play.note(done);
            play.stage = Some(stage);
        }
        play
    }

    fn set_up(&mut self) -> Option<Stage> {
        self.acted.since_ns = sys::boottime_ns();
        let made = stage(self.scenario, self.acted.family);
        made.map_err(|why| self.acted.skipped = Some(format!("{why:#}")))
            .ok()
    }

    fn note(&mut self, done: anyhow::Result<()>) {
        if let Err(why) = done {
            match why.downcast_ref::<NotHere>() {
                Some(not_here) => self.acted.skipped = Some(not_here.to_string()),
                None => self.acted.wrong.push(format!("{why:#}")),
            }
        }
    }

    /// Plays the scenario. The namespaces live as long as the returned value.
    fn act(mut self, programs: Programs<'_>) -> (Acted, Option<Cleared>) {
        if self.acted.skipped.is_some() {
            return (self.acted, None);
        }
        let Some(mut stage) = self.stage.take().or_else(|| self.set_up()) else {
            return (self.acted, None);
        };
        if self.acted.wrong.is_empty() {
            let done = (self.scenario.script)(&mut stage, programs);
            self.note(done);
        }
        let mut acted = self.acted;
        acted.cast = stage.cast();
        acted.connections = stage.connections.clone();
        acted.answers = stage.answers.iter().cloned().collect();
        acted.tried = stage.tried.clone();
        if acted.skipped.is_none() {
            for (name, right) in self.scenario.answers {
                let told = acted.answers.get(*name).map(String::as_str);
                if !is_answer(right, told) {
                    let what = format!("{name}: the kernel says {told:?}, not {right}");
                    acted.wrong.push(what);
                }
            }
        }
        let left = stage.clear().and_then(|left| {
            acted.namespaces = left.numbers()?;
            Ok(left)
        });
        match left {
            Ok(left) => (acted, Some(left)),
            Err(why) => {
                acted.wrong.push(format!("{why:#}"));
                (acted, None)
            }
        }
    }
}

fn missing(need: Need, programs: Programs<'_>) -> Option<String> {
    let why = match need {
        Need::Python if !is_in_path("python3") => "there is no python3 here",
        Need::Go if programs.go.is_none() => {
            "there is no program in Go: --go names one, which cargo xtask test builds"
        }
        Need::Python | Need::Go => return None,
    };
    Some(why.to_owned())
}

fn is_in_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).exists())
    })
}

fn stage(scenario: &Scenario, family: Family) -> anyhow::Result<Stage> {
    let bed = TestBed::new(Place::Middlebox, scenario.rules)?;
    for namespace in [bed.near(), bed.far()] {
        for Sysctl { name, value, must } in scenario.sysctls {
            let is_there = netns::set_sysctl(namespace, name, value)?;
            ensure!(is_there || !must, "this kernel has no {name}");
        }
    }
    Stage::on(Arc::new(bed), family)
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
