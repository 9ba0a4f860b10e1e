//! `cargo xtask test`: runs all tests that this machine and the current user can run.
//!
//! First, everything that needs a compiler or the network runs concurrently. Then this machine's
//! tests and the kernels in QEMU run with one processor each.

mod crates;
mod native;
mod summary;

use std::{process::ExitCode, sync::OnceLock, thread};

use anyhow::Result;

use crate::{
    architecture::Architecture,
    bpf,
    build::{self, StaticPrograms},
    command::{is_root, say},
    cross, dist, docs_table,
    emulator::{self, Emulator},
    flavour,
    fleet::{self, Fleet, JOB_TIME_MAX_S, Work},
    host_packages::{self, Need},
    otlp,
    permits::Permits,
    places::Places,
    report, series,
    skips::Skip,
    step::Step,
    tally::Tally,
};

pub(crate) use native::on_running_kernel;
use summary::Summary;

/// Tests everything: the committed BPF objects, the crates, this kernel, and kernels in QEMU.
///
/// A play is one run of a test case, or of a recipe that provokes a fallback, under the tracer with
/// one attach method. Each kernel reports its shape: everything that the tracer's plan depends on.
/// The first kernel of a shape gets every recipe with every attach method, alternating between IPv4
/// and IPv6; another one of the same shape gets a few.
///
/// If one or two plays of a suite fail, they are repeated once: that is a second try. The run
/// fails if more than 1 % of the plays need one. As root, a skip also fails the run, unless its
/// reason is a property of the kernel or the machine that no installation can change.
///
/// Ends with the shapes, the skips and their reasons, the second tries, the durations (also as JSON
/// in target/test/summary.json), and the line `N passed, N failed, N skipped`. The tested tracers
/// report their counts on stderr. The counts differ from the kernel's if a suite involves other
/// programs' connections or more than one cause; the suites check that.
#[derive(clap::Args)]
#[command(
    after_help = "On two processors, once everything is compiled: 28 minutes, --quick 2, --everything longer.\n\n\
    Examples:\n  \
    cargo xtask test\n  \
    cargo xtask test --quick\n  \
    cargo xtask test --no-vm\n  \
    cargo xtask test --kernel 6.12 7.3\n  \
    cargo xtask test --kernel 6.18 --hide-function=mptcp_setsockopt\n  \
    cargo xtask test --everything --update-docs"
)]
pub(crate) struct Args {
    /// A subset for development: tests of the crates, and queries, recipes and verdicts on this
    /// kernel
    #[arg(long, conflicts_with_all = ["kernel", "everything", "update_docs", "hide_function"])]
    quick: bool,
    /// Boot no virtual machines; run everything else, including packages, browser, floods and a
    /// long-running serve
    #[arg(long)]
    no_vm: bool,
    /// Boot only these series (default: 5.10 6.1 6.12-oldest 6.12 6.16 6.17 6.18 6.19 7.1 7.2 7.3
    /// 6.12-generic 6.12-rt 6.12-arm64 6.1-arm64 6.12-arm64-16k 7.3-arm64; others: see cargo xtask
    /// vm --help)
    #[arg(long, num_args = 1.., value_name = "SERIES", conflicts_with = "no_vm")]
    kernel: Vec<String>,
    /// The full product: every recipe and scenario, with every attach method, on every kernel, with
    /// IPv4 and with IPv6
    #[arg(long)]
    everything: bool,
    /// Make the tracer plan as if no kernel in a virtual machine had the function NAME
    /// (repeatable), to simulate a later release without it. The kernels then have a new shape, and
    /// get every recipe
    #[arg(long, value_name = "NAME", conflicts_with_all = ["no_vm", "update_docs"])]
    hide_function: Vec<String>,
    /// Write the results into docs/kernels.md; needs --everything
    #[arg(long, requires = "everything")]
    update_docs: bool,
}

/// As many permits as there are processors: this machine's tests take one, and so does each virtual
/// machine. With one more, emulated machines stall for so long that TCP retransmits packets and
/// timers expire.
fn permits() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs all steps, even after a failure, and prints the summary.
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
    // Use the programs that the crates' tests build anyway.
    let programs = places.target.join("debug");
    let programs = StaticPrograms::given(
        Architecture::HOST,
        &programs.join("mptcp-trace"),
        &programs.join("mptcp-lab"),
    );
    let programs = summary.timed("program in Go", "build", || programs.with_go(places));
    for task in native::quick_tasks() {
        native::suite(&programs, &task, summary);
    }
}

