//! Command line of the lab. A subcommand fails if it cannot do its work, and says which step failed;
//! a check that does not pass is a result.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    actor, ask, bench, bulk, call_cost, churn, exported, fallbacks, figures, fingerprints,
    flood_asker, floods, init, load, matrix, mix, namespaces, pair, paired, paths, play, probed,
    provoke, recorded,
    report::{MatrixLine, write_line},
    reuse, served, together, verdicts, watched,
};

/// Programs that query the kernel about MPTCP, and checks of mptcp-trace against the answers they
/// got. Needs root: everything happens in separate network namespaces.
#[derive(Parser)]
#[command(name = "mptcp-lab", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// Exit code if the lab could not do its work; 1 is a check that did not pass.
const BROKEN: u8 = 3;

/// The subcommands, each with its arguments and its function: one that judges returns whether every
/// check passed.
macro_rules! verbs {
    ($($(#[$about:meta])* $verb:ident($args:ty) $kind:ident $run:path,)*) => {
        #[derive(Subcommand)]
        enum Verb {
            $($(#[$about])* $verb($args),)*
        }

        impl Verb {
            fn run(&self) -> anyhow::Result<bool> {
                match self {
                    $(Self::$verb(args) => verbs!($kind $run(args)),)*
                }
            }
        }
    };
    (judges $judged:expr) => { $judged };
    (does $done:expr) => { $done.map(|()| true) };
}

verbs! {
    /// One end of a connection, controlled by `provoke`, `fallbacks`, `verdicts` and `mix`
    #[command(hide = true)]
    Actor(actor::Args) does actor::run,
    /// Query sockets of every kind, and record the kernel's answers
    Ask(ask::Args) does ask::run,
    /// Run `ask` under the tracer with each attach method, and compare
    Matrix(matrix::Args) judges matrix::run,
    /// Make connections fall back in every known way, and record the kernel's counters
    Provoke(provoke::Args) judges provoke::run,
    /// Play one recipe or one scenario of `verdicts` by name, to observe it with another tool
    Play(play::Args) judges play::run,
    /// Run `provoke` under the tracer with each attach method, and compare
    Fallbacks(fallbacks::Args) judges fallbacks::run,
    /// Paths of connections that come up, fail and end in every known way, under the tracer with each
    /// attach method: compare its lines with the kernel's counters
    Paths(paths::Args) judges paths::run,
    /// Boxes between client and server take MPTCP out in every known way, under the tracer: compare
    /// what it concludes from the packet that decided with the truth
    Fingerprints(fingerprints::Args) judges fingerprints::run,
    /// Many connections with several paths under the tracer, a third of whose joins fail: each path
    /// must be reported once, with its connection
    ManyPaths(paths::many::Args) judges paths::many::run,
    /// Two paths under the tracer: what the kernel accounts for each just before its end must be in
    /// the line about it
    Ledgers(paths::ledgers::Args) judges paths::ledgers::run,
    /// Healthy connections of two paths under the tracer: the sensor of paths must not run for their
    /// packets, and must write few records
    PathCost(paths::cost::Args) judges paths::cost::run,
    /// Path managers in userspace with and without the tracer: the kernel must behave the same
    PathManagers(paths::managers::Args) judges paths::managers::run,
    /// The server of `many-paths`
    #[command(hide = true)]
    ManyServer(paths::many::app::ServerArgs) does paths::many::app::serve,
    /// A client of `many-paths`
    #[command(hide = true)]
    ManyClient(paths::many::app::ClientArgs) does paths::many::app::make,
    /// Applications that query too early, too late, never or correctly, under the tracer: check its
    /// verdicts
    Verdicts(verdicts::Args) judges verdicts::run,
    /// `matrix`, `fallbacks` and `verdicts` under a single start of the tracer for each attach
    /// method
    Together(together::Args) judges together::run,
    /// Many simultaneous connections under the tracer, half of which fall back: each must be found
    /// once
    Mix(mix::Args) judges mix::run,
    /// Very many short connections under the tracer: none may be mistaken for another one
    Reuse(reuse::Args) judges reuse::run,
    /// Network namespaces created, used and deleted under the tracer: its counts for each must
    /// match the kernel's
    Namespaces(namespaces::Args) judges namespaces::run,
    /// curl and nginx under `mptcpize`, with and without a middlebox, under the tracer
    Pair(pair::Args) judges pair::run,
    /// `mptcp-trace probe` over a chain of five routers, with a box in each of them in turn: it may
    /// never name a wrong hop. No other verb may send a packet
    Probed(probed::Args) judges probed::run,
    /// Hundreds of connections through NAT and boxes, a tracer at each end: `mptcp-trace pair` must
    /// join every one, and judge it right
    Paired(paired::Args) judges paired::run,
    /// The application of `reuse`
    #[command(hide = true)]
    ReuseMaker(reuse::MakerArgs) does reuse::make_connections,
    /// The application of the flood of `matrix` and `together`
    #[command(hide = true)]
    FloodAsker(flood_asker::Args) does flood_asker::run,
    /// Two threads that query as fast as possible, or at a fixed rate, under the tracer: check its
    /// loss accounting
    Floods(floods::Args) judges floods::run,
    /// `mptcp-trace serve` while connections fall back: its metrics, also in a Prometheus, must
    /// match the kernel's counters
    Served(served::Args) judges served::run,
    /// `mptcp-trace top` in a terminal while connections fall back: it must match the kernel's
    /// counters, and restore the terminal
    Watched(watched::Args) judges watched::run,
    /// `mptcp-trace serve --otlp` while connections fall back: the exported data must parse with
    /// OpenTelemetry's schema and match the kernel's counters
    Exported(exported::Args) judges exported::run,
    /// `mptcp-trace serve` for a long time while everything around it comes and goes: it must not
    /// grow, and its counters must be right
    Churn(churn::Args) judges churn::run,
    /// The flight recorder: it must have what a capture beside it has, also after it was killed or
    /// its disk was full, and never more bytes than it may
    Recorded(recorded::Args) judges recorded::run,
    /// Step the clock for a moment, for `churn`
    #[command(hide = true)]
    ClockStep(churn::clock::Args) does churn::clock::run,
    /// The application of `floods` and `rates`
    #[command(hide = true)]
    LoadAsker(load::Args) does load::run,
    /// Nanoseconds per getsockopt call
    BenchAsker(bench::Args) does bench::run,
    /// Cost of a system call under the tracer, by attach method: for a machine that counts
    /// instructions
    CallCost(call_cost::Args) does call_cost::run,
    /// Cost of tracing for a caller, compared with bpftrace
    Figures(figures::Args) does figures::run,
    /// Time from exec until the tracer is live
    StartTime(figures::start::Args) does figures::start::run,
    /// Number of queries per second until one is lost
    Rates(figures::rates::Args) does figures::rates::run,
    /// Memory of the tracer with very many open connections
    Resident(figures::resident::Args) does figures::resident::run,
    /// The application of `resident`
    #[command(hide = true)]
    Holder(figures::resident::HolderArgs) does figures::resident::hold,
    /// Cost of tracing for a bulk transfer, by attach method
    BulkCost(bulk::CostArgs) does bulk::cost,
}

/// Runs the command line; as the init process of a machine, runs its job.
pub fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run(&PathBuf::from("/job.json"));
    }
    match Cli::parse().verb.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("mptcp-lab: {why:#}");
            // In a virtual machine, stderr is lost among the lines of the kernel.
            if !io::stdout().is_terminal() {
                let why = format!("{why:#}");
                // Without a reader, stderr has it.
                let _unread = write_line(&mut io::stdout(), &MatrixLine::Failed { why });
            }
            ExitCode::from(BROKEN)
        }
    }
}
