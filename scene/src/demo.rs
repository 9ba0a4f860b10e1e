//! The scene of `mptcp-trace demo`: a connection uses MPTCP at first, then the path starts to strip
//! the MPTCP options from its packets, and both ends fall back to TCP.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use socket2::Socket;

use crate::{
    middlebox::Middlebox,
    net::{Family, Kind, open},
    netns,
    rules::{Rules, Treatment},
    sys,
    veth::{CLIENT_V4, SERVER_V4},
};

/// Maximum duration of one step.
const PATIENCE: Duration = Duration::from_secs(5);
/// Payload that the client sends.
const REQUEST: &[u8] = b"how are you?";
/// Payload that the server sends.
const ANSWER: &[u8] = b"fine, thank you";

/// The two ends, each in its own network namespace, and the middlebox between them.
struct Scene {
    middlebox: Middlebox,
    client: Socket,
    server: Socket,
}

/// Plays the scene; returns one sentence with the kernel's own counters of both ends.
///
/// Everything happens in two new network namespaces. The kernel removes them when this process
/// ends, however it ends.
///
/// # Errors
///
/// Names the step that failed: namespaces need root, joining them needs veth.
pub fn play() -> anyhow::Result<String> {
    let scene = Scene::set()?;
    let before = scene.counters()?;
    for _ in 0..2 {
        scene.talk()?;
    }
    scene.ask();
    let strip = Treatment {
        strip_from: Some(0),
        ..Treatment::default()
    };
    scene.middlebox.set(Rules {
        to_server: strip,
        to_client: strip,
    })?;
    scene.talk()?;
    scene.ask();
    let after = scene.counters()?;
    let told = |which: usize| {
        let moved: Vec<String> = netns::moved(&before[which], &after[which])
            .into_iter()
            .filter(|(name, _)| name.contains("Fallback"))
            .map(|(name, count)| format!("{name} +{count}"))
            .collect();
        if moved.is_empty() {
            "nothing (this kernel has no counter for it)".to_owned()
        } else {
            moved.join(", ")
        }
    };
    Ok(format!(
        "the kernel's own counters: client {}, server {}",
        told(0),
        told(1)
    ))
}

impl Scene {
    fn set() -> anyhow::Result<Self> {
        let middlebox = Middlebox::new().context("cannot build a path to break")?;
        let listener = at(middlebox.far(), (SERVER_V4, 0).into())?;
        listener.listen(1).context("cannot listen")?;
        let address = listener
            .local_addr()
            .context("cannot read the server's address")?;
        let client = at(middlebox.near(), (CLIENT_V4, 0).into())?;
        client.connect(&address).context("cannot connect")?;
        let (server, _peer) = listener.accept().context("cannot accept")?;
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
        }
        Ok(Self {
            middlebox,
            client,
            server,
        })
    }

    fn talk(&self) -> anyhow::Result<()> {
        say(&self.client, &self.server, REQUEST)?;
        say(&self.server, &self.client, ANSWER)
    }

    /// Queries as an application would to learn whether its connection is still MPTCP.
    fn ask(&self) {
        const SOL_TCP: i32 = 6;
        const TCP_IS_MPTCP: i32 = 43;
        for socket in [&self.client, &self.server] {
            let mut value = 0_i32;
            let mut length = 4_u32;
            // The tracer reports the answer; a kernel without the option is not a failure.
            let _told = sys::getsockopt(
                socket.as_raw_fd(),
                SOL_TCP,
                TCP_IS_MPTCP,
                (&raw mut value) as usize,
                (&raw mut length) as usize,
            );
        }
    }

    fn counters(&self) -> anyhow::Result<[netns::Counters; 2]> {
        Ok([
            netns::counters(self.middlebox.near())?,
            netns::counters(self.middlebox.far())?,
        ])
    }
}

/// Opens an MPTCP socket in a network namespace and binds it to an address there.
fn at(namespace: BorrowedFd<'_>, address: SocketAddr) -> anyhow::Result<Socket> {
    netns::within(namespace, || {
        let socket = open(Kind::Mptcp, Family::V4).context("cannot open an MPTCP socket")?;
        socket
            .bind(&address.into())
            .with_context(|| format!("cannot bind to {address}"))?;
        Ok(socket)
    })
}

fn say(mut from: &Socket, mut to: &Socket, words: &[u8]) -> anyhow::Result<()> {
    from.write_all(words).context("cannot send")?;
    let mut heard = vec![0; words.len()];
    to.read_exact(&mut heard).context("cannot receive")?;
    ensure!(heard == words, "other data arrives than was sent");
    Ok(())
}
