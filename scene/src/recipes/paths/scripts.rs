//! Scripts of the recipes of paths.

use std::{thread::sleep, time::Duration};

use super::{CUT, NO_MORE, REJECT, Spot, to_server};
use crate::{
    net::Kind::{Mptcp, Tcp},
    path_manager::Flags,
    recipes::{
        End::{self, Client, Server},
        NotHere, Stage, Who,
    },
    rules::Rules,
};

/// Port of an announced endpoint.
pub(super) const PORT: u16 = 4_799;
/// A pause after which the kernel's worker has done its work.
const SETTLE: Duration = Duration::from_millis(400);
/// Paths and addresses that an end allows unless a recipe says otherwise.
const LIMITS: (u32, u32) = (2, 1);

/// Limits of both ends, and an endpoint to join from.
fn joining(stage: &Stage) -> anyhow::Result<()> {
    limits(stage)?;
    stage.endpoint(Client, Spot::Second, Flags::SUBFLOW)
}

fn limits(stage: &Stage) -> anyhow::Result<()> {
    let (paths, addresses) = LIMITS;
    stage.limit(Client, paths, addresses)?;
    stage.limit(Server, paths, addresses)
}

/// Limits of both ends, and an address of the server to announce.
fn announcing(stage: &Stage) -> anyhow::Result<()> {
    limits(stage)?;
    stage.endpoint(Server, Spot::Second, Flags::SIGNAL)
}

/// Opens a connection to a server that listens on all addresses.
fn open(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen_at(Mptcp, stage.address(Server, Spot::Any))?;
    connect(stage)
}

fn connect(stage: &mut Stage) -> anyhow::Result<()> {
    stage.open(Mptcp)?;
    stage.connect(Who::Client)?;
    stage.accept(Who::Server)?;
    talk(stage, 1)
}

fn talk(stage: &mut Stage, rounds: u32) -> anyhow::Result<()> {
    stage.talk(Who::Client, Who::Server, rounds)
}

/// Talks on, and closes: the client first.
fn close(stage: &mut Stage) -> anyhow::Result<()> {
    sleep(SETTLE);
    talk(stage, 2)?;
    stage.close_in_turn()?;
    sleep(SETTLE);
    Ok(())
}

/// Waits until the passive end has counted its joins.
fn joined(stage: &Stage, number: u64) -> anyhow::Result<()> {
    stage.until_counted(Server, "MPJoinAckRx", number)?;
    sleep(Duration::from_millis(100));
    Ok(())
}

pub(super) fn base(stage: &mut Stage) -> anyhow::Result<()> {
    /// An attach method may look for paths that came up once a second, on a slow machine later.
    const SCANNED: Duration = Duration::from_millis(3_500);
    joining(stage)?;
    open(stage)?;
    joined(stage, 1)?;
    sleep(SCANNED);
    close(stage)
}

/// A join that fails.
pub(super) fn fails(stage: &mut Stage) -> anyhow::Result<()> {
    joining(stage)?;
    open(stage)?;
    close(stage)
}

pub(super) fn no_server_paths(stage: &mut Stage) -> anyhow::Result<()> {
    joining(stage)?;
    stage.limit(Server, 0, 0)?;
    open(stage)?;
    close(stage)
}

pub(super) fn one_of_two(stage: &mut Stage) -> anyhow::Result<()> {
    stage.third_address()?;
    joining(stage)?;
    stage.endpoint(Client, Spot::Third, Flags::SUBFLOW)?;
    stage.limit(Server, 1, 0)?;
    open(stage)?;
    joined(stage, 1)?;
    // The server may need a second to resolve the third address.
    stage.until_counted(Client, "MPJoinSynAckRx", 2)?;
    close(stage)
}

pub(super) fn no_client_paths(stage: &mut Stage) -> anyhow::Result<()> {
    joining(stage)?;
    stage.limit(Client, 0, 0)?;
    open(stage)?;
    close(stage)
}

pub(super) fn no_endpoint(stage: &mut Stage) -> anyhow::Result<()> {
    limits(stage)?;
    open(stage)?;
    close(stage)
}

pub(super) fn same_address(stage: &mut Stage) -> anyhow::Result<()> {
    limits(stage)?;
    stage.endpoint(Client, Spot::First, Flags::SUBFLOW)?;
    open(stage)?;
    close(stage)
}

pub(super) fn unused_announcement(stage: &mut Stage) -> anyhow::Result<()> {
    announcing(stage)?;
    stage.limit(Client, 2, 0)?;
    open(stage)?;
    close(stage)
}

pub(super) fn dropped_syn(stage: &mut Stage) -> anyhow::Result<()> {
    few_syns(stage)?;
    joining(stage)?;
    open(stage)?;
    // One retransmission after a second, and two seconds more.
    sleep(Duration::from_secs(4));
    close(stage)
}

fn few_syns(stage: &Stage) -> anyhow::Result<()> {
    stage.set(Client, "net.ipv4.tcp_syn_retries", "1")?;
    stage.set_if_there(Client, "net.ipv4.tcp_syn_linear_timeouts", "0")
}

