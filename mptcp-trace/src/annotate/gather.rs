//! Findings -> connections with notes: what is said about each, and when.

use std::{
    cell::RefCell,
    fmt,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::words;
use crate::{
    filter::FindingFilter,
    ledger::{Ledger, REMEMBERED_MAX, State},
    model::{
        CauseCertainty, ClosedBy, ConnectionKind, Finding, Owner, Side, Socket, Stage, Subject,
        Verdict,
    },
    observe::Observer,
};

/// At most this many findings become comments; the others are counted.
pub const FINDINGS_MAX: usize = 200_000;

/// What is said about a connection at one moment.
pub(super) struct Note {
    /// When, since the Unix epoch.
    pub(super) at: Duration,
    /// How far the connection had got, if the finding is a fallback: a packet of the handshake.
    pub(super) stage: Option<Stage>,
    pub(super) text: String,
}

impl Note {
    fn of(finding: &Finding, at: Duration) -> Self {
        let stage = match finding {
            Finding::Connection(event) => event.connection.stage,
            Finding::Query(_) | Finding::Verdict(_) | Finding::Refusal(_) => None,
        };
        let text = words::note(finding);
        Self { at, stage, text }
    }
}

/// One end of a connection, as the findings describe it.
pub(super) struct Traced {
    pub(super) netns: u32,
    /// Its address; IPv4-mapped ones as IPv4.
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// When it began to connect, or was created by its listener, since the Unix epoch.
    pub(super) begin: Option<Duration>,
    /// When its socket was destroyed.
    pub(super) end: Option<Duration>,
    /// When the first finding about it was made.
    pub(super) first: Duration,
    pub(super) side: Option<Side>,
    /// Name and number of its process.
    pub(super) process: Option<String>,
    pub(super) cause: Option<String>,
    pub(super) known: CauseCertainty,
    /// How often each verdict was reached.
    pub(super) verdicts: Vec<(Verdict, u64)>,
    pub(super) state: State,
    /// The findings that are wanted, in order.
    pub(super) notes: Vec<Note>,
}

impl Traced {
    fn new(socket: &Socket, first: Duration) -> Self {
        Self {
            netns: socket.netns,
            local: canonical(socket.local),
            remote: canonical(socket.remote),
            begin: None,
            end: None,
            first,
            side: None,
            process: None,
            cause: None,
            known: CauseCertainty::Unknown,
            verdicts: Vec::new(),
            state: State::default(),
            notes: Vec::new(),
        }
    }

    /// Both ends are known.
    pub(super) fn has_addresses(&self) -> bool {
        let is_known = |end: SocketAddr| !end.ip().is_unspecified() && end.port() != 0;
        is_known(self.local) && is_known(self.remote)
    }

    fn update(&mut self, finding: &Finding) {
        let subject = Subject::of(finding);
        if let Some(verdict) = subject.verdict {
            match self
                .verdicts
                .iter_mut()
                .find(|(known, _)| *known == verdict)
            {
                Some((_, count)) => *count += 1,
                None => self.verdicts.push((verdict, 1)),
            }
        }
        if let Some(socket) = subject.socket
            && !socket.remote.ip().is_unspecified()
        {
            // Unknown before connect(), and perhaps after close().
            self.local = canonical(socket.local);
            self.remote = canonical(socket.remote);
        }
        let holder = |owner: &Option<Owner>| owner.as_ref().map(|it| words::process(&it.process));
        match finding {
            Finding::Query(event) => {
                let asker = || words::process(&event.query.process);
                self.process.get_or_insert_with(asker);
                let (time, asked_at) = (since_epoch(event.time), event.query.asked_at);
                let since = |at| time.saturating_sub(asked_at.saturating_sub(at));
                let begin = event.query.connected_at.map(since);
                self.begin = begin.or(self.begin);
            }
            Finding::Connection(event) => {
                let connection = &event.connection;
                self.process = holder(&connection.owner).or(self.process.take());
                self.side = connection.side.or(self.side);
                let since = connection.since_connect;
                let begin = since.map(|since| since_epoch(event.time).saturating_sub(since));
                self.begin = begin.or(self.begin);
                let fell = connection.kind == ConnectionKind::Fallback
                    || connection.kind == ConnectionKind::Existing;
                if fell && connection.cause.is_some() {
                    self.cause = connection.cause.as_deref().map(str::to_owned);
                    self.known = connection.known;
                }
            }
            Finding::Verdict(event) => {
                self.process = holder(&event.owner).or(self.process.take());
                if self.cause.is_none() {
                    self.cause = event.judgement.cause.as_deref().map(str::to_owned);
                }
                if event.closed_by == ClosedBy::Death {
                    self.end = Some(since_epoch(event.time));
                }
            }
            Finding::Refusal(_) => {}
        }
    }
}

fn canonical(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

/// Time since the Unix epoch.
fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The connections that findings are about.
pub struct Gathered {
    wanted: FindingFilter,
    /// Holds the number of each connection in `connections`.
    ledger: Ledger<usize>,
    pub(super) connections: Vec<Traced>,
    /// Numbers of connections that the ledger has evicted, and that have no note.
    free: Vec<usize>,
    notes: usize,
    /// Findings that a filter left out.
    pub not_shown: u64,
    /// Findings that name no connection.
    pub(super) addressless: u64,
    /// Findings beyond [`FINDINGS_MAX`].
    pub(super) beyond: u64,
}

impl Gathered {
    fn new(wanted: FindingFilter) -> Self {
        Self {
            wanted,
            ledger: Ledger::new(REMEMBERED_MAX),
            connections: Vec::new(),
            free: Vec::new(),
            notes: 0,
            not_shown: 0,
            addressless: 0,
            beyond: 0,
        }
    }

    fn add(&mut self, finding: &Finding, is_wanted: bool) {
        let subject = Subject::of(finding);
        let at = since_epoch(finding.time());
        let next = self.free.last().copied().unwrap_or(self.connections.len());
        let change = self.ledger.take(finding, &subject, |_, _| next);
        self.not_shown += u64::from(!is_wanted);
        let (Some(change), Some(socket)) = (change, subject.socket) else {
            self.addressless += u64::from(is_wanted);
            return;
        };
        let number = change.entry.details;
        if change.is_new {
            let new = Traced::new(socket, at);
            match self.connections.get_mut(number) {
                Some(reused) => {
                    *reused = new;
                    self.free.pop();
                }
                None => self.connections.push(new),
            }
        }
        let (state, forgotten) = (change.entry.state, change.forgotten);
        if let Some(traced) = self.connections.get_mut(number) {
            traced.state = state;
            // Those that are not wanted are known too: a packet of theirs belongs to no other one.
            traced.update(finding);
            if is_wanted && self.notes >= FINDINGS_MAX {
                self.beyond += 1;
            } else if is_wanted {
                self.notes += 1;
                traced.notes.push(Note::of(finding, at));
            }
        }
        if let Some(forgotten) = forgotten {
            let number = forgotten.details;
            let is_unused = (self.connections.get(number)).is_some_and(|it| it.notes.is_empty());
            self.free.extend(is_unused.then_some(number));
        }
    }
}

/// A gatherer that the stages and the annotation share.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<Gathered>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// Gathers the findings that a filter admits.
    #[must_use]
    pub fn new(wanted: FindingFilter) -> Self {
        Self(Rc::new(RefCell::new(Gathered::new(wanted))))
    }

    /// Returns what was gathered, after all findings.
    #[must_use]
    pub fn finish(&self) -> Gathered {
        self.0.replace(Gathered::new(FindingFilter::default()))
    }
}

impl Observer for Shared {
    fn finding<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>) {
        let mut gathered = self.0.borrow_mut();
        let is_wanted = gathered.wanted.matches(finding, path_of);
        gathered.add(finding, is_wanted);
    }
}
