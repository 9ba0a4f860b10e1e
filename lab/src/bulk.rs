//! `mptcp-lab bulk-cost`: a bulk transfer over MPTCP between two network namespaces, with and without
//! a tracer.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde::Serialize;
use socket2::Socket;

use crate::{
    figures::{self, median},
    iperf,
    net::{Family, Kind, open},
    netns,
    paths::joined,
    tracer::{Run, TracerArgs},
    veth::{self, CLIENT_V4, Offloads, SERVER_V4},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Duration in seconds
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Transfer over two paths
    #[arg(long)]
    pub(crate) two_paths: bool,
    /// Bytes per write
    #[arg(long, default_value_t = 65_536)]
    pub(crate) chunk: usize,
}

/// Result of a transfer.
struct Transfer {
    /// Bytes received.
    bytes: u64,
    /// Duration in seconds.
    seconds: f64,
}

impl Transfer {
    /// Throughput in megabytes (10^6 bytes) per second.
    fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }
}

#[derive(clap::Args)]
pub(crate) struct CostArgs {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
    /// Rounds: each transfers once without a tracer and once per attach method with one
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Transfer with iperf3 under `mptcpize run`, over devices with their default offloads
    #[arg(long)]
    iperf: bool,
    /// Print JSON lines instead of a table
    #[arg(long)]
    json: bool,
    /// Transfer options
    #[command(flatten)]
    transfer: Args,
}

/// A line of the report.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Line<'a> {
    /// Transfers while a tracer runs with one attach method.
    Bulk {
        /// The sending program, `iperf3` or `lab`, and how many paths it uses if there are two.
        sender: &'a str,
        beside: &'a str,
        rounds: usize,
        /// Medians, in megabytes per second.
        alone_mb_s: f64,
        beside_mb_s: f64,
        /// Median of the rounds' ratios.
        left: f64,
    },
}

/// One round: throughput without a tracer and with one.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Round {
    alone: f64,
    beside: f64,
}

/// Alternates transfers without a tracer and with one for each attach method, and prints the
/// medians.
pub(crate) fn cost(args: &CostArgs) -> anyhow::Result<()> {
    let rungs = args.tried.rungs();
    let mut rounds: BTreeMap<&str, Vec<Round>> = BTreeMap::new();
    let mut there: Vec<&str> = rungs.iter().map(String::as_str).collect();
    for round in 0..args.rounds {
        eprintln!("mptcp-lab: round {} of {}", round + 1, args.rounds);
        let mut still_there = Vec::new();
        for rung in there {
            // Alternate the order: the second transfer runs on a warmer machine.
            let is_first = round.is_multiple_of(2);
            if let Some(round) = one_round(args, rung, is_first)? {
                rounds.entry(rung).or_default().push(round);
                still_there.push(rung);
            }
        }
        there = still_there;
    }
    let sender = match (args.iperf, args.transfer.two_paths) {
        (true, false) => "iperf3",
        (true, true) => "iperf3, two paths",
        (false, false) => "lab",
        (false, true) => "lab, two paths",
    };
    let of = rounds
        .iter()
        .map(|(rung, rounds)| summed_up(sender, rung, rounds));
    figures::print(args.json, &of.collect::<Vec<_>>())
}

/// None if this kernel lacks the attach method.
fn one_round(args: &CostArgs, rung: &str, alone_first: bool) -> anyhow::Result<Option<Round>> {
    let once = || -> anyhow::Result<f64> {
        if args.iperf {
            iperf::transfer(args.transfer.seconds, args.transfer.two_paths)
        } else {
            Ok(transfer(&args.transfer)?.megabytes_per_second())
        }
    };
    let before = alone_first.then(once).transpose()?;
    let run = Run::live(&args.tried.tracer, rung).args(&args.tried.tracer_arg);
    let tracer = match run.uncapped()?.start()?.available()? {
        Ok(tracer) => tracer,
        Err(why) => {
            eprintln!("mptcp-lab: no attach method {rung}: {why}");
            return Ok(None);
        }
    };
    let beside = once()?;
    tracer.stop(Signal::INT)?.in_order()?;
    let alone = before.map_or_else(once, Ok)?;
    Ok(Some(Round { alone, beside }))
}

fn summed_up<'a>(sender: &'a str, beside: &'a str, rounds: &[Round]) -> Line<'a> {
    let of = |what: fn(&Round) -> f64| median(&rounds.iter().map(what).collect::<Vec<_>>());
    Line::Bulk {
        sender,
        beside,
        rounds: rounds.len(),
        alone_mb_s: of(|round| round.alone),
        beside_mb_s: of(|round| round.beside),
        left: of(|round| round.beside / round.alone),
    }
}

/// Transfers once.
fn transfer(args: &Args) -> anyhow::Result<Transfer> {
    let (near, far) = match args.two_paths {
        true => veth::joined_twice(Offloads::Off)?,
        false => veth::joined()?,
    };
    if args.two_paths {
        joined::prepare(near.as_fd(), far.as_fd(), Family::V4)?;
    }
    let listener = at(far.as_fd(), SERVER_V4)?;
    listener.listen(1).context("cannot listen")?;
    let address = listener
        .local_addr()
        .context("cannot read the listener's address")?;
    let client = at(near.as_fd(), CLIENT_V4)?;
    client.connect(&address).context("cannot connect")?;
    let (server, _peer) = listener.accept().context("cannot accept")?;
    if args.two_paths {
        // The kernel joins after data.
        (&server).write_all(b".").context("cannot send")?;
        (&client).read_exact(&mut [0]).context("cannot receive")?;
        let is_joined = joined::have_joins([&client, &server], 1)?;
        ensure!(is_joined, "the second path does not come up");
    }
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
        // Warm-up: the first packets meet cold caches.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_the_median_of_the_ratios_not_the_ratio_of_the_medians() {
        let round = |alone, beside| Round { alone, beside };
        let rounds = [round(100.0, 90.0), round(200.0, 100.0), round(50.0, 49.0)];
        let Line::Bulk {
            left,
            alone_mb_s,
            beside_mb_s,
            ..
        } = summed_up("lab", "fexit", &rounds);
        assert_eq!((alone_mb_s, beside_mb_s, left), (100.0, 90.0, 0.9));
    }
}
