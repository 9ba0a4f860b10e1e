//! "Attached" is not "firing": we ask the kernel about sockets of our own, and our own probes must see it.
//!
//! The sockets live in a throwaway network namespace, so that neither the host's counters nor its
//! sysctls have a part in it: one of ours, or, for want of privileges, one that an ordinary user may make. One of them has fallen back: what differs between its state bits and those
//! of the others is the fallback bit, whose number no kernel publishes.

mod lent;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
    thread,
};

use anyhow::Context as _;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use self::lent::Lent;
use crate::{
    host::{privileges::may_make_namespaces, system::ask_is_mptcp},
    model::{Answer, Connection, Errno, Protocol, Query},
};

/// One question that we asked, and what we know about its socket from the outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Which socket, in words.
    pub what: &'static str,
    /// What we hold.
    pub protocol: Protocol,
    /// Whether it fell back.
    pub fell_back: bool,
    /// What the kernel told us.
    pub told: Result<i32, Errno>,
    /// Its inode number.
    pub inode: u64,
    /// What `getsockname` says.
    pub local: Option<SocketAddr>,
}

/// Our questions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Questions {
    /// Asked, and to be seen by the probes.
    pub asked: Vec<Asked>,
    /// What could not be asked, and why.
    pub skipped: Vec<String>,
}

/// Asks, on a thread of its own.
///
/// # Errors
///
/// Fails if not even a TCP socket can be asked.
pub fn ask() -> anyhow::Result<Questions> {
    thread::Builder::new()
        .name("canary".into())
        .spawn(ask_here)
        .context("cannot start the canary's thread")?
        .join()
        .map_err(|_panic| anyhow::anyhow!("the canary's thread panicked"))?
}

fn ask_here() -> anyhow::Result<Questions> {
    let mut questions = Questions::default();
    let mut ground = match Ground::of_our_own() {
        Ok(ground) => ground,
        Err(why) => {
            questions
                .skipped
                .push(format!("MPTCP connections of our own: {why:#}"));
            ask_fresh(&mut questions, &mut Ground::Here)?;
            return Ok(questions);
        }
    };
    questions.ask_tcp(&mut ground)?;
    match ask_mptcp(&mut questions, &mut ground) {
        Ok(()) => {}
        Err(why) => questions
            .skipped
            .push(format!("MPTCP connections of our own: {why:#}")),
    }
    Ok(questions)
}

/// All that can be asked where the host's connections are.
fn ask_fresh(questions: &mut Questions, ground: &mut Ground) -> anyhow::Result<()> {
    questions.ask_tcp(ground)?;
    if let Ok(mptcp) = ground.open(Some(SocketProtocol::MPTCP)) {
        questions.ask("a fresh MPTCP socket", Protocol::Mptcp, false, &mptcp)?;
    }
    Ok(())
}

fn ask_mptcp(questions: &mut Questions, ground: &mut Ground) -> anyhow::Result<()> {
    let fresh = ground
        .open(Some(SocketProtocol::MPTCP))
        .context("cannot open an MPTCP socket")?;
    questions.ask("a fresh MPTCP socket", Protocol::Mptcp, false, &fresh)?;

    let listener = listen(Some(SocketProtocol::MPTCP), ground)?;
    let (client, server) = connect(&listener, ground)?;
    questions.ask("a connected MPTCP socket", Protocol::Mptcp, false, &client)?;
    questions.ask("an accepted MPTCP socket", Protocol::Mptcp, false, &server)?;

    // RFC 8684 section 3.7: a peer that answers the SYN without MP_CAPABLE makes it plain TCP.
    let listener = listen(None, ground)?;
    let (client, _server) = connect(&listener, ground)?;
    questions.ask(
        "an MPTCP socket that fell back",
        Protocol::Mptcp,
        true,
        &client,
    )
}

/// A connection of ours that fell back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fallen {
    /// What `getsockname` says.
    pub local: SocketAddr,
    /// What `getpeername` says.
    pub remote: SocketAddr,
}

