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
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, anyhow, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    alone::Alone,
    compare::{mismatch, ok},
    fallbacks::under_tracer,
    findings::balanced,
    lines::read_lines,
    net::{self, Family, Kind},
    netns::{self, Counters},
    question::{self, Api},
    recipes::{Place, TestBed},
    report::{Cell, Cells, Endpoint},
    rules::Rules,
    scratch::Scratch,
    sys,
    traced::{Found, TracedLine},
};

/// The one cause.
const CAUSE: &str = "MPCapableFallbackSYNACK";
/// Connections per address, few enough that no port is needed again before it is free.
const OF_AN_ADDRESS: u32 = 10_000;
/// Maximum number of threads in all processes, each with its own address.
const WORKERS_MAX: u32 = 200;
/// Maximum number of differences shown.
const SHOWN_MAX: usize = 5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Attach method (repeatable)
    #[arg(long, value_name = "METHOD", required = true)]
    pub(crate) attach: Vec<String>,
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
    /// More arguments for the tracer (repeatable)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) tracer_arg: Vec<String>,
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
    let mut cells = Cells::new(std::io::stdout())?;
    let _alone = Alone::claim(
        "reuse",
        "very many connections load all CPUs, and every tracer of the host sees their fallbacks",
    )?;
    // In each thread every second connection falls back.
    let each = (args.connections / workers).next_multiple_of(2);
    let perform = || make(args, each);
    for rung in &args.attach {
        let found = under_tracer(
            &args.tracer,
            rung,
            &args.tracer_arg,
            perform,
            |(made, _ground), lines| {
                let told = made.asked.then(|| told(rung, &made, lines));
                let mut found = vec![compare(rung, &made, lines), balanced(rung, lines)];
                found.extend(told);
                found
            },
        )?;
        for cell in found {
            cells.put(cell)?;
        }
    }
    cells.close()
}

