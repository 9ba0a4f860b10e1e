//! `cargo xtask build`: the loader, with stable Rust alone.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;

use crate::{command, dist, golang, places::Places};

/// Builds mptcp-trace (the committed BPF object is built into it; no BPF toolchain is needed).
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask build\n  cargo xtask build --release")]
pub(crate) struct Args {
    /// Build optimised
    #[arg(long)]
    release: bool,
}

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

/// Builds tracer and lab without a dynamic loader, since the initramfs holds no library. The tracer is the very program of
/// a release; the lab is built beside it, since the tracer holds most of it anyway (for `demo`).
pub(crate) fn static_programs(places: &Places) -> Result<StaticPrograms> {
    let tracer = dist::program_and_lab(places)?;
    Ok(StaticPrograms {
        lab: tracer.with_file_name("mptcp-lab"),
        tracer,
        go: None,
    })
}
