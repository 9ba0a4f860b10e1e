//! A middlebox that meddles with MPTCP, between a client in this network namespace and a server in another.
//!
//! Each namespace has a TUN device, and one thread carries packets from one to the other. On the way it may
//! replace MPTCP options by padding, as middleboxes do in the field, or worse ([`Rules`]). Loopback would be no substitute: there
//! the kernel hands the parsed option along with the packet, and does not miss what the header has lost.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use crate::{
    link,
    net::{self, Family, Kind, open},
    netns,
    packet::{self, Place, Verdict},
    rules::Rules,
    veth::{CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6},
};

/// Name of the device in both namespaces.
const DEVICE: &str = "lab0";

/// Longest packet, header included.
const PACKET_BYTES_MAX: usize = 65_536;
/// How long the thread sleeps before it looks whether it shall end.
const NAP: Duration = Duration::from_millis(20);

/// Connections that are counted at a time; beyond, all of them are forgotten.
const CONNECTIONS_MAX: usize = 100_000;

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    ToServer,
    ToClient,
}

/// How many data packets of each connection have gone each way.
#[derive(Default)]
struct Counts(HashMap<(Place, Place), [u32; 2]>);

impl Counts {
    /// Counts a packet and treats it.
    fn treat(&mut self, packet: &mut [u8], direction: Direction, rules: Rules) -> Verdict {
        let (Some(kind), Some((from, to))) = (packet::kind(packet), packet::places(packet)) else {
            return Verdict::Pass;
        };
        let (connection, way, treatment) = match direction {
            Direction::ToServer => ((from, to), 0, rules.to_server),
            Direction::ToClient => ((to, from), 1, rules.to_client),
        };
        if self.0.len() >= CONNECTIONS_MAX && !self.0.contains_key(&connection) {
            self.0.clear();
        }
        let counts = self.0.entry(connection).or_default();
        if kind.is_first && direction == Direction::ToServer {
            *counts = [0; 2];
        }
        counts[way] += u32::from(kind.is_data);
        packet::treat(packet, treatment, counts[way])
    }
}

/// Two network namespaces and what is between them. Dropping it ends the thread and takes the devices away.
pub struct Middlebox {
    rules: Arc<Mutex<Rules>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The client's network namespace.
    near: File,
    /// The server's network namespace.
    far: File,
}

impl Middlebox {
    /// Makes the devices, one of them in this thread's network namespace, and lets everything pass.
    ///
    /// # Errors
    ///
    /// Fails if there is no TUN driver, or this is not root.
    pub fn new() -> anyhow::Result<Self> {
        let near = netns::current()?;
        let near_device = device(CLIENT_V4, CLIENT_V6)?;
        let (far, far_device) = netns::elsewhere(|| {
            link::enter_network_namespace().context("cannot make a network namespace")?;
            Ok((netns::current()?, device(SERVER_V4, SERVER_V6)?))
        })?;
        let rules = Arc::new(Mutex::new(Rules::NONE));
        let over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (rules, over) = (Arc::clone(&rules), Arc::clone(&over));
            std::thread::Builder::new()
                .name("middlebox".into())
                .spawn(move || {
                    if let Err(why) = carry(&near_device, &far_device, &rules, &over) {
                        eprintln!("mptcp-lab: the middlebox ended: {why}");
                    }
                })
                .context("cannot start the middlebox")?
        };
        Ok(Self {
            rules,
            over,
            thread: Some(thread),
            near,
            far,
        })
    }

    /// From now on, do this.
    pub fn set(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// The client's network namespace.
    #[must_use]
    pub fn near(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }

    /// The server's network namespace.
    #[must_use]
    pub fn far(&self) -> BorrowedFd<'_> {
        self.far.as_fd()
    }

    /// A socket that listens in the server's namespace.
    ///
    /// # Errors
    ///
    /// Says which step failed.
    pub fn listen(&self, kind: Kind, family: Family) -> anyhow::Result<Socket> {
        netns::within(self.far(), || {
            let socket = open(kind, family).context("cannot open a socket to listen with")?;
            net::bind(&socket, (server_address(family), 0).into())
                .context("cannot bind to the TUN device")?;
            socket.listen(16).context("cannot listen")?;
            Ok(socket)
        })
    }

    /// A connection through the middlebox: what connected, what was accepted.
    ///
    /// # Errors
    ///
    /// Says which step failed.
    pub fn pair(
        &self,
        kind: Kind,
        listener: &Socket,
        family: Family,
    ) -> anyhow::Result<(Socket, Socket)> {
        let client = open(kind, family).context("cannot open a socket to connect with")?;
        net::bind(&client, (client_address(family), 0).into())
            .context("cannot bind to the TUN device")?;
        let address = listener
            .local_addr()
            .context("cannot tell where it listens")?;
        client
            .connect(&address)
            .context("cannot connect through the middlebox")?;
        let (server, _peer) = net::accept(listener)?;
        Ok((client, server))
    }
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It says itself why it ended.
            let _panicked = thread.join();
        }
    }
}

/// Where clients are.
#[must_use]
pub fn client_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => CLIENT_V4.into(),
        Family::V6 => CLIENT_V6.into(),
        Family::Mapped => CLIENT_V4.to_ipv6_mapped().into(),
    }
}

/// Where servers are.
#[must_use]
pub fn server_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => SERVER_V4.into(),
        Family::V6 => SERVER_V6.into(),
        Family::Mapped => SERVER_V4.to_ipv6_mapped().into(),
    }
}

