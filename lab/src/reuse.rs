//! `mptcp-lab reuse`: very many short connections, so that the kernel reuses socket addresses and
//! ports: no fallback may be attributed to a later connection in the same place.
//!
//! With `--processes` and `--ask` it becomes a storm: many processes at once, each of which queries
//! every connection as soon as it is established. This exposes probe runs that the kernel skips.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::File,
    io::{BufWriter, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    alone::Alone,
    cells::judged,
    findings::balanced_in_storm,
    lines::read_lines,
    net::{self, Family, Kind},
    netns::{self, Counters},
    process::{Running, own, succeeded},
    query::{self, Api},
    recipes::{Place, TestBed},
    report::{Cell, Endpoint},
    rules::Rules,
    scratch::Scratch,
    side_by_side, sys,
    traced::{Found, TracedLine},
    tracer::{
        TracerArgs, again,
        suite::{Said, Suite},
    },
};

/// The one cause.
const CAUSE: &str = "MPCapableFallbackSYNACK";
/// Connections per address, few enough that no port is needed again before it is free.
const OF_AN_ADDRESS: u32 = 10_000;
/// Maximum number of threads in all processes, each with its own address.
const WORKERS_MAX: u32 = 200;
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: TracerArgs,
    /// Minimum number of connections; every second one falls back
    #[arg(long, default_value_t = 100_000)]
    pub(crate) connections: u32,
    /// Number of simultaneous connections, one thread each
    #[arg(long, default_value_t = 4)]
    pub(crate) parallel: u32,
    /// Number of processes that open them
    #[arg(long, default_value_t = 1)]
    pub(crate) processes: u32,
    /// Query each connection: none may be reported as never queried
    #[arg(long)]
    pub(crate) ask: bool,
}

/// Arguments of the application.
#[derive(clap::Args)]
pub(crate) struct MakerArgs {
    /// Connections per thread
    #[arg(long)]
    pub(crate) connections: u32,
    /// Number of threads
    #[arg(long)]
    pub(crate) parallel: u8,
    /// Index of this process, which selects its addresses
    #[arg(long)]
    pub(crate) process: u8,
    /// Query each connection
    #[arg(long)]
    pub(crate) ask: bool,
    /// Write the connections that fell back to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// A client's connection that fell back.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct Fallen {
    local: SocketAddr,
    remote: SocketAddr,
}

/// Results of the application, with the kernel's counters.
struct Made {
    pids: BTreeSet<u32>,
    /// Whether each connection was queried.
    asked: bool,
    netns: u64,
    /// A time on `CLOCK_BOOTTIME` before the namespace was created.
    since_ns: u64,
    fallen: Vec<Fallen>,
    moved: Counters,
}

impl Made {
    /// An earlier namespace may have had the same number.
    fn has(&self, found: &Found) -> bool {
        found.netns == self.netns && !found.is_before(self.since_ns)
    }
}

/// Runs the suite; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let workers = args.parallel.saturating_mul(args.processes);
    ensure!(workers > 0, "nothing to do");
    ensure!(workers <= WORKERS_MAX, "more than {WORKERS_MAX} at a time");
    let _alone = Alone::claim(
        "reuse",
        "very many connections load all CPUs, and every tracer of the host sees their fallbacks",
    )?;
    // In each thread every second connection falls back.
    let each = (args.connections / workers).next_multiple_of(2);
    again::once_on_rungs(&args.tried, |rung| {
        let judge = |(made, _ground): (Made, TestBed), said: &Said| {
            let lines = &said.lines;
            let mut found = vec![compare(rung, &made, lines), balanced_in_storm(rung, lines)];
            found.extend(made.asked.then(|| told(rung, &made, lines)));
            found
        };
        Suite::new(&args.tried, rung).run(|_watch| make(args, each), judge)
    })
}

