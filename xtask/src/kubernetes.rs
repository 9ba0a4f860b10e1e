//! Provides the schema of Kubernetes, which validates the `DaemonSet` without a cluster. It is kept in
//! the cache and not installed.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{places::Places, python};

/// The package and its tested version.
const PACKAGE: &str = "kubernetes-validate==1.37.0";

/// Returns the path of the validator, which is fetched if it is not in the cache.
pub(crate) fn validator(places: &Places) -> Result<PathBuf> {
    let directory = places.cache.join("kubernetes");
    let validator = directory.join("bin/kubernetes-validate");
    let works = Command::new(&validator)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if works {
        return Ok(validator);
    }
    python::fetch(&directory, PACKAGE, "the schema of Kubernetes")?;
    Ok(validator)
}
