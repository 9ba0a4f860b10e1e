//! Gathers findings for `top`. Pure and bounded by [`Limits`]: when full, the least recently active
//! connection is evicted; of one connection, the oldest entries but the first.

mod paths;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use crate::{
    aggregation::{Aggregation, Marks},
    ledger::{Change, Ledger, State},
    model::{
        By, Conclusion, Connection, ConnectionId, ConnectionKind, Finding, Judgement, Outcome,
        Path, PathRole, Process, Protocol, Side, Socket, Subject, SumTable, Verdict, displayed,
        short,
    },
    observe::Observer,
    paths::Paths,
};

/// Limits of the board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most connections.
    pub connections: usize,
    /// Most timeline entries per connection.
    pub moments: usize,
}

impl Limits {
    /// Default: about 20 MB when full.
    pub const STATED: Self = Self {
        connections: 8192,
        moments: 48,
    };
}

/// Most conclusions from packets per connection.
const CONCLUSIONS_MAX: usize = 8;

/// Seconds for which the fallback rate is kept.
pub const SECONDS: usize = 600;

/// Groupings, in the order of [`Snapshot::sums`].
pub const SUMS: [By; 3] = By::USUAL;

/// An event of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineEntry {
    /// Time on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// Kind of event.
    pub kind: TimelineKind,
    /// Description.
    pub words: String,
}

/// Kinds of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimelineKind {
    /// The connection began.
    Begin,
    /// It fell back.
    Fallback,
    /// Its application made a query or was refused something.
    Asked,
    /// The closing verdict.
    End,
    /// Any other event.
    Other,
}

/// A connection, as the findings about it describe it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Identity of the connection.
    pub id: ConnectionId,
    /// The owner, or the process that asked last.
    pub process: Option<Process>,
    /// Path of the owner's control group.
    pub cgroup: Option<String>,
    /// Network namespace, an inode number.
    pub netns: u32,
    /// The application's socket is an MPTCP socket, fallen back or not.
    pub is_mptcp: bool,
    /// Local address and port.
    pub local: SocketAddr,
    /// Remote address and port.
    pub remote: SocketAddr,
    /// Which side opened the connection.
    pub side: Option<Side>,
    /// It has fallen back; none if unknown.
    pub fell_back: Option<bool>,
    /// Cause of the fallback.
    pub cause: Option<String>,
    /// The latest verdict.
    pub verdict: Option<Verdict>,
    /// Number of queries of its application.
    pub queries: u64,
    /// The last answer.
    pub answer: Option<&'static str>,
    /// It has ended.
    pub is_closed: bool,
    /// What it was, when it ended.
    pub outcome: Option<Outcome>,
    /// Its first path failed.
    pub is_not_opened: bool,
    /// Its paths.
    pub paths: Paths,
    /// Last activity, on `CLOCK_BOOTTIME`.
    pub heard_at: Duration,
    /// Timeline, in order.
    pub moments: VecDeque<TimelineEntry>,
    /// Number of omitted timeline entries.
    pub forgotten: u64,
    /// What the packets that decided show; at most [`CONCLUSIONS_MAX`].
    pub conclusions: Vec<Conclusion>,
    /// State from the ledger.
    state: State,
}

/// Everything on the screen at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Connections, unordered.
    pub rows: Vec<Rc<Row>>,
    /// Sums by [`SUMS`].
    pub sums: Vec<SumTable>,
    /// Joins and connections that failed, and paths that ended, by cause.
    pub path_causes: BTreeMap<String, PathCauses>,
    /// Totals for the header.
    pub totals: Totals,
    /// Fallbacks per second, the current second last.
    pub rate: Vec<u64>,
    /// Time of the snapshot, on `CLOCK_BOOTTIME`.
    pub now: Duration,
}

/// What paths did because of one cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathCauses {
    /// Joins and connections that failed.
    pub failed: u64,
    /// Paths that ended.
    pub ended: u64,
}

/// Totals for the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Number of findings.
    pub findings: u64,
    /// Distinct connections that began as MPTCP.
    pub connections: u64,
    /// Of these, fallen back.
    pub fallbacks: u64,
    /// Number of queries.
    pub queries: u64,
    /// Of these connections, with a deceived application.
    pub deceived: u64,
    /// Refused options and sockets.
    pub refusals: u64,
    /// Evicted connections.
    pub forgotten: u64,
}

