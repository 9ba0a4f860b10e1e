//! QEMU: this machine's own, or if that is old, the one from the backports of its Debian. The
//! latter goes into the cache, is not installed, and uses the libraries of the installed one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{
    apt::{self, Apt},
    architecture::Architecture,
    command::{self, say},
    host_packages::{self, Need, VM_NEEDS},
    places::{Places, make_empty},
};

/// Older versions wait needlessly: 27 recipes on Linux 6.12 take 21 s with 7.2 and 8 s with 10.0.
const MAJOR_MIN: u32 = 9;
/// The firmware of all emulators.
const FIRMWARE_PACKAGE: &str = "qemu-system-data";

/// A QEMU that runs on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Emulator {
    architecture: Architecture,
    program: PathBuf,
    /// First search path for firmware; `None` for the installed QEMU.
    firmware: Option<PathBuf>,
}

impl Emulator {
    /// Installs QEMU if it is missing, and fetches a newer one if it is old.
    ///
    /// # Errors
    ///
    /// Fails if QEMU is missing and cannot be installed. An old one is used if no newer one is
    /// available.
    pub(crate) fn provide(places: &Places, architecture: Architecture) -> Result<Self> {
        let mut needs = VM_NEEDS.to_vec();
        needs.push(need(architecture));
        host_packages::provide(&needs, "booting kernels")?;
        let installed = Self {
            architecture,
            program: need(architecture).what.into(),
            firmware: None,
        };
        let major = installed.major()?;
        if major >= MAJOR_MIN {
            return Ok(installed);
        }
        Ok(installed.newer(places).unwrap_or_else(|why| {
            say(format_args!(
                "{why:#}; continuing with QEMU {major}, which is slower"
            ));
            installed
        }))
    }

    /// Fetches QEMU from the backports.
    fn newer(&self, places: &Places) -> Result<Self> {
        let need = need(self.architecture);
        let suite = format!("{}-backports", codename()?);
        let name = match self.architecture {
            Architecture::X86_64 => suite.clone(),
            other => format!("{suite}-{}", other.debian()),
        };
        let directory = places.cache.join("qemu").join(name);
        let emulator = Self {
            architecture: self.architecture,
            program: directory.join("usr/bin").join(need.what),
            firmware: Some(directory.join("usr/share/qemu")),
        };
        if !emulator.is_new() {
            fetch(places, need.package, &suite, &directory)?;
        }
        ensure!(
            emulator.is_new(),
            "the QEMU of {suite} does not run here, or is as old"
        );
        Ok(emulator)
    }

    fn is_new(&self) -> bool {
        self.major().is_ok_and(|major| major >= MAJOR_MIN)
    }

    fn major(&self) -> Result<u32> {
        let said = command::text(
            self.command().arg("--version"),
            "cannot ask for its version",
        )?;
        major(&said).with_context(|| format!("{} prints no version", self.program.display()))
    }

    /// The common part of QEMU's command line.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(firmware) = &self.firmware {
            command.arg("-L").arg(firmware);
        }
        command
    }

    /// The architecture that it emulates.
    pub(crate) fn architecture(&self) -> Architecture {
        self.architecture
    }
}

/// The program and the package of an emulator.
pub(crate) const fn need(architecture: Architecture) -> Need {
    match architecture {
        Architecture::X86_64 => Need {
            what: "qemu-system-x86_64",
            package: "qemu-system-x86",
        },
        Architecture::Aarch64 => Need {
            what: "qemu-system-aarch64",
            package: "qemu-system-arm",
        },
    }
}

fn fetch(places: &Places, package: &str, suite: &str, directory: &Path) -> Result<()> {
    let _alone = apt::one_at_a_time();
    let apt = Apt::open(places)?;
    let partial = directory.with_extension("partial");
    make_empty(&partial)?;
    for package in [package, FIRMWARE_PACKAGE] {
        let deb = apt.download_from(package, suite)?;
        apt::unpack(&deb, &partial)?;
    }
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::rename(&partial, directory)
        .with_context(|| format!("cannot move QEMU to {}", directory.display()))
}

/// Parses the major version of `QEMU emulator version 10.0.2 (Debian ...)`.
fn major(said: &str) -> Option<u32> {
    let (_, version) = said.split_once(" version ")?;
    version.split('.').next()?.parse().ok()
}

/// Code name of this machine's Debian.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    if value("ID").as_deref() != Some("debian") {
        bail!("only Debian has backports of QEMU");
    }
    value("VERSION_CODENAME").ok_or_else(|| anyhow!("/etc/os-release names no release"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_what_stands_before_the_first_dot() {
        for (said, expected) in [
            (
                "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright",
                Some(7),
            ),
            ("QEMU emulator version 10.0.2", Some(10)),
            ("QEMU emulator", None),
            ("", None),
        ] {
            assert_eq!(major(said), expected, "{said}");
        }
    }
}
