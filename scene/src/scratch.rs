//! Files of the lab that exist as long as it needs them.

use std::{fs, path::PathBuf};

/// A path that no other process of the lab uses. Dropping it removes the file, if there is one.
pub struct Scratch(
    /// The path.
    pub PathBuf,
);

impl Scratch {
    /// A path with this name in it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(scratch(name))
    }
}

/// A path in the temporary directory that no other process of the lab uses.
#[must_use]
pub fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mptcp-lab-{}-{name}", std::process::id()))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _never_made = fs::remove_file(&self.0);
    }
}
