//! `mptcp-lab actor`: a process that performs socket operations on demand. It reads one order per
//! line from stdin and writes one reply per line to stdout. Clients and servers are actors, so that
//! each is a separate process with its own name.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write},
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::{
    lines::write_line,
    net::{self, Endpoint, Family, Kind},
    option::Attempt,
    query::{Api, ask, token},
    sys,
};

mod handle;
mod pass;

pub use handle::Actor;

/// Maximum length of a receive buffer.
const RECEIVED_BYTES_MAX: usize = 1 << 20;

/// Arguments of `mptcp-lab actor`.
#[derive(clap::Args)]
pub struct Args {
    /// Name of the process
    #[arg(long, value_name = "NAME")]
    pub name: String,
}

/// Orders that an actor carries out. The order that creates a socket also names it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// Create a socket and bind it.
    Open {
        /// Name of the new socket.
        socket: String,
        /// TCP or MPTCP.
        kind: Kind,
        /// The address to bind to.
        at: SocketAddr,
    },
    /// Create a listening socket.
    Listen {
        /// Name of the new socket.
        socket: String,
        /// TCP or MPTCP.
        kind: Kind,
        /// Local address.
        at: SocketAddr,
    },
    /// Accept a connection.
    Accept {
        /// Name of the listening socket.
        listener: String,
        /// Name of the accepted socket.
        socket: String,
    },
    /// Connect an open socket.
    Connect {
        /// Name of the socket.
        socket: String,
        /// Remote address.
        to: SocketAddr,
        /// Timeout in milliseconds; a timeout is not a failure.
        patience_ms: Option<u64>,
    },
    /// Connect an open socket from a thread of this name.
    ThreadConnect {
        /// Name of the socket.
        socket: String,
        /// Remote address.
        to: SocketAddr,
        /// Name of the thread.
        name: String,
    },
    /// Connect a socket to its own address.
    SelfConnect {
        /// Name of the socket.
        socket: String,
    },
    /// Disconnect a socket: `connect(AF_UNSPEC)`.
    Disconnect {
        /// Name of the socket.
        socket: String,
    },
    /// Send this number of bytes in one call.
    Send {
        /// Name of the socket.
        socket: String,
        /// Number of bytes.
        bytes: usize,
    },
    /// Start a thread that sends this number of bytes; errors are ignored.
    Pour {
        /// Name of the socket.
        socket: String,
        /// Number of bytes.
        bytes: usize,
    },
    /// Receive until this number of bytes has arrived or the timeout expires.
    Recv {
        /// Name of the socket.
        socket: String,
        /// Number of bytes.
        bytes: usize,
        /// Timeout in milliseconds.
        patience_ms: u64,
    },
    /// Query whether a socket is MPTCP.
    Ask {
        /// Name of the socket.
        socket: String,
        /// API to query with.
        api: Api,
    },
    /// Read the token of a connection.
    Token {
        /// Name of the socket.
        socket: String,
    },
    /// Set or get a socket option.
    Try {
        /// Name of the socket.
        socket: String,
        /// The option, and whether to set or get it.
        attempt: Attempt,
    },
    /// Start a thread that queries `TCP_IS_MPTCP` periodically.
    Poll {
        /// Name of the socket.
        socket: String,
        /// Pause between two queries, milliseconds.
        every_ms: u64,
    },
    /// Stop the poller and report its answers.
    Polled,
    /// Close a socket.
    Close {
        /// Name of the socket.
        socket: String,
    },
    /// Close a socket without lingering: what is not yet acknowledged is discarded.
    Abort {
        /// Name of the socket.
        socket: String,
    },
    /// Close every socket, including the child's.
    CloseAll,
    /// Listen for passed sockets on a Unix socket at this path.
    AwaitSocket {
        /// Path of the Unix socket.
        at: PathBuf,
    },
    /// Pass a socket to the actor that listens at a path, and close it here.
    PassSocket {
        /// Name of the socket.
        socket: String,
        /// Path of the Unix socket.
        to: PathBuf,
    },
    /// Receive a passed socket.
    TakeSocket {
        /// Name of the received socket.
        socket: String,
    },
    /// Fork; the child inherits every open socket. An actor has at most one child.
    Fork {
        /// Process name of the child.
        name: String,
    },
    /// Forward an order to the child.
    InChild {
        /// The order.
        order: Box<Order>,
    },
}

