//! xtask as `RUSTC_WRAPPER` of the BPF build: removes from the object everything that depends on
//! the build machine, so that a rebuilt object is identical to the committed one.
//!
//! Two things differ between machines. Paths in panic messages and debug info are remapped here,
//! not in RUSTFLAGS, because cargo hashes RUSTFLAGS. And cargo computes `-C metadata`, which
//! becomes part of every mangled symbol name, from the absolute path of core's source: it is
//! replaced by the package's name and version, which are unique in this build.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use crate::command;

/// Target of the BPF build; host crates (macros, build scripts) pass through unchanged.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";
/// Environment variable that `bpf` sets for its cargo: `from=to` pairs, one per line.
pub(crate) const REMAP_VARIABLE: &str = "MPTCP_TRACE_XTASK_REMAP";

/// True if cargo started this process in place of rustc.
pub(crate) fn is_requested() -> bool {
    env::var_os(REMAP_VARIABLE).is_some()
        && env::args_os().nth(1).is_some_and(|program| {
            std::path::Path::new(&program)
                .file_name()
                .is_some_and(|name| name == "rustc" || name == "clippy-driver")
        })
}

/// Replaces this process with rustc; returns only on failure.
pub(crate) fn exec() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let program = arguments.next().unwrap_or_else(|| "rustc".into());
    let arguments: Vec<OsString> = arguments.collect();
    let package = format!(
        "{}-{}",
        env::var("CARGO_PKG_NAME").unwrap_or_default(),
        env::var("CARGO_PKG_VERSION").unwrap_or_default()
    );
    let remap = env::var(REMAP_VARIABLE).unwrap_or_default();
    let error = Command::new(&program)
        .args(independent_of_place(&arguments, &package, &remap))
        .exec();
    command::report(
        &anyhow::Error::new(error).context(format!("cannot start {}", program.display())),
    )
}

fn independent_of_place(arguments: &[OsString], package: &str, remap: &str) -> Vec<OsString> {
    let for_bpf = arguments
        .windows(2)
        .any(|pair| matches!(pair, [name, value] if name == "--target" && value == BPF_TARGET));
    if !for_bpf {
        return arguments.to_vec();
    }
    let is_metadata = |argument: &OsStr| argument.as_encoded_bytes().starts_with(b"metadata=");
    arguments
        .iter()
        .map(|argument| {
            if is_metadata(argument) {
                format!("metadata={package}").into()
            } else {
                argument.clone()
            }
        })
        .chain(
            remap
                .lines()
                .map(|pair| format!("--remap-path-prefix={pair}").into()),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], want: &[&str]) {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        assert_eq!(
            independent_of_place(&arguments, "core-0.0.0", "/here=/src\n/there=/core"),
            want
        );
    }

    #[test]
    fn a_bpf_crate_loses_what_depends_on_its_place() {
        check(
            &[
                "x.rs",
                "-C",
                "metadata=0123",
                "-C",
                "extra-filename=-0123",
                "--target",
                BPF_TARGET,
            ],
            &[
                "x.rs",
                "-C",
                "metadata=core-0.0.0",
                "-C",
                "extra-filename=-0123",
                "--target",
                BPF_TARGET,
                "--remap-path-prefix=/here=/src",
                "--remap-path-prefix=/there=/core",
            ],
        );
    }

    #[test]
    fn a_host_crate_is_compiled_as_cargo_asked() {
        check(
            &["x.rs", "-C", "metadata=0123"],
            &["x.rs", "-C", "metadata=0123"],
        );
    }
}
