//! SHA256SUMS, in the format of `sha256sum --check`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::Release;

/// Writes the checksums of all files of the releases to SHA256SUMS in this directory.
pub(super) fn write(releases: &[Release], directory: &Path) -> Result<()> {
    fs::write(directory.join("SHA256SUMS"), of(releases)?).context("cannot write SHA256SUMS")
}

/// The checksums of all files of the releases.
pub(super) fn of(releases: &[Release]) -> Result<String> {
    let mut text = String::new();
    for file in releases.iter().flat_map(Release::files) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        text.push_str(&format!("{}  {name}\n", of_file(&file)?));
    }
    Ok(text)
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn of_file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
