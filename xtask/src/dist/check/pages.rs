//! Checks man pages and completions with the programs that read them.

use std::{
    fmt::Write as _,
    io::{Seek as _, Write as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    super::{stage, texts},
    Looked, silent,
};

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

/// Each shell must parse its completions without a message, and complete what is typed.
pub(super) fn completions(looked: &Looked<'_>) -> Result<()> {
    let folder = looked.release.stage.join("completions");
    let cases = cases(&looked.release.stage)?;
    for (shell, script) in texts::COMPLETIONS {
        let script = folder.join(script);
        let mut parse = Command::new(shell);
        parse.arg("-n").arg(&script);
        silent(
            &mut parse,
            &format!("{shell} cannot read {}", script.display()),
        )?;
        type_into(looked, shell, &script, &cases)?;
    }
    Ok(())
}

/// What is typed, and what must appear, for every verb that has a man page.
fn cases(stage: &Path) -> Result<String> {
    let mut cases = String::from("mptcp-trace repl\treplay\nmptcp-trace re\treport\n");
    let pages = stage::files_in(&stage.join("man"))?;
    let verbs = pages.iter().filter_map(|page| {
        let name = page.file_stem()?.to_str()?;
        name.strip_prefix("mptcp-trace-")
    });
    for verb in verbs {
        writeln!(cases, "mptcp-trace {verb} --hel\t--help")?;
    }
    cases.push_str(
        "mptcp-trace --cause DssF\tDssFallback\n\
         mptcp-trace live --verdict still\tstill-mptcp\n\
         mptcp-trace list --attach fex\tfexit\n\
         mptcp-trace replay --cause=DssF\tDssFallback\n\
         mptcp-trace replay comp\tcompletions\n",
    );
    Ok(cases)
}

/// Types the cases into a shell on a terminal, in the stage.
fn type_into(looked: &Looked<'_>, shell: &str, script: &Path, cases: &str) -> Result<()> {
    let stage = &looked.release.stage;
    let typist = looked.places.root.join("mptcp-trace/tests/typist.py");
    let mut input = tempfile::tempfile().context("cannot create a file")?;
    input.write_all(cases.as_bytes())?;
    input.rewind()?;
    let output = Command::new("python3")
        .arg(typist)
        .args([shell.as_ref(), script.as_os_str()])
        .arg(stage.join("bin"))
        .current_dir(stage)
        .stdin(input)
        .output()
        .context("cannot start python3")?;
    if !output.status.success() {
        bail!(
            "completion does not work in {shell}:\n{}",
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
        );
    }
    Ok(())
}
