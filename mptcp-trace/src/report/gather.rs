//! Findings -> what the page tells: sums, and the worst connections. Pure, and bounded however many findings there are.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, SystemTime},
};

use crate::{
    ledger::{Awareness, Entry, Ledger, State},
    model::{
        Answer, Api, CauseCertainty, ClosedBy, Connection, ConnectionEvent, ConnectionKind,
        Finding, Owner, QueryEvent, RefusalEvent, Side, Socket, Subject, Verdict, VerdictEvent,
    },
    observe::Observer,
};

/// Connections that are remembered at once; beyond that the oldest is counted, and forgotten.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections that are drawn.
pub const LANES_MAX: usize = 30;
/// Destinations that are told apart, and names of processes.
pub const GROUPS_MAX: usize = 4096;
/// Causes that are told apart; no kernel has as many.
pub const CAUSES_MAX: usize = 64;
/// Bins of time.
pub const BINS_MAX: usize = 96;
/// Answers that are remembered of a connection: the first ones, and the last.
const ANSWERS_MAX: usize = 8;
/// Different refusals that are told apart.
const REFUSALS_MAX: usize = 64;
/// The narrowest bin, nanoseconds.
const BIN_NS_MIN: i128 = 1_000_000;
/// What there is no room for.
pub(super) const OTHERS: &str = "(others)";
/// Whose cause is not known.
const UNKNOWN: &str = "unknown";

/// One answer about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// When it was given, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// How it was asked.
    pub api: Api,
    /// What the kernel said.
    pub answer: Answer,
}

/// What was heard of one connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportedConnection {
    /// When it was first seen, on `CLOCK_BOOTTIME`.
    pub born_at: Option<Duration>,
    /// When it began to connect, or was born of its listener.
    pub connected_at: Option<Duration>,
    /// When it fell back.
    pub fell_at: Option<Duration>,
    /// When it was closed, and by what.
    pub closed: Option<(Duration, ClosedBy)>,
    /// When something was heard of it first, wall clock.
    pub time: SystemTime,
    /// Why it fell back.
    pub cause: Option<String>,
    /// How that is known.
    pub known: CauseCertainty,
    /// Which end opened it.
    pub side: Option<Side>,
    /// Process id and name of whoever holds it, or asked.
    pub process: Option<(String, String)>,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Answers: the first ones, and the last.
    pub asked: Vec<Asked>,
    /// How many answers there were.
    pub questions: u64,
    /// What the ledger says of it.
    pub state: State,
    /// The verdict may be wrong, since questions are known to be missing.
    pub is_doubtful: bool,
    /// It had fallen back before tracing began.
    pub fell_before: bool,
    number: u64,
}

impl ReportedConnection {
    fn new(socket: &Socket, born_at: Option<Duration>, time: SystemTime) -> Self {
        Self {
            born_at,
            connected_at: None,
            fell_at: None,
            closed: None,
            time,
            cause: None,
            known: CauseCertainty::Unknown,
            side: None,
            process: None,
            local: socket.local,
            remote: socket.remote,
            asked: Vec::new(),
            questions: 0,
            state: State::default(),
            is_doubtful: false,
            fell_before: false,
            number: 0,
        }
    }

    /// What its application knows of it.
    #[must_use]
    pub fn awareness(&self) -> Awareness {
        self.state.awareness()
    }

    /// What a finding says of it; `cause` is the name under which its cause is counted.
    fn learn(&mut self, finding: &Finding, cause: String) {
        match finding {
            Finding::Query(event) => {
                let query = &event.query;
                self.hear(&query.socket, None);
                if self.process.is_none() {
                    self.process = Some((query.process.number(), query.process.comm.clone()));
                }
                self.connected_at = query.connected_at.or(self.connected_at);
                self.fell_before |= query.fell_back == Some(true) && self.fell_at.is_none();
                self.questions += 1 + event.repeats;
                if self.asked.len() >= ANSWERS_MAX {
                    self.asked.pop();
                }
                self.asked.push(Asked {
                    at: query.answered_at(),
                    api: query.api,
                    answer: query.answer,
                });
            }
            Finding::Connection(event) => {
                let connection = &event.connection;
                self.hear(&connection.socket, connection.owner.as_ref());
                self.side = connection.side.or(self.side);
                if let Some(since) = connection.since_connect {
                    self.connected_at = Some(connection.at.saturating_sub(since));
                }
                let is_fallback = connection.kind == ConnectionKind::Fallback;
                if is_fallback {
                    self.fell_at = Some(connection.at);
                    self.fell_before = false;
                }
                let is_existing = connection.kind == ConnectionKind::Existing;
                self.fell_before |= is_existing && connection.fell_back == Some(true);
                if is_fallback || is_existing && self.fell_before {
                    self.cause = Some(cause);
                    self.known = connection.known;
                }
            }
            Finding::Verdict(event) => {
                self.hear(&event.socket, event.owner.as_ref());
                self.fell_at = self.fell_at.or(event.judgement.fell_back_at);
                if self.cause.is_none() && event.judgement.cause.is_some() {
                    self.cause = Some(cause);
                }
                self.closed = Some((event.at, event.closed_by));
                self.is_doubtful |= event.doubt.is_some();
            }
            Finding::Refusal(_) => {}
        }
    }

