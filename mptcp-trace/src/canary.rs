//! "Attached" is not "firing": we ask the kernel about sockets of our own, and our own probes must see it.
//!
//! The sockets live in a throwaway network namespace, so that neither the host's counters nor its
//! sysctls have a part in it: one of ours, or, for want of privileges, one that an ordinary user may make. One of them has fallen back: what differs between its state bits and those
//! of the others is the fallback bit, whose number no kernel publishes.

mod userns_sockets;

use std::{
    fmt, fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    thread,
};

use anyhow::Context as _;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use self::userns_sockets::Lent;
use crate::{
    host::{
        netstat::{self, Counters},
        privileges::may_make_namespaces,
        system::ask_is_mptcp,
    },
    model::{Answer, CauseCertainty, Connection, Errno, Protocol, Query, find_cause},
};

/// Marks a socket as one of a self-test, before it is used, so that other instances leave it alone.
pub type Mark<'a> = &'a (dyn Fn(BorrowedFd<'_>) + Sync);

/// How often we connect, if connections of ours fall back for reasons of this host, until one does not.
const CONNECT_TRIES: usize = 64;

/// The counter of the fallback that we bring about.
const CAUSE: &str = "MPCapableFallbackSYNACK";

/// The blackhole timeout in the network namespace of the self-test, in seconds: a number that nobody else would choose.
pub const BLACKHOLE_TIMEOUT: u32 = 1_597_463_007;
/// The same as the kernel reads it.
const BLACKHOLE_TIMEOUT_TEXT: &[u8] = b"1597463007\n";

/// True if an attempt failed for a reason that may pass: no descriptors, no memory.
#[must_use]
pub fn is_passing(why: &anyhow::Error) -> bool {
    const PASSING: [i32; 5] = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::ENOBUFS,
        libc::EAGAIN,
    ];
    why.chain().any(|why| {
        let number = match why.downcast_ref::<io::Error>() {
            Some(why) => why.raw_os_error(),
            None => why
                .downcast_ref::<rustix::io::Errno>()
                .map(|errno| errno.raw_os_error()),
        };
        number.is_some_and(|number| PASSING.contains(&number))
    })
}

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

/// Asks, on a thread of its own. The socket is one in a network namespace in which the blackhole timeout is
/// [`BLACKHOLE_TIMEOUT`], if this kernel has such a setting; none if there is no such namespace.
///
/// # Errors
///
/// Fails if not even a TCP socket can be asked.
pub fn ask(mark: Mark<'_>) -> anyhow::Result<(Questions, Option<Socket>)> {
    on_a_thread(|| ask_here(mark))?
}

/// Runs `act` on a thread of its own: its network namespace may change.
fn on_a_thread<T: Send>(act: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("canary".into())
            .spawn_scoped(scope, act)
            .context("cannot start the canary's thread")?
            .join()
            .map_err(|_panic| anyhow::anyhow!("the canary's thread panicked"))
    })
}

fn ask_here(mark: Mark<'_>) -> anyhow::Result<(Questions, Option<Socket>)> {
    let mut questions = Questions::default();
    let mut ground = match Ground::of_our_own(mark) {
        Ok(ground) => ground,
        Err(why) if is_passing(&why) => return Err(why),
        Err(why) => {
            questions
                .skipped
                .push(format!("MPTCP connections of the self-test: {why:#}"));
            ask_fresh(&mut questions, &mut Ground::here(mark))?;
            return Ok((questions, None));
        }
    };
    let inside = questions.ask_tcp(&mut ground)?;
    match ask_mptcp(&mut questions, &mut ground) {
        Ok(()) => {}
        Err(why) if is_passing(&why) => return Err(why),
        Err(why) => questions
            .skipped
            .push(format!("MPTCP connections of the self-test: {why:#}")),
    }
    Ok((questions, Some(inside)))
}

/// All that can be asked where the host's connections are.
fn ask_fresh(questions: &mut Questions, ground: &mut Ground<'_>) -> anyhow::Result<()> {
    questions.ask_tcp(ground)?;
    if let Ok(mptcp) = ground.open(Some(SocketProtocol::MPTCP)) {
        questions.ask("a fresh MPTCP socket", Protocol::Mptcp, false, &mptcp)?;
    }
    Ok(())
}

