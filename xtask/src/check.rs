//! `cargo xtask check`: everything that can be said about the source without running it.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    bpf,
    command::{self, say},
    places::Places,
    provision::CARGO_DENY,
    tally::Tally,
};

/// Checks the source: formatting, clippy on host and BPF crates, the arrows, dependencies.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  cargo xtask check\n\nEvery step runs, also after one that failed; the exit code is 1 if any failed."
)]
pub(crate) struct Args {}

type Step = fn(&Places) -> Result<()>;

/// Steps by name, in the order of how fast they fail.
const STEPS: [(&str, Step); 5] = [
    ("rustfmt", format),
    ("clippy on the host crates", clippy),
    ("clippy on the BPF crate", bpf::clippy),
    ("arrows between the modules", arrows),
    ("licences, bans and sources of dependencies", dependencies),
];

/// Runs every step.
pub(crate) fn verb(_args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let mut tally = Tally::default();
    let mut lines = Vec::new();
    for (name, step) in STEPS {
        say(format_args!("check: {name}"));
        let outcome = step(&places);
        tally.add(Tally::of(outcome.is_ok()));
        lines.push(match outcome {
            Ok(()) => format!("ok      {name}"),
            Err(error) => {
                command::report(&error);
                format!("FAILED  {name}")
            }
        });
    }
    println!("{}", lines.join("\n"));
    println!("{tally}");
    Ok(tally.exit_code())
}

fn format(places: &Places) -> Result<()> {
    let mut cargo = command::cargo(&places.root);
    command::run(
        cargo.args(["fmt", "--all", "--check"]),
        "formatting; type: cargo fmt --all",
    )
}

fn clippy(places: &Places) -> Result<()> {
    let mut cargo = command::cargo(&places.root);
    cargo.args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]);
    command::run(&mut cargo, "clippy on the host crates")
}

fn arrows(places: &Places) -> Result<()> {
    let mut cargo = command::cargo(&places.root);
    cargo.args([
        "test",
        "--quiet",
        "--package",
        "mptcp-trace",
        "--test",
        "arrows",
    ]);
    command::run(&mut cargo, "a module imports what it must not know")
}

fn dependencies(places: &Places) -> Result<()> {
    let mut deny = Command::new(CARGO_DENY.provide(places)?);
    deny.current_dir(&places.root)
        .args(["check", "licenses", "bans", "sources"]);
    command::run(&mut deny, "a dependency breaks a rule of deny.toml")
}
