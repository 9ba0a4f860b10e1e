//! `cargo xtask test`: everything that can be tested on this machine, by whoever runs it.
//!
//! First all that takes a compiler or a network, side by side; then, on one processor each, the tests of this machine
//! and the kernels in QEMU.

mod crates;
mod native;
mod summary;

use std::{process::ExitCode, sync::OnceLock, thread};

use anyhow::Result;

use crate::{
    bpf,
    build::{self, StaticPrograms},
    command::{is_root, say},
    dist, docs_table,
    emulator::Emulator,
    fleet::{self, Fleet, JOB_TIME_MAX_S, Work},
    host_packages, otlp,
    permits::Permits,
    places::Places,
    report, shapes,
    skips::Skip,
    step::Step,
    tally::Tally,
};

pub(crate) use native::on_running_kernel;
use summary::Summary;

/// Tests everything: the committed BPF object, the crates, this kernel, and kernels in QEMU.
///
/// A play is a test case or a recipe for a fallback, played under the tracer on one attach method. Each kernel is asked for
/// its shape: what the tracer's plan depends on. The first kernel of a shape gets every recipe on every attach method,
/// IPv4 and IPv6 in turn; another one of the same shape gets a few.
///
/// Where one or two plays of a run go wrong they are played again, once: that is a second try. More than 1 % of them fail
/// the run. As root so does a skip, unless its reason is a fact about the kernel or the machine that nothing can be
/// installed for.
///
/// Ends with the shapes, what was skipped and why, the second tries, where the time went (also as JSON, in
/// target/test/summary.json), and the line `N passed, N failed, N skipped`. The tracers that are tested say on stderr what
/// they saw; where others' connections or more than one cause is about, their counts differ, and the suites judge that.
#[derive(clap::Args)]
#[command(
    after_help = "On two processors, once everything is compiled: 15 minutes, --quick 2, --everything 28.\n\n\
    Examples:\n  \
    cargo xtask test\n  \
    cargo xtask test --quick\n  \
    cargo xtask test --no-vm\n  \
    cargo xtask test --kernel 6.12 7.3\n  \
    cargo xtask test --kernel 6.18 --hide-function=mptcp_setsockopt\n  \
    cargo xtask test --everything --update-docs"
)]
pub(crate) struct Args {
    /// Only what one runs while working: tests of the crates, and queries, recipes and verdicts on this kernel
    #[arg(long, conflicts_with_all = ["kernel", "everything", "update_docs", "hide_function"])]
    quick: bool,
    /// Boot no virtual machines; all else that this machine can run: also packages, browser, floods, serve left on
    #[arg(long)]
    no_vm: bool,
    /// Boot only these series (default: 5.10 6.1 6.12-oldest 6.12 6.16 6.17 6.18 6.19 7.1 7.2 7.3)
    #[arg(long, num_args = 1.., value_name = "SERIES", conflicts_with = "no_vm")]
    kernel: Vec<String>,
    /// The full product: every recipe and scenario on every attach method of every kernel with IPv4 and with IPv6
    #[arg(long)]
    everything: bool,
    /// Let the tracer plan as if no kernel in a virtual machine had the function NAME (repeatable), as a later release may
    /// have none: that is another shape, and gets every recipe
    #[arg(long, value_name = "NAME", conflicts_with_all = ["no_vm", "update_docs"])]
    hide_function: Vec<String>,
    /// Write the results into docs/kernels.md; needs --everything
    #[arg(long, requires = "everything")]
    update_docs: bool,
}

/// Permits: the tests of this machine take one, each virtual machine another one. As many as there are processors: with one
/// more, plays in an emulated machine wait for so long that packets are sent again, and timers end them.
fn permits() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs all steps, also after one that failed, and prints the summary.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let summary = Summary::new();
    if args.quick {
        quick(&places, &summary);
    } else {
        whole(&places, args, &summary);
    }
    let (code, outcomes, shapes) = summary.close(&places.target.join("test/summary.json"));
    if args.update_docs {
        docs_table::update(&places.root.join("docs/kernels.md"), &outcomes, &shapes)?;
    }
    Ok(code)
}

