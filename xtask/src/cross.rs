//! Building programs for another architecture than this machine's.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    architecture::Architecture,
    host_packages::{self, Need},
    places::Places,
    rust_src,
};

/// Makes `cargo` build for an architecture. Where rustup has installed the standard library for it,
/// that one is used; otherwise the library is compiled from its source.
///
/// Returns the directory of that source, if it is used: programs must not contain its path.
///
/// # Errors
///
/// Fails if the linker or the library's source is missing and cannot be installed.
pub(crate) fn configure(
    architecture: Architecture,
    places: &Places,
    cargo: &mut Command,
) -> Result<Option<PathBuf>> {
    let triple = architecture.triple();
    cargo.args(["--target", triple]);
    if architecture == Architecture::HOST {
        return Ok(None);
    }
    let purpose = format!("building for {}", architecture.name());
    host_packages::provide(&needs(architecture), &purpose)?;
    let variable = triple.replace('-', "_").to_uppercase();
    cargo.env(
        format!("CARGO_TARGET_{variable}_LINKER"),
        linker(architecture),
    );
    let Some(source) = rust_src::unless_installed(places, triple)? else {
        return Ok(None);
    };
    // build-std is unstable but the toolchain is stable: the first variable enables it there, the
    // second makes cargo use a source outside of the sysroot, which stays untouched.
    cargo
        .arg("-Zbuild-std=std,panic_abort")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", &source);
    Ok(Some(source))
}

/// Needed to link programs for another architecture; nothing for this machine's.
pub(crate) fn needs(architecture: Architecture) -> Vec<Need> {
    if architecture == Architecture::HOST {
        return Vec::new();
    }
    let (library, package) = match architecture {
        Architecture::X86_64 => (
            "/usr/x86_64-linux-gnu/include/stdlib.h",
            ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
        ),
        Architecture::Aarch64 => (
            "/usr/aarch64-linux-gnu/include/stdlib.h",
            ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        ),
    };
    [linker(architecture), library]
        .into_iter()
        .zip(package)
        .map(|(what, package)| Need { what, package })
        .collect()
}

const fn linker(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "x86_64-linux-gnu-gcc",
        Architecture::Aarch64 => "aarch64-linux-gnu-gcc",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_architecture_needs_a_linker_of_its_own() {
        for architecture in Architecture::ALL {
            let is_needed = !needs(architecture).is_empty();
            assert_eq!(is_needed, architecture != Architecture::HOST);
        }
    }
}
