//! The peer of a probe.

use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use crate::{
    boxes::nft,
    chain::Chain,
    net::{self, Family, Kind},
    netns,
};

/// What the peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    /// It speaks MPTCP.
    Mptcp,
    /// It speaks TCP only.
    Tcp,
    /// Nothing listens.
    Closed,
    /// It drops all packets.
    Silent,
}

/// A server that reads to the end, and closes.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Port of the server: the chain is its own.
const PORT: u16 = 8443;

impl Server {
    pub(crate) fn start(chain: &Chain, family: Family, peer: Peer) -> anyhow::Result<Self> {
        let address = SocketAddr::new(chain.server_address(family), PORT);
        let kind = match peer {
            Peer::Mptcp => Some(Kind::Mptcp),
            Peer::Tcp => Some(Kind::Tcp),
            Peer::Closed | Peer::Silent => None,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let mut thread = None;
        if let Some(kind) = kind {
            let listener = listen(chain, kind, family, address.ip())?;
            let until = Arc::clone(&stop);
            thread = Some(std::thread::spawn(move || serve(&listener, &until)));
        }
        if peer == Peer::Silent {
            netns::within(chain.server(), || {
                nft("add table inet lab; \
                     add chain inet lab silence { type filter hook input priority 0; policy drop; }; \
                     add rule inet lab silence meta l4proto ipv6-icmp accept")
            })?;
        }
        Ok(Self {
            address,
            stop,
            thread,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed.
            let _panic = thread.join();
        }
    }
}

fn listen(chain: &Chain, kind: Kind, family: Family, at: IpAddr) -> anyhow::Result<Socket> {
    netns::within(chain.server(), || {
        let socket = net::open(kind, family).context("cannot open the server's socket")?;
        net::bind(&socket, SocketAddr::new(at, PORT)).context("cannot bind the server")?;
        socket.listen(16).context("the server cannot listen")?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

fn serve(listener: &Socket, stop: &AtomicBool) {
    const INTERVAL: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    /// Until a client is given up.
    const TIMEOUT: Duration = Duration::from_secs(2);
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut ready, Some(&INTERVAL)).is_err() {
            return;
        }
        let Ok((client, _peer)) = listener.accept() else {
            continue;
        };
        let _unlimited = client.set_read_timeout(Some(TIMEOUT));
        let _blocking = client.set_nonblocking(false);
        let mut received = Vec::new();
        // A client that resets the connection has ended it too.
        let _reset = (&client).read_to_end(&mut received);
        if !received.is_empty() {
            eprintln!("probed: THE SERVER RECEIVED {} BYTES", received.len());
            std::process::exit(1);
        }
    }
}