/// Result of an order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The order succeeded.
    Done(Done),
    /// The order failed.
    Failed {
        /// Error message.
        why: String,
        /// The errno, if a system call failed.
        errno: Option<i32>,
    },
}

/// Results of an order that succeeded; fields that do not apply are omitted.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Done {
    /// The acting process; after a fork, the child.
    pub pid: u32,
    /// `getsockname` of the socket.
    pub local: Option<Endpoint>,
    /// `getpeername` of the socket.
    pub remote: Option<Endpoint>,
    /// Inode number of the socket.
    pub inode: Option<u64>,
    /// Number of bytes sent or received.
    pub bytes: Option<usize>,
    /// Answer to `TCP_IS_MPTCP`: `1`, `0`, or the name of an errno; from a poller, all answers in
    /// order, with consecutive repeats collapsed. Of an option: `ok`, or the name of an errno.
    pub answer: Option<String>,
    /// Token of the connection.
    pub token: Option<u32>,
}

/// Carries out orders until stdin is closed.
///
/// # Errors
///
/// Fails if an order is malformed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    sys::set_process_name(&args.name).context("cannot change the name of the process")?;
    // The standard library's stdout has a lock and a buffer, which a forked child would inherit.
    let replies = rustix::io::dup(rustix::stdio::stdout()).context("cannot use stdout")?;
    let orders = rustix::io::dup(rustix::stdio::stdin()).context("cannot use stdin")?;
    serve(orders, replies, Company::default())
}

/// State of an actor.
#[derive(Default)]
struct Company {
    sockets: BTreeMap<String, Socket>,
    mailbox: Option<UnixDatagram>,
    child: Option<Child>,
    poller: Option<Poller>,
}

/// A thread that queries periodically.
struct Poller {
    is_enough: Arc<AtomicBool>,
    thread: thread::JoinHandle<anyhow::Result<Vec<String>>>,
}

impl Poller {
    fn start(socket: Socket, rest: Duration) -> Self {
        let is_enough = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_enough);
        let thread = thread::spawn(move || {
            let mut answers = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                answers.push(ask(socket.as_raw_fd(), Api::TcpIsMptcp)?);
                answers.dedup();
                thread::sleep(rest);
            }
            Ok(answers)
        });
        Self { is_enough, thread }
    }

    fn end(self) -> anyhow::Result<String> {
        self.is_enough.store(true, Ordering::Relaxed);
        let answers = self.thread.join();
        Ok(answers
            .map_err(|_panic| anyhow!("the poller panicked"))??
            .join(" "))
    }
}

/// The parent's ends of the child's pipes.
struct Child {
    orders: File,
    replies: BufReader<File>,
}

fn serve(orders: OwnedFd, replies: OwnedFd, mut company: Company) -> anyhow::Result<()> {
    let mut replies = File::from(replies);
    for line in BufReader::new(File::from(orders)).lines() {
        let line = line.context("cannot read an order")?;
        let order: Order =
            serde_json::from_str(&line).with_context(|| format!("cannot parse {line:?}"))?;
        let reply = company.obey(order).unwrap_or_else(|why| Reply::Failed {
            errno: why
                .chain()
                .find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error()),
            why: format!("{why:#}"),
        });
        write_line(&mut replies, &reply)?;
    }
    Ok(())
}

