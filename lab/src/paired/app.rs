//! The applications of `paired`: clients that send their number, and servers that remember it.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use socket2::Socket;

use crate::{
    account,
    net::{self, Family, Kind},
    netns,
};

/// Timeout for data: an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages of a connection; rules apply from the fourth packet on.
pub(super) const MESSAGES: u32 = 8;
/// Bytes of a message.
const MESSAGE_BYTES: usize = 64;

/// Own address and the peer's.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// A connection, as both ends know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) client: Ends,
    /// None if it did not arrive.
    pub(super) server: Option<Ends>,
}

/// The connections that servers got, by their numbers.
#[derive(Clone, Default)]
pub(super) struct Served(Arc<Mutex<HashMap<u32, Ends>>>);

impl Served {
    pub(super) fn all(&self) -> HashMap<u32, Ends> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn add(&self, number: u32, ends: Ends) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(number, ends);
    }
}

/// Serves until the process ends.
pub(super) fn serve(
    namespace: BorrowedFd<'_>,
    kind: Kind,
    family: Family,
    at: SocketAddr,
) -> anyhow::Result<Served> {
    let listener = netns::within(namespace, || {
        let listener = net::open(kind, family).context("cannot open a socket")?;
        net::bind(&listener, at).with_context(|| format!("cannot bind to {at}"))?;
        listener.listen(512).context("cannot listen")?;
        Ok(listener)
    })?;
    let served = Served::default();
    let all = served.clone();
    std::thread::spawn(move || {
        while let Ok((client, _peer)) = listener.accept() {
            let all = all.clone();
            // A connection that is reset ends with an error.
            std::thread::spawn(move || echo(client, &all));
        }
    });
    Ok(served)
}

fn echo(mut client: Socket, served: &Served) -> anyhow::Result<()> {
    let ends = ends_of(&client)?;
    let mut message = [0; MESSAGE_BYTES];
    let mut is_first = true;
    loop {
        match client.read(&mut message)? {
            0 => return Ok(()),
            got => client.read_exact(&mut message[got..])?,
        }
        if std::mem::take(&mut is_first) {
            let [a, b, c, d, ..] = message;
            served.add(u32::from_be_bytes([a, b, c, d]), ends);
        }
        client.write_all(&message)?;
    }
}

fn ends_of(socket: &Socket) -> anyhow::Result<Ends> {
    let none = "a connection without an address";
    let local = socket.local_addr()?.as_socket().context(none)?;
    let peer = socket.peer_addr()?.as_socket().context(none)?;
    Ok((local, peer))
}

/// An open connection.
pub(super) struct Client {
    number: u32,
    socket: Socket,
    ends: Ends,
}

impl Client {
    pub(super) fn open(
        kind: Kind,
        family: Family,
        from: SocketAddr,
        to: SocketAddr,
        number: u32,
    ) -> anyhow::Result<Self> {
        let socket = net::open(kind, family).context("cannot open a socket")?;
        net::bind(&socket, from).with_context(|| format!("cannot bind to {from}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(&to.into()).context("cannot connect")?;
        let ends = ends_of(&socket)?;
        let mut client = Self {
            number,
            socket,
            ends,
        };
        client.talk(1)?;
        Ok(client)
    }

    /// Own number, and both addresses.
    pub(super) fn ends(&self) -> (u32, Ends) {
        (self.number, self.ends)
    }

    /// Number of its paths beside the first one.
    pub(super) fn joins(&self) -> std::io::Result<u8> {
        account::connection(self.socket.as_raw_fd()).map(|it| it.joins)
    }

    /// Waits less for an answer: the kernel keeps a connection that has lost its only path.
    pub(super) fn hurry(&self) -> anyhow::Result<()> {
        let timeout = Some(Duration::from_millis(200));
        Ok(self.socket.set_read_timeout(timeout)?)
    }

    /// Sends messages, one after the other, and waits for the answer to each.
    pub(super) fn talk(&mut self, messages: u32) -> anyhow::Result<()> {
        for _ in 0..messages {
            let mut message = [b'm'; MESSAGE_BYTES];
            message[..4].copy_from_slice(&self.number.to_be_bytes());
            self.socket.write_all(&message).context("cannot send")?;
            self.socket.read_exact(&mut message).context("no answer")?;
        }
        Ok(())
    }
}