/// State of a connection.
#[derive(Debug)]
struct Shown {
    row: Rc<Row>,
    marks: Marks,
}

/// The board.
#[derive(Debug)]
pub struct Board {
    limits: Limits,
    ledger: Ledger<Shown>,
    aggregations: [Aggregation; SUMS.len()],
    path_causes: BTreeMap<String, PathCauses>,
    rate: Rate,
    totals: Totals,
    latest: Duration,
}

/// A board shared by the stages, which write, and the screen, which reads.
#[derive(Clone, Debug)]
pub struct Shared(Rc<RefCell<Board>>);

impl Shared {
    /// An empty board.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Rc::new(RefCell::new(Board::new(limits))))
    }

    /// A snapshot at this time.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        self.0.borrow().snapshot(now)
    }

    /// Time of the latest event in a finding.
    #[must_use]
    pub fn latest(&self) -> Duration {
        self.0.borrow().latest
    }
}

impl Observer for Shared {
    fn finding<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>) {
        self.0.borrow_mut().take(finding, path_of);
    }

    fn reading(&mut self, path: &Path) {
        self.0.borrow_mut().read(path);
    }
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ledger: Ledger::new(limits.connections),
            aggregations: SUMS.map(Aggregation::new),
            path_causes: BTreeMap::new(),
            rate: Rate::default(),
            totals: Totals::default(),
            latest: Duration::ZERO,
        }
    }

    /// Adds a finding. `path_of` returns paths of control groups that the finding lacks.
    pub fn take<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>) {
        let subject = Subject::of(finding);
        let at = finding.at();
        self.latest = self.latest.max(at);
        self.totals.findings += 1;
        self.totals.queries += u64::from(subject.is_query);
        self.totals.refusals += u64::from(subject.is_refusal);
        if subject.falls_at.is_some() {
            self.rate.add(at);
        }
        if let Finding::Path(event) = finding {
            self.count_cause(&event.path);
        }
        let mut change = self.ledger.take(finding, &subject, |key, socket| Shown {
            row: Rc::new(Row::new(key.id(), socket, at)),
            marks: Marks::default(),
        });
        let now = change.as_ref().map(Change::now);
        for aggregation in &mut self.aggregations {
            let marks = change.as_mut().map(|it| &mut it.entry.details.marks);
            aggregation.add(&subject, now.zip(marks), path_of);
        }
        if let (Some(change), Some(socket)) = (change, subject.socket) {
            let state = change.entry.state;
            let row = Rc::make_mut(&mut change.entry.details.row);
            row.heard_at = row.heard_at.max(at);
            // An event of a further path has the addresses of that one.
            let is_of_join = matches!(finding, Finding::Path(event)
                if event.path.role == PathRole::Join || event.path.kind.is_of_address());
            row.update(&subject, Some(socket).filter(|_| !is_of_join), path_of);
            row.happens(finding, at, self.limits.moments);
            row.concludes(finding, at, self.limits.moments);
            row.state = state;
        }
    }

    /// A snapshot at this time.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let forgotten = self.ledger.forgotten();
        let counts = self.ledger.counts();
        let rows = self.ledger.entries().map(|it| it.details.row.clone());
        Snapshot {
            rows: rows.collect(),
            sums: self
                .aggregations
                .iter()
                .map(|it| self.with_path_causes(it.table(forgotten)))
                .collect(),
            path_causes: self.path_causes.clone(),
            totals: Totals {
                connections: counts.connections,
                fallbacks: counts.fallen,
                deceived: counts.deceived,
                forgotten,
                ..self.totals
            },
            rate: self.rate.until(now),
            now,
        }
    }
}

impl Row {
    fn new(id: ConnectionId, socket: &Socket, at: Duration) -> Self {
        let mut row = Self {
            id,
            process: None,
            cgroup: None,
            netns: socket.netns,
            is_mptcp: socket.protocol == Protocol::Mptcp,
            local: displayed(socket.local),
            remote: displayed(socket.remote),
            side: None,
            fell_back: None,
            cause: None,
            verdict: None,
            queries: 0,
            answer: None,
            is_closed: false,
            outcome: None,
            is_not_opened: false,
            paths: Paths::default(),
            heard_at: at,
            moments: VecDeque::new(),
            forgotten: 0,
            conclusions: Vec::new(),
            state: State::default(),
        };
        if !id.born_at.is_zero() {
            row.moments.push_back(TimelineEntry {
                at: id.born_at,
                kind: TimelineKind::Begin,
                words: "the socket was created, or first seen".to_owned(),
            });
        }
        row
    }

