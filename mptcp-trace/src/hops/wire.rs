//! Sends and receives with raw sockets, which need `CAP_NET_RAW`.

use std::{
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    rand::{GetRandomFlags, getrandom},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{
    evidence::Ends,
    packet::{Packet, Secrets},
    survey::{Opened, Wire},
};
use crate::host::system::ask_is_mptcp;

/// From where packets are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// From this address.
    pub source: Option<IpAddr>,
    /// Through this interface.
    pub interface: Option<String>,
}

impl Choice {
    fn apply(&self, socket: &Socket) -> anyhow::Result<()> {
        if let Some(name) = &self.interface {
            socket
                .bind_device(Some(name.as_bytes()))
                .with_context(|| format!("cannot send through the interface {name:?}"))?;
        }
        if let Some(source) = self.source {
            socket
                .bind(&SocketAddr::new(source, 0).into())
                .with_context(|| format!("cannot send from {source}"))?;
        }
        Ok(())
    }
}

/// The address from which this host sends to a peer. Sends nothing.
///
/// # Errors
///
/// Fails if the choice is not of this host, or if there is no route.
pub fn source_for(to: SocketAddr, choice: &Choice) -> anyhow::Result<IpAddr> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))
        .context("cannot open a socket")?;
    choice.apply(&socket)?;
    socket
        .connect(&to.into())
        .with_context(|| match &choice.interface {
            Some(name) => format!("there is no route to {} through {name:?}", to.ip()),
            None => format!("there is no route to {}", to.ip()),
        })?;
    let local = socket
        .local_addr()
        .context("cannot read the local address")?;
    let local = local
        .as_socket()
        .context("the local address is no IP address")?;
    Ok(local.ip())
}

/// Whether this process may open raw sockets.
///
/// # Errors
///
/// Fails if that is unknown.
pub fn may_send() -> anyhow::Result<bool> {
    match Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)) {
        Ok(_) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(why) => Err(why).context("cannot open a raw socket"),
    }
}

/// Raw sockets, and a connection.
pub struct RawWire<'a> {
    ends: Ends,
    choice: Choice,
    sender: Socket,
    receiver: Socket,
    connection: Option<Socket>,
    mark: &'a dyn Fn(BorrowedFd<'_>),
    show: &'a mut dyn FnMut(&str),
}

/// The longest packet that is read: quotes are short.
const PACKET_BYTES_MAX: usize = 2_048;

impl<'a> RawWire<'a> {
    /// Opens the sockets. `mark` gets the socket of the connection before it connects: an instance that
    /// traces must not take it for that of an application.
    ///
    /// # Errors
    ///
    /// Fails without `CAP_NET_RAW`, or with the kernel's error.
    pub fn new(
        ends: Ends,
        choice: Choice,
        mark: &'a dyn Fn(BorrowedFd<'_>),
        show: &'a mut dyn FnMut(&str),
    ) -> anyhow::Result<Self> {
        /// `IPPROTO_RAW`: packets contain their IP header.
        const RAW: i32 = 255;
        /// Of packets that arrive, in network byte order.
        const IPV4: u16 = 0x0800_u16.to_be();
        const IPV6: u16 = 0x86dd_u16.to_be();
        let (domain, protocol) = match ends.destination {
            IpAddr::V4(_) => (Domain::IPV4, IPV4),
            IpAddr::V6(_) => (Domain::IPV6, IPV6),
        };
        let sender = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))
            .context("cannot open a raw socket")?;
        choice.apply(&sender)?;
        let receiver = Socket::new(
            Domain::PACKET,
            Type::DGRAM,
            Some(i32::from(protocol).into()),
        )
        .context("cannot open a packet socket")?;
        receiver
            .attach_filter(&filter(ends.destination))
            .context("cannot filter the packets that arrive")?;
        receiver.set_nonblocking(true)?;
        Ok(Self {
            ends,
            choice,
            sender,
            receiver,
            connection: None,
            mark,
            show,
        })
    }
}

