//! Files of the lab that exist as long as it needs them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::de::DeserializeOwned;

/// A path that no other process of the lab uses. Dropping it removes the file, if there is one.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        Self(scratch(name))
    }
}

/// A path in the temporary directory that no other process of the lab uses.
pub(crate) fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mptcp-lab-{}-{name}", std::process::id()))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _never_made = fs::remove_file(&self.0);
    }
}

/// Reads a file of JSON lines.
pub(crate) fn read_lines<T: DeserializeOwned>(file: &Path) -> anyhow::Result<Vec<T>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("cannot read {line:?}")))
        .collect()
}
