//! The connections whose paths were observed, up to a limit.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, UNIX_EPOCH},
};

use super::{
    Correlator,
    life::{End, Life, removed_by_peer},
};
use crate::model::{
    CauseCertainty, Change, Closed, ClosedEvent, ConnectionId, Facts, Finding, Outcome, Owner,
    Path, PathEvent, PathKind, Place, Socket,
};

/// How long the end of a connection waits for the ends of its last paths: the kernel may free the
/// connection before it closes them.
pub(super) const PATHS_WAIT: Duration = Duration::from_millis(300);

/// All connections with paths, up to a limit.
#[derive(Debug)]
pub(super) struct PathBook {
    limit: usize,
    by_id: HashMap<ConnectionId, Box<Life>>,
    by_use: BTreeMap<u64, ConnectionId>,
    /// By token, which is unique on a host (`mptcp_token_new_accept`).
    by_token: HashMap<u32, ConnectionId>,
    /// Connections that ended before their last paths, by when they ended.
    closing: BTreeMap<(Duration, u64), ConnectionId>,
    uses: u64,
    evicted: u64,
    /// Number of stale paths.
    stale: usize,
}

/// A connection that ended.
type Ended = (Closed, Place);

/// What an event of a path led to.
#[derive(Default)]
pub(super) struct Noted {
    /// The owner, its place and whether the filter admits it, from the connection.
    pub(super) of_connection: Option<(Option<Owner>, Place, bool)>,
    /// Payload of the connection's paths that ended, this one included.
    pub(super) bytes: Option<(u64, u64)>,
    /// An earlier connection of the same socket.
    pub(super) ended: Option<Ended>,
    /// The path had been stale, and recovered unobserved before it ended.
    pub(super) has_recovered: bool,
}

impl PathBook {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            by_id: HashMap::new(),
            by_use: BTreeMap::new(),
            by_token: HashMap::new(),
            closing: BTreeMap::new(),
            uses: 0,
            evicted: 0,
            stale: 0,
        }
    }

    /// Number of connections that were dropped before their end, because the table was full.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// True if the scheduler avoids a path.
    pub(super) fn has_stale(&self) -> bool {
        self.stale > 0
    }

    /// True if a connection waits for the ends of its paths.
    pub(super) fn waits(&self) -> bool {
        !self.closing.is_empty()
    }

    /// True if a process that the filter admits has held this connection.
    pub(super) fn is_wanted(&self, id: ConnectionId) -> bool {
        self.by_id.get(&id).is_some_and(|life| life.admitted)
    }

    fn touch(&mut self, id: ConnectionId, socket: &Socket) -> &mut Life {
        if !self.by_id.contains_key(&id) && self.by_id.len() >= self.limit {
            let victim = self.by_use.first_key_value().map(|(_, id)| *id);
            if let Some(victim) = victim {
                let gone = self.remove(victim);
                self.evicted += u64::from(gone.is_some_and(|it| !it.is_reported));
            }
        }
        self.uses += 1;
        let life = self
            .by_id
            .entry(id)
            .or_insert_with(|| Box::new(Life::new(socket.clone())));
        self.by_use.remove(&life.used);
        life.used = self.uses;
        self.by_use.insert(self.uses, id);
        life
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Life> {
        let life = self.by_id.remove(&id)?;
        self.stale -= life.stale.len();
        self.by_use.remove(&life.used);
        if self.by_token.get(&life.token) == Some(&id) {
            self.by_token.remove(&life.token);
        }
        if let Some(end) = &life.end {
            self.closing.remove(&(end.at, id.socket.0));
        }
        Some(*life)
    }

    /// The connection of an event: as recorded, or by the token of a join.
    fn connection_of(&self, path: &Path) -> Option<ConnectionId> {
        path.connection
            .or_else(|| self.by_token.get(&path.token).copied())
    }

    /// A path has the token of its connection; a failed join has the one that the peer sent.
    fn note_token(&mut self, path: &Path, id: ConnectionId) {
        if path.path.is_none() || path.token == 0 {
            return;
        }
        if let Some(life) = self.by_id.get_mut(&id)
            && life.token != path.token
        {
            self.by_token.remove(&life.token);
            life.token = path.token;
            self.by_token.insert(path.token, id);
        }
    }

    /// An event of a path. A path that the path manager removed because the peer removed its address
    /// gets that cause.
    pub(super) fn path(&mut self, path: &mut Path, place: &Place) -> Noted {
        path.connection = self.connection_of(path);
        let Some(id) = path.connection else {
            return Noted::default();
        };
        // A connection that could not be opened has no other paths.
        if path.kind == PathKind::ConnectFailed && !self.by_id.contains_key(&id) {
            return Noted::default();
        }
        let life = self.touch(id, &path.socket);
        let end = End {
            at: path.at,
            outcome: Outcome::Unknown,
            queries: 0,
        };
        let ended = life.starts_anew(path).map(|it| it.into_closed(id, end));
        life.learn(path, place);
        if life.is_removed_by_peer(path) {
            removed_by_peer(path);
        }
        life.happened(path);
        let stale = life.stale.len();
        let has_recovered = life.note_stale(path);
        let (stale, of_connection) = ((stale, life.stale.len()), life.holder());
        let is_end = matches!(
            path.kind,
            PathKind::Down | PathKind::Failed | PathKind::ConnectFailed
        );
        let bytes = is_end.then(|| life.bytes());
        let is_over = life.is_reported && !life.has_paths();
        self.stale = self.stale + stale.1 - stale.0;
        self.note_token(path, id);
        if is_over {
            self.remove(id);
        }
        Noted {
            of_connection: Some(of_connection),
            bytes,
            ended,
            has_recovered,
        }
    }

    /// A connection has a new owner, or ended.
    pub(super) fn changed(&mut self, change: &Change, place: &Place) {
        if let Some(life) = self.by_id.get_mut(&change.id) {
            life.changed(change, place);
        }
    }

    /// A connection ended, after so many queries. That is reported a little later.
    pub(super) fn closed(&mut self, change: &Change, outcome: Outcome, queries: u64) {
        let id = change.id;
        let Some(life) = self.by_id.get_mut(&id) else {
            return;
        };
        if !life.was_open() {
            self.remove(id);
            return;
        }
        let at = change.at;
        life.closes(
            change,
            End {
                at,
                outcome,
                queries,
            },
        );
        self.closing.insert((at, id.socket.0), id);
    }

    /// Connections that have waited for their paths for long enough, by `now`.
    pub(super) fn waited_until(&mut self, now: Duration) -> Vec<Ended> {
        let mut ended = Vec::new();
        while let Some(((closed_at, _), id)) = self.closing.first_key_value() {
            let id = *id;
            if closed_at.saturating_add(PATHS_WAIT) > now {
                break;
            }
            self.closing.pop_first();
            let Some(life) = self.by_id.get_mut(&id) else {
                continue;
            };
            let Some(end) = life.end.take() else {
                continue;
            };
            if life.has_paths() {
                life.reported();
                ended.push(life.as_ref().clone().into_closed(id, end));
            } else if let Some(life) = self.remove(id) {
                ended.push(life.into_closed(id, end));
            }
        }
        ended
    }
}

