//! Builds .deb and .rpm with the tools of their own distributions, debhelper and rpmbuild, from the
//! metadata in contrib/debian/ and contrib/rpm/. cargo's packaging tools take longer to build than
//! all of mptcp-trace.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{MAINTAINER, Release, changelog, stage};
use crate::{
    command::{self, say},
    host_packages::{self, Need},
    places::{self, Places},
};

/// Programs that build the packages.
pub(crate) const NEEDS: [Need; 2] = [
    Need {
        what: "dh_builddeb",
        package: "debhelper",
    },
    Need {
        what: "rpmbuild",
        package: "rpm",
    },
];

/// Files of the stage, and their directories in the .deb.
const DEB_FILES: [(&str, &str); 11] = [
    ("bin/mptcp-trace", "usr/bin/mptcp-trace"),
    (
        "completions/mptcp-trace.bash",
        "usr/share/bash-completion/completions/mptcp-trace",
    ),
    (
        "completions/_mptcp-trace",
        "usr/share/zsh/vendor-completions/_mptcp-trace",
    ),
    (
        "completions/mptcp-trace.fish",
        "usr/share/fish/vendor_completions.d/mptcp-trace.fish",
    ),
    ("contrib/serve.toml", "etc/mptcp-trace/serve.toml"),
    (
        "compressed/CHANGELOG.md.gz",
        "usr/share/doc/mptcp-trace/changelog.gz",
    ),
    (
        "compressed/changelog.Debian.gz",
        "usr/share/doc/mptcp-trace/changelog.Debian.gz",
    ),
    ("README.md", "usr/share/doc/mptcp-trace/README.md"),
    ("copyright", "usr/share/doc/mptcp-trace/copyright"),
    ("LICENSE-APACHE", "usr/share/doc/mptcp-trace/LICENSE-APACHE"),
    ("sbom.cdx.json", "usr/share/doc/mptcp-trace/sbom.cdx.json"),
];
/// Directories of the stage, and where the .deb installs everything below them. The documents lie
/// as in the source, so that the links between them work.
const DEB_FOLDERS: [(&str, &str); 7] = [
    ("compressed/man", "usr/share/man/man1"),
    ("docs", "usr/share/doc/mptcp-trace/docs"),
    ("captures", "usr/share/doc/mptcp-trace/captures"),
    (
        "contrib/grafana",
        "usr/share/doc/mptcp-trace/examples/grafana",
    ),
    (
        "contrib/kubernetes",
        "usr/share/doc/mptcp-trace/examples/kubernetes",
    ),
    ("contrib/pcp", "usr/share/doc/mptcp-trace/examples/pcp"),
    (
        "contrib/prometheus",
        "usr/share/doc/mptcp-trace/examples/prometheus",
    ),
];
/// Files in contrib/ that debhelper reads.
const DEBHELPER_FILES: [&str; 3] = [
    "debian/control",
    "debian/mptcp-trace.lintian-overrides",
    "systemd/mptcp-trace.service",
];
/// The debhelper steps. They neither enable nor start the service: that is the administrator's
/// decision.
const DEB_STEPS: [&[&str]; 7] = [
    &["dh_lintian"],
    &[
        "dh_installsystemd",
        "--no-enable",
        "--no-start",
        "--no-stop-on-upgrade",
    ],
    &["dh_installdeb"],
    &["dh_fixperms"],
    &["dh_gencontrol"],
    &["dh_md5sums"],
    &["dh_builddeb", "--destdir=."],
];

