//! The compiled BPF object, compressed into the program.

use std::ops::Deref;

use miniz_oxide::inflate::decompress_to_vec_zlib;

/// Compressed by `build.rs`.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mptcp-trace.o.z"));
/// The ELF reader requires aligned structures.
const ALIGNMENT: usize = 32;

/// The compiled BPF object; `cargo xtask bpf --check` verifies that it matches the source.
#[derive(Debug)]
pub struct Object {
    bytes: Vec<u8>,
    begin: usize,
}

impl Object {
    /// Decompresses the object.
    ///
    /// # Errors
    ///
    /// Fails if the program itself is damaged.
    pub fn unpack() -> anyhow::Result<Self> {
        let object = decompress_to_vec_zlib(PACKED)
            .map_err(|why| anyhow::anyhow!("the BPF object in this program is damaged: {why}"))?;
        let mut bytes = vec![0; object.len() + ALIGNMENT];
        // If no aligned offset exists, which does not happen in practice, the ELF reader reports
        // it.
        let begin = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        if let Some(place) = bytes.get_mut(begin..begin + object.len()) {
            place.copy_from_slice(&object);
        }
        bytes.truncate(begin + object.len());
        Ok(Self { bytes, begin })
    }
}

impl Deref for Object {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.begin..).unwrap_or_default()
    }
}