fn ask_mptcp(questions: &mut Questions, ground: &mut Ground<'_>) -> anyhow::Result<()> {
    let fresh = ground
        .open(Some(SocketProtocol::MPTCP))
        .context("cannot open an MPTCP socket")?;
    questions.ask("a fresh MPTCP socket", Protocol::Mptcp, false, &fresh)?;

    let listener = listen(Some(SocketProtocol::MPTCP), ground)?;
    let made = connect_until(&listener, ground, <[String]>::is_empty)?;
    let what = "a connected MPTCP socket";
    if made.grown.is_empty() {
        questions.ask(what, Protocol::Mptcp, false, &made.client)?;
        questions.ask(
            "an accepted MPTCP socket",
            Protocol::Mptcp,
            false,
            &made.server,
        )?;
    } else {
        questions.ask(what, Protocol::Mptcp, true, &made.client)?;
        questions.skipped.push(format!(
            "a self-test connection that stays MPTCP: each of {} fell back ({}), as others on this \
             host do now; if the cause is MPFallbackTokenInit, the kernel's MPTCP token table is \
             full",
            made.tries,
            made.grown.join(", ")
        ));
    }

    // RFC 8684 section 3.7: a peer that answers the SYN without MP_CAPABLE makes it plain TCP.
    let listener = listen(None, ground)?;
    // Both ends stay open: when the other one closes, the kernel changes more state bits.
    let made = connect_until(&listener, ground, |_any| true)?;
    questions.ask(
        "an MPTCP socket that fell back",
        Protocol::Mptcp,
        true,
        &made.client,
    )
}

/// A connection of ours that fell back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fallen {
    /// What `getsockname` says.
    pub local: SocketAddr,
    /// What `getpeername` says.
    pub remote: SocketAddr,
    /// The counters of fallbacks that grew meanwhile in its namespace; none where they cannot be read.
    pub grown: Vec<String>,
}

/// Falls back, on a thread of its own in a namespace of its own.
///
/// # Errors
///
/// Fails if no thread can be started; inside, why there is no connection of our own.
pub fn fall_back(mark: Mark<'_>) -> anyhow::Result<anyhow::Result<Fallen>> {
    on_a_thread(|| fall_back_here(mark))
}

fn fall_back_here(mark: Mark<'_>) -> anyhow::Result<Fallen> {
    let mut ground = Ground::of_our_own(mark)?;
    // RFC 8684 section 3.7: a peer that answers the SYN without MP_CAPABLE makes it plain TCP.
    let listener = listen(None, &mut ground)?;
    let is_usual = |grown: &[String]| grown.is_empty() || grown == [CAUSE];
    let made = connect_until(&listener, &mut ground, is_usual)?;
    let address = |of: io::Result<socket2::SockAddr>| of.ok().and_then(|it| it.as_socket());
    Ok(Fallen {
        local: address(made.client.local_addr()).context("our own socket has no address")?,
        remote: address(made.client.peer_addr()).context("our own socket has no peer")?,
        grown: made.grown,
    })
}

impl Fallen {
    /// What is wrong with what was seen of it; nothing if all is well.
    #[must_use]
    pub fn complaint(&self, seen: &[&Connection]) -> Option<String> {
        let [seen] = seen else {
            return Some(format!(
                "a self-test connection fell back, and was seen {} times",
                seen.len()
            ));
        };
        // It may fall back for a reason of this host instead, and only a kernel that names causes is held to that one.
        let is_right = match (&self.grown[..], &seen.cause) {
            ([], cause) => cause.as_deref() == Some(CAUSE),
            ([only], cause) if only == CAUSE => cause.as_deref() == Some(CAUSE),
            (grown, Some(cause)) => {
                seen.known != CauseCertainty::Reported || grown.iter().any(|it| it == cause)
            }
            (_, None) => true,
        };
        if !is_right {
            let causes = match &self.grown[..] {
                [] => CAUSE.to_owned(),
                grown => grown.join(" or "),
            };
            return Some(format!(
                "a self-test connection fell back because of {causes}, but {:?} was seen",
                seen.cause
            ));
        }
        (seen.socket.remote != self.remote).then(|| {
            format!(
                "a self-test connection to {} fell back, but one to {} was seen",
                self.remote, seen.socket.remote
            )
        })
    }
}

impl Questions {
    fn ask_tcp(&mut self, ground: &mut Ground<'_>) -> anyhow::Result<Socket> {
        let tcp = ground
            .open(None)
            .context("cannot open a TCP socket to query")?;
        self.ask("a fresh TCP socket", Protocol::Tcp, false, &tcp)?;
        Ok(tcp)
    }

    fn ask(
        &mut self,
        what: &'static str,
        protocol: Protocol,
        fell_back: bool,
        socket: &Socket,
    ) -> anyhow::Result<()> {
        // SAFETY: the descriptor is open as long as `socket` is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        let inode = rustix::fs::fstat(fd)
            .context("cannot inspect our own socket")?
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
                "a query that the self-test did not make",
                format!("about {}", query.socket.local),
            )
        }));
        complaints
    }

    /// The state bits that may be the one that says "fell back": set in what fell back, clear in what did not.
    #[must_use]
    pub fn fallback_bits(&self, seen: &[Query]) -> u64 {
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
        let always = bits(true).reduce(|a, b| a & b);
        let ever = bits(false).reduce(|a, b| a | b);
        match (always, ever) {
            (Some(always), Some(ever)) => always & !ever,
            (None, _) | (_, None) => 0,
        }
    }
}