/// The namespace lives as long as the test bed.
fn make(args: &Args, connections: u32) -> anyhow::Result<(Made, TestBed)> {
    let since_ns = sys::boottime_ns();
    let bed = TestBed::new(Place::Loopback, Rules::NONE)?;
    let before = netns::counters(bed.near())?;
    let me = std::env::current_exe().context("cannot find the path of this program")?;
    let start = |process: u32| {
        let out = Scratch::new(&format!("fallen-{process}"));
        let maker = netns::within(bed.near(), || {
            Command::new(&me)
                .args(["reuse-maker", "--connections", &connections.to_string()])
                .args(["--parallel", &args.parallel.to_string()])
                .args(["--process", &process.to_string()])
                .args(args.ask.then_some("--ask"))
                .arg("--out")
                .arg(&out.0)
                .stdin(Stdio::null())
                .spawn()
                .context("cannot start the application")
        })?;
        anyhow::Ok((maker, out))
    };
    let makers: Vec<_> = (0..args.processes)
        .map(start)
        .collect::<anyhow::Result<_>>()?;
    let mut pids = BTreeSet::new();
    let mut fallen: Vec<Fallen> = Vec::new();
    for (mut maker, out) in makers {
        pids.insert(maker.id());
        let status = maker.wait().context("cannot wait for the application")?;
        ensure!(status.success(), "the application ended with {status}");
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
    let fallen: Vec<Fallen> = thread::scope(|scope| {
        let threads: Vec<_> = (0..args.parallel)
            .map(|number| {
                let worker = args.process * args.parallel + number;
                scope.spawn(move || one_thread(worker, args))
            })
            .collect();
        let done = threads.into_iter().map(|thread| {
            let done = thread.join();
            done.map_err(|_panic| anyhow!("a thread panicked"))?
        });
        anyhow::Ok(done.collect::<anyhow::Result<Vec<_>>>()?.concat())
    })?;
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
            let _whatever_the_kernel_says = question::ask(client.as_raw_fd(), Api::TcpIsMptcp)?;
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
        let found = match line {
            TracedLine::Fallback(found) => found,
            TracedLine::Refused(found) | TracedLine::Plain(found) => {
                if made.has(found) {
                    note("lines of another type", format!("{line:?}"));
                }
                continue;
            }
            TracedLine::Start(_)
            | TracedLine::Query(_)
            | TracedLine::Existing(_)
            | TracedLine::Blackhole(_)
            | TracedLine::Verdict(_)
            | TracedLine::OptionRefused(_)
            | TracedLine::SocketRefused(_)
            | TracedLine::End(_) => continue,
        };
        if !made.has(found) {
            continue;
        }
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
    if wrong.is_empty() {
        return ok("reuse", rung, &caller, &traced);
    }
    let why: Vec<String> = wrong
        .into_iter()
        .take(SHOWN_MAX)
        .map(|(what, (count, example))| format!("{count} {what}, for example {example}"))
        .collect();
    mismatch("reuse", rung, &caller, &traced, why.join("; "))
}

/// With a query on each connection, the tracer must report each query once, no connection as never
/// queried unless the line expresses doubt, and none as older than the tracer.
fn told(rung: &str, made: &Made, lines: &[TracedLine]) -> Cell {
    let (mut questions, mut in_doubt) = (0_u64, 0_u64);
    let mut wrong: BTreeMap<&str, u64> = BTreeMap::new();
    let mut note = |what| *wrong.entry(what).or_default() += 1;
    for line in lines {
        match line {
            TracedLine::Query(query) if made.pids.contains(&query.pid) => questions += 1,
            TracedLine::Verdict(verdict) if verdict.netns == made.netns => match verdict.doubt {
                Some(_) => in_doubt += 1,
                None => note("connections reported as never queried"),
            },
            TracedLine::Existing(found) if found.netns == made.netns => {
                note("older than the tracer");
            }
            TracedLine::Start(_)
            | TracedLine::Query(_)
            | TracedLine::Fallback(_)
            | TracedLine::Refused(_)
            | TracedLine::Plain(_)
            | TracedLine::Existing(_)
            | TracedLine::Blackhole(_)
            | TracedLine::Verdict(_)
            | TracedLine::OptionRefused(_)
            | TracedLine::SocketRefused(_)
            | TracedLine::End(_) => {}
        }
    }
    let skipped = skipped(lines);
    let asked = made.fallen.len() as u64 * 2;
    if questions > asked || questions + skipped < asked {
        note("too many or too few queries");
    }
    let caller = format!("{asked} queries");
    let traced = format!("{questions} queries, {in_doubt} in doubt, {skipped} runs skipped");
    if wrong.is_empty() {
        return ok("reuse-told", rung, &caller, &traced);
    }
    let why: Vec<String> = wrong
        .into_iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    mismatch("reuse-told", rung, &caller, &traced, why.join("; "))
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
    use crate::{report::Outcome, traced::Owner};

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
                known: "reported".into(),
                side: Some("active".into()),
                evidence: Vec::new(),
                existing: false,
                off_ms: None,
                owner: Some(Owner {
                    pid: PID,
                    comm: "lab-reuse".into(),
                    via: "connect".into(),
                }),
                netns: NETNS,
                family: "ipv4".into(),
                local: fallen.local.into(),
                remote: fallen.remote.into(),
                rung: "fexit".into(),
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
    fn outcome_of_told(lines: &[serde_json::Value]) -> Outcome {
        let lines: Vec<TracedLine> = lines
            .iter()
            .map(|line| TracedLine::parse(&line.to_string()).unwrap().unwrap())
            .collect();
        let made = Made {
            pids: BTreeSet::from([PID]),
            asked: true,
            netns: NETNS,
            since_ns: SINCE_NS,
            fallen: vec![fallen(1)],
            moved: Counters::new(),
        };
        told("fexit", &made, &lines).outcome
    }

    #[test]
    fn a_question_that_is_missing_without_a_word_and_a_verdict_without_doubt_are_noticed() {
        use serde_json::json;
        let end = json!({"addr": "127.0.0.1", "port": 1});
        let asked = |pid: u32| {
            json!({"type": "query", "data": {
                "id": null, "socket": "0x1", "netns": NETNS, "api": "TCP_IS_MPTCP", "pid": pid, "tid": pid, "inode": null,
                "protocol": "mptcp", "family": "ipv4", "state": "ESTABLISHED", "local": end, "remote": end, "answer": "mptcp",
                "errno": null, "fell_back": false, "verdict": null, "why": null, "cause": null, "delay_ns": null,
                "rung": "fexit"}})
        };
        let verdict = |doubt: Option<&str>| {
            json!({"type": "verdict", "data": {
                "id": "0x1@1", "verdict": "never-asked", "why": "", "doubt": doubt, "cause": null, "fell_back_at_ns": null,
                "delay_ns": null, "closed_by": "death", "questions": 0, "answered_at_ns": null, "owner": null,
                "netns": NETNS, "socket": "0x1", "local": end, "remote": end}})
        };
        let finished = |missed: u64| {
            json!({"type": "end", "data": {"findings": 0, "losses": [{
                "sensor": "query", "seen": 0, "emitted": 0, "filtered": 0, "ring_full": 0, "faulted": 0, "table_full": 0,
                "unfinished": 0, "missed": missed}]}})
        };
        let of_other = asked(PID + 1);
        let asked = asked(PID);
        let check = |lines: &[&serde_json::Value], want: Outcome| {
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