impl Company {
    fn obey(&mut self, order: Order) -> anyhow::Result<Reply> {
        let done = match order {
            Order::Open { socket, kind, at } => {
                let opened = open(kind, at)?;
                self.add(socket, opened)
            }
            Order::Listen { socket, kind, at } => {
                let listener = open(kind, at)?;
                listener.listen(1024).context("cannot listen")?;
                self.add(socket, listener)
            }
            Order::Accept { listener, socket } => {
                let (accepted, _peer) = net::accept(self.get(&listener)?)?;
                self.add(socket, accepted)
            }
            Order::Connect {
                socket,
                to,
                patience_ms,
            } => connect(self.get(&socket)?, to, patience_ms)?,
            Order::ThreadConnect { socket, to, name } => {
                connect_in_thread(self.get(&socket)?, to, name)?
            }
            Order::SelfConnect { socket } => connect_to_itself(self.get(&socket)?)?,
            Order::Disconnect { socket } => {
                let socket = self.get(&socket)?;
                sys::disconnect(socket.as_raw_fd()).context("cannot disconnect")?;
                told(socket)
            }
            Order::Send { socket, bytes } => send(self.get(&socket)?, bytes)?,
            Order::Pour { socket, bytes } => {
                let socket = self.get(&socket)?.try_clone();
                let socket = socket.context("cannot share a socket with a thread")?;
                thread::spawn(move || send(&socket, bytes));
                me()
            }
            Order::Recv {
                socket,
                bytes,
                patience_ms,
            } => receive(
                self.get(&socket)?,
                bytes,
                Duration::from_millis(patience_ms),
            )?,
            Order::Ask { socket, api } => {
                let socket = self.get(&socket)?;
                Done {
                    answer: Some(ask(socket.as_raw_fd(), api)?),
                    ..told(socket)
                }
            }
            Order::Token { socket } => Done {
                token: Some(token(self.get(&socket)?.as_raw_fd())?),
                ..me()
            },
            Order::Try { socket, attempt } => {
                let socket = self.get(&socket)?;
                Done {
                    answer: Some(attempt.on(socket.as_raw_fd())?),
                    ..told(socket)
                }
            }
            Order::Poll { socket, every_ms } => {
                let socket = self.get(&socket)?.try_clone();
                let socket = socket.context("cannot share a socket with a thread")?;
                self.poller = Some(Poller::start(socket, Duration::from_millis(every_ms)));
                me()
            }
            Order::Polled => {
                let poller = self.poller.take().context("no poller is running")?;
                Done {
                    answer: Some(poller.end()?),
                    ..me()
                }
            }
            Order::Close { socket } => {
                let closed = self.sockets.remove(&socket);
                ensure!(closed.is_some(), "there is no socket {socket}");
                me()
            }
            Order::Abort { socket } => {
                self.get(&socket)?
                    .set_linger(Some(Duration::ZERO))
                    .context("cannot change how a socket closes")?;
                self.sockets.remove(&socket);
                me()
            }
            Order::CloseAll => {
                self.sockets.clear();
                if self.child.is_some() {
                    return self.in_child(&Order::CloseAll);
                }
                me()
            }
            Order::AwaitSocket { at } => self.await_socket(&at)?,
            Order::PassSocket { socket, to } => self.pass(&socket, &to)?,
            Order::TakeSocket { socket } => self.take(socket)?,
            Order::Fork { name } => self.fork(&name)?,
            Order::InChild { order } => return self.in_child(&order),
        };
        Ok(Reply::Done(done))
    }

    fn get(&self, name: &str) -> anyhow::Result<&Socket> {
        let socket = self.sockets.get(name);
        socket.with_context(|| format!("there is no socket {name}"))
    }

    fn add(&mut self, name: String, socket: Socket) -> Done {
        let done = told(&socket);
        self.sockets.insert(name, socket);
        done
    }

    fn await_socket(&mut self, at: &Path) -> anyhow::Result<Done> {
        let mailbox = UnixDatagram::bind(at);
        self.mailbox = Some(mailbox.with_context(|| format!("cannot wait at {}", at.display()))?);
        Ok(me())
    }

    fn pass(&mut self, name: &str, to: &Path) -> anyhow::Result<Done> {
        pass::pass(self.get(name)?, to).context("cannot pass a socket on")?;
        self.sockets.remove(name);
        Ok(me())
    }

    fn take(&mut self, name: String) -> anyhow::Result<Done> {
        let mailbox = self
            .mailbox
            .as_ref()
            .context("this actor does not listen for sockets")?;
        let taken = pass::take(mailbox).context("cannot take a socket")?;
        Ok(self.add(name, taken))
    }

