//! `mptcp-lab ask`: the applications. Each question is one raw system call, and one line of what it gave.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    os::fd::{AsRawFd as _, RawFd},
    path::PathBuf,
};

use anyhow::Context as _;
use socket2::Socket;

use crate::{
    cases::CASES,
    net::{self, Kind},
    report::{Asked, AskerLine, Endpoint, errno_name, write_line},
    sys::{self, LowBuffer, Returned},
};

/// `SOL_TCP`.
pub const SOL_TCP: i32 = 6;
/// `TCP_IS_MPTCP`, Linux 6.10 and later.
pub const TCP_IS_MPTCP: i32 = 43;

/// What to ask about.
#[derive(clap::Args)]
pub struct Args {
    /// Only this case (repeatable)
    #[arg(long, value_name = "NAME")]
    pub case: Vec<String>,
    /// Write the lines to FILE instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Stay in this network namespace instead of making one
    #[arg(long)]
    pub here: bool,
}

/// What the application holds, by how it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// TCP, MPTCP, or none of both.
    pub kind: Option<Kind>,
    /// An MPTCP socket whose connection fell back.
    pub fell_back: bool,
}

/// How the question is put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// What stands in `*optlen`.
    pub optlen: i32,
    /// `optval` points nowhere.
    pub bad_optval: bool,
    /// `optlen` points nowhere.
    pub bad_optlen: bool,
    /// Through the 32-bit entry of the kernel.
    pub compat: bool,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            optlen: 4,
            bad_optval: false,
            bad_optlen: false,
            compat: false,
        }
    }
}

/// Asks and writes down.
pub struct Asker {
    out: Box<dyn Write + Send>,
}

/// Runs the cases.
///
/// # Errors
///
/// Fails if the lines cannot be written, or there is no network namespace to be had. A case that cannot be
/// made is a line of its own.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let out: Box<dyn Write + Send> = match &args.out {
        Some(path) => Box::new(
            File::create(path).with_context(|| format!("cannot write to {}", path.display()))?,
        ),
        None => Box::new(std::io::stdout()),
    };
    if !args.here {
        sys::enter_network_namespace()
            .context("cannot make a network namespace; run it as root, or with --here")?;
    }
    let mut asker = Asker { out };
    let unknown: Vec<&String> = args
        .case
        .iter()
        .filter(|name| CASES.iter().all(|case| case.name != name.as_str()))
        .collect();
    anyhow::ensure!(unknown.is_empty(), "no case {unknown:?}");
    let mptcp = net::open(Kind::Mptcp, net::Family::V4);
    for case in CASES {
        if !args.case.is_empty() && !args.case.iter().any(|name| name == case.name) {
            continue;
        }
        let made = match &mptcp {
            Err(why) if case.needs_mptcp => Err(anyhow::anyhow!("no MPTCP socket: {why}")),
            Ok(_) | Err(_) => (case.run)(&mut asker),
        };
        if let Err(why) = made {
            let skipped = AskerLine::Skipped {
                case: case.name.into(),
                why: format!("{why:#}"),
            };
            write_line(&mut asker.out, &skipped)?;
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

    /// Asks in an unusual way.
    ///
    /// # Errors
    ///
    /// Fails if the line cannot be written.
    pub fn ask_as(
        &mut self,
        case: &str,
        socket: &Socket,
        holding: Holding,
        form: Form,
    ) -> anyhow::Result<()> {
        let names = Names {
            local: net::local(socket),
            remote: net::remote(socket),
            inode: net::inode(socket),
        };
        self.put(case, socket.as_raw_fd(), holding, form, &names)
    }

    /// Asks about a descriptor that may be anything.
    ///
    /// # Errors
    ///
    /// Fails if the line cannot be written.
    pub fn ask_fd(&mut self, case: &str, fd: RawFd, holding: Holding) -> anyhow::Result<()> {
        self.put(case, fd, holding, Form::default(), &Names::default())
    }

    fn put(
        &mut self,
        case: &str,
        fd: RawFd,
        holding: Holding,
        form: Form,
        names: &Names,
    ) -> anyhow::Result<()> {
        let (returned, told) = question(fd, form)?;
        let asked = Asked {
            case: case.into(),
            pid: std::process::id(),
            tid: rustix::thread::gettid()
                .as_raw_nonzero()
                .get()
                .cast_unsigned(),
            errno: (returned.errno != 0).then(|| errno_name(returned.errno)),
            answer: answer(returned, told, holding).into(),
            protocol: holding.kind.map(|kind| match kind {
                Kind::Tcp => 6,
                Kind::Mptcp => 262,
            }),
            fell_back: holding.fell_back,
            local: names.local.map(Endpoint::from),
            remote: names.remote.map(Endpoint::from),
            inode: names.inode,
            compat: form.compat,
        };
        write_line(&mut self.out, &AskerLine::Asked(asked))
    }
}

/// What the application knows of its socket.
#[derive(Default)]
struct Names {
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    inode: Option<u64>,
}

/// A byte that no answer has: where it stands, nothing was written.
const UNTOUCHED: u8 = 0xaa;

/// One question: what it returned, and the first byte of the answer if there is one.
fn question(fd: RawFd, form: Form) -> anyhow::Result<(Returned, Option<u8>)> {
    // Both entries of the kernel are given the same buffers, so that nothing but the entry differs.
    let buffer = LowBuffer::new().context("cannot map memory below 4 GiB")?;
    buffer.set(0, i32::from_ne_bytes([UNTOUCHED; 4]));
    buffer.set(1, i32::from_ne_bytes([UNTOUCHED; 4]));
    buffer.set(2, form.optlen);
    let optval = if form.bad_optval { 1 } else { buffer.word(0) };
    let optlen = if form.bad_optlen { 1 } else { buffer.word(2) };
    let returned = if form.compat {
        sys::getsockopt_32(fd, SOL_TCP, TCP_IS_MPTCP, optval, optlen)
    } else {
        sys::getsockopt(fd, SOL_TCP, TCP_IS_MPTCP, optval as usize, optlen as usize)
    };
    let first = buffer.get(0).to_ne_bytes()[0];
    Ok((returned, (first != UNTOUCHED).then_some(first)))
}

/// What the caller was told, in the tracer's words.
fn answer(returned: Returned, told: Option<u8>, holding: Holding) -> &'static str {
    match (returned.errno, told) {
        (libc::EOPNOTSUPP | libc::ENOPROTOOPT, _) => "unsupported",
        (0, Some(1)) => "mptcp",
        (0, Some(0)) => "tcp",
        // Success without a written answer (optlen 0): how the socket was made tells what it is.
        (0, None) if holding.kind == Some(Kind::Mptcp) && !holding.fell_back => "mptcp",
        (0, None) => "tcp",
        _ => "failed",
    }
}
