//! What the applications of the scenarios do.

use std::{
    io,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use crate::{
    net::Kind::{Mptcp, Tcp},
    path_manager::Flags,
    query::Api,
    recipes::{End, Held, NotHere, Stage, Who, paths::Spot},
    rules::{Rules, Treatment},
};

/// What to do on a stage.
pub(super) type Script = fn(&mut Stage) -> anyhow::Result<()>;

/// Rounds in which the middlebox passes the options.
const ROUNDS_BEFORE: u32 = 2;
/// Rounds after which both ends have noticed that it strips them.
const ROUNDS_AFTER: u32 = 6;
/// Pause of a poller between two queries.
const POLLED_EVERY: Duration = Duration::from_millis(3);
/// How long to poll while nothing else happens.
const QUIET: Duration = Duration::from_millis(60);

pub(super) fn healthy(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 6)?;
    stage.ask_both("after")
}

/// A connection whose second path is up.
fn on_two_paths(stage: &mut Stage) -> anyhow::Result<()> {
    for end in [End::Client, End::Server] {
        stage.limit(end, 2, 0)?;
    }
    stage.endpoint(End::Client, Spot::Second, Flags::SUBFLOW)?;
    begun(stage)?;
    stage.until_counted(End::Server, "MPJoinAckRx", 1)
}

pub(super) fn asked_on_two_paths(stage: &mut Stage) -> anyhow::Result<()> {
    on_two_paths(stage)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)?;
    stage.ask_both("after")
}

/// The first path is reset: the connection goes on with the second one.
pub(super) fn asked_around_the_loss_of_a_path(stage: &mut Stage) -> anyhow::Result<()> {
    on_two_paths(stage)?;
    stage.ask_both("before")?;
    stage.pour(Who::Client, Who::Server)?;
    let rules = Rules {
        to_server: Treatment {
            reject: true,
            ..Treatment::NONE
        },
        to_client: Treatment::NONE,
    };
    stage.set_rules(0, rules)?;
    for _ in 0..3 {
        stage.pour(Who::Client, Who::Server)?;
    }
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)?;
    stage.ask_both("after")
}

pub(super) fn to_tcp(stage: &mut Stage) -> anyhow::Result<()> {
    never_asked(stage)?;
    stage.ask_both("after")
}

pub(super) fn asked_at_once(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    stage.open(Mptcp)?;
    stage.connect(Who::Client)?;
    stage.ask("client-after", Who::Client)
}

pub(super) fn asked_after_many(stage: &mut Stage) -> anyhow::Result<()> {
    never_asked_midway(stage)?;
    stage.ask_both("after")
}

pub(super) fn asked_after_one(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

pub(super) fn from_tcp(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Tcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

fn asked_too_early(stage: &mut Stage) -> anyhow::Result<()> {
    stage.open(Mptcp)?;
    stage.ask("client-before", Who::Client)?;
    stage.connect(Who::Client)?;
    stage.accept(Who::Server)
}

pub(super) fn asked_too_early_then_tcp(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    asked_too_early(stage)?;
    stage.talk(Who::Client, Who::Server, 1)
}

pub(super) fn asked_too_early_then_mptcp(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    asked_too_early(stage)?;
    stage.talk(Who::Client, Who::Server, 6)
}

pub(super) fn asked_too_early_and_after(stage: &mut Stage) -> anyhow::Result<()> {
    asked_too_early_then_tcp(stage)?;
    stage.ask("client-after", Who::Client)
}

/// The listener answers MPTCP; the socket that it accepts is not.
pub(super) fn asked_listener(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Tcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_listener("listener")?;
    stage.ask("server-after", Who::Server)
}

pub(super) fn begun(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_BEFORE)
}

pub(super) fn asked_before_rest(stage: &mut Stage) -> anyhow::Result<()> {
    stage.ask_both("before")?;
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)
}

pub(super) fn asked_before_many(stage: &mut Stage) -> anyhow::Result<()> {
    begun(stage)?;
    asked_before_rest(stage)
}

pub(super) fn never_asked(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Tcp)?;
    stage.talk(Who::Client, Who::Server, 1)
}

pub(super) fn never_asked_midway(stage: &mut Stage) -> anyhow::Result<()> {
    begun(stage)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)
}

pub(super) fn polled(stage: &mut Stage) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.poll_both(POLLED_EVERY)?;
    sleep(QUIET);
    stage.talk(Who::Client, Who::Server, ROUNDS_BEFORE + ROUNDS_AFTER)?;
    sleep(QUIET);
    stage.polled_both()
}

pub(super) fn asked_client(stage: &mut Stage) -> anyhow::Result<()> {
    stage.ask("client-after", Who::Client)
}

pub(super) fn asked_both(stage: &mut Stage) -> anyhow::Result<()> {
    stage.ask_both("after")
}

fn connect_again(stage: &mut Stage) -> anyhow::Result<()> {
    stage.connect(Who::Client).map_err(|why| {
        if format!("{why:#}").contains("Invalid argument") {
            // Linux 6.17.13 does, and leaves the old subflow as it was.
            NotHere("this kernel connects no MPTCP socket again after connect(AF_UNSPEC)").into()
        } else {
            why
        }
    })?;
    stage.accept(Who::Server)
}

pub(super) fn reconnected(stage: &mut Stage) -> anyhow::Result<()> {
    never_asked(stage)?;
    reconnect(stage)
}

fn reconnect(stage: &mut Stage) -> anyhow::Result<()> {
    stage.disconnect()?;
    stage.ask("client-disconnected", Who::Client)?;
    stage.listen(Mptcp)?;
    connect_again(stage)?;
    stage.talk(Who::Client, Who::Server, 2)?;
    stage.ask("client-second", Who::Client)
}

