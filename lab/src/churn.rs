//! `mptcp-lab churn`: a long-running `mptcp-trace serve` while processes, namespaces and clients
//! come and go. Its memory and its descriptors must not grow, and its counters must match those of
//! the kernel and of the querying processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use crate::{
    alone::Alone,
    netns,
    report::{Cells, write_line},
    served::Served,
};

mod actions;
pub(crate) mod clock;
mod connections;
mod judge;
mod page;
mod sample;
mod visitors;

use actions::Churn;
use judge::{IdleSnapshot, Ledger, judge, warm_up_s};
use page::Page;
use sample::Sample;

/// Duration of a short run, minutes.
const SHORT_MINUTES: u32 = 1;
/// Sampling interval; and that of a short run.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
const SHORT_SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Interval of the hangups (SIGHUP).
const HANGUP_EVERY: Duration = Duration::from_secs(3);
/// Delay of the first clock step, and the interval after it.
const FIRST_STEP: Duration = Duration::from_secs(30);
const STEP_EVERY: Duration = Duration::from_secs(60);
/// Interval of the checks for other users of this machine.
const OTHERS_EVERY: Duration = Duration::from_millis(500);
/// Interval of the progress messages.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Timeout until the tracer is idle again: longer than its timeout for slow clients.
const QUIET_MAX: Duration = Duration::from_secs(8);
/// Interval of the idle checks: the tracer scans its sockets once a second and may hold a line back
/// for longer.
const QUIET_EVERY: Duration = Duration::from_millis(1_500);
/// Pages to fetch before the churn, so that one-time allocations are done.
const FIRST_PAGES: u32 = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub(crate) tracer: PathBuf,
    /// Attach method
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub(crate) attach: String,
    /// Duration in minutes
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) minutes: u32,
    /// Run for one minute
    #[arg(long, conflicts_with = "minutes")]
    pub(crate) short: bool,
    /// Write the tracer's resource usage to FILE, one JSON line every 10 s
    #[arg(long, value_name = "FILE")]
    pub(crate) samples: Option<PathBuf>,
    /// Step the clock by this many seconds for 2 s each minute; 0: do not touch it
    #[arg(long, value_name = "N", default_value_t = 90)]
    pub(crate) clock_step_s: u32,
    /// Leave this actor out (repeatable), to find the culprit
    #[arg(long, value_name = "ACTOR", value_enum)]
    pub(crate) without: Vec<Actor>,
}

/// Sources of churn.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Actor {
    /// Plays every recipe.
    Recipes,
    /// Opens many connections through middleboxes.
    Lanes,
    /// Kills processes.
    Killed,
    /// Creates short-lived namespaces.
    Namespaces,
    /// Floods of queries.
    Floods,
    /// Sends hostile clients to the page.
    Visitors,
    /// Makes the tracer reload its settings.
    Hangups,
    /// Steps the clock.
    Clock,
}

impl Args {
    fn duration(&self) -> Duration {
        let minutes = if self.short {
            SHORT_MINUTES
        } else {
            self.minutes
        };
        Duration::from_secs(60) * minutes
    }

    fn sample_every(&self) -> Duration {
        if self.short {
            SHORT_SAMPLE_EVERY
        } else {
            SAMPLE_EVERY
        }
    }

    fn has(&self, actor: Actor) -> bool {
        !self.without.contains(&actor)
    }
}

/// Runs the churn; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new(std::io::stdout())?;
    let _alone = Alone::claim(
        "churn",
        match args.clock_step_s > 0 && args.has(Actor::Clock) {
            true => {
                "it steps the clock for moments (--clock-step-s 0 does not), and floods the host"
            }
            false => "it floods the host",
        },
    )?;
    let folder = tempfile::tempdir().context("cannot create a directory for settings")?;
    let settings = folder.path().join("serve.toml");
    fs::write(&settings, "").context("cannot write settings")?;
    let words = [OsStr::new("--config"), settings.as_os_str()];
    let served = Served::start(&args.tracer, &args.attach, &words)?;
    let epoch = clock::epoch();
    for _ in 0..FIRST_PAGES {
        served.page()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let before = rest(&served)?;
    let churn = Churn::begin();
    let samples = act(args, &churn, &served, &settings, &before.page)?;
    let after = quiet(&served, &before)?;
    let said = served.said()?;
    let broken = ended(served, &said);
    let ledger = Ledger {
        rung: args.attach.clone(),
        duration_s: args.duration().as_secs_f64(),
        every_s: args.sample_every().as_secs_f64(),
        samples,
        before,
        after,
        actions: churn.actions().clone(),
        has_clock: args.clock_step_s > 0 && args.has(Actor::Clock),
        clock_off_ns: clock::epoch() - epoch,
        said_read: said.matches("settings reloaded").count() as u64,
        said_broken: said.matches("settings unchanged").count() as u64,
        broken,
    };
    summary(&ledger);
    for cell in judge(&ledger) {
        cells.put(cell)?;
    }
    cells.close()
}

