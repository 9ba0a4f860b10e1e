//! `cargo xtask kernel`: builds a small kernel in which `mptcp_getsockopt_sol_tcp` is a symbol.
//!
//! Distributions' compilers inline that function, because it has a single caller. Users know its
//! name, so the probe on it must be tested on a kernel that has it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, anyhow, bail};
use sha2::{Digest as _, Sha256};

use crate::{
    apt::{self, Apt},
    command::{self, say},
    host_packages::{self, KERNEL_NEEDS},
    kernels::Kernel,
    places::{Places, make_empty},
    release,
};

/// Builds the kernel `sol-tcp`: Debian's source, a tiny configuration, and one compiler option.
///
/// The result is kept in the cache; `cargo xtask vm --kernel sol-tcp` boots it.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask kernel\n  cargo xtask vm --kernel sol-tcp")]
pub(crate) struct Args {
    /// Build again, even if the cache has this version with this configuration
    #[arg(long)]
    again: bool,
}

/// The source package: a long-term series in Debian stable that has `TCP_IS_MPTCP`.
const SOURCE: &str = "linux-source-6.12";
const CONFIG: &str = include_str!("../sol-tcp.config");
/// Prevents the inlining of functions with one caller, so that they can be probed.
const COMPILER_OPTIONS: &str = "KCFLAGS=-fno-inline-functions-called-once";
/// This symbol must be in System.map.
const SYMBOL: &str = "mptcp_getsockopt_sol_tcp";
/// Names of the files of a finished build.
const IMAGE: &str = "bzImage";
const RELEASE: &str = "release";

/// Builds the kernel unless it is in the cache, and prints the path of the image.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let apt = Apt::open(&places)?;
    let mut sources = apt.find(&format!("^{SOURCE}$"))?;
    sources.sort_by(|a, b| release::compare_versions(&a.version, &b.version));
    let source = sources.last().ok_or_else(|| {
        anyhow!("cannot build a kernel: Debian has no package {SOURCE}; choose another in xtask")
    })?;
    let finished = directory(&places).join(format!("{}-{}", source.version, config_hash()));
    if args.again || !finished.join(IMAGE).is_file() {
        host_packages::provide(&KERNEL_NEEDS, "building a kernel")?;
        let deb = apt.download(&source.name, &source.version)?;
        build(&directory(&places).join("build"), &deb, &finished)?;
        if let Some(download) = deb.parent() {
            fs::remove_dir_all(download)
                .with_context(|| format!("cannot remove {}", download.display()))?;
        }
    }
    println!("{}", finished.join(IMAGE).display());
    Ok(ExitCode::SUCCESS)
}

/// The newest kernel that was built with this configuration.
pub(crate) fn provide(places: &Places) -> Result<Kernel> {
    let suffix = format!("-{}", config_hash());
    let entries = fs::read_dir(directory(places)).ok().into_iter().flatten();
    let newest = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(IMAGE).is_file())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            Some((name.strip_suffix(&suffix)?.to_owned(), path))
        })
        .max_by(|(a, _), (b, _)| release::compare_versions(a, b));
    let (_, finished) = newest.ok_or_else(|| {
        anyhow!("the kernel sol-tcp is not built; type (it takes long): cargo xtask kernel")
    })?;
    let release = fs::read_to_string(finished.join(RELEASE))
        .with_context(|| format!("cannot read the release of {}", finished.display()))?;
    Ok(Kernel::without_modules(
        release.trim().to_owned(),
        finished.join(IMAGE),
    ))
}

fn directory(places: &Places) -> PathBuf {
    places.cache.join("sol-tcp")
}

/// Hash that changes with the configuration and the compiler options.
fn config_hash() -> String {
    let hash = Sha256::new()
        .chain_update(CONFIG)
        .chain_update(COMPILER_OPTIONS)
        .finalize();
    hash.iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn build(scratch: &Path, deb: &Path, finished: &Path) -> Result<()> {
    make_empty(scratch)?;
    say("unpacking the kernel's source");
    apt::unpack(deb, scratch)?;
    let archive = scratch.join(format!("usr/src/{SOURCE}.tar.xz"));
    command::output(
        Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(scratch),
        &format!("cannot unpack {}", archive.display()),
    )?;
    let source = scratch.join(SOURCE);
    configure(&source)?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    say(format_args!(
        "compiling the kernel with {jobs} jobs; this takes a while"
    ));
    command::run(
        make(&source)
            .arg(format!("-j{jobs}"))
            .args(["--silent", COMPILER_OPTIONS, IMAGE]),
        "cannot compile the kernel",
    )?;
    let map = fs::read_to_string(source.join("System.map")).context("cannot read System.map")?;
    if !map
        .lines()
        .any(|line| line.split(' ').nth(2) == Some(SYMBOL))
    {
        bail!(
            "the kernel has no symbol {SYMBOL}, so it is useless: this compiler inlines the \
             function despite {COMPILER_OPTIONS}"
        );
    }
    let release = command::text(
        make(&source).args(["--silent", "kernelrelease"]),
        "cannot ask for the kernel's release",
    )?;
    make_empty(finished)?;
    for (from, to) in [(".config", "config"), ("System.map", "System.map")] {
        copy(&source.join(from), &finished.join(to))?;
    }
    fs::write(finished.join(RELEASE), release).context("cannot write the kernel's release")?;
    // Copy the image last: its presence marks a finished build.
    copy(
        &source.join("arch/x86/boot").join(IMAGE),
        &finished.join(IMAGE),
    )?;
    fs::remove_dir_all(scratch).with_context(|| format!("cannot remove {}", scratch.display()))
}

fn configure(source: &Path) -> Result<()> {
    let wanted = source.join("sol-tcp.config");
    fs::write(&wanted, CONFIG).context("cannot write the kernel's configuration")?;
    command::output(
        make(source)
            .arg("allnoconfig")
            .env("KCONFIG_ALLCONFIG", &wanted),
        "cannot configure the kernel",
    )?;
    let got = fs::read_to_string(source.join(".config")).context("cannot read .config")?;
    let missing: Vec<&str> = CONFIG
        .lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter(|wanted| !got.lines().any(|line| line == *wanted))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "the kernel's configuration did not take {}: what they depend on is off; add it to \
         xtask/sol-tcp.config",
        missing.join(" ")
    )
}

/// Builds with low priority, so that other work on the machine is not slowed down.
fn make(source: &Path) -> Command {
    let mut make = Command::new("nice");
    make.arg("make")
        .current_dir(source)
        .env_remove("MAKEFLAGS")
        .env("KBUILD_BUILD_TIMESTAMP", "");
    make
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(|_| ())
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
