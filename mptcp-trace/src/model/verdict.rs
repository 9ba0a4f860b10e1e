//! What is concluded: what an application believes of its connection, against what the connection is.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use super::{Answer, Api, ConnectionId, Owner, Place, Query, Socket};

/// What is concluded of an answer, or of a connection when it ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// Told TCP, and the fallback was seen.
    Explained,
    /// Told TCP, and the socket never was MPTCP.
    PlainTcp,
    /// Told MPTCP, and it is.
    StillMptcp,
    /// Told MPTCP before the handshake could decide.
    TooEarly,
    /// Told MPTCP, fell back later, and was not asked again.
    Stale,
    /// Fell back, and nobody asked.
    NeverAsked,
    /// Told TCP, and no fallback was seen.
    Unexplained,
    /// Asked in a way that cannot see a fallback.
    Misled,
    /// This kernel does not know the question.
    Unsupported,
    /// Told MPTCP although a fallback was seen before.
    Contradicted,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Explained,
        Self::PlainTcp,
        Self::StillMptcp,
        Self::TooEarly,
        Self::Stale,
        Self::NeverAsked,
        Self::Unexplained,
        Self::Misled,
        Self::Unsupported,
        Self::Contradicted,
    ];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Explained => "explained",
            Self::PlainTcp => "plain-tcp",
            Self::StillMptcp => "still-mptcp",
            Self::TooEarly => "too-early",
            Self::Stale => "stale",
            Self::NeverAsked => "never-asked",
            Self::Unexplained => "unexplained",
            Self::Misled => "misled",
            Self::Unsupported => "unsupported",
            Self::Contradicted => "contradicted",
        }
    }

    /// The verdict of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|verdict| verdict.name().eq_ignore_ascii_case(name))
    }
}

/// A verdict with what it stands on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The same as one full sentence, evidence included.
    pub sentence: Cow<'static, str>,
    /// When the connection fell back, on `CLOCK_BOOTTIME`, if that was seen.
    pub fell_back_at: Option<Duration>,
    /// Why, as the name of the kernel's counter, if that is known.
    pub cause: Option<Cow<'static, str>>,
    /// Between the answer and the fallback, whichever came first, if there were both.
    pub delay: Option<Duration>,
}

/// What ended an open verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClosedBy {
    /// The socket is no more.
    Death,
    /// Too many connections were remembered, and this was the oldest.
    Eviction,
    /// Tracing ended.
    Exit,
}

impl ClosedBy {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Death => "death",
            Self::Eviction => "eviction",
            Self::Exit => "exit",
        }
    }
}

/// The last question about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastAsked {
    /// When it was answered, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// How it was asked.
    pub api: Api,
    /// What the kernel said.
    pub answer: Answer,
}

impl LastAsked {
    /// What stands in a question.
    #[must_use]
    pub fn of(query: &Query) -> Self {
        Self {
            at: query.answered_at(),
            api: query.api,
            answer: query.answer,
        }
    }
}

/// What is left to say of a connection at its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerdictEvent {
    /// The verdict, and what it stands on.
    pub judgement: Judgement,
    /// The connection.
    pub id: ConnectionId,
    /// When it was closed, on `CLOCK_BOOTTIME`; at the exit, the latest moment that any record tells of.
    pub at: Duration,
    /// The same, wall clock.
    pub time: SystemTime,
    /// What closed it.
    pub closed_by: ClosedBy,
    /// Who holds it, if that is known: of a connection that was asked about and whose fallback was not seen, whoever asked.
    pub owner: Option<Owner>,
    /// Where the owner lives.
    pub place: Place,
    /// Its socket.
    pub socket: Socket,
    /// The last question, if there was one.
    pub asked: Option<LastAsked>,
    /// How often it was asked about.
    pub questions: u64,
    /// Why the verdict may be wrong, if questions are known to be missing.
    pub doubt: Option<Cow<'static, str>>,
}
