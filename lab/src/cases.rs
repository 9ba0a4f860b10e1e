//! The cases: sockets of every kind, asked about in every way.

use std::{net::SocketAddr, os::fd::AsRawFd as _};

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};

use crate::{
    ask::{Asker, Form, Holding},
    net::{self, Family, Kind},
    peer::Peer,
    sys,
};

/// Holds an MPTCP socket that has not fallen back.
const MPTCP: Holding = Holding {
    kind: Some(Kind::Mptcp),
    fell_back: false,
};
/// Holds an MPTCP socket whose connection fell back.
const FALLEN: Holding = Holding {
    kind: Some(Kind::Mptcp),
    fell_back: true,
};
/// Holds a TCP socket.
const TCP: Holding = Holding {
    kind: Some(Kind::Tcp),
    fell_back: false,
};
/// Holds something that is no TCP socket.
const OTHER: Holding = Holding {
    kind: None,
    fell_back: false,
};

/// One thing to try; it may ask under several names.
pub struct Case {
    /// Its name, and the beginning of the names of what it asks.
    pub name: &'static str,
    /// Needs MPTCP in the kernel.
    pub needs_mptcp: bool,
    /// Asks.
    pub run: fn(&mut Asker) -> anyhow::Result<()>,
}

/// Every case, in the order in which they are run.
pub const CASES: &[Case] = &[
    Case {
        name: "mptcp-fresh",
        needs_mptcp: true,
        run: mptcp_fresh,
    },
    Case {
        name: "mptcp-bound",
        needs_mptcp: true,
        run: mptcp_bound,
    },
    Case {
        name: "mptcp-listening",
        needs_mptcp: true,
        run: mptcp_listening,
    },
    Case {
        name: "mptcp-connecting",
        needs_mptcp: true,
        run: mptcp_connecting,
    },
    Case {
        name: "mptcp-pair",
        needs_mptcp: true,
        run: mptcp_pair,
    },
    Case {
        name: "fallen-client",
        needs_mptcp: true,
        run: fallen_client,
    },
    Case {
        name: "fallen-self",
        needs_mptcp: true,
        run: fallen_self,
    },
    Case {
        name: "fallen-server",
        needs_mptcp: true,
        run: fallen_server,
    },
    Case {
        name: "disconnected",
        needs_mptcp: true,
        run: disconnected,
    },
    Case {
        name: "tcp-fresh",
        needs_mptcp: false,
        run: tcp_fresh,
    },
    Case {
        name: "tcp-pair",
        needs_mptcp: false,
        run: tcp_pair,
    },
    Case {
        name: "tcp-from-mptcp-listener",
        needs_mptcp: true,
        run: tcp_from_mptcp_listener,
    },
    Case {
        name: "optlen",
        needs_mptcp: true,
        run: optlen,
    },
    Case {
        name: "bad-pointer",
        needs_mptcp: true,
        run: bad_pointer,
    },
    Case {
        name: "thread",
        needs_mptcp: true,
        run: thread,
    },
    Case {
        name: "32bit",
        needs_mptcp: true,
        run: compat,
    },
    Case {
        name: "other",
        needs_mptcp: false,
        run: other,
    },
];

fn mptcp_fresh(asker: &mut Asker) -> anyhow::Result<()> {
    for family in Family::ALL {
        let socket = net::open(Kind::Mptcp, family)?;
        asker.ask(&format!("mptcp-fresh-{}", family.suffix()), &socket, MPTCP)?;
    }
    Ok(())
}

fn mptcp_bound(asker: &mut Asker) -> anyhow::Result<()> {
    let socket = net::open(Kind::Mptcp, Family::V4)?;
    socket.bind(&Family::V4.loopback().into())?;
    asker.ask("mptcp-bound-v4", &socket, MPTCP)
}

