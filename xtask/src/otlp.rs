//! A Python that has OpenTelemetry's own schema, by which what is sent to a collector is judged. It is made in the cache, and
//! nothing of it is installed.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    command::{self, say},
    places::{Places, make_empty},
};

/// The package, of the release that it was tried with.
const PACKAGE: &str = "opentelemetry-proto==1.45.2";

/// Where it is; it is made if the cache does not have it.
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
    say(format_args!(
        "the schema of OpenTelemetry is needed: fetching {PACKAGE} into the cache"
    ));
    make_empty(&directory)?;
    command::output(
        Command::new("python3").args(["-m", "venv"]).arg(&directory),
        "cannot make an environment for Python packages",
    )?;
    command::output(
        Command::new(&python).args(["-m", "pip", "--quiet", "install", PACKAGE]),
        "cannot fetch the schema of OpenTelemetry",
    )?;
    Ok(python)
}
