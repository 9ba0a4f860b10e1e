//! `mptcp-lab probed`: `mptcp-trace probe` over a chain of five routers, with a box in each of them in
//! turn. What it says is compared with what is so: it may say less than is so, where routers quote too
//! little, and never name a wrong hop. No other verb sends a packet, and a tracer beside a probe does not
//! show its connection.

mod beside;
mod quiet;
mod server;
mod truth;

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;
use serde::Deserialize;

use self::{
    server::Server,
    truth::{Box, Case, cases},
};
use crate::{
    boxes::nft,
    cells::{Cells, judged, mismatch, skipped},
    chain::Chain,
    net::Family,
    netns,
    process::is_in_path,
    report::Cell,
    side_by_side,
    tracer::TracerArgs,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer; attach methods are those of the verbs that must not send anything
    #[command(flatten)]
    tried: TracerArgs,
    /// Run this many probes at a time
    #[arg(long, value_name = "N", default_value_t = 6)]
    parallel: u32,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Print the whole output of each probe to stderr
    #[arg(long)]
    show: bool,
}

/// Number of routers.
const ROUTERS: usize = 5;
/// Waiting time of a probe: namespaces answer in less than a millisecond.
const TIMEOUT: &str = "250ms";
/// Maximum number of packets of a probe: its default, less a margin.
const PACKETS_MAX: u64 = 60;

/// The line of a probe.
#[derive(Clone, Debug, Deserialize)]
struct Line {
    data: Said,
}

/// What a probe says.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Said {
    conclusion: String,
    certainty: String,
    #[serde(rename = "where")]
    place: Option<Part>,
    renumbered: Option<Part>,
    packets: u64,
    took_ns: u64,
    why: String,
}

/// A part of the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Part {
    after: usize,
    before: Option<usize>,
}

impl std::fmt::Display for Part {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.before {
            Some(before) => write!(out, "{}-{before}", self.after),
            None => write!(out, "{}-end", self.after),
        }
    }
}

/// Runs the suite; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new()?;
    let start = Instant::now();
    let all: Vec<Case> = cases(ROUTERS)
        .into_iter()
        .filter(|it| it.name().contains(&args.only))
        .collect();
    let played = side_by_side::each(all, args.parallel, |case| {
        let said = play(args, &case);
        (case, said)
    });
    let mut sums = BTreeMap::new();
    for (case, played) in played {
        let cell = match played {
            Ok(None) => skipped(&case.name(), "probe", "this kernel has no nftables"),
            Ok(Some((said, code))) => {
                note(&mut sums, &case, &said);
                judge(&case, &said, code)
            }
            Err(why) => mismatch(&case.name(), "probe", "", "", format!("{why:#}")),
        };
        cells.put(cell)?;
    }
    for (name, sum) in &sums {
        eprintln!("{name:<28} {sum}");
    }
    eprintln!("probed: {:.0} s", start.elapsed().as_secs_f64());
    if args.only.is_empty() || "quiet".contains(&args.only) {
        cells.put_all(quiet::run(&args.tried)?)?;
    }
    if args.only.is_empty() || "beside".contains(&args.only) {
        cells.put_all(beside::run(&args.tried)?)?;
    }
    cells.close()
}

/// Counts of a kind of case.
#[derive(Default)]
struct Sum {
    cases: u32,
    exact: u32,
    open: u32,
    packets_max: u64,
    took_ns: u64,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{:>3} cases, {:>3} exact, {:>3} cannot say beyond a hop, at most {} packets, {:.2} s each",
            self.cases,
            self.exact,
            self.open,
            self.packets_max,
            self.took_ns as f64 / 1e9 / f64::from(self.cases.max(1))
        )
    }
}

fn note(sums: &mut BTreeMap<String, Sum>, case: &Case, said: &Said) {
    let sum = sums.entry(case.kind()).or_default();
    sum.cases += 1;
    sum.exact += u32::from(case.is_exact(said));
    sum.open += u32::from(said.certainty == "open");
    sum.packets_max = sum.packets_max.max(said.packets);
    sum.took_ns += said.took_ns;
}

fn judge(case: &Case, said: &Said, code: Option<i32>) -> Cell {
    let part =
        |it: Option<Part>| it.map_or_else(|| "nowhere named".to_owned(), |it| it.to_string());
    let so = case.so();
    let traced = format!(
        "{} {}{}, {}, {} packets",
        said.conclusion,
        part(said.place),
        said.renumbered
            .map_or_else(String::new, |it| format!(", renumbered {it}")),
        said.certainty,
        said.packets
    );
    let mut wrong = case.faults(said, code);
    if said.packets > PACKETS_MAX {
        wrong.push(format!("it took {} packets", said.packets));
    }
    if !wrong.is_empty() {
        wrong.push(said.why.clone());
    }
    judged(&case.name(), "probe", &so, &traced, wrong)
}

/// Sets the chain up and probes; none if that is impossible here.
fn play(args: &Args, case: &Case) -> anyhow::Result<Option<(Said, Option<i32>)>> {
    if case.needs_nft() && !is_in_path("nft") {
        return Ok(None);
    }
    let chain = Chain::new(ROUTERS)?;
    let server = Server::start(&chain, case.family, case.peer)?;
    let _installed = match case.stands {
        Some((Box::Kind(kind), at)) => Some(chain.install(kind, at)?),
        Some((Box::Nftables, at)) => {
            clear_behind(&chain, at)?;
            None
        }
        None => None,
    };
    let _quoted = match case.quoting_from {
        Some(from) => chain.quote(from, case.quoting)?,
        None => None,
    };
    let host = match case.family {
        Family::V4 | Family::Mapped => server.address.to_string(),
        Family::V6 => format!("[{}]:{}", server.address.ip(), server.address.port()),
    };
    let output = netns::within(chain.client(), || {
        // With no capability but the one that it needs.
        let mut probe = Command::new("setpriv");
        probe
            .arg("--bounding-set=-all,+net_raw")
            .arg(&args.tried.tracer);
        probe.args(["probe", "--json", "--timeout", TIMEOUT, &host]);
        probe
            .stdin(Stdio::null())
            .output()
            .context("cannot run the tracer")
    })?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if args.show {
        eprintln!("{}: {stdout}{stderr}", case.name());
    }
    let line: Line = serde_json::from_str(&stdout)
        .with_context(|| format!("probe says {stdout:?}, and {stderr:?}"))?;
    Ok(Some((line.data, output.status.code())))
}

/// nftables' own way to clear an option, in a router's forward hook: behind the place where the time
/// to live is decremented, so the router itself still quotes the option.
fn clear_behind(chain: &Chain, at: usize) -> anyhow::Result<()> {
    netns::within(chain.router(at), || {
        nft("add table inet lab; \
             add chain inet lab clear { type filter hook forward priority 0; }; \
             add rule inet lab clear tcp flags & syn == syn reset tcp option 30")
    })
}
