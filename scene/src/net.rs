//! Sockets and addresses for the test cases.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// An address and a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
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

/// Timeout for one packet: an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// Timeout until a new IPv6 address becomes usable.
const ADDRESS_DELAY_MAX: Duration = Duration::from_secs(5);

/// Address family of a case's sockets.
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
    /// One family for each address length.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// All families.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    /// Suffix of a case's name.
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

    /// Domain of its sockets.
    #[must_use]
    pub fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 | Self::Mapped => Domain::IPV6,
        }
    }

    /// Loopback address with port 0.
    #[must_use]
    pub fn loopback(self) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::LOCALHOST, 0).into(),
            Self::V6 => (Ipv6Addr::LOCALHOST, 0).into(),
            Self::Mapped => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0).into(),
        }
    }
}

/// Protocol of a socket.
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
/// Fails with the kernel's error.
pub fn open(kind: Kind, family: Family) -> io::Result<Socket> {
    let protocol = match kind {
        Kind::Tcp => Protocol::TCP,
        Kind::Mptcp => Protocol::MPTCP,
    };
    Socket::new(family.domain(), Type::STREAM, Some(protocol))
}

/// Binds to an address; retries while the kernel is still setting it up, as it does with IPv6.
///
/// # Errors
///
/// Fails with the kernel's error.
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

/// Opens a socket that listens on loopback.
///
/// # Errors
///
/// Names the step that failed.
pub fn listen(kind: Kind, family: Family) -> anyhow::Result<Socket> {
    let socket = open(kind, family).context("cannot open a socket to listen with")?;
    socket
        .bind(&family.loopback().into())
        .context("cannot bind to loopback")?;
    socket.listen(16).context("cannot listen")?;
    Ok(socket)
}

/// Opens a connection over loopback; returns the connecting and the accepted socket.
///
/// # Errors
///
/// Names the step that failed.
pub fn pair(client: Kind, listener: &Socket, family: Family) -> anyhow::Result<(Socket, Socket)> {
    let client = open(client, family).context("cannot open a socket to connect with")?;
    let address = listener
        .local_addr()
        .context("cannot read the listener's address")?;
    client
        .connect(&address)
        .context("cannot connect over loopback")?;
    let (server, _peer) = accept(listener)?;
    Ok((client, server))
}

/// Accepts a connection, with a timeout.
///
/// # Errors
///
/// Fails if no client connects in time.
pub fn accept(listener: &Socket) -> anyhow::Result<(Socket, SockAddr)> {
    wait_readable(listener).context("no client connected")?;
    listener.accept().context("cannot accept")
}

/// Sends a message from one end to the other and waits until it arrives.
///
/// # Errors
///
/// Fails if other data arrives, or none.
pub fn say(mut from: &Socket, mut to: &Socket) -> anyhow::Result<()> {
    const WORDS: &[u8] = b"data of the lab";
    from.write_all(WORDS).context("cannot send")?;
    let mut heard = [0; WORDS.len()];
    let mut length = 0;
    while length < WORDS.len() {
        wait_readable(to).context("the data sent does not arrive")?;
        let read = to.read(&mut heard[length..]).context("cannot receive")?;
        ensure!(read > 0, "the connection ended");
        length += read;
    }
    ensure!(heard == WORDS, "other data arrives than was sent");
    Ok(())
}

fn wait_readable(socket: &Socket) -> anyhow::Result<()> {
    let timeout = Timespec::try_from(PATIENCE)?;
    let ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout))?;
    ensure!(ready == 1, "nothing within {} s", PATIENCE.as_secs());
    Ok(())
}

/// The address in the tracer's notation; none for other address families.
#[must_use]
pub fn endpoint(address: &SockAddr) -> Option<Endpoint> {
    address.as_socket().map(Endpoint::from)
}

/// The endpoint of a socket without an address.
#[must_use]
pub fn nowhere(domain: Domain) -> Option<Endpoint> {
    let address: IpAddr = match domain {
        Domain::IPV4 => Ipv4Addr::UNSPECIFIED.into(),
        Domain::IPV6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, 0).into())
}
