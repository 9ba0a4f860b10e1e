//! Provides what judges the data sent to a collector: a Python with OpenTelemetry's schema, and a
//! collector. Both are in an environment in the cache and not installed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{command::say, places::Places, python};

/// The package with the schema, and its tested version.
const SCHEMA: &str = "opentelemetry-proto==1.45.2";
/// The package with the collector.
const COLLECTOR: &str = "rotel==0.0.1a15";

/// Prints the path of the collector's program.
const ASK_COLLECTOR: &str =
    "import pathlib, rotel; print(pathlib.Path(rotel.__file__).with_name('rotel-agent'))";

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Collector {
    /// Its program.
    Program(PathBuf),
    /// None exists for this machine.
    Nowhere,
}

/// Returns the path of the interpreter, which is created if it is not in the cache.
pub(crate) fn python(places: &Places) -> Result<PathBuf> {
    let directory = places.cache.join("otlp");
    let python = directory.join("bin/python3");
    let has_schema = Command::new(&python)
        .args(["-c", "import opentelemetry.proto.logs.v1.logs_pb2"])
        .output()
        .is_ok_and(|output| output.status.success());
    if has_schema {
        return Ok(python);
    }
    python::fetch(&directory, SCHEMA, "the schema of OpenTelemetry")
}

/// Returns a collector, which is fetched if it is not in the cache.
pub(crate) fn collector(places: &Places) -> Result<Collector> {
    let python = python(places)?;
    if let Some(program) = installed(&python) {
        return Ok(Collector::Program(program));
    }
    say(format_args!(
        "a collector for OpenTelemetry is needed: fetching {COLLECTOR} into the cache"
    ));
    let fetched = Command::new(&python)
        .args(["-m", "pip", "--quiet", "install", COLLECTOR])
        .output()
        .context("cannot run pip")?;
    if fetched.status.success() {
        let program = installed(&python).context("the package rotel has no program")?;
        return Ok(Collector::Program(program));
    }
    let why = String::from_utf8_lossy(&fetched.stderr);
    if is_nowhere(&why) {
        return Ok(Collector::Nowhere);
    }
    bail!("cannot fetch {COLLECTOR}: {}", why.trim())
}

fn installed(python: &Path) -> Option<PathBuf> {
    let output = Command::new(python)
        .args(["-c", ASK_COLLECTOR])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

/// Whether pip reached its index, which has no such package for this machine and this Python.
fn is_nowhere(pip: &str) -> bool {
    pip.contains("No matching distribution found") && !pip.contains("Retrying")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_cannot_be_reached_is_not_one_without_the_package() {
        let none = "ERROR: Could not find a version that satisfies the requirement x (from versions: \
                    none)\nERROR: No matching distribution found for x\n";
        assert!(is_nowhere(none));
        let retried = format!("WARNING: Retrying (Retry(total=0)) after connection broken\n{none}");
        assert!(!is_nowhere(&retried));
        assert!(!is_nowhere("ERROR: no space left on device"));
    }
}
