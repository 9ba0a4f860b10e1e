//! Configuration of the filter: constants, frozen before the programs are loaded, so that the
//! verifier removes the code of every disabled check.

use crate::wire::structure;

/// Admit only the processes in the map `PIDS`.
pub const BY_PID: u32 = 1 << 0;
/// Admit only the thread names in the map `COMMS`.
pub const BY_COMM: u32 = 1 << 1;
/// Admit only sockets of the network namespaces in the map `NETNS`.
pub const BY_NETNS: u32 = 1 << 2;
/// Children of an admitted process are admitted too.
pub const FOLLOW: u32 = 1 << 3;

structure! {
    /// What the filter checks; the admitted values themselves are in maps.
    pub struct FilterConfig {
        /// `BY_*` and [`FOLLOW`] bits.
        pub flags: u32,
        /// The tracer's own process id in its PID namespace. It is always admitted: the canary must
        /// be observed whatever the filter says.
        pub own_tgid: u32,
        /// Inode number of the PID namespace whose process ids are used; 0 for the initial one.
        pub pidns_inum: u32,
    }
}

const _: () = assert!(size_of::<FilterConfig>() == 12);
