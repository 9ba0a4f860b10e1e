//! Actors that open connections, query them, and make them fall back, in network namespaces that
//! come and go.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::actions::{ActionLog, Churn};
use crate::{
    load,
    net::{
        self, Family,
        Kind::{self, Mptcp, Tcp},
    },
    netns::{self, Counters},
    process::{lines_of, own},
    provoke,
    query::{Api, ask},
    recipes::{Finding, Place, RECIPES, STRIP_BOTH_AFTER_3, STRIP_SYN_ACK, Stage, TestBed, Who},
    rules::Rules,
    veth::SERVER_V4,
};

/// Connections through one middlebox before a new one replaces it.
const OF_A_GROUND: u32 = 20;
/// Interval of the namespaces with one connection each.
const NAMESPACE_EVERY: Duration = Duration::from_millis(250);
/// Interval of the kills.
const KILL_EVERY: Duration = Duration::from_millis(500);
/// Pause until packets of a killed process have arrived.
const AFTER_KILL: Duration = Duration::from_millis(60);
/// Duration of a flood, and the pause after it.
const FLOOD_S: u32 = 2;
const FLOOD_EVERY: Duration = Duration::from_secs(10);
/// Number of querying threads in a flood.
const FLOOD_THREADS: u32 = 2;

/// One kind of connection.
struct Ward {
    rules: Rules,
    client: Kind,
    listener: Kind,
    rounds: u32,
}

const fn ward(rules: Rules, client: Kind, listener: Kind, rounds: u32) -> Ward {
    Ward {
        rules,
        client,
        listener,
        rounds,
    }
}

const WARDS: [Ward; 5] = [
    ward(Rules::NONE, Mptcp, Mptcp, 2),
    ward(Rules::NONE, Mptcp, Tcp, 1),
    ward(STRIP_SYN_ACK, Mptcp, Mptcp, 1),
    ward(STRIP_BOTH_AFTER_3, Mptcp, Mptcp, 5),
    ward(Rules::NONE, Tcp, Mptcp, 1),
];

/// Plays every recipe in turn, repeatedly.
pub(super) fn recipes(churn: &Churn) {
    let all = RECIPES
        .iter()
        .flat_map(|recipe| Family::BOTH.map(|family| (recipe, family)));
    for (recipe, family) in all.cycle() {
        if churn.is_over() {
            return;
        }
        let (mut played, left) = provoke::play(recipe, family);
        let counted = match &left {
            Some(left) => provoke::recount(&mut played, left),
            None if played.scene.skipped.is_some() => Ok(()),
            None => Err(anyhow::anyhow!("{:?}", played.scene.wrong)),
        };
        churn.note(recipe.name, counted);
        let mut actions = churn.actions();
        actions.recipes += 1;
        actions.namespaces += match recipe.place {
            Place::Loopback => 1,
            Place::Middlebox | Place::TwoPaths => 2,
        };
        actions.unlike += u64::from(!played.scene.wrong.is_empty());
        actions.asked += played.scene.answers.len() as u64;
        for moved in played.moved.values() {
            actions.add_counted(moved);
        }
        let is_plain = |wanted: &&crate::findings::Wanted| wanted.finding == Finding::Plain;
        actions.plain += played.wanted.iter().filter(is_plain).count() as u64;
        actions.connections += played.wanted.len() as u64;
    }
}

/// Opens many connections through one middlebox after another.
pub(super) fn lanes(churn: &Churn) {
    for ward in WARDS.iter().cycle() {
        if churn.is_over() {
            return;
        }
        let done = on_ground(churn, ward, |stage| {
            for number in 0..OF_A_GROUND {
                stage.set_family(Family::BOTH[number as usize % 2]);
                stage.pair(ward.client, ward.listener)?;
                stage.ask_both("early")?;
                stage.talk(Who::Client, Who::Server, ward.rounds)?;
                stage.ask_both("late")?;
                stage.close_pair()?;
            }
            Ok(())
        });
        churn.note("connections", done);
    }
}

