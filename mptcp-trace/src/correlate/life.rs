//! The life of one connection: its paths, what they carried, and what to conclude at its end.

use std::{borrow::Cow, time::Duration};

use crate::model::{
    Change, Closed, ConnectionId, DecidedBy, NeverTried, Outcome, Owner, Path, PathId, PathKind,
    PathManager, PathRole, PathSummary, Place, Rung, Side, Socket,
};

/// One connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Life {
    socket: Socket,
    owner: Option<Owner>,
    place: Place,
    side: Option<Side>,
    /// When the first path began, if observed.
    began_at: Option<Duration>,
    /// The first path ended: another first path belongs to another connection of the same socket.
    first_ended: bool,
    attempt: u32,
    tried: u32,
    up: u32,
    failed: u32,
    /// Paths that were being opened when the connection ended, and have not failed yet.
    pending: u32,
    /// Paths that are up now, and the most at one time.
    now: u32,
    most: u32,
    paths: Vec<PathSummary>,
    /// Payload of the paths that ended, sent and received.
    bytes: (u64, u64),
    /// State of the path manager at the first sight of the connection, and at the last one.
    manager: Option<(PathManager, PathManager)>,
    /// The peer announced an address.
    peer_announced: bool,
    /// Refused joins of the peer are traced with their connection.
    sees_refusals: bool,
    /// Ids of addresses that the peer removed, in order.
    removed_ids: Vec<u8>,
    /// Its token at this end; 0 while unknown.
    pub(super) token: u32,
    incomplete: bool,
    pub(super) admitted: bool,
    /// When it ended, and what is known of it from other events; its last paths may not have ended.
    pub(super) end: Option<End>,
    /// Its end was reported: it only gives its owner to paths that outlive it.
    pub(super) is_reported: bool,
    /// Its stale paths.
    pub(super) stale: Vec<PathId>,
    /// Sequence number of its last use.
    pub(super) used: u64,
}

/// What the end of a connection is known from besides its paths.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct End {
    pub(super) at: Duration,
    /// What the connection was.
    pub(super) outcome: Outcome,
    /// Queries by the application.
    pub(super) queries: u64,
}

