//! Compresses the compiled BPF object, about 400 kB, to a tenth of its size before it is included in
//! the program, and the JSON Schema too, and tells the program which commit and target it is built from.
//!
//! No time and no path of the machine is recorded: the same source gives the same program.

use std::{env, error::Error, fs, path::PathBuf, process::Command};

use miniz_oxide::deflate::compress_to_vec_zlib;

/// The object, relative to this crate; `cargo xtask bpf` writes it.
const OBJECT: &str = "bpf/mptcp-trace.o";

/// The JSON Schema of the lines; `tests/schema` writes it.
const SCHEMA: &str = "../docs/schema.json";

/// Highest compression level: the time is spent only once, at build time.
const LEVEL: u8 = 10;

/// The commit, if the caller knows it: `cargo xtask dist` does, and so does a package's build from
/// a source tarball.
const COMMIT: &str = "MPTCP_TRACE_COMMIT";

/// This crate's directory in the repository, as git names it.
const IN_REPOSITORY: &str = "mptcp-trace/";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out: PathBuf = env::var_os("OUT_DIR")
        .ok_or("cargo names no OUT_DIR")?
        .into();
    for (file, packed) in [(OBJECT, "mptcp-trace.o.z"), (SCHEMA, "schema.json.z")] {
        println!("cargo::rerun-if-changed={file}");
        let content = fs::read(file).map_err(|why| format!("cannot read {file}: {why}"))?;
        fs::write(out.join(packed), compress_to_vec_zlib(&content, LEVEL))?;
    }
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let commit = env::var(COMMIT)
        .ok()
        .filter(|named| !named.trim().is_empty())
        .or_else(commit_of_git)
        .unwrap_or_else(|| format!("unknown (built without git and without {COMMIT})"));
    println!("cargo::rustc-env=BUILT_COMMIT={}", commit.trim());
    println!("cargo::rustc-env=BUILT_TARGET={}", env::var("TARGET")?);
    Ok(())
}

/// The commit that is checked out. `None` without git, in an unpacked tarball, and if the crate lies
/// in the repository of another project.
fn commit_of_git() -> Option<String> {
    if git(&["rev-parse", "--show-prefix"])? != IN_REPOSITORY {
        return None;
    }
    // Each commit and each checkout adds a line to this file.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if fs::exists(&log).unwrap_or(false) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--verify", "HEAD"])
}

/// What git prints, without the line's end; `None` if it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim_end().to_owned())
}
