//! `cargo xtask play NAME`: runs recipes and scenarios of the lab on the running kernel, under the
//! tracer.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::Result;

use crate::{build, command, places::Places, run};

/// Plays recipes and scenarios of the lab under mptcp-trace (through sudo unless root).
///
/// Everything happens in separate network namespaces. Without a name, lists the names. The exit
/// code is that of mptcp-trace.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask play stale\n  \
    cargo xtask play strip-synack healthy -- --json\n  \
    cargo xtask play stale -- --capture stale.mpt")]
pub(crate) struct Args {
    /// Names of recipes and scenarios
    #[arg(value_name = "NAME")]
    names: Vec<OsString>,
    /// Arguments for mptcp-trace
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// Replaces this process with mptcp-trace, which starts the lab.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let lab = build::lab(&places, false)?;
    if args.names.is_empty() {
        command::run(
            Command::new(&lab).arg("play"),
            "cannot list what can be played",
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let tracer = build::loader(&places, false)?;
    let mut words = args.arguments.clone();
    words.extend(["--".into(), lab.into_os_string(), "play".into()]);
    words.extend(args.names.iter().cloned());
    run::become_tracer(&tracer, &words)
}
