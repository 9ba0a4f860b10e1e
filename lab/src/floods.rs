//! `mptcp-lab floods`: guarantees for queries that come faster than lines can be written. Every
//! query is accounted for, a realistic rate loses none, and no flood of queries displaces a
//! fallback.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::{
    alone::Alone,
    beside::{Beside, Ended, Lines},
    compare::{mismatch, ok},
    link, load,
    net::{Family, Kind, open},
    netns,
    report::{Cell, Cells, Outcome},
    scratch::Scratch,
    sys,
    traced::{Found, Losses},
};

/// Querying threads.
const THREADS: u32 = 2;
/// Queries per second at which none may be lost.
const RATE: u64 = 200_000;
/// A machine that reaches less than this share of the rate is too slow to prove anything.
const RATE_SHARE_MIN: f64 = 0.95;
/// If other processes use more than this share of the CPUs, a loss is not the tracer's fault.
const OTHERS_SHARE_MAX: f64 = 0.1;
/// Fallbacks during a flood.
const FALLBACKS: u32 = 100;
/// Size of a ring that a flood fills at once.
const SMALL_RING: &str = "64K";
/// Timeout until the querying program starts.
const BEGIN_MAX: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Only this attach method (repeatable)
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub(crate) attach: Vec<String>,
    /// Smaller floods
    #[arg(long)]
    pub(crate) short: bool,
}

/// How much.
struct Size {
    queries: u64,
    steady_seconds: f64,
    between_fallbacks: Duration,
}

impl Size {
    fn of(args: &Args) -> Self {
        if args.short {
            Self {
                queries: 200_000,
                steady_seconds: 2.0,
                between_fallbacks: Duration::from_millis(5),
            }
        } else {
            Self {
                queries: 1_000_000,
                steady_seconds: 10.0,
                between_fallbacks: Duration::from_millis(30),
            }
        }
    }
}

/// Runs everything with each attach method; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new(std::io::stdout())?;
    let _alone = Alone::claim(
        "floods",
        "threads that query as fast as possible load all CPUs",
    )?;
    let size = Size::of(args);
    for rung in &args.attach {
        let place = Place::new(args, rung)?;
        let Some(cell) = place.accounted(size.queries)? else {
            cells.put(Cell {
                outcome: Outcome::Unavailable,
                why: format!("this kernel has no attach method {rung}"),
                ..ok("flood-accounted", rung, "", "")
            })?;
            continue;
        };
        cells.put(cell)?;
        cells.put(place.steady(size.steady_seconds)?)?;
        cells.put(place.fallbacks("flood-fallbacks", None, size.between_fallbacks)?)?;
        let ring = Some(SMALL_RING);
        cells.put(place.fallbacks(
            "flood-fallbacks-small-ring",
            ring,
            size.between_fallbacks,
        )?)?;
    }
    cells.close()
}

/// Environment of a flood: a new network namespace. The tracer's filter admits only this process
/// and its children, so that queries of other processes take no space in the ring.
struct Place<'a> {
    args: &'a Args,
    rung: &'a str,
    namespace: File,
}

impl<'a> Place<'a> {
    fn new(args: &'a Args, rung: &'a str) -> anyhow::Result<Self> {
        let namespace = netns::elsewhere(|| {
            link::enter_network_namespace().context("cannot make a network namespace")?;
            netns::current()
        })?;
        Ok(Self {
            args,
            rung,
            namespace,
        })
    }

    fn tracer(&self, more: &[&str]) -> anyhow::Result<Result<Beside, String>> {
        let pid = std::process::id().to_string();
        let words: Vec<String> = ["--attach", self.rung, "--pid", &pid, "--follow"]
            .iter()
            .chain(more)
            .map(|&word| word.to_owned())
            .collect();
        Beside::start(&self.args.tracer, &words, Lines::Counted)
    }

    /// Queries as fast as possible: each must be printed or counted as lost; none if the attach
    /// method is unavailable.
    fn accounted(&self, queries: u64) -> anyhow::Result<Option<Cell>> {
        let case = "flood-accounted";
        eprintln!("mptcp-lab: {case} with attach method {}", self.rung);
        let Ok(tracer) = self.tracer(&[])? else {
            return Ok(None);
        };
        let asked = self.ask(&load::Args {
            threads: THREADS,
            rate: 0,
            seconds: f64::from(u16::MAX),
            queries: queries / u64::from(THREADS),
            begun: None,
        })?;
        let ended = ended(tracer)?;
        let losses = of_queries(&ended)?;
        let right = asked.asked == queries
            && losses.seen - losses.filtered == queries
            && losses.balances()
            && losses.missed == 0
            && losses.emitted == ended.queries;
        let caller = format!("{queries} queries");
        let traced = format!("{} lines + {} lost", ended.queries, losses.lost());
        Ok(Some(self.cell(
            case,
            right,
            &caller,
            &traced,
            &ended.end.losses,
        )))
    }

