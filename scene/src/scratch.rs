//! Temporary files of the lab.

use std::{fs, path::PathBuf};

/// A path unique to this process. Dropping the value removes the file, if it exists.
pub struct Scratch(
    /// The path.
    pub PathBuf,
);

impl Scratch {
    /// Creates a path that contains this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(scratch(name))
    }
}

/// Returns a unique path in the temporary directory.
#[must_use]
pub fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mptcp-lab-{}-{name}", std::process::id()))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _never_made = fs::remove_file(&self.0);
    }
}
