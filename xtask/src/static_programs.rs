//! Builds the static programs: one file each, without libraries, as in a release.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    architecture::Architecture,
    command::{self, say},
    cross,
    places::{self, Places},
};

/// Maximum size of the program, in bytes.
const PROGRAM_BYTES_MAX: u64 = 7_000_000;

/// Inlining threshold of LLVM. With 60 the program is 2 % larger. With 120 it is 7 % larger, and a
/// replay executes 5 % fewer instructions than with 60; LLVM's default is 250.
const INLINE: &str = "-Cllvm-args=-inline-threshold=40";

/// Repeated sequences of instructions become functions where that saves 40 bytes: the program is 3 %
/// smaller, and a replay executes 5 % more instructions. Without the threshold it is 5 % smaller, for
/// 13 % more. On arm64 this is LLVM's default where the profile asks for the smallest code.
const OUTLINE: &str = "-Cllvm-args=-enable-machine-outliner=always -outliner-benefit-threshold=40";

/// Names the commit to mptcp-trace/build.rs. A value from outside is passed on.
const COMMIT: &str = "MPTCP_TRACE_COMMIT";

/// Relative relocations in their packed form (RELR): 3 % of the program otherwise. The program
/// applies them itself when it starts, so that no other C library has to know the form.
const PACKED_RELOCATIONS: &str = "-Clink-arg=-Wl,-z,pack-relative-relocs";

/// Linker script that leaves out most tables for unwinding, 6 % of the program.
const NO_UNWINDING: &str = "xtask/src/dist/no-unwinding.ld";

/// Rust's own linker, which is the default on x86-64 only, merges these tables before a script sees
/// them: GNU ld does not.
const GNU_LD: &str = "-Clinker-features=-lld";

/// Builds the program as a static executable without local paths in it, and `more`: other packages
/// with their programs. Returns the program's path.
pub(crate) fn programs(
    places: &Places,
    target: &Path,
    architecture: Architecture,
    more: &[(&str, &str)],
) -> Result<PathBuf> {
    say(format_args!(
        "building the static mptcp-trace of the release for {}",
        architecture.name()
    ));
    let mut cargo = command::cargo(&places.root);
    cargo
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["--package", "mptcp-trace", "--bin", "mptcp-trace"])
        .arg("--target-dir")
        .arg(target);
    let library = cross::configure(architecture, places, &mut cargo)?;
    let mut flags: Vec<String> = flags(architecture)
        .iter()
        .map(|&it| it.to_owned())
        .collect();
    let script = places.root.join(NO_UNWINDING);
    flags.push(format!("-Clink-arg=-Wl,-T,{}", script.display()));
    let mut names = vec![(places.root.clone(), "/mptcp-trace")];
    if let Some(home) = places::cargo_home() {
        names.push((home, "/cargo"));
    }
    // The cache may be inside of the home directory that cargo uses: the longer path comes last.
    if let Some(library) = library {
        names.push((library, "/rust-src"));
    }
    for (path, name) in &names {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if env::var_os(COMMIT).is_none()
        && let Some(commit) = commit(&places.root)
    {
        cargo.env(COMMIT, commit);
    }
    for (package, program) in more {
        cargo.args(["--package", package, "--bin", program]);
    }
    command::run(&mut cargo, "cannot build the program of the release")?;
    let program = target
        .join(architecture.triple())
        .join("release/mptcp-trace");
    look_at(&program, &names)?;
    Ok(program)
}

/// The compiler's flags. GNU ld packs relative relocations on arm64 only since version 2.43.
const fn flags(architecture: Architecture) -> &'static [&'static str] {
    const STATIC: &str = "-Ctarget-feature=+crt-static";
    match architecture {
        Architecture::X86_64 => &[STATIC, INLINE, OUTLINE, GNU_LD, PACKED_RELOCATIONS],
        Architecture::Aarch64 => &[STATIC, INLINE],
    }
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

/// Package and program of the lab.
const LAB: (&str, &str) = ("mptcp-trace-lab", "mptcp-lab");

/// Builds the static program of the release, and the lab's in the same directory.
pub(crate) fn program_and_lab(places: &Places, architecture: Architecture) -> Result<PathBuf> {
    programs(places, &directory(places), architecture, &[LAB])
}

/// Builds the static program of the release.
pub(crate) fn program(places: &Places, architecture: Architecture) -> Result<PathBuf> {
    programs(places, &directory(places), architecture, &[])
}

/// Cargo's target directory of the static programs.
pub(crate) fn directory(places: &Places) -> PathBuf {
    places.target.join("dist/build")
}

#[cfg(test)]
mod tests {
    use super::*;

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
