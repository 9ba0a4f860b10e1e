//! `mptcp-lab path-managers`: path managers in userspace with and without the tracer. To the kernel it
//! makes a difference whether somebody listens to its events, so the tracer must not: connections
//! must have the same paths, counters and events.

use std::{os::fd::AsRawFd as _, time::Duration};

use anyhow::{Context as _, ensure};

use super::joined::{self, Joined, PATIENCE};
use crate::{
    account,
    cells::{judged, skipped},
    net::{Endpoint, Family},
    netns::{self, Counters},
    path_manager::{
        self, Flags,
        userspace::{self, Listener, event},
    },
    recipes::{Place, TestBed},
    report::Cell,
    rules::Rules,
    tracer::{TracerArgs, again, suite::Suite},
    veth::{SECOND_DEVICE, SECOND_V4},
};

#[cfg(test)]
mod tests;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
}

/// Nothing happens any more.
const QUIET: Duration = Duration::from_millis(400);
const FAMILY: Family = Family::V4;
/// Id of the address that the client's path manager uses.
const ID: u8 = 7;
/// Bytes in each direction while there are two paths.
const BYTES: usize = 50_000;
/// How the names of the counters about paths begin; others depend on timing.
const COUNTED: [&str; 7] = [
    "MPCapable",
    "MPJoin",
    "MPRst",
    "MPPrio",
    "AddAddr",
    "EchoAdd",
    "Rm",
];

/// One behaviour of a path manager in userspace.
struct Scenario {
    name: &'static str,
    act: fn(&TestBed) -> anyhow::Result<Seen>,
    /// Number of joins that the client has at most.
    joins: usize,
}

const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "nobody-listens",
        act: nobody_listens,
        joins: 0,
    },
    Scenario {
        name: "somebody-listens",
        act: somebody_listens,
        joins: 1,
    },
    Scenario {
        name: "client-manages",
        act: client_manages,
        joins: 1,
    },
];

/// What a connection came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Seen {
    joins: usize,
    /// Kinds of events that the listener got, in order.
    events: Vec<u8>,
    /// Growth of the counters at the client's and the server's end.
    counted: [Counters; 2],
}

type All = Vec<(&'static Scenario, Result<Seen, Failure>)>;

/// Why a scenario has no outcome.
#[derive(Debug)]
enum Failure {
    /// This kernel cannot have the namespaces, or has no path manager in userspace.
    Impossible(String),
    Failed(String),
}

/// Runs the suite; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    again::on_rungs(&args.tried, |rung, _all| {
        let alone = play_all();
        let judge = |traced: All, _said: &_| {
            let pairs = alone.into_iter().zip(traced);
            pairs
                .map(|((scenario, alone), (_same, traced))| cell(rung, scenario, alone, traced))
                .collect()
        };
        Suite::new(&args.tried, rung).run(|_watch| Ok(play_all()), judge)
    })
}

fn play_all() -> All {
    let each = SCENARIOS.iter();
    each.map(|scenario| (scenario, play(scenario))).collect()
}

fn play(scenario: &Scenario) -> Result<Seen, Failure> {
    let impossible = |why: anyhow::Error| Failure::Impossible(format!("{why:#}"));
    let bed = TestBed::new(Place::TwoPaths, Rules::NONE).map_err(impossible)?;
    let managed = match scenario.name {
        "client-manages" => bed.near(),
        _ => bed.far(),
    };
    joined::prepare(bed.near(), bed.far(), FAMILY).map_err(impossible)?;
    userspace::enable(managed).map_err(impossible)?;
    let act = || {
        let before = [netns::counters(bed.near())?, netns::counters(bed.far())?];
        let mut seen = (scenario.act)(&bed)?;
        let after = [netns::counters(bed.near())?, netns::counters(bed.far())?];
        for (counted, (before, after)) in seen.counted.iter_mut().zip(before.iter().zip(&after)) {
            *counted = netns::moved(before, after);
            counted.retain(|name, _count| COUNTED.iter().any(|it| name.starts_with(it)));
        }
        Ok(seen)
    };
    act().map_err(|why: anyhow::Error| Failure::Failed(format!("{why:#}")))
}

/// The kernel refuses every join of the peer.
fn nobody_listens(bed: &TestBed) -> anyhow::Result<Seen> {
    let before = joins_seen(bed)?;
    let joined = Joined::connect(bed, FAMILY)?;
    let has_come = PATIENCE.holds(|| Ok(joins_seen(bed)? > before))?;
    ensure!(has_come, "the client does not try to join");
    std::thread::sleep(QUIET);
    let joins = joins(&joined)?;
    drop(joined);
    std::thread::sleep(QUIET);
    Ok(Seen {
        joins,
        ..Seen::default()
    })
}

