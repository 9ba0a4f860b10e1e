//! `mptcp-lab resident`: memory of the tracer while very many connections are open.

use std::{
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use socket2::Socket;

use crate::{
    beside::{Beside, Lines},
    link,
    net::{Family, Kind, open},
    question::{SOL_TCP, TCP_IS_MPTCP},
    report::write_line,
    sys,
};

/// Time for the tracer to drain the ring and to judge the lines that it holds back.
const DRAIN: Duration = Duration::from_secs(2);
/// Connections per process: each needs two descriptors, and some machines have a low limit.
const OF_A_HOLDER: u32 = 4_000;
/// Descriptors besides those of the connections.
const DESCRIPTORS: u64 = 256;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to measure
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Number of open connections; the client of each makes one query
    #[arg(long, default_value_t = 10_000)]
    pub(crate) connections: u32,
}

/// The report.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Line {
    /// Memory with this number of connections.
    Resident {
        connections: u32,
        idle_kb: u64,
        resident_kb: u64,
        peak_kb: u64,
    },
}

/// Arguments of the holder process: a single process cannot open all connections.
#[derive(clap::Args)]
pub(crate) struct HolderArgs {
    /// Number of connections, both ends each
    #[arg(long)]
    pub(crate) connections: u32,
}

/// Measures, and prints a JSON line.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let beside = Beside::start(&args.tracer, &[], Lines::Dropped)?
        .map_err(|why| anyhow::anyhow!("this kernel cannot be traced: {why}"))?;
    let idle_kb = beside.memory()?.resident_kb;
    let mut holders = Vec::new();
    let mut left = args.connections;
    while left > 0 {
        let share = left.min(OF_A_HOLDER);
        holders.push(Holder::start(share)?);
        left -= share;
    }
    for holder in &mut holders {
        holder.wait_until_ready()?;
    }
    std::thread::sleep(DRAIN);
    let memory = beside.memory()?;
    drop(holders);
    beside.end()?;
    write_line(
        &mut std::io::stdout(),
        &Line::Resident {
            connections: args.connections,
            idle_kb,
            resident_kb: memory.resident_kb,
            peak_kb: memory.peak_kb,
        },
    )
}

/// The process exits when its stdin is closed.
struct Holder(Child);

impl Holder {
    fn start(connections: u32) -> anyhow::Result<Self> {
        let me = std::env::current_exe().context("cannot find the path of this program")?;
        let child = Command::new(me)
            .args(["holder", "--connections", &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run a holder of connections")?;
        Ok(Self(child))
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let mut word = [0];
        let stdout = self.0.stdout.as_mut().context("a holder without stdout")?;
        stdout
            .read_exact(&mut word)
            .context("a holder could not connect")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

/// Connects in a new network namespace, makes one query per connection, and holds the connections
/// until stdin is closed.
pub(crate) fn hold(args: &HolderArgs) -> anyhow::Result<()> {
    let descriptors = u64::from(args.connections) * 2 + DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: Some(limit.current.unwrap_or(descriptors).max(descriptors)),
        maximum: limit.maximum.map(|maximum| maximum.max(descriptors)),
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    link::enter_network_namespace().context("cannot make a network namespace")?;
    let held = connect(args.connections)?;
    writeln!(std::io::stdout()).context("stdout is closed")?;
    let _ended = std::io::stdin().read(&mut [0]);
    drop(held);
    Ok(())
}

fn connect(connections: u32) -> anyhow::Result<Vec<(Socket, Socket)>> {
    let listener = open(Kind::Mptcp, Family::V4).context("cannot open a listener")?;
    listener.bind(&Family::V4.loopback().into())?;
    listener.listen(128)?;
    let address = listener.local_addr()?;
    (0..connections)
        .map(|_| {
            let client = open(Kind::Mptcp, Family::V4).context("cannot open a client")?;
            client.connect(&address).context("cannot connect")?;
            let (server, _peer) = listener.accept().context("cannot accept")?;
            ask(&client);
            Ok((client, server))
        })
        .collect()
}

fn ask(socket: &Socket) {
    let (mut value, mut length) = (-1_i32, 4_i32);
    let (optval, optlen) = (&raw mut value as usize, &raw mut length as usize);
    let _what_it_says = sys::getsockopt(socket.as_raw_fd(), SOL_TCP, TCP_IS_MPTCP, optval, optlen);
}
