//! The tarball.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{Looked, documents};
use crate::{architecture::Architecture, command};

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
    let version = &looked.release.version;
    let short = alone(&top, "-V")?;
    if short != format!("mptcp-trace {version}\n") {
        bail!("the program says that it is {short:?}, not version {version}");
    }
    look_at_version(&alone(&top, "--version")?, version)?;
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
    documents::check(&top)
}

/// Runs the program in an otherwise empty tree, which has no loader, no library, and no file to read.
fn alone(top: &Path, option: &str) -> Result<String> {
    let mut alone = Command::new("chroot");
    alone.arg(top.join("bin")).args(["/mptcp-trace", option]);
    command::text(&mut alone, "the program does not run alone")
}

/// The long version must name version, commit, target and layout of the records, a line for each.
fn look_at_version(said: &str, version: &str) -> Result<()> {
    let lines: Vec<&str> = said.lines().collect();
    let wanted = [
        format!("mptcp-trace {version}"),
        "commit: ".to_owned(),
        format!("target: {}", Architecture::X86_64.triple()),
        "BPF ABI: ".to_owned(),
    ];
    let is_right = lines.len() == wanted.len()
        && lines
            .iter()
            .zip(&wanted)
            .all(|(line, start)| line.starts_with(start));
    if !is_right {
        bail!("--version prints {said:?}, not a line for each of {wanted:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_without_commit_or_with_another_target_is_refused() {
        let good = "mptcp-trace 1.2.3\ncommit: abc\ntarget: x86_64-unknown-linux-gnu\nBPF ABI: 6\n";
        look_at_version(good, "1.2.3").unwrap();
        assert!(look_at_version(good, "1.2.4").is_err());
        assert!(look_at_version(&good.replace("commit: abc\n", ""), "1.2.3").is_err());
        assert!(look_at_version(&good.replace("x86_64", "arm64"), "1.2.3").is_err());
    }
}
