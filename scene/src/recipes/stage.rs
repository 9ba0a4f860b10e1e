//! The actors of a recipe, and what they do.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    path::PathBuf,
    process::Child,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

use super::{
    Sysctl,
    bed::{Place, TestBed},
    cast::{Aim, Tried, Who},
    cleared::Cleared,
};
use crate::{
    actor::{Actor, Done, Order, Reply},
    net::{Endpoint, Family, Kind},
    netns::{self, Counters},
    rules::Rules,
    scratch::Scratch,
    sys::errno_name,
};

mod ask;
mod paths;
mod program;

/// Bytes of one message, which fits into one packet.
const MESSAGE_BYTES: usize = 20;
/// Timeout for a message that must arrive: an emulated machine is slow.
const ARRIVE_MS_MAX: u64 = 20_000;
/// Timeout for a message that the middlebox may have corrupted.
const SPOILT_MS_MAX: u64 = 600;
/// Pause until packets in flight have arrived.
const SETTLE: Duration = Duration::from_millis(60);

/// Name of the socket that this actor sends and receives on.
fn own_socket(who: Who) -> &'static str {
    match who {
        Who::Client | Who::ClientChild | Who::Other | Who::Program => CLIENT,
        Who::Server | Who::ServerChild => SERVER,
    }
}

/// Names of the sockets.
const CLIENT: &str = "client";
const SERVER: &str = "server";
const LISTENER: &str = "listener";

/// Two namespaces and the actors in them.
pub struct Stage {
    bed: Arc<TestBed>,
    family: Family,
    client: Actor,
    server: Actor,
    other: Option<Actor>,
    program: Option<Child>,
    /// A program in Go that scripts may run.
    pub go: Option<PathBuf>,
    children: Vec<(Who, u32)>,
    /// Address of the listening socket.
    target: Option<SocketAddr>,
    /// Client and server address of every connection so far.
    pub connections: Vec<(Endpoint, Endpoint)>,
    /// Names of the queries so far, with the kernel's answers.
    pub answers: Vec<(String, String)>,
    /// Attempts so far, including refused ones.
    pub tried: Vec<Tried>,
    before: [Counters; 2],
}

impl Stage {
    /// Creates everything that a script needs.
    ///
    /// # Errors
    ///
    /// Names what this host lacks.
    pub fn new(
        place: Place,
        rules: Rules,
        sysctls: &[Sysctl],
        family: Family,
    ) -> anyhow::Result<Self> {
        let bed = TestBed::new(place, rules)?;
        for namespace in [bed.near(), bed.far()] {
            for Sysctl { name, value, must } in sysctls {
                let is_there = netns::set_sysctl(namespace, name, value)?;
                ensure!(is_there || !must, "this kernel has no {name}");
            }
        }
        Self::on(Arc::new(bed), family)
    }

    /// Starts actors on an existing test bed, which other stages may share.
    ///
    /// # Errors
    ///
    /// Names what this host lacks.
    pub fn on(bed: Arc<TestBed>, family: Family) -> anyhow::Result<Self> {
        let client = Actor::start(Who::Client.comm(), bed.near())?;
        let server = Actor::start(Who::Server.comm(), bed.far())?;
        let before = [netns::counters(bed.near())?, netns::counters(bed.far())?];
        Ok(Self {
            bed,
            family,
            client,
            server,
            other: None,
            program: None,
            go: None,
            children: Vec::new(),
            target: None,
            connections: Vec::new(),
            answers: Vec::new(),
            tried: Vec::new(),
            before,
        })
    }

    /// Whether this kernel has a counter of this name.
    #[must_use]
    pub fn counts(&self, counter: &str) -> bool {
        self.before[0].contains_key(counter)
    }

    /// The running actors, with their process numbers.
    #[must_use]
    pub fn cast(&self) -> Vec<(Who, u32)> {
        let mut cast = vec![
            (Who::Client, self.client.pid()),
            (Who::Server, self.server.pid()),
        ];
        cast.extend(self.other.iter().map(|other| (Who::Other, other.pid())));
        cast.extend(&self.children);
        cast
    }

    fn try_order(&mut self, who: Who, order: Order) -> anyhow::Result<Reply> {
        let in_child = |order| Order::InChild {
            order: Box::new(order),
        };
        match who {
            Who::Client => self.client.try_order(&order),
            Who::ClientChild => self.client.try_order(&in_child(order)),
            Who::Server => self.server.try_order(&order),
            Who::ServerChild => self.server.try_order(&in_child(order)),
            Who::Other => {
                let other = self
                    .other
                    .as_mut()
                    .context("the other client is not running")?;
                other.try_order(&order)
            }
            Who::Program => bail!("an external program takes no orders"),
        }
    }

    fn order(&mut self, who: Who, order: Order) -> anyhow::Result<Done> {
        match self.try_order(who, order)? {
            Reply::Done(done) => Ok(done),
            Reply::Failed { why, errno: _ } => bail!("{}: {why}", who.comm()),
        }
    }

