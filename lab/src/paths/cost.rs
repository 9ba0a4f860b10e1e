//! `mptcp-lab path-cost`: what the sensor of paths does for a healthy connection of two paths. None of
//! its programs may run for its packets, and each end may cost few records.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, ensure};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};

use super::joined::{self, Joined};
use crate::{
    account,
    cells::{judged, skipped},
    findings::balanced,
    net::Family,
    netns,
    recipes::{Place, TestBed},
    report::Cell,
    rules::Rules,
    sys,
    traced::{End, TracedLine},
    tracer::{
        TracerArgs, again,
        suite::{Said, Suite},
    },
};

#[cfg(test)]
mod tests;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
}

/// How the names of the sensor's programs begin.
const OF_PATHS: &str = "path_";
/// Bytes in each direction, and how often: others use the host too, so the quietest time counts.
const BULK_BYTES: usize = 4_000_000;
const TIMES: u32 = 3;
/// Packets for each run of the sensor's programs, at least: sockets of others change their state too.
/// A program that ran for each piece of data that the kernel sends at once would run more often.
const PACKETS_A_RUN_MIN: u64 = 200;
/// Healthy connections, and the records that each of their ends may cost.
const CONNECTIONS: u32 = 50;
const RECORDS_A_CONNECTION_MAX: u64 = 6;

/// One transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Transfer {
    /// Segments that both ends sent on both paths.
    packets: u64,
    /// Runs of the sensor's programs meanwhile.
    runs: u64,
    /// Runs of all other programs.
    other_runs: u64,
}

/// Whose lines they are.
struct Own {
    since_ns: u64,
    netns: [u64; 2],
}

struct Played {
    own: Own,
    transfers: Vec<Transfer>,
    _bed: TestBed,
}

/// Runs the suite; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    again::once_on_rungs(&args.tried, |rung| {
        let judge = |played: anyhow::Result<Played>, said: &Said| match played {
            Ok(played) => vec![
                packets(rung, &played.transfers),
                played.own.records(rung, &said.lines),
                balanced(rung, &said.lines),
            ],
            // As for recipes, the kernel may lack required modules.
            Err(why) => vec![skipped("path-cost", rung, format!("{why:#}"))],
        };
        let suite = Suite::new(&args.tried, rung).showing_all();
        suite.run(|_watch| perform(), judge)
    })
}

/// The inner error explains why this kernel cannot run it.
fn perform() -> anyhow::Result<anyhow::Result<Played>> {
    let since_ns = sys::boottime_ns();
    let family = Family::V4;
    let bed = match TestBed::new(Place::TwoPaths, Rules::NONE) {
        Ok(bed) => bed,
        Err(why) => return Ok(Err(why)),
    };
    joined::prepare(bed.near(), bed.far(), family)?;
    let _counting = enable_stats(Stats::RunTime).context("cannot count the runs of programs")?;
    let mut transfers = Vec::new();
    for number in 0..CONNECTIONS {
        let joined = Joined::open(&bed, family)?;
        if number < TIMES {
            transfers.push(transfer(&joined)?);
        }
    }
    Ok(Ok(Played {
        own: Own {
            since_ns,
            netns: [netns::number(bed.near())?, netns::number(bed.far())?],
        },
        transfers,
        _bed: bed,
    }))
}

fn transfer(joined: &Joined) -> anyhow::Result<Transfer> {
    let segments = || -> anyhow::Result<u64> {
        let mut sum = 0;
        for end in [&joined.client, &joined.server] {
            let paths = account::paths(end.as_raw_fd())?;
            ensure!(paths.len() == 2, "not two paths: {paths:?}");
            sum += paths
                .iter()
                .map(|path| u64::from(path.segments_sent))
                .sum::<u64>();
        }
        Ok(sum)
    };
    let before = (segments()?, runs()?);
    joined.exchange(BULK_BYTES)?;
    let after = (segments()?, runs()?);
    let grown = |is_of_paths: bool| {
        let some = after
            .1
            .iter()
            .filter(|(_id, (name, _runs))| name.starts_with(OF_PATHS) == is_of_paths);
        some.map(|(id, (_name, runs))| {
            let earlier = before.1.get(id).map_or(0, |(_name, runs)| *runs);
            runs.saturating_sub(earlier)
        })
        .sum()
    };
    Ok(Transfer {
        packets: after.0 - before.0,
        runs: grown(true),
        other_runs: grown(false),
    })
}