    /// The worst first, and of those the one that fell back first.
    fn order(&self) -> (Awareness, Duration, u64) {
        let fell_at = self.fell_at.unwrap_or(Duration::MAX);
        (self.awareness(), fell_at, self.number)
    }

    fn hear(&mut self, socket: &Socket, process: Option<&Owner>) {
        // Before it connects there is no other end, and after it was closed there may be none any more.
        if !socket.remote.ip().is_unspecified() {
            self.local = socket.local;
            self.remote = socket.remote;
        }
        if let Some(Owner { process, via: _ }) = process {
            self.process = Some((process.number(), process.comm.clone()));
        }
    }
}

/// Connections of one destination, or of one process name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Group {
    /// All that began as MPTCP.
    pub connections: u64,
    /// Those that fell back.
    pub fallen: u64,
    /// Those whose applications were not told.
    pub unaware: u64,
}

impl Group {
    fn add(&mut self, state: State) {
        let counts = state.counts();
        self.connections += counts.connections;
        self.fallen += counts.fallen;
        self.unaware += u64::from(state.awareness().is_unaware());
    }
}

/// Fallbacks of one cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OfCause {
    /// All of them.
    pub fallbacks: u64,
    /// Those whose cause the kernel did not name.
    pub inferred: u64,
    /// Those of connections that this end opened, and that the other end opened.
    pub sides: (u64, u64),
}

/// Counts over time: a fixed number of bins that become wider as time goes on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bins {
    begin_ns: i128,
    width_ns: i128,
    range_ns: Option<(i128, i128)>,
    counts: Vec<BTreeMap<String, u64>>,
}

impl Bins {
    /// Makes room for a moment, and counts there what happened, if anything did.
    fn add(&mut self, at: Duration, what: Option<&str>) {
        // A duration of any capture fits by far.
        let at = i128::try_from(at.as_nanos()).unwrap_or(i128::MAX / 4);
        let bins_ns = |width: i128| width * BINS_MAX as i128;
        let (first, last) = self.range_ns.unwrap_or_else(|| {
            self.begin_ns = at;
            self.width_ns = BIN_NS_MIN;
            self.counts = vec![BTreeMap::new(); BINS_MAX];
            (at, at)
        });
        self.range_ns = Some((first.min(at), last.max(at)));
        while at >= self.begin_ns + bins_ns(self.width_ns) {
            self.widen(0);
        }
        while at < self.begin_ns {
            self.begin_ns -= bins_ns(self.width_ns);
            self.widen(BINS_MAX);
        }
        let Some(what) = what else {
            return;
        };
        let index = usize::try_from((at - self.begin_ns) / self.width_ns).unwrap_or(0);
        if let Some(bin) = self.counts.get_mut(index) {
            *bin.entry(what.to_owned()).or_default() += 1;
        }
    }

    /// Twice as wide, with so many empty ones before those that there are.
    fn widen(&mut self, before: usize) {
        let old = std::mem::replace(&mut self.counts, vec![BTreeMap::new(); BINS_MAX]);
        for (index, bin) in old.into_iter().enumerate() {
            if let Some(new) = self.counts.get_mut((before + index) / 2) {
                for (what, count) in bin {
                    *new.entry(what).or_default() += count;
                }
            }
        }
        self.width_ns *= 2;
    }

