//! `cargo xtask kernel`: compiles small kernels in shapes that Debian does not package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::builder::PossibleValuesParser;
use sha2::{Digest as _, Sha256};

use crate::{
    apt::{self, Apt},
    command::{self, say},
    host_packages::{self, KERNEL_NEEDS},
    kernels::Kernel,
    places::{Places, make_empty},
    release,
};

pub(crate) mod shapes;

use shapes::{Edit, Shape, Symbol};

/// Builds a kernel from Debian's source with a tiny configuration, in the shape of others.
///
/// Shapes: `sol-tcp` has `mptcp_getsockopt_sol_tcp` as a function of its own; `rhel` has MPTCP off
/// by default, no IPv6 for MPTCP, and lockdown; `no-btf` has no type information, which is a
/// separate file; `llvm` is built by clang with `ThinLTO`. The result is kept in the cache;
/// `cargo xtask vm --kernel SHAPE` boots it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask kernel\n  cargo xtask kernel rhel\n  \
    cargo xtask vm --kernel rhel\n  \
    cargo xtask vm --kernel no-btf -- /bin/mptcp-trace doctor --btf /kernel.btf"
)]
pub(crate) struct Args {
    /// What the kernel is like
    #[arg(
        default_value = shapes::DEFAULT,
        value_parser = PossibleValuesParser::new(shapes::SHAPES.map(|shape| shape.name)),
    )]
    shape: String,
    /// Build again, even if the cache has this version with this configuration
    #[arg(long)]
    again: bool,
}

/// The source package: a long-term series in Debian stable that has `TCP_IS_MPTCP`.
const SOURCE: &str = "linux-source-6.12";
/// Names of the files of a finished build.
const IMAGE: &str = "bzImage";
const RELEASE: &str = "release";
const BTF: &str = "btf";

/// Builds the kernel unless it is in the cache, and prints the path of the image.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let shape = shapes::find(&args.shape)
        .ok_or_else(|| anyhow!("there is no shape of kernels named {}", args.shape))?;
    let apt = Apt::open(&places)?;
    let mut sources = apt.find(&format!("^{SOURCE}$"))?;
    sources.sort_by(|a, b| release::compare_versions(&a.version, &b.version));
    let source = sources.last().ok_or_else(|| {
        anyhow!("cannot build a kernel: Debian has no package {SOURCE}; choose another in xtask")
    })?;
    let directory = directory(&places, shape);
    let finished = directory.join(format!("{}-{}", source.version, hash(shape)));
    if args.again || !finished.join(IMAGE).is_file() {
        host_packages::provide(&KERNEL_NEEDS, "building a kernel")?;
        host_packages::provide(shape.needs, "building this kernel")?;
        let deb = apt.download(&source.name, &source.version)?;
        build(shape, &directory.join("build"), &deb, &finished)?;
        if let Some(download) = deb.parent() {
            fs::remove_dir_all(download)
                .with_context(|| format!("cannot remove {}", download.display()))?;
        }
    }
    println!("{}", finished.join(IMAGE).display());
    Ok(ExitCode::SUCCESS)
}

/// The newest kernel of a shape that was built with its present configuration; `None` if `name` is
/// no shape.
pub(crate) fn provide(places: &Places, name: &str) -> Option<Result<Kernel>> {
    shapes::find(name).map(|shape| newest(places, shape))
}

fn newest(places: &Places, shape: &Shape) -> Result<Kernel> {
    let suffix = format!("-{}", hash(shape));
    let entries = fs::read_dir(directory(places, shape));
    let newest = entries
        .ok()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(IMAGE).is_file())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            Some((name.strip_suffix(&suffix)?.to_owned(), path))
        })
        .max_by(|(a, _), (b, _)| release::compare_versions(a, b));
    let name = shape.name;
    let (_, finished) = newest.ok_or_else(|| {
        anyhow!("the kernel {name} is not built; type (it takes long): cargo xtask kernel {name}")
    })?;
    let release = fs::read_to_string(finished.join(RELEASE))
        .with_context(|| format!("cannot read the release of {}", finished.display()))?;
    let kernel = Kernel::without_modules(release.trim().to_owned(), finished.join(IMAGE));
    Ok(match shape.separate_btf {
        true => kernel.with_btf(finished.join(BTF)),
        false => kernel,
    })
}

fn directory(places: &Places, shape: &Shape) -> PathBuf {
    places.cache.join("compiled").join(shape.name)
}

