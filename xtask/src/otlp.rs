//! Provides a Python with OpenTelemetry's schema, which validates the data sent to a collector. It
//! is created in the cache and not installed.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    command::{self, say},
    places::{Places, make_empty},
};

/// The package and its tested version.
const PACKAGE: &str = "opentelemetry-proto==1.45.2";

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
