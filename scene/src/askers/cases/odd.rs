//! Queries in unusual forms, or on the wrong descriptor.

use std::{
    net::Ipv6Addr,
    os::fd::{AsRawFd as _, RawFd},
};

use anyhow::{Context as _, ensure};
use socket2::{Domain, Socket, Type};

use crate::{
    askers::asker::Asker,
    net::{self, Family, Kind},
    query::{Door, Form, Holding},
    sys,
};

use super::{FALLEN, MPTCP, OTHER, TCP};

/// Level of MPTCP's own options.
const SOL_MPTCP: i32 = 284;
/// A descriptor number that is not open.
const CLOSED: RawFd = 4_000;

/// Socket kinds with different answers, each on its own path through the kernel.
#[derive(Clone, Copy)]
pub(super) enum Sort {
    /// MPTCP.
    Mptcp,
    /// MPTCP, fallen back.
    Fallen,
    /// Plain TCP.
    Tcp,
}

impl Sort {
    fn name(self) -> &'static str {
        match self {
            Self::Mptcp => "mptcp",
            Self::Fallen => "fallen",
            Self::Tcp => "tcp",
        }
    }

    fn make(self, family: Family) -> anyhow::Result<Made> {
        let (kind, listening, holding) = match self {
            Self::Mptcp => (Kind::Mptcp, Kind::Mptcp, MPTCP),
            Self::Fallen => (Kind::Mptcp, Kind::Tcp, FALLEN),
            Self::Tcp => (Kind::Tcp, Kind::Tcp, TCP),
        };
        let listener = net::listen(listening, family)?;
        let (socket, other_end) = net::pair(kind, &listener, family)?;
        Ok(Made {
            socket,
            holding,
            _other_end: other_end,
        })
    }
}

/// A connection: one end is queried, the other only stays open.
struct Made {
    socket: Socket,
    holding: Holding,
    _other_end: Socket,
}

pub(super) fn optlen(asker: &mut Asker, family: Family, sort: Sort) -> anyhow::Result<()> {
    let made = sort.make(family)?;
    for length in [0, 1, 2, 3, 4, 8, -1] {
        let form = Form {
            optlen: length,
            ..Form::default()
        };
        let name = format!("optlen-{length}-{}", sort.name());
        asker.ask_as(&name, &made.socket, made.holding, form)?;
    }
    Ok(())
}

pub(super) fn bad_pointer(asker: &mut Asker, family: Family, sort: Sort) -> anyhow::Result<()> {
    let made = sort.make(family)?;
    let optval = Form {
        bad_optval: true,
        ..Form::default()
    };
    asker.ask_as(
        &format!("bad-optval-{}", sort.name()),
        &made.socket,
        made.holding,
        optval,
    )?;
    let optlen = Form {
        bad_optlen: true,
        ..Form::default()
    };
    asker.ask_as(
        &format!("bad-optlen-{}", sort.name()),
        &made.socket,
        made.holding,
        optlen,
    )
}

pub(super) fn thread(asker: &mut Asker, family: Family, sort: Sort) -> anyhow::Result<()> {
    let made = sort.make(family)?;
    let name = format!("thread-{}", sort.name());
    std::thread::scope(|scope| {
        scope
            .spawn(|| asker.ask(&name, &made.socket, made.holding))
            .join()
    })
    .map_err(|_panic| anyhow::anyhow!("the querying thread panicked"))?
}

pub(super) fn compat(asker: &mut Asker, family: Family, sort: Sort) -> anyhow::Result<()> {
    ensure!(
        sys::serves_32bit(),
        "this kernel serves no 32-bit programs (IA32 emulation is off)"
    );
    let made = sort.make(family)?;
    for (door, prefix) in [
        (Door::Compat, "32bit"),
        (Door::Socketcall, "32bit-socketcall"),
    ] {
        let form = Form {
            door,
            ..Form::default()
        };
        let name = format!("{prefix}-{}-{}", sort.name(), family.suffix());
        asker.ask_as(&name, &made.socket, made.holding, form)?;
    }
    Ok(())
}

/// Other options at the same level, and the same number at other levels: no query, no line.
pub(super) fn other_option(asker: &mut Asker, family: Family, sort: Sort) -> anyhow::Result<()> {
    let made = sort.make(family)?;
    for (name, level, option) in [
        ("nodelay", libc::SOL_TCP, libc::TCP_NODELAY),
        ("sol-ip", libc::SOL_IP, Form::default().option),
        ("sol-socket", libc::SOL_SOCKET, Form::default().option),
        ("sol-mptcp", SOL_MPTCP, Form::default().option),
    ] {
        let form = Form {
            level,
            option,
            ..Form::default()
        };
        let name = format!("other-option-{name}-{}", sort.name());
        asker.ask_as(&name, &made.socket, made.holding, form)?;
    }
    Ok(())
}

/// Queries on anything but a TCP socket: no query, no line.
pub(super) fn other(asker: &mut Asker, _family: Family) -> anyhow::Result<()> {
    let udp = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    asker.ask("other-udp", &udp, OTHER)?;
    let unix = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    asker.ask("other-unix", &unix, OTHER)?;
    let (pipe, _other_end) = rustix::pipe::pipe().context("cannot create a pipe")?;
    asker.ask_fd("other-pipe", pipe.as_raw_fd(), OTHER)?;
    let file = std::fs::File::open("/proc/self/status").context("cannot open a file")?;
    asker.ask_fd("other-file", file.as_raw_fd(), OTHER)?;
    asker.ask_fd("other-closed", CLOSED, OTHER)?;
    let udp = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    udp.bind(&std::net::SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into())?;
    asker.ask("other-udp-v6", &udp, OTHER)
}
