//! `cargo xtask build`: the loader, with stable Rust alone.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail};

use crate::{command, dist, golang, places::Places};

/// Builds mptcp-trace (the committed BPF object is built into it; no BPF toolchain is needed).
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask build\n  cargo xtask build --release")]
pub(crate) struct Args {
    /// Build optimised
    #[arg(long)]
    release: bool,
}

/// Triple of the static builds that go into virtual machines.
pub(crate) const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds, and says where the program is.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let program = loader(&Places::find()?, args.release)?;
    println!("{}", program.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the loader for this machine and returns its path.
pub(crate) fn loader(places: &Places, release: bool) -> Result<PathBuf> {
    program(places, release, "mptcp-trace", "mptcp-trace")
}

/// Builds the lab for this machine and returns its path.
pub(crate) fn lab(places: &Places, release: bool) -> Result<PathBuf> {
    program(places, release, "mptcp-trace-lab", "mptcp-lab")
}

fn program(places: &Places, release: bool, package: &str, name: &str) -> Result<PathBuf> {
    let mut cargo = command::cargo(&places.root);
    cargo.args(["build", "--package", package]);
    if release {
        cargo.arg("--release");
    }
    command::run(&mut cargo, &format!("cannot build {name}"))?;
    Ok(places
        .target
        .join(if release { "release" } else { "debug" })
        .join(name))
}

/// The programs that run inside a virtual machine: one static file each.
#[derive(Clone)]
pub(crate) struct StaticPrograms {
    /// The tracer.
    pub(crate) tracer: PathBuf,
    /// The lab: init, and the matrix.
    pub(crate) lab: PathBuf,
    /// The lab's program in Go, where it could be built.
    pub(crate) go: Option<PathBuf>,
}

impl StaticPrograms {
    /// Those that somebody else has built.
    pub(crate) fn given(tracer: &Path, lab: &Path) -> Self {
        Self {
            tracer: tracer.to_owned(),
            lab: lab.to_owned(),
            go: None,
        }
    }

    /// With the lab's program in Go too. What needs it is skipped where it cannot be built.
    pub(crate) fn with_go(mut self, places: &Places) -> Self {
        match golang::program(places) {
            Ok(program) => self.go = Some(program),
            Err(error) => command::say(format_args!("{error:#}; going on without")),
        }
        self
    }
}

/// Builds tracer and lab without a dynamic loader, since the initramfs holds no library.
pub(crate) fn static_programs(places: &Places) -> Result<StaticPrograms> {
    static_programs_with(places, "lab")
}

/// The same with a lab that is as fast as it can be, for measuring.
pub(crate) fn fast_static_programs(places: &Places) -> Result<StaticPrograms> {
    static_programs_with(places, "release")
}

fn static_programs_with(places: &Places, lab_profile: &str) -> Result<StaticPrograms> {
    if !cfg!(target_arch = "x86_64") {
        bail!(
            "cannot build for the kernels of the matrix: they are for x86-64, this machine is not"
        );
    }
    // The tracer is the very program of a release: it takes long to link, so it is linked once.
    let tracer = dist::program(places)?;
    command::say("building a static mptcp-lab");
    // Its own directory: other RUSTFLAGS would throw away the ordinary build's artifacts.
    let target = places.target.join("static");
    let mut cargo = command::cargo(&places.root);
    cargo
        .args(["build", "--quiet", "--profile", lab_profile])
        .args(["--target", STATIC_TARGET])
        .args(["--package", "mptcp-trace-lab", "--bins"])
        .arg("--target-dir")
        .arg(&target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    command::run(
        &mut cargo,
        "cannot build the static lab for virtual machines",
    )?;
    Ok(StaticPrograms {
        tracer,
        lab: target
            .join(STATIC_TARGET)
            .join(lab_profile)
            .join("mptcp-lab"),
        go: None,
    })
}
