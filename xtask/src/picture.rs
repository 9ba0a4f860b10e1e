//! `cargo xtask picture`: the README's picture, made from a real run of the demo on the running
//! kernel.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{build, command::say, places::Places};

const PICTURE: &str = "docs/demo.svg";
/// Words that the output must contain: a run without a fallback does not show the tool.
const MUST_SHOW: [&str; 3] = ["still-mptcp", "fallback", "explained"];

/// Runs the demo in a terminal, and draws its output into docs/demo.svg.
///
/// `mptcp-trace demo` provokes a real fallback on the running kernel. Needs root, and script(1).
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the demo and draws its output.
pub(crate) fn verb(_nothing: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let tracer = build::loader(&places, true)?;
    // The demo needs a pseudo-terminal, because colours are only for terminals.
    let words = format!("exec '{}' demo", tracer.display());
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &words, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .output()
        .context("cannot run script (Debian: bsdutils)")?;
    let printed = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    if !output.status.success() {
        bail!("the demo failed ({}):\n{printed}", output.status);
    }
    for word in MUST_SHOW {
        ensure!(
            printed.contains(word),
            "the demo did not show {word:?}, so that there is nothing to draw; it printed:\n{printed}"
        );
    }
    let run = format!("$ sudo mptcp-trace demo\n{}", printed.trim_end());
    let picture = anstyle_svg::Term::new().render_svg(&run);
    let path = places.root.join(PICTURE);
    fs::write(&path, picture).with_context(|| format!("cannot write {}", path.display()))?;
    say(format_args!("drew {}", path.display()));
    Ok(ExitCode::SUCCESS)
}
