//! A path (a subflow of an MPTCP connection): how it came up, failed and ended, and what it
//! carried.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

use super::{
    CauseCertainty, ConnectionId, Errno, Owner, Packet, Place, Rung, Side, Socket, SocketId,
};

/// Identity of a path, never reused: the address of its TCP socket, and when it began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PathId {
    /// Kernel address of the TCP socket.
    pub socket: SocketId,
    /// When its SYN was sent or, of a passive path, when its third ACK arrived, on
    /// `CLOCK_BOOTTIME`.
    pub began_at: Duration,
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.socket, self.began_at.as_nanos())
    }
}

/// What an event of a path reports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PathKind {
    /// The path came up: data can be sent on it.
    Up,
    /// The path is open: it was when tracing began, or is now.
    Open,
    /// A join failed: the path never came up.
    Failed,
    /// The first path failed: there is no connection.
    ConnectFailed,
    /// The path ended.
    Down,
    /// The scheduler avoids the path: nothing was acknowledged on it for several retransmission
    /// timeouts, and another path works.
    Stale,
    /// The scheduler uses the path again.
    Recovered,
    /// The peer changed the priority of the path (`MP_PRIO`, RFC 8684 section 3.3.8).
    Priority,
    /// An address was announced (`ADD_ADDR`, section 3.4.1), by the end in [`Path::decided_by`].
    AddressAnnounced,
    /// The peer confirmed an announcement of this host.
    AddressEchoed,
    /// An address that the peer announced was dropped: the path manager had another one to handle,
    /// or is in userspace and nobody listens.
    AddressDropped,
    /// An address that the peer announced is not used: the limit is reached.
    AddressOverLimit,
    /// Addresses were removed (`RM_ADDR`, section 3.4.2), by the end in [`Path::decided_by`].
    AddressRemoved,
}

impl PathKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Up,
        Self::Open,
        Self::Failed,
        Self::ConnectFailed,
        Self::Down,
        Self::Stale,
        Self::Recovered,
        Self::Priority,
        Self::AddressAnnounced,
        Self::AddressEchoed,
        Self::AddressDropped,
        Self::AddressOverLimit,
        Self::AddressRemoved,
    ];

    /// True if the event is one of an address, and not of a path.
    #[must_use]
    pub const fn is_of_address(self) -> bool {
        matches!(
            self,
            Self::AddressAnnounced
                | Self::AddressEchoed
                | Self::AddressDropped
                | Self::AddressOverLimit
                | Self::AddressRemoved
        )
    }

    /// The name as printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "path_up",
            Self::Open => "path_open",
            Self::Failed => "path_failed",
            Self::ConnectFailed => "connect_failed",
            Self::Down => "path_down",
            Self::Stale => "path_stale",
            Self::Recovered => "path_recovered",
            Self::Priority => "path_priority",
            Self::AddressAnnounced => "address_announced",
            Self::AddressEchoed => "address_echoed",
            Self::AddressDropped => "address_dropped",
            Self::AddressOverLimit => "address_over_limit",
            Self::AddressRemoved => "address_removed",
        }
    }
}

/// How a path belongs to its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathRole {
    /// It opened the connection (`MP_CAPABLE`).
    First,
    /// It joined the connection (`MP_JOIN`).
    Join,
}

impl PathRole {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Join => "join",
        }
    }
}

/// Where it was decided that a path fails or ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecidedBy {
    /// At this end.
    Here,
    /// By the peer, or by something that speaks for it.
    Peer,
    /// By nobody: no answer came.
    Nobody,
}

impl DecidedBy {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Peer => "peer",
            Self::Nobody => "nobody",
        }
    }
}

/// The reason in an RST (`MP_TCPRST`, RFC 8684 section 3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResetReason {
    /// The number.
    pub code: u8,
    /// The condition may be transient.
    pub transient: bool,
    /// True if it was received, false if this host gave it.
    pub received: bool,
}

impl ResetReason {
    /// The codes of RFC 8684 section 3.6, in order.
    pub const NAMES: [&'static str; 7] = [
        "unspecified",
        "mptcp-error",
        "no-resources",
        "prohibited",
        "too-much-data",
        "bad-performance",
        "middlebox",
    ];

    /// The name as printed; of an unknown code, none.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.get(usize::from(self.code)).copied()
    }
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "reason {}", self.code),
        }
    }
}

/// What a path carried (`struct tcp_sock`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// Payload sent, without retransmissions, bytes.
    pub bytes_sent: u64,
    /// Payload sent again, bytes.
    pub bytes_retransmitted: u64,
    /// Payload received in order, bytes.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmissions: u32,
    /// Segments sent.
    pub segments_sent: u32,
    /// Segments received.
    pub segments_received: u32,
    /// Smoothed round-trip time, if it was measured.
    pub rtt: Option<Duration>,
    /// Minimal round-trip time, if it was measured.
    pub rtt_min: Option<Duration>,
}

/// What the other end of a path knows too, whatever rewrites addresses between the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// Own sequence number before the first byte; of the end that opened the path, before the SYN.
    pub sent: Option<u32>,
    /// The peer's sequence number before the first byte, after the SYN.
    pub received: Option<u32>,
    /// Digest of the connection's keys.
    pub keys: Option<u32>,
}

