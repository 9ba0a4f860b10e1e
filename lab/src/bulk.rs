//! `mptcp-lab bulk`: a bulk transfer over MPTCP between two network namespaces, for what tracing costs it.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::{
    net::{Family, Kind, open},
    netns, report,
    tracer::{Started, Tracer},
    veth::{self, CLIENT_V4, SERVER_V4},
};

/// How to transfer.
#[derive(clap::Args)]
pub struct Args {
    /// For how long, seconds
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Bytes that are handed over at a time
    #[arg(long, default_value_t = 65_536)]
    pub chunk: usize,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// Bytes that arrived.
    pub bytes: u64,
    /// How long that took, seconds.
    pub seconds: f64,
}

impl Transfer {
    /// Megabytes (10^6 bytes) a second.
    #[must_use]
    pub fn megabytes_per_second(self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }
}

/// What to compare.
#[derive(clap::Args)]
pub struct CostArgs {
    /// The mptcp-trace to measure
    #[arg(long, value_name = "PATH")]
    pub tracer: PathBuf,
    /// Only this rung (repeatable); all three if none is named
    #[arg(long, value_name = "RUNG")]
    pub attach: Vec<String>,
    /// Rounds: each transfers once without a tracer and once beside a tracer on each rung
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// How to transfer
    #[command(flatten)]
    pub transfer: Args,
}

/// Transfers in turn without a tracer and beside one on each rung, and prints the medians as a table.
///
/// # Errors
///
/// Says which step failed.
pub fn cost(args: &CostArgs) -> anyhow::Result<()> {
    let mut rungs = if args.attach.is_empty() {
        ["fexit", "kprobe", "tracepoint"]
            .map(str::to_owned)
            .to_vec()
    } else {
        args.attach.clone()
    };
    let mut rates: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..args.rounds {
        let alone = transfer(&args.transfer)?.megabytes_per_second();
        rates.entry(String::new()).or_default().push(alone);
        let mut there = Vec::new();
        for rung in rungs {
            match Tracer::start(&args.tracer, &rung, &[])? {
                Started::Live(tracer) => {
                    let beside = transfer(&args.transfer)?.megabytes_per_second();
                    if let Some(why) = tracer.finish()?.broken {
                        anyhow::bail!("the tracer on rung {rung}: {why}");
                    }
                    rates.entry(rung.clone()).or_default().push(beside);
                    there.push(rung);
                }
                Started::Unavailable(why) => eprintln!("mptcp-lab: no rung {rung}: {why}"),
                Started::Broken(why) => anyhow::bail!("the tracer on rung {rung}: {why}"),
            }
        }
        rungs = there;
    }
    println!("| beside the transfer | MB/s | of the untraced |");
    println!("|---|---|---|");
    let alone = rates.get("").map_or(f64::NAN, |rates| median(rates));
    for (rung, rates) in &rates {
        let name = if rung.is_empty() {
            "nothing".to_owned()
        } else {
            format!("mptcp-trace, {rung}")
        };
        let rate = median(rates);
        println!("| {name} | {rate:.1} | {:.1} % |", 100.0 * rate / alone);
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Transfers once, and prints what came of it as a line of JSON.
///
/// # Errors
///
/// Says which step failed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let transfer = transfer(args)?;
    report::write_line(&mut std::io::stdout(), &transfer)
}

/// Transfers once.
///
/// # Errors
///
/// Says which step failed.
pub fn transfer(args: &Args) -> anyhow::Result<Transfer> {
    let (near, far) = veth::joined()?;
    let listener = at(far.as_fd(), SERVER_V4)?;
    listener.listen(1).context("cannot listen")?;
    let address = listener
        .local_addr()
        .context("cannot tell where it listens")?;
    let client = at(near.as_fd(), CLIENT_V4)?;
    client.connect(&address).context("cannot connect")?;
    let (server, _peer) = listener.accept().context("cannot accept")?;
    pump(&client, &server, args)
}

fn pump(mut client: &Socket, mut server: &Socket, args: &Args) -> anyhow::Result<Transfer> {
    let over = AtomicBool::new(false);
    let chunk = vec![0_u8; args.chunk];
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| -> anyhow::Result<()> {
            while !over.load(Ordering::Relaxed) {
                client.write_all(&chunk).context("cannot send")?;
            }
            client
                .shutdown(std::net::Shutdown::Write)
                .context("cannot end")
        });
        let mut buffer = vec![0_u8; args.chunk];
        // The first packets find everything cold.
        let warm = Instant::now();
        while warm.elapsed() < Duration::from_millis(200) {
            server.read_exact(&mut buffer).context("cannot receive")?;
        }
        let (started, mut bytes) = (Instant::now(), 0);
        while started.elapsed().as_secs_f64() < args.seconds {
            server.read_exact(&mut buffer).context("cannot receive")?;
            bytes += buffer.len() as u64;
        }
        let seconds = started.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        while server.read(&mut buffer).context("cannot receive")? > 0 {}
        sending
            .join()
            .map_err(|_panic| anyhow::anyhow!("the sender panicked"))??;
        Ok(Transfer { bytes, seconds })
    })
}

fn at(namespace: BorrowedFd<'_>, address: std::net::Ipv4Addr) -> anyhow::Result<Socket> {
    netns::within(namespace, || {
        let socket = open(Kind::Mptcp, Family::V4).context("cannot open an MPTCP socket")?;
        socket
            .bind(&std::net::SocketAddr::from((address, 0)).into())
            .with_context(|| format!("cannot bind to {address}"))?;
        Ok(socket)
    })
}