/// The namespace lives as long as the test bed.
fn make(args: &Args, connections: u32) -> anyhow::Result<(Made, TestBed)> {
    let since_ns = sys::boottime_ns();
    let bed = TestBed::new(Place::Loopback, Rules::NONE)?;
    let before = netns::counters(bed.near())?;
    let start = |process: u32| {
        let out = Scratch::new(&format!("fallen-{process}"));
        let mut maker = own("reuse-maker")?;
        maker.args(["--connections", &connections.to_string()]);
        maker.args(["--parallel", &args.parallel.to_string()]);
        maker.args(["--process", &process.to_string()]);
        maker.args(args.ask.then_some("--ask"));
        maker.arg("--out").arg(&out.0);
        let maker = netns::within(bed.near(), || Running::start("the application", &mut maker))?;
        anyhow::Ok((maker, out))
    };
    let makers: Vec<_> = (0..args.processes)
        .map(start)
        .collect::<anyhow::Result<_>>()?;
    let mut pids = BTreeSet::new();
    let mut fallen: Vec<Fallen> = Vec::new();
    for (mut maker, out) in makers {
        pids.insert(maker.pid());
        let status = maker.0.wait();
        succeeded("the application", status.context("cannot wait for it")?)?;
        fallen.extend(read_lines::<Fallen>(&out.0)?);
    }
    let after = netns::counters(bed.near())?;
    let made = Made {
        pids,
        asked: args.ask,
        netns: netns::number(bed.near())?,
        since_ns,
        fallen,
        moved: netns::moved(&before, &after),
    };
    Ok((made, bed))
}

/// The application: connects and closes as fast as possible.
pub(crate) fn make_connections(args: &MakerArgs) -> anyhow::Result<()> {
    sys::set_process_name("lab-reuse").context("cannot change the name of the process")?;
    let fallen = side_by_side::all(0..args.parallel, |number| {
        one_thread(args.process * args.parallel + number, args)
    })?
    .concat();
    write_fallen(&args.out, &fallen)
}

fn write_fallen(path: &Path, fallen: &[Fallen]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
    let mut out = BufWriter::new(file);
    for fallen in fallen {
        serde_json::to_writer(&mut out, fallen)?;
        out.write_all(b"\n")?;
    }
    out.flush()
        .context("cannot write the list of connections that fell back")
}

fn one_thread(worker: u8, args: &MakerArgs) -> anyhow::Result<Vec<Fallen>> {
    let listen = |kind: Kind| {
        let socket = net::open(kind, Family::V4)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        socket.listen(128)?;
        let own = socket.local_addr()?.as_socket();
        let port = own.context("a listener without an address")?.port();
        anyhow::Ok((socket, port))
    };
    let listeners = [listen(Kind::Mptcp)?, listen(Kind::Tcp)?];
    let mut fallen = Vec::new();
    for number in 0..args.connections {
        let is_to_tcp = number % 2 == 1;
        let (listener, port) = &listeners[usize::from(is_to_tcp)];
        // Each thread has its own addresses, and moves to the next one after a while.
        let address = Ipv4Addr::new(127, 1 + worker, (number / OF_AN_ADDRESS) as u8, 1);
        let client = net::open(Kind::Mptcp, Family::V4).context("cannot open a socket")?;
        let to = SocketAddr::new(IpAddr::V4(address), *port);
        client
            .connect(&to.into())
            .with_context(|| format!("cannot connect to {to}"))?;
        let (server, _peer) = net::accept(listener)?;
        if args.ask {
            let _whatever_the_kernel_says = query::ask(client.as_raw_fd(), Api::TcpIsMptcp)?;
        }
        if is_to_tcp {
            let local = client.local_addr()?.as_socket();
            fallen.push(Fallen {
                local: local.context("a client without an address")?,
                remote: to,
            });
        }
        drop((client, server));
    }
    Ok(fallen)
}

