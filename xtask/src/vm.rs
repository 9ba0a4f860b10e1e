//! `cargo xtask vm`: boots kernels and runs the lab's matrix, or a command, in each.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, StaticPrograms},
    command::say,
    docs_table,
    host_packages::{self, VM_NEEDS},
    initramfs::{self, LAB, TRACER},
    kernels::{self, Kernel},
    matrix::Report,
    places::Places,
    qemu::{Ended, Machine},
    shapes::{self, Must, RUNGS, SHAPES, SOL_TCP},
    sol_tcp,
    tally::Tally,
};

/// Boots each named kernel in QEMU and runs the matrix of the lab in it, or COMMAND.
///
/// Kernels are Debian packages, fetched into the cache and never installed; the virtual machine
/// holds nothing but mptcp-trace and mptcp-lab.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask vm --kernel 6.12\n  \
    cargo xtask vm --kernel 6.1 6.12 7.3 --attach kprobe\n  \
    cargo xtask vm --kernel sol-tcp --update-docs\n  \
    cargo xtask vm --kernel 6.12 -- /bin/mptcp-trace doctor\n\n\
    Series that are part of `cargo xtask test`: 5.10 6.1 6.12 6.16 6.18 7.3; any other that\n\
    Debian packages works too. `sol-tcp` is the kernel that `cargo xtask kernel` builds.")]
pub(crate) struct Args {
    /// Series of kernels to boot, such as 6.12
    #[arg(long, required = true, num_args = 1.., value_name = "SERIES")]
    kernel: Vec<String>,
    #[command(flatten)]
    matrix: MatrixOptions,
    /// Keep the console's log and say where it is
    #[arg(long)]
    keep_log: bool,
    /// Write the results into docs/kernels.md
    #[arg(long)]
    update_docs: bool,
    /// Seconds that the job may take in one virtual machine
    #[arg(long, default_value_t = JOB_TIME_MAX_S, value_name = "SECONDS")]
    timeout_s: u64,
    /// Run this in the virtual machine instead of the matrix
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What to run of the matrix.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct MatrixOptions {
    /// Only these rungs (default: all)
    #[arg(long, num_args = 1.., value_name = "RUNG", value_parser = RUNGS)]
    pub(crate) attach: Vec<String>,
    /// Add the flood: 8 threads that ask as fast as they can
    #[arg(long)]
    pub(crate) flood: bool,
}

/// Software emulation is slow, and a case waits for a tracer to start and to end.
pub(crate) const JOB_TIME_MAX_S: u64 = 900;
/// What the lab's scenarios use where it is a module; what is missing is built in, or not there.
const MODULES: [&str; 6] = [
    "veth",
    "tun",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "mptcp_diag",
];

impl MatrixOptions {
    /// The rungs that were asked for.
    pub(crate) fn rungs(&self) -> Vec<String> {
        if self.attach.is_empty() {
            RUNGS.map(str::to_owned).to_vec()
        } else {
            self.attach.clone()
        }
    }

    /// The lab's command line.
    pub(crate) fn argv(&self, lab: &str, tracer: &str) -> Vec<String> {
        let mut argv = vec![
            lab.to_owned(),
            "matrix".into(),
            "--tracer".into(),
            tracer.to_owned(),
        ];
        for rung in self.rungs() {
            argv.extend(["--attach".into(), rung]);
        }
        if self.flood {
            argv.push("--flood".into());
        }
        argv
    }
}

/// Runs the matrix or a command on every kernel, and goes on when one fails.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let programs = build::static_programs(&places)?;
    let fleet = Fleet::prepare(places, programs, args.keep_log, args.timeout_s)?;
    if !args.command.is_empty() {
        return command_on_all(&fleet, args);
    }
    let mut tally = Tally::default();
    let mut results = Vec::new();
    for series in &args.kernel {
        let result = fleet.matrix(series, &args.matrix);
        tally.add(result.show());
        results.extend(result.for_docs());
    }
    if args.update_docs {
        docs_table::update(&fleet.places.root.join("docs/kernels.md"), &results)?;
    }
    println!("{tally}");
    Ok(tally.exit_code())
}

