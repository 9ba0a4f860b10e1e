//! Sockets as the cases need them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
};

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

/// What a case's sockets are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
    /// `AF_INET6` with IPv4-mapped addresses.
    Mapped,
}

impl Family {
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

    fn domain(self) -> Domain {
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    let (server, _peer) = listener.accept().context("cannot accept over loopback")?;
    Ok((client, server))
}

/// Our own address of a socket; unspecified where it has none.
#[must_use]
pub fn local(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

/// The address of the other end, if there is one.
#[must_use]
pub fn remote(socket: &Socket) -> Option<SocketAddr> {
    socket.peer_addr().ok()?.as_socket()
}

/// Inode number of an open file.
#[must_use]
pub fn inode(socket: &Socket) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    link.to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}