/// Lines and connections that fell back must match one to one.
fn compare(rung: &str, made: &Made, lines: &[TracedLine]) -> Cell {
    let mut open: HashMap<(Endpoint, Endpoint), i64> = HashMap::new();
    for fallen in &made.fallen {
        let ends = (Endpoint::from(fallen.local), Endpoint::from(fallen.remote));
        *open.entry(ends).or_default() += 1;
    }
    let mut ids = HashSet::new();
    let mut wrong: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    let mut count = 0_u64;
    let (skipped, mut without_owner) = (skipped(lines), 0_u64);
    let mut note = |what: &'static str, example: String| {
        wrong.entry(what).or_insert((0, example)).0 += 1;
    };
    for line in lines {
        if let TracedLine::Refused(found) | TracedLine::Plain(found) = line
            && made.has(found)
        {
            note("lines of another type", format!("{line:?}"));
        }
        let Some(found) = line.fallback().filter(|found| made.has(found)) else {
            continue;
        };
        count += 1;
        if !ids.insert(found.id.clone()) {
            note("ids that were there before", format!("{found:?}"));
        }
        let ends = (found.local.clone(), found.remote.clone());
        match open.get_mut(&ends) {
            Some(left) if *left > 0 => *left -= 1,
            Some(_) | None => note("lines without a connection", format!("{found:?}")),
        }
        match &found.owner {
            // No probe saw the creation or the connect of this socket.
            None if is_ours(found) && without_owner < skipped => without_owner += 1,
            Some(owner) if is_ours(found) && made.pids.contains(&owner.pid) => {}
            _wrong => note("lines with a wrong owner or cause", format!("{found:?}")),
        }
    }
    for (ends, left) in open.into_iter().filter(|(_ends, left)| *left > 0) {
        for _ in 0..left {
            note("connections without a line", format!("{ends:?}"));
        }
    }
    let counted = made.moved.get(CAUSE).copied().unwrap_or(0);
    let made_count = made.fallen.len() as u64;
    if counted != made_count {
        note("the kernel's counters differ", format!("{:?}", made.moved));
    }
    let caller = format!("{made_count} x client {CAUSE}, {counted} counted");
    let traced = format!("{count} lines");
    let wrong = wrong.into_iter();
    let wrong =
        wrong.map(|(what, (count, example))| format!("{count} {what}, for example {example}"));
    judged("reuse", rung, &caller, &traced, wrong.collect())
}

/// With a query on each connection, the tracer must report each query once, no connection as never
/// queried unless the line expresses doubt, and none as older than the tracer.
fn told(rung: &str, made: &Made, lines: &[TracedLine]) -> Cell {
    let (mut queries, mut in_doubt) = (0_u64, 0_u64);
    let mut wrong: BTreeMap<&str, u64> = BTreeMap::new();
    let mut note = |what| *wrong.entry(what).or_default() += 1;
    for line in lines {
        if let TracedLine::Query(query) = line
            && made.pids.contains(&query.pid)
        {
            queries += 1;
        }
        if let TracedLine::Verdict(verdict) = line
            && verdict.netns == made.netns
        {
            match verdict.doubt {
                Some(_) => in_doubt += 1,
                None => note("connections reported as never queried"),
            }
        }
        if let TracedLine::Existing(found) = line
            && found.netns == made.netns
        {
            note("older than the tracer");
        }
    }
    let skipped = skipped(lines);
    let asked = made.fallen.len() as u64 * 2;
    if queries > asked || queries + skipped < asked {
        note("too many or too few queries");
    }
    let caller = format!("{asked} queries");
    let traced = format!("{queries} queries, {in_doubt} in doubt, {skipped} runs skipped");
    let wrong = wrong.into_iter();
    let wrong = wrong.map(|(what, count)| format!("{count} {what}"));
    judged("reuse-told", rung, &caller, &traced, wrong.collect())
}

fn is_ours(found: &Found) -> bool {
    found.cause.as_deref() == Some(CAUSE) && found.side.as_deref() == Some("active")
}