fn mptcp_listening(asker: &mut Asker) -> anyhow::Result<()> {
    for family in Family::ALL {
        let socket = net::listen(Kind::Mptcp, family)?;
        asker.ask(
            &format!("mptcp-listening-{}", family.suffix()),
            &socket,
            MPTCP,
        )?;
    }
    Ok(())
}

/// The queue of a listener that accepts nothing is full after two: the third SYN stays unanswered.
fn mptcp_connecting(asker: &mut Asker) -> anyhow::Result<()> {
    let listener = net::open(Kind::Tcp, Family::V4)?;
    listener.bind(&Family::V4.loopback().into())?;
    listener.listen(0)?;
    let address = listener.local_addr()?;
    let mut queued = Vec::new();
    for _ in 0..8 {
        let filler = net::open(Kind::Tcp, Family::V4)?;
        filler.set_nonblocking(true)?;
        let _in_progress = filler.connect(&address);
        queued.push(filler);
    }
    let socket = net::open(Kind::Mptcp, Family::V4)?;
    socket.set_nonblocking(true)?;
    let _in_progress = socket.connect(&address);
    asker.ask("mptcp-connecting-v4", &socket, MPTCP)
}

fn mptcp_pair(asker: &mut Asker) -> anyhow::Result<()> {
    for family in Family::ALL {
        let listener = net::listen(Kind::Mptcp, family)?;
        let (client, server) = net::pair(Kind::Mptcp, &listener, family)?;
        asker.ask(
            &format!("mptcp-connected-{}", family.suffix()),
            &client,
            MPTCP,
        )?;
        asker.ask(
            &format!("mptcp-accepted-{}", family.suffix()),
            &server,
            MPTCP,
        )?;
    }
    Ok(())
}

/// The listener does not speak MPTCP: fallen back before connect returns.
fn fallen_client(asker: &mut Asker) -> anyhow::Result<()> {
    for family in Family::ALL {
        let listener = net::listen(Kind::Tcp, family)?;
        let (client, server) = net::pair(Kind::Mptcp, &listener, family)?;
        asker.ask(
            &format!("fallen-client-{}", family.suffix()),
            &client,
            FALLEN,
        )?;
        asker.ask(
            &format!("tcp-peer-of-fallen-{}", family.suffix()),
            &server,
            TCP,
        )?;
    }
    Ok(())
}

/// A socket that connects to itself: simultaneous open, which MPTCP does not do.
fn fallen_self(asker: &mut Asker) -> anyhow::Result<()> {
    let socket = net::open(Kind::Mptcp, Family::V4)?;
    socket.bind(&Family::V4.loopback().into())?;
    let address = socket.local_addr()?;
    socket
        .connect(&address)
        .context("cannot connect to itself")?;
    asker.ask("fallen-self-v4", &socket, FALLEN)
}

/// Accepted as MPTCP, then the peer's data comes without a mapping.
fn fallen_server(asker: &mut Asker) -> anyhow::Result<()> {
    let mut peer = Peer::connect()?;
    asker.ask("fallen-server-before-v4", &peer.accepted, MPTCP)?;
    peer.send_plain_data()?;
    asker.ask("fallen-server-after-v4", &peer.accepted, FALLEN)
}

/// `connect(AF_UNSPEC)` after a fallback makes it a fresh MPTCP socket again.
fn disconnected(asker: &mut Asker) -> anyhow::Result<()> {
    let listener = net::listen(Kind::Tcp, Family::V4)?;
    let (client, _server) = net::pair(Kind::Mptcp, &listener, Family::V4)?;
    sys::disconnect(client.as_raw_fd()).context("cannot disconnect")?;
    asker.ask("disconnected-v4", &client, MPTCP)
}

fn tcp_fresh(asker: &mut Asker) -> anyhow::Result<()> {
    for family in Family::ALL {
        let socket = net::open(Kind::Tcp, family)?;
        asker.ask(&format!("tcp-fresh-{}", family.suffix()), &socket, TCP)?;
    }
    Ok(())
}

