//! Checks that attached probes also fire: the canary queries its own sockets, and the probes must
//! observe those queries.
//!
//! The sockets live in a throwaway network namespace, so that neither the host's counters nor its
//! sysctls are involved: a namespace of our own, or, without privileges, one in a user namespace.
//! One socket has fallen back: the state bit in which it differs from the others is the fallback
//! bit, whose number no kernel publishes.

mod settings;
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

pub use self::settings::BLACKHOLE_TIMEOUT;
use self::{settings::put_settings, userns_sockets::UsernsSockets};
use crate::{
    host::{
        netstat::{self, Counters},
        privileges::may_make_namespaces,
        system::ask_is_mptcp,
    },
    model::{Answer, CAUSES, CauseCertainty, Connection, Errno, Protocol, Query},
};

/// Marks a socket as part of a self-test, before it is used, so that other instances ignore it.
pub type Mark<'a> = &'a (dyn Fn(BorrowedFd<'_>) + Sync);

/// At most this many attempts to connect, while our connections fall back for reasons of this host.
const CONNECT_TRIES: usize = 64;

/// The counter of the fallback that the canary provokes.
const CAUSE: &str = "MPCapableFallbackSYNACK";

/// True if an attempt failed for a transient reason: no descriptors, no memory.
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

/// One query by the canary, and the known state of its socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelfTestQuery {
    /// Description of the socket.
    pub what: &'static str,
    /// Protocol that the socket was created with.
    pub protocol: Protocol,
    /// Whether it fell back.
    pub fell_back: bool,
    /// The kernel's answer.
    pub answer: Result<i32, Errno>,
    /// Inode number of the socket.
    pub inode: u64,
    /// Result of `getsockname`.
    pub local: Option<SocketAddr>,
}

/// The canary's queries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SelfTestQueries {
    /// Queries that the probes must observe.
    pub asked: Vec<SelfTestQuery>,
    /// Queries that were impossible, with the reason.
    pub skipped: Vec<String>,
}

/// Makes the queries, on a thread of its own. Also returns a socket in a network namespace whose
/// blackhole timeout is [`BLACKHOLE_TIMEOUT`], if this kernel has that sysctl; `None` without such
/// a namespace.
///
/// # Errors
///
/// Fails if not even a TCP socket can be queried.
pub fn ask(mark: Mark<'_>) -> anyhow::Result<(SelfTestQueries, Option<Socket>)> {
    on_a_thread(|| ask_here(mark))?
}

/// Runs `act` on a thread of its own, because it may change its network namespace.
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

fn ask_here(mark: Mark<'_>) -> anyhow::Result<(SelfTestQueries, Option<Socket>)> {
    let mut queries = SelfTestQueries::default();
    let mut sockets = match SocketFactory::of_our_own(mark) {
        Ok(sockets) => sockets,
        Err(why) if is_passing(&why) => return Err(why),
        Err(why) => {
            queries
                .skipped
                .push(format!("MPTCP connections of the self-test: {why:#}"));
            ask_fresh(&mut queries, &mut SocketFactory::here(mark))?;
            return Ok((queries, None));
        }
    };
    let inside = queries.ask_tcp(&mut sockets)?;
    match ask_mptcp(&mut queries, &mut sockets) {
        Ok(()) => {}
        Err(why) if is_passing(&why) => return Err(why),
        Err(why) => queries
            .skipped
            .push(format!("MPTCP connections of the self-test: {why:#}")),
    }
    Ok((queries, Some(inside)))
}

/// Makes the queries that are possible in the host's namespace.
fn ask_fresh(queries: &mut SelfTestQueries, sockets: &mut SocketFactory<'_>) -> anyhow::Result<()> {
    queries.ask_tcp(sockets)?;
    if let Ok(mptcp) = sockets.open(Some(SocketProtocol::MPTCP)) {
        queries.ask("a fresh MPTCP socket", Protocol::Mptcp, false, &mptcp)?;
    }
    Ok(())
}

