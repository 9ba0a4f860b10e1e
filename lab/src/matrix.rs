//! `mptcp-lab matrix`: every case with each attach method.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::Context as _;

use crate::{
    cells::{Cells, judged, mismatch, ok, unavailable},
    compare::{compare, queries},
    flood,
    lines::read_lines,
    net::{self, Family, Kind},
    process::{own, succeeded},
    report::{AskerLine, Cell, Outcome},
    scratch::Scratch,
    traced::TracedLine,
    tracer::{CANNOT_ANSWER, Run, TracerArgs},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
    /// Only this case of `ask` (repeatable)
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// Only this address family, in cases that use one
    #[arg(long, value_name = "v4|v6", value_parser = Family::parse)]
    family: Option<Family>,
    /// Also run a flood with each attach method
    #[arg(long)]
    flood: bool,
    /// Size of the flood
    #[command(flatten)]
    size: flood::Size,
}

/// Runs the matrix; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new()?;
    if let Some(cell) = no_mptcp(args)? {
        cells.put(cell)?;
        return cells.close();
    }
    for rung in args.tried.rungs() {
        eprintln!("mptcp-lab: attach method {rung}");
        let judged = one_rung(args, &rung)?;
        let is_there = |cell: &Cell| cell.outcome != Outcome::Unavailable;
        let available = judged.iter().all(is_there);
        cells.put_all(judged)?;
        if args.flood && available {
            cells.put_flood(flood::flood(&args.tried, &rung, args.size)?)?;
        }
    }
    cells.close()
}

/// Without MPTCP in the kernel there is a single case: the tracer reports that and exits 3.
fn no_mptcp(args: &Args) -> anyhow::Result<Option<Cell>> {
    // EPROTONOSUPPORT: not built in. ENOPROTOOPT means net.mptcp.enabled=0, which does not stop a
    // tracer.
    match net::open(Kind::Mptcp, Family::V4) {
        Err(why) if why.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {}
        Ok(_) | Err(_) => return Ok(None),
    }
    let ended = tracer(args, "auto").args(["--duration", "1s"]).finish()?;
    let wanted = format!("exit {CANNOT_ANSWER}, a sentence about MPTCP");
    let why = ended.last_words();
    let is_right = ended.failed_with(CANNOT_ANSWER) && why.contains("built without MPTCP");
    Ok(Some(match is_right {
        true => Cell {
            why,
            ..ok("no-mptcp", "auto", &wanted, "exit 3")
        },
        false => {
            let why = ended.broken().unwrap_or_else(|| "it succeeded".to_owned());
            mismatch("no-mptcp", "auto", &wanted, "otherwise", why)
        }
    }))
}

fn one_rung(args: &Args, rung: &str) -> anyhow::Result<Vec<Cell>> {
    let asked_file = Scratch::new("asked");
    let asker = asker(&asked_file, &args.case, args.family)?;
    let ended = tracer(args, rung).command(&asker).finish()?;
    if ended.failed_with(CANNOT_ANSWER) {
        return Ok(vec![unavailable("rung", rung, ended.last_words())]);
    }
    if let Some(why) = ended.broken() {
        return Ok(vec![mismatch("run", rung, "exit 0", "otherwise", why)]);
    }
    let (asked, traced) = (read_lines(&asked_file.0)?, ended.lines()?);
    let mut cells = compare(rung, &asked, &traced);
    cells.extend(named_function(rung, &traced)?);
    Ok(cells)
}

fn tracer(args: &Args, rung: &str) -> Run {
    Run::live(&args.tried.tracer, rung)
        .args(&args.tried.tracer_arg)
        .keeping()
}

/// The asker, which records its answers.
fn asker(out: &Scratch, cases: &[String], family: Option<Family>) -> anyhow::Result<Command> {
    let mut asker = own("ask")?;
    asker.arg("--out").arg(&out.0);
    for case in cases {
        asker.args(["--case", case]);
    }
    asker.args(family.iter().flat_map(|it| ["--family", it.suffix()]));
    Ok(asker)
}

/// Queries sockets of every kind under a tracer that is already running.
pub(crate) fn ask_all(family: Option<Family>) -> anyhow::Result<Vec<AskerLine>> {
    let out = Scratch::new("asked");
    let status = asker(&out, &[], family)?.status();
    succeeded("the asker", status.context("cannot run the asker")?)?;
    read_lines(&out.0)
}

/// Compares the queries with the lines of a tracer that also saw other processes: only those of the
/// askers count.
pub(crate) fn judge_all(rung: &str, asked: &[AskerLine], traced: &[TracedLine]) -> Vec<Cell> {
    let askers: BTreeSet<u32> = asked
        .iter()
        .filter_map(|line| match line {
            AskerLine::Asked(asked) => Some(asked.pid),
            AskerLine::Skipped { .. } => None,
        })
        .collect();
    let theirs: Vec<TracedLine> = traced
        .iter()
        .filter(|line| !matches!(line, TracedLine::Query(query) if !askers.contains(&query.pid)))
        .cloned()
        .collect();
    // The loss accounting includes other processes: `findings` checks it as a whole.
    let mut cells = queries(rung, asked, &theirs);
    match named_function(rung, traced) {
        Ok(cell) => cells.extend(cell),
        Err(why) => {
            let why = format!("{why:#}");
            cells.push(mismatch("named-function", rung, "looked for", "not", why));
        }
    }
    cells
}

/// The kernel function that answers for MPTCP sockets; most kernels inline it.
const NAMED_FUNCTION: &str = "mptcp_getsockopt_sol_tcp";

/// Where the kernel has this symbol, the kprobe method must probe it and no other.
fn named_function(rung: &str, traced: &[TracedLine]) -> anyhow::Result<Option<Cell>> {
    let symbols = fs::read_to_string("/proc/kallsyms").context("cannot read /proc/kallsyms")?;
    let is_there = symbols
        .lines()
        .any(|line| line.split_whitespace().nth(2) == Some(NAMED_FUNCTION));
    if rung != "kprobe" || !is_there {
        return Ok(None);
    }
    let wanted = format!("kprobe {NAMED_FUNCTION}");
    let probed = traced
        .iter()
        .filter_map(TracedLine::start)
        .flat_map(|start| &start.sensors)
        .any(|sensor| sensor.probes.contains(&wanted));
    let wrong = (!probed).then(|| format!("{traced:?}"));
    let traced = if probed { &*wanted } else { "other probes" };
    let wrong = wrong.into_iter().collect();
    Ok(Some(judged("named-function", rung, &wanted, traced, wrong)))
}
