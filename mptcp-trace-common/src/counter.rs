//! The counters of a sensor: one slot each in a per-CPU array.
//!
//! Every event that does not become a record is counted where it is dropped, so that at exit
//! userspace can check `seen - self-tests = emitted + filtered + capped + ring full + faulted +
//! table full + unfinished`.

/// Queries seen by the outermost probe; for the fallback sensor, connection events.
pub const SEEN: u32 = 0;
/// Records put into the ring.
pub const EMITTED: u32 = 1;
/// Left out: the filter does not admit the process, thread name or network namespace.
pub const FILTERED: u32 = 2;
/// Lost: the ring was full.
pub const RING_FULL: u32 = 3;
/// Lost: a read of kernel memory failed.
pub const FAULTED: u32 = 4;
/// Lost: the table of queries in flight was full.
pub const TABLE_FULL: u32 = 5;
/// Lost: the return of the query was never observed, and the thread's next query took its slot.
pub const UNFINISHED: u32 = 6;
/// Children of wanted processes that could not be followed, so that their queries count as
/// filtered; for the fallback sensor, sockets that are not tracked because the table was full.
pub const UNFOLLOWED: u32 = 7;

/// Left out: the process exceeded its limit of traced queries per second (`--cap`).
pub const CAPPED: u32 = 8;

/// Runs that a backup program handled after the kernel skipped the first one: nothing was lost.
pub const TAKEN: u32 = 9;

/// Part of [`SEEN`], but never reported: the self-test of another instance.
pub const SELF_TEST: u32 = 10;
/// Sockets that are not tracked because their user reached the limit per user; their owner and time
/// of birth are unknown. Counted by the fallback sensor only.
pub const OVER_SHARE: u32 = 11;

/// Packets whose headers had no room in the ring, or could not be read: what they decided is reported
/// without them.
pub const PACKETS: u32 = 12;

/// Number of slots.
pub const COUNT: u32 = 13;
