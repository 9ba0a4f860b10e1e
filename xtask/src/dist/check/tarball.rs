//! The tarball.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use super::Looked;
use crate::command;

/// Checks that the program in the tarball runs without libraries and equals the released one.
pub(super) fn step(looked: &Looked<'_>) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder to unpack in")?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf")
        .arg(looked.release.tarball())
        .arg("-C")
        .arg(folder.path());
    command::output(&mut tar, "cannot unpack the tarball")?;
    let top = folder.path().join(looked.release.program_name());
    let program = top.join("bin/mptcp-trace");
    let read =
        |path: PathBuf| fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    if read(program.clone())? != read(looked.release.out.join(looked.release.program_name()))? {
        bail!("the tarball holds another program than the release");
    }
    // An otherwise empty tree has no loader, no library, and no file to read.
    let mut alone = Command::new("chroot");
    alone
        .arg(top.join("bin"))
        .args(["/mptcp-trace", "--version"]);
    let said = command::text(&mut alone, "the program does not run alone")?;
    let want = format!("mptcp-trace {}\n", looked.release.version);
    if said != want {
        bail!("the program says that it is {said:?}, not {want:?}");
    }
    for file in [
        "README.md",
        "LICENSE-MIT",
        "sbom.cdx.json",
        "man/mptcp-trace.1",
    ] {
        if !top.join(file).is_file() {
            bail!("the tarball has no {file}");
        }
    }
    Ok(())
}
