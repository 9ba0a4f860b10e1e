//! `mptcp-lab resident`: memory of the tracer while very many connections are open.

use std::{
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde::Serialize;
use socket2::Socket;

use crate::{
    link,
    net::{self, Family, Kind},
    process::{Running, own},
    query::{Api, ask},
    report::write_line,
    tracer::Run,
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
    let run = Run::live(&args.tracer, "auto").uncapped()?;
    let beside = run.start()?.live()?;
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
    beside.stop(Signal::INT)?.in_order()?;
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
struct Holder(Running);

impl Holder {
    fn start(connections: u32) -> anyhow::Result<Self> {
        let mut command = own("holder")?;
        command.args(["--connections", &connections.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(Running::start(
            "a holder of connections",
            &mut command,
        )?))
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let stdout = self.0.0.stdout.as_mut();
        let stdout = stdout.context("a holder without stdout")?;
        stdout
            .read_exact(&mut [0])
            .context("a holder could not connect")
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
    let listener = net::listen(Kind::Mptcp, Family::V4)?;
    (0..connections)
        .map(|_| {
            let (client, server) = net::pair(Kind::Mptcp, &listener, Family::V4)?;
            ask(client.as_raw_fd(), Api::TcpIsMptcp)?;
            Ok((client, server))
        })
        .collect()
}
