//! `cargo xtask bench`: measures the cost of tracing and updates docs/benchmarks.md.

mod criterion;
mod figures;
mod guest;
mod limits;
mod machine;
mod native;
mod page;
mod plot;

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::Result;

use crate::{
    architecture::Architecture,
    build,
    command::{is_root, say},
    places::Places,
};

use figures::Benchmarks;

/// Measures the cost of tracing, and writes the tables and the plot of docs/benchmarks.md.
///
/// Measures wall-clock time on the running kernel (needs root), and instruction counts in virtual
/// machines on four Debian kernels. The figures are kept in docs/benchmarks.json.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench\n  \
    cargo xtask bench --native --quick --check\n  \
    cargo xtask bench --vm --kernel 6.12")]
pub(crate) struct Args {
    /// Only on the running kernel (default: both)
    #[arg(long)]
    native: bool,
    /// Only in virtual machines (default: both)
    #[arg(long)]
    vm: bool,
    /// Run fewer and shorter rounds: a smoke test, the figures are not reliable
    #[arg(long)]
    quick: bool,
    /// Write nothing; fail if a limit is exceeded
    #[arg(long)]
    check: bool,
    /// Measure nothing: write the tables and the plot from docs/benchmarks.json
    #[arg(long, conflicts_with_all = ["native", "vm", "quick", "check", "kernel"])]
    render: bool,
    /// Only these series in virtual machines (default: 6.1 6.12 6.16 7.3)
    #[arg(long, num_args = 1.., value_name = "SERIES", default_values = guest::SERIES)]
    kernel: Vec<String>,
}

/// Measures, then writes the results or checks the limits.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let started = Instant::now();
    let docs = places.root.join("docs");
    let json = docs.join("benchmarks.json");
    if args.render {
        show(&docs, &Benchmarks::read(&json)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (native, vm) = match (args.native, args.vm) {
        (false, false) => (true, true),
        (native, vm) => (native, vm),
    };
    if native && !is_root() {
        anyhow::bail!(
            "measuring on the running kernel needs root; type: sudo cargo xtask bench, or: cargo xtask bench --vm"
        );
    }
    let mut all = if args.check {
        Benchmarks::default()
    } else {
        Benchmarks::read(&json)?
    };
    let programs = build::static_programs(&places, Architecture::HOST)?;
    if native {
        let mut measured = native::measure(&places, args.quick)?;
        let size = native::size("static", &programs.tracer)?;
        measured.binaries.push(size);
        all.native = Some(measured);
    }
    if !args.check {
        // Save each part at once: it took minutes, and a later step may fail.
        all.write(&json)?;
    }
    if vm {
        all.guests = Some(guest::measure(
            Places::find()?,
            programs,
            &args.kernel,
            args.quick,
        )?);
    }
    let limits = limits::limits(&all);
    for limit in &limits {
        let word = if limit.kept { "ok    " } else { "MISSED" };
        println!(
            "{word}  {}: {} ({})",
            limit.what, limit.measured, limit.wanted
        );
    }
    if !args.check {
        all.write(&json)?;
        show(&docs, &all)?;
    }
    say(format_args!("bench: {} s", started.elapsed().as_secs()));
    let missed = args.check && limits.iter().any(|limit| !limit.kept);
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Writes the page and the plot.
fn show(docs: &Path, all: &Benchmarks) -> Result<()> {
    page::update(&docs.join("benchmarks.md"), all)?;
    plot::draw(docs, all)
}
