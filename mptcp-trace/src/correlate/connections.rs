//! The state of live connections: whether one fell back, and the last answer that its
//! application got.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::model::{
    Change, ChangeEvent, ConnectionEvent, ConnectionId, LastAsked, Outcome, Owner, Place, Process,
    Protocol, Query, Socket, SocketId, TcpState, Verdict, Via,
};

/// An observed fallback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fallen {
    /// When it happened, or when it was detected.
    pub(super) at: Duration,
    /// The cause, if known.
    pub(super) cause: Option<Cow<'static, str>>,
    /// It was predicted from the decision's inputs, or detected later: `at` is not exact.
    pub(super) is_predicted: bool,
}

/// One connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ConnectionState {
    /// How often its socket connected before.
    pub(super) attempt: u32,
    pub(super) socket: Socket,
    pub(super) owner: Option<Owner>,
    pub(super) place: Place,
    pub(super) fallen: Option<Fallen>,
    /// When the connection began, if an event showed it; a later time means another connection of
    /// the same socket.
    connected_at: Option<Duration>,
    /// It was open before tracing began.
    pub(super) existing: bool,
    pub(super) queries: u64,
    /// Why the verdict on this connection may be wrong, if there is a known reason.
    pub(super) doubt: Option<&'static str>,
    pub(super) asked: Option<LastAsked>,
    /// Verdict on the last answer.
    pub(super) judged: Option<Verdict>,
    /// It is connecting, or connecting failed: there is nothing to judge.
    pub(super) connecting: bool,
    /// The filter admits it.
    pub(super) admitted: bool,
    /// Sequence number of its last use; the smallest is the least recent.
    used: u64,
}

impl ConnectionState {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            owner: None,
            place: Place::default(),
            fallen: None,
            connected_at: None,
            existing: false,
            queries: 0,
            attempt: 0,
            doubt: None,
            asked: None,
            judged: None,
            connecting: false,
            admitted: false,
            used: 0,
        }
    }

    /// The id of the current connection of the socket `of_socket`.
    pub(super) fn id(&self, of_socket: ConnectionId) -> ConnectionId {
        ConnectionId {
            attempt: self.attempt,
            ..of_socket
        }
    }

    /// Updates the socket. A remote address that it no longer has is kept.
    pub(super) fn seen(&mut self, socket: &Socket) {
        let remote = self.socket.remote;
        self.socket.clone_from(socket);
        if socket.remote.port() == 0 {
            self.socket.remote = remote;
        }
    }

    /// Updates the owner from the connection's end; a record without an owner changes nothing.
    pub(super) fn was_used_by(&mut self, event: &ChangeEvent) {
        if event.change.owner.is_some() {
            self.belongs_to(&event.change.owner, &event.place, event.change.admitted);
        }
    }

    /// Updates the owner from an event.
    pub(super) fn belongs(&mut self, event: &ConnectionEvent) {
        let connection = &event.connection;
        self.belongs_to(&connection.owner, &event.place, connection.admitted);
    }

    fn belongs_to(&mut self, owner: &Option<Owner>, place: &Place, is_admitted: bool) {
        self.owner.clone_from(owner);
        self.place.clone_from(place);
        self.admitted |= is_admitted;
    }

    /// A process that queries the socket holds it.
    pub(super) fn asked_by(&mut self, process: &Process) {
        // Usually the owner is unchanged, and nothing is copied.
        let is_known = self
            .owner
            .as_ref()
            .is_some_and(|it| it.via == Via::Query && it.process == *process);
        if !is_known {
            self.owner = Some(Owner {
                process: process.clone(),
                via: Via::Query,
            });
        }
    }

    /// The application asked through an API that sees fallbacks, and that this kernel supports.
    pub(super) fn knows(&self) -> bool {
        self.asked.is_some_and(|it| it.api.sees_fallbacks())
            && self.judged != Some(Verdict::Unsupported)
    }

    /// True if `connected_at` is not the start of this connection: the socket has connected again.
    pub(super) fn has_connected_again(&self, connected_at: Option<Duration>) -> bool {
        let Some(connected_at) = connected_at else {
            return false;
        };
        let has_fallen_before = self
            .fallen
            .as_ref()
            .is_some_and(|fallen| connected_at > fallen.at);
        has_fallen_before || self.connected_at.is_some_and(|it| connected_at > it)
    }

    /// True if an event showed when it connected.
    pub(super) fn was_connected(&self) -> bool {
        self.connected_at.is_some()
    }

    /// Sets the start of the connection.
    pub(super) fn connected(&mut self, connected_at: Option<Duration>) {
        self.connected_at = connected_at.or(self.connected_at);
    }

    /// Begins a new connection on the same socket, to which earlier answers do not apply. Returns
    /// the old one, which ends here.
    pub(super) fn starts_anew(&mut self) -> Self {
        let ended = self.clone();
        self.attempt = self.attempt.saturating_add(1);
        self.fallen = None;
        self.connected_at = None;
        self.asked = None;
        self.judged = None;
        self.doubt = None;
        self.queries = 0;
        ended
    }
}

