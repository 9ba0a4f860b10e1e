//! `cargo xtask vm`: boots kernels, and runs the lab's suites or a command in each.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail};

use crate::{
    architecture::Architecture,
    build::{self, StaticPrograms},
    command::say,
    docs_table, flavour,
    fleet::{Fleet, JOB_TIME_MAX_S, Work},
    kernels::Found,
    places::Places,
    qemu::Said,
    series::{self, Must},
    suite::RUNGS,
    suite::{Suite, Task},
    tally::Tally,
};

/// Boots each named kernel in QEMU and runs the lab's suites in it, or COMMAND.
///
/// Kernels are Debian packages, fetched into the cache and never installed; the virtual machine
/// contains only mptcp-trace and mptcp-lab.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask vm --kernel 6.12\n  \
    cargo xtask vm --kernel 6.12 6.12-oldest --fallbacks\n  \
    cargo xtask vm --kernel 6.1 --verdicts --attach fexit\n  \
    cargo xtask vm --kernel 6.1 6.12 7.3 --queries --attach kprobe\n  \
    cargo xtask vm --kernel 6.12-arm64 7.3-arm64-16k 6.12-rt\n  \
    cargo xtask vm --kernel rhel llvm\n  \
    cargo xtask vm --kernel 6.12 -- /bin/mptcp-trace doctor\n\n\
    A series that Debian packages, such as 6.12, means its newest kernel; 6.12-oldest the oldest\n\
    that the archive still has. A flavour may follow: generic, rt, arm64, arm64-generic, arm64-16k,\n\
    arm64-rt. sol-tcp, rhel, no-btf and llvm are the kernels that `cargo xtask kernel` builds.\n\
    Part of `cargo xtask test`: 5.10 6.1 6.12-oldest 6.12 6.16 6.17 6.18 6.19 7.1 7.2 7.3\n\
    6.12-generic 6.12-rt 6.12-arm64 6.1-arm64 6.12-arm64-16k 7.3-arm64.")]
pub(crate) struct Args {
    /// Series of kernels to boot, such as 6.12 or 6.12-oldest
    #[arg(long, required = true, num_args = 1.., value_name = "SERIES")]
    kernel: Vec<String>,
    /// Only the queries, on sockets of every kind (default: all four suites)
    #[arg(long)]
    queries: bool,
    /// Only the fallbacks: connections fall back to TCP in every possible way (default: all four)
    #[arg(long)]
    fallbacks: bool,
    /// Only the verdicts: applications ask too early, too late, never or right (default: all four)
    #[arg(long)]
    verdicts: bool,
    /// Only the paths: paths of connections come up, fail and end in every possible way (default: all
    /// four)
    #[arg(long)]
    paths: bool,
    /// Only these attach methods (default: all)
    #[arg(long, num_args = 1.., value_name = "RUNG", value_parser = RUNGS)]
    attach: Vec<String>,
    /// Add the flood to the queries: 8 threads that query as fast as they can
    #[arg(long)]
    flood: bool,
    /// Keep the console's log and print its path
    #[arg(long)]
    keep_log: bool,
    /// Write the results into docs/kernels.md
    #[arg(long)]
    update_docs: bool,
    /// Time limit for a suite, or COMMAND, in one virtual machine, in seconds
    #[arg(long, default_value_t = JOB_TIME_MAX_S, value_name = "SECONDS")]
    timeout_s: u64,
    /// Use one processor on which each instruction takes one nanosecond: measurements inside are
    /// repeatable
    #[arg(long)]
    icount: bool,
    /// More parameters for the kernel, such as lockdown=confidentiality
    #[arg(long, default_value = "", value_name = "PARAMETERS")]
    append: String,
    /// Use this static mptcp-trace instead of building one
    #[arg(long, value_name = "PATH", requires = "lab")]
    tracer: Option<PathBuf>,
    /// Use this static mptcp-lab instead of building one
    #[arg(long, value_name = "PATH", requires = "tracer")]
    lab: Option<PathBuf>,
    /// Run this in the virtual machine instead of the suites
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the suites or a command on every kernel, and continues after a failure.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let page = places.root.join("docs/kernels.md");
    let programs = match (&args.tracer, &args.lab) {
        (Some(tracer), Some(lab)) => given(&args.kernel, tracer, lab)?,
        (None, _) | (_, None) => build::for_kernels(&places, &args.kernel)?
            .into_iter()
            .map(|programs| programs.with_go(&places))
            .collect(),
    };
    let mut fleet = Fleet::prepare(places, programs, args.keep_log, args.timeout_s)?;
    if args.icount {
        fleet = fleet.counting_instructions();
    }
    let fleet = fleet.appending(&args.append);
    if !args.command.is_empty() {
        return command_on_all(&fleet, args);
    }
    let work: Vec<(String, Work)> = args
        .kernel
        .iter()
        .map(|series| (series.clone(), Work::Tasks(args.tasks(series))))
        .collect();
    let mut tally = Tally::default();
    let mut outcomes = Vec::new();
    for result in fleet.results(&work) {
        tally.add(result.tally());
        outcomes.extend(result.for_docs());
    }
    if args.update_docs {
        docs_table::update(&page, &outcomes, &[])?;
    }
    println!("{tally}");
    Ok(tally.exit_code())
}

impl Args {
    fn tasks(&self, series: &str) -> Vec<Task> {
        let named: Vec<Suite> = [
            (self.queries, Suite::Queries),
            (self.fallbacks, Suite::Fallbacks),
            (self.verdicts, Suite::Verdicts),
            (self.paths, Suite::Paths),
        ]
        .into_iter()
        .filter_map(|(is_named, suite)| is_named.then_some(suite))
        .collect();
        let suites = match named.as_slice() {
            // Without MPTCP there are no fallbacks.
            [] if series::must(series) == Must::Refuse => &[Suite::Queries][..],
            [] => &[
                Suite::Queries,
                Suite::Fallbacks,
                Suite::Verdicts,
                Suite::Paths,
            ],
            named => named,
        };
        let task = |&suite: &Suite| {
            let mut task = Task::new(suite, &self.attach);
            if self.flood && suite == Suite::Queries {
                task = task.flooded();
            }
            if series::is_v4_only(series) {
                task = task.of_family("v4");
            }
            task
        };
        suites.iter().map(task).collect()
    }
}

/// Programs that were built elsewhere, for kernels of one architecture.
fn given(kernels: &[String], tracer: &Path, lab: &Path) -> Result<Vec<StaticPrograms>> {
    let mut architectures = kernels
        .iter()
        .map(|kernel| flavour::architecture_of(kernel));
    let first = architectures.next().unwrap_or(Architecture::HOST);
    if architectures.any(|other| other != first) {
        bail!("--tracer and --lab are programs of one architecture; name only kernels of it");
    }
    Ok(vec![StaticPrograms::given(first, tracer, lab)])
}

fn command_on_all(fleet: &Fleet, args: &Args) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for series in &args.kernel {
        let kernel = match fleet.kernel(series)? {
            Found::Kernel(kernel) => kernel,
            Found::Gone(why) => bail!("{series}: {why}"),
        };
        say(format_args!("booting {}", kernel.release));
        let ended = fleet.boot(&kernel, vec![args.command.clone()], |said| match said {
            Said::Line(line) => println!("{line}"),
            Said::Ready | Said::Ended(_) | Said::Exit(_) => {}
        })?;
        if let Some(failure) = ended.failure() {
            say(format_args!("{}: {failure}", kernel.release));
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