/// Number of probe runs that the kernel skipped.
fn skipped(lines: &[TracedLine]) -> u64 {
    let ends = lines.iter().filter_map(TracedLine::end);
    let losses = ends.flat_map(|end| &end.losses);
    losses.map(|losses| losses.missed).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::Outcome,
        traced::{Concluded, End, Losses, Owner, Traced},
    };

    const NETNS: u64 = 7;
    const PID: u32 = 11;
    const SINCE_NS: u64 = 100;

    fn fallen(port: u16) -> Fallen {
        Fallen {
            local: SocketAddr::from(([127, 0, 0, 1], port)),
            remote: SocketAddr::from(([127, 1, 0, 1], 80)),
        }
    }

    /// Three connections fell back, two of them with the same ports.
    fn outcome(counted: u64, spoil: impl FnOnce(&mut Vec<Found>)) -> Outcome {
        let fallen = vec![fallen(1), fallen(2), fallen(1)];
        let mut lines: Vec<Found> = (SINCE_NS..)
            .zip(&fallen)
            .map(|(number, fallen)| Found {
                id: format!("0x1@{number}"),
                cause: Some(CAUSE.into()),
                side: Some("active".into()),
                owner: Some(Owner {
                    pid: PID,
                    comm: "lab-reuse".into(),
                    via: "connect".into(),
                }),
                netns: NETNS,
                local: fallen.local.into(),
                remote: fallen.remote.into(),
                ..Found::default()
            })
            .collect();
        spoil(&mut lines);
        let lines: Vec<TracedLine> = lines
            .into_iter()
            .map(|found| TracedLine::Fallback(Box::new(found)))
            .collect();
        let made = Made {
            pids: BTreeSet::from([PID]),
            asked: false,
            netns: NETNS,
            since_ns: SINCE_NS,
            fallen,
            moved: Counters::from([(CAUSE.into(), counted)]),
        };
        compare("fexit", &made, &lines).outcome
    }

    /// Outcome of `told` for two queried connections, of which one fell back.
    fn outcome_of_told(lines: &[TracedLine]) -> Outcome {
        let made = Made {
            pids: BTreeSet::from([PID]),
            asked: true,
            netns: NETNS,
            since_ns: SINCE_NS,
            fallen: vec![fallen(1)],
            moved: Counters::new(),
        };
        told("fexit", &made, lines).outcome
    }

    #[test]
    fn a_question_that_is_missing_without_a_word_and_a_verdict_without_doubt_are_noticed() {
        let asked = |pid: u32| {
            TracedLine::Query(Box::new(Traced {
                pid,
                ..Traced::default()
            }))
        };
        let verdict = |doubt: Option<&str>| {
            TracedLine::Verdict(Box::new(Concluded {
                netns: NETNS,
                doubt: doubt.map(str::to_owned),
                ..Concluded::default()
            }))
        };
        let finished = |missed: u64| {
            let losses = Losses {
                missed,
                ..Losses::default()
            };
            TracedLine::End(End {
                losses: vec![losses],
                ..End::default()
            })
        };
        let of_other = asked(PID + 1);
        let asked = asked(PID);
        let check = |lines: &[&TracedLine], want: Outcome| {
            let lines: Vec<_> = lines.iter().map(|line| (*line).clone()).collect();
            assert_eq!(outcome_of_told(&lines), want, "{lines:?}");
        };
        let (none, one) = (finished(0), finished(1));
        let (sure, unsure) = (verdict(None), verdict(Some("skipped")));
        check(&[&asked, &asked, &none], Outcome::Ok);
        check(&[&asked, &none], Outcome::Mismatch);
        check(&[&asked, &one], Outcome::Ok);
        check(&[&asked, &of_other, &none], Outcome::Mismatch);
        check(&[&asked, &asked, &asked, &one], Outcome::Mismatch);
        check(&[&asked, &unsure, &one], Outcome::Ok);
        check(&[&asked, &sure, &one], Outcome::Mismatch);
    }

    #[test]
    fn a_line_for_each_connection_is_right_and_everything_else_is_noticed() {
        assert_eq!(outcome(3, |_lines| ()), Outcome::Ok);
        assert_eq!(outcome(3, |lines| lines.reverse()), Outcome::Ok);
        assert_eq!(outcome(2, |_lines| ()), Outcome::Mismatch);
        let of_others = |lines: &mut Vec<Found>| {
            lines.push(Found {
                id: format!("0x1@{}", SINCE_NS - 1),
                ..lines[0].clone()
            });
        };
        assert_eq!(outcome(3, of_others), Outcome::Ok);
        type Spoil = fn(&mut Vec<Found>);
        let rows: [(&str, Spoil); 8] = [
            ("missing", |lines| drop(lines.pop())),
            ("doubled", |lines| lines.push(lines[0].clone())),
            ("id again", |lines| lines[1].id = lines[0].id.clone()),
            ("port of another", |lines| lines[0].local.port = 2),
            ("remote", |lines| lines[0].remote.port = 2),
            ("owner", |lines| lines[0].owner = None),
            ("cause", |lines| lines[0].cause = None),
            ("netns", |lines| lines[0].netns = 8),
        ];
        for (name, spoil) in rows {
            assert_eq!(outcome(3, spoil), Outcome::Mismatch, "{name}");
        }
    }
}