fn ask_mptcp(queries: &mut SelfTestQueries, sockets: &mut SocketFactory<'_>) -> anyhow::Result<()> {
    let fresh = sockets
        .open(Some(SocketProtocol::MPTCP))
        .context("cannot open an MPTCP socket")?;
    queries.ask("a fresh MPTCP socket", Protocol::Mptcp, false, &fresh)?;

    let listener = listen(Some(SocketProtocol::MPTCP), sockets)?;
    let made = connect_until(&listener, sockets, <[String]>::is_empty)?;
    let what = "a connected MPTCP socket";
    if made.grown.is_empty() {
        queries.ask(what, Protocol::Mptcp, false, &made.client)?;
        queries.ask(
            "an accepted MPTCP socket",
            Protocol::Mptcp,
            false,
            &made.server,
        )?;
    } else {
        queries.ask(what, Protocol::Mptcp, true, &made.client)?;
        queries.skipped.push(format!(
            "a self-test connection that stays MPTCP: each of {} fell back ({}), as others on this \
             host do now; if the cause is MPFallbackTokenInit, the kernel's MPTCP token table is \
             full",
            made.tries,
            made.grown.join(", ")
        ));
    }

    // RFC 8684 section 3.7: a peer that answers the SYN without MP_CAPABLE makes it plain TCP.
    let listener = listen(None, sockets)?;
    // Both ends stay open: when the peer closes, the kernel changes more state bits.
    let made = connect_until(&listener, sockets, |_any| true)?;
    queries.ask(
        "an MPTCP socket that fell back",
        Protocol::Mptcp,
        true,
        &made.client,
    )
}

/// A connection of the canary that fell back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fallen {
    /// Result of `getsockname`.
    pub local: SocketAddr,
    /// Result of `getpeername`.
    pub remote: SocketAddr,
    /// Fallback counters of its namespace that grew meanwhile; empty if they cannot be read.
    pub grown: Vec<String>,
}

/// Provokes a fallback, on a thread and in a namespace of its own.
///
/// # Errors
///
/// Fails if no thread can be started; the inner error reports why there is no connection.
pub fn fall_back(mark: Mark<'_>) -> anyhow::Result<anyhow::Result<Fallen>> {
    on_a_thread(|| fall_back_here(mark))
}

fn fall_back_here(mark: Mark<'_>) -> anyhow::Result<Fallen> {
    let mut sockets = SocketFactory::of_our_own(mark)?;
    // RFC 8684 section 3.7: a peer that answers the SYN without MP_CAPABLE makes it plain TCP.
    let listener = listen(None, &mut sockets)?;
    let is_usual = |grown: &[String]| grown.is_empty() || grown == [CAUSE];
    let made = connect_until(&listener, &mut sockets, is_usual)?;
    let address = |of: io::Result<socket2::SockAddr>| of.ok().and_then(|it| it.as_socket());
    Ok(Fallen {
        local: address(made.client.local_addr()).context("our own socket has no address")?,
        remote: address(made.client.peer_addr()).context("our own socket has no peer")?,
        grown: made.grown,
    })
}