    /// How long a bin is.
    #[must_use]
    pub fn width(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.width_ns).unwrap_or(u64::MAX))
    }

    /// From the first bin to the last that anything was found in; and where the first begins, on `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn used(&self) -> (&[BTreeMap<String, u64>], Duration) {
        let Some((first, last)) = self.range_ns else {
            return (&[], Duration::ZERO);
        };
        let index = |at: i128| usize::try_from((at - self.begin_ns) / self.width_ns).unwrap_or(0);
        let begin = self.begin_ns + self.width_ns * index(first) as i128;
        let bins = self
            .counts
            .get(index(first)..=index(last))
            .unwrap_or_default();
        let begin = u64::try_from(begin).map_or(Duration::ZERO, Duration::from_nanos);
        (bins, begin)
    }
}

/// What was gathered from all findings.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Findings.
    pub findings: u64,
    /// When the first and the last happened, wall clock.
    pub range: Option<(SystemTime, SystemTime)>,
    /// Connections by what their applications know.
    pub awareness: BTreeMap<Awareness, u64>,
    /// Fallbacks by cause.
    pub causes: BTreeMap<String, OfCause>,
    /// The same over time.
    pub bins: Bins,
    /// Connections that had fallen back before tracing began.
    pub fell_before: u64,
    /// Connections that the kernel reset because they were not allowed to fall back.
    pub reset: u64,
    /// TCP clients of MPTCP listeners.
    pub plain: u64,
    /// Times that MPTCP was switched off for a while.
    pub blackholes: u64,
    /// Answers by how it was asked, and what was said.
    pub answers: BTreeMap<(&'static str, &'static str), u64>,
    /// Verdicts: on answers, and at the ends of connections.
    pub verdicts: BTreeMap<Verdict, (u64, u64)>,
    /// Verdicts that may be wrong, since questions are known to be missing.
    pub doubtful: u64,
    /// Refusals by what was refused, with which error, and why.
    pub refusals: BTreeMap<(String, String, &'static str), u64>,
    /// Connections by the address of the other end; what there was no room for has none.
    pub destinations: HashMap<Option<IpAddr>, Group>,
    /// Connections by the name of the process; what there was no room for is [`OTHERS`].
    pub processes: HashMap<String, Group>,
    /// The worst connections, the worst first.
    pub worst: Vec<ReportedConnection>,
    /// Connections that fell back and are not among the worst.
    pub not_drawn: u64,
    /// Connections that were counted early, because too many were remembered: they may have been counted again.
    pub forgotten: u64,
    ledger: Connections,
}

/// The connections that are not counted yet.
#[derive(Clone, Debug)]
struct Connections(Ledger<ReportedConnection>);

impl Default for Connections {
    fn default() -> Self {
        Self(Ledger::new(CONNECTIONS_MAX))
    }
}

/// What several look at.
#[derive(Clone, Debug, Default)]
pub struct Shared(Rc<RefCell<Gathered>>);

impl Shared {
    /// What was gathered so far, to its end.
    #[must_use]
    pub fn finish(&self) -> Gathered {
        let mut gathered = self.0.take();
        gathered.finish();
        gathered
    }
}

impl Observer for Shared {
    fn finding<'a>(&mut self, finding: &'a Finding, _path_of: &dyn Fn(u64) -> Option<&'a str>) {
        self.0.borrow_mut().add(finding);
    }
}

impl Gathered {
    /// Adds a finding.
    pub fn add(&mut self, finding: &Finding) {
        self.findings += 1;
        let time = finding.time();
        let (first, last) = self.range.unwrap_or((time, time));
        self.range = Some((first.min(time), last.max(time)));
        match finding {
            Finding::Query(event) => self.question(event),
            Finding::Connection(event) => self.connection(event),
            Finding::Verdict(event) => self.last_words(event),
            Finding::Refusal(event) => self.refusal(event),
        }
        self.remember(finding);
    }

    /// Counts what is still remembered. Nothing is added after that.
    pub fn finish(&mut self) {
        for entry in self.ledger.0.drain() {
            self.settle(entry);
        }
        // The verdicts are in; the drawing begins with the worst.
        self.worst.sort_by_key(ReportedConnection::order);
    }

    fn question(&mut self, event: &QueryEvent) {
        let QueryEvent {
            query,
            judgement,
            repeats,
            ..
        } = event;
        self.bins.add(query.asked_at, None);
        let word = query.answer.word().unwrap_or(UNKNOWN);
        *self.answers.entry((query.api.name(), word)).or_default() += 1 + repeats;
        if let Some(judgement) = judgement {
            self.verdicts.entry(judgement.verdict).or_default().0 += 1;
        }
    }

