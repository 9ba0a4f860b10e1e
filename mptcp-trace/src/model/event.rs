//! Events: `decode` makes them from records, `correlate` turns them into findings.

use std::time::Duration;

use super::{
    ConnectionEvent, ConnectionId, Owner, PathEvent, Place, QueryEvent, RefusalEvent, Socket,
};

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "queries are many, and none of them shall cost an allocation"
)]
pub enum Event {
    /// A query by an application.
    Query(QueryEvent),
    /// An event of a connection.
    Connection(Box<ConnectionEvent>),
    /// A change of a known connection.
    Change(Box<ChangeEvent>),
    /// The kernel refused something to an application because it uses MPTCP.
    Refusal(Box<RefusalEvent>),
    /// An event of a path.
    Path(Box<PathEvent>),
}

impl Event {
    /// When it happened, on `CLOCK_BOOTTIME`; for a query, when it was answered.
    #[must_use]
    pub fn at(&self) -> Duration {
        match self {
            Self::Query(event) => event.query.answered_at(),
            Self::Connection(event) => event.connection.at,
            Self::Change(event) => event.change.at,
            Self::Refusal(event) => event.refusal.at,
            Self::Path(event) => event.path.at,
        }
    }
}

/// How a connection that was reported before changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// It was accepted, became established, or is being closed by another owner: its owner is
    /// known.
    Accepted,
    /// It ended.
    Closed,
}

/// A change that is not reported on its own: the owner of a connection, or its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Kind of the change.
    pub kind: ChangeKind,
    /// When it happened, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// The connection.
    pub id: ConnectionId,
    /// Its socket.
    pub socket: Socket,
    /// The process that holds it, if known.
    pub owner: Option<Owner>,
    /// The filter admits it.
    pub admitted: bool,
    /// It was queried since the last traced query, and that query was not traced: capped, or lost.
    pub query_untraced: bool,
    /// It is connecting, or connecting failed: the connection is not established.
    pub connecting: bool,
    /// Whether it has fallen back, if known.
    pub fell_back: Option<bool>,
    /// Paths that this host is opening.
    pub pending_paths: u8,
}

/// A change with the place of the owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeEvent {
    /// What was observed.
    pub change: Change,
    /// The place of the owner.
    pub place: Place,
}
