//! JSON lines, the protocol between processes of the lab.

use std::{fs, io::Write, path::Path};

use anyhow::Context as _;
use serde::{Serialize, de::DeserializeOwned};

/// Writes one JSON line and flushes it.
///
/// # Errors
///
/// Fails if the reader has gone.
pub fn write_line(out: &mut impl Write, line: &impl Serialize) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    out.write_all(&bytes)?;
    out.flush()?;
    Ok(())
}

/// Reads a file of JSON lines.
///
/// # Errors
///
/// Fails if the file is missing, or if a line does not match `T`.
pub fn read_lines<T: DeserializeOwned>(file: &Path) -> anyhow::Result<Vec<T>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("cannot read {line:?}")))
        .collect()
}