/// All connections that were queried or fell back, up to a limit.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    limit: usize,
    /// Boxed: a hash table has empty slots, and moves its entries when it grows.
    by_id: HashMap<ConnectionId, Box<ConnectionState>>,
    by_socket: HashMap<SocketId, ConnectionId>,
    by_use: BTreeMap<u64, ConnectionId>,
    uses: u64,
    evicted: u64,
}

/// A connection that was removed.
pub(super) type Removed = (ConnectionId, ConnectionState);

impl ConnectionTable {
    /// An empty table for at most `limit` connections.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            by_id: HashMap::new(),
            by_socket: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            evicted: 0,
        }
    }

    /// Number of tracked connections.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Number of connections evicted before their end.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The state of a connection.
    pub(super) fn get(&mut self, id: ConnectionId) -> Option<&mut ConnectionState> {
        self.by_id.get_mut(&id).map(AsMut::as_mut)
    }

    /// Marks a connection as used. Returns its state, with its socket as last
    /// [`seen`](ConnectionState::seen); the previous one at its address; and the least recently
    /// used one, if it was evicted.
    /// address before; and the oldest, if there was no room.
    pub(super) fn touch(
        &mut self,
        id: ConnectionId,
        socket: &Socket,
    ) -> (&mut ConnectionState, Option<Removed>, Option<Removed>) {
        let before = match self.by_socket.get(&id.socket) {
            Some(other) if *other != id => {
                let other = *other;
                self.remove(other)
            }
            Some(_) | None => None,
        };
        let mut oldest = None;
        if !self.by_id.contains_key(&id) && self.by_id.len() >= self.limit {
            let victim = self.by_use.first_key_value().map(|(_, id)| *id);
            oldest = victim.and_then(|id| self.remove(id));
            self.evicted += u64::from(oldest.is_some());
        }
        self.uses += 1;
        let state = self
            .by_id
            .entry(id)
            .or_insert_with(|| Box::new(ConnectionState::new(socket.clone())));
        self.by_use.remove(&state.used);
        state.used = self.uses;
        self.by_use.insert(self.uses, id);
        self.by_socket.insert(id.socket, id);
        (state, before, oldest)
    }

    /// Removes a connection.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Removed> {
        let state = self.by_id.remove(&id)?;
        self.by_use.remove(&state.used);
        if self.by_socket.get(&id.socket) == Some(&id) {
            self.by_socket.remove(&id.socket);
        }
        Some((id, *state))
    }

    /// Removes all connections, least recently used first.
    pub(super) fn drain(&mut self) -> Vec<Removed> {
        let ids: Vec<ConnectionId> = self.by_use.values().copied().collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }
}

/// True if a query concerns another connection than the tracked one of its socket.
pub(super) fn is_of_another_connection(query: &Query, state: &ConnectionState) -> bool {
    // A connection that became TCP when it was accepted stays TCP.
    if query.protocol() == Protocol::Tcp {
        return false;
    }
    let is_mptcp = query.fell_back == Some(false);
    match &state.fallen {
        // An unconnected socket has left its old connection.
        Some(_) if is_unconnected(query.socket.state) && is_mptcp => true,
        // Without a connect time, the answer decides.
        Some(_) if query.connected_at.is_none() => is_mptcp,
        None if query.socket.state == TcpState::CLOSE => state.was_connected(),
        Some(_) | None => state.has_connected_again(query.connected_at),
    }
}

pub(super) fn is_unconnected(state: TcpState) -> bool {
    matches!(state, TcpState::CLOSE | TcpState::SYN_SENT)
}

/// What a connection that ends was: by its last fallback, or by its state bits.
pub(super) fn outcome(change: &Change, state: Option<&ConnectionState>) -> Outcome {
    let fallen = state.and_then(|state| state.fallen.as_ref());
    match (fallen, change.fell_back) {
        (Some(fallen), _) => Outcome::FellBack {
            at: (!fallen.is_predicted).then_some(fallen.at),
            cause: fallen.cause.clone(),
        },
        (None, Some(true)) => Outcome::FellBack {
            at: None,
            cause: None,
        },
        (None, Some(false)) => Outcome::Mptcp,
        (None, None) => Outcome::Unknown,
    }
}