    fn connection(&mut self, event: &ConnectionEvent) {
        let Connection {
            kind,
            at,
            cause,
            known,
            side,
            fell_back,
            ..
        } = &event.connection;
        let cause_name = self.cause_name(cause.as_deref());
        let is_fallback = *kind == ConnectionKind::Fallback;
        self.bins.add(*at, is_fallback.then_some(&*cause_name));
        match kind {
            ConnectionKind::Fallback => {
                let of_cause = self.causes.entry(cause_name).or_default();
                of_cause.fallbacks += 1;
                of_cause.inferred += u64::from(*known != CauseCertainty::Reported);
                match side {
                    Some(Side::Active) => of_cause.sides.0 += 1,
                    Some(Side::Passive) => of_cause.sides.1 += 1,
                    None => {}
                }
            }
            ConnectionKind::FallbackDenied => self.reset += 1,
            ConnectionKind::Plain => self.plain += 1,
            ConnectionKind::Blackhole => self.blackholes += 1,
            ConnectionKind::Existing => self.fell_before += u64::from(*fell_back == Some(true)),
        }
    }

    fn last_words(&mut self, event: &VerdictEvent) {
        self.bins.add(event.at, None);
        self.verdicts.entry(event.judgement.verdict).or_default().1 += 1;
        self.doubtful += u64::from(event.doubt.is_some());
    }

    fn refusal(&mut self, event: &RefusalEvent) {
        let refusal = &event.refusal;
        self.bins.add(refusal.at, None);
        let what = match refusal.option() {
            Some(name) => format!("{} {name}", refusal.call()),
            None => refusal.call().to_owned(),
        };
        let key = (what, refusal.errno.to_string(), refusal.why());
        let key = match self.refusals.contains_key(&key) || self.refusals.len() < REFUSALS_MAX {
            true => key,
            false => (OTHERS.to_owned(), String::new(), ""),
        };
        *self.refusals.entry(key).or_default() += 1;
    }

    /// Remembers what a finding says of its connection.
    fn remember(&mut self, finding: &Finding) {
        let subject = Subject::of(finding);
        if subject.is_refusal {
            return;
        }
        let cause = self.cause_name(subject.cause);
        let time = finding.time();
        let change = self.ledger.0.take(finding, &subject, |key, socket| {
            ReportedConnection::new(socket, key.born_at, time)
        });
        let Some(change) = change else {
            return;
        };
        let (entry, forgotten) = (change.entry, change.forgotten);
        entry.details.number = entry.number;
        entry.details.state = entry.state;
        entry.details.learn(finding, cause);
        if let Some(forgotten) = forgotten {
            self.forgotten += 1;
            self.settle(forgotten);
        }
    }

    fn cause_name(&self, cause: Option<&str>) -> String {
        let name = cause.unwrap_or(UNKNOWN);
        let has_room = self.causes.len() < CAUSES_MAX || self.causes.contains_key(name);
        if has_room { name } else { OTHERS }.to_owned()
    }

    /// Counts a connection, and forgets it unless it is one of the worst.
    fn settle(&mut self, entry: Entry<ReportedConnection>) {
        let (state, life) = (entry.state, entry.details);
        *self.awareness.entry(state.awareness()).or_default() += 1;
        self.group(&life);
        if !state.has_fallen {
            return;
        }
        let at = self
            .worst
            .partition_point(|other| other.order() < life.order());
        self.worst.insert(at, life);
        if self.worst.len() > LANES_MAX {
            self.worst.pop();
            self.not_drawn += 1;
        }
    }

    fn group(&mut self, life: &ReportedConnection) {
        if !life.state.is_mptcp {
            return;
        }
        let addr = life.remote.ip().to_canonical();
        let known = Some(addr).filter(|it| {
            self.destinations.contains_key(&Some(*it)) || self.destinations.len() < GROUPS_MAX
        });
        if !addr.is_unspecified() {
            self.destinations.entry(known).or_default().add(life.state);
        }
        let name = life.process.as_ref().map_or("?", |(_, comm)| comm.as_str());
        let has_room = self.processes.contains_key(name) || self.processes.len() < GROUPS_MAX;
        let name = if has_room { name } else { OTHERS };
        self.processes
            .entry(name.to_owned())
            .or_default()
            .add(life.state);
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