pub(super) fn reconnected_asked(stage: &mut Stage) -> anyhow::Result<()> {
    never_asked(stage)?;
    stage.ask("client-first", Who::Client)?;
    reconnect(stage)?;
    stage.disconnect()?;
    stage.listen(Tcp)?;
    connect_again(stage)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask("client-third", Who::Client)
}

pub(super) fn misled_after(stage: &mut Stage) -> anyhow::Result<()> {
    never_asked(stage)?;
    stage.ask_by("client-after", Who::Client, Api::SoProtocol)
}

pub(super) fn misled_before(stage: &mut Stage) -> anyhow::Result<()> {
    begun(stage)?;
    stage.ask_by("client-before", Who::Client, Api::SoProtocol)?;
    stage.ask_by("server-before", Who::Server, Api::SoProtocol)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)
}

pub(super) fn asked_otherwise(stage: &mut Stage) -> anyhow::Result<()> {
    before_and_after(
        stage,
        &[Api::MptcpInfo, Api::MptcpTcpinfo, Api::MptcpSubflowAddrs],
    )
}

pub(super) fn asked_full_info(stage: &mut Stage) -> anyhow::Result<()> {
    before_and_after(stage, &[Api::MptcpFullInfo])
}

fn before_and_after(stage: &mut Stage, queries: &[Api]) -> anyhow::Result<()> {
    begun(stage)?;
    for &api in queries {
        stage.ask_by("client-before", Who::Client, api)?;
        if stage.answers.last().is_some_and(|(_, told)| told != "ok") {
            return Err(NotHere("this kernel does not support the query").into());
        }
        stage.ask_by("server-before", Who::Server, api)?;
    }
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)?;
    for &api in queries {
        stage.ask_by("client-after", Who::Client, api)?;
        stage.ask_by("server-after", Who::Server, api)?;
    }
    Ok(())
}

pub(super) fn refused(stage: &mut Stage) -> anyhow::Result<()> {
    stage.open_refused(Mptcp)
}

pub(super) fn options_of_mptcp(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    stage.open(Mptcp)?;
    stage.try_options("before", Who::Client, Held::Mptcp)?;
    stage.connect(Who::Client)?;
    stage.accept(Who::Server)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.try_options("after", Who::Client, Held::Mptcp)?;
    stage.try_options("after", Who::Server, Held::Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)
}

/// TCP refuses some of them with the same errors: on a TCP socket, and on one that fell back.
pub(super) fn options_of_tcp(stage: &mut Stage) -> anyhow::Result<()> {
    never_asked(stage)?;
    stage.try_options("after", Who::Client, Held::Tcp)?;
    stage.try_options("after", Who::Server, Held::Tcp)
}

pub(super) fn options_midway(stage: &mut Stage) -> anyhow::Result<()> {
    begun(stage)?;
    stage.try_options("before", Who::Client, Held::Mptcp)?;
    stage.try_options("before", Who::Server, Held::Mptcp)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)?;
    stage.try_options("after", Who::Client, Held::Tcp)?;
    stage.try_options("after", Who::Server, Held::Tcp)
}

/// The first connection detects that MPTCP SYNs are lost; it affects the second one.
pub(super) fn switched_off(stage: &mut Stage) -> anyhow::Result<()> {
    if !stage.counts("MPCapableSYNTXDrop") {
        return Err(NotHere("this kernel does not switch MPTCP off for a while").into());
    }
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")?;
    stage.close_pair()?;
    stage.open(Mptcp)?;
    stage.connect(Who::Client)?;
    stage.accept(Who::Server)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

const PYTHON: &str = r#"
import errno, socket, sys
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
connection = socket.socket(family, socket.SOCK_STREAM, 262)
connection.connect((address, port))
connection.sendall(b"a" * 20)
connection.recv(20)
try:
    told = connection.getsockopt(socket.IPPROTO_TCP, 43)
except OSError as why:
    told = errno.errorcode[why.errno]
print(connection.getsockname()[1], told, flush=True)
sys.stdin.read()
"#;

pub(super) fn python(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    stage.run_program("python3".as_ref(), &["-c", PYTHON])
}

pub(super) fn go(stage: &mut Stage) -> anyhow::Result<()> {
    let program = stage.go.clone();
    let program = program.ok_or(NotHere("no program in Go was given"))?;
    stage.run_program(&program, &[])
}

/// Path of the 32-bit program beside the one in Go.
pub(super) fn beside(go: &Path) -> PathBuf {
    let mut path = go.as_os_str().to_owned();
    path.push("-32");
    path.into()
}

fn go_32bit(stage: &mut Stage) -> anyhow::Result<()> {
    let program = stage.go.as_deref().map(beside);
    let program = program.ok_or(NotHere("no program in Go was given"))?;
    stage.run_program(&program, &[]).map_err(|why| {
        let failure = why.downcast_ref::<io::Error>();
        match failure.and_then(io::Error::raw_os_error) {
            Some(libc::ENOEXEC) => NotHere("this kernel serves no 32-bit programs").into(),
            Some(_) | None => why,
        }
    })
}

pub(super) fn go_32bit_to_tcp(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    go_32bit(stage)
}

pub(super) fn go_32bit_to_mptcp(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    go_32bit(stage)?;
    stage.ask("server-after", Who::Server)
}

pub(super) fn go_to_tcp(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    go(stage)
}

pub(super) fn go_to_mptcp(stage: &mut Stage) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    go(stage)?;
    stage.ask("server-after", Who::Server)
}