fn joins_seen(bed: &TestBed) -> anyhow::Result<u64> {
    let counters = netns::counters(bed.far())?;
    Ok(counters.get("MPJoinSynRx").copied().unwrap_or(0))
}

/// The kernel accepts joins of the peer.
fn somebody_listens(bed: &TestBed) -> anyhow::Result<Seen> {
    let listener = Listener::new(bed.far())?;
    let joined = Joined::open(bed, FAMILY)?;
    joined.exchange(BYTES)?;
    let joins = joins(&joined)?;
    drop(joined);
    Ok(Seen {
        joins,
        events: drained(&listener)?,
        ..Seen::default()
    })
}

/// The client opens and closes a path itself.
fn client_manages(bed: &TestBed) -> anyhow::Result<Seen> {
    let near = bed.near();
    let listener = Listener::new(near)?;
    let joined = Joined::connect(bed, FAMILY)?;
    let mut events = Vec::new();
    let token = loop {
        let next = listener.next(PATIENCE.limit)?;
        let next = next.context("the kernel does not report the connection")?;
        events.push(next.kind);
        if next.kind == event::ESTABLISHED {
            break next.token.context("an event without a token")?;
        }
    };
    let own = path_manager::Endpoint {
        address: SECOND_V4[0].into(),
        port: None,
        device: Some(SECOND_DEVICE),
        flags: Flags::SUBFLOW,
    };
    let server = joined.client.peer_addr()?.as_socket();
    let server = server.context("the connection has no address")?;
    userspace::create(near, token, (ID, own), server)?;
    ensure!(has_joins(&joined, 1)?, "the second path does not come up");
    joined.exchange(BYTES)?;
    let joins = joins(&joined)?;
    let paths = account::addresses(joined.client.as_raw_fd())?;
    let second = paths
        .iter()
        .find(|(local, _)| local.addr == SECOND_V4[0].to_string());
    let (local, remote) = second.context("the second path is not listed")?;
    let address = |of: &Endpoint| -> anyhow::Result<_> {
        Ok((of.addr.parse::<std::net::IpAddr>()?, of.port).into())
    };
    userspace::destroy(near, token, address(local)?, address(remote)?)?;
    ensure!(has_joins(&joined, 0)?, "the second path does not end");
    drop(joined);
    events.extend(drained(&listener)?);
    Ok(Seen {
        joins,
        events,
        ..Seen::default()
    })
}

/// Number of the client's paths beside the first one.
fn joins(joined: &Joined) -> anyhow::Result<usize> {
    let paths = account::paths(joined.client.as_raw_fd())?;
    paths.len().checked_sub(1).context("no path")
}

/// Waits until the client has this number of paths beside the first one.
fn has_joins(joined: &Joined, number: usize) -> anyhow::Result<bool> {
    PATIENCE.holds(|| Ok(joins(joined)? == number))
}

/// The kinds of the events until the connection has ended.
fn drained(listener: &Listener) -> anyhow::Result<Vec<u8>> {
    let mut events = Vec::new();
    while !events.contains(&event::CLOSED) {
        let next = listener.next(PATIENCE.limit)?;
        events.push(next.context("the kernel does not report the end")?.kind);
    }
    while let Some(next) = listener.next(QUIET)? {
        events.push(next.kind);
    }
    Ok(events)
}

fn cell(
    rung: &str,
    scenario: &Scenario,
    alone: Result<Seen, Failure>,
    traced: Result<Seen, Failure>,
) -> Cell {
    let case = scenario.name;
    let (alone, traced) = match (alone, traced) {
        (Ok(alone), Ok(traced)) => (alone, traced),
        (Err(Failure::Impossible(why)), _) | (_, Err(Failure::Impossible(why))) => {
            return skipped(case, rung, why);
        }
        (Err(Failure::Failed(why)), _) => {
            let why = format!("without the tracer: {why}");
            return judged(case, rung, "", "", vec![why]);
        }
        (_, Err(Failure::Failed(why))) => {
            let why = format!("with the tracer: {why}");
            return judged(case, rung, "", "", vec![why]);
        }
    };
    let mut wrong = Vec::new();
    if alone.joins != scenario.joins {
        let joins = alone.joins;
        wrong.push(format!("without the tracer the kernel made {joins} joins"));
    }
    if alone != traced {
        wrong.push(format!("without the tracer {alone:?}, with it {traced:?}"));
    }
    let said = |seen: &Seen| format!("{} joins, events {:?}", seen.joins, seen.events);
    judged(case, rung, &said(&alone), &said(&traced), wrong)
}