    fn update<'a>(
        &mut self,
        subject: &Subject<'a>,
        socket: Option<&Socket>,
        path_of: &dyn Fn(u64) -> Option<&'a str>,
    ) {
        if let Some(process) = subject.process {
            let cgroup = subject.cgroup.or_else(|| path_of(process.cgroup_id));
            if let Some(cgroup) = cgroup
                && self.cgroup.as_deref() != Some(cgroup)
            {
                self.cgroup = Some(cgroup.to_owned());
            }
            if self.process.as_ref() != Some(process) {
                self.process = Some(process.clone());
            }
        }
        if let Some(socket) = socket {
            // A closed or unconnected socket has no remote address.
            if !socket.remote.ip().is_unspecified() {
                self.remote = displayed(socket.remote);
            }
            if !socket.local.ip().is_unspecified() || self.local.ip().is_unspecified() {
                self.local = displayed(socket.local);
            }
        }
        self.queries += u64::from(subject.is_query);
        if subject.has_fallen {
            self.fell_back = Some(true);
            if let Some(cause) = subject.cause {
                self.cause = Some(cause.to_owned());
            }
        }
        self.verdict = subject.verdict.or(self.verdict);
    }

    fn happens(&mut self, finding: &Finding, at: Duration, moments_max: usize) {
        match finding {
            Finding::Query(event) => {
                let query = &event.query;
                self.connected(query.connected_at);
                if self.fell_back.is_none() {
                    self.fell_back = query.fell_back;
                }
                self.answer = query.answer.word();
                let answer = match (query.answer.word(), query.answer.errno()) {
                    (Some(word), None) => word.to_owned(),
                    (Some(word), Some(errno)) => format!("{word} ({errno})"),
                    (None, _) => "unknown".to_owned(),
                };
                let concluded = event.judgement.as_ref().map(concluded).unwrap_or_default();
                let again = match event.repeats {
                    0 => String::new(),
                    more => format!(", previous answer repeated {more} times"),
                };
                let words = format!(
                    "asked {}, told {answer}{concluded}{again}",
                    query.api.name()
                );
                self.moment(at, TimelineKind::Asked, words, moments_max);
            }
            Finding::Connection(event) => self.connection(&event.connection, at, moments_max),
            Finding::Verdict(event) => {
                self.is_closed = true;
                let judgement = &event.judgement;
                let doubt = event.doubt.as_deref();
                let doubt = doubt.map(|doubt| format!("; in doubt: {doubt}"));
                let words = format!(
                    "ended ({}): {}, {}{}",
                    event.closed_by.name(),
                    judgement.verdict.name(),
                    judgement.sentence,
                    doubt.unwrap_or_default()
                );
                self.moment(at, TimelineKind::End, words, moments_max);
            }
            Finding::Path(event) => self.path(&event.path, at, moments_max),
            Finding::Closed(event) => self.closed(&event.closed, at, moments_max),
            Finding::Refusal(event) => {
                let refusal = &event.refusal;
                let words = format!(
                    "{} {}: {}, {}",
                    refusal.call(),
                    refusal.option().unwrap_or("an option"),
                    refusal.errno,
                    refusal.why()
                );
                self.moment(at, TimelineKind::Asked, words, moments_max);
            }
        }
    }

    fn connection(&mut self, connection: &Connection, at: Duration, moments_max: usize) {
        self.side = connection.side.or(self.side);
        let connected_at = connection
            .since_connect
            .map(|since| at.saturating_sub(since));
        self.connected(connected_at);
        let cause = connection.cause.as_deref().unwrap_or("cause unknown");
        let (kind, words) = match connection.kind {
            ConnectionKind::Fallback => {
                let mut words = format!("FELL BACK: {cause} ({})", connection.known.name());
                if let Some(stage) = connection.stage {
                    words.push_str(", by the ");
                    words.push_str(stage.name());
                }
                if let Some((sent, received)) = connection.bytes.filter(|both| *both != (0, 0)) {
                    words.push_str(&format!(", {sent} B sent and {received} B received before"));
                }
                (TimelineKind::Fallback, words)
            }
            ConnectionKind::FallbackDenied => (
                TimelineKind::Fallback,
                format!("was not allowed to fall back: {cause}; the subflow is reset"),
            ),
            ConnectionKind::Plain => {
                self.is_mptcp = false;
                (
                    TimelineKind::Begin,
                    "accepted without MPTCP: the client did not request it, or no token was \
                     available"
                        .to_owned(),
                )
            }
            ConnectionKind::Existing => {
                self.fell_back = connection.fell_back.or(self.fell_back);
                (
                    TimelineKind::Begin,
                    "existed before tracing began".to_owned(),
                )
            }
            ConnectionKind::Blackhole => (
                TimelineKind::Other,
                format!(
                    "MPTCP is switched off in its network namespace for {}",
                    connection
                        .off_for
                        .map_or_else(|| "an unknown time".to_owned(), short)
                ),
            ),
        };
        self.moment(at, kind, words, moments_max);
    }

    fn connected(&mut self, at: Option<Duration>) {
        const WORDS: &str = "began to connect, or arrived";
        let is_noted =
            |moment: &TimelineEntry| moment.kind == TimelineKind::Begin && moment.words == WORDS;
        if let Some(at) = at
            && self.forgotten == 0
            && !self.moments.iter().any(is_noted)
        {
            let place = self.moments.partition_point(|moment| moment.at <= at);
            self.moments.insert(
                place,
                TimelineEntry {
                    at,
                    kind: TimelineKind::Begin,
                    words: WORDS.to_owned(),
                },
            );
        }
    }

    /// Inserts an entry in order; when full, drops the oldest one after the first.
    fn moment(&mut self, at: Duration, kind: TimelineKind, words: String, moments_max: usize) {
        let place = self.moments.partition_point(|moment| moment.at <= at);
        self.moments
            .insert(place, TimelineEntry { at, kind, words });
        while self.moments.len() > moments_max.max(2) {
            // Never drop the fallback.
            let goes = self
                .moments
                .iter()
                .skip(1)
                .position(|moment| moment.kind != TimelineKind::Fallback)
                .map_or(1, |index| index + 1);
            self.moments.remove(goes);
            self.forgotten += 1;
        }
    }

    /// Its state, in one word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.is_mptcp, self.fell_back) {
            _ if self.is_not_opened => "failed",
            (false, _) => "TCP",
            (true, Some(true)) => "fell back",
            (true, Some(false)) => "MPTCP",
            (true, None) => "?",
        }
    }

    /// Sort key: deceived first.
    #[must_use]
    pub fn is_deceived(&self) -> bool {
        self.state.awareness().is_deceived()
    }
}

