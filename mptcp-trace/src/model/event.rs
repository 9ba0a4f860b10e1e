//! What happened, on its way to a finding: what decode makes of records, and correlate of them makes findings.

use std::time::Duration;

use super::{ConnectionEvent, ConnectionId, Owner, Place, QueryEvent, RefusalEvent, Socket};

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "queries are many, and none of them shall cost an allocation"
)]
pub enum Event {
    /// An application asked.
    Query(QueryEvent),
    /// News of a connection.
    Connection(Box<ConnectionEvent>),
    /// What is known of a connection changed.
    Change(Box<ChangeEvent>),
    /// An application was refused something because it speaks MPTCP.
    Refusal(Box<RefusalEvent>),
}

impl Event {
    /// When it happened, on `CLOCK_BOOTTIME`; a question, when it was answered.
    #[must_use]
    pub fn at(&self) -> Duration {
        match self {
            Self::Query(event) => event.query.answered_at(),
            Self::Connection(event) => event.connection.at,
            Self::Change(event) => event.change.at,
            Self::Refusal(event) => event.refusal.at,
        }
    }
}

/// What became of a connection of which something was said before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// It was accepted, stands now, or is closed by another owner: it is known whose it is.
    Accepted,
    /// It is no more.
    Closed,
}

/// What is no news by itself: whose a connection is, or that it is no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Which of the two.
    pub kind: ChangeKind,
    /// When it happened, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// The connection.
    pub id: ConnectionId,
    /// Its socket.
    pub socket: Socket,
    /// Who holds it, if that is known.
    pub owner: Option<Owner>,
    /// The filter wants it.
    pub admitted: bool,
    /// It was asked about since the last question that was traced, and that one was not: capped, or lost.
    pub untold: bool,
    /// It is connecting, or that has failed: there is no connection (yet).
    pub connecting: bool,
}

/// The same with its owner in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeEvent {
    /// What was observed.
    pub change: Change,
    /// Where the owner lives.
    pub place: Place,
}