pub(super) fn tcp_listener(stage: &mut Stage) -> anyhow::Result<()> {
    announcing(stage)?;
    stage.listen(Mptcp)?;
    stage.listen_beside(Tcp)?;
    connect(stage)?;
    close(stage)
}

pub(super) fn bound_listener(stage: &mut Stage) -> anyhow::Result<()> {
    announcing(stage)?;
    stage.listen(Mptcp)?;
    connect(stage)?;
    close(stage)
}

pub(super) fn foreign(stage: &mut Stage) -> anyhow::Result<()> {
    limits(stage)?;
    stage.endpoint(Client, Spot::Foreign, Flags::SUBFLOW)?;
    open(stage)?;
    close(stage)
}

pub(super) fn cookies(stage: &mut Stage) -> anyhow::Result<()> {
    few_syns(stage)?;
    stage.set(Server, "net.ipv4.tcp_syncookies", "2")?;
    joining(stage)?;
    stage.limit(Server, 0, 0)?;
    open(stage)?;
    sleep(Duration::from_secs(4));
    close(stage)
}

pub(super) fn port(stage: &mut Stage) -> anyhow::Result<()> {
    announcing_port(stage)?;
    open(stage)?;
    joined(stage, 1)?;
    close(stage)
}

pub(super) fn port_fails(stage: &mut Stage) -> anyhow::Result<()> {
    announcing_port(stage)?;
    open(stage)?;
    close(stage)
}

/// Limits of both ends, and an address and port of the server to announce.
fn announcing_port(stage: &Stage) -> anyhow::Result<()> {
    limits(stage)?;
    // With timestamps, an IPv6 address and a port do not fit into the options.
    for end in [Client, Server] {
        stage.set(end, "net.ipv4.tcp_timestamps", "0")?;
    }
    stage.endpoint_with_port(PORT)
}

pub(super) fn priority(stage: &mut Stage) -> anyhow::Result<()> {
    limits(stage)?;
    stage.endpoint(Client, Spot::Second, Flags::BACKUP_SUBFLOW)?;
    open(stage)?;
    joined(stage, 1)?;
    stage.no_backup()?;
    stage.until_counted(Server, "MPPrioRx", 1)?;
    close(stage)
}

pub(super) fn client_removes(stage: &mut Stage) -> anyhow::Result<()> {
    joining(stage)?;
    removed(stage, Client, Server)
}

pub(super) fn server_removes(stage: &mut Stage) -> anyhow::Result<()> {
    announcing(stage)?;
    removed(stage, Server, Client)
}

fn removed(stage: &mut Stage, by: End, peer: End) -> anyhow::Result<()> {
    open(stage)?;
    joined(stage, 1)?;
    stage.delete_endpoint(by)?;
    stage.until_counted(peer, "RmAddr", 1)?;
    close(stage)
}

pub(super) fn reset(stage: &mut Stage) -> anyhow::Result<()> {
    spoilt(stage, REJECT)
}

pub(super) fn stripped(stage: &mut Stage) -> anyhow::Result<()> {
    spoilt(stage, to_server(NO_MORE))
}

/// New rules for the second path in the middle of a transfer.
fn spoilt(stage: &mut Stage, rules: Rules) -> anyhow::Result<()> {
    joining(stage)?;
    open(stage)?;
    joined(stage, 1)?;
    stage.pour(Who::Client, Who::Server)?;
    stage.set_rules(1, rules)?;
    for _ in 0..3 {
        stage.pour(Who::Client, Who::Server)?;
    }
    close(stage)
}

pub(super) fn cut(stage: &mut Stage) -> anyhow::Result<()> {
    for end in [Client, Server] {
        stage.set(end, "net.ipv4.tcp_retries2", "3")?;
        stage.set(end, "net.ipv4.tcp_orphan_retries", "1")?;
    }
    // No path is stale: whether one is depends on what is in flight.
    stage.set(Client, "net.mptcp.stale_loss_cnt", "0")?;
    joining(stage)?;
    open(stage)?;
    joined(stage, 1)?;
    stage.pour(Who::Client, Who::Server)?;
    stage.cut()?;
    for _ in 0..3 {
        stage.pour(Who::Client, Who::Server)?;
    }
    // Until the last retransmission of the client's path.
    sleep(Duration::from_millis(3_500));
    close(stage)?;
    // The server's path waits for an answer to its FIN.
    sleep(Duration::from_secs(2));
    Ok(())
}

