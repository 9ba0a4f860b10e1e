//! Tests the packages of another architecture in a virtual machine: a fresh Debian tree of that
//! architecture installs them, runs the program on its own kernel, and removes them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Looked, debian};
use crate::{
    apt,
    architecture::Architecture,
    build,
    command::{self, say},
    fleet::{Fleet, JOB_TIME_MAX_S, TREE},
    kernels::Found,
    places,
    qemu::Said,
};

/// The oldest supported Debian's packages that install a package and run a shell, and what scripts of
/// packages may rely on.
const PACKAGES: &str = "dpkg,dash,coreutils,libc6,libc-bin,tar,mount,sed,grep,findutils,diffutils,\
                        init-system-helpers,perl-base";
/// The series of the kernel that is booted.
const SERIES: &str = "6.12";
/// The last line of a script that succeeded.
const DONE: &str = "all packages work";

/// What runs in the tree, as in a shell: each package is installed, runs doctor, and leaves nothing
/// behind. `--force-depends`: the tree's packages are unpacked but not in dpkg's tables.
const SCRIPT: &str = r#"set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
everything() {
    find / -xdev \( -path /proc -o -path /sys -o -path /var/lib/dpkg -o -path /var/log -o -path /packages \) -prune \
        -o \( -type d -printf '%p %M\n' -o -printf '%p %M %s\n' \) | sort
}
works() {
    "$@" --version | grep -q "^target: $TARGET"
    "$@" doctor > /packages/said
    grep '^verdict' /packages/said
    grep -q '^verdict *works' /packages/said
}
everything > /packages/before
dpkg --force-depends --install /packages/mptcp-trace.deb
works mptcp-trace
dpkg --purge mptcp-trace
everything > /packages/after
diff /packages/before /packages/after
works /packages/rpm/usr/bin/mptcp-trace
works /packages/tarball/bin/mptcp-trace
"#;

/// Installs the packages in a tree of their architecture, on a kernel of it.
pub(super) fn step(looked: &Looked<'_>) -> Result<()> {
    let architecture = looked.release.architecture;
    let tree = looked
        .places
        .target
        .join("dist")
        .join(format!("debian-{}", architecture.debian()));
    make(architecture, &tree)?;
    let outcome = packages(looked, &tree).and_then(|()| boot(looked, &tree));
    fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    outcome
}

/// Unpacks a Debian of this architecture. Nothing in it is executed, which this machine could not.
fn make(architecture: Architecture, tree: &Path) -> Result<()> {
    say(format_args!(
        "unpacking a fresh Debian for {}",
        architecture.debian()
    ));
    places::make_empty(tree)?;
    let archive = tree.with_extension("tar");
    let (mirror, _security) = apt::mirrors_of_this_machine()?;
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--mode=root", "--variant=extract"])
        .arg(format!("--architectures={}", architecture.debian()))
        .arg(format!("--include={PACKAGES}"))
        .arg(debian::SUITE)
        .arg(&archive)
        .arg(mirror);
    command::output(&mut make, "cannot make a fresh Debian tree")?;
    let mut tar = Command::new("tar");
    tar.arg("-xpf").arg(&archive).arg("-C").arg(tree);
    command::output(&mut tar, "cannot unpack the fresh Debian tree")?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    for directory in ["proc", "sys", "dev", "packages/rpm", "packages/tarball"] {
        let directory = tree.join(directory);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    Ok(())
}

/// Puts the packages into the tree.
fn packages(looked: &Looked<'_>, tree: &Path) -> Result<()> {
    let into = tree.join("packages");
    let release = looked.release;
    fs::copy(release.deb(), into.join("mptcp-trace.deb")).context("cannot copy the .deb")?;
    let mut rpm = Command::new("sh");
    rpm.args(["-c", "rpm2cpio \"$0\" | (cd \"$1\" && cpio -id --quiet)"])
        .arg(release.rpm())
        .arg(into.join("rpm"));
    command::output(&mut rpm, "cannot unpack the .rpm")?;
    let mut tar = Command::new("tar");
    tar.args(["--strip-components=1", "-xzf"])
        .arg(release.tarball())
        .arg("-C")
        .arg(into.join("tarball"));
    command::output(&mut tar, "cannot unpack the tarball")?;
    let released = fs::read(&release.program).context("cannot read the program")?;
    for packed in ["rpm/usr/bin/mptcp-trace", "tarball/bin/mptcp-trace"] {
        let program = fs::read(into.join(packed)).with_context(|| format!("no {packed}"))?;
        ensure!(program == released, "{packed} is not the released program");
    }
    let script = format!(
        "TARGET={}\n{SCRIPT}echo '{DONE}'\n",
        release.architecture.triple()
    );
    fs::write(into.join("script"), script).context("cannot write the script")
}

/// Boots a kernel with the tree and runs the script in it.
fn boot(looked: &Looked<'_>, tree: &Path) -> Result<()> {
    let architecture = looked.release.architecture;
    let series = match architecture {
        Architecture::X86_64 => SERIES.to_owned(),
        Architecture::Aarch64 => format!("{SERIES}-{}", architecture.debian()),
    };
    let programs = build::static_programs(looked.places, architecture)?;
    let fleet = Fleet::prepare(looked.places.clone(), vec![programs], false, JOB_TIME_MAX_S)?
        .with_tree(tree);
    let kernel = match fleet.kernel(&series)? {
        Found::Kernel(kernel) => kernel,
        Found::Gone(why) => bail!("{series}: {why}"),
    };
    let mut said = Vec::new();
    let ended = fleet.boot(&kernel, vec![enter(architecture)], |line| {
        if let Said::Line(line) = line {
            said.push((*line).to_owned());
        }
    })?;
    if let Some(failure) = ended.failure() {
        bail!("{failure}\nIn the tree:\n{}", said.join("\n"));
    }
    ensure!(
        said.last().is_some_and(|line| line == DONE),
        "the packages do not work:\n{}",
        said.join("\n")
    );
    Ok(())
}

/// The command that changes into the tree: nothing outside of it has a dynamic linker.
fn enter(architecture: Architecture) -> Vec<String> {
    let linker = match architecture {
        Architecture::X86_64 => "lib64/ld-linux-x86-64.so.2",
        Architecture::Aarch64 => "lib/ld-linux-aarch64.so.1",
    };
    let multiarch = architecture.multiarch();
    let in_tree = |path: &str| format!("{TREE}/{path}");
    [
        in_tree(linker),
        "--library-path".to_owned(),
        [
            in_tree(&format!("lib/{multiarch}")),
            in_tree(&format!("usr/lib/{multiarch}")),
        ]
        .join(":"),
        in_tree("usr/sbin/chroot"),
        TREE.to_owned(),
        "/bin/sh".to_owned(),
        "/packages/script".to_owned(),
    ]
    .to_vec()
}
