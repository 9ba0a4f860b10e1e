//! SHA256SUMS, in the format of `sha256sum --check`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::{Release, stage};

/// Writes the checksums of all files of the release.
pub(super) fn write(release: &Release) -> Result<()> {
    let mut text = String::new();
    for file in stage::files_in(&release.out)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        text.push_str(&format!("{}  {name}\n", of_file(&file)?));
    }
    fs::write(release.sums(), text).context("cannot write SHA256SUMS")
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn of_file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
