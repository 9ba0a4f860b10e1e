//! Does the release work as intended? Every step runs, even after a failure.

mod container;
mod debian;
mod documents;
mod foreign;
mod lint;
mod pages;
mod pods;
mod rpm;
mod same;
mod tarball;
mod unit;

use std::process::Command;

use anyhow::{Result, bail};

use super::Release;
use crate::{
    architecture::Architecture,
    command::{self, is_root, say},
    host_packages::{self, Need},
    kubernetes,
    places::Places,
    tally::Tally,
};

/// Programs that check a release.
pub(crate) const NEEDS: [Need; 10] = [
    Need {
        what: "cpio",
        package: "cpio",
    },
    Need {
        what: "man",
        package: "man-db",
    },
    Need {
        what: "mmdebstrap",
        package: "mmdebstrap",
    },
    Need {
        what: "rpm",
        package: "rpm",
    },
    Need {
        what: "systemd-analyze",
        package: "systemd",
    },
    Need {
        what: "zsh",
        package: "zsh",
    },
    Need {
        what: "fish",
        package: "fish",
    },
    Need {
        what: "bash",
        package: "bash",
    },
    Need {
        what: "python3",
        package: "python3",
    },
    Need {
        what: "/usr/lib/python3/dist-packages/yaml/__init__.py",
        package: "python3-yaml",
    },
];

/// Where both packages install their documents.
const DOCUMENTS: &str = "usr/share/doc/mptcp-trace";

/// Input of a check.
struct Looked<'a> {
    places: &'a Places,
    /// The releases of all architectures.
    releases: &'a [Release],
    /// The one that is checked.
    release: &'a Release,
    /// Compile a second time.
    rebuild: bool,
}

type Step = fn(&Looked<'_>) -> Result<()>;

/// What a step needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing but the files.
    Files,
    /// A kernel that can execute the program.
    ItsKernel,
    /// A virtual machine, because this kernel cannot execute the program.
    OtherKernel,
}

/// Steps by name; those in a fresh Debian tree come last, because they take longest.
const STEPS: [(&str, Needs, Step); 10] = [
    ("SHA256SUMS", Needs::Files, sums),
    ("the same bytes a second time", Needs::Files, same::step),
    ("man pages without a warning", Needs::Files, pages::manual),
    (
        "completions, typed into real shells",
        Needs::ItsKernel,
        pages::completions,
    ),
    (
        "Dockerfile and DaemonSet",
        Needs::ItsKernel,
        container::step,
    ),
    (
        "the DaemonSet's container, in a chroot, traces and names pods, also without hostPID",
        Needs::ItsKernel,
        pods::in_chroot,
    ),
    (
        "the tarball runs where it is unpacked",
        Needs::ItsKernel,
        tarball::step,
    ),
    (
        "the .deb installs, runs doctor and is removed without a trace in a fresh Debian; the unit is right",
        Needs::ItsKernel,
        debian::step,
    ),
    (
        "the .rpm is whole, installs and is removed",
        Needs::ItsKernel,
        rpm::step,
    ),
    (
        "the packages work in a fresh Debian on a kernel of their architecture",
        Needs::OtherKernel,
        foreign::step,
    ),
];

/// Checks a release.
pub(super) fn verb(places: &Places, releases: &[Release], rebuild: bool) -> Result<Tally> {
    if !is_root() {
        bail!(
            "checking a release needs root: it is installed in a separate tree; type: sudo cargo xtask dist --check"
        );
    }
    host_packages::provide(&NEEDS, "checking a release")?;
    let mut tally = Tally::default();
    for release in releases {
        let looked = Looked {
            places,
            releases,
            release,
            rebuild,
        };
        tally.add(one(&looked)?);
    }
    Ok(tally)
}

/// Checks the release of one architecture.
fn one(looked: &Looked<'_>) -> Result<Tally> {
    debian::clean(looked)?;
    let mut tally = Tally::default();
    let mut lines = Vec::new();
    let is_foreign = looked.release.architecture != Architecture::HOST;
    for (name, needs, step) in STEPS {
        let is_possible = match needs {
            Needs::Files => true,
            Needs::ItsKernel => !is_foreign,
            Needs::OtherKernel => is_foreign,
        };
        if !is_possible {
            continue;
        }
        lines.push(run(looked, name, step, &mut tally));
    }
    let with_podman = (pods::WITH_PODMAN, "podman", pods::with_podman as Step);
    let with_podman = (!is_foreign).then_some(with_podman);
    let mut optional: Vec<(&str, Option<String>, Step)> = Vec::new();
    for (name, program, step) in lint::STEPS.into_iter().chain(with_podman) {
        optional.push((name, lint::skipped(name, program), step));
    }
    let fetched = kubernetes::validator(looked.places).err();
    let name = "the DaemonSet is valid by the schema of Kubernetes";
    let why = fetched.map(|why| format!("skipped: {why:#} ({name})"));
    optional.push((name, why, container::schema));
    for (name, skipped, step) in optional {
        lines.push(match skipped {
            None => run(looked, name, step, &mut tally),
            Some(line) => {
                tally.add(Tally::one_skipped());
                line
            }
        });
    }
    debian::clean(looked)?;
    println!(
        "{}:\n{}",
        looked.release.architecture.name(),
        lines.join("\n")
    );
    Ok(tally)
}

/// Runs a step, and returns its line.
fn run(looked: &Looked<'_>, name: &str, step: Step, tally: &mut Tally) -> String {
    say(format_args!("dist: {name}"));
    let outcome = step(looked);
    tally.add(Tally::of(outcome.is_ok()));
    match outcome {
        Ok(()) => format!("ok      {name}"),
        Err(error) => {
            command::report(&error);
            format!("FAILED  {name}")
        }
    }
}

fn sums(looked: &Looked<'_>) -> Result<()> {
    let mut check = Command::new("sha256sum");
    check
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(&looked.release.out);
    let said = command::text(&mut check, "a file is not what SHA256SUMS says")?;
    let files: usize = looked.releases.iter().map(|it| it.files().len()).sum();
    if said.lines().count() != files {
        bail!("SHA256SUMS does not list exactly the {files} files of the release:\n{said}");
    }
    Ok(())
}

/// Runs a program; fails with its output unless it prints nothing and exits with 0.
fn silent(command: &mut Command, purpose: &str) -> Result<()> {
    let output = command.stdin(std::process::Stdio::null()).output()?;
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() && said.is_empty() {
        return Ok(());
    }
    bail!(
        "{purpose}: it {} and said:\n{}",
        command::describe(output.status),
        String::from_utf8_lossy(&said)
    )
}
