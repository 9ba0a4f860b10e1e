//! Scripts of the recipes: the actions of both ends.

use std::{thread::sleep, time::Duration};

use super::{NotHere, Stage, Who};
use crate::net::Kind::{Mptcp, Tcp};

/// Rounds before the middlebox starts to interfere.
const ROUNDS_BEFORE: u32 = 3;
/// Rounds after which both ends have noticed.
const ROUNDS_AFTER: u32 = 3;
/// How long a client without blackhole detection keeps trying.
const TRY: Duration = Duration::from_millis(2_500);
/// How long a connection waits until the server accepts it late.
const LATE: Duration = Duration::from_millis(200);
/// How long a connection waits that the server never accepts.
const NEVER: Duration = Duration::from_millis(300);

pub(super) fn healthy(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 6)?;
    stage.ask_both("after")
}

pub(super) fn to_tcp_listener(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Tcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

pub(super) fn from_tcp(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Tcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

pub(super) fn to_mptcp_listener(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

/// The server's data shows the client that the path strips MPTCP.
pub(super) fn server_speaks_first(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.ask_both("before")?;
    stage.say(Who::Server, Who::Client)?;
    stage.say(Who::Client, Who::Server)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

pub(super) fn midway(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_BEFORE)?;
    stage.ask_both("before")?;
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)?;
    stage.ask_both("after")
}

/// Messages may be lost where the middlebox corrupts them.
pub(super) fn midway_spoilt(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_BEFORE)?;
    stage.ask_both("before")?;
    stage.talk_spoilt(ROUNDS_AFTER)?;
    stage.ask_both("after")
}

pub(super) fn spoilt_at_once(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.ask_both("before")?;
    stage.talk_spoilt(ROUNDS_AFTER)?;
    stage.ask_both("after")
}

/// The first connection detects the blackhole; the second one benefits from it.
pub(super) fn dropped_syns(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    stage.open(Mptcp)?;
    if !stage.counts("MPCapableSYNTXDrop") {
        return stage.try_to_connect(TRY);
    }
    stage.connect(Who::Client)?;
    stage.accept(Who::Server)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.close_pair()?;
    stage.open(Mptcp)?;
    stage.connect(Who::Client)?;
    stage.accept(Who::Server)?;
    stage.talk(Who::Client, Who::Server, 1)
}

pub(super) fn to_itself(stage: &mut Stage) -> anyhow::Result<()> {
    stage.connect_to_itself(Mptcp)?;
    stage.ask("client-after", Who::Client)
}

/// One socket, three connections: a fallback does not persist on the socket.
pub(super) fn disconnected(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Tcp)?;
    stage.ask("client-first", Who::Client)?;
    stage.disconnect()?;
    stage.ask("client-disconnected", Who::Client)?;
    stage.listen(Mptcp)?;
    stage.connect(Who::Client).map_err(|why| {
        if format!("{why:#}").contains("Invalid argument") {
            // Linux 6.17.13 does, and leaves the old subflow as it was.
            NotHere("this kernel connects no MPTCP socket again after connect(AF_UNSPEC)").into()
        } else {
            why
        }
    })?;
    stage.accept(Who::Server)?;
    stage.talk(Who::Client, Who::Server, 2)?;
    stage.ask("client-second", Who::Client)?;
    stage.disconnect()?;
    stage.listen(Tcp)?;
    stage.connect(Who::Client)?;
    stage.accept(Who::Server)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask("client-third", Who::Client)
}

/// The kernel refuses the MPTCP socket, and the application uses TCP instead.
pub(super) fn switched_off(stage: &mut Stage) -> anyhow::Result<()> {
    stage.open_refused(Mptcp)?;
    stage.pair(Tcp, Tcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask("client-after", Who::Client)
}

pub(super) fn threaded_client(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    stage.open(Mptcp)?;
    stage.connect_in_thread("lab-thread")?;
    stage.accept(Who::Server)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

/// The parent creates the socket, the child connects it.
pub(super) fn inherited(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    stage.open(Mptcp)?;
    stage.fork(Who::ClientChild)?;
    stage.connect(Who::ClientChild)?;
    stage.accept(Who::Server)?;
    stage.talk(Who::ClientChild, Who::Server, 1)
}

pub(super) fn passed(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 2)?;
    stage.pass_on()?;
    stage.talk(Who::Other, Who::Server, 1 + ROUNDS_AFTER)
}

/// The parent accepts, the child does the I/O.
pub(super) fn forked_server(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.fork(Who::ServerChild)?;
    stage.talk(Who::Client, Who::ServerChild, ROUNDS_BEFORE + ROUNDS_AFTER)
}

/// The connection falls back before it is accepted, by another process than the one that listens.
pub(super) fn accepted_late(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    stage.fork(Who::ServerChild)?;
    stage.open(Mptcp)?;
    stage.connect(Who::Client)?;
    sleep(LATE);
    stage.accept(Who::ServerChild)?;
    stage.talk(Who::Client, Who::ServerChild, 1)
}

pub(super) fn never_accepted(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    stage.open(Mptcp)?;
    stage.connect(Who::Client)?;
    sleep(NEVER);
    Ok(())
}
