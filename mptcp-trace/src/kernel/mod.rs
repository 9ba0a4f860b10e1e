//! The BPF programs in the kernel: load, attach, read, count. The only module that names aya.

mod attach;
mod counters;
mod family;
mod filter;
mod listing;
mod load;
mod losses;
mod mark;
mod object;
mod ring;
mod syscall;
mod trial;
mod turns;
mod types;
mod verify;

pub use attach::{AttachError, Tracer};
pub use counters::map_of as counters_of;
pub use listing::Walk;
pub use load::{CountersAt, TracerConfig};
pub use mark::Mark;
pub use object::Object;
pub use ring::{LogRing, RecordRing, readable};
