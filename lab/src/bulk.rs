//! `mptcp-lab bulk`: a bulk transfer over MPTCP between two network namespaces, for what tracing costs it.

use std::{
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::{
    net::{Family, Kind, open},
    netns, report,
    veth::{self, End},
    xdp::{CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6},
};

/// How to transfer.
#[derive(clap::Args)]
pub struct Args {
    /// For how long, seconds
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Bytes that are handed over at a time
    #[arg(long, default_value_t = 65_536)]
    pub chunk: usize,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// Bytes that arrived.
    pub bytes: u64,
    /// How long that took, seconds.
    pub seconds: f64,
}

impl Transfer {
    /// Megabytes (10^6 bytes) a second.
    #[must_use]
    pub fn megabytes_per_second(self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }
}

/// Transfers once, and prints what came of it as a line of JSON.
///
/// # Errors
///
/// Says which step failed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let transfer = transfer(args)?;
    report::write_line(&mut std::io::stdout(), &transfer)
}

/// Transfers once.
///
/// # Errors
///
/// Says which step failed.
pub fn transfer(args: &Args) -> anyhow::Result<Transfer> {
    let (near, far) = (veth::namespace()?, veth::namespace()?);
    veth::join([
        End {
            namespace: near.as_fd(),
            v4: CLIENT_V4,
            v6: CLIENT_V6,
        },
        End {
            namespace: far.as_fd(),
            v4: SERVER_V4,
            v6: SERVER_V6,
        },
    ])?;
    let listener = at(far.as_fd(), SERVER_V4)?;
    listener.listen(1).context("cannot listen")?;
    let address = listener.local_addr().context("cannot tell where it listens")?;
    let client = at(near.as_fd(), CLIENT_V4)?;
    client.connect(&address).context("cannot connect")?;
    let (server, _peer) = listener.accept().context("cannot accept")?;
    pump(&client, &server, args)
}

fn pump(mut client: &Socket, mut server: &Socket, args: &Args) -> anyhow::Result<Transfer> {
    let over = AtomicBool::new(false);
    let chunk = vec![0_u8; args.chunk];
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| -> anyhow::Result<()> {
            while !over.load(Ordering::Relaxed) {
                client.write_all(&chunk).context("cannot send")?;
            }
            client.shutdown(std::net::Shutdown::Write).context("cannot end")
        });
        let mut buffer = vec![0_u8; args.chunk];
        // The first packets find everything cold.
        let warm = Instant::now();
        while warm.elapsed() < Duration::from_millis(200) {
            server.read_exact(&mut buffer).context("cannot receive")?;
        }
        let (started, mut bytes) = (Instant::now(), 0);
        while started.elapsed().as_secs_f64() < args.seconds {
            server.read_exact(&mut buffer).context("cannot receive")?;
            bytes += buffer.len() as u64;
        }
        let seconds = started.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        while server.read(&mut buffer).context("cannot receive")? > 0 {}
        sending
            .join()
            .map_err(|_panic| anyhow::anyhow!("the sender panicked"))??;
        Ok(Transfer { bytes, seconds })
    })
}

fn at(namespace: BorrowedFd<'_>, address: std::net::Ipv4Addr) -> anyhow::Result<Socket> {
    netns::within(namespace, || {
        let socket = open(Kind::Mptcp, Family::V4).context("cannot open an MPTCP socket")?;
        socket
            .bind(&std::net::SocketAddr::from((address, 0)).into())
            .with_context(|| format!("cannot bind to {address}"))?;
        Ok(socket)
    })
}