    /// A fixed rate at which no query may be lost.
    fn steady(&self, seconds: f64) -> anyhow::Result<Cell> {
        let case = "flood-steady";
        eprintln!("mptcp-lab: {case} with attach method {}", self.rung);
        let tracer = self.live(&[])?;
        let busy = Busy::now(&tracer)?;
        let asked = self.ask(&load::Args {
            threads: THREADS,
            rate: RATE,
            seconds,
            queries: u64::MAX,
            begun: None,
        })?;
        let of_others = busy.of_others(&Busy::now(&tracer)?);
        let ended = ended(tracer)?;
        let losses = of_queries(&ended)?;
        let caller = format!("{RATE}/s for {seconds} s");
        let traced = format!("{} lines + {} lost", ended.queries, losses.lost());
        if asked.rate() < RATE as f64 * RATE_SHARE_MIN {
            return Ok(Cell {
                outcome: Outcome::Skipped,
                why: format!("this machine asks {:.0} questions a second", asked.rate()),
                ..ok(case, self.rung, &caller, &traced)
            });
        }
        // A reader that other processes keep off the CPU falls behind, however fast it is.
        if losses.lost() > 0 && of_others > OTHERS_SHARE_MAX {
            return Ok(Cell {
                outcome: Outcome::Skipped,
                why: format!(
                    "others use {:.0} % of the processors, and {} queries were lost",
                    of_others * 100.0,
                    losses.lost()
                ),
                ..ok(case, self.rung, &caller, &traced)
            });
        }
        let right = losses.lost() == 0 && losses.balances() && ended.queries == asked.asked;
        Ok(self.cell(case, right, &caller, &traced, &ended.end.losses))
    }

    /// Makes connections fall back during a flood of queries.
    fn fallbacks(&self, case: &str, ring: Option<&str>, pause: Duration) -> anyhow::Result<Cell> {
        eprintln!("mptcp-lab: {case} with attach method {}", self.rung);
        let more: Vec<&str> = ring
            .iter()
            .flat_map(|&ring| ["--ring-size", ring])
            .collect();
        let tracer = self.live(&more)?;
        let flood = Flood::begin(&self.namespace)?;
        let fell = netns::within(self.namespace.as_fd(), || fall_back(FALLBACKS, pause))?;
        drop(flood);
        let ended = ended(tracer)?;
        let losses = of_queries(&ended)?;
        let told = told(&ended.fallbacks, std::process::id(), &fell);
        // With a small ring the flood must lose queries; otherwise the test proves nothing.
        let right = told == fell.len() && (ring.is_none() || losses.ring_full > 0);
        let caller = format!("{} fallbacks", fell.len());
        let traced = format!("{told} fallbacks");
        Ok(self.cell(case, right, &caller, &traced, &ended.end.losses))
    }

    fn live(&self, more: &[&str]) -> anyhow::Result<Beside> {
        self.tracer(more)?.map_err(|why| {
            anyhow::anyhow!(
                "the attach method {} has become unavailable: {why}",
                self.rung
            )
        })
    }

    fn ask(&self, args: &load::Args) -> anyhow::Result<load::Asked> {
        netns::within(self.namespace.as_fd(), || load::ask(args))
    }

    fn cell(&self, case: &str, right: bool, caller: &str, traced: &str, losses: &[Losses]) -> Cell {
        eprintln!("mptcp-lab: {case}: {caller}, {traced}; {losses:?}");
        if right {
            ok(case, self.rung, caller, traced)
        } else {
            mismatch(
                case,
                self.rung,
                caller,
                traced,
                format!("counters {losses:?}"),
            )
        }
    }
}

/// CPU time used so far, seconds.
struct Busy {
    /// Of all processes, and idle time.
    all: f64,
    idle: f64,
    /// Of the tracer and this process.
    ours: f64,
}

impl Busy {
    fn now(tracer: &Beside) -> anyhow::Result<Self> {
        let own = sys::cpu_time(std::process::id()).context("cannot read the lab's CPU time")?;
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let (all, idle) = processors(&stat).context("cannot parse the CPU times in /proc/stat")?;
        Ok(Self {
            all,
            idle,
            ours: (own + tracer.cpu_time()?).as_secs_f64(),
        })
    }

    /// Share of all CPUs that other processes used until `then`.
    fn of_others(&self, then: &Self) -> f64 {
        let (all, idle) = (then.all - self.all, then.idle - self.idle);
        let ours = then.ours - self.ours;
        ((all - ours) / (all + idle).max(f64::EPSILON)).max(0.0)
    }
}

/// Total and idle time of all CPUs so far, seconds, from the first line of `/proc/stat`.
fn processors(stat: &str) -> Option<(f64, f64)> {
    let ticks: Vec<u64> = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        // Guest time is already included in the first two.
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [_user, _nice, _system, idle, waits, ..] = ticks[..] else {
        return None;
    };
    let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    let idle = idle + waits;
    Some((seconds(ticks.iter().sum::<u64>() - idle), seconds(idle)))
}

