//! Verdicts: what an application believes about its connection, compared with the facts.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use super::{Answer, Api, ConnectionId, Owner, Place, Query, Severity, Socket};

/// The properties of a verdict.
struct Row {
    name: &'static str,
    severity: Severity,
    /// The application believes something false.
    deceives: bool,
    /// Only connections that fell back have it.
    is_of_fallen: bool,
    /// It requires the fallback sensor.
    rests_on_fallbacks: bool,
    /// It may be a closing verdict.
    closes: bool,
    meaning: &'static str,
}

/// Defines the verdicts, each with its row: neither can be forgotten.
macro_rules! verdicts {
    ($($(#[$doc:meta])* $verdict:ident { $($field:ident: $value:expr,)* })*) => {
        /// The conclusion about an answer, or about a connection when it ends.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Verdict {
            $($(#[$doc])* $verdict,)*
        }

        impl Verdict {
            /// All verdicts.
            pub const ALL: [Self; [$(Self::$verdict),*].len()] = [$(Self::$verdict),*];

            fn row(self) -> &'static Row {
                match self {
                    $(Self::$verdict => const { &Row { $($field: $value),* } },)*
                }
            }
        }
    };
}

verdicts! {
    /// Told TCP, and the fallback was observed.
    Explained {
        name: "explained",
        severity: Severity::Info,
        deceives: false,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        closes: true,
        meaning: "told TCP, and the fallback was seen",
    }
    /// Told TCP, and the socket never was MPTCP.
    PlainTcp {
        name: "plain-tcp",
        severity: Severity::Info,
        deceives: false,
        is_of_fallen: false,
        rests_on_fallbacks: true,
        closes: false,
        meaning: "told TCP; the socket never was MPTCP",
    }
    /// Told MPTCP, and it is.
    StillMptcp {
        name: "still-mptcp",
        severity: Severity::Info,
        deceives: false,
        is_of_fallen: false,
        rests_on_fallbacks: false,
        closes: false,
        meaning: "told MPTCP, and it is",
    }
    /// Told MPTCP before the handshake could decide.
    TooEarly {
        name: "too-early",
        severity: Severity::Warning,
        deceives: false,
        is_of_fallen: false,
        rests_on_fallbacks: false,
        closes: true,
        meaning: "told MPTCP before the handshake could decide, or on a listening socket",
    }
    /// Told MPTCP, fell back later, and was not asked again.
    Stale {
        name: "stale",
        severity: Severity::Warning,
        deceives: true,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        closes: true,
        meaning: "told MPTCP, fell back later, and was not asked again",
    }
    /// Fell back, and was never queried.
    NeverAsked {
        name: "never-asked",
        severity: Severity::Warning,
        deceives: false,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        closes: true,
        meaning: "fell back, and the application never asked",
    }
    /// Told TCP, and no fallback was observed.
    Unexplained {
        name: "unexplained",
        severity: Severity::Warning,
        deceives: false,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        closes: false,
        meaning: "told TCP, and no fallback was seen",
    }
    /// Queried through an API that does not see a fallback.
    Misled {
        name: "misled",
        severity: Severity::Warning,
        deceives: true,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        closes: true,
        meaning: "asked in a way that cannot detect a fallback",
    }
    /// This kernel does not support the query.
    Unsupported {
        name: "unsupported",
        severity: Severity::Info,
        deceives: false,
        is_of_fallen: false,
        rests_on_fallbacks: false,
        closes: false,
        meaning: "this kernel does not support the query: the error does not mean a fallback",
    }
    /// Told MPTCP although a fallback was observed before.
    Contradicted {
        name: "contradicted",
        severity: Severity::Error,
        deceives: true,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        closes: false,
        meaning: "told MPTCP although a fallback was seen before: a bug in this program or in the \
                  kernel",
    }
}

impl Verdict {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The severity.
    #[must_use]
    pub fn severity(self) -> Severity {
        self.row().severity
    }

    /// True if the application believes something false.
    #[must_use]
    pub fn deceives(self) -> bool {
        self.row().deceives
    }

    /// True if only connections that fell back have it.
    #[must_use]
    pub fn is_of_fallen(self) -> bool {
        self.row().is_of_fallen
    }

    /// True if it requires the fallback sensor.
    #[must_use]
    pub fn rests_on_fallbacks(self) -> bool {
        self.row().rests_on_fallbacks
    }

    /// True if it may be the closing verdict on a connection.
    #[must_use]
    pub fn closes(self) -> bool {
        self.row().closes
    }

    /// The verdicts that an answer may get; none if the answer is inconclusive.
    #[must_use]
    pub fn possible(api: Api, answer: Answer) -> &'static [Self] {
        match answer {
            Answer::Failed(_) | Answer::Unknown => &[],
            Answer::Unsupported(_) => &[Self::Unsupported],
            Answer::Tcp => &[Self::Explained, Self::PlainTcp, Self::Unexplained],
            Answer::Mptcp if api.sees_fallbacks() => {
                &[Self::StillMptcp, Self::TooEarly, Self::Contradicted]
            }
            Answer::Mptcp => &[Self::StillMptcp, Self::TooEarly, Self::Misled],
        }
    }

    /// Its meaning, in one sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// The verdict with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|verdict| verdict.name().eq_ignore_ascii_case(name))
    }
}

/// A verdict with its evidence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict in one full sentence, with evidence.
    pub sentence: Cow<'static, str>,
    /// When the connection fell back, on `CLOCK_BOOTTIME`, if observed.
    pub fell_back_at: Option<Duration>,
    /// Name of the kernel counter of the cause, if known.
    pub cause: Option<Cow<'static, str>>,
    /// Time between the answer and the fallback, in either order, if there were both.
    pub delay: Option<Duration>,
}

impl Judgement {
    /// True if the verdict shows that the connection has fallen back.
    #[must_use]
    pub fn is_of_fallen(&self) -> bool {
        self.fell_back_at.is_some() || self.verdict.is_of_fallen()
    }
}

/// The event that closed an open verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClosedBy {
    /// The end of the socket.
    Death,
    /// The table was full, and this connection was the least recently used one.
    Eviction,
    /// Tracing ended.
    Exit,
}

impl ClosedBy {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Death => "death",
            Self::Eviction => "eviction",
            Self::Exit => "exit",
        }
    }
}

/// The last query on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastAsked {
    /// When it was answered, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// The socket option of the query.
    pub api: Api,
    /// The kernel's answer.
    pub answer: Answer,
}

impl LastAsked {
    /// Extracts it from a query.
    #[must_use]
    pub fn of(query: &Query) -> Self {
        Self {
            at: query.answered_at(),
            api: query.api,
            answer: query.answer,
        }
    }
}

/// The closing verdict on a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerdictEvent {
    /// The verdict and its evidence.
    pub judgement: Judgement,
    /// The connection.
    pub id: ConnectionId,
    /// When it was closed, on `CLOCK_BOOTTIME`; at exit, the latest time of any record.
    pub at: Duration,
    /// When it was closed, wall clock.
    pub time: SystemTime,
    /// What closed it.
    pub closed_by: ClosedBy,
    /// The process that holds it, if known; for a queried connection without an observed fallback,
    /// the process that made the query.
    pub owner: Option<Owner>,
    /// The place of the owner.
    pub place: Place,
    /// Its socket.
    pub socket: Socket,
    /// The last query, if any.
    pub asked: Option<LastAsked>,
    /// Number of queries.
    pub queries: u64,
    /// Why the verdict may be wrong, if queries are known to be missing.
    pub doubt: Option<Cow<'static, str>>,
}