/// The number of the only bit that is set; none if there is not exactly one.
#[must_use]
pub fn only_bit(bits: u64) -> Option<u8> {
    (bits.count_ones() == 1).then(|| bits.trailing_zeros() as u8)
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
            Self::Unseen(what) => write!(f, "the self-test queried {what}, but no probe saw it"),
            Self::Wrong(what, difference) => write!(f, "{what} was seen wrong: {difference}"),
        }
    }
}

fn differences(asked: &Asked, query: &Query) -> Vec<String> {
    let mut differences = Vec::new();
    let mut expect = |name: &str, seen: String, true_value: String| {
        if seen != true_value {
            differences.push(format!("{name} {seen}, expected {true_value}"));
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

/// Where our sockets come from, and how they are marked.
struct Ground<'a> {
    whose: Whose,
    mark: Mark<'a>,
}

/// Which network namespace it is.
enum Whose {
    /// That of the host.
    Hosts,
    /// One of this thread's own.
    Ours,
    /// One that somebody else has made.
    Lent(Lent),
}

impl<'a> Ground<'a> {
    /// The network namespace of this process.
    fn here(mark: Mark<'a>) -> Self {
        let whose = Whose::Hosts;
        Self { whose, mark }
    }

    /// A network namespace of our own, gone when the thread and its sockets are.
    fn of_our_own(mark: Mark<'a>) -> anyhow::Result<Self> {
        if !may_make_namespaces() {
            let whose = Whose::Lent(Lent::new()?);
            return Ok(Self { whose, mark });
        }
        // SAFETY: only this thread's network namespace changes; it has opened no socket yet.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
            .context("cannot create a network namespace")?;
        bring_loopback_up().context("cannot bring up loopback in our network namespace")?;
        // Where the kernel has no such setting, what it is for is not known.
        let _refused = fs::write(
            "/proc/sys/net/mptcp/blackhole_timeout",
            BLACKHOLE_TIMEOUT_TEXT,
        );
        let whose = Whose::Ours;
        Ok(Self { whose, mark })
    }

    fn open(&mut self, protocol: Option<SocketProtocol>) -> io::Result<Socket> {
        let socket = match &mut self.whose {
            Whose::Hosts | Whose::Ours => open(protocol),
            Whose::Lent(lent) => lent.open(protocol),
        }?;
        (self.mark)(socket.as_fd());
        Ok(socket)
    }

    /// True if there is another socket to be had.
    fn has_more(&self) -> bool {
        match &self.whose {
            Whose::Hosts | Whose::Ours => true,
            Whose::Lent(lent) => lent.has_spare(),
        }
    }

    /// The kernel's counters of fallbacks, where connections are ours only.
    fn fallbacks(&mut self) -> Option<Counters> {
        let text = match &mut self.whose {
            Whose::Hosts => None,
            Whose::Ours => fs::read_to_string("/proc/thread-self/net/netstat").ok(),
            Whose::Lent(lent) => lent.netstat(),
        }?;
        let mut counters = netstat::parse(&text);
        counters.retain(|name, _| find_cause(name).is_some());
        Some(counters)
    }
}

/// A connection of ours.
struct Made {
    client: Socket,
    server: Socket,
    /// Which counters of fallbacks grew while it was made.
    grown: Vec<String>,
    /// How many were made for it.
    tries: usize,
}

/// Connects again and again until what the kernel counted meanwhile is `right`, or often enough.
fn connect_until(
    listener: &Socket,
    ground: &mut Ground<'_>,
    right: impl Fn(&[String]) -> bool,
) -> anyhow::Result<Made> {
    let mut tries = 0;
    loop {
        tries += 1;
        let before = ground.fallbacks();
        let (client, server) = connect(listener, ground)?;
        let after = ground.fallbacks();
        let grown: Vec<String> = match (before, after) {
            (Some(before), Some(after)) => after
                .into_iter()
                .filter(|(name, count)| before.get(name).is_some_and(|it| it < count))
                .map(|(name, _)| name)
                .collect(),
            _ => Vec::new(),
        };
        if right(&grown) || tries >= CONNECT_TRIES || !ground.has_more() {
            return Ok(Made {
                client,
                server,
                grown,
                tries,
            });
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

fn listen(protocol: Option<SocketProtocol>, ground: &mut Ground<'_>) -> anyhow::Result<Socket> {
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
fn connect(listener: &Socket, ground: &mut Ground<'_>) -> anyhow::Result<(Socket, Socket)> {
    let client = ground
        .open(Some(SocketProtocol::MPTCP))
        .context("cannot open an MPTCP socket")?;
    client
        .connect(
            &listener
                .local_addr()
                .context("cannot determine our listening port")?,
        )
        .context("cannot connect over loopback")?;
    let (server, _peer) = listener.accept().context("cannot accept over loopback")?;
    Ok((client, server))
}

#[cfg(test)]
mod tests;
