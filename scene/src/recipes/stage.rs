//! Environment of a recipe: two network namespaces with a middlebox between them, or a single one,
//! and the actors in them.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

use super::{Place, Sysctl};
use crate::{
    actor::{Actor, Done, Order, Reply},
    middlebox::{self, Middlebox},
    net::{Endpoint, Family, Kind},
    netns::{self, Counters, Namespaces},
    option::{CHOICES, Choice},
    question::Api,
    rules::Rules,
    scratch::Scratch,
    sys::errno_name,
};

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

/// The acting processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// The client.
    Client,
    /// A child of the client's process.
    ClientChild,
    /// Another process on the client's side.
    Other,
    /// The server.
    Server,
    /// A child of the server's process.
    ServerChild,
    /// An external program on the client's side, not part of the lab.
    Program,
}

impl Who {
    /// Process name.
    #[must_use]
    pub fn comm(self) -> &'static str {
        match self {
            Self::Client => "lab-client",
            Self::ClientChild => "lab-c-child",
            Self::Other => "lab-other",
            Self::Server => "lab-server",
            Self::ServerChild => "lab-s-child",
            Self::Program => "program",
        }
    }
}

/// The network namespaces and the devices between them.
pub struct TestBed {
    middlebox: Option<Middlebox>,
    near: File,
    far: File,
}

impl TestBed {
    /// Creates the namespaces.
    ///
    /// # Errors
    ///
    /// Fails without root, or if the kernel lacks a feature.
    pub fn new(place: Place, rules: Rules) -> anyhow::Result<Self> {
        match place {
            Place::Loopback => {
                let near = netns::new()?;
                let far = near.try_clone().context("cannot share the namespace")?;
                Ok(Self {
                    middlebox: None,
                    near,
                    far,
                })
            }
            Place::Middlebox => {
                let middlebox = Middlebox::new()?;
                middlebox.set(rules)?;
                let own = |fd: BorrowedFd<'_>| anyhow::Ok(File::from(fd.try_clone_to_owned()?));
                Ok(Self {
                    near: own(middlebox.near())?,
                    far: own(middlebox.far())?,
                    middlebox: Some(middlebox),
                })
            }
        }
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

    /// Addresses of the client and the server.
    #[must_use]
    pub fn addresses(&self, family: Family) -> (IpAddr, IpAddr) {
        match self.middlebox {
            None => (family.loopback().ip(), family.loopback().ip()),
            Some(_) => (
                middlebox::client_address(family),
                middlebox::server_address(family),
            ),
        }
    }
}

/// Kind of the socket at the time of the attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// A socket that is MPTCP at that time.
    Mptcp,
    /// A socket that is TCP, from the beginning or after a fallback.
    Tcp,
}

/// An attempt of an application and its result.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Acting process.
    pub who: Who,
    /// Process number.
    pub pid: u32,
    /// Operation attempted.
    pub what: Aim,
    /// Result: `ok`, or the name of the errno.
    pub told: String,
}

