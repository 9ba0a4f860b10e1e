//! Python packages in an environment in the cache, and not installed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    command::{self, say},
    places::make_empty,
};

/// Makes an environment in this directory, fetches a package into it, which provides `what`, and
/// returns the interpreter. An environment that was there is replaced.
///
/// # Errors
///
/// Fails if Python cannot make environments, or the package cannot be had.
pub(crate) fn fetch(directory: &Path, package: &str, what: &str) -> Result<PathBuf> {
    say(format_args!(
        "{what} is needed: fetching {package} into the cache"
    ));
    make_empty(directory)?;
    command::output(
        Command::new("python3").args(["-m", "venv"]).arg(directory),
        "cannot make an environment for Python packages",
    )?;
    let python = directory.join("bin/python3");
    command::output(
        Command::new(&python).args(["-m", "pip", "--quiet", "install", package]),
        &format!("cannot fetch {what}"),
    )?;
    Ok(python)
}
