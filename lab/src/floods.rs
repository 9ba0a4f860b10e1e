//! `mptcp-lab floods`: guarantees for queries that come faster than lines can be written. Every
//! query is accounted for, a realistic rate loses none, no flood of queries displaces a fallback, and
//! none keeps the tracer from answering or ending.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    os::fd::AsFd as _,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use crate::{
    alone::Alone,
    cells::{Cells, judged, skipped, unavailable},
    load,
    net::{self, Family, Kind},
    netns,
    process::{Running, own},
    report::Cell,
    scratch::Scratch,
    sys,
    traced::{Found, Losses},
    tracer::{Counted, Counts, Run, Started, Tracer},
    wait::Patience,
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
/// For an account that is requested during a flood. The tracer only has to take what is in the ring.
const ANSWER: Patience = Patience::new(Duration::from_secs(20), Duration::from_millis(20));
/// Number of requests.
const ANSWERS: usize = 3;
/// Until the querying program starts.
const BEGIN: Patience = Patience::new(Duration::from_secs(20), Duration::from_millis(1));

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
    let mut cells = Cells::new()?;
    let _alone = Alone::claim(
        "floods",
        "threads that query as fast as possible load all CPUs",
    )?;
    let size = Size::of(args);
    for rung in &args.attach {
        let place = Place::new(args, rung)?;
        let Some(cell) = place.accounted(size.queries)? else {
            let why = format!("this kernel has no attach method {rung}");
            cells.put(unavailable("flood-accounted", rung, why))?;
            continue;
        };
        cells.put(cell)?;
        cells.put(place.steady(size.steady_seconds)?)?;
        for (case, ring) in [
            ("flood-fallbacks", None),
            ("flood-fallbacks-small-ring", Some(SMALL_RING)),
        ] {
            cells.put(place.fallbacks(case, ring, size.between_fallbacks)?)?;
        }
        cells.put(place.answered()?)?;
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
        Ok(Self {
            args,
            rung,
            namespace: netns::new()?,
        })
    }

    fn tracer(&self, more: &[&str]) -> anyhow::Result<Started<Tracer<Counted>>> {
        let pid = std::process::id().to_string();
        Run::live(&self.args.tracer, self.rung)
            .uncapped()?
            .args(["--pid", &pid, "--follow"])
            .args(more)
            .reading(Counted::default())
            .start()
    }

    /// Queries as fast as possible: each must be printed or counted as lost; none if the attach
    /// method is unavailable.
    fn accounted(&self, queries: u64) -> anyhow::Result<Option<Cell>> {
        let case = "flood-accounted";
        eprintln!("mptcp-lab: {case} with attach method {}", self.rung);
        let Ok(tracer) = self.tracer(&[])?.available()? else {
            return Ok(None);
        };
        let asked = self.ask(0, f64::from(u16::MAX), queries / u64::from(THREADS))?;
        let ended = ended(tracer)?;
        let losses = ended.of_queries()?;
        let right = asked.asked == queries
            && losses.seen - losses.filtered == queries
            && losses.balances()
            && losses.missed == 0
            && losses.emitted == ended.queries;
        let caller = format!("{queries} queries");
        let traced = format!("{} lines + {} lost", ended.queries, losses.lost());
        let losses = &ended.end.losses;
        Ok(Some(self.cell(case, right, &caller, &traced, losses)))
    }

    /// A fixed rate at which no query may be lost.
    fn steady(&self, seconds: f64) -> anyhow::Result<Cell> {
        let case = "flood-steady";
        eprintln!("mptcp-lab: {case} with attach method {}", self.rung);
        let tracer = self.tracer(&[])?.live()?;
        let busy = Busy::now(&tracer)?;
        let asked = self.ask(RATE, seconds, u64::MAX)?;
        let of_others = busy.of_others(&Busy::now(&tracer)?);
        let ended = ended(tracer)?;
        let losses = ended.of_queries()?;
        let caller = format!("{RATE}/s for {seconds} s");
        let traced = format!("{} lines + {} lost", ended.queries, losses.lost());
        let skipped = |why| Cell {
            caller: caller.clone(),
            traced: traced.clone(),
            ..skipped(case, self.rung, why)
        };
        if asked.rate() < RATE as f64 * RATE_SHARE_MIN {
            let why = format!("this machine asks {:.0} queries a second", asked.rate());
            return Ok(skipped(why));
        }
        // A reader that other processes keep off the CPU falls behind, however fast it is.
        if losses.lost() > 0 && of_others > OTHERS_SHARE_MAX {
            let (share, lost) = (of_others * 100.0, losses.lost());
            return Ok(skipped(format!(
                "others use {share:.0} % of the processors, and {lost} queries were lost"
            )));
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
        let tracer = self.tracer(&more)?.live()?;
        let flood = flood(&self.namespace)?;
        let fell = netns::within(self.namespace.as_fd(), || fall_back(FALLBACKS, pause))?;
        drop(flood);
        let ended = ended(tracer)?;
        let losses = ended.of_queries()?;
        let told = told(&ended.fallbacks, std::process::id(), &fell);
        // With a small ring the flood must lose queries; otherwise the test proves nothing.
        let right = told == fell.len() && (ring.is_none() || losses.ring_full > 0);
        let caller = format!("{} fallbacks", fell.len());
        let traced = format!("{told} fallbacks");
        Ok(self.cell(case, right, &caller, &traced, &ended.end.losses))
    }

    /// Requests accounts, and the end, while a flood goes on that has no end.
    fn answered(&self) -> anyhow::Result<Cell> {
        let case = "flood-answered";
        eprintln!("mptcp-lab: {case} with attach method {}", self.rung);
        let tracer = self.tracer(&[])?.live()?;
        let flood = flood(&self.namespace)?;
        let mut answers = 0;
        for _ in 0..ANSWERS {
            // Its ring is full by then.
            std::thread::sleep(Duration::from_millis(500));
            tracer.signal(Signal::USR1)?;
            let is_answered = || Ok(accounts(&tracer.said()?) > answers);
            if !ANSWER.holds(is_answered)? {
                break;
            }
            answers += 1;
        }
        // If it does not end by itself, only its own end is late: it is killed, and that is an error.
        let ended = ended(tracer);
        drop(flood);
        let ended = ended.context("it does not end during a flood")?;
        let losses = ended.of_queries()?;
        // Otherwise the ring was empty from time to time, and the test proves nothing.
        let right = answers == ANSWERS && losses.ring_full > 0;
        let caller = format!("{ANSWERS} requests");
        let traced = format!("{answers} accounts");
        Ok(self.cell(case, right, &caller, &traced, &ended.end.losses))
    }

    fn ask(&self, rate: u64, seconds: f64, queries: u64) -> anyhow::Result<load::Asked> {
        let load = load::Args {
            threads: THREADS,
            rate,
            seconds,
            queries,
            begun: None,
        };
        netns::within(self.namespace.as_fd(), || load::ask(&load))
    }

    fn cell(&self, case: &str, right: bool, caller: &str, traced: &str, losses: &[Losses]) -> Cell {
        eprintln!("mptcp-lab: {case}: {caller}, {traced}; {losses:?}");
        let wrong = (!right).then(|| format!("counters {losses:?}"));
        judged(case, self.rung, caller, traced, Vec::from_iter(wrong))
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
    fn now(tracer: &Tracer<Counted>) -> anyhow::Result<Self> {
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

/// Number of accounts in what a tracer said.
fn accounts(said: &str) -> usize {
    let begins = |line: &&str| line.starts_with("mptcp-trace: counters: kernel counted ");
    said.lines().filter(begins).count()
}

fn ended(tracer: Tracer<Counted>) -> anyhow::Result<Counts> {
    tracer.stop(Signal::INT)?.in_order()?.reader()?.close()
}

/// Starts a process that queries as fast as possible until this is dropped.
fn flood(namespace: &File) -> anyhow::Result<Running> {
    let begun = Scratch::new("flood-begun");
    let mut command = own("load-asker")?;
    command.args(["--seconds", "3600", "--threads", &THREADS.to_string()]);
    command.arg("--begun").arg(&begun.0).stdout(Stdio::null());
    let flood = netns::within(namespace.as_fd(), || {
        Running::start("the asker", &mut command)
    })?;
    let has_begun = BEGIN.holds(|| Ok(begun.0.exists()))?;
    ensure!(has_begun, "the asker does not start");
    Ok(flood)
}

/// Connects repeatedly to a listener without MPTCP; returns the local addresses.
fn fall_back(times: u32, pause: Duration) -> anyhow::Result<Vec<SocketAddr>> {
    let listener = net::listen(Kind::Tcp, Family::V4)?;
    let mut fell = Vec::new();
    // No port is reused while all connections are open.
    let mut open_ends = Vec::new();
    for _ in 0..times {
        let ends = net::pair(Kind::Mptcp, &listener, Family::V4)?;
        let local = ends.0.local_addr()?.as_socket();
        fell.push(local.context("a socket without an address")?);
        open_ends.push(ends);
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
    use crate::{report::Endpoint, traced::Owner};

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
    fn an_account_has_one_line_of_counters() {
        let account = "mptcp-trace: query: 1 printed\nmptcp-trace: counters: kernel counted 0, traced \
                       0\nmptcp-trace: counters: network namespace 7: unread\n";
        assert_eq!(accounts(account), 1);
        assert_eq!(accounts(&account.repeat(2)), 2);
        assert_eq!(accounts("mptcp-trace: tracing\n"), 0);
    }

    #[test]
    fn a_fallback_counts_if_it_has_one_line_that_names_its_owner() {
        let found = |port: u16, pid: u32| -> Found {
            Found {
                side: Some("active".into()),
                owner: Some(Owner {
                    pid,
                    ..Owner::default()
                }),
                local: Endpoint {
                    addr: "127.0.0.1".into(),
                    port,
                },
                ..Found::default()
            }
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