fn whole(places: &Places, args: &Args, summary: &Summary) {
    let series = series(args);
    let programs: OnceLock<Result<StaticPrograms>> = OnceLock::new();
    let foreign: OnceLock<Vec<StaticPrograms>> = OnceLock::new();
    thread::scope(|scope| {
        scope.spawn(|| provide(places, &series, summary));
        scope.spawn(|| {
            let build = || Ok(build::static_programs(places, Architecture::HOST)?.with_go(places));
            let built = summary.timed("static programs", "build", build);
            if programs.set(built).is_err()
                || foreign
                    .set(foreign_programs(places, &series, summary))
                    .is_err()
            {
                say("the static programs were built twice");
            }
        });
        let built = summary.timed("cargo test", "build", || crates::build(places));
        if let Err(error) = built {
            summary.step::<Tally>("building the tests", || Err(error));
        }
        // Run it here, because the other programs take longer to link.
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
    // Take the permit before the first machine does: these tests take longest.
    let here = permits.take(1);
    thread::scope(|scope| {
        if let Some(programs) = programs.as_ref().filter(|_| !series.is_empty()) {
            let mut programs = vec![programs.clone()];
            programs.extend(foreign.into_inner().unwrap_or_default());
            scope.spawn(|| machines(places, programs, args, &series, &permits, summary));
        }
        on_this_machine(places, programs.as_ref(), args, summary);
        drop(here);
    });
}

/// Builds the static programs for kernels of other architectures. If that fails, the run fails, and
/// the other kernels are booted.
fn foreign_programs(places: &Places, series: &[String], summary: &Summary) -> Vec<StaticPrograms> {
    let mut built = Vec::new();
    for architecture in flavour::architectures_of(series) {
        if architecture == Architecture::HOST {
            continue;
        }
        let name = format!("static programs for {}", architecture.name());
        let build = || Ok(build::static_programs(places, architecture)?.with_go(places));
        match summary.timed(&name, "build", build) {
            Ok(programs) => built.push(programs),
            Err(error) => summary.step::<Tally>(&name, || Err(error)),
        }
    }
    built
}

/// Everything that `cargo xtask test` starts, so that one run of apt-get installs it.
fn needs(series: &[String]) -> Vec<Need> {
    let needs: [&[Need]; 7] = [
        &host_packages::PAIR_NEEDS,
        &host_packages::PACKET_NEEDS,
        &host_packages::FIREWALL_NEEDS,
        &host_packages::BROWSER_NEEDS,
        &host_packages::VM_NEEDS,
        &dist::PACK_NEEDS,
        &dist::CHECK_NEEDS,
    ];
    let mut needs: Vec<Need> = needs.into_iter().flatten().copied().collect();
    for architecture in flavour::architectures_of(series) {
        needs.push(emulator::need(architecture));
        needs.extend(cross::needs(architecture));
    }
    needs
}

/// Fetches everything from the network: packages for this machine, a schema, kernels.
fn provide(places: &Places, series: &[String], summary: &Summary) {
    if is_root() {
        let provided = || host_packages::provide(&needs(series), "testing");
        if let Err(error) = summary.timed("packages", "fetch", provided) {
            say(format_args!("{error:#}; continuing without it"));
        }
        // After a failure, the suite that needs them reports what is missing.
        let _later = summary.timed("the judges of OTLP", "fetch", || otlp::collector(places));
    }
    if !series.is_empty() {
        for architecture in flavour::architectures_of(series) {
            let fetched = || Emulator::provide(places, architecture);
            let _later = summary.timed("QEMU", "fetch", fetched);
        }
    }
    for series in series {
        let fetched = || fleet::provide_kernel(places, series);
        // After a failure, the kernel's visit reports that it is unavailable.
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
    programs: Vec<StaticPrograms>,
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
        (false, true) => series::default_series(),
        (false, false) => args.kernel.clone(),
    }
}