/// Falls back, on a thread of its own in a namespace of its own.
///
/// # Errors
///
/// Fails if no thread can be started; inside, why there is no connection of our own.
pub fn fall_back() -> anyhow::Result<anyhow::Result<Fallen>> {
    thread::Builder::new()
        .name("canary".into())
        .spawn(fall_back_here)
        .context("cannot start the canary's thread")?
        .join()
        .map_err(|_panic| anyhow::anyhow!("the canary's thread panicked"))
}

fn fall_back_here() -> anyhow::Result<Fallen> {
    let mut ground = Ground::of_our_own()?;
    // RFC 8684 section 3.7: a peer that answers the SYN without MP_CAPABLE makes it plain TCP.
    let listener = listen(None, &mut ground)?;
    let (client, _server) = connect(&listener, &mut ground)?;
    let address = |of: io::Result<socket2::SockAddr>| of.ok().and_then(|it| it.as_socket());
    Ok(Fallen {
        local: address(client.local_addr()).context("our own socket has no address")?,
        remote: address(client.peer_addr()).context("our own socket has no peer")?,
    })
}

impl Fallen {
    /// What is wrong with what was seen of it; nothing if all is well.
    #[must_use]
    pub fn complaint(&self, seen: &[&Connection]) -> Option<String> {
        const CAUSE: &str = "MPCapableFallbackSYNACK";
        let [seen] = seen else {
            return Some(format!(
                "a connection of our own fell back, and it was seen {} times",
                seen.len()
            ));
        };
        if seen.cause.as_deref() != Some(CAUSE) {
            return Some(format!(
                "a connection of our own fell back because of {CAUSE}, and {:?} was seen",
                seen.cause
            ));
        }
        (seen.socket.remote != self.remote).then(|| {
            format!(
                "a connection of our own to {} fell back, and one to {} was seen",
                self.remote, seen.socket.remote
            )
        })
    }
}

impl Questions {
    fn ask_tcp(&mut self, ground: &mut Ground) -> anyhow::Result<()> {
        let tcp = ground
            .open(None)
            .context("cannot open a TCP socket to ask about")?;
        self.ask("a fresh TCP socket", Protocol::Tcp, false, &tcp)
    }

    fn ask(
        &mut self,
        what: &'static str,
        protocol: Protocol,
        fell_back: bool,
        socket: &Socket,
    ) -> anyhow::Result<()> {
        // SAFETY: the descriptor is open as long as `socket` is borrowed.
        let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        let inode = rustix::fs::fstat(fd)
            .context("cannot look at our own socket")?
            .st_ino;
        let told =
            ask_is_mptcp(socket).map_err(|why| Errno(why.raw_os_error().unwrap_or_default()));
        let local = socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket());
        self.asked.push(Asked {
            what,
            protocol,
            fell_back,
            told,
            inode,
            local,
        });
        Ok(())
    }

    /// Compares what we asked with what our probes saw.
    #[must_use]
    pub fn compare(&self, seen: &[Query]) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let mut rest: Vec<&Query> = seen.iter().collect();
        for asked in &self.asked {
            // Where the inode is not known, order has to do: we asked one after the other.
            let position = rest
                .iter()
                .position(|query| query.socket.inode.is_none_or(|inode| inode == asked.inode));
            let Some(position) = position else {
                complaints.push(Complaint::Unseen(asked.what));
                continue;
            };
            let query = rest.remove(position);
            complaints.extend(
                differences(asked, query)
                    .into_iter()
                    .map(|difference| Complaint::Wrong(asked.what, difference)),
            );
        }
        complaints.extend(rest.iter().map(|query| {
            Complaint::Wrong(
                "a question that we did not ask",
                format!("about {}", query.socket.local),
            )
        }));
        complaints
    }

    /// The number of the bit that says "fell back": set in what fell back, clear in what did not.
    ///
    /// None if there is not exactly one.
    #[must_use]
    pub fn calibrate(&self, seen: &[Query]) -> Option<u8> {
        let bits = |fell_back: bool| {
            self.asked
                .iter()
                .filter(move |asked| {
                    asked.protocol == Protocol::Mptcp && asked.fell_back == fell_back
                })
                .filter_map(|asked| {
                    let same = |query: &&Query| query.socket.inode == Some(asked.inode);
                    seen.iter().find(same)?.state_bits
                })
        };
        let always = bits(true).reduce(|a, b| a & b)?;
        let never = bits(false).reduce(|a, b| a | b)?;
        let candidates = always & !never;
        (candidates.count_ones() == 1).then(|| candidates.trailing_zeros() as u8)
    }
}

