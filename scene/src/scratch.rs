//! Temporary files of the lab.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// A path of its own in the temporary directory. Dropping the value removes the file, if it exists.
pub struct Scratch(
    /// The path.
    pub PathBuf,
);

impl Scratch {
    /// Creates a path that contains this name; no other one of this process is equal.
    #[must_use]
    pub fn new(name: &str) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let file = format!("mptcp-lab-{}-{number}-{name}", std::process::id());
        Self(std::env::temp_dir().join(file))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _never_made = fs::remove_file(&self.0);
    }
}
