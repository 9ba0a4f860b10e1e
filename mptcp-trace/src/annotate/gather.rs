//! Findings -> connections with notes: what is said about each, and when.

use std::{
    cell::RefCell,
    collections::HashMap,
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
        CauseCertainty, ClosedBy, ConnectionKind, Finding, Outcome, Owner, PathEvent, PathId,
        PathKind, PathRole, Side, Socket, Stage, Subject, Verdict,
    },
    observe::Observer,
};

/// At most this many findings become comments; the others are counted.
pub const FINDINGS_MAX: usize = 200_000;

/// At most this many paths that joined a connection are followed; what is found about others has no
/// packet.
const JOINS_MAX: usize = 200_000;

/// What is said about a connection at one moment.
pub(super) struct Note {
    /// When, since the Unix epoch.
    pub(super) at: Duration,
    /// How far the connection had got, if the finding is a fallback: a packet of the handshake.
    pub(super) stage: Option<Stage>,
    /// It is about the whole connection, so that packets of its further paths have it too.
    pub(super) is_for_paths: bool,
    pub(super) text: String,
}

impl Note {
    fn of(finding: &Finding, at: Duration) -> Self {
        let stage = match finding {
            Finding::Connection(event) => event.connection.stage,
            Finding::Query(_)
            | Finding::Verdict(_)
            | Finding::Refusal(_)
            | Finding::Path(_)
            | Finding::Closed(_) => None,
        };
        Self {
            at,
            stage,
            // What the first path did is not about the others.
            is_for_paths: !matches!(finding, Finding::Path(_)),
            text: words::note(finding),
        }
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
    /// The connection whose further path it is, if it is one.
    pub(super) join: Option<Join>,
    /// Why it could not be opened.
    pub(super) not_opened: Option<String>,
    /// A path of it is followed: its place must not be used for another one.
    has_joins: bool,
}

/// A path that joined a connection, or tried to.
pub(super) struct Join {
    /// The place of its connection in [`Gathered::connections`], if it is known.
    pub(super) of: Option<usize>,
    /// It failed, or ended otherwise than by being closed, and why.
    pub(super) trouble: Option<String>,
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
            join: None,
            not_opened: None,
            has_joins: false,
        }
    }

    /// Applies an event of the path that it is.
    fn update_join(&mut self, event: &PathEvent) {
        let path = &event.path;
        self.side = path.side.or(self.side);
        let owner = path.owner.as_ref();
        self.process = owner
            .map(|it| words::process(&it.process))
            .or(self.process.take());
        let (local, remote) = (canonical(path.socket.local), canonical(path.socket.remote));
        // A path whose socket is gone has no addresses any more.
        if !remote.ip().is_unspecified() {
            (self.local, self.remote) = (local, remote);
        }
        if !path.existing {
            self.begin = self.begin.or(began(event));
        }
        let is_end = matches!(path.kind, PathKind::Failed | PathKind::Down);
        if is_end {
            self.end = Some(since_epoch(event.time));
        }
        if let Some(join) = &mut self.join
            && is_end
            && path.is_failure()
        {
            let what = if path.kind == PathKind::Failed {
                "failed"
            } else {
                "ended"
            };
            let cause = words::named(path.cause.as_deref(), path.known);
            join.trouble = Some(format!("{what}: {cause}"));
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
        // An event of a further path has the addresses of that one.
        let is_of_join = matches!(finding, Finding::Path(event)
            if event.path.role == PathRole::Join || event.path.kind.is_of_address());
        if let Some(socket) = subject.socket.filter(|_| !is_of_join)
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
            Finding::Path(event) => {
                let path = &event.path;
                self.process = holder(&path.owner).or(self.process.take());
                if path.kind == PathKind::ConnectFailed {
                    self.not_opened = Some(words::named(path.cause.as_deref(), path.known));
                }
                if !is_of_join {
                    self.side = path.side.or(self.side);
                    self.begin = self.begin.or(began(event));
                }
            }
            Finding::Closed(event) => {
                let closed = &event.closed;
                self.process = holder(&closed.owner).or(self.process.take());
                self.side = closed.side.or(self.side);
                if let (Outcome::FellBack { at: _, cause }, None) = (&closed.outcome, &self.cause) {
                    self.cause = cause.as_deref().map(str::to_owned);
                }
                self.end = Some(since_epoch(event.time));
            }
            Finding::Refusal(_) => {}
        }
    }
}

