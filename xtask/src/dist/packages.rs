//! .deb and .rpm. What goes where is said in mptcp-trace/Cargo.toml, under `package.metadata.deb`, and in
//! contrib/rpm/mptcp-trace.spec.
//!
//! The .rpm is made by rpmbuild, since cargo-generate-rpm is 274 crates, among them all of `OpenPGP`, which take ten
//! minutes to build on two cores.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use super::Release;
use crate::{
    build::STATIC_TARGET,
    command::{self, say},
    host_packages::{self, Need},
    places::{self, Places},
    provision::CARGO_DEB,
};

/// What makes the .rpm.
const RPM_NEEDS: [Need; 1] = [Need {
    what: "rpmbuild",
    package: "rpm",
}];

/// Makes the .deb.
pub(super) fn deb(places: &Places, release: &Release) -> Result<()> {
    say("packing the .deb");
    let mut tool = Command::new(CARGO_DEB.provide(places)?);
    tool.args(["--package", "mptcp-trace", "--target", STATIC_TARGET])
        .args(["--no-build", "--no-strip", "--locked", "--output"])
        .arg(release.deb())
        .current_dir(&places.root)
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .env("CARGO_TARGET_DIR", &release.target);
    command::output(&mut tool, "cannot pack the .deb").map(drop)
}

/// Makes the .rpm.
pub(super) fn rpm(places: &Places, release: &Release) -> Result<()> {
    say("packing the .rpm");
    host_packages::provide(&RPM_NEEDS, "packing the .rpm")?;
    let work = release.target.join("rpmbuild");
    places::make_empty(&work)?;
    let defines = [
        format!("_topdir {}", work.display()),
        format!("_rpmdir {}", release.out.display()),
        "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm".to_owned(),
        format!("dist_version {}", release.version),
        format!("dist_stage {}", release.stage.display()),
        // gzip is what every rpm can read.
        "_binary_payload w9.gzdio".to_owned(),
        // What depends on where and when it is made.
        "_buildhost localhost".to_owned(),
        "use_source_date_epoch_as_buildtime 1".to_owned(),
        "source_date_epoch_from_changelog 0".to_owned(),
        "clamp_mtime_to_source_date_epoch 1".to_owned(),
        // The program is ready as it is.
        "debug_package %{nil}".to_owned(),
        "__os_install_post %{nil}".to_owned(),
        "_build_id_links none".to_owned(),
    ];
    let mut tool = Command::new("rpmbuild");
    tool.args(["-bb", "--quiet", "--nodeps", "--target", "x86_64-linux"]);
    for define in &defines {
        tool.args(["--define", define]);
    }
    tool.arg(places.root.join("contrib/rpm/mptcp-trace.spec"))
        .current_dir(&work)
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    command::output(&mut tool, "cannot pack the .rpm")?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}
