//! `mptcp-lab ask`: the applications. Each question is one raw system call, and one line of what it gave.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsRawFd as _, RawFd},
    path::PathBuf,
};

use anyhow::{Context as _, ensure};
use socket2::{Domain, SockAddr, Socket};

use crate::{
    cases::{CASES, Case},
    link,
    net::{self, Family, Kind},
    provoke::family,
    question::{Door, Form, Holding, question, truth},
    report::{Asked, AskerLine, Endpoint, errno_name, write_line},
};

/// What to ask about.
#[derive(clap::Args)]
pub struct Args {
    /// Only this case, or the cases whose names begin with it (repeatable)
    #[arg(long, value_name = "NAME")]
    pub case: Vec<String>,
    /// Only with these addresses, where a case is about any
    #[arg(long, value_name = "v4|v6", value_parser = family)]
    pub family: Option<Family>,
    /// Write the lines to FILE instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Stay in this network namespace instead of making one
    #[arg(long)]
    pub here: bool,
}

/// Asks and writes down.
pub struct Asker {
    out: Box<dyn Write + Send>,
    asked: u64,
    /// The kernel has MPTCP.
    pub has_mptcp: bool,
    /// The next answer says whether the connection has fallen back.
    is_told: bool,
}

/// Runs the cases.
///
/// # Errors
///
/// Fails if the lines cannot be written, or there is no network namespace to be had. A case that cannot be
/// made is a line of its own.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let wanted = |case: &Case, name: &str| {
        case.name == name
            || case
                .name
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('-'))
    };
    for name in &args.case {
        ensure!(
            CASES.iter().any(|case| wanted(case, name)),
            "cannot run the case {name}: there is none of that name; the cases are {}",
            CASES
                .iter()
                .map(|case| case.name)
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let out: Box<dyn Write + Send> = match &args.out {
        Some(path) => Box::new(
            File::create(path).with_context(|| format!("cannot write to {}", path.display()))?,
        ),
        None => Box::new(std::io::stdout()),
    };
    if !args.here {
        link::enter_network_namespace()
            .context("cannot make a network namespace; run it as root, or with --here")?;
    }
    let mptcp = net::open(Kind::Mptcp, Family::V4);
    let mut asker = Asker {
        out,
        asked: 0,
        has_mptcp: mptcp.is_ok(),
        is_told: false,
    };
    for case in CASES {
        if !args.case.is_empty() && !args.case.iter().any(|name| wanted(case, name)) {
            continue;
        }
        let is_wanted =
            |it: &&Family| case.families.len() == 1 || args.family.is_none_or(|only| only == **it);
        for &family in case.families.iter().filter(is_wanted) {
            let made = match &mptcp {
                Err(why) if case.needs_mptcp => Err(anyhow::anyhow!("no MPTCP socket: {why}")),
                Ok(_) | Err(_) => (case.run)(&mut asker, family),
            };
            if let Err(why) = made {
                let skipped = AskerLine::Skipped {
                    case: format!("{}-{}", case.name, family.suffix()),
                    why: format!("{why:#}"),
                };
                write_line(&mut asker.out, &skipped)?;
            }
        }
    }
    Ok(())
}

impl Asker {
    /// Asks in the usual way.
    ///
    /// # Errors
    ///
    /// Fails if the line cannot be written.
    pub fn ask(&mut self, case: &str, socket: &Socket, holding: Holding) -> anyhow::Result<()> {
        self.ask_as(case, socket, holding, Form::default())
    }

    /// Asks about an MPTCP socket of which the kernel's answer alone says whether it has fallen back: kernels differ.
    ///
    /// # Errors
    ///
    /// Fails if the line cannot be written.
    pub fn ask_either(
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

    /// Asks in an unusual way.
    ///
    /// # Errors
    ///
    /// Fails if the line cannot be written, or the socket is not what the case says.
    pub fn ask_as(
        &mut self,
        case: &str,
        socket: &Socket,
        holding: Holding,
        form: Form,
    ) -> anyhow::Result<()> {
        self.put(case, Subject::Socket(socket), holding, form, None)
    }

    /// Asks about a socket that is connecting to `address`.
    ///
    /// # Errors
    ///
    /// Fails if the line cannot be written.
    pub fn ask_connecting(
        &mut self,
        case: &str,
        socket: &Socket,
        holding: Holding,
        address: &SockAddr,
    ) -> anyhow::Result<()> {
        let subject = Subject::Socket(socket);
        self.put(case, subject, holding, Form::default(), Some(address))
    }

    /// Asks about a descriptor that may be anything.
    ///
    /// # Errors
    ///
    /// Fails if the line cannot be written.
    pub fn ask_fd(&mut self, case: &str, fd: RawFd, holding: Holding) -> anyhow::Result<()> {
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
        // Another system call between the question and its names would be another chance to be wrong.
        let before = Names::of(subject);
        let reply = question(fd, form)?;
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

/// What is asked about.
#[derive(Clone, Copy)]
enum Subject<'a> {
    /// A socket.
    Socket(&'a Socket),
    /// Whatever stands there.
    Fd(RawFd),
}

/// What the application can learn of its socket without asking about MPTCP.
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

/// This thread, as the kernel numbers it.
#[must_use]
pub fn thread_id() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}
