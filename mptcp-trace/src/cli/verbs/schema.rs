//! `mptcp-trace schema`: the JSON Schema of the JSON lines.

use anyhow::anyhow;
use miniz_oxide::inflate::decompress_to_vec_zlib;

use crate::cli::{DONE, Exit, print};

/// docs/schema.json, compressed by `build.rs`. `tests/schema` compares it with docs/output.md, with
/// the model, and with the lines.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schema.json.z"));

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run() -> Result<u8, Exit> {
    let text = decompress_to_vec_zlib(PACKED)
        .map_err(|why| anyhow!("the schema in this program is damaged: {why}"))?;
    print(&String::from_utf8_lossy(&text))?;
    Ok(DONE)
}
