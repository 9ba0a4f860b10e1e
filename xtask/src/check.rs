//! `cargo xtask check`: all checks of the source that do not run it.

use std::{
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    bpf,
    command::{self, say},
    places::Places,
    provision::CARGO_DENY,
    tally::Tally,
};

/// Checks the source: formatting, clippy on host and BPF crates, the arrows, lock files,
/// dependencies.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  cargo xtask check\n\nEvery step runs, also after one that failed; the exit code is 1 if any failed."
)]
pub(crate) struct Args {}

type Step = fn(&Places) -> Result<()>;

/// Two lanes of named steps that run side by side: each step uses one processor most of the time.
const LANES: [&[(&str, Step)]; 2] = [
    &[
        ("rustfmt", format),
        ("nothing is left of a merge", conflicts),
        ("clippy on the host crates", clippy),
        ("arrows between the modules", arrows),
    ],
    &[
        ("lock files", locks),
        ("licences, bans and sources of dependencies", dependencies),
        ("clippy on the BPF crates", bpf::clippy),
    ],
];

/// Runs every step.
pub(crate) fn verb(_args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let outcomes: Vec<(&str, Duration, Result<()>)> = thread::scope(|scope| {
        let lanes = LANES.map(|lane| scope.spawn(|| run_lane(lane, &places)));
        lanes
            .into_iter()
            .flat_map(|lane| {
                let panicked =
                    |_panic| vec![("a lane", Duration::ZERO, Err(anyhow!("it panicked")))];
                lane.join().unwrap_or_else(panicked)
            })
            .collect()
    });
    let mut tally = Tally::default();
    for (name, took, outcome) in outcomes {
        tally.add(Tally::of(outcome.is_ok()));
        let took = took.as_secs();
        match outcome {
            Ok(()) => println!("ok      {name} ({took} s)"),
            Err(error) => {
                command::report(&error);
                println!("FAILED  {name} ({took} s)");
            }
        }
    }
    println!("{tally}");
    Ok(tally.exit_code())
}

fn run_lane(
    lane: &'static [(&str, Step)],
    places: &Places,
) -> Vec<(&'static str, Duration, Result<()>)> {
    lane.iter()
        .map(|(name, step)| {
            say(format_args!("check: {name}"));
            let since = Instant::now();
            let outcome = step(places);
            (*name, since.elapsed(), outcome)
        })
        .collect()
}

fn format(places: &Places) -> Result<()> {
    let mut cargo = command::cargo(&places.root);
    command::run(
        cargo.args(["fmt", "--all", "--check"]),
        "formatting; type: cargo fmt --all",
    )
}

/// Finds merge conflict markers; no compiler reports them in a document.
fn conflicts(places: &Places) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(&places.root)
        .args(["grep", "--line-number", "-E", "^(<{7}|>{7}) "]);
    let output = git.output().context("cannot run git")?;
    match output.status.code() {
        // Exit code 1: no match.
        Some(1) => Ok(()),
        Some(0) => bail!(
            "unresolved merge conflicts:\n{}",
            String::from_utf8_lossy(&output.stdout).trim_end()
        ),
        _ => bail!(
            "git grep {}: {}",
            command::describe(output.status),
            String::from_utf8_lossy(&output.stderr).trim_end()
        ),
    }
}

/// The fuzz targets have a lock file of their own, which nothing else reads.
fn locks(places: &Places) -> Result<()> {
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let mut cargo = command::cargo(&places.root);
        cargo.args(["metadata", "--locked", "--format-version", "1"]);
        cargo
            .args(["--manifest-path", manifest])
            .stdout(Stdio::null());
        let advice = format!(
            "the lock file of {manifest} is stale; type: cargo metadata --manifest-path {manifest} \
             > /dev/null"
        );
        command::run(&mut cargo, &advice)?;
    }
    Ok(())
}

fn clippy(places: &Places) -> Result<()> {
    let mut cargo = command::cargo(&places.root);
    cargo.args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]);
    command::run(&mut cargo, "clippy on the host crates")
}

fn arrows(places: &Places) -> Result<()> {
    let mut cargo = command::cargo(&places.root);
    // Build for all members, as `cargo test` does: for one package alone, cargo would rebuild the
    // dependencies.
    cargo.args(["test", "--quiet", "--test", "arrows"]);
    command::run(&mut cargo, "a module imports what it must not know")
}

fn dependencies(places: &Places) -> Result<()> {
    let mut deny = Command::new(CARGO_DENY.provide(places)?);
    deny.current_dir(&places.root)
        .args(["check", "licenses", "bans", "sources"]);
    command::run(&mut deny, "a dependency breaks a rule of deny.toml")
}
