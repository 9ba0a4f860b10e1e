//! Checks the installed systemd unit with systemd's own tools.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Looked, silent};
use crate::command;

const UNIT: &str = "mptcp-trace.service";
/// Maximum exposure score of `systemd-analyze security`: 0 is best, 10 worst. docs/install.md
/// explains what contributes to it.
const EXPOSURE_MAX: f64 = 2.5;

/// Checks the unit in this tree, which contains the program and its pages.
pub(super) fn check(looked: &Looked<'_>, root: &Path) -> Result<()> {
    let mut verify = Command::new("systemd-analyze");
    verify
        .arg(format!("--root={}", root.display()))
        .args(["verify", UNIT])
        // systemd-analyze looks up the man pages that the unit names.
        .env("MANPATH", root.join("usr/share/man"));
    silent(&mut verify, "systemd-analyze verify")?;
    let exposure = exposure(root)?;
    if exposure > EXPOSURE_MAX {
        bail!("systemd-analyze security gives {UNIT} {exposure}, of at most {EXPOSURE_MAX}");
    }
    let page = std::fs::read_to_string(looked.places.root.join("docs/install.md"))
        .context("cannot read docs/install.md")?;
    let stated = format!("exposure level of {exposure:.1}");
    if !page.contains(&stated) {
        bail!("docs/install.md does not state the unit's score: {stated:?}");
    }
    Ok(())
}

/// The overall score, parsed from the last line: `Overall exposure level for UNIT: 1.9 OK`.
fn exposure(root: &Path) -> Result<f64> {
    let mut ask = Command::new("systemd-analyze");
    ask.args(["--offline=true", "--no-pager"])
        .arg(format!("--root={}", root.display()))
        .args(["security", UNIT])
        .env("LC_ALL", "C.UTF-8");
    let said = command::text(&mut ask, "systemd-analyze security")?;
    overall(&said).ok_or_else(|| anyhow!("systemd-analyze security prints no score:\n{said}"))
}

fn overall(said: &str) -> Option<f64> {
    let (_, score) = said.split_once("Overall exposure level for ")?;
    let (_, score) = score.split_once(": ")?;
    score.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_found_in_what_is_printed() {
        let said =
            "  NAME  EXPOSURE\n\n→ Overall exposure level for mptcp-trace.service: 1.9 OK :-)\n";
        assert_eq!(overall(said), Some(1.9));
        assert_eq!(overall("nothing of the kind"), None);
    }
}