/// State of a connection's path manager (`mptcp_sock.pm`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathManager {
    /// Paths are managed by a program (`ip mptcp` events, mptcpd), not by the kernel.
    pub in_userspace: bool,
    /// More paths are allowed.
    pub accepts_paths: bool,
    /// More addresses that the peer announces are used.
    pub accepts_addresses: bool,
    /// The peer does not want joins to its initial address.
    pub peer_denies_id0: bool,
    /// The handshake is complete at both ends.
    pub established: bool,
    /// There was something to join from, or to announce.
    pub has_work: bool,
    /// Announced addresses that were used.
    pub addresses_accepted: u8,
    /// Own addresses that were used.
    pub addresses_used: u8,
    /// Paths besides the first one, those being opened included.
    pub extra_paths: u8,
}

/// An observed event of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// What the event reports.
    pub kind: PathKind,
    /// When it happened, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// The path; `None` if it never had a socket.
    pub path: Option<PathId>,
    /// Its connection; `None` if it is unknown.
    pub connection: Option<ConnectionId>,
    /// Its own addresses, with the inode and the address of the connection's socket.
    pub socket: Socket,
    /// Cookie of its network namespace, never reused; 0 if unknown.
    pub netns_cookie: u64,
    /// The process that holds the connection, if known.
    pub owner: Option<Owner>,
    /// The connection has not been accepted yet.
    pub unaccepted: bool,
    /// The filter admits it.
    pub admitted: bool,
    /// Ids of the addresses that were removed.
    pub removed_ids: Vec<u8>,
    /// How it belongs to the connection.
    pub role: PathRole,
    /// Which end sent the SYN, if known.
    pub side: Option<Side>,
    /// Own address id, if known.
    pub local_id: Option<u8>,
    /// The peer's address id, if known.
    pub remote_id: Option<u8>,
    /// This host wants it as a backup.
    pub backup_here: bool,
    /// The peer wants it as a backup.
    pub backup_peer: bool,
    /// MPTCP is in use on it; false after a fallback.
    pub is_mptcp: bool,
    /// When it began, on `CLOCK_BOOTTIME`, if known.
    pub began_at: Option<Duration>,
    /// When it came up, on `CLOCK_BOOTTIME`, if it did and that was observed.
    pub up_at: Option<Duration>,
    /// It was reported before that it came up.
    pub was_reported_up: bool,
    /// Why it failed or ended: a name of the catalogue.
    pub cause: Option<Cow<'static, str>>,
    /// How the cause is known.
    pub known: CauseCertainty,
    /// Where that was decided, if known.
    pub decided_by: Option<DecidedBy>,
    /// The reason in the RST, if there was one.
    pub reset: Option<ResetReason>,
    /// A packet with RST arrived on it.
    pub rst_received: bool,
    /// This host sent one.
    pub rst_sent: bool,
    /// The error of its socket, or of the function that failed.
    pub errno: Option<Errno>,
    /// What it carried, if it had a socket.
    pub ledger: Option<Ledger>,
    /// State of the connection's path manager, if it was read.
    pub manager: Option<PathManager>,
    /// The connection's token at this end; 0 if unknown.
    pub token: u32,
    /// What the other end knows too.
    pub marks: Marks,
    /// The scheduler avoids it.
    pub is_stale: bool,
    /// It was open before tracing began.
    pub existing: bool,
    /// It was not observed when it happened, but noticed later.
    pub late: bool,
    /// The attach method that observed it.
    pub rung: Rung,
}

impl Path {
    /// True for the first event of a path that came up.
    #[must_use]
    pub const fn comes_up(&self) -> bool {
        match self.kind {
            PathKind::Up => true,
            PathKind::Down => !self.was_reported_up,
            PathKind::Open
            | PathKind::Failed
            | PathKind::ConnectFailed
            | PathKind::Stale
            | PathKind::Recovered
            | PathKind::Priority
            | PathKind::AddressAnnounced
            | PathKind::AddressEchoed
            | PathKind::AddressDropped
            | PathKind::AddressOverLimit
            | PathKind::AddressRemoved => false,
        }
    }

    /// How long it took to come up, if that was observed.
    #[must_use]
    pub fn handshake(&self) -> Option<Duration> {
        Some(self.up_at?.saturating_sub(self.began_at?))
    }

    /// True if it came up, at this event or before.
    #[must_use]
    pub fn has_been_up(&self) -> bool {
        match self.kind {
            PathKind::Up
            | PathKind::Down
            | PathKind::Stale
            | PathKind::Recovered
            | PathKind::Priority => true,
            PathKind::Open => self.was_reported_up,
            PathKind::Failed
            | PathKind::ConnectFailed
            | PathKind::AddressAnnounced
            | PathKind::AddressEchoed
            | PathKind::AddressDropped
            | PathKind::AddressOverLimit
            | PathKind::AddressRemoved => false,
        }
    }

