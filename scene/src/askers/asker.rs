//! The querying application: each query is one raw system call and one line with its result.

use std::{
    io::Write,
    os::fd::{AsRawFd as _, RawFd},
};

use anyhow::ensure;
use socket2::{Domain, SockAddr, Socket};

use serde::{Deserialize, Serialize};

use crate::{
    lines::write_line,
    net::{self, Endpoint},
    query::{Door, Form, Holding, Truth, query, truth},
    sys::errno_name,
};

/// Result of one query, from the caller's point of view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Name of the case.
    pub case: String,
    /// Querying process.
    pub pid: u32,
    /// Querying thread.
    pub tid: u32,
    /// Number of the query in this run, in order of time.
    pub seq: u64,
    /// Return value of the call.
    pub rc: i32,
    /// Errno, or none if the call succeeded.
    pub errno: Option<String>,
    /// Bytes that the kernel wrote as its answer.
    pub value_bytes: Vec<u8>,
    /// Length that the caller passed; none for an invalid `optlen` pointer.
    pub optlen_in: Option<i32>,
    /// Length that the kernel returned; none for an invalid `optlen` pointer.
    pub optlen_out: Option<i32>,
    /// Derived from the buffer if the kernel wrote to it, otherwise from how the socket was
    /// created.
    pub truth: Truth,
    /// `SO_PROTOCOL` of the socket: 6, 262, or another value.
    pub so_protocol: Option<i32>,
    /// `ipv4`, `ipv6`, or none for other families.
    pub family: Option<String>,
    /// TCP state, with the names of RFC 9293.
    pub state: Option<String>,
    /// Whether the case created an MPTCP socket whose connection fell back.
    pub fell_back: bool,
    /// `getsockname`.
    pub local: Option<Endpoint>,
    /// `getpeername`; the unspecified address and port 0 if the socket has no peer.
    pub remote: Option<Endpoint>,
    /// Target of a connecting socket: it has no peer yet, but the kernel knows this address.
    pub connecting_to: Option<Endpoint>,
    /// Inode number of the socket.
    pub inode: Option<u64>,
    /// Whether the call came through the kernel's 32-bit entry.
    pub compat: bool,
}

/// A line of the asker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum AskerLine {
    /// A query.
    Asked(Box<Asked>),
    /// A case that cannot run here.
    Skipped {
        /// Its name.
        case: String,
        /// Why.
        why: String,
    },
}

/// Makes queries and records the results.
pub(crate) struct Asker {
    out: Box<dyn Write + Send>,
    asked: u64,
    /// Derive from the next answer whether the connection fell back.
    is_told: bool,
}