impl Correlator {
    /// An event of a path: reported with the owner of its connection.
    pub(super) fn path(
        &mut self,
        mut event: Box<PathEvent>,
        facts: &Facts,
        ready: &mut Vec<Finding>,
    ) {
        let path = &mut event.path;
        let was_removed = path.cause.as_deref() == Some("removed");
        let noted = self.paths.path(path, &event.place);
        if was_removed && path.cause.as_deref() != Some("removed") {
            self.path_counts.removed_by_peer(path);
        }
        if noted.has_recovered {
            self.path_counts.record(&recovered(&event).path, facts);
        }
        ready.extend(noted.ended.and_then(|it| finding(it, facts)));
        event.of_connection = noted.bytes;
        if let Some((owner, place, admitted)) = noted.of_connection {
            if event.path.owner.is_none() {
                event.path.owner = owner;
                event.place = place;
            }
            event.path.admitted |= admitted;
        }
        if !event.path.admitted {
            self.paths_filtered += 1;
            return;
        }
        if noted.has_recovered {
            ready.push(Finding::Path(Box::new(recovered(&event))));
        }
        ready.push(Finding::Path(event));
    }
}

/// The finding about the end of a connection, if the filter admits it.
pub(super) fn finding((closed, place): Ended, facts: &Facts) -> Option<Finding> {
    closed.admitted.then(|| {
        Finding::Closed(Box::new(ClosedEvent {
            time: UNIX_EPOCH + facts.boot_epoch + closed.at,
            closed,
            place,
        }))
    })
}

/// A stale path that ends has recovered, unless it is still stale: that was not observed.
fn recovered(event: &PathEvent) -> PathEvent {
    let mut event = event.clone();
    let path = &mut event.path;
    path.kind = PathKind::Recovered;
    path.cause = None;
    path.known = CauseCertainty::Unknown;
    path.decided_by = None;
    path.reset = None;
    path.errno = None;
    path.late = true;
    event
}