impl Wire for RawWire<'_> {
    fn send(&mut self, packet: &Packet) -> anyhow::Result<()> {
        let to = SocketAddr::new(self.ends.destination, 0);
        let sent = self.sender.send_to(&packet.bytes, &to.into());
        sent.with_context(|| format!("cannot send a packet to {}", to.ip()))?;
        Ok(())
    }

    fn receive(&mut self, until: Instant) -> anyhow::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        loop {
            match (&self.receiver).read(&mut bytes) {
                Ok(length) => {
                    bytes.truncate(length);
                    return Ok(Some(bytes));
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                // An interface went down.
                Err(why) if why.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(why) => return Err(why).context("cannot receive packets"),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let timeout = Timespec::try_from(left).context("the timeout is too long")?;
            let mut ready = [PollFd::new(&self.receiver, PollFlags::IN)];
            match poll(&mut ready, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(why) => return Err(why).context("cannot wait for packets"),
            }
        }
    }

    fn secrets(&mut self) -> anyhow::Result<Secrets> {
        /// Ports that nobody is assigned to, and that systems use for connections.
        const PORTS: std::ops::Range<u16> = 33_000..60_000;
        /// Number of random bytes.
        const BYTES: usize = 22;
        let mut random = [0; BYTES];
        getrandom(&mut random, GetRandomFlags::empty())
            .context("the kernel has no random bytes")?;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, join @ ..] = random;
        let port = u16::from_be_bytes([a, b]) % PORTS.len() as u16;
        let id = u32::from_be_bytes([0, k, l, m]);
        // 16 bits in IPv4; 0 would let the kernel choose. 20 bits in IPv6.
        let id = match self.ends.destination {
            IpAddr::V4(_) => (id & 0xffff).max(1),
            IpAddr::V6(_) => id & 0xf_ffff,
        };
        Ok(Secrets {
            port: PORTS.start + port,
            sequence: u32::from_be_bytes([c, d, e, f]),
            timestamp: u32::from_be_bytes([g, h, i, j]) ^ u32::from(n),
            id,
            join,
        })
    }

    fn open(&mut self, timeout: Duration) -> anyhow::Result<Opened> {
        let to = SocketAddr::new(self.ends.destination, self.ends.port);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::MPTCP))
            .context("this kernel opens no MPTCP socket")?;
        (self.mark)(socket.as_fd());
        let own = Choice {
            source: Some(self.ends.source),
            interface: self.choice.interface.clone(),
        };
        own.apply(&socket)?;
        socket
            .connect_timeout(&to.into(), timeout)
            .context("cannot connect")?;
        let local = socket
            .local_addr()
            .context("cannot read the local address")?;
        let local = local
            .as_socket()
            .context("the local address is no IP address")?;
        let is_mptcp = ask_is_mptcp(&socket).ok().map(|it| it != 0);
        self.connection = Some(socket);
        Ok(Opened {
            port: local.port(),
            is_mptcp,
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        match &self.connection {
            Some(socket) => match socket.shutdown(Shutdown::Write) {
                // The peer was faster.
                Err(why) if why.kind() != io::ErrorKind::NotConnected => {
                    Err(why).context("cannot end the connection")
                }
                Ok(()) | Err(_) => Ok(()),
            },
            None => Ok(()),
        }
    }

    fn progress(&mut self, what: &str) {
        (self.show)(what);
    }
}

/// A filter in the kernel: packets from the peer, and reports about packets.
fn filter(peer: IpAddr) -> Vec<SockFilter> {
    match peer {
        IpAddr::V4(peer) => filter_v4(peer),
        IpAddr::V6(peer) => filter_v6(peer),
    }
}

/// Classic BPF: load a word or a byte, compare, return.
mod bpf {
    pub(super) const WORD: u16 = 0x20;
    pub(super) const BYTE: u16 = 0x30;
    pub(super) const IS: u16 = 0x15;
    pub(super) const RETURN: u16 = 0x06;
}

const ACCEPT: SockFilter = SockFilter::new(bpf::RETURN, 0, 0, PACKET_BYTES_MAX as u32);
const REFUSE: SockFilter = SockFilter::new(bpf::RETURN, 0, 0, 0);

fn filter_v4(peer: Ipv4Addr) -> Vec<SockFilter> {
    const PROTOCOL_AT: u32 = 9;
    const SOURCE_AT: u32 = 12;
    const ICMP: u32 = 1;
    vec![
        SockFilter::new(bpf::BYTE, 0, 0, PROTOCOL_AT),
        SockFilter::new(bpf::IS, 2, 0, ICMP),
        SockFilter::new(bpf::WORD, 0, 0, SOURCE_AT),
        SockFilter::new(bpf::IS, 0, 1, peer.to_bits()),
        ACCEPT,
        REFUSE,
    ]
}

fn filter_v6(peer: Ipv6Addr) -> Vec<SockFilter> {
    const NEXT_HEADER_AT: u32 = 6;
    const SOURCE_AT: u32 = 8;
    const ICMPV6: u32 = 58;
    let mut all = vec![
        SockFilter::new(bpf::BYTE, 0, 0, NEXT_HEADER_AT),
        SockFilter::new(bpf::IS, 8, 0, ICMPV6),
    ];
    let bits = peer.to_bits();
    for (index, shift) in [96, 64, 32, 0].into_iter().enumerate() {
        let at = SOURCE_AT + 4 * index as u32;
        let refuse = 7 - 2 * index as u8;
        all.push(SockFilter::new(bpf::WORD, 0, 0, at));
        all.push(SockFilter::new(bpf::IS, 0, refuse, (bits >> shift) as u32));
    }
    all.extend([ACCEPT, REFUSE]);
    all
}
