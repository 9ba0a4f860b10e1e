//! What reaches the reader: what kind of news it is, when it was, how bad.

use std::time::{Duration, SystemTime};

use super::{
    ConnectionEvent, ConnectionKind, QueryEvent, RefusalEvent, Refused, Verdict, VerdictEvent,
};

/// What reaches the reader.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "queries are many, and none of them shall cost an allocation"
)]
pub enum Finding {
    /// An application asked.
    Query(QueryEvent),
    /// Something about a connection.
    Connection(Box<ConnectionEvent>),
    /// What is left to say of a connection at its end.
    Verdict(Box<VerdictEvent>),
    /// An application was refused something because it speaks MPTCP.
    Refusal(Box<RefusalEvent>),
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Nobody has to do anything.
    Info,
    /// A connection is TCP, or its application does not know.
    Warning,
    /// A bug, ours or the kernel's.
    Error,
}

impl Finding {
    /// What kind of news it is: the `type` of its JSON line.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Query(_) => "query",
            Self::Connection(event) => event.connection.kind.name(),
            Self::Verdict(_) => "verdict",
            Self::Refusal(event) => match event.refusal.what {
                Refused::Option { .. } => "option_refused",
                Refused::Socket { .. } => "socket_refused",
            },
        }
    }

    /// When it happened, on `CLOCK_BOOTTIME`; a question, when it was answered.
    #[must_use]
    pub fn at(&self) -> Duration {
        match self {
            Self::Query(event) => event.query.answered_at(),
            Self::Connection(event) => event.connection.at,
            Self::Verdict(event) => event.at,
            Self::Refusal(event) => event.refusal.at,
        }
    }

    /// When it happened, wall clock; a question, when it was asked.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        match self {
            Self::Query(event) => event.time,
            Self::Connection(event) => event.time,
            Self::Verdict(event) => event.time,
            Self::Refusal(event) => event.time,
        }
    }

    /// What is concluded, if something is.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Query(event) => event.judgement.as_ref().map(|it| it.verdict),
            Self::Verdict(event) => Some(event.judgement.verdict),
            Self::Connection(_) | Self::Refusal(_) => None,
        }
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Query(_) | Self::Verdict(_) => {
                self.verdict().map_or(Severity::Info, Verdict::severity)
            }
            Self::Connection(event) => match event.connection.kind {
                ConnectionKind::Fallback
                | ConnectionKind::FallbackDenied
                | ConnectionKind::Blackhole => Severity::Warning,
                ConnectionKind::Existing if event.connection.fell_back == Some(true) => {
                    Severity::Warning
                }
                ConnectionKind::Plain | ConnectionKind::Existing => Severity::Info,
            },
            Self::Refusal(_) => Severity::Warning,
        }
    }
}
