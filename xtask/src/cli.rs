//! The verbs. Each verb's own options are in its own file.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    bench, bpf, btf, build, captures, check, compiled, dist, fuzz, picture, play, report, run,
    test, vm,
};

/// Chores of mptcp-trace: build, run, check, test, boot kernels.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Bpf(bpf::Args),
    Build(build::Args),
    Run(run::Args),
    Play(play::Args),
    Picture(picture::Args),
    Report(report::Args),
    Check(check::Args),
    Test(test::Args),
    Vm(vm::Args),
    Fuzz(fuzz::Args),
    Bench(bench::Args),
    Dist(dist::Args),
    Captures(captures::Args),
    Btf(btf::Args),
    Kernel(compiled::Args),
}

/// Parses the command line and runs the verb.
pub(crate) fn dispatch() -> Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Bpf(args) => bpf::verb(&args),
        Verb::Build(args) => build::verb(&args),
        Verb::Run(args) => run::verb(&args),
        Verb::Play(args) => play::verb(&args),
        Verb::Picture(args) => picture::verb(&args),
        Verb::Report(args) => report::verb(&args),
        Verb::Check(args) => check::verb(&args),
        Verb::Test(args) => test::verb(&args),
        Verb::Vm(args) => vm::verb(&args),
        Verb::Fuzz(args) => fuzz::verb(&args),
        Verb::Bench(args) => bench::verb(&args),
        Verb::Dist(args) => dist::verb(&args),
        Verb::Captures(args) => captures::verb(&args),
        Verb::Btf(args) => btf::verb(&args),
        Verb::Kernel(args) => compiled::verb(&args),
    }
}
