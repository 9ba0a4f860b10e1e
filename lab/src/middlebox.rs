//! A middlebox that strips MPTCP, between a client in this network namespace and a server in another.
//!
//! Each namespace has a TUN device, and one thread carries packets from one to the other. On the way it may
//! replace MPTCP options by padding, as middleboxes do in the field. Loopback would be no substitute: there
//! the kernel hands the parsed option along with the packet, and does not miss what the header has lost.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use socket2::Socket;

use crate::{
    link,
    net::{self, Family, Kind, open},
    packet,
};

/// Name of the device in both namespaces.
const DEVICE: &str = "lab0";
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// Longest packet, header included.
const PACKET_BYTES_MAX: usize = 65_536;
/// How long the thread sleeps before it looks whether it shall end.
const NAP: Duration = Duration::from_millis(20);
/// Longest that a fresh IPv6 address may take to become usable.
const ADDRESS_DELAY_MAX: Duration = Duration::from_secs(5);

/// Which packets lose their MPTCP options.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Strip {
    /// The client's SYN.
    pub syn: bool,
    /// The server's SYN/ACK.
    pub syn_ack: bool,
    /// What the client sends after its SYN.
    pub from_client: bool,
    /// What the server sends after its SYN/ACK.
    pub from_server: bool,
}

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    ToServer,
    ToClient,
}

impl Strip {
    fn applies(self, direction: Direction, is_syn: bool) -> bool {
        match (direction, is_syn) {
            (Direction::ToServer, true) => self.syn,
            (Direction::ToServer, false) => self.from_client,
            (Direction::ToClient, true) => self.syn_ack,
            (Direction::ToClient, false) => self.from_server,
        }
    }
}

/// Two network namespaces and what is between them. Dropping it ends the thread and takes the devices away.
pub struct Middlebox {
    strip: Arc<Mutex<Strip>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
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
        let near = device(CLIENT_V4, CLIENT_V6)?;
        let (far, far_device) = elsewhere(|| {
            link::enter_network_namespace().context("cannot make a network namespace")?;
            let namespace = File::open("/proc/thread-self/ns/net")
                .context("cannot open the network namespace")?;
            Ok((namespace, device(SERVER_V4, SERVER_V6)?))
        })?;
        let strip = Arc::new(Mutex::new(Strip::default()));
        let over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (strip, over) = (Arc::clone(&strip), Arc::clone(&over));
            std::thread::Builder::new()
                .name("middlebox".into())
                .spawn(move || {
                    if let Err(why) = carry(&near, &far_device, &strip, &over) {
                        eprintln!("mptcp-lab: the middlebox ended: {why}");
                    }
                })
                .context("cannot start the middlebox")?
        };
        Ok(Self {
            strip,
            over,
            thread: Some(thread),
            far,
        })
    }

    /// From now on, strip these.
    pub fn strip(&self, strip: Strip) {
        *self.strip.lock().unwrap_or_else(PoisonError::into_inner) = strip;
    }

    /// A socket that listens in the server's namespace.
    ///
    /// # Errors
    ///
    /// Says which step failed.
    pub fn listen(&self, kind: Kind, family: Family) -> anyhow::Result<Socket> {
        elsewhere(|| {
            move_into_link_name_space(self.far.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the server's network namespace")?;
            let socket = open(kind, family).context("cannot open a socket to listen with")?;
            bind(&socket, server_address(family)).context("cannot bind to the TUN device")?;
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
        bind(&client, client_address(family)).context("cannot bind to the TUN device")?;
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

fn client_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => CLIENT_V4.into(),
        Family::V6 => CLIENT_V6.into(),
        Family::Mapped => CLIENT_V4.to_ipv6_mapped().into(),
    }
}

fn server_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => SERVER_V4.into(),
        Family::V6 => SERVER_V6.into(),
        Family::Mapped => SERVER_V4.to_ipv6_mapped().into(),
    }
}

/// The kernel may still be setting a fresh IPv6 address up.
fn bind(socket: &Socket, address: IpAddr) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match socket.bind(&SocketAddr::new(address, 0).into()) {
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

/// Does something on a thread of its own, which may change its network namespace.
fn elsewhere<T: Send>(act: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| scope.spawn(act).join())
        .map_err(|_panic| anyhow!("a thread of the middlebox panicked"))?
}

fn device(v4: Ipv4Addr, v6: Ipv6Addr) -> anyhow::Result<File> {
    let tun = link::open_tun(DEVICE).context("cannot make a TUN device (CONFIG_TUN)")?;
    link::set_address_v4(DEVICE, v4).context("cannot give the TUN device an address")?;
    link::bring_up(DEVICE).context("cannot bring the TUN device up")?;
    link::set_address_v6(DEVICE, v6).context("cannot give the TUN device an IPv6 address")?;
    Ok(tun)
}

/// Carries packets until it is over.
fn carry(near: &File, far: &File, strip: &Mutex<Strip>, over: &AtomicBool) -> anyhow::Result<()> {
    let nap = Timespec::try_from(NAP)?;
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
            let strip = *strip.lock().unwrap_or_else(PoisonError::into_inner);
            if packet::is_syn(packet).is_some_and(|is_syn| strip.applies(direction, is_syn)) {
                packet::strip_mptcp(packet);
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

    #[test]
    fn each_rule_means_its_own_packets_only() {
        let none = Strip::default();
        let rows = [
            (Strip { syn: true, ..none }, Direction::ToServer, true),
            (
                Strip {
                    syn_ack: true,
                    ..none
                },
                Direction::ToClient,
                true,
            ),
            (
                Strip {
                    from_client: true,
                    ..none
                },
                Direction::ToServer,
                false,
            ),
            (
                Strip {
                    from_server: true,
                    ..none
                },
                Direction::ToClient,
                false,
            ),
        ];
        for (strip, direction, is_syn) in rows {
            for other in [Direction::ToServer, Direction::ToClient] {
                for syn in [true, false] {
                    let meant = (other, syn) == (direction, is_syn);
                    assert_eq!(
                        strip.applies(other, syn),
                        meant,
                        "{strip:?} {other:?} {syn}"
                    );
                    assert!(!none.applies(other, syn));
                }
            }
        }
    }
}