fn tcp_pair(asker: &mut Asker) -> anyhow::Result<()> {
    for family in Family::ALL {
        let listener = net::listen(Kind::Tcp, family)?;
        let (client, server) = net::pair(Kind::Tcp, &listener, family)?;
        asker.ask(
            &format!("tcp-listening-{}", family.suffix()),
            &listener,
            TCP,
        )?;
        asker.ask(&format!("tcp-connected-{}", family.suffix()), &client, TCP)?;
        asker.ask(&format!("tcp-accepted-{}", family.suffix()), &server, TCP)?;
    }
    Ok(())
}

fn tcp_from_mptcp_listener(asker: &mut Asker) -> anyhow::Result<()> {
    for family in Family::ALL {
        let listener = net::listen(Kind::Mptcp, family)?;
        let (_client, server) = net::pair(Kind::Tcp, &listener, family)?;
        let name = format!("tcp-from-mptcp-listener-{}", family.suffix());
        asker.ask(&name, &server, TCP)?;
    }
    Ok(())
}

/// The sockets that answer in three ways.
fn three_kinds() -> anyhow::Result<[(&'static str, Socket, Holding); 3]> {
    let listener = net::listen(Kind::Tcp, Family::V4)?;
    let (fallen, tcp) = net::pair(Kind::Mptcp, &listener, Family::V4)?;
    Ok([
        ("mptcp", net::open(Kind::Mptcp, Family::V4)?, MPTCP),
        ("fallen", fallen, FALLEN),
        ("tcp", tcp, TCP),
    ])
}

fn optlen(asker: &mut Asker) -> anyhow::Result<()> {
    let sockets = three_kinds()?;
    for length in [0, 1, 2, 3, 4, 8, -1] {
        for (kind, socket, holding) in &sockets {
            let form = Form {
                optlen: length,
                ..Form::default()
            };
            asker.ask_as(&format!("optlen-{length}-{kind}"), socket, *holding, form)?;
        }
    }
    Ok(())
}

fn bad_pointer(asker: &mut Asker) -> anyhow::Result<()> {
    for (kind, socket, holding) in &three_kinds()? {
        let form = Form {
            bad_optval: true,
            ..Form::default()
        };
        asker.ask_as(&format!("bad-optval-{kind}"), socket, *holding, form)?;
        let form = Form {
            bad_optlen: true,
            ..Form::default()
        };
        asker.ask_as(&format!("bad-optlen-{kind}"), socket, *holding, form)?;
    }
    Ok(())
}

fn thread(asker: &mut Asker) -> anyhow::Result<()> {
    for (kind, socket, holding) in &three_kinds()? {
        let name = format!("thread-{kind}");
        std::thread::scope(|scope| scope.spawn(|| asker.ask(&name, socket, *holding)).join())
            .map_err(|_panic| anyhow::anyhow!("the asking thread panicked"))??;
    }
    Ok(())
}

fn compat(asker: &mut Asker) -> anyhow::Result<()> {
    for (kind, socket, holding) in &three_kinds()? {
        let form = Form {
            compat: true,
            ..Form::default()
        };
        asker.ask_as(&format!("32bit-{kind}"), socket, *holding, form)?;
    }
    Ok(())
}

/// What is no TCP socket is asked about by mistake: no query, no line.
fn other(asker: &mut Asker) -> anyhow::Result<()> {
    let udp = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    asker.ask("other-udp", &udp, OTHER)?;
    let udp = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    udp.bind(&SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)).into())?;
    asker.ask("other-udp-v6", &udp, OTHER)?;
    let unix = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    asker.ask("other-unix", &unix, OTHER)?;
    let file = std::fs::File::open("/proc/self/status")?;
    asker.ask_fd("other-file", file.as_raw_fd(), OTHER)?;
    asker.ask_fd("other-closed", 4000, OTHER)
}