/// Kills a process in the middle of a connection, client and server alternately.
pub(super) fn killed(churn: &Churn) {
    let pairs = WARDS.iter().flat_map(|ward| [(ward, 0), (ward, 1)]);
    for (ward, end) in pairs.cycle() {
        if churn.rest(KILL_EVERY) {
            return;
        }
        let done = on_ground(churn, ward, |stage| {
            stage.pair(ward.client, ward.listener)?;
            stage.talk(Who::Client, Who::Server, ward.rounds)?;
            stage.ask_both("late")?;
            let victim = [Who::Client, Who::Server][end];
            let pid = stage.cast().into_iter().find(|(who, _)| *who == victim);
            let (_, pid) = pid.context("no actor to kill")?;
            let pid = Pid::from_raw(pid.cast_signed()).context("no such process")?;
            kill_process(pid, Signal::KILL).context("cannot kill an actor")?;
            std::thread::sleep(AFTER_KILL);
            Ok(())
        });
        if churn.note("killed", done).is_some() {
            churn.actions().kills += 1;
        }
    }
}

/// Runs a script on a new test bed, and adds its queries and counters to the totals, even if it was
/// interrupted.
fn on_ground(
    churn: &Churn,
    ward: &Ward,
    act: impl FnOnce(&mut Stage) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bed = Arc::new(TestBed::new(Place::Middlebox, ward.rules)?);
    let mut stage = Stage::on(Arc::clone(&bed), Family::V4)?;
    let done = act(&mut stage);
    let (asked, connections) = (stage.answers.len() as u64, stage.connections.len() as u64);
    // Close the remaining sockets and wait for packets in flight: the kernel may count those too.
    drop(stage);
    std::thread::sleep(AFTER_KILL);
    let counted = counted(&bed)?;
    let mut actions = churn.actions();
    actions.namespaces += 2;
    actions.asked += asked;
    actions.connections += connections;
    if (ward.client, ward.listener) == (Tcp, Mptcp) {
        actions.plain += connections;
    }
    for moved in counted {
        actions.add_counted(&moved);
    }
    done
}

/// Total counts of the namespaces, which are exclusively ours.
fn counted(bed: &TestBed) -> anyhow::Result<[Counters; 2]> {
    Ok([netns::counters(bed.near())?, netns::counters(bed.far())?])
}

/// Creates short-lived namespaces, with one connection that falls back in each.
pub(super) fn namespaces(churn: &Churn) {
    while !churn.rest(NAMESPACE_EVERY) {
        churn.note("namespaces", one_namespace(churn));
    }
}

fn one_namespace(churn: &Churn) -> anyhow::Result<()> {
    let (near, far) = crate::veth::joined()?;
    let listener = netns::within(far.as_fd(), || {
        let socket = net::open(Tcp, Family::V4)?;
        net::bind(&socket, (SERVER_V4, 0).into())?;
        socket.listen(1)?;
        Ok(socket)
    })?;
    let target = listener
        .local_addr()
        .context("the listener has no address")?;
    let answer = netns::within(near.as_fd(), || {
        let client = net::open(Mptcp, Family::V4)?;
        client.connect(&target).context("cannot connect")?;
        let (server, _peer) = net::accept(&listener)?;
        net::say(&client, &server)?;
        ask(client.as_raw_fd(), Api::TcpIsMptcp)
    });
    let counted = [
        netns::counters(near.as_fd())?,
        netns::counters(far.as_fd())?,
    ];
    let mut actions = churn.actions();
    actions.namespaces += 2;
    for moved in &counted {
        actions.add_counted(moved);
    }
    // The query came last: without an answer there was no query.
    actions.asked += u64::from(answer.is_ok());
    actions.connections += 1;
    answer.map(drop)
}

/// Starts short floods of queries, repeatedly.
pub(super) fn floods(churn: &Churn) {
    while !churn.rest(FLOOD_EVERY) {
        if let Some(asked) = churn.note("flood", flood()) {
            let ActionLog {
                asked: all,
                flooded,
                floods,
                ..
            } = &mut *churn.actions();
            *all += asked;
            *flooded += asked;
            *floods += 1;
        }
    }
}

/// Runs a flood in a separate process; returns its number of queries.
fn flood() -> anyhow::Result<u64> {
    let mut command = own("load-asker")?;
    command.args(["--rate", "0", "--threads", &FLOOD_THREADS.to_string()]);
    command.args(["--seconds", &FLOOD_S.to_string()]);
    let asked: Vec<load::Asked> = lines_of("the asker", &mut command)?;
    let asked = asked.first().context("the asker wrote no report")?;
    Ok(asked.asked)
}
