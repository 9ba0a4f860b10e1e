//! `cargo xtask dist`: builds all files of a release from one static program, and checks that they
//! install, run and uninstall cleanly.

mod build;
mod changelog;
mod check;
mod licences;
mod packages;
mod sbom;
mod stage;
mod sums;
mod tarball;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    command::{self, say},
    places::{self, Places, STATIC_TARGET},
    tally::Tally,
};

pub(crate) use check::NEEDS as CHECK_NEEDS;
pub(crate) use packages::NEEDS as PACK_NEEDS;

/// Builds a release: static program, .deb, .rpm, tarball, SBOM, SHA256SUMS.
///
/// Writes to target/dist. The build is reproducible: timestamps are those of the last commit, or
/// `SOURCE_DATE_EPOCH`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask dist\n  \
    cargo xtask dist --check\n  \
    cargo xtask dist --check --rebuild")]
pub(crate) struct Args {
    /// Also check the result: install it in a fresh Debian tree, run it there, remove it (needs
    /// root; installs the programs that check)
    #[arg(long)]
    check: bool,
    /// With --check: also compile a second time in another directory, and compare the programs byte
    /// by byte
    #[arg(long, requires = "check")]
    rebuild: bool,
}

/// Maintainer of the packages, as in contrib/debian/control.
const MAINTAINER: &str = "the mptcp-trace authors <mptcp-trace@mptcp-trace.invalid>";

/// A release that is being built.
pub(crate) struct Release {
    /// The version in Cargo.toml.
    version: String,
    /// The timestamp of all files, in seconds since 1970.
    epoch: i64,
    /// Path of the static program.
    program: PathBuf,
    /// Directory that holds the files before they are packed.
    stage: PathBuf,
    /// Target directory for cargo's packaging tools; it contains the stage.
    target: PathBuf,
    /// Output directory.
    out: PathBuf,
}

/// Names of the release's files.
impl Release {
    /// Prefix of all names: program and version.
    fn stem(&self) -> String {
        format!("mptcp-trace-{}", self.version)
    }

    /// Name of the bare program.
    fn program_name(&self) -> String {
        format!("{}-x86_64-linux", self.stem())
    }

    fn deb(&self) -> PathBuf {
        self.out
            .join(format!("mptcp-trace_{}-1_amd64.deb", self.version))
    }

    fn rpm(&self) -> PathBuf {
        self.out.join(format!("{}-1.x86_64.rpm", self.stem()))
    }

    fn tarball(&self) -> PathBuf {
        self.out.join(format!("{}.tar.gz", self.program_name()))
    }

    fn sbom(&self) -> PathBuf {
        self.out.join(format!("{}.cdx.json", self.stem()))
    }

    fn sums(&self) -> PathBuf {
        self.out.join("SHA256SUMS")
    }
}

/// Builds the release, and checks it on request.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let release = make(&places, &places.target.join("dist"))?;
    print!(
        "{}",
        fs::read_to_string(release.sums()).context("cannot read SHA256SUMS")?
    );
    say(format_args!("the release is in {}", release.out.display()));
    if !args.check {
        return Ok(ExitCode::SUCCESS);
    }
    let tally = check::verb(&places, &release, args.rebuild)?;
    println!("{tally}");
    Ok(tally.exit_code())
}

/// Builds and checks a release, as a step of `cargo xtask test`.
pub(crate) fn step(places: &Places) -> Result<Tally> {
    let release = make(places, &places.target.join("dist"))?;
    check::verb(places, &release, false)
}

/// Builds the static program of the release, and the lab's in the same directory.
pub(crate) fn program_and_lab(places: &Places) -> Result<PathBuf> {
    let target = build_directory(&places.target.join("dist"));
    build::programs(places, &target, &[LAB])
}

fn build_directory(base: &Path) -> PathBuf {
    base.join("build")
}

/// Package and program of the lab.
const LAB: (&str, &str) = ("mptcp-trace-lab", "mptcp-lab");

/// Builds the release below this directory.
fn make(places: &Places, base: &Path) -> Result<Release> {
    let epoch = epoch(places)?;
    let target = build_directory(base);
    let program = build::programs(places, &target, &[])?;
    let release = Release {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch,
        program,
        stage: target.join(STATIC_TARGET).join("release/dist"),
        target,
        out: base.join("out"),
    };
    pack(places, &release)?;
    Ok(release)
}

/// Creates the release's files from the program, which is already built.
fn pack(places: &Places, release: &Release) -> Result<()> {
    places::make_empty(&release.out)?;
    places::make_empty(&release.stage)?;
    let (bill, notices) = sbom::of(places, release)?;
    fs::write(release.sbom(), format!("{bill:#}\n"))
        .context("cannot write the bill of materials")?;
    stage::fill(places, release)?;
    let by_hand = fs::read_to_string(places.root.join("contrib/debian/copyright"))
        .context("cannot read contrib/debian/copyright")?;
    let copyright = licences::for_debian(&by_hand, &bill, &notices)?;
    fs::write(release.stage.join("copyright"), copyright).context("cannot write copyright")?;
    let program = release.out.join(release.program_name());
    fs::copy(&release.program, &program)
        .with_context(|| format!("cannot copy the program to {}", program.display()))?;
    tarball::make(release)?;
    packages::deb(places, release)?;
    packages::rpm(places, release, &licences::for_rpm(&bill)?)?;
    sums::write(release)
}

/// The timestamp of all files: `SOURCE_DATE_EPOCH`, or the time of the last commit.
fn epoch(places: &Places) -> Result<i64> {
    let said = match env::var("SOURCE_DATE_EPOCH") {
        Ok(said) => said,
        Err(_unset) => {
            let mut git = Command::new("git");
            git.args(["log", "-1", "--format=%ct"])
                .current_dir(&places.root);
            command::text(
                &mut git,
                "cannot ask git for the date of the last commit; set SOURCE_DATE_EPOCH",
            )?
        }
    };
    let said = said.trim();
    said.parse()
        .with_context(|| format!("SOURCE_DATE_EPOCH={said:?} is no number of seconds"))
}
