//! Programs from the machine's own distribution. As root, xtask installs the missing ones;
//! otherwise it prints their packages.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    architecture::Architecture,
    command::{self, say},
};

/// A required program or file, and the Debian package that provides it.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    /// A program in PATH, or the absolute path of a file.
    pub(crate) what: &'static str,
    pub(crate) package: &'static str,
}

/// Needed to boot a virtual machine, besides its emulator.
pub(crate) const VM_NEEDS: [Need; 3] = [
    Need {
        what: "xz",
        package: "xz-utils",
    },
    Need {
        what: "zstd",
        package: "zstd",
    },
    Need {
        what: "dpkg-deb",
        package: "dpkg",
    },
];

/// Needed to compile a kernel.
pub(crate) const KERNEL_NEEDS: [Need; 10] = [
    Need {
        what: "gcc",
        package: "gcc",
    },
    Need {
        what: "make",
        package: "make",
    },
    Need {
        what: "flex",
        package: "flex",
    },
    Need {
        what: "bison",
        package: "bison",
    },
    Need {
        what: "bc",
        package: "bc",
    },
    Need {
        what: "xz",
        package: "xz-utils",
    },
    Need {
        what: "pahole",
        package: "dwarves",
    },
    Need {
        what: "/usr/include/libelf.h",
        package: "libelf-dev",
    },
    Need {
        what: "/usr/include/openssl/ssl.h",
        package: "libssl-dev",
    },
    Need {
        what: "nice",
        package: "coreutils",
    },
];

/// Needed to compile a kernel with clang.
pub(crate) const CLANG_NEEDS: [Need; 3] = [
    Need {
        what: "clang",
        package: "clang",
    },
    Need {
        what: "ld.lld",
        package: "lld",
    },
    Need {
        what: "llvm-ar",
        package: "llvm",
    },
];

/// Needed for fuzzing: libFuzzer is C++.
pub(crate) const FUZZ_NEEDS: [Need; 1] = [Need {
    what: "c++",
    package: "g++",
}];

/// Needed to compile Rust programs, besides Rust itself.
pub(crate) const LINK_NEEDS: [Need; 2] = [
    Need {
        what: "cc",
        package: "gcc",
    },
    Need {
        what: "/usr/include/stdlib.h",
        package: "libc6-dev",
    },
];

/// Real client and server programs that the tests run over MPTCP.
pub(crate) const PAIR_NEEDS: [Need; 5] = [
    Need {
        what: "tmux",
        package: "tmux",
    },
    Need {
        what: "curl",
        package: "curl",
    },
    Need {
        what: "mptcpize",
        package: "mptcpize",
    },
    Need {
        what: "nginx",
        package: "nginx-light",
    },
    Need {
        what: "promtool",
        package: "prometheus",
    },
];

/// Wireshark on a terminal, and tcpdump: they read and write the packets of `annotate`.
pub(crate) const PACKET_NEEDS: [Need; 2] = [
    Need {
        what: "tshark",
        package: "tshark",
    },
    Need {
        what: "tcpdump",
        package: "tcpdump",
    },
];

/// The firewall that some boxes of the lab are, and that translates addresses.
pub(crate) const FIREWALL_NEEDS: [Need; 1] = [Need {
    what: "nft",
    package: "nftables",
}];

/// A browser, and the Python module that drives it.
pub(crate) const BROWSER_NEEDS: [Need; 2] = [
    Need {
        what: "chromium",
        package: "chromium",
    },
    Need {
        what: "/usr/lib/python3/dist-packages/websocket/__init__.py",
        package: "python3-websocket",
    },
];

/// Programs that the benchmarks compare with the tracer.
pub(crate) const BENCH_NEEDS: [Need; 3] = [
    Need {
        what: "bpftrace",
        package: "bpftrace",
    },
    Need {
        what: "iperf3",
        package: "iperf3",
    },
    Need {
        what: "mptcpize",
        package: "mptcpize",
    },
];

/// Packages whose installation also starts a daemon, with the name of the daemon.
const DAEMONS: [(&str, &str); 2] = [("nginx-light", "nginx"), ("iperf3", "iperf3")];

/// As root, installs what is missing; otherwise fails with the command that installs it.
pub(crate) fn provide(needs: &[Need], purpose: &str) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !is_installed(need.what))
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if command::find_program("apt-get").is_none() {
        bail!("{purpose} needs the Debian packages {packages}, and there is no apt-get here");
    }
    if !command::is_root() {
        bail!(
            "{purpose} needs packages that are not installed; type: sudo apt-get install {packages}"
        );
    }
    say(format_args!(
        "{purpose} needs {packages}: installing with apt-get"
    ));
    let _quiet =
        NoDaemons::enforce(Path::new(POLICY)).context("cannot keep daemons from being started")?;
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-q", "-y", "install", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command::output(&mut apt, &format!("cannot install {packages}"))
    };
    // A fresh container has no package lists; other machines can skip the update.
    if install().is_err() {
        command::output(
            Command::new("apt-get").args(["-q", "update"]),
            "cannot update apt's lists",
        )?;
        install()?;
    }
    disable_daemons(&missing)
}

/// The script that package installation consults before it starts a daemon.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// While this guard lives, package installation starts no daemons.
struct NoDaemons {
    /// Path of our policy; `None` if the machine has its own, which takes precedence.
    ours: Option<PathBuf>,
}

impl NoDaemons {
    fn enforce(policy: &Path) -> Result<Self> {
        if policy.exists() {
            return Ok(Self { ours: None });
        }
        // 101: action forbidden by policy.
        fs::write(policy, "#!/bin/sh\nexit 101\n")
            .with_context(|| format!("cannot write {}", policy.display()))?;
        let enforced = Self {
            ours: Some(policy.to_owned()),
        };
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} a program", policy.display()))?;
        Ok(enforced)
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        let Some(policy) = &self.ours else {
            return;
        };
        if let Err(error) = fs::remove_file(policy) {
            let policy = policy.display();
            say(format_args!(
                "cannot remove {policy}: {error}; remove it, or no daemon will be started on installation"
            ));
        }
    }
}

/// Disables the daemons, so that they do not start at boot either.
fn disable_daemons(packages: &[&str]) -> Result<()> {
    if command::find_program("systemctl").is_none() {
        return Ok(());
    }
    for (_, daemon) in DAEMONS
        .iter()
        .filter(|(package, _)| packages.contains(package))
    {
        command::output(
            Command::new("systemctl").args(["--quiet", "disable", daemon]),
            &format!("cannot keep {daemon} from starting with the machine"),
        )?;
    }
    Ok(())
}

fn is_installed(what: &str) -> bool {
    if what.starts_with('/') {
        Path::new(what).exists() || multiarch(what).exists()
    } else {
        command::find_program(what).is_some()
    }
}

/// Debian keeps architecture-dependent headers one directory deeper.
fn multiarch(header: &str) -> PathBuf {
    let multiarch = Architecture::HOST.multiarch();
    header
        .replacen("/usr/include/", &format!("/usr/include/{multiarch}/"), 1)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_are_kept_quiet_only_while_packages_are_installed() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        let quiet = NoDaemons::enforce(&policy).unwrap();
        let said = Command::new(&policy).status().unwrap();
        assert_eq!(said.code(), Some(101));
        drop(quiet);
        assert!(!policy.exists());
    }

    #[test]
    fn the_machines_own_policy_stays() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        fs::write(&policy, "its own").unwrap();
        drop(NoDaemons::enforce(&policy).unwrap());
        assert_eq!(fs::read_to_string(&policy).unwrap(), "its own");
    }
}
