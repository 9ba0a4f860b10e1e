//! Programs that come from the machine's own distribution: installed when we are root, named when
//! we are not.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{self, say};

/// A program or file that must be there, and the Debian package that brings it.
pub(crate) struct Need {
    /// A program in PATH, or an absolute path of a file.
    pub(crate) what: &'static str,
    pub(crate) package: &'static str,
}

/// What booting a virtual machine needs.
pub(crate) const VM_NEEDS: [Need; 4] = [
    Need {
        what: "qemu-system-x86_64",
        package: "qemu-system-x86",
    },
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

/// What compiling a kernel needs.
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

/// What compiling Rust programs needs besides Rust.
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

/// Installs what is missing as root; as anyone else says which command does it.
pub(crate) fn provide(needs: &[Need], purpose: &str) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !is_there(need.what))
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
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-q", "-y", "install", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command::output(&mut apt, &format!("cannot install {packages}"))
    };
    // A fresh container has no package lists; a machine that has them need not fetch them again.
    if install().is_err() {
        command::output(
            Command::new("apt-get").args(["-q", "update"]),
            "cannot update apt's lists",
        )?;
        install()?;
    }
    Ok(())
}

fn is_there(what: &str) -> bool {
    if what.starts_with('/') {
        std::path::Path::new(what).exists() || multiarch(what).exists()
    } else {
        command::find_program(what).is_some()
    }
}

/// Debian keeps architecture-dependent headers one directory deeper.
fn multiarch(header: &str) -> std::path::PathBuf {
    header
        .replacen("/usr/include/", "/usr/include/x86_64-linux-gnu/", 1)
        .into()
}
