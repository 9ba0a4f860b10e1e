//! Builds the static program of a release, its man pages and its completions.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::Release;
use crate::{
    command::{self, say},
    places::{self, Places, STATIC_TARGET},
};

/// Maximum size of the program, in bytes.
const PROGRAM_BYTES_MAX: u64 = 6_000_000;

/// Inlining threshold of LLVM. With 120 the program is 5 % larger, and a replay executes 5 % fewer
/// instructions; LLVM's default is 250.
const INLINE: &str = "-Cllvm-args=-inline-threshold=60";

/// Names the commit to mptcp-trace/build.rs. A value from outside is passed on.
const COMMIT: &str = "MPTCP_TRACE_COMMIT";

/// Relative relocations in their packed form (RELR): 3 % of the program otherwise. The program
/// applies them itself when it starts, so that no other C library has to know the form.
const PACKED_RELOCATIONS: &str = "-Clink-arg=-Wl,-z,pack-relative-relocs";

/// Linker script that leaves out most tables for unwinding, 6 % of the program.
const NO_UNWINDING: &str = "xtask/src/dist/no-unwinding.ld";

/// Rust's own linker merges these tables before a script sees them: GNU ld does not.
const GNU_LD: &str = "-Clinker-features=-lld";

/// Builds the program as a static executable without local paths in it, and `more`: other packages
/// with their programs. Returns the program's path.
pub(super) fn programs(places: &Places, target: &Path, more: &[(&str, &str)]) -> Result<PathBuf> {
    if !cfg!(target_arch = "x86_64") {
        bail!("cannot make a release here: it is for x86-64, this machine is not");
    }
    say("building the static mptcp-trace of the release");
    let flags = [
        "-Ctarget-feature=+crt-static",
        INLINE,
        PACKED_RELOCATIONS,
        GNU_LD,
    ];
    let mut flags = flags.map(str::to_owned).to_vec();
    let script = places.root.join(NO_UNWINDING);
    flags.push(format!("-Clink-arg=-Wl,-T,{}", script.display()));
    let mut names = vec![(places.root.clone(), "/mptcp-trace")];
    if let Some(home) = places::cargo_home() {
        names.push((home, "/cargo"));
    }
    for (path, name) in &names {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    let mut cargo = command::cargo(&places.root);
    cargo
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["--package", "mptcp-trace", "--bin", "mptcp-trace"])
        .args(["--target", STATIC_TARGET, "--target-dir"])
        .arg(target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if env::var_os(COMMIT).is_none()
        && let Some(commit) = commit(&places.root)
    {
        cargo.env(COMMIT, commit);
    }
    for (package, program) in more {
        cargo.args(["--package", package, "--bin", program]);
    }
    command::run(&mut cargo, "cannot build the program of the release")?;
    let program = target.join(STATIC_TARGET).join("release/mptcp-trace");
    look_at(&program, &names)?;
    Ok(program)
}

/// The commit that is checked out, and whether files differ from it. `None` without git, and if the
/// source lies in the repository of another project.
fn commit(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(root);
        command::text(&mut git, "cannot ask git for the commit").ok()
    };
    if !git(&["rev-parse", "--show-prefix"])?.trim().is_empty() {
        return None;
    }
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(described(&git(&["rev-parse", "HEAD"])?, &changes))
}

/// A commit with uncommitted changes is not the source of the program, so it says so.
fn described(commit: &str, changes: &str) -> String {
    let mark = if changes.trim().is_empty() {
        ""
    } else {
        ", with uncommitted changes"
    };
    format!("{}{mark}", commit.trim())
}

/// Fails if the program is too large or contains a local path.
fn look_at(program: &Path, names: &[(PathBuf, &str)]) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > PROGRAM_BYTES_MAX {
        bail!(
            "{} has {length} bytes, of at most {PROGRAM_BYTES_MAX}",
            program.display()
        );
    }
    for (path, _) in names {
        let path = path.as_os_str().as_encoded_bytes();
        if bytes.windows(path.len()).any(|window| window == path) {
            bail!(
                "{} names {}: no other machine could build the same",
                program.display(),
                String::from_utf8_lossy(path)
            );
        }
    }
    Ok(())
}

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
        let mut program = Command::new(&release.program);
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

    #[test]
    fn a_commit_with_changes_is_marked() {
        assert_eq!(described("56a36f8\n", ""), "56a36f8");
        assert_eq!(
            described("56a36f8\n", " M README.md\n"),
            "56a36f8, with uncommitted changes"
        );
    }

    #[test]
    fn a_program_that_names_its_birthplace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        let names = [(PathBuf::from("/home/user"), "/x")];
        fs::write(&program, "\u{7f}ELF at /cargo/registry/x.rs").unwrap();
        assert!(look_at(&program, &names).is_ok());
        fs::write(&program, "\u{7f}ELF at /home/user/x.rs").unwrap();
        assert!(look_at(&program, &names).is_err());
    }
}