/// Resources and metrics of the idle tracer.
fn rest(served: &Served) -> anyhow::Result<IdleSnapshot> {
    let page = Page::parse(&served.page()?)?;
    // Wait until the connection of the last page request is closed.
    std::thread::sleep(Duration::from_secs(1));
    let held = sample(served, &Churn::begin(), &page)?;
    Ok(IdleSnapshot { held, page })
}

/// Resources and metrics once the tracer is idle again: when they match those from before and stay
/// the same, or at the timeout.
fn quiet(served: &Served, before: &IdleSnapshot) -> anyhow::Result<IdleSnapshot> {
    let start = Instant::now();
    let mut last: Option<IdleSnapshot> = None;
    loop {
        std::thread::sleep(QUIET_EVERY);
        let now = rest(served)?;
        let is_as_before =
            (now.held.fds, now.held.threads) == (before.held.fds, before.held.threads);
        let is_same = last.is_some_and(|last| last.page.counts() == now.page.counts());
        if is_as_before && is_same || start.elapsed() > QUIET_MAX {
            return Ok(now);
        }
        last = Some(now);
    }
}

/// Describes what went wrong at the tracer's end.
fn ended(served: Served, said: &str) -> Option<String> {
    if let Some(line) = said.lines().find(|line| line.contains("panicked")) {
        return Some(line.to_owned());
    }
    served.end().err().map(|why| format!("{why:#}"))
}

/// Runs all actors until the time is up.
fn act(
    args: &Args,
    churn: &Churn,
    served: &Served,
    settings: &Path,
    first: &Page,
) -> anyhow::Result<Vec<Sample>> {
    let address = served.address.as_str();
    std::thread::scope(|scope| {
        scope.spawn(|| visitors::scrapes(churn, address, first.clone()));
        scope.spawn(|| others(churn));
        if args.has(Actor::Recipes) {
            scope.spawn(|| connections::recipes(churn));
        }
        if args.has(Actor::Lanes) {
            scope.spawn(|| connections::lanes(churn));
        }
        if args.has(Actor::Killed) {
            scope.spawn(|| connections::killed(churn));
        }
        if args.has(Actor::Namespaces) {
            scope.spawn(|| connections::namespaces(churn));
        }
        if args.has(Actor::Floods) {
            scope.spawn(|| connections::floods(churn));
        }
        if args.has(Actor::Visitors) {
            scope.spawn(|| visitors::slow(churn, address));
            scope.spawn(|| visitors::crowds(churn, address));
        }
        if args.has(Actor::Hangups) {
            scope.spawn(|| hangups(churn, served, settings));
        }
        if args.has(Actor::Clock) && args.clock_step_s > 0 {
            scope.spawn(|| steps(churn, i64::from(args.clock_step_s)));
        }
        let sampled = samples(args, churn, served);
        // Reached also if the tracer has died: the actors stop then.
        churn.end();
        sampled
    })
}

/// Samples the tracer until the time is up.
fn samples(args: &Args, churn: &Churn, served: &Served) -> anyhow::Result<Vec<Sample>> {
    let mut file = args
        .samples
        .as_ref()
        .map(|path| {
            File::create(path).with_context(|| format!("cannot write to {}", path.display()))
        })
        .transpose()?;
    let mut samples = Vec::new();
    let mut page = Page::default();
    let mut said = Instant::now();
    while churn.elapsed() < args.duration() {
        // The tracer may be at its limit of clients; sample its memory anyway.
        if let Ok(text) = served.page() {
            page = Page::parse(&text)?;
        }
        let sample = sample(served, churn, &page).context("the tracer is gone")?;
        if let Some(file) = &mut file {
            write_line(file, &sample)?;
        }
        samples.push(sample);
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            progress(&sample, churn);
        }
        let left = args.duration().saturating_sub(churn.elapsed());
        std::thread::sleep(args.sample_every().min(left));
    }
    Ok(samples)
}