fn device(v4: Ipv4Addr, v6: Ipv6Addr) -> anyhow::Result<File> {
    let tun = link::open_tun(DEVICE).context("cannot make a TUN device (CONFIG_TUN)")?;
    link::set_address_v4(DEVICE, v4).context("cannot give the TUN device an address")?;
    link::bring_up(DEVICE).context("cannot bring the TUN device up")?;
    link::set_address_v6(DEVICE, v6).context("cannot give the TUN device an IPv6 address")?;
    Ok(tun)
}

/// Carries packets until it is over.
fn carry(near: &File, far: &File, rules: &Mutex<Rules>, over: &AtomicBool) -> anyhow::Result<()> {
    let nap = Timespec::try_from(NAP)?;
    let mut counts = Counts::default();
    let mut packet = vec![0; PACKET_BYTES_MAX];
    while !over.load(Ordering::Relaxed) {
        let mut ready = [near, far].map(|device| PollFd::new(device, PollFlags::IN));
        match poll(&mut ready, Some(&nap)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why).context("cannot wait for packets"),
        }
        let ready = ready.map(|device| device.revents().contains(PollFlags::IN));
        for (is_ready, direction, mut from, mut to) in [
            (ready[0], Direction::ToServer, near, far),
            (ready[1], Direction::ToClient, far, near),
        ] {
            if !is_ready {
                continue;
            }
            let length = from
                .read(&mut packet)
                .context("cannot read from a TUN device")?;
            let packet = &mut packet[..length];
            let rules = *rules.lock().unwrap_or_else(PoisonError::into_inner);
            match counts.treat(packet, direction, rules) {
                Verdict::Pass => {}
                Verdict::Drop => continue,
            }
            let written = to.write(packet).context("cannot write to a TUN device")?;
            ensure!(written == length, "a TUN device took half a packet");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Treatment;

    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

    /// A packet from 10.77.0.1:PORT to 10.77.0.2:80, or back, with an MPTCP option.
    fn packet(direction: Direction, port: u16, flags: u8, data: &[u8]) -> Vec<u8> {
        let ports = match direction {
            Direction::ToServer => [port, 80],
            Direction::ToClient => [80, port],
        };
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
        let (from, to) = match direction {
            Direction::ToServer => (CLIENT_V4, SERVER_V4),
            Direction::ToClient => (SERVER_V4, CLIENT_V4),
        };
        packet.extend([from, to].map(|address| address.octets()).concat());
        packet.extend(ports.map(u16::to_be_bytes).concat());
        packet.extend([0, 0, 0, 0, 0, 0, 0, 0, 6 << 4, flags, 0, 0, 0, 0, 0, 0]);
        packet.extend([30, 4, 0, 0]);
        packet.extend(data);
        packet
    }

    /// Whether the rules change this packet.
    fn changes(
        counts: &mut Counts,
        rules: Rules,
        way: Direction,
        port: u16,
        flags: u8,
        data: &[u8],
    ) -> bool {
        let before = packet(way, port, flags, data);
        let mut after = before.clone();
        counts.treat(&mut after, way, rules) == Verdict::Drop || before != after
    }

    #[test]
    fn each_rule_means_its_own_packets_only() {
        use Direction::{ToClient, ToServer};
        let syn = Treatment {
            strip_syn: true,
            ..Treatment::NONE
        };
        let rest = Treatment {
            strip_from: Some(0),
            ..Treatment::NONE
        };
        let none = Rules::NONE;
        let of = |to_server, to_client| Rules {
            to_server,
            to_client,
        };
        let rows = [
            (of(syn, none.to_client), ToServer, SYN),
            (of(none.to_server, syn), ToClient, SYN | ACK),
            (of(rest, none.to_client), ToServer, ACK),
            (of(none.to_server, rest), ToClient, ACK),
        ];
        for (rules, direction, flags) in rows {
            for (other, other_flags) in [
                (ToServer, SYN),
                (ToClient, SYN | ACK),
                (ToServer, ACK),
                (ToClient, ACK),
            ] {
                let mut counts = Counts::default();
                let changed = changes(&mut counts, rules, other, 1, other_flags, b"");
                let meant = (other, other_flags) == (direction, flags);
                assert_eq!(changed, meant, "{rules:?} {other:?} {other_flags}");
                assert!(!changes(&mut counts, none, other, 1, other_flags, b""));
            }
        }
    }

    #[test]
    fn each_connection_and_each_way_is_counted_by_itself_from_its_syn_on() {
        use Direction::{ToClient, ToServer};
        let second = Treatment {
            strip_from: Some(2),
            ..Treatment::NONE
        };
        let rules = Rules {
            to_server: second,
            to_client: second,
        };
        let mut counts = Counts::default();
        let mut data = |way, port| changes(&mut counts, rules, way, port, ACK, b"data");
        assert!(!data(ToServer, 1));
        assert!(!data(ToServer, 2), "another connection");
        assert!(!data(ToClient, 1), "another way");
        assert!(data(ToServer, 1));
        assert!(data(ToClient, 1));
        assert!(!changes(&mut counts, rules, ToServer, 1, SYN, b""));
        for way in [ToServer, ToClient] {
            assert!(!changes(&mut counts, rules, way, 1, ACK, b""), "a pure ACK");
            assert!(
                !changes(&mut counts, rules, way, 1, ACK, b"data"),
                "a new one"
            );
        }
        assert!(changes(&mut counts, rules, ToServer, 2, ACK, b"data"));
    }
}
