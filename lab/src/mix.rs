//! `mptcp-lab mix`: many simultaneous connections from several clients, half of which fall back for
//! various causes: each fallback must be found once, with its owner and addresses.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::ensure;

use crate::{
    cells::skipped,
    findings::{Played, Wanted, compare},
    net::{
        Family,
        Kind::{Mptcp, Tcp},
    },
    provoke::{recount, unplayed},
    recipes::{
        Cleared, Expected, Place, STRIP_BOTH_AFTER_3, STRIP_SYN_ACK, Stage, TestBed, Who, client,
        server,
    },
    report::Cell,
    rules::Rules,
    side_by_side, sys,
    tracer::{
        TracerArgs, again,
        suite::{Said, Suite},
    },
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
    /// Number of connections
    #[arg(long, default_value_t = 2_000)]
    pub(crate) connections: u32,
    /// Number of simultaneous connections, each with its own client and server
    #[arg(long, default_value_t = 8)]
    pub(crate) parallel: u32,
}

/// A middlebox, and the outcome of the connections through it.
struct Ward {
    name: &'static str,
    rules: Rules,
    rounds: u32,
    /// Expected findings of a connection between two MPTCP sockets.
    expected: &'static [Expected],
}

/// A connection from MPTCP to TCP: every third one in this ward.
const TO_TCP: &[Expected] = &[client(&["MPCapableFallbackSYNACK"])];
const WARDS: [Ward; 3] = [
    Ward {
        name: "mix-clean",
        rules: Rules::NONE,
        rounds: 1,
        expected: &[],
    },
    Ward {
        name: "mix-strip-synack",
        rules: STRIP_SYN_ACK,
        rounds: 1,
        expected: &[
            client(&["MPCapableFallbackSYNACK"]),
            server(&["MPCapableFallbackACK"]),
        ],
    },
    Ward {
        name: "mix-strip-both-after-3",
        rules: STRIP_BOTH_AFTER_3,
        rounds: 5,
        expected: &[client(&["DssFallback"]), server(&["DssFallback"])],
    },
];

/// Of every eight lanes, one uses each of the stripping wards, and the others use the clean one,
/// where every third connection falls back: half of all connections.
fn ward_of(lane: u32) -> usize {
    match lane % 8 {
        3 => 1,
        7 => 2,
        _ => 0,
    }
}

/// Runs the mix; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    ensure!(args.parallel > 0, "nothing to do");
    again::on_rungs(&args.tried, |rung, _all| {
        again::or_once_more(|| {
            let judge = |all: Done, said: &Said| judged(rung, all, said);
            Suite::new(&args.tried, rung).run(|_watch| perform(args), judge)
        })
    })
}

fn judged(rung: &str, all: Done, said: &Said) -> Vec<Cell> {
    let (mut played, left): (Vec<Played>, Vec<Vec<Cleared>>) = match all {
        Ok(all) => all,
        // As for recipes, the kernel may lack required modules.
        Err(why) => return vec![skipped("mix", rung, format!("{why:#}"))],
    };
    for (played, left) in played.iter_mut().zip(&left) {
        // A ward's connections share their namespaces, and the first reading precedes them all.
        let recounted = left.first().map(|left| recount(played, left));
        if let Some(Err(why)) = recounted {
            played.scene.wrong.push(format!("{why:#}"));
        }
    }
    let named = |cell: Cell| Cell {
        case: cell.case.trim_end_matches("-v4").to_owned(),
        ..cell
    };
    let cells = compare(rung, &played, &said.lines).into_iter();
    cells.map(named).collect()
}

/// Results of one lane.
struct Lane {
    cast: BTreeMap<u32, String>,
    wanted: Vec<Wanted>,
    left: Cleared,
}

/// Results and resources to keep; the inner error explains why this kernel cannot run it.
type Done = anyhow::Result<(Vec<Played>, Vec<Vec<Cleared>>)>;

fn perform(args: &Args) -> anyhow::Result<Done> {
    let start = Instant::now();
    let since_ns = sys::boottime_ns();
    let grounds: anyhow::Result<Vec<Arc<TestBed>>> = WARDS
        .iter()
        .map(|ward| TestBed::new(Place::Middlebox, ward.rules).map(Arc::new))
        .collect();
    let grounds = match grounds {
        Ok(grounds) => grounds,
        Err(why) => return Ok(Err(why)),
    };
    // Create all stages before the first connection, so that each starts from counters at rest.
    let stages: Vec<Stage> = (0..args.parallel)
        .map(|lane| Stage::on(Arc::clone(&grounds[ward_of(lane)]), Family::V4))
        .collect::<anyhow::Result<_>>()?;
    let lanes = side_by_side::all((0..).zip(stages), |(lane, stage)| {
        let of_this = (lane..args.connections).step_by(args.parallel as usize);
        let ward = ward_of(lane);
        let done = play_lane(stage, &WARDS[ward], of_this.count() as u32)?;
        Ok((ward, done))
    })?;
    let mut all: Vec<(Played, Vec<Cleared>)> = WARDS
        .iter()
        .map(|ward| (unplayed(ward.name, Family::V4), Vec::new()))
        .collect();
    for (ward, lane) in lanes {
        let (played, left) = &mut all[ward];
        played.scene.namespaces = lane.left.numbers()?;
        played.scene.since_ns = since_ns;
        let names = lane.left.counter_names();
        played.counters.retain(|name| names.contains(name));
        played.cast.extend(lane.cast);
        played.wanted.extend(lane.wanted);
        played.seconds = start.elapsed().as_secs_f64();
        left.push(lane.left);
    }
    // Drop wards without a lane.
    all.retain(|(_played, left)| !left.is_empty());
    Ok(Ok(all.into_iter().unzip()))
}

fn play_lane(mut stage: Stage, ward: &Ward, connections: u32) -> anyhow::Result<Lane> {
    let mut expected = Vec::new();
    for number in 0..connections {
        stage.set_family(Family::BOTH[number as usize / 3 % 2]);
        let is_to_tcp = ward.expected.is_empty() && number % 3 == 2;
        stage.pair(Mptcp, if is_to_tcp { Tcp } else { Mptcp })?;
        stage.talk(Who::Client, Who::Server, ward.rounds)?;
        stage.close_pair()?;
        expected.push(if is_to_tcp { TO_TCP } else { ward.expected });
    }
    let cast = stage.cast();
    let connections = stage.connections.clone();
    let left = stage.clear()?;
    let namespaces = left.numbers()?;
    let wanted = connections
        .iter()
        .zip(expected)
        .flat_map(|(ends, rows)| rows.iter().map(move |row| (ends, row)))
        .map(|(ends, row)| Wanted::new(row, ends, namespaces, &cast))
        .collect();
    Ok(Lane {
        cast: cast
            .iter()
            .map(|(who, pid)| (*pid, who.comm().to_owned()))
            .collect(),
        wanted,
        left,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_connections_fall_back_and_every_ward_has_some() {
        let parallel = 8;
        let each = 250;
        let mut fallen = 0;
        let mut wards = [0; WARDS.len()];
        for lane in 0..parallel {
            let ward = ward_of(lane);
            wards[ward] += 1;
            fallen += match ward {
                0 => (0..each).filter(|number| number % 3 == 2).count(),
                _ => each,
            };
        }
        assert!(wards.iter().all(|&lanes| lanes > 0));
        assert_eq!(fallen, 998);
        let passive = WARDS.iter().flat_map(|ward| ward.expected);
        assert!(
            passive
                .clone()
                .any(|row| row.at == crate::recipes::End::Server)
        );
    }
}