fn command_on_all(fleet: &Fleet, args: &Args) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for series in &args.kernel {
        let kernel = fleet.kernel(series)?;
        say(format_args!("booting {}", kernel.release));
        let ended = fleet.boot(&kernel, args.command.clone(), |line| println!("{line}"))?;
        match ended.failure() {
            None => {}
            Some(failure) => {
                say(format_args!("{}: {failure}", kernel.release));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// Everything that all virtual machines share.
pub(crate) struct Fleet {
    places: Places,
    programs: StaticPrograms,
    keep_log: bool,
    job_time_max: Duration,
}

/// How a job in a virtual machine ended, and what the console said if it ended badly.
struct Job {
    ended: Ended,
    console_tail: String,
}

impl Job {
    fn failure(&self) -> Option<String> {
        let what = match self.ended {
            Ended::Job(0) => return None,
            Ended::Job(code) => format!("the job exited with code {code}"),
            Ended::Silent => "the machine stopped before its job ended".to_owned(),
            Ended::TimedOut => "the machine was killed at the deadline".to_owned(),
        };
        Some(format!(
            "{what}; the console's last lines:\n{}",
            self.console_tail
        ))
    }
}

/// What one kernel gave.
pub(crate) struct MatrixResult {
    series: String,
    must: Must,
    report: Report,
    took: Duration,
}

impl Fleet {
    /// Provides QEMU.
    pub(crate) fn prepare(
        places: Places,
        programs: StaticPrograms,
        keep_log: bool,
        timeout_s: u64,
    ) -> Result<Self> {
        host_packages::provide(&VM_NEEDS, "booting kernels")?;
        Ok(Self {
            places,
            programs,
            keep_log,
            job_time_max: Duration::from_secs(timeout_s),
        })
    }

    /// Boots one kernel with the matrix as its job. Never an error: a machine that cannot be booted
    /// is a failure in the report, and the next kernel has its turn.
    pub(crate) fn matrix(&self, series: &str, options: &MatrixOptions) -> MatrixResult {
        let started = Instant::now();
        let must = shapes::must(series);
        let mut report = Report::default();
        if let Err(error) = self.fill(series, options, &mut report) {
            report.failures.push(format!("{error:#}"));
        }
        MatrixResult {
            series: series.to_owned(),
            must,
            report,
            took: started.elapsed(),
        }
    }

    fn fill(&self, series: &str, options: &MatrixOptions, report: &mut Report) -> Result<()> {
        let kernel = self.kernel(series)?;
        match shapes::why(series) {
            Some(why) => say(format_args!("booting {} ({why})", kernel.release)),
            None => say(format_args!("booting {}", kernel.release)),
        }
        let job = self.boot(&kernel, options.argv(LAB, TRACER), |line| {
            report.read_line(line);
        })?;
        match job.ended {
            Ended::Job(code @ (0 | 1)) => {
                report.read_exit_code(code);
                report.require(shapes::must(series), &options.rungs());
            }
            Ended::Job(_) | Ended::Silent | Ended::TimedOut => {
                report.failures.extend(job.failure());
            }
        }
        if report
            .kernel
            .as_ref()
            .is_some_and(|said| *said != kernel.release)
        {
            say(format_args!(
                "{} says that it is {:?}",
                kernel.release, report.kernel
            ));
        }
        report.kernel.get_or_insert(kernel.release);
        Ok(())
    }

    fn kernel(&self, series: &str) -> Result<Kernel> {
        if series == SOL_TCP {
            sol_tcp::provide(&self.places)
        } else {
            kernels::provide(&self.places, series)
        }
    }

    fn boot(&self, kernel: &Kernel, argv: Vec<String>, on_line: impl FnMut(&str)) -> Result<Job> {
        let directory = tempfile::Builder::new()
            .prefix("mptcp-trace-vm-")
            .tempdir()
            .context("cannot make a directory for the virtual machine")?;
        let initramfs = directory.path().join("initramfs.cpio");
        let modules = kernel.modules(&MODULES)?;
        initramfs::write(
            &initramfs,
            &self.programs,
            &modules,
            argv,
            self.job_time_max.as_secs(),
        )?;
        let machine = Machine {
            image: &kernel.image,
            initramfs: &initramfs,
            console_log: directory.path().join("console.log"),
            job_time_max: self.job_time_max,
        };
        let ended = machine.boot(on_line);
        if self.keep_log {
            let kept = self.kept_log(&kernel.release)?;
            fs::copy(&machine.console_log, &kept)
                .with_context(|| format!("cannot keep the console's log as {}", kept.display()))?;
            say(format_args!(
                "console of {}: {}",
                kernel.release,
                kept.display()
            ));
        }
        Ok(Job {
            ended: ended?,
            console_tail: machine.console_tail(),
        })
    }

    fn kept_log(&self, release: &str) -> Result<PathBuf> {
        let directory = self.places.target.join("vm");
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(directory.join(format!("{release}.console.log")))
    }
}

impl MatrixResult {
    /// Judges what a kernel said that was not booted by us.
    pub(crate) fn of_report(series: &str, report: Report, took: Duration) -> Self {
        Self {
            series: series.to_owned(),
            must: shapes::must(series),
            report,
            took,
        }
    }

    /// Prints what failed and what was skipped, and one line of counts.
    pub(crate) fn show(&self) -> Tally {
        let tally = self.report.tally(self.must);
        for sentence in self.report.skip_sentences(self.must) {
            say(format_args!("{}: {sentence}", self.series));
        }
        for sentence in self.report.failure_sentences(self.must) {
            println!("FAILED {}: {sentence}", self.series);
        }
        println!("{}: {tally} ({} s)", self.label(), self.took.as_secs());
        tally
    }

    /// Name of the kernel in tables.
    pub(crate) fn label(&self) -> String {
        let release = self.report.kernel.as_deref().unwrap_or("not booted");
        if self.series == shapes::RUNNING {
            format!("{}: {release}", shapes::RUNNING)
        } else if self.report.kernel.is_none() {
            format!("{} ({release})", self.series)
        } else {
            release.to_owned()
        }
    }

    /// What goes into the documentation: nothing for a kernel that gave no result.
    pub(crate) fn for_docs(self) -> Option<(String, Report)> {
        if self.report.cells.is_empty() {
            return None;
        }
        // What stands behind the version names a machine; its page is read on others.
        let label = if self.series == shapes::RUNNING {
            let label = self.label();
            label.split('-').next().unwrap_or_default().to_owned()
        } else {
            self.label()
        };
        Some((label, self.report))
    }
}

/// The series that `cargo xtask test` boots: all that need no compiling.
pub(crate) fn default_series() -> Vec<String> {
    SHAPES
        .iter()
        .filter(|shape| shape.series != SOL_TCP)
        .map(|shape| shape.series.to_owned())
        .collect()
}
