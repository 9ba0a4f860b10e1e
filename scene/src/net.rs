//! Sockets as the cases need them.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// An address and a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Endpoint {
    /// The address.
    pub addr: String,
    /// The port.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            addr: address.ip().to_string(),
            port: address.port(),
        }
    }
}

/// Longest that a packet may take: an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest that a fresh IPv6 address may take to become usable.
const ADDRESS_DELAY_MAX: Duration = Duration::from_secs(5);

/// What a case's sockets are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
    /// `AF_INET6` with IPv4-mapped addresses.
    Mapped,
}

impl Family {
    /// One of each address length.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// All of them.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    /// The end of a case's name.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::Mapped => "mapped",
        }
    }

    /// The family that a suffix of [`Family::BOTH`] names: `v4` or `v6`.
    ///
    /// # Errors
    ///
    /// Fails for any other word.
    pub fn parse(word: &str) -> Result<Self, String> {
        let named = Self::BOTH.into_iter().find(|it| it.suffix() == word);
        named.ok_or_else(|| "there are v4 and v6".to_owned())
    }

    /// The domain of its sockets.
    #[must_use]
    pub fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 | Self::Mapped => Domain::IPV6,
        }
    }

    /// Loopback and any free port.
    #[must_use]
    pub fn loopback(self) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::LOCALHOST, 0).into(),
            Self::V6 => (Ipv6Addr::LOCALHOST, 0).into(),
            Self::Mapped => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0).into(),
        }
    }
}

/// TCP or MPTCP.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A plain TCP socket.
    Tcp,
    /// An MPTCP socket.
    Mptcp,
}

/// Opens a socket.
///
/// # Errors
///
/// What the kernel refuses with.
pub fn open(kind: Kind, family: Family) -> io::Result<Socket> {
    let protocol = match kind {
        Kind::Tcp => Protocol::TCP,
        Kind::Mptcp => Protocol::MPTCP,
    };
    Socket::new(family.domain(), Type::STREAM, Some(protocol))
}

/// Binds to an address that the kernel may still be setting up, as it does with IPv6.
///
/// # Errors
///
/// What the kernel refuses with.
pub fn bind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match socket.bind(&address.into()) {
            Err(why)
                if why.kind() == io::ErrorKind::AddrNotAvailable
                    && start.elapsed() < ADDRESS_DELAY_MAX =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

/// A socket that listens on loopback.
///
/// # Errors
///
/// Says which step failed.
pub fn listen(kind: Kind, family: Family) -> anyhow::Result<Socket> {
    let socket = open(kind, family).context("cannot open a socket to listen with")?;
    socket
        .bind(&family.loopback().into())
        .context("cannot bind to loopback")?;
    socket.listen(16).context("cannot listen")?;
    Ok(socket)
}

/// A connection over loopback: what connected, what was accepted.
///
/// # Errors
///
/// Says which step failed.
pub fn pair(client: Kind, listener: &Socket, family: Family) -> anyhow::Result<(Socket, Socket)> {
    let client = open(client, family).context("cannot open a socket to connect with")?;
    let address = listener
        .local_addr()
        .context("cannot tell where it listens")?;
    client
        .connect(&address)
        .context("cannot connect over loopback")?;
    let (server, _peer) = accept(listener)?;
    Ok((client, server))
}

/// Accepts, but does not wait for ever.
///
/// # Errors
///
/// Says that nobody connected.
pub fn accept(listener: &Socket) -> anyhow::Result<(Socket, SockAddr)> {
    wait_readable(listener).context("nobody connected")?;
    listener.accept().context("cannot accept")
}

/// Sends something from one end to the other, and waits until it is there.
///
/// # Errors
///
/// Fails if something else arrives, or nothing.
pub fn say(mut from: &Socket, mut to: &Socket) -> anyhow::Result<()> {
    const WORDS: &[u8] = b"data of the lab";
    from.write_all(WORDS).context("cannot send")?;
    let mut heard = [0; WORDS.len()];
    let mut length = 0;
    while length < WORDS.len() {
        wait_readable(to).context("what was sent does not arrive")?;
        let read = to.read(&mut heard[length..]).context("cannot receive")?;
        ensure!(read > 0, "the connection ended");
        length += read;
    }
    ensure!(heard == WORDS, "something else arrives than was sent");
    Ok(())
}

fn wait_readable(socket: &Socket) -> anyhow::Result<()> {
    let timeout = Timespec::try_from(PATIENCE)?;
    let ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout))?;
    ensure!(ready == 1, "nothing within {} s", PATIENCE.as_secs());
    Ok(())
}

/// The address as the tracer writes it; none if it is no IP address.
#[must_use]
pub fn endpoint(address: &SockAddr) -> Option<Endpoint> {
    address.as_socket().map(Endpoint::from)
}

/// The endpoint of what has no address yet.
#[must_use]
pub fn nowhere(domain: Domain) -> Option<Endpoint> {
    let address: IpAddr = match domain {
        Domain::IPV4 => Ipv4Addr::UNSPECIFIED.into(),
        Domain::IPV6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, 0).into())
}