/// Builds the .deb.
pub(super) fn deb(places: &Places, release: &Release) -> Result<()> {
    say("packing the .deb");
    host_packages::provide(&NEEDS, "packing the .deb")?;
    let work = release.target.join("debian");
    places::make_empty(&work)?;
    let debian = work.join("debian");
    for file in DEBHELPER_FILES {
        let from = places.root.join("contrib").join(file);
        let name = from.file_name().unwrap_or_default().to_owned();
        stage::copy(&from, &debian.join(name))?;
    }
    let log = debian.join("changelog");
    fs::write(&log, changelog::for_dpkg(places, release)?)
        .context("cannot write debian/changelog")?;
    stage::compress(&log, &release.stage.join("compressed/changelog.Debian.gz"))?;
    let tree = debian.join("mptcp-trace");
    for (from, to) in DEB_FILES {
        stage::copy(&release.stage.join(from), &tree.join(to))?;
    }
    for (from, to) in DEB_FOLDERS {
        let from = release.stage.join(from);
        for file in stage::below(&from)? {
            stage::copy(&file, &tree.join(to).join(file.strip_prefix(&from)?))?;
        }
    }
    for step in DEB_STEPS {
        let [program, options @ ..] = step else {
            continue;
        };
        debhelper(program, options, &work, release)?;
    }
    let name = release.deb();
    let name = name.file_name().unwrap_or_default();
    fs::copy(work.join(name), release.deb())
        .with_context(|| format!("debhelper made no {}", name.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

fn debhelper(program: &str, options: &[&str], work: &Path, release: &Release) -> Result<()> {
    let mut tool = Command::new(program);
    tool.args(options)
        .current_dir(work)
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .env("DEB_HOST_ARCH", release.architecture.debian())
        // All files belong to root, even if an ordinary user packs them.
        .env("DEB_RULES_REQUIRES_ROOT", "no");
    command::output(&mut tool, "cannot pack the .deb").map(drop)
}

/// Builds the .rpm; `licence` is the expression for everything in it.
pub(super) fn rpm(places: &Places, release: &Release, licence: &str) -> Result<()> {
    say("packing the .rpm");
    host_packages::provide(&NEEDS, "packing the .rpm")?;
    let work = release.target.join("rpmbuild");
    places::make_empty(&work)?;
    let log = work.join("changelog");
    fs::write(&log, changelog::for_rpm(places, release)?)
        .context("cannot write the changelog of the .rpm")?;
    let defines = [
        format!("_topdir {}", work.display()),
        format!("_rpmdir {}", release.out.display()),
        "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm".to_owned(),
        format!("dist_version {}", release.version),
        format!("dist_licence {licence}"),
        format!("dist_maintainer {MAINTAINER}"),
        format!("dist_changelog {}", log.display()),
        format!("dist_stage {}", release.stage.display()),
        // Every version of rpm reads gzip.
        "_binary_payload w9.gzdio".to_owned(),
        // Settings that would otherwise depend on the time and place of the build.
        "_buildhost localhost".to_owned(),
        "use_source_date_epoch_as_buildtime 1".to_owned(),
        "source_date_epoch_from_changelog 0".to_owned(),
        "clamp_mtime_to_source_date_epoch 1".to_owned(),
        // Package the program unchanged.
        "debug_package %{nil}".to_owned(),
        "__os_install_post %{nil}".to_owned(),
        "_build_id_links none".to_owned(),
    ];
    let mut tool = Command::new("rpmbuild");
    let target = format!("{}-linux", release.architecture.name());
    tool.args(["-bb", "--quiet", "--nodeps", "--target", &target]);
    for define in &defines {
        tool.args(["--define", define]);
    }
    tool.arg(places.root.join("contrib/rpm/mptcp-trace.spec"))
        .current_dir(&work)
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    command::output(&mut tool, "cannot pack the .rpm")?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelogs_and_the_control_file_name_the_same_maintainer() {
        let control = include_str!("../../../contrib/debian/control");
        assert!(control.contains(&format!("\nMaintainer: {MAINTAINER}\n")));
    }

    #[test]
    fn every_override_has_a_reason_above_it() {
        let lintian = include_str!("../../../contrib/debian/mptcp-trace.lintian-overrides");
        let rpmlint = include_str!("../../../contrib/rpm/mptcp-trace.rpmlintrc");
        for text in [lintian, rpmlint] {
            let mut is_explained = false;
            for line in text.lines() {
                let is_reason = line.starts_with('#');
                assert!(is_reason || line.is_empty() || is_explained, "{line}");
                is_explained = is_reason;
            }
        }
    }
}
