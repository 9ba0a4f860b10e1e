//! The compiled BPF object, which is packed in the program.

use std::ops::Deref;

use miniz_oxide::inflate::decompress_to_vec_zlib;

/// `build.rs` has packed it.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mptcp-trace.o.z"));
/// What reads ELF files wants their structures where the processor would put them.
const ALIGNMENT: usize = 32;

/// The compiled BPF object; `cargo xtask bpf --check` proves that it is what the source gives.
#[derive(Debug)]
pub struct Object {
    bytes: Vec<u8>,
    begin: usize,
}

impl Object {
    /// Unpacks it.
    ///
    /// # Errors
    ///
    /// Fails if the program itself is damaged.
    pub fn unpack() -> anyhow::Result<Self> {
        let object = decompress_to_vec_zlib(PACKED)
            .map_err(|why| anyhow::anyhow!("the BPF object in this program is damaged: {why}"))?;
        let mut bytes = vec![0; object.len() + ALIGNMENT];
        // Where it cannot be told, which no allocator has it, the reader of ELF files says so.
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
