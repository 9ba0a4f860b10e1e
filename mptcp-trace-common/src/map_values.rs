//! Values of the BPF maps. Userspace does not read these values; it only counts entries.

use crate::record::{
    ConnState, EvidenceBits, NO_MIB, Owner, PathBits, PathEvents, PathFlags, Site,
};

/// A query in flight, between the entry and the return of the function that answers it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    /// When the query was made, `CLOCK_BOOTTIME`, nanoseconds.
    pub boottime_ns: u64,
    /// The outermost `sk` of the query.
    pub socket: u64,
    /// Level of the option.
    pub level: u32,
    /// Number of the option.
    pub optname: u32,
    /// The functions that it has passed through so far.
    pub path: PathBits,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 7],
}

/// Number of traced queries of a process, or of cheap events of a socket, in the second that begins
/// at `since_ns`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Quota {
    /// Beginning of the second, `CLOCK_BOOTTIME`, nanoseconds.
    pub since_ns: u64,
    /// Process (`task_struct.tgid`), or a number made of the address of a socket; 0 if the slot is
    /// free.
    pub tgid: u32,
    /// Its queries in that second.
    pub queries: u32,
}

/// Pseudo user id whose share counts the sockets of all users for which the table of shares has no
/// room.
pub const SHARE_OF_OTHERS: u32 = u32::MAX;
/// [`Conn::share`] of a socket that is being added; no user has this id.
pub const SHARE_UNSET: u32 = u32::MAX - 1;

/// State of a tracked socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Conn {
    /// When it was first observed, `CLOCK_BOOTTIME`, nanoseconds. Together with its address, its
    /// identity.
    pub born_ns: u64,
    /// When it began to connect (active), or was created by a listener (passive); 0 before.
    pub connect_ns: u64,
    /// Inode number of the socket; 0 before it is accepted.
    pub inode: u64,
    /// Of a client with [`ConnState::PENDING`]: when the pending fallback happened. Of a child with
    /// [`ConnState::UNACCEPTED`]: its listener (`struct sock`). One field for both, because the BPF
    /// stack is small.
    pub waits_since_or_at: u64,
    /// The process that holds it.
    pub owner: Owner,
    /// State bits.
    pub state: ConnState,
    /// Cause of the pending fallback.
    pub pending_mib: i32,
    /// The user whose share of the table it counts against: the owner of the socket.
    pub share: u32,
    /// Owner in its last record (`task_struct.tgid`); 0 if there was none.
    pub reported_tgid: u32,
    /// Evidence of the cause of a fallback, collected so far.
    pub evidence: EvidenceBits,
    /// Where the pending fallback was observed.
    pub pending_site: Site,
    /// Paths that this host is opening.
    pub pending_paths: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 4],
}

impl Conn {
    /// A socket about which nothing is known yet.
    pub const BLANK: Self = Self {
        born_ns: 0,
        connect_ns: 0,
        inode: 0,
        waits_since_or_at: 0,
        owner: Owner::NONE,
        state: ConnState::empty(),
        pending_mib: NO_MIB,
        share: SHARE_UNSET,
        reported_tgid: 0,
        evidence: EvidenceBits::empty(),
        pending_site: Site(0),
        pending_paths: 0,
        reserved: [0; 4],
    };
}

/// State of a live path.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Path {
    /// When the SYN was sent or, of a passive path, when its third ACK arrived, `CLOCK_BOOTTIME`,
    /// nanoseconds. Together with the address of its socket, its identity.
    pub born_ns: u64,
    /// When it came up; 0 before.
    pub up_ns: u64,
    /// Its connection (`struct sock`); 0 while unknown.
    pub msk: u64,
    /// When the connection was first observed; 0 if unknown.
    pub msk_born_ns: u64,
    /// What happened to it.
    pub events: PathEvents,
    /// The first of [`Self::events`] that decided the end; empty before.
    pub first_event: PathEvents,
    /// [`PathFlags::EXISTING`] and [`PathFlags::WAS_UP`].
    pub flags: PathFlags,
    /// 1 while the scheduler avoids the path.
    pub stale: u8,
    /// 1 while this host wants it as a backup.
    pub backup: u8,
    /// Number of bytes of [`Self::options`].
    pub options_len: u8,
    /// Aligns the next field.
    pub reserved: u8,
    /// The user whose share of the table it counts against.
    pub share: u32,
    /// Options of the last RST that was received.
    pub options: [u8; 40],
}

impl Path {
    /// A path about which nothing is known yet.
    pub const BLANK: Self = Self {
        born_ns: 0,
        up_ns: 0,
        msk: 0,
        msk_born_ns: 0,
        events: PathEvents::empty(),
        first_event: PathEvents::empty(),
        flags: PathFlags::empty(),
        stale: 0,
        backup: 0,
        options_len: 0,
        reserved: 0,
        share: SHARE_UNSET,
        options: [0; 40],
    };
}

/// What was observed in this run of the kernel's packet processing, until a function that decides
/// about a join returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct JoinRun {
    /// The connection that was asked whether it takes one more path; 0 if none was.
    pub msk: u64,
    /// The packet that gets an RST (`struct sk_buff`); 0 without one.
    pub packet: u64,
    /// The reason for the RST, plus one; 0 without one. Of a timer: the number of its runs before
    /// this one.
    pub reason: u32,
    /// What the connection said to one more path ([`JoinAnswer`](crate::record::JoinAnswer)).
    pub answer: u32,
}

/// A network namespace with a reported event that the kernel counts.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NetCounters {
    /// Its `struct net`.
    pub net: u64,
    /// When such an event was last reported, `CLOCK_BOOTTIME`, nanoseconds; 0 if the counters were
    /// read since.
    pub reported_ns: u64,
    /// The second in which `readings` are counted, `CLOCK_BOOTTIME`.
    pub second: u32,
    /// How often it was read in that second, including readings that were skipped for the limit.
    pub readings: u32,
}

const _: () = {
    assert!(size_of::<InFlight>() == 32);
    assert!(size_of::<Quota>() == 16);
    assert!(size_of::<Conn>() == 104);
    assert!(size_of::<Path>() == 88);
    assert!(size_of::<JoinRun>() == 24);
    assert!(size_of::<NetCounters>() == 24);
};
