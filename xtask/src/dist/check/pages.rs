//! Checks man pages and completions with the programs that read them.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{super::stage, Looked, silent};

/// groff must report no warnings for any page.
pub(super) fn manual(looked: &Looked<'_>) -> Result<()> {
    let pages = stage::files_in(&looked.release.stage.join("man"))?;
    if pages.is_empty() {
        bail!("there is no man page");
    }
    for page in pages {
        let mut man = Command::new("man");
        // -Z suppresses groff's formatted output, so that only warnings are printed.
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
            .arg(&page)
            .env("MANROFFSEQ", "")
            .env("MANWIDTH", "80");
        let output = man.output().context("cannot start man")?;
        if !output.status.success() || !output.stderr.is_empty() {
            bail!(
                "{}: {}",
                page.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        if output.stdout.is_empty() {
            bail!("{}: nothing comes out of it", page.display());
        }
    }
    Ok(())
}

/// Each shell must be able to parse its completions.
pub(super) fn completions(looked: &Looked<'_>) -> Result<()> {
    let folder = looked.release.stage.join("completions");
    let scripts = [
        ("bash", "mptcp-trace.bash"),
        ("zsh", "_mptcp-trace"),
        ("fish", "mptcp-trace.fish"),
    ];
    for (shell, script) in scripts {
        let mut parse = Command::new(shell);
        parse.arg("-n").arg(folder.join(script));
        silent(&mut parse, &format!("{shell} cannot read {script}"))?;
    }
    // bash must also complete a verb.
    let ask = format!(
        "source '{}'; [[ $(complete -p mptcp-trace) =~ -F\\ ([^ ]+) ]] || exit 1; \
         COMP_WORDS=(mptcp-trace doc); COMP_CWORD=1; \
         ${{BASH_REMATCH[1]}} mptcp-trace doc mptcp-trace; echo \"${{COMPREPLY[*]}}\"",
        folder.join("mptcp-trace.bash").display()
    );
    let said = crate::command::text(
        Command::new("bash").args(["--norc", "-c", &ask]),
        "bash cannot complete a verb",
    )?;
    if said.trim() != "doctor" {
        bail!("bash completes \"mptcp-trace doc\" by {:?}", said.trim());
    }
    Ok(())
}