/// An operation that the kernel may refuse.
#[derive(Clone, Debug)]
pub enum Aim {
    /// Create an MPTCP socket.
    Socket,
    /// Set or get a socket option.
    Option {
        /// The option and the operation on it.
        choice: Choice,
        /// Kind of the socket.
        held: Held,
        /// Local address of the socket.
        local: Endpoint,
        /// Remote address, if connected.
        remote: Option<Endpoint>,
    },
}

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
        let at = SocketAddr::new(self.bed.addresses(self.family).1, 0);
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
        self.target = Some(SocketAddr::new(local.addr.parse()?, local.port));
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

    /// Queries `TCP_IS_MPTCP` at one end.
    ///
    /// # Errors
    ///
    /// Fails if there is no answer at all.
    pub fn ask(&mut self, name: &str, who: Who) -> anyhow::Result<()> {
        self.ask_by(name, who, Api::TcpIsMptcp)
    }

    /// Queries one end with one of the APIs.
    ///
    /// # Errors
    ///
    /// Fails if there is no answer at all.
    pub fn ask_by(&mut self, name: &str, who: Who, api: Api) -> anyhow::Result<()> {
        self.ask_about(name, who, own_socket(who), api)
    }

    /// Queries `TCP_IS_MPTCP` on the listening socket.
    ///
    /// # Errors
    ///
    /// Fails if there is no answer at all.
    pub fn ask_listener(&mut self, name: &str) -> anyhow::Result<()> {
        self.ask_about(name, Who::Server, LISTENER, Api::TcpIsMptcp)
    }

    fn ask_about(&mut self, name: &str, who: Who, socket: &str, api: Api) -> anyhow::Result<()> {
        let socket = socket.into();
        let done = self.order(who, Order::Ask { socket, api })?;
        let answer = done.answer.context("no answer")?;
        self.answers.push((name.to_owned(), answer));
        Ok(())
    }

    /// Tries every option at one end; records the results of the named ones as answers.
    ///
    /// # Errors
    ///
    /// Fails if an end is missing.
    pub fn try_options(&mut self, when: &str, who: Who, held: Held) -> anyhow::Result<()> {
        for &choice in CHOICES {
            let order = Order::Try {
                socket: own_socket(who).into(),
                attempt: choice.into(),
            };
            let done = self.order(who, order)?;
            let told = done.answer.context("no answer")?;
            if let Some(name) = choice.name {
                self.answers.push((format!("{name} {when}"), told.clone()));
            }
            self.tried.push(Tried {
                who,
                pid: done.pid,
                what: Aim::Option {
                    choice,
                    held,
                    local: done.local.context("a socket without an address")?,
                    remote: done.remote,
                },
                told,
            });
        }
        Ok(())
    }

    /// Makes both ends poll `TCP_IS_MPTCP` from now on.
    ///
    /// # Errors
    ///
    /// Fails if an end is missing.
    pub fn poll_both(&mut self, every: Duration) -> anyhow::Result<()> {
        for who in [Who::Client, Who::Server] {
            let order = Order::Poll {
                socket: own_socket(who).into(),
                every_ms: every.as_millis() as u64,
            };
            self.order(who, order)?;
        }
        Ok(())
    }

    /// Stops polling; records its answers, with consecutive repeats collapsed.
    ///
    /// # Errors
    ///
    /// Fails if no poller is running.
    pub fn polled_both(&mut self) -> anyhow::Result<()> {
        for (who, name) in [
            (Who::Client, "client-polled"),
            (Who::Server, "server-polled"),
        ] {
            let done = self.order(who, Order::Polled)?;
            let answer = done.answer.context("no answer")?;
            self.answers.push((name.to_owned(), answer));
        }
        Ok(())
    }

    /// Runs an external program that connects to the listener, sends a message, receives one, and
    /// prints one line with its port and the answer to its query. It gets the address and the port
    /// as its last arguments and exits when its stdin is closed.
    ///
    /// # Errors
    ///
    /// Names the step that failed.
    pub fn run_program(&mut self, program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
        let to = self.target.context("the server does not listen")?;
        let name = program.display();
        let mut child = netns::within(self.bed.near(), || {
            Command::new(program)
                .args(arguments)
                .args([to.ip().to_string(), to.port().to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot run {name}"))
        })?;
        self.children.push((Who::Program, child.id()));
        let said = child.stdout.take().context("it has no stdout")?;
        self.program = Some(child);
        self.accept(Who::Server)?;
        let bytes = MESSAGE_BYTES;
        let socket = || SERVER.to_owned();
        let heard = self.order(
            Who::Server,
            Order::Recv {
                socket: socket(),
                bytes,
                patience_ms: ARRIVE_MS_MAX,
            },
        )?;
        ensure!(
            heard.bytes == Some(bytes),
            "{name} sent {:?} bytes",
            heard.bytes
        );
        let socket = socket();
        self.order(Who::Server, Order::Send { socket, bytes })?;
        let mut line = String::new();
        BufReader::new(said)
            .read_line(&mut line)
            .with_context(|| format!("cannot read from {name}"))?;
        let (port, answer) = line
            .trim()
            .split_once(' ')
            .with_context(|| format!("{name} says {line:?}"))?;
        let port = port
            .parse()
            .with_context(|| format!("{name} says {line:?}"))?;
        let own = SocketAddr::new(self.bed.addresses(self.family).0, port);
        self.connections.push((own.into(), to.into()));
        self.answers.push(("client-after".into(), answer.into()));
        Ok(())
    }

    /// Queries both ends.
    ///
    /// # Errors
    ///
    /// Fails if there is no answer at all.
    pub fn ask_both(&mut self, when: &str) -> anyhow::Result<()> {
        self.ask(&format!("client-{when}"), Who::Client)?;
        self.ask(&format!("server-{when}"), Who::Server)
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
        let everybody: Vec<Who> = self.cast().into_iter().map(|(who, _pid)| who).collect();
        for who in everybody {
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

/// What remains of a stage. The actors stay alive, so that the namespaces can still be found
/// through their processes.
pub struct Cleared {
    near: File,
    far: File,
    before: [Counters; 2],
    _actors: (Actor, Actor, Option<Actor>),
}

impl Cleared {
    /// Inode numbers of the client's and the server's namespace.
    ///
    /// # Errors
    ///
    /// Fails if the namespaces are gone.
    pub fn numbers(&self) -> anyhow::Result<Namespaces> {
        Ok(Namespaces {
            near: netns::number(self.near.as_fd())?,
            far: netns::number(self.far.as_fd())?,
        })
    }

    /// Counter changes in each namespace up to now.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn moved(&self) -> anyhow::Result<[Counters; 2]> {
        let [near, far] = &self.before;
        Ok([
            netns::moved(near, &netns::counters(self.near.as_fd())?),
            netns::moved(far, &netns::counters(self.far.as_fd())?),
        ])
    }

    /// Names of the MPTCP counters of this kernel.
    #[must_use]
    pub fn counter_names(&self) -> Vec<String> {
        self.before[0].keys().cloned().collect()
    }
}
