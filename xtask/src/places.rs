//! The directories: the workspace, its target directory, and the cache, which
//! survives `cargo clean`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};

/// The directories that every verb uses.
#[derive(Clone)]
pub(crate) struct Places {
    /// The workspace: the directory of the root Cargo.toml.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, which `cargo clean` deletes.
    pub(crate) target: PathBuf,
    /// Downloads and tools that all clones share.
    pub(crate) cache: PathBuf,
}

impl Places {
    /// Finds the workspace from xtask's compile-time path, and creates the cache.
    pub(crate) fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .ok_or_else(|| anyhow!("no workspace above {}", manifest.display()))?
            .to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => root.join(directory),
            None => root.join("target"),
        };
        let cache = cache_directory()?;
        fs::create_dir_all(&cache)
            .with_context(|| format!("cannot create the cache directory {}", cache.display()))?;
        Ok(Self {
            root,
            target,
            cache,
        })
    }
}

/// Cargo's home directory, located as cargo does.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

/// Creates an empty directory, and deletes any earlier content.
pub(crate) fn make_empty(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

fn cache_directory() -> Result<PathBuf> {
    if let Some(directory) = env::var_os("MPTCP_TRACE_CACHE") {
        return std::path::absolute(&directory)
            .with_context(|| format!("MPTCP_TRACE_CACHE={} is no path", directory.display()));
    }
    // The specification requires that a relative XDG_CACHE_HOME is ignored.
    if let Some(directory) = env::var_os("XDG_CACHE_HOME").map(PathBuf::from)
        && directory.is_absolute()
    {
        return Ok(directory.join("mptcp-trace"));
    }
    let home = env::home_dir().ok_or_else(|| {
        anyhow!("cannot determine where to keep downloads: HOME is not set; set MPTCP_TRACE_CACHE")
    })?;
    Ok(home.join(".cache/mptcp-trace"))
}
