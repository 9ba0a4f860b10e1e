//! Runs the project's chores. `cargo xtask --help` lists the verbs.

mod apt;
mod architecture;
mod bench;
mod bpf;
mod btf;
mod build;
mod captures;
mod check;
mod cli;
mod command;
mod compiled;
mod cross;
mod dist;
mod docs_table;
mod emulator;
mod flavour;
mod fleet;
mod fuzz;
mod golang;
mod host_packages;
mod initramfs;
mod kernels;
mod kubernetes;
mod markers;
mod matrix;
mod otlp;
mod permits;
mod picture;
mod places;
mod play;
mod provision;
mod python;
mod qemu;
mod release;
mod report;
mod result;
mod run;
mod rust_src;
mod rustc_wrapper;
mod series;
mod signature;
mod skips;
mod static_programs;
mod step;
mod suite;
mod tally;
mod test;
mod times;
mod vm;

use std::process::ExitCode;

fn main() -> ExitCode {
    if rustc_wrapper::is_requested() {
        return rustc_wrapper::exec();
    }
    cli::dispatch().unwrap_or_else(|error| command::report(&error))
}
