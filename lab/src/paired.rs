//! `mptcp-lab paired`: connections through a router with NAT and a box, a tracer with a filter at each
//! end. `mptcp-trace pair` must join every one of them, and say what happened to it in between.
//!
//! Each ward has a client, two routers and a server of its own. The box is in the first router, and the
//! NAT in the second one: the server sees other addresses and another port than the client. What is so
//! is known from the applications: each connection sends its number, so that the ends are known.

mod app;
mod judge;
mod wards;

use std::{path::PathBuf, process::Command};

use anyhow::Context as _;
use rustix::process::Signal;

use self::{
    app::Made,
    wards::{WARDS, Ward},
};
use crate::{
    cells::{Cells, skipped, unavailable},
    netns,
    report::Cell,
    scratch::Scratch,
    side_by_side,
    tracer::{Run, TracerArgs},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
    /// Number of connections that pass unchanged, and of those that do not
    #[arg(long, default_value_t = 250)]
    connections: u32,
    /// Only this ward (repeatable)
    #[arg(long, value_name = "NAME")]
    ward: Vec<String>,
    /// Without NAT and proxies, which need the program nft
    #[arg(long)]
    direct: bool,
    /// Keep both captures in DIR
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// A line of `pair`.
#[derive(serde::Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    data: serde_json::Value,
}

/// Runs the suite; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new()?;
    for rung in args.tried.rungs() {
        let (mut first, gap) = with_rung(args, &rung)?;
        // Others load the machine: then pair says rightly that it cannot say.
        if let Some(gap) = gap {
            eprintln!("mptcp-lab: paired is played once more: {gap}");
            (first, _) = with_rung(args, &rung)?;
        }
        cells.put_all(first)?;
    }
    cells.close()
}

/// The cells of an attach method, and what a tracer has lost.
fn with_rung(args: &Args, rung: &str) -> anyhow::Result<(Vec<Cell>, Option<String>)> {
    let wanted = |ward: &&Ward| args.ward.is_empty() || args.ward.iter().any(|it| it == ward.name);
    let wards = WARDS.iter().filter(wanted);
    let wards: Vec<&'static Ward> = wards
        .filter(|ward| !args.direct || !ward.needs_nft())
        .collect();
    let beds: anyhow::Result<Vec<_>> = wards
        .iter()
        .map(|ward| ward.prepared(args.direct))
        .collect();
    let beds = match beds {
        Ok(beds) => beds,
        // As for recipes, the kernel may lack required modules.
        Err(why) => return Ok((vec![skipped("paired", rung, format!("{why:#}"))], None)),
    };
    let captures = [Scratch::new("client.mpt"), Scratch::new("server.mpt")];
    let mut tracers = Vec::new();
    for (end, capture) in captures.iter().enumerate() {
        let mut run = Run::live(&args.tried.tracer, rung).args(&args.tried.tracer_arg);
        for bed in &beds {
            let namespace = match end {
                0 => bed.chain.client(),
                _ => bed.chain.server(),
            };
            run = run.args(["--netns", &netns::number(namespace)?.to_string()]);
        }
        let run = run.args(["--capture"]).args([&capture.0]);
        match run.start()?.available()? {
            Ok(tracer) => tracers.push(tracer),
            Err(why) => return Ok((vec![unavailable("paired", rung, why)], None)),
        }
    }
    let untouched = wards.iter().filter(|it| !it.is_touched()).count();
    let touched = wards.len() - untouched;
    let of_each = |ward: &Ward| {
        let among = if ward.is_touched() {
            touched
        } else {
            untouched
        };
        args.connections.div_ceil(among.max(1) as u32)
    };
    let made = side_by_side::all(wards.iter().zip(&beds), |(ward, bed)| {
        let netns = [
            netns::number(bed.chain.client())?,
            netns::number(bed.chain.server())?,
        ];
        let made = ward.play(bed, of_each(ward)).context(ward.name)?;
        Ok((netns, made))
    });
    // The ends of connections, which correlate delays.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    for tracer in tracers {
        tracer.stop(Signal::INT)?.in_order()?;
    }
    let made: Vec<([u64; 2], Vec<Made>)> = made?;
    if let Some(folder) = &args.keep {
        for (capture, name) in captures.iter().zip(["client.mpt", "server.mpt"]) {
            std::fs::copy(&capture.0, folder.join(name)).context("cannot keep a capture")?;
        }
    }
    let (said, gap) = paired(args, &captures)?;
    Ok((judge::cells(rung, &wards, &made, &said), gap))
}

/// What `pair` says about two captures, and what is missing in one of them.
fn paired(
    args: &Args,
    captures: &[Scratch; 2],
) -> anyhow::Result<(Vec<judge::Said>, Option<String>)> {
    let [client, server] = captures;
    let done = Command::new(&args.tried.tracer)
        .args(["pair", "--json", "-v"])
        .args([&client.0, &server.0])
        .output()
        .context("cannot run pair")?;
    let stderr = String::from_utf8_lossy(&done.stderr);
    anyhow::ensure!(done.status.success(), "pair fails: {stderr}");
    let lines = String::from_utf8(done.stdout).context("pair prints no text")?;
    let (mut said, mut gap) = (Vec::new(), None);
    for line in lines.lines() {
        let wrong = || format!("cannot read {line}");
        let Line { kind, data } = serde_json::from_str(line).with_context(wrong)?;
        if kind == "pair" {
            said.push(serde_json::from_value(data).with_context(wrong)?);
        } else if kind == "pair_start" {
            let of = |end: &str| data[end]["gap"].as_str().map(str::to_owned);
            gap = of("client_capture").or_else(|| of("server_capture"));
        }
    }
    Ok((said, gap))
}
