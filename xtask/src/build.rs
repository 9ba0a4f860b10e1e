//! `cargo xtask build`: builds the loader with stable Rust only.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;

use crate::{
    architecture::Architecture, command, flavour, golang, places::Places, static_programs,
};

/// Builds mptcp-trace. It embeds the committed BPF object, so no BPF toolchain is needed.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask build\n  \
    cargo xtask build --release\n  \
    cargo xtask build --target aarch64")]
pub(crate) struct Args {
    /// Build with optimisations
    #[arg(long)]
    release: bool,
    /// Build for this architecture: a static program, as in a release. For another one than this
    /// machine's, a linker is installed, and Rust's library is compiled unless rustup has it
    #[arg(long, value_name = "ARCH")]
    target: Option<Architecture>,
}

/// Builds the loader and prints its path.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let program = match args.target {
        Some(architecture) => static_programs::program(&places, architecture)?,
        None => loader(&places, args.release)?,
    };
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
    pub(crate) architecture: Architecture,
    /// The tracer.
    pub(crate) tracer: PathBuf,
    /// The lab, which is also init.
    pub(crate) lab: PathBuf,
    /// The lab's Go program; `None` if it was not built.
    pub(crate) go: Option<PathBuf>,
}

impl StaticPrograms {
    /// Uses programs that were built elsewhere.
    pub(crate) fn given(architecture: Architecture, tracer: &Path, lab: &Path) -> Self {
        Self {
            architecture,
            tracer: tracer.to_owned(),
            lab: lab.to_owned(),
            go: None,
        }
    }

    /// Adds the lab's Go program. If its build fails, the tests that need it are skipped.
    pub(crate) fn with_go(mut self, places: &Places) -> Self {
        match golang::program(places, self.architecture) {
            Ok(program) => self.go = Some(program),
            Err(error) => command::say(format_args!("{error:#}; continuing without it")),
        }
        self
    }
}

/// Builds the tracer and the lab as static programs, since the initramfs holds no libraries. The
/// tracer is built as for a release. The lab is built in the same run: the tracer contains most of
/// its code anyway, for `demo`.
pub(crate) fn static_programs(
    places: &Places,
    architecture: Architecture,
) -> Result<StaticPrograms> {
    let tracer = static_programs::program_and_lab(places, architecture)?;
    Ok(StaticPrograms {
        architecture,
        lab: tracer.with_file_name("mptcp-lab"),
        tracer,
        go: None,
    })
}

/// Builds the static programs for every architecture of these kernels.
pub(crate) fn for_kernels(places: &Places, kernels: &[String]) -> Result<Vec<StaticPrograms>> {
    flavour::architectures_of(kernels)
        .into_iter()
        .map(|architecture| static_programs(places, architecture))
        .collect()
}