fn ended(tracer: Beside) -> anyhow::Result<Ended> {
    tracer.end()?.context("the tracer's lines were not counted")
}

fn of_queries(ended: &Ended) -> anyhow::Result<&Losses> {
    let mut all = ended.end.losses.iter();
    all.find(|losses| losses.sensor == "query")
        .context("the tracer reports no losses of its query sensor")
}

/// A process that queries as fast as possible until this is dropped.
struct Flood(Child);

impl Flood {
    fn begin(namespace: &File) -> anyhow::Result<Self> {
        let begun = Scratch::new("flood-begun");
        let me = std::env::current_exe().context("cannot find the path of this program")?;
        let mut command = Command::new(me);
        command
            .args(["load-asker", "--seconds", "3600", "--threads"])
            .arg(THREADS.to_string())
            .arg("--begun")
            .arg(&begun.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = netns::within(namespace.as_fd(), || {
            command.spawn().context("cannot run the asker")
        })?;
        let flood = Self(child);
        let start = Instant::now();
        while !begun.0.exists() {
            ensure!(start.elapsed() < BEGIN_MAX, "the asker does not start");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(flood)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Connects repeatedly to a listener without MPTCP; returns the local addresses.
fn fall_back(times: u32, pause: Duration) -> anyhow::Result<Vec<SocketAddr>> {
    let listener = open(Kind::Tcp, Family::V4).context("cannot open a listener")?;
    listener.bind(&Family::V4.loopback().into())?;
    listener.listen(128)?;
    let address = listener.local_addr()?;
    let mut fell = Vec::new();
    // No port is reused while all connections are open.
    let mut open_ends = Vec::new();
    for _ in 0..times {
        let client = open(Kind::Mptcp, Family::V4).context("cannot open a client")?;
        client.connect(&address).context("cannot connect")?;
        let (server, _peer) = listener.accept().context("cannot accept")?;
        let local = client.local_addr()?.as_socket();
        fell.push(local.context("a socket without an address")?);
        open_ends.push((client, server));
        std::thread::sleep(pause);
    }
    Ok(fell)
}

/// Number of these connections with exactly one fallback line that also names their owner.
fn told(found: &[Found], owner: u32, fell: &[SocketAddr]) -> usize {
    let mut lines: BTreeMap<(&str, u16), u32> = BTreeMap::new();
    for found in found {
        let is_its = found.owner.as_ref().map(|owner| owner.pid) == Some(owner);
        if is_its && found.side.as_deref() == Some("active") {
            let at = (found.local.addr.as_str(), found.local.port);
            *lines.entry(at).or_default() += 1;
        }
    }
    fell.iter()
        .filter(|at| {
            let address = at.ip().to_string();
            lines.get(&(address.as_str(), at.port())) == Some(&1)
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_use_is_what_is_left_of_all() {
        let busy = |all, idle, ours| Busy { all, idle, ours };
        let start = busy(10.0, 10.0, 1.0);
        let share = start.of_others(&busy(13.0, 11.0, 2.0));
        assert!((share - 0.5).abs() < 1e-9, "{share}");
        assert!(start.of_others(&busy(11.0, 13.0, 2.5)).abs() < 1e-9);
        let stat = "cpu  100 0 50 700 50 0 0 0 10 0\ncpu0 1 1 1 1\n";
        let hertz = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(processors(stat), Some((150.0 / hertz, 750.0 / hertz)));
        assert_eq!(processors("cpu  1 2\n"), None);
    }

    #[test]
    fn a_fallback_counts_if_it_has_one_line_that_names_its_owner() {
        let found = |port: u16, pid: u32| -> Found {
            serde_json::from_value(serde_json::json!({
                "id": "0x1@2", "cause": null, "known": "unknown", "side": "active", "evidence": [],
                "existing": false, "off_ms": null, "netns": 1, "family": "ipv4", "rung": "fexit",
                "owner": {"pid": pid, "comm": "x", "via": "connect"},
                "local": {"addr": "127.0.0.1", "port": port},
                "remote": {"addr": "127.0.0.1", "port": 80},
            }))
            .unwrap()
        };
        let fell: Vec<SocketAddr> = ["127.0.0.1:1", "127.0.0.1:2"]
            .map(|at| at.parse().unwrap())
            .to_vec();
        let check = |lines: &[Found], want: usize| assert_eq!(told(lines, 7, &fell), want);
        check(&[found(1, 7), found(2, 7)], 2);
        check(&[found(1, 7), found(2, 8)], 1);
        check(&[found(1, 7), found(2, 7), found(2, 7)], 1);
        check(&[found(3, 7)], 0);
    }
}