    /// True if it ended for another reason than that somebody closed it.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(
            self.cause.as_deref(),
            Some("connection-closed" | "peer-closed" | "removed" | "address-removed") | None
        )
    }

    /// How long it lived, from when it came up, or began, until this event.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        Some(self.at.saturating_sub(self.up_at.or(self.began_at)?))
    }
}

/// An event of a path with its wall clock time and its owner's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathEvent {
    /// What was observed.
    pub path: Path,
    /// When it happened, wall clock.
    pub time: SystemTime,
    /// The place of the owner.
    pub place: Place,
    /// Payload of all paths of the connection so far, sent and received, if this event has a
    /// ledger: the base of its share.
    pub of_connection: Option<(u64, u64)>,
    /// The packet that decided, if one did and was observed.
    pub packet: Option<Box<Packet>>,
}

/// What a connection was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It used MPTCP to its end.
    Mptcp,
    /// It fell back to TCP.
    FellBack {
        /// When, on `CLOCK_BOOTTIME`; `None` if that was not observed.
        at: Option<Duration>,
        /// Name of the cause, if known.
        cause: Option<Cow<'static, str>>,
    },
    /// It is not known whether it fell back.
    Unknown,
}

impl Outcome {
    /// The name as printed.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mptcp => "mptcp",
            Self::FellBack { .. } => "fell-back",
            Self::Unknown => "unknown",
        }
    }
}

/// A path of a connection that ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathSummary {
    /// Its addresses.
    pub socket: Socket,
    /// How it belonged to the connection.
    pub role: PathRole,
    /// From when it came up until it ended, if both were observed.
    pub lifetime: Option<Duration>,
    /// Why it ended, or failed.
    pub cause: Option<Cow<'static, str>>,
    /// It came up.
    pub was_up: bool,
    /// What it carried.
    pub ledger: Option<Ledger>,
}

/// Why no second path was tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NeverTried {
    /// Nothing came back that would have completed the handshake at both ends.
    NotEstablished,
    /// A program manages the paths, and opened none.
    UserspaceManager,
    /// The limit of paths is 0 (`ip mptcp limits set subflows`).
    LimitZero,
    /// The peer announced addresses, but none may be used (`add_addr_accepted`).
    AddressLimitZero,
    /// The peer does not want joins to its address, and announced no other one.
    PeerDeniesInitialAddress,
    /// There is no endpoint to join from (`ip mptcp endpoint`).
    NoEndpoint,
    /// No endpoint was left: the only one is the address of the first path, or is only announced.
    OnlyEndpointInUse,
    /// This end waits for joins, and none came.
    NoJoinCame,
    /// None of these.
    Unknown,
}

impl NeverTried {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::NotEstablished,
        Self::UserspaceManager,
        Self::LimitZero,
        Self::AddressLimitZero,
        Self::PeerDeniesInitialAddress,
        Self::NoEndpoint,
        Self::OnlyEndpointInUse,
        Self::NoJoinCame,
        Self::Unknown,
    ];

    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotEstablished => "not-established",
            Self::UserspaceManager => "userspace-pm",
            Self::LimitZero => "limit-0",
            Self::AddressLimitZero => "add-addr-limit-0",
            Self::PeerDeniesInitialAddress => "peer-denies-id0",
            Self::NoEndpoint => "no-endpoint",
            Self::OnlyEndpointInUse => "only-endpoint-in-use",
            Self::NoJoinCame => "no-join-came",
            Self::Unknown => "unknown",
        }
    }
}

/// The end of a connection: what it was, and what its paths carried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Closed {
    /// The connection.
    pub id: ConnectionId,
    /// When it ended, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// Its socket.
    pub socket: Socket,
    /// The process that held it, if known.
    pub owner: Option<Owner>,
    /// Which end opened it, if known.
    pub side: Option<Side>,
    /// What it was.
    pub outcome: Outcome,
    /// How long it lasted, if its beginning was observed.
    pub duration: Option<Duration>,
    /// Paths that were tried, the first one included.
    pub paths_tried: u32,
    /// Paths that came up.
    pub paths_up: u32,
    /// Paths that failed.
    pub paths_failed: u32,
    /// The most paths that were up at one time.
    pub paths_most: u32,
    /// The paths, in the order of their ends, at most [`Self::PATHS_MAX`].
    pub paths: Vec<PathSummary>,
    /// Payload sent and received over all paths, without retransmissions, bytes.
    pub bytes: (u64, u64),
    /// Queries by the application that were traced.
    pub queries: u64,
    /// Why no second path was tried, at the end that opened the connection.
    pub never_tried: Option<NeverTried>,
    /// It was open before tracing began, or its paths were not all observed: the counts are at
    /// least these.
    pub incomplete: bool,
    /// The filter admits it.
    pub admitted: bool,
}

impl Closed {
    /// At most this many paths are listed; all are counted.
    pub const PATHS_MAX: usize = 64;
}

/// The end of a connection with its wall clock time and its owner's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClosedEvent {
    /// What ended.
    pub closed: Closed,
    /// When, wall clock.
    pub time: SystemTime,
    /// The place of the owner.
    pub place: Place,
}
