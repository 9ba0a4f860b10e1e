//! `cargo xtask dist`: builds all files of a release from one static program, and checks that they
//! install, run and uninstall cleanly.

mod changelog;
mod check;
mod licences;
mod packages;
mod sbom;
mod stage;
mod sums;
mod tarball;
mod texts;

use std::{
    collections::BTreeSet,
    env, fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    architecture::Architecture,
    command::{self, say},
    places::{self, Places},
    static_programs,
    tally::Tally,
};

pub(crate) use check::NEEDS as CHECK_NEEDS;
pub(crate) use packages::NEEDS as PACK_NEEDS;

/// Builds a release: for each architecture a static program, .deb, .rpm, tarball and SBOM; SHA256SUMS.
///
/// Writes to target/dist/out. The build is reproducible: timestamps are those of the last commit, or
/// `SOURCE_DATE_EPOCH`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask dist\n  \
    cargo xtask dist --target aarch64\n  \
    cargo xtask dist --check\n  \
    cargo xtask dist --check --rebuild")]
pub(crate) struct Args {
    /// Only for this architecture (repeatable; default: all)
    #[arg(long, value_name = "ARCH")]
    target: Vec<Architecture>,
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
    architecture: Architecture,
    /// The version in Cargo.toml.
    version: String,
    /// The timestamp of all files, in seconds since 1970.
    epoch: i64,
    /// Path of the static program.
    program: PathBuf,
    /// Path of the static program for this machine: the same, or that of another architecture.
    host: PathBuf,
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
        format!("{}-{}-linux", self.stem(), self.architecture.name())
    }

    fn deb(&self) -> PathBuf {
        let architecture = self.architecture.debian();
        self.out
            .join(format!("mptcp-trace_{}-1_{architecture}.deb", self.version))
    }

    fn rpm(&self) -> PathBuf {
        let architecture = self.architecture.name();
        self.out
            .join(format!("{}-1.{architecture}.rpm", self.stem()))
    }

    fn tarball(&self) -> PathBuf {
        self.out.join(format!("{}.tar.gz", self.program_name()))
    }

    fn sbom(&self) -> PathBuf {
        self.out.join(format!("{}.cdx.json", self.program_name()))
    }

    /// All of them.
    fn files(&self) -> [PathBuf; 5] {
        let program = self.out.join(self.program_name());
        [program, self.tarball(), self.deb(), self.rpm(), self.sbom()]
    }
}

/// Builds the release, and checks it on request.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    let architectures: BTreeSet<Architecture> = match args.target.as_slice() {
        [] => Architecture::ALL.into(),
        named => named.iter().copied().collect(),
    };
    let releases = make(&places, &architectures)?;
    print!("{}", sums::of(&releases)?);
    let out = out(&places);
    say(format_args!("the release is in {}", out.display()));
    if !args.check {
        return Ok(ExitCode::SUCCESS);
    }
    let tally = check::verb(&places, &releases, args.rebuild)?;
    println!("{tally}");
    Ok(tally.exit_code())
}

/// Builds and checks the release for this machine's architecture, as a step of `cargo xtask test`.
pub(crate) fn step(places: &Places) -> Result<Tally> {
    let releases = make(places, &[Architecture::HOST].into())?;
    check::verb(places, &releases, false)
}

/// Directory of the finished files.
fn out(places: &Places) -> PathBuf {
    places.target.join("dist/out")
}

/// Builds the release of each architecture.
fn make(places: &Places, architectures: &BTreeSet<Architecture>) -> Result<Vec<Release>> {
    let epoch = epoch(places)?;
    let target = static_programs::directory(places);
    let out = out(places);
    places::make_empty(&out)?;
    // This machine's program prints the completions.
    let host = static_programs::program(places, Architecture::HOST)?;
    let mut releases = Vec::new();
    for &architecture in architectures {
        let program = if architecture == Architecture::HOST {
            host.clone()
        } else {
            static_programs::program(places, architecture)?
        };
        let release = Release {
            architecture,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch,
            program,
            host: host.clone(),
            stage: target.join(architecture.triple()).join("release/dist"),
            target: target.clone(),
            out: out.clone(),
        };
        pack(places, &release)?;
        releases.push(release);
    }
    sums::write(&releases, &out)?;
    Ok(releases)
}

/// Creates the release's files from the program, which is already built.
fn pack(places: &Places, release: &Release) -> Result<()> {
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
    packages::rpm(places, release, &licences::for_rpm(&bill)?)
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
