//! The kernel's own counters.

use super::Kind;
use crate::wire::structure;

/// Number of kernel counters that are read: those that count fallbacks.
pub const COUNTERS: usize = 12;

structure! {
    /// The MPTCP counters of a network namespace since its creation (`net.mib.mptcp_statistics`).
    pub struct CountedRecord {
        /// [`Kind::COUNTED`] or [`Kind::COUNTED_AT_START`].
        pub kind: Kind,
        /// Inode number of the namespace.
        pub netns: u32,
        /// When reading them ended, `CLOCK_BOOTTIME`, nanoseconds.
        pub boottime_ns: u64,
        /// `net.net_cookie`.
        pub cookie: u64,
        /// Sums over all CPUs, in the order of the counters that the loader chose.
        pub counters: [u64; COUNTERS],
    }
}

const _: () = assert!(size_of::<CountedRecord>() == 24 + 8 * COUNTERS);