fn quick(places: &Places, summary: &Summary) {
    say("building the tests");
    let built = summary.timed("cargo test", "build", || crates::build(places));
    summary.step("cargo test", || built.and_then(|()| crates::run(places)));
    if !is_root() {
        return native::skip(summary);
    }
    // The programs that the tests of the crates have built anyway.
    let programs = places.target.join("debug");
    let programs =
        StaticPrograms::given(&programs.join("mptcp-trace"), &programs.join("mptcp-lab"));
    let programs = summary.timed("program in Go", "build", || programs.with_go(places));
    for task in native::quick_tasks() {
        native::suite(&programs, &task, summary);
    }
}

fn whole(places: &Places, args: &Args, summary: &Summary) {
    let series = series(args);
    let programs: OnceLock<Result<StaticPrograms>> = OnceLock::new();
    thread::scope(|scope| {
        scope.spawn(|| provide(places, &series, summary));
        scope.spawn(|| {
            let build = || Ok(build::static_programs(places)?.with_go(places));
            let built = summary.timed("static programs", "build", build);
            if programs.set(built).is_err() {
                say("the static programs were built twice");
            }
        });
        let built = summary.timed("cargo test", "build", || crates::build(places));
        if let Err(error) = built {
            summary.step::<Tally>("building the tests", || Err(error));
        }
        // Here, since the other programs take longer to link.
        summary.step("committed BPF objects", || {
            bpf::check(places)?;
            Ok(Tally::of(true))
        });
    });
    let programs = match programs.into_inner() {
        Some(Ok(programs)) => Some(programs),
        Some(Err(error)) => {
            summary.step::<Tally>("static programs", || Err(error));
            None
        }
        None => None,
    };
    if let Some(programs) = programs.as_ref().filter(|_| is_root()) {
        native::alone(programs, summary);
    }
    let permits = Permits::new(permits());
    // Taken before the first machine can have it: what runs here takes longest.
    let here = permits.take(1);
    thread::scope(|scope| {
        if let Some(programs) = programs.as_ref().filter(|_| !series.is_empty()) {
            scope.spawn(|| machines(places, programs.clone(), args, &series, &permits, summary));
        }
        on_this_machine(places, programs.as_ref(), args, summary);
        drop(here);
    });
}

/// What comes over the network: packages of this machine, a schema, kernels.
fn provide(places: &Places, series: &[String], summary: &Summary) {
    if is_root() {
        let provided = || host_packages::provide(&host_packages::test_needs(), "testing");
        if let Err(error) = summary.timed("packages", "fetch", provided) {
            say(format_args!("{error:#}; going on without"));
        }
        // If this fails, the suite that needs it reports what is missing.
        let _later = summary.timed("the schema of OTLP", "fetch", || otlp::python(places));
    }
    if !series.is_empty() {
        let _later = summary.timed("QEMU", "fetch", || Emulator::provide(places));
    }
    for series in series {
        let fetched = || fleet::provide_kernel(places, series);
        // What cannot be had is reported when its turn comes.
        let _later = summary.timed(series, "fetch", fetched);
    }
}

fn on_this_machine(
    places: &Places,
    programs: Option<&StaticPrograms>,
    args: &Args,
    summary: &Summary,
) {
    summary.step("cargo test", || crates::run(places));
    summary.step("alert rules", || crates::alert_rules(places));
    let tracer = programs.map(|programs| programs.tracer.as_path());
    summary.step("report in a browser", || report::step(places, tracer));
    if !is_root() {
        return native::skip(summary);
    }
    summary.step("release", || dist::step(places));
    if let Some(programs) = programs {
        for task in native::tasks(places, args.everything) {
            native::suite(programs, &task, summary);
        }
    }
}

fn machines(
    places: &Places,
    programs: StaticPrograms,
    args: &Args,
    series: &[String],
    permits: &Permits,
    summary: &Summary,
) {
    let work: Vec<(String, Work)> = series
        .iter()
        .map(|series| {
            let work = match args.everything {
                true => Work::Everything,
                false => Work::ByShape,
            };
            (series.clone(), work)
        })
        .collect();
    match Fleet::prepare(places.clone(), programs, false, JOB_TIME_MAX_S) {
        Ok(fleet) => fleet
            .hiding(&args.hide_function)
            .run(&work, permits, |visited| summary.visited(visited)),
        Err(error) => summary.step::<Tally>("virtual machines", || Err(error)),
    }
}

fn series(args: &Args) -> Vec<String> {
    match (args.no_vm, args.kernel.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => shapes::default_series(),
        (false, false) => args.kernel.clone(),
    }
}
