//! `mptcp-lab churn`: a long-running `mptcp-trace serve` while processes, namespaces and clients
//! come and go. Its memory and its descriptors must not grow, and its counters must match those of
//! the kernel and of the querying processes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{
    alone::Alone, cells::Cells, metrics::Page, report::write_line, serving::Served,
    tracer::OneMethodArgs, wait::Patience,
};

mod actions;
pub(crate) mod clock;
mod connections;
mod judge;
mod others;
mod sample;
mod visitors;

use actions::Churn;
use judge::{IdleSnapshot, Ledger, judge, warm_up_s};
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
/// Interval of the progress messages.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Until the tracer is idle again: longer than its timeout for slow clients. It scans its sockets
/// once a second, and may hold a line back for longer.
const QUIET: Patience = Patience::new(Duration::from_secs(8), Duration::from_millis(1_500));
/// Pages to fetch before the churn, so that one-time allocations are done.
const FIRST_PAGES: u32 = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tracer
    #[command(flatten)]
    tried: OneMethodArgs,
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

    fn has_clock(&self) -> bool {
        self.clock_step_s > 0
    }
}

/// Runs the churn; returns true if every check passes.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = Cells::new()?;
    let _alone = Alone::claim(
        "churn",
        match args.has_clock() {
            true => {
                "it steps the clock for moments (--clock-step-s 0 does not), and floods the host"
            }
            false => "it floods the host",
        },
    )?;
    let folder = tempfile::tempdir().context("cannot create a directory for settings")?;
    let settings = folder.path().join("serve.toml");
    fs::write(&settings, "").context("cannot write settings")?;
    let words = [Path::new("--config"), &settings];
    let served = Served::start(&args.tried, words)?;
    let epoch = clock::epoch();
    for _ in 0..FIRST_PAGES {
        served.page()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let before = rest(&served)?;
    let churn = Churn::begin();
    let samples = match act(args, &churn, &served, &settings, &before.page) {
        Ok(samples) => samples,
        Err(why) => bail!("{why:#}; {:?}", served.end().err()),
    };
    let after = quiet(&served, &before)?;
    let said = served.tracer.said()?;
    let broken = served.end().err().map(|why| format!("{why:#}"));
    let ledger = Ledger {
        rung: args.tried.attach.clone(),
        duration_s: args.duration().as_secs_f64(),
        every_s: args.sample_every().as_secs_f64(),
        samples,
        before,
        after,
        actions: churn.actions().clone(),
        has_clock: args.has_clock(),
        clock_off_ns: clock::epoch() - epoch,
        said_read: said.matches("settings reloaded").count() as u64,
        said_broken: said.matches("settings unchanged").count() as u64,
        broken,
    };
    summary(&ledger);
    cells.put_all(judge(&ledger))?;
    cells.close()
}

/// Resources and metrics of the idle tracer.
fn rest(served: &Served) -> anyhow::Result<IdleSnapshot> {
    let page = served.page()?;
    // Wait until the connection of the last page request is closed.
    std::thread::sleep(Duration::from_secs(1));
    let held = sample(served, &Churn::begin(), &page)?;
    Ok(IdleSnapshot { held, page })
}

/// Resources and metrics once the tracer is idle again: when they match those from before and stay
/// the same, or at the timeout.
fn quiet(served: &Served, before: &IdleSnapshot) -> anyhow::Result<IdleSnapshot> {
    let mut last: Option<IdleSnapshot> = None;
    let is_quiet = |now: &IdleSnapshot| {
        let is_as_before =
            (now.held.fds, now.held.threads) == (before.held.fds, before.held.threads);
        let counts = now.page.counts();
        let is_same = last.as_ref().is_some_and(|it| it.page.counts() == counts);
        last = Some(now.clone());
        Ok(is_as_before && is_same)
    };
    std::thread::sleep(QUIET.every);
    QUIET.last(|| rest(served), is_quiet)
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
        scope.spawn(|| others::watch(churn));
        scope.spawn(|| connections::recipes(churn));
        scope.spawn(|| connections::lanes(churn));
        scope.spawn(|| connections::killed(churn));
        scope.spawn(|| connections::namespaces(churn));
        scope.spawn(|| connections::floods(churn));
        scope.spawn(|| visitors::slow(churn, address));
        scope.spawn(|| visitors::crowds(churn, address));
        scope.spawn(|| hangups(churn, served, settings));
        if args.has_clock() {
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
        if let Ok(text) = served.text() {
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
        queries: page.sum("mptcp_trace_seen_total", &[("sensor", "query")]),
        fallbacks: page.sum("mptcp_trace_fallbacks_total", &[]),
        remembered: page.sum("mptcp_trace_remembered_connections", &[]),
        differ: namespaces("differ"),
        unread: namespaces("unread"),
        scrapes: actions.scrapes,
        hangups: actions.hangups + actions.bad_hangups,
        namespaces: actions.namespaces,
        clock_steps: actions.clock_steps,
        ..Sample::of(served.tracer.pid())?
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
        sample.queries,
        sample.fallbacks,
        sample.namespaces,
        sample.scrapes,
        sample.hangups,
        sample.clock_steps,
        actions.went_back.len(),
        actions.failed,
    );
}

/// The figures of CONTRIBUTING.md.
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
            .and_then(|()| served.reload());
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
