//! Checks that two builds produce the same bytes.

use std::fs;

use anyhow::{Context as _, Result, bail};

use super::{
    super::{Release, build, pack},
    Looked,
};
use crate::places;

/// Packs a second time and compares; compiles a second time first if requested.
pub(super) fn step(looked: &Looked<'_>) -> Result<()> {
    let Looked {
        places,
        release,
        rebuild,
    } = looked;
    let base = places.target.join("dist");
    let elsewhere = base.join("rebuild");
    let program = if *rebuild {
        places::make_empty(&elsewhere)?;
        build::programs(places, &elsewhere, &[])?
    } else {
        release.program.clone()
    };
    let again = Release {
        version: release.version.clone(),
        epoch: release.epoch,
        program,
        stage: release.stage.clone(),
        target: release.target.clone(),
        out: base.join("again"),
    };
    pack(places, &again)?;
    let read = |of: &Release| fs::read_to_string(of.sums()).context("cannot read SHA256SUMS");
    let (first, second) = (read(release)?, read(&again)?);
    fs::remove_dir_all(&again.out).context("cannot remove the second release")?;
    if *rebuild {
        fs::remove_dir_all(&elsewhere).context("cannot remove the second build")?;
    }
    if first != second {
        bail!("a second run gives other files.\nFirst:\n{first}Second:\n{second}");
    }
    Ok(())
}
