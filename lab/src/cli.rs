//! Command line of the lab. A subcommand fails if it cannot do its work, and says which step failed;
//! a check that does not pass is a result.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    actor, ask, bench, bulk, call_cost, churn, exported, fallbacks, figures, flood, floods, init,
    load, matrix, mix, namespaces, pair, play, provoke, reuse, served, together, verdicts, watched,
};

/// Programs that query the kernel about MPTCP, and checks of mptcp-trace against the answers they
/// got. Needs root: everything happens in separate network namespaces.
#[derive(Parser)]
#[command(name = "mptcp-lab", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// One end of a connection, controlled by `provoke`, `fallbacks`, `verdicts` and `mix`
    #[command(hide = true)]
    Actor(actor::Args),
    /// Query sockets of every kind, and record the kernel's answers
    Ask(ask::Args),
    /// Run `ask` under the tracer with each attach method, and compare
    Matrix(matrix::Args),
    /// Make connections fall back in every known way, and record the kernel's counters
    Provoke(provoke::Args),
    /// Play one recipe or one scenario of `verdicts` by name, to observe it with another tool
    Play(play::Args),
    /// Run `provoke` under the tracer with each attach method, and compare
    Fallbacks(fallbacks::Args),
    /// Applications that query too early, too late, never or correctly, under the tracer: check its
    /// verdicts
    Verdicts(verdicts::Args),
    /// `matrix`, `fallbacks` and `verdicts` under a single start of the tracer for each attach
    /// method
    Together(together::Args),
    /// Many simultaneous connections under the tracer, half of which fall back: each must be found
    /// once
    Mix(mix::Args),
    /// Very many short connections under the tracer: none may be mistaken for another one
    Reuse(reuse::Args),
    /// Network namespaces created, used and deleted under the tracer: its counts for each must
    /// match the kernel's
    Namespaces(namespaces::Args),
    /// curl and nginx under `mptcpize`, with and without a middlebox, under the tracer
    Pair(pair::Args),
    /// The application of `reuse`
    #[command(hide = true)]
    ReuseMaker(reuse::MakerArgs),
    /// The application of the flood of `matrix` and `together`
    #[command(hide = true)]
    FloodAsker(flood::asker::Args),
    /// Two threads that query as fast as possible, or at a fixed rate, under the tracer: check its
    /// loss accounting
    Floods(floods::Args),
    /// `mptcp-trace serve` while connections fall back: its metrics, also in a Prometheus, must
    /// match the kernel's counters
    Served(served::Args),
    /// `mptcp-trace top` in a terminal while connections fall back: it must match the kernel's
    /// counters, and restore the terminal
    Watched(watched::Args),
    /// `mptcp-trace serve --otlp` while connections fall back: the exported data must parse with
    /// OpenTelemetry's schema and match the kernel's counters
    Exported(exported::Args),
    /// `mptcp-trace serve` for a long time while everything around it comes and goes: it must not
    /// grow, and its counters must be right
    Churn(churn::Args),
    /// Step the clock for a moment, for `churn`
    #[command(hide = true)]
    ClockStep(churn::clock::Args),
    /// The application of `floods` and `rates`
    #[command(hide = true)]
    LoadAsker(load::Args),
    /// Nanoseconds per getsockopt call
    BenchAsker(bench::Args),
    /// Cost of a system call under the tracer, by attach method: for a machine that counts
    /// instructions
    CallCost(call_cost::Args),
    /// Cost of tracing for a caller, compared with bpftrace
    Figures(figures::Args),
    /// Time from exec until the tracer is live
    StartTime(figures::start::Args),
    /// Number of queries per second until one is lost
    Rates(figures::rates::Args),
    /// Memory of the tracer with very many open connections
    Resident(figures::resident::Args),
    /// The application of `resident`
    #[command(hide = true)]
    Holder(figures::resident::HolderArgs),
    /// Cost of tracing for a bulk transfer, by attach method
    BulkCost(bulk::CostArgs),
}

/// Runs the command line; as the init process of a machine, runs its job.
pub fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run(&PathBuf::from("/job.json"));
    }
    let done = match Cli::parse().verb {
        Verb::Actor(args) => actor::run(&args).map(|()| true),
        Verb::Ask(args) => ask::run(&args).map(|()| true),
        Verb::Matrix(args) => matrix::run(&args),
        Verb::Provoke(args) => provoke::run(&args),
        Verb::Play(args) => play::run(&args),
        Verb::Fallbacks(args) => fallbacks::run(&args),
        Verb::Verdicts(args) => verdicts::run(&args),
        Verb::Together(args) => together::run(&args),
        Verb::Mix(args) => mix::run(&args),
        Verb::Reuse(args) => reuse::run(&args),
        Verb::Namespaces(args) => namespaces::run(&args),
        Verb::Pair(args) => pair::run(&args),
        Verb::ReuseMaker(args) => reuse::make_connections(&args).map(|()| true),
        Verb::FloodAsker(args) => flood::asker::run(&args).map(|()| true),
        Verb::BenchAsker(args) => bench::run(&args).map(|()| true),
        Verb::CallCost(args) => call_cost::run(&args).map(|()| true),
        Verb::Figures(args) => figures::run(&args).map(|()| true),
        Verb::Floods(args) => floods::run(&args),
        Verb::Served(args) => served::run(&args),
        Verb::Watched(args) => watched::run(&args),
        Verb::Exported(args) => exported::run(&args),
        Verb::Churn(args) => churn::run(&args),
        Verb::ClockStep(args) => churn::clock::run(&args).map(|()| true),
        Verb::LoadAsker(args) => load::run(&args).map(|()| true),
        Verb::StartTime(args) => figures::start::run(&args).map(|()| true),
        Verb::Rates(args) => figures::rates::run(&args).map(|()| true),
        Verb::Holder(args) => figures::resident::hold(&args).map(|()| true),
        Verb::Resident(args) => figures::resident::run(&args).map(|()| true),
        Verb::BulkCost(args) => bulk::cost(&args).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("mptcp-lab: {why:#}");
            ExitCode::FAILURE
        }
    }
}
