//! Checks that two builds produce the same bytes.

use std::fs;

use anyhow::{Context as _, Result, bail};

use super::{
    super::{Release, pack, sums},
    Looked,
};
use crate::{places, static_programs};

/// Packs a second time and compares; compiles a second time first if requested.
pub(super) fn step(looked: &Looked<'_>) -> Result<()> {
    let Looked {
        places,
        release,
        rebuild,
        releases: _,
    } = looked;
    let base = places.target.join("dist");
    let elsewhere = base.join("rebuild");
    let program = if *rebuild {
        places::make_empty(&elsewhere)?;
        static_programs::programs(places, &elsewhere, release.architecture, &[])?
    } else {
        release.program.clone()
    };
    let again = Release {
        version: release.version.clone(),
        epoch: release.epoch,
        program,
        architecture: release.architecture,
        host: release.host.clone(),
        stage: release.stage.clone(),
        target: release.target.clone(),
        out: base.join("again"),
    };
    places::make_empty(&again.out)?;
    pack(places, &again)?;
    let first = sums::of(std::slice::from_ref(*release))?;
    let second = sums::of(std::slice::from_ref(&again))?;
    fs::remove_dir_all(&again.out).context("cannot remove the second release")?;
    if *rebuild {
        fs::remove_dir_all(&elsewhere).context("cannot remove the second build")?;
    }
    if first != second {
        bail!("a second run gives other files.\nFirst:\n{first}Second:\n{second}");
    }
    Ok(())
}