pub(super) fn stale(stage: &mut Stage) -> anyhow::Result<()> {
    stage.set(Client, "net.mptcp.stale_loss_cnt", "1")?;
    joining(stage)?;
    open(stage)?;
    joined(stage, 1)?;
    stage.pour(Who::Client, Who::Server)?;
    let both = Rules {
        to_server: CUT,
        to_client: CUT,
    };
    // It takes several dfrags in flight on the second path, and the scheduler prefers the first one.
    until(stage, "SubflowStale", |stage| {
        stage.set_rules(1, Rules::NONE)?;
        sleep(SETTLE);
        stage.set_rules(1, both)?;
        stage.pour(Who::Client, Who::Server)
    })?;
    sleep(SETTLE);
    stage.set_rules(1, Rules::NONE)?;
    until(stage, "SubflowRecover", |stage| {
        sleep(SETTLE);
        stage.pour(Who::Client, Who::Server)
    })?;
    close(stage)
}

/// Acts until a counter of the client has grown.
fn until(
    stage: &mut Stage,
    counter: &str,
    act: impl Fn(&mut Stage) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    const TIMES_MAX: u32 = 20;
    for _ in 0..TIMES_MAX {
        act(stage)?;
        if stage.counted(Client, counter)? > 0 {
            return Ok(());
        }
    }
    Err(NotHere("this kernel called no path stale: its scheduler used the first one").into())
}

pub(super) fn aborted(stage: &mut Stage) -> anyhow::Result<()> {
    joining(stage)?;
    open(stage)?;
    joined(stage, 1)?;
    talk(stage, 2)?;
    // Unread data is what every kernel answers with MP_FASTCLOSE; SO_LINGER with 0 only newer ones.
    stage.say_unread(Who::Server)?;
    sleep(SETTLE);
    stage.abort()?;
    sleep(SETTLE);
    Ok(())
}

pub(super) fn accepted_late(stage: &mut Stage) -> anyhow::Result<()> {
    joining(stage)?;
    stage.listen_at(Mptcp, stage.address(Server, Spot::Any))?;
    stage.open(Mptcp)?;
    stage.connect(Who::Client)?;
    stage.say_unread(Who::Client)?;
    joined(stage, 1)?;
    stage.accept(Who::Server)?;
    stage.read_unread(Who::Server)?;
    close(stage)
}

pub(super) fn peer_denies(stage: &mut Stage) -> anyhow::Result<()> {
    joining(stage)?;
    stage.set(Server, "net.mptcp.allow_join_initial_addr_port", "0")?;
    open(stage)?;
    close(stage)
}

pub(super) fn client_userspace(stage: &mut Stage) -> anyhow::Result<()> {
    joining(stage)?;
    userspace_manager(stage, Client)?;
    open(stage)?;
    close(stage)
}

pub(super) fn server_userspace(stage: &mut Stage) -> anyhow::Result<()> {
    joining(stage)?;
    userspace_manager(stage, Server)?;
    open(stage)?;
    close(stage)
}

fn userspace_manager(stage: &Stage, at: End) -> anyhow::Result<()> {
    stage.set(at, "net.mptcp.pm_type", "1")
}

pub(super) fn refused(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    stage.close_listener()?;
    stage.connect_in_vain()
}

pub(super) fn timed_out(stage: &mut Stage) -> anyhow::Result<()> {
    few_syns(stage)?;
    stage.set_rules(0, to_server(CUT))?;
    stage.listen(Mptcp)?;
    stage.connect_in_vain()
}

/// A join to an address of the server for which it has no address id left.
pub(super) fn no_id(stage: &mut Stage) -> anyhow::Result<()> {
    limits(stage)?;
    userspace_manager(stage, Client)?;
    stage.fill_endpoints()?;
    open(stage)?;
    talk(stage, 1)?;
    stage.open_path()?;
    close(stage)
}

/// The server gives up waiting for the third ACK after one repetition.
pub(super) fn no_third_ack(stage: &mut Stage) -> anyhow::Result<()> {
    stage.set(Server, "net.ipv4.tcp_synack_retries", "1")?;
    joining(stage)?;
    open(stage)?;
    // One second, and two more.
    sleep(Duration::from_secs(4));
    close(stage)
}

/// No third ACK gets through until the server has repeated its SYN/ACK.
pub(super) fn late_third_ack(stage: &mut Stage) -> anyhow::Result<()> {
    joining(stage)?;
    open(stage)?;
    // It repeats after one second, and after two more.
    sleep(Duration::from_millis(1_500));
    stage.set_rules(1, Rules::NONE)?;
    joined(stage, 1)?;
    close(stage)
}

/// The first third ACK that arrives uses up what the server keeps of the join, but its queue has no
/// room for one more; the next third ACK finds nothing.
pub(super) fn lost_cookie(stage: &mut Stage) -> anyhow::Result<()> {
    stage.set(Server, "net.ipv4.tcp_syncookies", "2")?;
    stage.set(Server, "net.core.somaxconn", "0")?;
    joining(stage)?;
    open(stage)?;
    stage.until_counted(Client, "MPJoinSynAckRx", 1)?;
    sleep(SETTLE);
    stage.connect_unaccepted()?;
    sleep(SETTLE);
    stage.set_rules(1, Rules::NONE)?;
    sleep(SETTLE);
    sleep(SETTLE);
    close(stage)
}
