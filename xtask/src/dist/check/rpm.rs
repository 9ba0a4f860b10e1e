//! Tests the .rpm with rpm itself.

use std::process::Command;

use anyhow::{Result, bail};

use super::{DOCUMENTS, Looked, debian::Tree, documents};
use crate::command;

/// Reads the package, checks its digests, installs it into a tree, removes it, and compares the
/// tree.
pub(super) fn step(looked: &Looked<'_>) -> Result<()> {
    let rpm = looked.release.rpm();
    let ask = |options: &[&str], purpose: &str| {
        command::text(Command::new("rpm").args(options).arg(&rpm), purpose)
    };
    let about = ask(&["-qip"], "rpm cannot read the .rpm")?;
    for line in [
        "Name        : mptcp-trace",
        &format!("Version     : {}", looked.release.version),
        // The rest is what is linked into the program.
        "License     : (MIT OR Apache-2.0) AND ",
    ] {
        if !about.contains(line) {
            bail!("the .rpm does not say {line:?}:\n{about}");
        }
    }
    let digests = ask(&["-K", "--nosignature"], "the .rpm is not whole")?;
    if !digests.trim_end().ends_with("digests OK") {
        bail!("rpm -K says: {digests}");
    }
    // Any tree with a shell for the scriptlets suffices; no Fedora tree is available here.
    let tree = Tree::fresh(looked)?;
    let rpm_in = |arguments: &[&str], purpose: &str| {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root").arg(tree.root()).args(arguments);
        command::text(&mut rpm, purpose)
    };
    rpm_in(&["--initdb"], "rpm cannot make its tables")?;
    let before = tree.files()?;
    let path = rpm.display().to_string();
    // The tree has a shell, but rpm does not know that: dpkg installed it.
    rpm_in(&["--install", "--nodeps", &path], "cannot install the .rpm")?;
    let listed = rpm_in(
        &["--query", "--list", "mptcp-trace"],
        "rpm does not know the package",
    )?;
    for file in listed.lines() {
        if tree
            .root()
            .join(file.trim_start_matches('/'))
            .symlink_metadata()
            .is_err()
        {
            bail!("the .rpm did not install {file}");
        }
    }
    rpm_in(
        &["--verify", "--nodeps", "mptcp-trace"],
        "rpm --verify finds other files",
    )?;
    documents::check(&tree.root().join(DOCUMENTS))?;
    tree.run(
        &["mptcp-trace", "doctor"],
        "doctor does not work from the .rpm",
    )?;
    rpm_in(&["--erase", "mptcp-trace"], "cannot remove the .rpm")?;
    if rpm_in(&["--query", "mptcp-trace"], "").is_ok() {
        bail!("rpm still lists the package after it was erased");
    }
    tree.is_as_it_was(&before)
}