fn sample(served: &Served, churn: &Churn, page: &Page) -> anyhow::Result<Sample> {
    let actions = churn.actions();
    let namespaces = |word| page.sum("mptcp_trace_namespaces", &[("counters", word)]);
    Ok(Sample {
        at_s: churn.elapsed().as_secs_f64(),
        series: page.len() as u64,
        questions: page.sum("mptcp_trace_seen_total", &[("sensor", "query")]),
        fallbacks: page.sum("mptcp_trace_fallbacks_total", &[]),
        remembered: page.sum("mptcp_trace_remembered_connections", &[]),
        differ: namespaces("differ"),
        unread: namespaces("unread"),
        scrapes: actions.scrapes,
        hangups: actions.hangups + actions.bad_hangups,
        namespaces: actions.namespaces,
        clock_steps: actions.clock_steps,
        ..Sample::of(served.pid())?
    })
}

fn progress(sample: &Sample, churn: &Churn) {
    let actions = churn.actions();
    eprintln!(
        "mptcp-lab: churn: {:.0} s: {} kB, {} descriptors, {} queries, {} fallbacks, {} namespaces, \
         {} scrapes, {} hangups, {} clock steps; {} counters went back, {} failures",
        sample.at_s,
        sample.rss_kb,
        sample.fds,
        sample.questions,
        sample.fallbacks,
        sample.namespaces,
        sample.scrapes,
        sample.hangups,
        sample.clock_steps,
        actions.went_back.len(),
        actions.failed,
    );
}

/// The figures of docs/metrics.md.
fn summary(ledger: &Ledger) {
    let warm = warm_up_s(ledger.duration_s);
    let warmed = ledger.samples.iter().rev().find(|it| it.at_s < warm);
    let rows = [
        ("begin", Some(&ledger.before.held)),
        ("warm", warmed),
        ("last", ledger.samples.last()),
        ("rest", Some(&ledger.after.held)),
    ];
    for (name, sample) in rows {
        let Some(sample) = sample else { continue };
        let Sample {
            rss_kb,
            anon_kb,
            bpf_kb,
            fds,
            cpu_s,
            series,
            remembered,
            ..
        } = sample;
        eprintln!(
            "mptcp-lab: churn: {name}: rss {rss_kb} kB, anonymous {anon_kb} kB, bpf {bpf_kb} kB, {fds} descriptors, \
             cpu {cpu_s:.1} s, {series} series, {remembered} remembered"
        );
    }
    eprintln!("mptcp-lab: churn: {:?}", ledger.actions);
}

/// Settings files, and whether each is valid.
const SETTINGS: [(Option<&str>, bool); 6] = [
    (Some("label = \"process\"\n"), true),
    (Some("label = \"pro"), false),
    (Some("label = \"cgroup\"\n"), true),
    (Some(""), true),
    (None, false),
    (Some("port = 1\n"), false),
];

fn hangups(churn: &Churn, served: &Served, settings: &Path) {
    for (text, is_good) in SETTINGS.iter().cycle() {
        if churn.rest(HANGUP_EVERY) {
            return;
        }
        let written = match text {
            Some(text) => fs::write(settings, text),
            None => fs::remove_file(settings),
        };
        let done = written
            .context("cannot write settings")
            .and_then(|()| served.signal(Signal::HUP));
        if churn.note("hangup", done).is_some() {
            let mut actions = churn.actions();
            if *is_good {
                actions.hangups += 1;
            } else {
                actions.bad_hangups += 1;
            }
        }
    }
}

/// Steps the clock forward and back, alternately.
fn steps(churn: &Churn, by_s: i64) {
    let mut pause = FIRST_STEP;
    for by_s in [by_s, -by_s].into_iter().cycle() {
        if churn.rest(pause) {
            return;
        }
        pause = STEP_EVERY;
        if churn.note("clock", clock::step(by_s)).is_some() {
            churn.actions().clock_steps += 1;
        }
    }
}

