//! `mptcp-lab reuse`: very many short connections, so that the kernel uses addresses of sockets and ports again
//! and again: no fallback is ascribed to a connection that has only the place of another one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io::{BufWriter, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
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
    matrix::{Scratch, read_lines},
    net::{self, Family, Kind},
    netns::{self, Counters},
    recipes::{Ground, Means, Place},
    report::{Cell, Cells, Endpoint},
    rules::Rules,
    sys,
    traced::{Found, TracedLine},
};

/// The one cause.
const CAUSE: &str = "MPCapableFallbackSYNACK";
/// Connections to one address: ports are not used up before they are free again.
const OF_AN_ADDRESS: u32 = 10_000;
/// Differences that are shown.
const SHOWN_MAX: usize = 5;

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub tracer: PathBuf,
    /// The rung
    #[arg(long, value_name = "RUNG")]
    pub attach: String,
    /// How many connections; every second one falls back
    #[arg(long, default_value_t = 100_000)]
    pub connections: u32,
    /// How many at a time
    #[arg(long, default_value_t = 4)]
    pub parallel: u32,
    /// More arguments for the tracer (repeatable)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub tracer_arg: Vec<String>,
}

/// What the application does.
#[derive(clap::Args)]
pub struct MakerArgs {
    /// Connections of each thread
    #[arg(long)]
    pub connections: u32,
    /// Threads
    #[arg(long)]
    pub parallel: u8,
    /// Where to write which of them fell back
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// A client's connection that fell back.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct Fallen {
    local: SocketAddr,
    remote: SocketAddr,
}

/// What was done, and what the kernel counted.
struct Made {
    pid: u32,
    netns: u64,
    /// When nobody had made the namespace yet, on `CLOCK_BOOTTIME`.
    since_ns: u64,
    fallen: Vec<Fallen>,
    moved: Counters,
}

impl Made {
    /// The namespace's number may have been somebody else's before.
    fn has(&self, found: &Found) -> bool {
        found.netns == self.netns && !found.is_before(self.since_ns)
    }
}

/// Runs it; true if nothing is wrong.
///
/// # Errors
///
/// Fails if the tracer cannot be run or what it prints cannot be read.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    let parallel = u8::try_from(args.parallel).context("too many at a time")?;
    ensure!(parallel > 0, "nothing to do");
    let mut cells = Cells::new(std::io::stdout())?;
    let _alone = Alone::claim(
        "reuse",
        "very many connections load all processors, and every tracer of the host gets their fallbacks",
    )?;
    let rung = &args.attach;
    let perform = || make(args.connections / args.parallel, parallel);
    let found = under_tracer(
        &args.tracer,
        rung,
        &args.tracer_arg,
        perform,
        |(made, _ground), lines| vec![compare(rung, &made, lines), balanced(rung, lines)],
    )?;
    for cell in found {
        cells.put(cell)?;
    }
    cells.close()
}

/// The namespace lives as long as its ground.
fn make(connections: u32, parallel: u8) -> anyhow::Result<(Made, Ground)> {
    let since_ns = sys::boottime_ns();
    let ground = Ground::new(Place::Loopback, Rules::NONE, Means::Tun)?;
    let before = netns::counters(ground.near())?;
    let out = Scratch::new("fallen");
    let me = std::env::current_exe().context("cannot find myself")?;
    let mut maker = netns::within(ground.near(), || {
        Command::new(&me)
            .args(["reuse-maker", "--connections", &connections.to_string()])
            .args(["--parallel", &parallel.to_string(), "--out"])
            .arg(&out.0)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start the application")
    })?;
    let pid = maker.id();
    let status = maker.wait().context("cannot wait for the application")?;
    ensure!(status.success(), "the application ended with {status}");
    let after = netns::counters(ground.near())?;
    let made = Made {
        pid,
        netns: netns::number(ground.near())?,
        since_ns,
        fallen: read_lines(&out.0)?,
        moved: netns::moved(&before, &after),
    };
    Ok((made, ground))
}

/// The application: connects and closes, as fast as it can.
///
/// # Errors
///
/// Says which step failed.
pub fn make_connections(args: &MakerArgs) -> anyhow::Result<()> {
    sys::set_process_name("lab-reuse").context("cannot change the name of the process")?;
    let fallen: Vec<Fallen> = thread::scope(|scope| {
        let threads: Vec<_> = (0..args.parallel)
            .map(|number| scope.spawn(move || one_thread(number, args.connections)))
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
    out.flush().context("cannot write down what fell back")
}

fn one_thread(thread: u8, connections: u32) -> anyhow::Result<Vec<Fallen>> {
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
    for number in 0..connections {
        let is_to_tcp = number % 2 == 1;
        let (listener, port) = &listeners[usize::from(is_to_tcp)];
        // Each thread has addresses of its own, and after a while it takes the next.
        let address = Ipv4Addr::new(127, 1 + thread, (number / OF_AN_ADDRESS) as u8, 1);
        let client = net::open(Kind::Mptcp, Family::V4).context("cannot open a socket")?;
        let to = SocketAddr::new(IpAddr::V4(address), *port);
        client
            .connect(&to.into())
            .with_context(|| format!("cannot connect to {to}"))?;
        let (server, _peer) = net::accept(listener)?;
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

/// Every line is about a connection that fell back, and every one of them has its line.
fn compare(rung: &str, made: &Made, lines: &[TracedLine]) -> Cell {
    let mut open: HashMap<(Endpoint, Endpoint), i64> = HashMap::new();
    for fallen in &made.fallen {
        let ends = (Endpoint::from(fallen.local), Endpoint::from(fallen.remote));
        *open.entry(ends).or_default() += 1;
    }
    let mut ids = HashSet::new();
    let mut wrong: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    let mut count = 0_u64;
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
            Some(_) | None => note("lines of no connection", format!("{found:?}")),
        }
        if !is_ours(found, made.pid) {
            note("lines with a wrong owner or cause", format!("{found:?}"));
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
        note("the kernel counts otherwise", format!("{:?}", made.moved));
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

fn is_ours(found: &Found, pid: u32) -> bool {
    found.cause.as_deref() == Some(CAUSE)
        && found.side.as_deref() == Some("active")
        && found.owner.as_ref().is_some_and(|owner| owner.pid == pid)
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
            pid: PID,
            netns: NETNS,
            since_ns: SINCE_NS,
            fallen,
            moved: Counters::from([(CAUSE.into(), counted)]),
        };
        compare("fexit", &made, &lines).outcome
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
