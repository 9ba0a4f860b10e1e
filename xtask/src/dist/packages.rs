//! .deb and .rpm, by the tools that cargo has for them. What goes where is said in mptcp-trace/Cargo.toml,
//! under `package.metadata`.

use std::process::Command;

use anyhow::Result;

use super::Release;
use crate::{
    build::STATIC_TARGET,
    command::{self, say},
    places::Places,
    provision::{CARGO_DEB, CARGO_GENERATE_RPM},
};

/// Makes the .deb.
pub(super) fn deb(places: &Places, release: &Release) -> Result<()> {
    say("packing the .deb");
    let mut tool = Command::new(CARGO_DEB.provide(places)?);
    tool.args(["--package", "mptcp-trace", "--target", STATIC_TARGET])
        .args(["--no-build", "--no-strip", "--locked", "--output"])
        .arg(release.deb());
    run(tool, places, release, "cannot pack the .deb")
}

/// Makes the .rpm.
pub(super) fn rpm(places: &Places, release: &Release) -> Result<()> {
    say("packing the .rpm");
    let mut tool = Command::new(CARGO_GENERATE_RPM.provide(places)?);
    tool.args(["generate-rpm", "--package", "mptcp-trace"])
        .args(["--target", STATIC_TARGET, "--target-dir"])
        .arg(&release.target)
        // Static: there is no library to require, and nothing on this machine to ask.
        .args(["--auto-req", "no", "--output"])
        .arg(release.rpm());
    run(tool, places, release, "cannot pack the .rpm")
}

fn run(mut tool: Command, places: &Places, release: &Release, purpose: &str) -> Result<()> {
    tool.current_dir(&places.root)
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .env("CARGO_TARGET_DIR", &release.target);
    command::output(&mut tool, purpose)?;
    Ok(())
}
