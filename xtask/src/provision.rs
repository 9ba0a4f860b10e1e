//! Tools that chores need, each of a pinned version, built once into the cache directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{self, say},
    host_packages::{self, LINK_NEEDS},
    places::Places,
};

/// A cargo tool at one exact version.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    options: &'static [&'static str],
    build_time: &'static str,
}

/// Links LLVM bitcode into a BPF object. Linked against the LLVM that rustc 1.95 ships; 0.11 and
/// later ask for another LLVM.
pub(crate) const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.10.3",
    options: &[
        "--no-default-features",
        "--features",
        "llvm-22,rust-llvm-22",
    ],
    build_time: "about a minute",
};

/// Checks licences, bans and sources of the dependencies. Without default features: they are for
/// fetching advisories, which deny.toml leaves out.
pub(crate) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    options: &["--no-default-features"],
    build_time: "about three minutes",
};

/// Packs the .deb.
pub(crate) const CARGO_DEB: Tool = Tool {
    name: "cargo-deb",
    version: "3.8.0",
    options: &[],
    build_time: "about a minute",
};

/// Builds and runs the fuzz targets.
pub(crate) const CARGO_FUZZ: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
    options: &[],
    build_time: "about a minute",
};

impl Tool {
    /// Path of the tool, built now if the cache does not have this very version.
    pub(crate) fn provide(&self, places: &Places) -> Result<PathBuf> {
        let root = places
            .cache
            .join("tools")
            .join(format!("{}-{}", self.name, self.version));
        let program = root.join("bin").join(self.name);
        if self.is_right(&program) {
            return Ok(program);
        }
        host_packages::provide(&LINK_NEEDS, "building Rust programs")?;
        say(format_args!(
            "building {} {} into {} ({}, once)",
            self.name,
            self.version,
            root.display(),
            self.build_time
        ));
        let build = places.cache.join("tools/build");
        let mut cargo = command::cargo(&places.root);
        cargo
            .args([
                "install",
                "--quiet",
                "--locked",
                self.name,
                "--version",
                self.version,
            ])
            .args(self.options)
            // A tool runs for seconds: what it costs is its own build.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .arg("--root")
            .arg(&root)
            .arg("--target-dir")
            .arg(&build);
        command::run(
            &mut cargo,
            &format!("cannot build {} {}", self.name, self.version),
        )?;
        fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
        if !self.is_right(&program) {
            bail!(
                "{} says that it is not version {}; remove {} and try again",
                program.display(),
                self.version,
                root.display()
            );
        }
        Ok(program)
    }

    fn is_right(&self, program: &Path) -> bool {
        program.is_file()
            && command::text(
                Command::new(program).arg("--version"),
                "cannot ask for the version",
            )
            .is_ok_and(|said| said.split_whitespace().any(|word| word == self.version))
    }
}