impl Asker {
    /// Creates an asker that writes its lines to `out`.
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        Self {
            out,
            asked: 0,
            is_told: false,
        }
    }

    /// Writes a line.
    pub(crate) fn write(&mut self, line: &AskerLine) -> anyhow::Result<()> {
        write_line(&mut self.out, line)
    }

    /// Makes a query in the usual form.
    pub(crate) fn ask(
        &mut self,
        case: &str,
        socket: &Socket,
        holding: Holding,
    ) -> anyhow::Result<()> {
        self.ask_as(case, socket, holding, Form::default())
    }

    /// Queries an MPTCP socket for which only the kernel's answer shows whether it fell back:
    /// kernels differ.
    pub(crate) fn ask_either(
        &mut self,
        case: &str,
        socket: &Socket,
        holding: Holding,
    ) -> anyhow::Result<()> {
        self.is_told = true;
        let asked = self.ask(case, socket, holding);
        self.is_told = false;
        asked
    }

    /// Makes a query in an unusual form.
    pub(crate) fn ask_as(
        &mut self,
        case: &str,
        socket: &Socket,
        holding: Holding,
        form: Form,
    ) -> anyhow::Result<()> {
        self.put(case, Subject::Socket(socket), holding, form, None)
    }

    /// Queries a socket that is connecting to `address`.
    pub(crate) fn ask_connecting(
        &mut self,
        case: &str,
        socket: &Socket,
        holding: Holding,
        address: &SockAddr,
    ) -> anyhow::Result<()> {
        let subject = Subject::Socket(socket);
        self.put(case, subject, holding, Form::default(), Some(address))
    }

    /// Queries any descriptor.
    pub(crate) fn ask_fd(&mut self, case: &str, fd: RawFd, holding: Holding) -> anyhow::Result<()> {
        self.put(case, Subject::Fd(fd), holding, Form::default(), None)
    }

    fn put(
        &mut self,
        case: &str,
        subject: Subject,
        holding: Holding,
        form: Form,
        connecting_to: Option<&SockAddr>,
    ) -> anyhow::Result<()> {
        let fd = match subject {
            Subject::Socket(socket) => socket.as_raw_fd(),
            Subject::Fd(fd) => fd,
        };
        // Read the names directly before and after the query: any other system call in between
        // is another source of error.
        let before = Names::of(subject);
        let reply = query(fd, form)?;
        let says_tcp = match reply.returned.errno {
            0 => reply.value.first() == Some(&0),
            errno => errno == libc::ENOPROTOOPT,
        };
        let holding = Holding {
            fell_back: holding.fell_back || self.is_told && says_tcp,
            ..holding
        };
        let names = Names::of(subject);
        ensure!(
            names == before,
            "the socket of {case} changed while it was asked about: {before:?}, then {names:?}"
        );
        ensure!(
            names.protocol.filter(|number| is_tcp(*number)) == holding.protocol(),
            "the socket of {case} is not what the case says: SO_PROTOCOL {:?}",
            names.protocol
        );
        let state = match (names.listening, &connecting_to) {
            (true, _) => "LISTEN",
            (false, Some(_)) => "SYN_SENT",
            (false, None) if names.connected => "ESTABLISHED",
            (false, None) => "CLOSE",
        };
        let asked = Asked {
            case: case.into(),
            pid: std::process::id(),
            tid: thread_id(),
            seq: self.asked,
            rc: reply.returned.rc(),
            errno: (reply.returned.errno != 0).then(|| errno_name(reply.returned.errno)),
            truth: truth(&reply, form, holding),
            value_bytes: reply.value,
            optlen_in: reply.optlen.map(|_known| form.optlen),
            optlen_out: reply.optlen,
            so_protocol: names.protocol,
            family: names.family.map(str::to_owned),
            state: names.family.map(|_ip| state.to_owned()),
            fell_back: holding.fell_back,
            local: names.local,
            remote: names.remote,
            connecting_to: connecting_to.and_then(net::endpoint),
            inode: names.inode,
            compat: form.door != Door::Native,
        };
        self.asked += 1;
        write_line(&mut self.out, &AskerLine::Asked(Box::new(asked)))
    }
}

/// Target of a query.
#[derive(Clone, Copy)]
enum Subject<'a> {
    /// A socket.
    Socket(&'a Socket),
    /// Any descriptor.
    Fd(RawFd),
}

/// What the application can find out about its socket without an MPTCP query.
#[derive(Default, PartialEq, Eq, Debug)]
struct Names {
    local: Option<Endpoint>,
    remote: Option<Endpoint>,
    connected: bool,
    listening: bool,
    protocol: Option<i32>,
    family: Option<&'static str>,
    inode: Option<u64>,
}

impl Names {
    fn of(subject: Subject) -> Self {
        let Subject::Socket(socket) = subject else {
            return Self::default();
        };
        let peer = socket.peer_addr().ok();
        let domain = socket.domain().ok();
        let nowhere = || domain.and_then(net::nowhere);
        Self {
            local: socket.local_addr().ok().as_ref().and_then(net::endpoint),
            remote: peer.as_ref().map_or_else(nowhere, net::endpoint),
            connected: peer.is_some(),
            listening: socket.is_listener().unwrap_or(false),
            protocol: socket.protocol().ok().flatten().map(i32::from),
            family: domain.and_then(|domain| match domain {
                Domain::IPV4 => Some("ipv4"),
                Domain::IPV6 => Some("ipv6"),
                _ => None,
            }),
            inode: rustix::fs::fstat(socket).ok().map(|stat| stat.st_ino),
        }
    }
}

fn is_tcp(protocol: i32) -> bool {
    matches!(protocol, libc::IPPROTO_TCP | libc::IPPROTO_MPTCP)
}

/// Thread number, as the kernel counts.
pub(crate) fn thread_id() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}
