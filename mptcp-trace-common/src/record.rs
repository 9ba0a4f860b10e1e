//! Layout of the records in the ring.
//!
//! A record holds raw numbers as the kernel had them, and flags that say which of them could be
//! read. The decoder interprets them.

mod connection;
mod counted;
mod marks;
mod owner;
mod packet;
mod path;
mod query;

pub use connection::{ConnFlags, ConnRecord, ConnState, EvidenceBits, NO_MIB, Site, SubflowBits};
pub use counted::{COUNTERS, CountedRecord};
pub use marks::Marks;
pub use owner::{Owner, OwnerVia};
pub use packet::{HEADER_MAX, PacketFlags, PacketRecord};
pub use path::{
    ConnectionBits, ContextBits, JoinAnswer, PathEvents, PathFlags, PathLedger, PathManagerState,
    PathRecord, PathSite,
};
pub use query::{PathBits, QueryFlags, QueryRecord};

use crate::wire::names;

/// Where the address of a record has the index of its interface, if it is link-local: the bits
/// after its prefix are zero (RFC 4291 section 2.5.6), so BSD's kernels put it there too.
pub mod zone {
    use core::ops::Range;

    /// Bytes of the address that have the index, in the host's byte order; 0 is none.
    pub const BYTES: Range<usize> = 4..8;

    /// True for an address of `fe80::/10` (RFC 4291 section 2.4), by its first four bytes.
    #[must_use]
    #[inline(always)]
    pub const fn is_link_local(first: [u8; 4]) -> bool {
        u32::from_be_bytes(first) >> 22 == 0xfe80 >> 6
    }

    /// Separates an IPv6 address from the index of its interface.
    #[must_use]
    pub fn split(mut address: [u8; 16]) -> ([u8; 16], u32) {
        let [a, b, c, d, ..] = address;
        if !is_link_local([a, b, c, d]) {
            return (address, 0);
        }
        let mut index = [0; 4];
        index.copy_from_slice(&address[BYTES]);
        address[BYTES].fill(0);
        (address, u32::from_ne_bytes(index))
    }
}

/// Version of the layouts in this crate; incremented with any change of one.
///
/// The BPF object carries a global named [`ABI_SYMBOL`], which holds the version: a loader built
/// for another version does not find it and refuses the object.
pub const ABI_VERSION: u32 = 9;

/// Name of the global by which the loader recognises an object of its [`ABI_VERSION`].
pub const ABI_SYMBOL: &str = "MPTCP_TRACE_ABI_9";

/// Name of the map whose entries mark the sockets of a self-test for every instance on this host.
/// Creating a map of this kind (socket storage) requires `CAP_BPF`; adding an entry requires its
/// descriptor.
pub const SELF_TEST_MAP: [u8; 16] = *b"mptcp_self_test\0";

names! {
    /// Kind of a record: its first word.
    Kind: u32 {
        /// A [`QueryRecord`]: an application made a query.
        QUERY = 1,
        /// A [`ConnRecord`]: a connection fell back, or the kernel did not allow it to
        /// ([`ConnFlags::REFUSED`]).
        FALLBACK = 2,
        /// A [`ConnRecord`]: an MPTCP listener got a child that is plain TCP.
        TCP_CHILD = 3,
        /// A [`ConnRecord`]: a connection that was reported before was accepted, became
        /// established, or is being closed by an owner other than that of the last record; its
        /// owner is known.
        ACCEPTED = 4,
        /// A [`ConnRecord`]: an MPTCP socket that was open before tracing began.
        EXISTING = 5,
        /// A [`ConnRecord`]: the kernel disables MPTCP for a while in this network namespace.
        BLACKHOLE = 6,
        /// A [`ConnRecord`]: a connection that fell back, or that was queried, ended.
        CLOSED = 7,
        /// A [`QueryRecord`]: the kernel refused a socket option on an MPTCP socket that has not
        /// fallen back.
        OPTION_REFUSED = 8,
        /// A [`QueryRecord`]: the kernel refused to create an MPTCP socket. There is no socket;
        /// `family` is the requested one.
        SOCKET_REFUSED = 9,
        /// A [`CountedRecord`]: the kernel's own counters in a network namespace.
        COUNTED = 10,
        /// A [`CountedRecord`]: the same counters when tracing began. Userspace does not print it.
        COUNTED_AT_START = 11,
        /// A [`PathRecord`]: a path came up.
        PATH_UP = 12,
        /// A [`PathRecord`]: a path ended, or did not come up.
        PATH_ENDED = 13,
        /// A [`PathRecord`]: a path did not come up, and never had a socket of its own.
        JOIN_FAILED = 14,
        /// A [`PathRecord`]: the scheduler avoids a path from now on.
        PATH_STALE = 15,
        /// A [`PathRecord`]: the peer wants to use a path as a backup only.
        PATH_BACKUP = 16,
        /// A [`PathRecord`]: the scheduler uses a path again.
        PATH_RECOVERED = 17,
        /// A [`PathRecord`]: the peer wants to use a path normally.
        PATH_REGULAR = 18,
        /// A [`PathRecord`] of an address that the peer announced; `error` is the state of the path
        /// manager (`mptcp_sock.pm.status`).
        ADDRESS_RECEIVED = 19,
        /// A [`PathRecord`] of an address that this host announced; `error` is what the function
        /// returned.
        ADDRESS_ANNOUNCED = 20,
        /// A [`PathRecord`]: the peer confirmed an announcement.
        ADDRESS_ECHOED = 21,
        /// A [`PathRecord`] of addresses that this host removes: their ids are the first bytes of
        /// `options`.
        ADDRESS_REMOVED = 22,
        /// The same, of addresses that the peer removes.
        ADDRESS_REMOVED_BY_PEER = 23,
        /// A [`PathRecord`]: a path is open, found by a walk over all sockets.
        PATH_OPEN = 24,
        /// A [`PathRecord`]: this host changed the priority of a path
        /// ([`ContextBits::REQUEST_BACKUP`]).
        PATH_OWN_PRIORITY = 25,
        /// A [`PacketRecord`]: the headers of the packet that decided what the next record about
        /// the same connection or path reports.
        PACKET = 26,
    }
}

impl Kind {
    /// True for a [`PathRecord`].
    #[must_use]
    pub const fn is_of_path(self) -> bool {
        matches!(
            self,
            Self::PATH_UP
                | Self::PATH_OPEN
                | Self::PATH_ENDED
                | Self::JOIN_FAILED
                | Self::PATH_STALE
                | Self::PATH_RECOVERED
                | Self::PATH_BACKUP
                | Self::PATH_REGULAR
                | Self::PATH_OWN_PRIORITY
                | Self::ADDRESS_RECEIVED
                | Self::ADDRESS_ANNOUNCED
                | Self::ADDRESS_ECHOED
                | Self::ADDRESS_REMOVED
                | Self::ADDRESS_REMOVED_BY_PEER
        )
    }
}

names! {
    /// Attach method that observed what a record reports.
    RecordRung: u8 {
        /// fentry and fexit programs.
        FEXIT = 1,
        /// kprobes and kretprobes.
        KPROBE = 2,
        /// Tracepoints of the system call.
        TRACEPOINT = 3,
    }
}