fn concluded(judgement: &Judgement) -> String {
    let word = judgement.verdict.name();
    match judgement.delay {
        Some(delay) => format!(": {word}, {} after the fallback", short(delay)),
        None => format!(": {word}"),
    }
}

/// Fallbacks in each of the last seconds.
#[derive(Debug, Default)]
struct Rate {
    /// Pairs of second and count, in order.
    seconds: VecDeque<(u64, u64)>,
}

impl Rate {
    fn add(&mut self, at: Duration) {
        let second = at.as_secs();
        let place = self.seconds.partition_point(|(known, _)| *known < second);
        match self.seconds.get_mut(place) {
            Some((known, count)) if *known == second => *count += 1,
            Some(_) | None => self.seconds.insert(place, (second, 1)),
        }
        if self.seconds.len() > SECONDS {
            self.seconds.pop_front();
        }
    }

    fn until(&self, now: Duration) -> Vec<u64> {
        let last = now.as_secs();
        let mut all = vec![0; SECONDS];
        for (second, count) in &self.seconds {
            let ago = last
                .checked_sub(*second)
                .and_then(|ago| usize::try_from(ago).ok());
            if let Some(ago) = ago
                && ago < SECONDS
                && let Some(bin) = all.get_mut(SECONDS - 1 - ago)
            {
                *bin = *count;
            }
        }
        all
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
