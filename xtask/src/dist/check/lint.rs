//! What the distributions' own checkers say about the packages. Overrides are in
//! contrib/debian/mptcp-trace.lintian-overrides, which the .deb contains, and in contrib/rpm, each
//! with its reason.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::{Looked, Step};
use crate::command;

/// Name, program and step of each checker.
pub(super) const STEPS: [(&str, &str, Step); 2] = [
    (
        "lintian finds neither error nor warning in the .deb",
        "lintian",
        lintian,
    ),
    (
        "rpmlint finds neither error nor warning in the .rpm",
        "rpmlint",
        rpmlint,
    ),
];

/// The line of a step whose checker is missing. It is not installed for the check: lintian alone
/// brings more than a hundred other packages.
pub(super) fn skipped(name: &str, program: &str) -> Option<String> {
    command::find_program(program)
        .is_none()
        .then(|| format!("skipped: {program} is not installed ({name})"))
}

fn lintian(looked: &Looked<'_>) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian
        .args(["--allow-root", "--fail-on", "error,warning"])
        .arg(looked.release.deb());
    passes(&mut lintian, "lintian finds faults in the .deb")
}

fn rpmlint(looked: &Looked<'_>) -> Result<()> {
    let contrib = looked.places.root.join("contrib/rpm");
    let mut rpmlint = Command::new("rpmlint");
    rpmlint
        // Warnings count as errors.
        .arg("--strict")
        // Which of its own faults rpmlint has depends on its version.
        .arg("--ignore-unused-rpmlintrc")
        .arg("--config")
        .arg(contrib.join("rpmlint.toml"))
        .arg("--rpmlintrc")
        .arg(contrib.join("mptcp-trace.rpmlintrc"))
        .arg(looked.release.rpm());
    passes(&mut rpmlint, "rpmlint finds faults in the .rpm")
}

/// Both print what they find on stdout, and exit with another code than 0 if it matters.
fn passes(checker: &mut Command, purpose: &str) -> Result<()> {
    let output = checker
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8")
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{purpose}: it {} and said:\n{}{}",
        command::describe(output.status),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_checker_is_named() {
        assert_eq!(skipped("a step", "sh"), None);
        assert_eq!(
            skipped("a step", "no-such-checker").unwrap(),
            "skipped: no-such-checker is not installed (a step)"
        );
    }

    #[test]
    fn a_checker_that_fails_is_quoted() {
        let mut found = Command::new("sh");
        found.args(["-c", "echo 'E: a-tag'; exit 2"]);
        let said = passes(&mut found, "purpose").unwrap_err().to_string();
        assert!(
            said.contains("purpose") && said.contains("E: a-tag"),
            "{said}"
        );
        passes(
            Command::new("sh").args(["-c", "echo 'N: a note'"]),
            "purpose",
        )
        .unwrap();
    }
}
