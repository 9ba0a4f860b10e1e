//! The flight recorder: the newest records on disk, in segments that are captures of their own.
//!
//! It decides which segments exist, and what each must begin with so that it can be read without the
//! earlier ones. A thread of its own writes them ([`thread`]): a disk that is slow, full or gone costs
//! the recording and never the trace. [`dump`] makes one capture of what was recorded in some time;
//! [`rules`] decides when to do so without being asked.

mod dump;
mod flight;
mod folder;
mod opened;
mod places;
mod rules;
mod segment;
mod thread;

pub use self::{
    dump::{Dumped, Plan, Span, utc},
    flight::{Asked, DUMPS_MAX, Flight, Handle, Turn},
    folder::{FOLDER, Folder, is_part},
    rules::{Rule, Rules},
    thread::{Shared, Sums},
};

/// Smallest `--keep`, bytes.
pub const KEEP_MIN: u64 = 1 << 20;

/// Number of segments that a recording has when it is full.
const SEGMENTS: u64 = 12;

/// How the room of a recording is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Room {
    /// Most bytes of all segments.
    segments: u64,
    /// A segment with more bytes is complete.
    segment: u64,
    /// Most bytes of the dumps in the folder.
    dumps: u64,
}

impl Room {
    /// Three quarters for the segments, one for dumps.
    fn of(keep: u64) -> Self {
        let dumps = keep / 4;
        let segments = keep - dumps;
        Self {
            segments,
            segment: segments / SEGMENTS,
            dumps,
        }
    }
}
