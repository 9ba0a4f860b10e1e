//! The only door for chores. Run `cargo xtask --help` for the list of verbs.

mod apt;
mod bpf;
mod build;
mod check;
mod command;
mod docs_table;
mod host_packages;
mod initramfs;
mod kernels;
mod matrix;
mod places;
mod provision;
mod qemu;
mod run;
mod rust_src;
mod rustc_wrapper;
mod shapes;
mod sol_tcp;
mod tally;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of mptcp-trace: build, run, check, test, boot kernels.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Bpf(bpf::Args),
    Build(build::Args),
    Run(run::Args),
    Check(check::Args),
    Test(test::Args),
    Vm(vm::Args),
    Kernel(sol_tcp::Args),
}

fn main() -> ExitCode {
    if rustc_wrapper::is_requested() {
        return rustc_wrapper::exec();
    }
    let outcome = match Cli::parse().verb {
        Verb::Bpf(args) => bpf::verb(&args),
        Verb::Build(args) => build::verb(&args),
        Verb::Run(args) => run::verb(&args),
        Verb::Check(args) => check::verb(&args),
        Verb::Test(args) => test::verb(&args),
        Verb::Vm(args) => vm::verb(&args),
        Verb::Kernel(args) => sol_tcp::verb(&args),
    };
    outcome.unwrap_or_else(|error| command::report(&error))
}