impl Fallen {
    /// Describes the error if the probes observed it incorrectly; `None` if they were right.
    #[must_use]
    pub fn complaint(&self, seen: &[&Connection]) -> Option<String> {
        let [seen] = seen else {
            return Some(format!(
                "a self-test connection fell back, and was seen {} times",
                seen.len()
            ));
        };
        // It may fall back for a reason of this host instead. Only kernels that report causes must
        // report this one.
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

impl SelfTestQueries {
    fn ask_tcp(&mut self, sockets: &mut SocketFactory<'_>) -> anyhow::Result<Socket> {
        let tcp = sockets
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
        // SAFETY: the descriptor is open while `socket` is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        let inode = rustix::fs::fstat(fd)
            .context("cannot inspect our own socket")?
            .st_ino;
        let answer =
            ask_is_mptcp(socket).map_err(|why| Errno(why.raw_os_error().unwrap_or_default()));
        let local = socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket());
        self.asked.push(SelfTestQuery {
            what,
            protocol,
            fell_back,
            answer,
            inode,
            local,
        });
        Ok(())
    }

    /// Compares the canary's queries with the observed ones.
    #[must_use]
    pub fn compare(&self, seen: &[Query]) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let mut rest: Vec<&Query> = seen.iter().collect();
        for asked in &self.asked {
            // Without an inode number, the order decides: the queries were sequential.
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

    /// Candidates for the fallback bit: set in the socket that fell back, clear in the others.
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

/// Number of the only set bit; `None` unless exactly one is set.
#[must_use]
pub fn only_bit(bits: u64) -> Option<u8> {
    (bits.count_ones() == 1).then(|| bits.trailing_zeros() as u8)
}

/// A defect of the probes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Complaint {
    /// A query that no probe observed.
    Unseen(&'static str),
    /// A query that was observed wrongly.
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

fn differences(asked: &SelfTestQuery, query: &Query) -> Vec<String> {
    let mut differences = Vec::new();
    let mut expect = |name: &str, seen: String, true_value: String| {
        if seen != true_value {
            differences.push(format!("{name} {seen}, expected {true_value}"));
        }
    };
    let answer = match asked.answer {
        Ok(1) => Some(Answer::Mptcp),
        Ok(0) => Some(Answer::Tcp),
        Ok(_) => None,
        Err(errno @ (Errno::EOPNOTSUPP | Errno::ENOPROTOOPT)) => Some(Answer::Unsupported(errno)),
        Err(errno) => Some(Answer::Failed(errno)),
    };
    expect(
        "answer",
        format!("{:?}", Some(query.answer)),
        format!("{answer:?}"),
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

/// Source of the canary's sockets, and their mark.
struct SocketFactory<'a> {
    namespace: NamespaceSource,
    mark: Mark<'a>,
}

/// The network namespace of the sockets.
enum NamespaceSource {
    /// The host's.
    Host,
    /// One of this thread's own.
    Own,
    /// One that a child process has created.
    Userns(UsernsSockets),
}

impl<'a> SocketFactory<'a> {
    /// The network namespace of this process.
    fn here(mark: Mark<'a>) -> Self {
        let namespace = NamespaceSource::Host;
        Self { namespace, mark }
    }

    /// A network namespace of our own; it ends with the thread and its sockets.
    fn of_our_own(mark: Mark<'a>) -> anyhow::Result<Self> {
        if !may_make_namespaces() {
            let namespace = NamespaceSource::Userns(UsernsSockets::new()?);
            return Ok(Self { namespace, mark });
        }
        // SAFETY: only this thread's network namespace changes; it has opened no socket yet.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
            .context("cannot create a network namespace")?;
        bring_loopback_up().context("cannot bring up loopback in our network namespace")?;
        put_settings();
        let namespace = NamespaceSource::Own;
        Ok(Self { namespace, mark })
    }

    fn open(&mut self, protocol: Option<SocketProtocol>) -> io::Result<Socket> {
        let socket = match &mut self.namespace {
            NamespaceSource::Host | NamespaceSource::Own => open(protocol),
            NamespaceSource::Userns(userns) => userns.open(protocol),
        }?;
        (self.mark)(socket.as_fd());
        Ok(socket)
    }

    /// True if another socket is available.
    fn has_more(&self) -> bool {
        match &self.namespace {
            NamespaceSource::Host | NamespaceSource::Own => true,
            NamespaceSource::Userns(userns) => userns.has_spare(),
        }
    }

    /// The kernel's fallback counters, if the namespace has no other connections.
    fn fallbacks(&mut self) -> Option<Counters> {
        let text = match &mut self.namespace {
            NamespaceSource::Host => None,
            NamespaceSource::Own => fs::read_to_string("/proc/thread-self/net/netstat").ok(),
            NamespaceSource::Userns(userns) => userns.netstat(),
        }?;
        let mut counters = netstat::parse(&text);
        counters.retain(|name, _| CAUSES.iter().any(|cause| cause.name == name));
        Some(counters)
    }
}

/// A connection of the canary.
struct Made {
    client: Socket,
    server: Socket,
    /// Fallback counters that grew while it was made.
    grown: Vec<String>,
    /// Number of attempts.
    tries: usize,
}

/// Connects until the counters that grew meanwhile are `right`, or the limit of attempts is
/// reached.
fn connect_until(
    listener: &Socket,
    sockets: &mut SocketFactory<'_>,
    right: impl Fn(&[String]) -> bool,
) -> anyhow::Result<Made> {
    let mut tries = 0;
    loop {
        tries += 1;
        let before = sockets.fallbacks();
        let (client, server) = connect(listener, sockets)?;
        let after = sockets.fallbacks();
        let grown: Vec<String> = match (before, after) {
            (Some(before), Some(after)) => after
                .into_iter()
                .filter(|(name, count)| before.get(name).is_some_and(|it| it < count))
                .map(|(name, _)| name)
                .collect(),
            _ => Vec::new(),
        };
        if right(&grown) || tries >= CONNECT_TRIES || !sockets.has_more() {
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
        *slot = libc::c_char::from_ne_bytes([*byte]);
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

fn listen(
    protocol: Option<SocketProtocol>,
    sockets: &mut SocketFactory<'_>,
) -> anyhow::Result<Socket> {
    let listener = sockets
        .open(protocol)
        .context("cannot open a listening socket")?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    listener
        .bind(&loopback.into())
        .context("cannot bind to loopback")?;
    listener.listen(8).context("cannot listen on loopback")?;
    Ok(listener)
}

/// An MPTCP client, and the socket that the listener accepted.
fn connect(listener: &Socket, sockets: &mut SocketFactory<'_>) -> anyhow::Result<(Socket, Socket)> {
    let client = sockets
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
