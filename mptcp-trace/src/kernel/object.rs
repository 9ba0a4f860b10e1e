//! The compiled BPF object, which is packed in the program.

use std::{io::Read as _, ops::Deref};

use anyhow::Context as _;
use ruzstd::decoding::StreamingDecoder;

/// `build.rs` has packed it.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mptcp-trace.o.zst"));
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
        let damaged = "the BPF object in this program is damaged";
        let mut object = Vec::new();
        StreamingDecoder::new(PACKED)
            .map_err(|why| anyhow::anyhow!("{damaged}: {why}"))?
            .read_to_end(&mut object)
            .context(damaged)?;
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
