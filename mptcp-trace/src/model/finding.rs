//! Findings: what reaches the reader, with its kind, time and severity.

use std::time::{Duration, SystemTime};

use super::{
    ClosedEvent, ConnectionEvent, ConnectionKind, Outcome, Packet, PathEvent, PathKind, QueryEvent,
    RefusalEvent, Refused, SensorId, Verdict, VerdictEvent,
};

/// What reaches the reader.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "queries are many, and none of them shall cost an allocation"
)]
pub enum Finding {
    /// A query by an application.
    Query(QueryEvent),
    /// An event of a connection.
    Connection(Box<ConnectionEvent>),
    /// The closing verdict on a connection.
    Verdict(Box<VerdictEvent>),
    /// The kernel refused something to an application because it uses MPTCP.
    Refusal(Box<RefusalEvent>),
    /// An event of a path.
    Path(Box<PathEvent>),
    /// A connection ended.
    Closed(Box<ClosedEvent>),
}

/// Severity of a finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// No action is necessary.
    Info,
    /// A connection is TCP, or its application does not know.
    Warning,
    /// A bug, ours or the kernel's.
    Error,
}

impl Finding {
    /// Every kind.
    pub const KINDS: [&'static str; 23] = [
        "query",
        "fallback",
        "refused",
        "plain",
        "existing",
        "blackhole",
        "verdict",
        "option_refused",
        "socket_refused",
        PathKind::Up.name(),
        PathKind::Open.name(),
        PathKind::Failed.name(),
        PathKind::ConnectFailed.name(),
        PathKind::Down.name(),
        PathKind::Stale.name(),
        PathKind::Recovered.name(),
        PathKind::Priority.name(),
        PathKind::AddressAnnounced.name(),
        PathKind::AddressEchoed.name(),
        PathKind::AddressDropped.name(),
        PathKind::AddressOverLimit.name(),
        PathKind::AddressRemoved.name(),
        "closed",
    ];

    /// The packet that decided, if one did and was observed.
    #[must_use]
    pub fn packet(&self) -> Option<&Packet> {
        match self {
            Self::Connection(event) => event.packet.as_deref(),
            Self::Path(event) => event.packet.as_deref(),
            Self::Query(_) | Self::Verdict(_) | Self::Refusal(_) | Self::Closed(_) => None,
        }
    }

    /// The kind: the `type` of its JSON line, one of [`Self::KINDS`].
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
            Self::Path(event) => event.path.kind.name(),
            Self::Closed(_) => "closed",
        }
    }

    /// The sensor that observed it; none for a closing verdict, which concludes.
    #[must_use]
    pub fn sensor(&self) -> Option<SensorId> {
        match self {
            Self::Query(_) | Self::Refusal(_) => Some(SensorId::Query),
            Self::Connection(_) => Some(SensorId::Fallback),
            Self::Path(_) => Some(SensorId::Subflow),
            Self::Verdict(_) | Self::Closed(_) => None,
        }
    }

    /// When it happened, on `CLOCK_BOOTTIME`; for a query, when it was answered.
    #[must_use]
    pub fn at(&self) -> Duration {
        match self {
            Self::Query(event) => event.query.answered_at(),
            Self::Connection(event) => event.connection.at,
            Self::Verdict(event) => event.at,
            Self::Refusal(event) => event.refusal.at,
            Self::Path(event) => event.path.at,
            Self::Closed(event) => event.closed.at,
        }
    }

    /// When it happened, wall clock; for a query, when it was made.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        match self {
            Self::Query(event) => event.time,
            Self::Connection(event) => event.time,
            Self::Verdict(event) => event.time,
            Self::Refusal(event) => event.time,
            Self::Path(event) => event.time,
            Self::Closed(event) => event.time,
        }
    }

    /// The verdict, if there is one.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Query(event) => event.judgement.as_ref().map(|it| it.verdict),
            Self::Verdict(event) => Some(event.judgement.verdict),
            Self::Connection(_) | Self::Refusal(_) | Self::Path(_) | Self::Closed(_) => None,
        }
    }

    /// True if it only confirms that a path works as it should, or was closed on purpose: lines
    /// show it on request.
    #[must_use]
    pub fn is_routine(&self) -> bool {
        match self {
            Self::Path(event) => match event.path.kind {
                PathKind::Up
                | PathKind::Open
                | PathKind::Priority
                | PathKind::AddressAnnounced
                | PathKind::AddressEchoed
                | PathKind::AddressRemoved => true,
                PathKind::Down => !event.path.is_failure(),
                PathKind::Failed
                | PathKind::ConnectFailed
                | PathKind::Stale
                | PathKind::Recovered
                | PathKind::AddressDropped
                | PathKind::AddressOverLimit => false,
            },
            Self::Query(_)
            | Self::Connection(_)
            | Self::Verdict(_)
            | Self::Refusal(_)
            | Self::Closed(_) => false,
        }
    }

    /// The severity.
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
            Self::Path(event) => match event.path.kind {
                PathKind::Failed
                | PathKind::ConnectFailed
                | PathKind::Stale
                | PathKind::AddressDropped => Severity::Warning,
                PathKind::Down if event.path.is_failure() => Severity::Warning,
                PathKind::Down
                | PathKind::Up
                | PathKind::Open
                | PathKind::Recovered
                | PathKind::Priority
                | PathKind::AddressAnnounced
                | PathKind::AddressEchoed
                | PathKind::AddressOverLimit
                | PathKind::AddressRemoved => Severity::Info,
            },
            Self::Closed(event) => match event.closed.outcome {
                Outcome::FellBack { .. } => Severity::Warning,
                Outcome::Mptcp | Outcome::Unknown => Severity::Info,
            },
        }
    }
}