/// The tracer also counts other tracers, other programs that make queries, and their connections.
fn others(churn: &Churn) {
    let mut known = BTreeSet::new();
    let mut counted = BTreeMap::new();
    while !churn.rest(OTHERS_EVERY) {
        let me = std::process::id();
        let found = processes().map(|all| {
            let mut found = strangers(&all, me);
            for (netns, process) in elsewhere(&all, me) {
                let Ok(counters) = netns::counters_of(process.0) else {
                    continue;
                };
                let before = counted.insert(netns, counters.clone());
                let has_moved =
                    before.is_some_and(|before| !netns::moved(&before, &counters).is_empty());
                if has_moved {
                    found.insert(format!("{} in network namespace {netns}", process.2));
                }
            }
            found
        });
        for stranger in churn.note("others", found).unwrap_or_default() {
            if known.insert(stranger.clone()) {
                churn.actions().others.push(stranger);
            }
        }
    }
}

/// The network namespaces in which our processes open no connections, with one process of each that
/// does not belong to this project: these are foreign in any case.
fn elsewhere(all: &[Process], me: u32) -> BTreeMap<u64, &Process> {
    let number = |pid: u32| {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
        Some(namespace.ino())
    };
    // In our own namespace we make queries, but no connection that the kernel counts.
    let own = number(me);
    let of_ours: BTreeSet<u64> = all
        .iter()
        .filter(|process| is_ours(all, me, process))
        .filter_map(|process| number(process.0))
        .filter(|netns| Some(*netns) != own)
        .collect();
    all.iter()
        .filter(|process| !NAMES.iter().any(|it| process.2.starts_with(it)))
        .filter_map(|process| Some((number(process.0)?, process)))
        .filter(|(netns, _)| !of_ours.contains(netns))
        .collect()
}

/// This process, one that it started, or an orphan of a killed one.
fn is_ours(all: &[Process], me: u32, process: &Process) -> bool {
    let parent = |pid: u32| all.iter().find(|it| it.0 == pid).map(|it| it.1);
    let is_left_behind = process.1 <= 1 && process.2.starts_with("lab-");
    is_left_behind
        || std::iter::successors(Some(process.0), |pid| parent(*pid))
            .take(all.len())
            .any(|pid| pid == me)
}

/// Name prefixes of this project's processes.
const NAMES: [&str; 2] = ["mptcp-", "lab-"];

/// A process: its number, its parent's number, its name.
type Process = (u32, u32, String);

fn processes() -> anyhow::Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let stat = entry?.path().join("stat");
        // The process has exited, or this is not a process.
        let Ok(stat) = fs::read_to_string(stat) else {
            continue;
        };
        all.extend(process(&stat));
    }
    ensure!(!all.is_empty(), "there are no processes in /proc");
    Ok(all)
}

/// `pid (name) state ppid ...`; the name may contain parentheses.
fn process(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let parent = rest.split(' ').nth(1)?;
    Some((pid.parse().ok()?, parent.parse().ok()?, name.to_owned()))
}

/// Names of this project's processes that are neither `me` nor its ancestors or descendants.
fn strangers(all: &[Process], me: u32) -> BTreeSet<String> {
    let parent = |pid: u32| all.iter().find(|it| it.0 == pid).map(|it| it.1);
    let line = |pid: u32| std::iter::successors(Some(pid), |pid| parent(*pid)).take(all.len());
    all.iter()
        .filter(|(_, _, name)| NAMES.iter().any(|ours| name.starts_with(ours)))
        // Ignore orphans: killed actors leave such children.
        .filter(|(pid, parent, _)| *parent > 1 && !line(*pid).any(|it| it == me))
        .filter(|(pid, _, _)| !line(me).any(|it| it == *pid))
        .map(|(_, _, name)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_no_relative_of_mine_is_a_stranger() {
        assert_eq!(process("7 (a) b) S 3 1 1"), Some((7, 3, "a) b".to_owned())));
        let all: Vec<Process> = [
            (1, 0, "init"),
            (2, 1, "mptcp-lab"),
            (3, 2, "mptcp-trace"),
            (4, 3, "lab-client"),
            (5, 1, "sh"),
            (6, 5, "mptcp-trace"),
            (7, 5, "vi"),
        ]
        .map(|(pid, parent, name)| (pid, parent, name.to_owned()))
        .to_vec();
        let names: Vec<String> = strangers(&all, 2).into_iter().collect();
        assert_eq!(names, ["mptcp-trace"]);
        let ours: Vec<u32> = all
            .iter()
            .filter(|process| is_ours(&all, 2, process))
            .map(|process| process.0)
            .collect();
        assert_eq!(ours, [2, 3, 4]);
        let left_behind = (8, 1, "lab-server".to_owned());
        assert!(is_ours(&all, 2, &left_behind));
    }
}