/// What is wrong with our probes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Complaint {
    /// We asked, and no probe fired.
    Unseen(&'static str),
    /// A probe fired, and what it says is not so.
    Wrong(&'static str, String),
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unseen(what) => write!(f, "we asked about {what}, and no probe saw it"),
            Self::Wrong(what, difference) => write!(f, "{what} was seen wrong: {difference}"),
        }
    }
}

fn differences(asked: &Asked, query: &Query) -> Vec<String> {
    let mut differences = Vec::new();
    let mut expect = |name: &str, seen: String, true_value: String| {
        if seen != true_value {
            differences.push(format!("{name} {seen}, in truth {true_value}"));
        }
    };
    let told = match asked.told {
        Ok(1) => Some(Answer::Mptcp),
        Ok(0) => Some(Answer::Tcp),
        Ok(_) => None,
        Err(errno @ (Errno::EOPNOTSUPP | Errno::ENOPROTOOPT)) => Some(Answer::Unsupported(errno)),
        Err(errno) => Some(Answer::Failed(errno)),
    };
    expect(
        "answer",
        format!("{:?}", Some(query.answer)),
        format!("{told:?}"),
    );
    expect(
        "protocol",
        format!("{:?}", query.socket.protocol),
        format!("{:?}", asked.protocol),
    );
    if let Some(fell_back) = query.fell_back {
        expect(
            "fallback",
            fell_back.to_string(),
            asked.fell_back.to_string(),
        );
    }
    if let Some(local) = asked.local {
        expect(
            "local address",
            query.socket.local.to_string(),
            local.to_string(),
        );
    }
    differences
}

/// Where our sockets come from.
enum Ground {
    /// From the network namespace of this thread: one of its own, or the host's.
    Here,
    /// From one that somebody else has made.
    Lent(Lent),
}

impl Ground {
    /// A network namespace of our own, gone when the thread and its sockets are.
    fn of_our_own() -> anyhow::Result<Self> {
        if !may_make_namespaces() {
            return Lent::new().map(Self::Lent);
        }
        // SAFETY: only this thread's network namespace changes; it has opened no socket yet.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
            .context("cannot make a network namespace of our own")?;
        bring_loopback_up().context("cannot bring loopback up in our own network namespace")?;
        Ok(Self::Here)
    }

    fn open(&mut self, protocol: Option<SocketProtocol>) -> io::Result<Socket> {
        match self {
            Self::Here => open(protocol),
            Self::Lent(lent) => lent.open(protocol),
        }
    }
}

fn bring_loopback_up() -> io::Result<()> {
    let control = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is a valid ifreq that lives until after the call.
    let failed = unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn open(protocol: Option<SocketProtocol>) -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, protocol)
}

fn listen(protocol: Option<SocketProtocol>, ground: &mut Ground) -> anyhow::Result<Socket> {
    let listener = ground
        .open(protocol)
        .context("cannot open a listening socket")?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    listener
        .bind(&loopback.into())
        .context("cannot bind to loopback")?;
    listener.listen(8).context("cannot listen on loopback")?;
    Ok(listener)
}

/// An MPTCP client of ours, and what the listener accepted.
fn connect(listener: &Socket, ground: &mut Ground) -> anyhow::Result<(Socket, Socket)> {
    let client = ground
        .open(Some(SocketProtocol::MPTCP))
        .context("cannot open an MPTCP socket")?;
    client
        .connect(
            &listener
                .local_addr()
                .context("cannot tell where we listen")?,
        )
        .context("cannot connect over loopback")?;
    let (server, _peer) = listener.accept().context("cannot accept over loopback")?;
    Ok((client, server))
}