    /// Sets the address family of the connections that follow.
    pub fn set_family(&mut self, family: Family) {
        self.family = family;
    }

    /// Makes the server listen; the connections that follow go there.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn listen(&mut self, kind: Kind) -> anyhow::Result<()> {
        self.listen_at(kind, self.bed.addresses(self.family).1)
    }

    /// Makes the server listen on an address; the connections that follow go to its first one.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn listen_at(&mut self, kind: Kind, address: IpAddr) -> anyhow::Result<()> {
        let at = SocketAddr::new(address, 0);
        let socket = LISTENER.into();
        // Only one listener at a time can have the name; accepted sockets stay open.
        if self.target.is_some() {
            self.order(
                Who::Server,
                Order::Close {
                    socket: LISTENER.into(),
                },
            )?;
        }
        let done = self.order(Who::Server, Order::Listen { socket, kind, at })?;
        let local = done.local.context("a listener without an address")?;
        let first = self.bed.addresses(self.family).1;
        self.target = Some(SocketAddr::new(first, local.port));
        Ok(())
    }

    /// Makes the client create a socket, bound to its address.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn open(&mut self, kind: Kind) -> anyhow::Result<()> {
        let order = self.opening(kind);
        self.order(Who::Client, order)?;
        Ok(())
    }

    /// Makes the client create a socket, which must fail; records the name of the errno as an
    /// answer.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not refuse.
    pub fn open_refused(&mut self, kind: Kind) -> anyhow::Result<()> {
        let order = self.opening(kind);
        match self.try_order(Who::Client, order)? {
            Reply::Failed {
                errno: Some(errno), ..
            } => {
                let told = errno_name(errno);
                self.answers.push(("socket".into(), told.clone()));
                self.tried.push(Tried {
                    who: Who::Client,
                    pid: self.client.pid(),
                    what: Aim::Socket,
                    told,
                });
                Ok(())
            }
            reply @ (Reply::Done(_) | Reply::Failed { errno: None, .. }) => {
                bail!("the socket was not refused: {reply:?}")
            }
        }
    }

    fn opening(&self, kind: Kind) -> Order {
        Order::Open {
            socket: CLIENT.into(),
            kind,
            at: SocketAddr::new(self.bed.addresses(self.family).0, 0),
        }
    }

    /// Connects the client's socket, from any process on the client's side.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn connect(&mut self, who: Who) -> anyhow::Result<()> {
        self.connect_with(who, |socket, to| Order::Connect {
            socket,
            to,
            patience_ms: None,
        })
    }

    /// Connects the client's socket from a thread.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn connect_in_thread(&mut self, name: &str) -> anyhow::Result<()> {
        self.connect_with(Who::Client, |socket, to| Order::ThreadConnect {
            socket,
            to,
            name: name.to_owned(),
        })
    }

    /// Makes the client try to connect until the timeout; a timeout is not a failure.
    ///
    /// # Errors
    ///
    /// Fails if the connection is refused.
    pub fn try_to_connect(&mut self, patience: Duration) -> anyhow::Result<()> {
        let to = self.target.context("the server does not listen")?;
        let order = Order::Connect {
            socket: CLIENT.into(),
            to,
            patience_ms: Some(patience.as_millis() as u64),
        };
        self.order(Who::Client, order)?;
        Ok(())
    }

    fn connect_with(
        &mut self,
        who: Who,
        order: impl FnOnce(String, SocketAddr) -> Order,
    ) -> anyhow::Result<()> {
        let to = self.target.context("the server does not listen")?;
        let done = self.order(who, order(CLIENT.into(), to))?;
        self.note(done)
    }

    fn note(&mut self, done: Done) -> anyhow::Result<()> {
        let ends = done.local.zip(done.remote);
        self.connections.push(ends.context("it has no peer")?);
        Ok(())
    }

    /// Connects the client's socket to its own loopback address.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn connect_to_itself(&mut self, kind: Kind) -> anyhow::Result<()> {
        self.open(kind)?;
        let socket = CLIENT.into();
        let done = self.order(Who::Client, Order::SelfConnect { socket })?;
        self.note(done)
    }

    /// Disconnects the client's socket.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn disconnect(&mut self) -> anyhow::Result<()> {
        let socket = CLIENT.into();
        self.order(Who::Client, Order::Disconnect { socket })?;
        Ok(())
    }

    /// Accepts a connection, from any process on the server's side.
    ///
    /// # Errors
    ///
    /// Fails if no connection arrives.
    pub fn accept(&mut self, who: Who) -> anyhow::Result<()> {
        self.order(
            who,
            Order::Accept {
                listener: LISTENER.into(),
                socket: SERVER.into(),
            },
        )?;
        Ok(())
    }

    /// The usual beginning: opens a listener and a client, connects, and accepts.
    ///
    /// # Errors
    ///
    /// Names the step that failed.
    pub fn pair(&mut self, client: Kind, listener: Kind) -> anyhow::Result<()> {
        self.listen(listener)?;
        self.open(client)?;
        self.connect(Who::Client)?;
        self.accept(Who::Server)
    }

    /// Closes the client's socket and the accepted one.
    ///
    /// # Errors
    ///
    /// Fails if one of them is not open.
    pub fn close_pair(&mut self) -> anyhow::Result<()> {
        for (who, socket) in [(Who::Client, CLIENT), (Who::Server, SERVER)] {
            let socket = socket.into();
            self.order(who, Order::Close { socket })?;
        }
        Ok(())
    }

    /// Sends one message, which must arrive.
    ///
    /// # Errors
    ///
    /// Fails if it does not arrive.
    pub fn say(&mut self, from: Who, to: Who) -> anyhow::Result<()> {
        let bytes = self.send(from, to, ARRIVE_MS_MAX)?;
        ensure!(
            bytes == MESSAGE_BYTES,
            "{} bytes of {MESSAGE_BYTES} arrived at {}",
            bytes,
            to.comm()
        );
        Ok(())
    }

    fn send(&mut self, from: Who, to: Who, patience_ms: u64) -> anyhow::Result<usize> {
        let socket = |who: Who| own_socket(who).to_owned();
        let bytes = MESSAGE_BYTES;
        self.order(
            from,
            Order::Send {
                socket: socket(from),
                bytes,
            },
        )?;
        let order = Order::Recv {
            socket: socket(to),
            bytes,
            patience_ms,
        };
        let received = self.order(to, order)?;
        received
            .bytes
            .context("the reply lacks the number of bytes")
    }

    /// Sends a message and a reply, for this number of rounds.
    ///
    /// # Errors
    ///
    /// Fails if one of them does not arrive.
    pub fn talk(&mut self, client: Who, server: Who, rounds: u32) -> anyhow::Result<()> {
        for _ in 0..rounds {
            self.say(client, server)?;
            self.say(server, client)?;
        }
        Ok(())
    }

    /// Sends messages between client and server that the middlebox may corrupt.
    ///
    /// # Errors
    ///
    /// Fails if a message cannot be sent.
    pub fn talk_spoilt(&mut self, rounds: u32) -> anyhow::Result<()> {
        for _ in 0..rounds {
            self.send(Who::Client, Who::Server, SPOILT_MS_MAX)?;
            self.send(Who::Server, Who::Client, SPOILT_MS_MAX)?;
        }
        Ok(())
    }

    /// Forks the client or the server.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn fork(&mut self, child: Who) -> anyhow::Result<()> {
        let parent = match child {
            Who::ClientChild => Who::Client,
            Who::ServerChild => Who::Server,
            Who::Client | Who::Server | Who::Other | Who::Program => {
                bail!("{} is no child", child.comm())
            }
        };
        let name = child.comm().into();
        let done = self.order(parent, Order::Fork { name })?;
        self.children.push((child, done.pid));
        Ok(())
    }

    /// Makes the client pass its socket to another process.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error.
    pub fn pass_on(&mut self) -> anyhow::Result<()> {
        let other = Actor::start(Who::Other.comm(), self.bed.near())?;
        let mailbox = Scratch::new(&format!("mailbox-{}", other.pid()));
        self.other = Some(other);
        let path = || mailbox.0.clone();
        self.order(Who::Other, Order::AwaitSocket { at: path() })?;
        let socket = || CLIENT.to_owned();
        self.order(
            Who::Client,
            Order::PassSocket {
                socket: socket(),
                to: path(),
            },
        )?;
        self.order(Who::Other, Order::TakeSocket { socket: socket() })?;
        Ok(())
    }

    /// Closes all sockets; the namespaces and idle actors remain.
    ///
    /// # Errors
    ///
    /// Fails if an actor has exited.
    pub fn clear(mut self) -> anyhow::Result<Cleared> {
        let all: Vec<Who> = self.cast().into_iter().map(|(who, _pid)| who).collect();
        for who in all {
            match who {
                Who::Client | Who::Server | Who::Other => self.order(who, Order::CloseAll)?,
                // The parents forward the order to their children.
                Who::ClientChild | Who::ServerChild => continue,
                Who::Program => {
                    if let Some(mut program) = self.program.take() {
                        drop(program.stdin.take());
                        program.wait().context("cannot wait for a program")?;
                    }
                    continue;
                }
            };
        }
        std::thread::sleep(SETTLE);
        let own = |fd: BorrowedFd<'_>| anyhow::Ok(File::from(fd.try_clone_to_owned()?));
        Ok(Cleared {
            near: own(self.bed.near())?,
            far: own(self.bed.far())?,
            before: self.before,
            _actors: (self.client, self.server, self.other),
        })
    }
}
