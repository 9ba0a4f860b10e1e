//! Writes the man pages and the completions of a release.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use super::Release;
use crate::{
    command::{self, say},
    places::Places,
};

/// Writes man pages, generated from the source, into the stage.
pub(super) fn pages(places: &Places, release: &Release) -> Result<()> {
    say("writing man pages");
    let mut cargo = command::cargo(&places.root);
    cargo
        .args(["run", "--quiet", "--locked", "--package", "mptcp-trace"])
        .args(["--example", "pages", "--"])
        .arg(&release.stage)
        .arg(date(release.epoch)?);
    command::run(&mut cargo, "cannot write the man pages")
}

/// Shells with completions, and the file of each script in the stage.
pub(super) const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "mptcp-trace.bash"),
    ("zsh", "_mptcp-trace"),
    ("fish", "mptcp-trace.fish"),
];

/// Writes the completion scripts, as the program prints them, into the stage.
pub(super) fn completions(release: &Release) -> Result<()> {
    let folder = release.stage.join("completions");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (shell, file) in COMPLETIONS {
        let mut program = Command::new(&release.host);
        program.args(["completions", shell]);
        let script = command::output(&mut program, "the program prints no completions")?;
        let path = folder.join(file);
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The UTC date of a Unix time.
fn date(epoch: i64) -> Result<String> {
    let time = jiff::Timestamp::from_second(epoch)
        .with_context(|| format!("SOURCE_DATE_EPOCH={epoch} is no time"))?;
    Ok(time.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_dated_by_the_day_in_utc() {
        assert_eq!(date(0).unwrap(), "1970-01-01");
        assert_eq!(date(1_795_731_504).unwrap(), "2026-11-26");
        assert!(date(i64::MAX).is_err());
    }
}