fn canonical(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

/// When a path began, since the Unix epoch.
fn began(event: &PathEvent) -> Option<Duration> {
    let (at, began_at) = (event.path.at, event.path.began_at?);
    Some(since_epoch(event.time).saturating_sub(at.saturating_sub(began_at)))
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
    /// Places of the paths that joined a connection.
    joins: HashMap<PathId, usize>,
    join_count: usize,
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
            joins: HashMap::new(),
            join_count: 0,
            notes: 0,
            not_shown: 0,
            addressless: 0,
            beyond: 0,
        }
    }

    /// The place of the further path that a finding is about; `None` if it is about none. `of` is the
    /// place of its connection.
    fn join(&mut self, event: &PathEvent, of: Option<usize>) -> Option<usize> {
        let path = &event.path;
        if path.role != PathRole::Join || path.kind.is_of_address() {
            return None;
        }
        let known = path.path.and_then(|id| self.joins.get(&id)).copied();
        if let Some(known) = known {
            return Some(known);
        }
        if self.join_count >= JOINS_MAX {
            return None;
        }
        self.join_count += 1;
        let place = self.connections.len();
        let mut new = Traced::new(&path.socket, since_epoch(event.time));
        new.join = Some(Join { of, trouble: None });
        self.connections.push(new);
        if let Some(id) = path.path {
            self.joins.insert(id, place);
        }
        if let Some(connection) = of.and_then(|of| self.connections.get_mut(of)) {
            connection.has_joins = true;
        }
        Some(place)
    }

    /// Adds a note to a connection or path, unless there are too many.
    fn note(&mut self, place: usize, finding: &Finding, is_wanted: bool) {
        let Some(traced) = self.connections.get_mut(place) else {
            return;
        };
        if is_wanted && self.notes >= FINDINGS_MAX {
            self.beyond += 1;
        } else if is_wanted {
            self.notes += 1;
            traced
                .notes
                .push(Note::of(finding, since_epoch(finding.time())));
        }
    }

    fn add(&mut self, finding: &Finding, is_wanted: bool) {
        let subject = Subject::of(finding);
        let at = since_epoch(finding.time());
        let next = self.free.last().copied().unwrap_or(self.connections.len());
        let change = self.ledger.take(finding, &subject, |_, _| next);
        self.not_shown += u64::from(!is_wanted);
        let (Some(change), Some(socket)) = (change, subject.socket) else {
            // A join of an unknown connection has addresses of its own.
            let join = match finding {
                Finding::Path(event) => self.join(event, None).zip(Some(event)),
                Finding::Connection(_)
                | Finding::Query(_)
                | Finding::Verdict(_)
                | Finding::Refusal(_)
                | Finding::Closed(_) => None,
            };
            match join {
                Some((place, event)) => {
                    if let Some(traced) = self.connections.get_mut(place) {
                        traced.update_join(event);
                    }
                    self.note(place, finding, is_wanted);
                }
                None => self.addressless += u64::from(is_wanted),
            }
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
        }
        let join = match finding {
            Finding::Path(event) => self.join(event, Some(number)).zip(Some(event)),
            Finding::Connection(_)
            | Finding::Query(_)
            | Finding::Verdict(_)
            | Finding::Refusal(_)
            | Finding::Closed(_) => None,
        };
        match join {
            Some((place, event)) => {
                if let Some(traced) = self.connections.get_mut(place) {
                    traced.update_join(event);
                }
                self.note(place, finding, is_wanted);
            }
            None => self.note(number, finding, is_wanted),
        }
        if let Some(forgotten) = forgotten {
            let number = forgotten.details;
            let is_unused = (self.connections.get(number))
                .is_some_and(|it| it.notes.is_empty() && !it.has_joins);
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