/// Hash that changes with the configuration, the compiler's options and the changes of the source.
fn hash(shape: &Shape) -> String {
    let hash = Sha256::digest(shape.recipe());
    hash.iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn build(shape: &Shape, scratch: &Path, deb: &Path, finished: &Path) -> Result<()> {
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
    for edit in shape.edits {
        apply(edit, &source)?;
    }
    configure(shape, &source)?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    say(format_args!(
        "compiling the kernel with {jobs} jobs; this takes a while"
    ));
    command::run(
        make(shape, &source)
            .arg(format!("-j{jobs}"))
            .args(["--silent", IMAGE]),
        "cannot compile the kernel",
    )?;
    let map = fs::read_to_string(source.join("System.map")).context("cannot read System.map")?;
    check(shape.symbol, &map)?;
    let release = command::text(
        make(shape, &source).args(["--silent", "kernelrelease"]),
        "cannot ask for the kernel's release",
    )?;
    make_empty(finished)?;
    for (from, to) in [(".config", "config"), ("System.map", "System.map")] {
        copy(&source.join(from), &finished.join(to))?;
    }
    fs::write(finished.join(RELEASE), release).context("cannot write the kernel's release")?;
    if shape.separate_btf {
        command::output(
            Command::new("pahole")
                .arg("--btf_encode_detached")
                .arg(finished.join(BTF))
                .arg(source.join("vmlinux")),
            "cannot make the kernel's type information",
        )?;
    }
    // Copy the image last: its presence marks a finished build.
    copy(
        &source.join("arch/x86/boot").join(IMAGE),
        &finished.join(IMAGE),
    )?;
    fs::remove_dir_all(scratch).with_context(|| format!("cannot remove {}", scratch.display()))
}

/// Changes the source. A text that is missing, or occurs twice, is an error: the source is another
/// one than the shape was written for.
fn apply(edit: &Edit, source: &Path) -> Result<()> {
    let path = source.join(edit.file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", edit.file))?;
    let (file, from) = (edit.file, edit.from);
    match text.matches(from).count() {
        1 => fs::write(&path, text.replace(from, edit.to))
            .with_context(|| format!("cannot write {file}")),
        count => bail!(
            "cannot change the kernel's source: `{from}` occurs {count} times in {file}, not once; \
             adapt the shape in xtask/src/compiled/shapes.rs"
        ),
    }
}

/// Fails if the symbol that the kernel is built for is missing from its symbol table.
fn check(symbol: Option<Symbol>, map: &str) -> Result<()> {
    let mut names = map.lines().filter_map(|line| line.split(' ').nth(2));
    let (is_found, what) = match symbol {
        None => return Ok(()),
        Some(Symbol::Named(wanted)) => (names.any(|name| name == wanted), wanted),
        Some(Symbol::Containing(part)) => (names.any(|name| name.contains(part)), part),
    };
    if is_found {
        return Ok(());
    }
    bail!(
        "the kernel has no symbol {what}, so it is useless: this compiler needs other options than \
         those in xtask/src/compiled/shapes.rs"
    )
}

fn configure(shape: &Shape, source: &Path) -> Result<()> {
    let config = shape.config();
    let wanted = source.join("wanted.config");
    fs::write(&wanted, &config).context("cannot write the kernel's configuration")?;
    command::output(
        make(shape, source)
            .arg("allnoconfig")
            .env("KCONFIG_ALLCONFIG", &wanted),
        "cannot configure the kernel",
    )?;
    let got = fs::read_to_string(source.join(".config")).context("cannot read .config")?;
    let missing = not_taken(&config, &got);
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "the kernel's configuration did not take {}: add what they depend on, or remove what \
         selects them, in xtask/kernels",
        missing.join(", ")
    )
}

/// Lines of the wanted configuration that the resulting one contradicts.
fn not_taken<'a>(wanted: &'a str, got: &str) -> Vec<&'a str> {
    let is_taken = |line: &str| match shapes::unset(line) {
        Some(name) => !got.lines().any(|it| {
            it.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('='))
        }),
        None => got.lines().any(|it| it == line),
    };
    wanted
        .lines()
        .filter(|line| shapes::option(line).is_some() && !is_taken(line))
        .collect()
}

/// Builds with low priority, so that other work on the machine is not slowed down.
fn make(shape: &Shape, source: &Path) -> Command {
    let mut make = Command::new("nice");
    make.arg("make")
        .args(shape.make)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_the_kernel_did_not_take_is_reported() {
        let wanted = "# A comment\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n";
        for (got, missing) in [
            ("CONFIG_A=y\nCONFIG_B=y\n", &[][..]),
            ("CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n", &[]),
            ("CONFIG_A=y\nCONFIG_BB=y\nCONFIG_CC=y\n", &["CONFIG_B=y"]),
            (
                "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=m\n",
                &["# CONFIG_C is not set"],
            ),
        ] {
            assert_eq!(not_taken(wanted, got), missing, "{got}");
        }
    }

    #[test]
    fn a_source_is_changed_exactly_once_or_not_at_all() {
        let source = tempfile::tempdir().unwrap();
        let file = source.path().join("ctrl.c");
        let edit = Edit {
            file: "ctrl.c",
            from: "enabled = 1;",
            to: "enabled = 0;",
        };
        for (before, after) in [
            ("a enabled = 1; b", Some("a enabled = 0; b")),
            ("enabled = 1; enabled = 1;", None),
            ("", None),
        ] {
            fs::write(&file, before).unwrap();
            assert_eq!(apply(&edit, source.path()).is_ok(), after.is_some());
            let now = fs::read_to_string(&file).unwrap();
            assert_eq!(now, after.unwrap_or(before));
        }
    }

    #[test]
    fn a_kernel_without_its_symbol_is_useless() {
        let map = "ffffffff81000000 t mptcp_a\nffffffff81000010 t mptcp_b.llvm.123\n";
        for (symbol, is_good) in [
            (None, true),
            (Some(Symbol::Named("mptcp_a")), true),
            (Some(Symbol::Named("mptcp_b")), false),
            (Some(Symbol::Containing(".llvm.")), true),
            (Some(Symbol::Containing(".isra.")), false),
        ] {
            assert_eq!(check(symbol, map).is_ok(), is_good);
        }
    }
}
