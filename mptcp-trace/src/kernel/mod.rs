//! The BPF programs in the kernel: load, attach, read, count. The only module that names aya.

mod attach;
mod counters;
mod load;
mod object;
mod ring;
mod trial;
mod turns;
mod types;
mod verify;

pub use attach::{AttachError, Tracer};
pub use load::TracerConfig;
pub use object::Object;
pub use ring::{LogRing, RecordRing, readable};
