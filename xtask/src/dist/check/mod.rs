//! Does the release work as intended? Every step runs, even after a failure.

mod container;
mod debian;
mod documents;
mod lint;
mod pages;
mod rpm;
mod same;
mod tarball;
mod unit;

use std::process::Command;

use anyhow::{Result, bail};

use super::Release;
use crate::{
    command::{self, is_root, say},
    host_packages::{self, Need},
    places::Places,
    tally::Tally,
};

/// Programs that check a release.
pub(crate) const NEEDS: [Need; 9] = [
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
    release: &'a Release,
    /// Compile a second time.
    rebuild: bool,
}

type Step = fn(&Looked<'_>) -> Result<()>;

/// Steps by name; those in a fresh Debian tree come last, because they take longest.
const STEPS: [(&str, Step); 8] = [
    ("SHA256SUMS", sums),
    ("the same bytes a second time", same::step),
    ("man pages without a warning", pages::manual),
    ("completions, typed into real shells", pages::completions),
    ("Dockerfile and DaemonSet", container::step),
    ("the tarball runs where it is unpacked", tarball::step),
    (
        "the .deb installs, runs doctor and is removed without a trace in a fresh Debian; the unit is right",
        debian::step,
    ),
    ("the .rpm is whole, installs and is removed", rpm::step),
];

/// Checks a release.
pub(super) fn verb(places: &Places, release: &Release, rebuild: bool) -> Result<Tally> {
    if !is_root() {
        bail!(
            "checking a release needs root: it is installed in a separate tree; type: sudo cargo xtask dist --check"
        );
    }
    host_packages::provide(&NEEDS, "checking a release")?;
    let looked = Looked {
        places,
        release,
        rebuild,
    };
    debian::clean(&looked)?;
    let mut tally = Tally::default();
    let mut lines = Vec::new();
    for (name, step) in STEPS {
        lines.push(run(&looked, name, step, &mut tally));
    }
    for (name, program, step) in lint::STEPS {
        lines.push(match lint::skipped(name, program) {
            None => run(&looked, name, step, &mut tally),
            Some(line) => {
                tally.add(Tally::one_skipped());
                line
            }
        });
    }
    debian::clean(&looked)?;
    println!("{}", lines.join("\n"));
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
    // Program, tarball, .deb, .rpm and bill of materials.
    const FILES: usize = 5;
    if said.lines().count() != FILES {
        bail!("SHA256SUMS does not list exactly the {FILES} files of a release:\n{said}");
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
