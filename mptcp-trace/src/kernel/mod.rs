//! The BPF programs in the kernel: load, attach, read, count. The only module that names aya.

mod attach;
mod counters;
mod load;
mod ring;
mod trial;
mod types;
mod verify;

pub use attach::{AttachError, Tracer};
pub use load::TracerConfig;
pub use ring::{LogRing, RecordRing, readable};

/// The compiled BPF object; `cargo xtask bpf --check` proves that it is what the source gives.
pub static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/mptcp-trace.o"));
