//! `cargo xtask run -- ARGS`: builds as the current user, then runs with the privileges that
//! tracing needs.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    command::{self, is_root},
    places::Places,
};

/// Builds mptcp-trace, then runs it with privileges (through sudo unless root).
///
/// The exit code is that of mptcp-trace.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask run -- --pid 4312\n  \
    cargo xtask run -- --json --duration 10s\n  \
    cargo xtask run --release -- doctor")]
pub(crate) struct Args {
    /// Build with optimisations
    #[arg(long)]
    release: bool,
    /// Arguments for mptcp-trace
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// Builds mptcp-trace and replaces this process with it.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let program = build::loader(&Places::find()?, args.release)?;
    become_tracer(&program, &args.arguments)
}

/// Replaces this process with mptcp-trace, with the needed privileges: signals and exit code are
/// then its own.
pub(crate) fn become_tracer(program: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    let mut tracer = if is_root() {
        Command::new(program)
    } else if let Some(sudo) = command::find_program("sudo") {
        command::say("tracing needs privileges: running mptcp-trace through sudo");
        let mut tracer = Command::new(sudo);
        tracer.arg("--").arg(program);
        tracer
    } else {
        let words = std::iter::once(program.as_os_str())
            .chain(arguments.iter().map(OsString::as_os_str))
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ");
        bail!(
            "cannot run mptcp-trace with privileges: this is not root and there is no sudo; \
             as root, type: {words}"
        );
    };
    let error = tracer.args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
