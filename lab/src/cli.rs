//! The command line of the lab's program.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    actor, ask, bench, bulk, call_cost, churn, exported, fallbacks, figures, flood, floods, init,
    lean, load, matrix, mix, namespaces, pair, play, provoke, reuse, served, together, verdicts,
    watched,
};

/// Programs that ask the kernel about MPTCP, and the comparison of what they were told with what
/// mptcp-trace says that they were told. Needs root: everything happens in network namespaces of its own.
#[derive(Parser)]
#[command(name = "mptcp-lab", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// One end of a connection, told what to do by `provoke`, `fallbacks`, `verdicts` and `mix`
    #[command(hide = true)]
    Actor(actor::Args),
    /// Ask about sockets of every kind, and write down what the kernel said
    Ask(ask::Args),
    /// Run `ask` under the tracer on each rung and compare
    Matrix(matrix::Args),
    /// Make connections fall back in every known way, and write down what the kernel counted
    Provoke(provoke::Args),
    /// Play one of them, or one of `verdicts`, by its name: to be looked at with a tool of your own
    Play(play::Args),
    /// Run `provoke` under the tracer on each rung and compare
    Fallbacks(fallbacks::Args),
    /// Applications that ask too early, too late, never or right, under the tracer: what it concludes of each
    Verdicts(verdicts::Args),
    /// `matrix`, `fallbacks` and `verdicts` under one start of the tracer on each rung
    Together(together::Args),
    /// Many connections at once under the tracer, half of which fall back: each is found once
    Mix(mix::Args),
    /// Very many short connections under the tracer: none is taken for another one
    Reuse(reuse::Args),
    /// Network namespaces that are made, used and deleted under the tracer: its account of each is the kernel's
    Namespaces(namespaces::Args),
    /// curl and nginx under `mptcpize`, with and without a middlebox, under the tracer
    Pair(pair::Args),
    /// The application of `reuse`
    #[command(hide = true)]
    ReuseMaker(reuse::MakerArgs),
    /// Many threads that ask as fast as they can, under the tracer: nothing lost, doubled or mixed up
    Flood(flood::Args),
    /// The application of `flood`
    FloodAsker(flood::asker::Args),
    /// Two threads that ask as fast as they can, or at a rate, under the tracer: what must hold then
    Floods(floods::Args),
    /// `mptcp-trace serve` while connections fall back: what it exports, also to a Prometheus, is what the kernel counted
    Served(served::Args),
    /// `mptcp-trace top` in a terminal while connections fall back: it shows what the kernel counted, and leaves the terminal as it was
    Watched(watched::Args),
    /// `mptcp-trace serve --otlp` while connections fall back: what OpenTelemetry's own schema reads is what the kernel counted
    Exported(exported::Args),
    /// `mptcp-trace serve`, left on while everything around it comes and goes: it does not grow, and its counters are right
    Churn(churn::Args),
    /// Set the clock wrong for a moment, for `churn`
    #[command(hide = true)]
    ClockStep(churn::clock::Args),
    /// The application of `floods` and `rates`
    #[command(hide = true)]
    LoadAsker(load::Args),
    /// Run a program as an ordinary user with few capabilities
    #[command(hide = true)]
    Lean(lean::Args),
    /// Nanoseconds that one getsockopt takes
    BenchAsker(bench::Args),
    /// What a system call costs beside the tracer, rung by rung: for a machine that counts instructions
    CallCost(call_cost::Args),
    /// What tracing costs a caller, next to bpftrace
    Figures(figures::Args),
    /// From exec until the tracer is live
    StartTime(figures::start::Args),
    /// How many questions a second until one is lost
    Rates(figures::rates::Args),
    /// The tracer's memory with very many open connections
    Resident(figures::resident::Args),
    /// The application of `resident`
    #[command(hide = true)]
    Holder(figures::resident::HolderArgs),
    /// A bulk transfer over MPTCP: how fast it is
    Bulk(bulk::Args),
    /// What tracing costs a bulk transfer, rung by rung
    BulkCost(bulk::CostArgs),
}

/// Runs it; as the first process of a machine, does its job.
#[must_use]
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
        Verb::Flood(args) => flood::run(&args),
        Verb::FloodAsker(args) => flood::asker::run(&args).map(|()| true),
        Verb::Lean(args) => lean::run(&args).map(|()| true),
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
        Verb::Bulk(args) => bulk::run(&args).map(|()| true),
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