/// Name and number of runs of every program in the kernel, by its id.
fn runs() -> anyhow::Result<BTreeMap<u32, (String, u64)>> {
    let mut all = BTreeMap::new();
    for program in loaded_programs() {
        let program = program.context("cannot list the programs")?;
        // One that has just ended.
        let Ok(fd) = program.fd() else { continue };
        let number = fd.as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))
            .context("cannot read about a program")?;
        let name = program.name_as_str().unwrap_or_default().to_owned();
        all.insert(program.id(), (name, run_count(&info)?));
    }
    Ok(all)
}

fn run_count(info: &str) -> anyhow::Result<u64> {
    let count = info.lines().find_map(|line| line.strip_prefix("run_cnt:"));
    let count = count.context("this kernel does not count the runs of programs")?;
    count
        .trim()
        .parse()
        .context("the number of runs is no number")
}

/// The cell about packets.
fn packets(rung: &str, transfers: &[Transfer]) -> Cell {
    let quietest = transfers.iter().min_by_key(|it| it.runs);
    let mut wrong = Vec::new();
    let Some(Transfer {
        packets,
        runs,
        other_runs,
    }) = quietest.copied()
    else {
        return judged("path-packets", rung, "", "", vec!["no transfer".to_owned()]);
    };
    if runs * PACKETS_A_RUN_MIN > packets {
        wrong.push(format!(
            "its programs ran {runs} times for {packets} packets"
        ));
    }
    // The sensor of fallbacks looks at data.
    if other_runs == 0 {
        wrong.push("runs were not counted".to_owned());
    }
    let caller = format!("{packets} packets on two paths");
    let traced = format!("{runs} runs for paths, {other_runs} others");
    judged("path-packets", rung, &caller, &traced, wrong)
}

impl Own {
    /// The cell about records.
    fn records(&self, rung: &str, lines: &[TracedLine]) -> Cell {
        let at = |line: &TracedLine| match line.closed() {
            Some(closed) => Some((closed.netns, closed.boottime_ns)),
            None => super::judge::line(line).map(|line| (line.path.netns, line.path.boottime_ns)),
        };
        let places: Vec<(u64, u64)> = lines.iter().filter_map(at).collect();
        let is_own =
            |(netns, at_ns): &&(u64, u64)| self.netns.contains(netns) && *at_ns >= self.since_ns;
        let own = places.iter().filter(is_own).count() as u64;
        let ends = 2 * u64::from(CONNECTIONS);
        let most = ends * RECORDS_A_CONNECTION_MAX;
        let mut wrong = Vec::new();
        if !(ends..=most).contains(&own) {
            wrong.push(format!("{own} lines about {ends} ends"));
        }
        let seen = lines
            .iter()
            .filter_map(TracedLine::end)
            .map(seen)
            .sum::<u64>();
        // The records of others count only if there is a line about each.
        let others = places.len() as u64 - own;
        let is_alone = others == 0;
        if is_alone && seen > most {
            wrong.push(format!("{seen} records about {ends} ends"));
        }
        let caller = format!("{ends} ends of healthy connections of two paths");
        let traced = format!("{seen} records, {own} lines, {others} of others");
        judged("path-records", rung, &caller, &traced, wrong)
    }
}

/// The sensor's events.
fn seen(end: &End) -> u64 {
    let of_paths = end.losses.iter().filter(|it| it.sensor == "subflow");
    of_paths.map(|it| it.seen).sum()
}
