//! The counters of a sensor: one slot each in a per-CPU array.
//!
//! Whatever a probe does not turn into a record is counted where it is dropped, so that at the end
//! `seen = emitted + filtered + capped + ring full + faulted + table full + unfinished` can be checked.

/// Questions seen by the outermost probe.
pub const SEEN: u32 = 0;
/// Records put into the ring.
pub const EMITTED: u32 = 1;
/// Left out: the filter asked for others.
pub const FILTERED: u32 = 2;
/// Lost: no room in the ring.
pub const RING_FULL: u32 = 3;
/// Lost: a read of kernel memory failed.
pub const FAULTED: u32 = 4;
/// Lost: no room in the table of questions in flight.
pub const TABLE_FULL: u32 = 5;
/// Lost: the return of the question was never seen (its slot was taken by the thread's next one).
pub const UNFINISHED: u32 = 6;
/// Children of wanted processes that could not be followed; what they ask counts as filtered.
pub const UNFOLLOWED: u32 = 7;

/// Left out: the process has asked more often in this second than is traced (`--cap`).
pub const CAPPED: u32 = 8;

/// Runs that another program took since the kernel kept the first one out of them: not missed.
pub const TAKEN: u32 = 9;

/// Part of [`SEEN`], and nobody's business: the self-test of another instance.
pub const SELF_TEST: u32 = 10;
/// Sockets about which nothing is noted, because their user has as many as one user may have; of these, owner and time of
/// birth are unknown. [`UNFOLLOWED`] counts those for which the whole table had no room.
pub const OVER_SHARE: u32 = 11;

/// Number of slots.
pub const COUNT: u32 = 12;