    fn fork(&mut self, name: &str) -> anyhow::Result<Done> {
        let (orders, orders_end) = rustix::pipe::pipe().context("cannot create a pipe")?;
        let (replies_end, replies) = rustix::pipe::pipe().context("cannot create a pipe")?;
        let Some(child) = sys::fork().context("cannot fork")? else {
            drop((orders_end, replies_end));
            // The child must not return through the parent's stack frames; it has its own reply
            // pipe.
            let played = sys::set_process_name(name)
                .map_err(Into::into)
                .and_then(|()| serve(orders, replies, std::mem::take(self)));
            std::process::exit(i32::from(played.is_err()));
        };
        self.child = Some(Child {
            orders: orders_end.into(),
            replies: BufReader::new(replies_end.into()),
        });
        Ok(Done {
            pid: child,
            ..Done::default()
        })
    }

    fn in_child(&mut self, order: &Order) -> anyhow::Result<Reply> {
        let child = self.child.as_mut().context("there is no child")?;
        write_line(&mut child.orders, order)?;
        let mut line = String::new();
        child
            .replies
            .read_line(&mut line)
            .context("cannot read from the child")?;
        serde_json::from_str(&line).with_context(|| format!("the child says {line:?}"))
    }
}

fn open(kind: Kind, at: SocketAddr) -> anyhow::Result<Socket> {
    let family = match at {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    };
    let socket = net::open(kind, family).context("cannot open a socket")?;
    net::bind(&socket, at).with_context(|| format!("cannot bind to {at}"))?;
    Ok(socket)
}

fn me() -> Done {
    Done {
        pid: std::process::id(),
        ..Done::default()
    }
}

fn told(socket: &Socket) -> Done {
    Done {
        local: socket.local_addr().ok().as_ref().and_then(net::endpoint),
        remote: socket.peer_addr().ok().as_ref().and_then(net::endpoint),
        inode: rustix::fs::fstat(socket).ok().map(|stat| stat.st_ino),
        ..me()
    }
}

/// A timeout is not a failure.
fn connect(socket: &Socket, to: SocketAddr, patience_ms: Option<u64>) -> anyhow::Result<Done> {
    let connected = match patience_ms {
        None => socket.connect(&to.into()),
        Some(patience) => socket.connect_timeout(&to.into(), Duration::from_millis(patience)),
    };
    let may_time_out = patience_ms.is_some();
    match connected {
        Err(why) if may_time_out && why.kind() == io::ErrorKind::TimedOut => {}
        done => done.with_context(|| format!("cannot connect to {to}"))?,
    }
    Ok(told(socket))
}

fn connect_in_thread(socket: &Socket, to: SocketAddr, name: String) -> anyhow::Result<Done> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, || socket.connect(&to.into()))
            .context("cannot start a thread")?;
        let connected = thread
            .join()
            .map_err(|_panic| anyhow!("the thread panicked"))?;
        connected.with_context(|| format!("cannot connect to {to}"))
    })?;
    Ok(told(socket))
}

fn connect_to_itself(socket: &Socket) -> anyhow::Result<Done> {
    let own = socket.local_addr().context("it has no address")?;
    socket.connect(&own).context("cannot connect to itself")?;
    Ok(told(socket))
}

fn send(mut socket: &Socket, bytes: usize) -> anyhow::Result<Done> {
    let data: Vec<u8> = (0..bytes).map(|index| b'a' + (index % 26) as u8).collect();
    socket.write_all(&data).context("cannot send")?;
    Ok(Done {
        bytes: Some(bytes),
        ..me()
    })
}

/// Stops at the end of the connection and at an error; returns what has arrived up to that point.
fn receive(mut socket: &Socket, bytes: usize, patience: Duration) -> anyhow::Result<Done> {
    ensure!(bytes <= RECEIVED_BYTES_MAX, "{bytes} bytes are too many");
    let start = Instant::now();
    let mut buffer = vec![0; bytes];
    let mut length = 0;
    while length < bytes {
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        // A timeout of zero would mean no timeout.
        let left = left.max(Duration::from_millis(1));
        socket
            .set_read_timeout(Some(left))
            .context("cannot set a timeout")?;
        match socket.read(&mut buffer[length..]) {
            Ok(0) | Err(_) => break,
            Ok(read) => length += read,
        }
    }
    Ok(Done {
        bytes: Some(length),
        ..me()
    })
}
