//! What is concluded: what an application believes of its connection, against what the connection is.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use super::{Answer, Api, ConnectionId, Owner, Place, Query, Severity, Socket};

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

/// What is to be known of a verdict.
struct Row {
    verdict: Verdict,
    name: &'static str,
    severity: Severity,
    /// The application believes something that is not so.
    deceives: bool,
    /// It is one of connections that fell back.
    is_of_fallen: bool,
    /// It can only be reached where fallbacks are traced.
    rests_on_fallbacks: bool,
    meaning: &'static str,
}

const ROWS: [Row; 10] = [
    Row {
        verdict: Verdict::Explained,
        name: "explained",
        severity: Severity::Info,
        deceives: false,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        meaning: "told TCP, and the fallback was seen",
    },
    Row {
        verdict: Verdict::PlainTcp,
        name: "plain-tcp",
        severity: Severity::Info,
        deceives: false,
        is_of_fallen: false,
        rests_on_fallbacks: true,
        meaning: "told TCP; the socket never was MPTCP",
    },
    Row {
        verdict: Verdict::StillMptcp,
        name: "still-mptcp",
        severity: Severity::Info,
        deceives: false,
        is_of_fallen: false,
        rests_on_fallbacks: false,
        meaning: "told MPTCP, and it is",
    },
    Row {
        verdict: Verdict::TooEarly,
        name: "too-early",
        severity: Severity::Warning,
        deceives: false,
        is_of_fallen: false,
        rests_on_fallbacks: false,
        meaning: "told MPTCP before the handshake could decide, or on a listening socket",
    },
    Row {
        verdict: Verdict::Stale,
        name: "stale",
        severity: Severity::Warning,
        deceives: true,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        meaning: "told MPTCP, fell back later, and was not asked again",
    },
    Row {
        verdict: Verdict::NeverAsked,
        name: "never-asked",
        severity: Severity::Warning,
        deceives: false,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        meaning: "fell back, and the application never asked",
    },
    Row {
        verdict: Verdict::Unexplained,
        name: "unexplained",
        severity: Severity::Warning,
        deceives: false,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        meaning: "told TCP, and no fallback was seen",
    },
    Row {
        verdict: Verdict::Misled,
        name: "misled",
        severity: Severity::Warning,
        deceives: true,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        meaning: "asked in a way that cannot detect a fallback",
    },
    Row {
        verdict: Verdict::Unsupported,
        name: "unsupported",
        severity: Severity::Info,
        deceives: false,
        is_of_fallen: false,
        rests_on_fallbacks: false,
        meaning: "this kernel does not support the query: the error does not mean a fallback",
    },
    Row {
        verdict: Verdict::Contradicted,
        name: "contradicted",
        severity: Severity::Error,
        deceives: true,
        is_of_fallen: true,
        rests_on_fallbacks: true,
        meaning: "told MPTCP although a fallback was seen before: a bug in this program or in the \
                  kernel",
    },
];

impl Verdict {
    /// All of them.
    pub const ALL: [Self; ROWS.len()] = {
        let mut all = [Self::Explained; ROWS.len()];
        let mut at = 0;
        while at < ROWS.len() {
            // A row stands where its verdict is in the enumeration, so that it is found without a search.
            assert!(ROWS[at].verdict as usize == at);
            all[at] = ROWS[at].verdict;
            at += 1;
        }
        all
    };

    fn row(self) -> &'static Row {
        static OF: [Row; ROWS.len()] = ROWS;
        &OF[self as usize]
    }

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(self) -> Severity {
        self.row().severity
    }

    /// True if the application is the victim: it believes something that is not so.
    #[must_use]
    pub fn deceives(self) -> bool {
        self.row().deceives
    }

    /// True if only a connection that fell back has it.
    #[must_use]
    pub fn is_of_fallen(self) -> bool {
        self.row().is_of_fallen
    }

    /// True if it cannot be reached where fallbacks are not traced.
    #[must_use]
    pub fn rests_on_fallbacks(self) -> bool {
        self.row().rests_on_fallbacks
    }

    /// What it means, in a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.row().meaning
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

impl Judgement {
    /// True if the connection has fallen back, as far as it knows.
    #[must_use]
    pub fn is_of_fallen(&self) -> bool {
        self.fell_back_at.is_some() || self.verdict.is_of_fallen()
    }
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