impl Life {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            owner: None,
            place: Place::default(),
            side: None,
            began_at: None,
            first_ended: false,
            attempt: 0,
            tried: 0,
            up: 0,
            failed: 0,
            pending: 0,
            now: 0,
            most: 0,
            paths: Vec::new(),
            bytes: (0, 0),
            manager: None,
            peer_announced: false,
            sees_refusals: false,
            removed_ids: Vec::new(),
            token: 0,
            incomplete: false,
            admitted: false,
            end: None,
            is_reported: false,
            stale: Vec::new(),
            used: 0,
        }
    }

    /// If the socket connects again, its earlier paths belong to an ended connection: returns that.
    pub(super) fn starts_anew(&mut self, path: &Path) -> Option<Self> {
        if path.role != PathRole::First || path.kind != PathKind::Up || !self.first_ended {
            return None;
        }
        let fresh = Self {
            owner: self.owner.clone(),
            place: self.place.clone(),
            side: self.side,
            attempt: self.attempt.saturating_add(1),
            admitted: self.admitted,
            used: self.used,
            ..Self::new(self.socket.clone())
        };
        let before = std::mem::replace(self, fresh);
        (before.up > 0).then_some(before)
    }

    /// It was established.
    pub(super) fn was_open(&self) -> bool {
        self.up > 0
    }

    /// It has paths that are up, or being opened.
    pub(super) fn has_paths(&self) -> bool {
        self.now + self.pending > 0
    }

    /// Owner, its place, and whether the filter admits it.
    pub(super) fn holder(&self) -> (Option<Owner>, Place, bool) {
        (self.owner.clone(), self.place.clone(), self.admitted)
    }

    /// Payload of the paths that ended, sent and received.
    pub(super) fn bytes(&self) -> (u64, u64) {
        self.bytes
    }

    /// Takes what an event of a path says about the connection.
    pub(super) fn learn(&mut self, path: &Path, place: &Place) {
        let is_of_first = path.role == PathRole::First && !path.kind.is_of_address();
        if is_of_first {
            if self.began_at.is_none() && !path.existing {
                self.began_at = path.began_at;
            }
            // The first path has the addresses by which people know a connection.
            if path.socket.remote.port() != 0 {
                self.socket.local = path.socket.local;
                self.socket.remote = path.socket.remote;
            }
            self.side = path.side.or(self.side);
        }
        if path.owner.is_some() {
            self.owner.clone_from(&path.owner);
            self.place.clone_from(place);
        }
        self.admitted |= path.admitted;
        self.sees_refusals = path.rung != Rung::Tracepoint;
        if let Some(manager) = path.manager {
            let first = self.manager.map_or(manager, |(first, _)| first);
            self.manager = Some((first, manager));
        }
    }

    /// Takes a new owner.
    pub(super) fn changed(&mut self, change: &Change, place: &Place) {
        if change.owner.is_some() {
            self.owner.clone_from(&change.owner);
            self.place.clone_from(place);
            self.admitted |= change.admitted;
        }
    }

    fn comes_up(&mut self) {
        // One that was pending when the connection ended was counted as failed.
        if self.pending > 0 {
            self.pending -= 1;
            self.failed -= 1;
            self.tried -= 1;
        }
        self.tried += 1;
        self.up += 1;
        self.now += 1;
        self.most = self.most.max(self.now);
    }

    /// The path manager removed a path because the peer removed its address.
    pub(super) fn is_removed_by_peer(&self, path: &Path) -> bool {
        let is_removed = |id: u8| self.removed_ids.contains(&id);
        path.cause.as_deref() == Some("removed") && path.remote_id.is_some_and(is_removed)
    }

    /// Counts an event of a path.
    pub(super) fn happened(&mut self, path: &Path) {
        let is_by_peer = path.decided_by == Some(DecidedBy::Peer);
        match path.kind {
            PathKind::Up => self.comes_up(),
            PathKind::Open => {
                self.comes_up();
                self.incomplete = true;
            }
            PathKind::Failed | PathKind::ConnectFailed => {
                // A pending one was counted when the connection ended.
                let is_counted = self.pending > 0 && path.path.is_some();
                self.pending -= u32::from(is_counted);
                self.tried += u32::from(!is_counted);
                self.failed += u32::from(!is_counted);
                self.ends(path);
            }
            PathKind::Down => {
                self.incomplete |= path.existing;
                if !path.was_reported_up {
                    self.comes_up();
                }
                self.now = self.now.saturating_sub(1);
                self.first_ended |= path.role == PathRole::First;
                self.ends(path);
            }
            PathKind::AddressAnnounced | PathKind::AddressDropped | PathKind::AddressOverLimit => {
                self.peer_announced |= is_by_peer;
            }
            PathKind::AddressRemoved if is_by_peer => {
                self.removed_ids.extend(&path.removed_ids);
                self.removed_ids.sort_unstable();
                self.removed_ids.dedup();
            }
            PathKind::Stale
            | PathKind::Recovered
            | PathKind::Priority
            | PathKind::AddressEchoed
            | PathKind::AddressRemoved => {}
        }
    }

    /// Adds what a path carried.
    fn ends(&mut self, path: &Path) {
        if let Some(ledger) = &path.ledger {
            self.bytes.0 = self.bytes.0.saturating_add(ledger.bytes_sent);
            self.bytes.1 = self.bytes.1.saturating_add(ledger.bytes_received);
        }
        if self.paths.len() < Closed::PATHS_MAX {
            self.paths.push(PathSummary {
                socket: path.socket.clone(),
                role: path.role,
                lifetime: path.lifetime(),
                cause: path.cause.clone(),
                was_up: path.kind == PathKind::Down,
                ledger: path.ledger,
            });
        }
    }

    /// Updates the stale paths; true if this one was stale, and recovered unobserved before it
    /// ended.
    pub(super) fn note_stale(&mut self, path: &Path) -> bool {
        let Some(of) = path.path else {
            return false;
        };
        let kinds = [PathKind::Stale, PathKind::Recovered, PathKind::Down];
        if !kinds.contains(&path.kind) {
            return false;
        }
        let before = self.stale.len();
        self.stale.retain(|it| *it != of);
        let was_stale = self.stale.len() < before;
        if path.kind == PathKind::Stale {
            self.stale.push(of);
        }
        was_stale && path.kind == PathKind::Down && !path.is_stale
    }

    /// The connection ended. Paths that were being opened end with it, or soon after it.
    pub(super) fn closes(&mut self, change: &Change, end: End) {
        self.pending = change.pending_paths.into();
        self.tried += self.pending;
        self.failed += self.pending;
        self.end = Some(end);
    }

    /// Its end is reported. Paths that outlive it are TCP sockets that nobody holds.
    pub(super) fn reported(&mut self) {
        self.is_reported = true;
        self.incomplete |= self.now > 0;
        self.end = None;
    }

    /// Why no second path was tried: the first rule that fits.
    fn never_tried(&self, outcome: &Outcome) -> Option<NeverTried> {
        if self.tried != 1 || self.up == 0 || self.incomplete || *outcome != Outcome::Mptcp {
            return None;
        }
        match self.side? {
            Side::Active => {}
            Side::Passive => return self.sees_refusals.then_some(NeverTried::NoJoinCame),
        }
        let (before, after) = self.manager?;
        let uses_addresses = before.accepts_addresses || after.accepts_addresses;
        Some(match () {
            () if !after.established => NeverTried::NotEstablished,
            () if after.in_userspace => NeverTried::UserspaceManager,
            () if !before.accepts_paths => NeverTried::LimitZero,
            () if self.peer_announced && !uses_addresses => NeverTried::AddressLimitZero,
            () if after.peer_denies_id0 && !self.peer_announced => {
                NeverTried::PeerDeniesInitialAddress
            }
            () if !before.has_work => NeverTried::NoEndpoint,
            () if after.addresses_used == 0 => NeverTried::OnlyEndpointInUse,
            () => NeverTried::Unknown,
        })
    }

    /// The finding about its end.
    pub(super) fn into_closed(self, id: ConnectionId, end: End) -> (Closed, Place) {
        let never_tried = self.never_tried(&end.outcome);
        let closed = Closed {
            id: ConnectionId {
                attempt: self.attempt,
                ..id
            },
            at: end.at,
            socket: self.socket,
            owner: self.owner,
            side: self.side,
            outcome: end.outcome,
            duration: self.began_at.map(|began| end.at.saturating_sub(began)),
            paths_tried: self.tried,
            paths_up: self.up,
            paths_failed: self.failed,
            paths_most: self.most,
            paths: self.paths,
            bytes: self.bytes,
            queries: end.queries,
            never_tried,
            incomplete: self.incomplete,
            admitted: self.admitted,
        };
        (closed, self.place)
    }
}

/// The cause of a path that was removed because the peer removed its address.
pub(super) fn removed_by_peer(path: &mut Path) {
    path.cause = Some(Cow::Borrowed("address-removed"));
    path.decided_by = Some(DecidedBy::Peer);
}
