//! Findings -> what the page tells: sums, and the worst connections. Pure, and bounded however many findings there are.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, SystemTime},
};

use crate::{
    model::{
        Answer, Api, ClosedBy, Connection, ConnectionEvent, ConnectionKind, Finding, Known, Owner,
        Protocol, QueryEvent, RefusalEvent, Side, Socket, TcpState, Verdict, VerdictEvent,
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

/// A socket as long as it lives: its address, and when it was first seen or, where that was not noted down, its inode.
type Key = (u64, Option<Duration>, Option<u64>);

/// What the application knows of a connection, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fate {
    /// Told MPTCP although it had fallen back.
    Contradicted,
    /// Fell back, and was asked about in a way that cannot see it.
    Misled,
    /// Told MPTCP, fell back later, not asked again.
    Stale,
    /// Told MPTCP before the handshake could decide, and not asked again.
    TooEarly,
    /// Fell back, and nobody asked.
    NeverAsked,
    /// Fell back, and was asked in words that this kernel does not know.
    Unsupported,
    /// Told TCP, and no fallback was seen.
    Unexplained,
    /// Fell back; what the application knows is not known.
    Open,
    /// Told TCP, and the fallback was seen.
    Explained,
    /// It is MPTCP, as far as is known.
    Healthy,
    /// It never was MPTCP.
    Plain,
}

impl Fate {
    /// All of them, the worst first.
    pub const ALL: [Self; 11] = [
        Self::Contradicted,
        Self::Misled,
        Self::Stale,
        Self::TooEarly,
        Self::NeverAsked,
        Self::Unsupported,
        Self::Unexplained,
        Self::Open,
        Self::Explained,
        Self::Healthy,
        Self::Plain,
    ];

    /// The connection is TCP by now, and began as something else.
    #[must_use]
    pub fn has_fallen(self) -> bool {
        !matches!(self, Self::Healthy | Self::Plain)
    }

    /// It fell back, and the application was not told.
    #[must_use]
    pub fn is_unaware(self) -> bool {
        self < Self::Unexplained
    }
}

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
pub struct Life {
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
    pub known: Known,
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
    /// The last verdict.
    pub verdict: Option<Verdict>,
    /// The verdict may be wrong, since questions are known to be missing.
    pub is_doubtful: bool,
    /// It had fallen back before tracing began.
    pub fell_before: bool,
    is_mptcp: bool,
    number: u64,
}

impl Life {
    fn new(socket: &Socket, born_at: Option<Duration>, time: SystemTime, number: u64) -> Self {
        Self {
            born_at,
            connected_at: None,
            fell_at: None,
            closed: None,
            time,
            cause: None,
            known: Known::Unknown,
            side: None,
            process: None,
            local: socket.local,
            remote: socket.remote,
            asked: Vec::new(),
            questions: 0,
            verdict: None,
            is_doubtful: false,
            fell_before: false,
            is_mptcp: socket.protocol == Protocol::Mptcp,
            number,
        }
    }

    /// What its application knows of it.
    #[must_use]
    pub fn fate(&self) -> Fate {
        let has_fallen = self.fell_at.is_some() || self.fell_before;
        match self.verdict {
            Some(Verdict::Contradicted) => Fate::Contradicted,
            Some(Verdict::Misled) => Fate::Misled,
            Some(Verdict::Stale) => Fate::Stale,
            Some(Verdict::Explained) => Fate::Explained,
            Some(Verdict::NeverAsked) => Fate::NeverAsked,
            Some(Verdict::Unexplained) => Fate::Unexplained,
            Some(Verdict::TooEarly) if has_fallen && self.closed.is_some() => Fate::TooEarly,
            Some(Verdict::Unsupported) if has_fallen => Fate::Unsupported,
            Some(
                Verdict::PlainTcp | Verdict::StillMptcp | Verdict::TooEarly | Verdict::Unsupported,
            )
            | None => match (has_fallen, self.is_mptcp) {
                (true, _) => Fate::Open,
                (false, true) => Fate::Healthy,
                (false, false) => Fate::Plain,
            },
        }
    }

    /// The worst first, and of those the one that fell back first.
    fn order(&self) -> (Fate, Duration, u64) {
        let fell_at = self.fell_at.unwrap_or(Duration::MAX);
        (self.fate(), fell_at, self.number)
    }

    fn hear(&mut self, socket: &Socket, process: Option<&Owner>) {
        // Before it connects there is no other end, and after it was closed there may be none any more.
        if !socket.remote.ip().is_unspecified() {
            self.local = socket.local;
            self.remote = socket.remote;
        }
        self.is_mptcp |= socket.protocol == Protocol::Mptcp;
        if let Some(Owner { process, via: _ }) = process {
            self.process = Some((process.number(), process.comm.clone()));
        }
    }

    fn judge(&mut self, verdict: Verdict) {
        // Once a bug, always a bug, whatever was said later.
        if self.verdict != Some(Verdict::Contradicted) {
            self.verdict = Some(verdict);
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
    fn add(&mut self, fate: Fate) {
        self.connections += 1;
        self.fallen += u64::from(fate.has_fallen());
        self.unaware += u64::from(fate.is_unaware());
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
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gathered {
    /// Findings.
    pub findings: u64,
    /// When the first and the last happened, wall clock.
    pub range: Option<(SystemTime, SystemTime)>,
    /// Connections by what their applications know.
    pub fates: BTreeMap<Fate, u64>,
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
    pub worst: Vec<Life>,
    /// Connections that fell back and are not among the worst.
    pub not_drawn: u64,
    /// Connections that were counted early, because too many were remembered: they may have been counted again.
    pub forgotten: u64,
    lives: HashMap<Key, Life>,
    /// The oldest first.
    order: VecDeque<(Key, u64)>,
    numbers: u64,
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
        let time = match finding {
            Finding::Query(event) => self.question(event),
            Finding::Connection(event) => self.connection(event),
            Finding::Verdict(event) => self.last_words(event),
            Finding::Refusal(event) => self.refusal(event),
        };
        let (first, last) = self.range.unwrap_or((time, time));
        self.range = Some((first.min(time), last.max(time)));
    }

    /// Counts what is still remembered. Nothing is added after that.
    pub fn finish(&mut self) {
        while self.settle_oldest() {}
        // The verdicts are in; the drawing begins with the worst.
        self.worst.sort_by_key(Life::order);
    }

    fn question(&mut self, event: &QueryEvent) -> SystemTime {
        let QueryEvent {
            query,
            time,
            judgement,
            repeats,
        } = event;
        self.bins.add(query.asked_at, None);
        let word = query.answer.word().unwrap_or(UNKNOWN);
        *self.answers.entry((query.api.name(), word)).or_default() += 1 + repeats;
        let verdict = judgement.as_ref().map(|it| it.verdict);
        if let Some(verdict) = verdict {
            self.verdicts.entry(verdict).or_default().0 += 1;
        }
        // It waits for connections, and is none itself.
        if query.socket.state == TcpState::LISTEN {
            return *time;
        }
        let born_at = query.id.map(|id| id.born_at);
        let key = key(&query.socket, born_at);
        // A connection that fell back is not MPTCP again: the same socket has connected anew, or is about to.
        let fell_at = self.lives.get(&key).and_then(|life| life.fell_at);
        let is_new = matches!(verdict, Some(Verdict::TooEarly | Verdict::StillMptcp));
        if is_new && fell_at.is_some_and(|at| at < query.asked_at) {
            self.settle(key);
        }
        let life = self.life(&query.socket, born_at, *time);
        life.hear(&query.socket, None);
        if life.process.is_none() {
            life.process = Some((query.process.number(), query.process.comm.clone()));
        }
        life.connected_at = query.connected_at.or(life.connected_at);
        life.fell_before |= query.fell_back == Some(true) && life.fell_at.is_none();
        life.questions += 1 + repeats;
        if life.asked.len() >= ANSWERS_MAX {
            life.asked.pop();
        }
        life.asked.push(Asked {
            at: query.answered_at(),
            api: query.api,
            answer: query.answer,
        });
        if let Some(verdict) = verdict {
            life.judge(verdict);
        }
        *time
    }

    fn connection(&mut self, event: &ConnectionEvent) -> SystemTime {
        let Connection {
            kind,
            at,
            id,
            socket,
            owner,
            cause,
            known,
            side,
            since_connect,
            fell_back,
            ..
        } = &event.connection;
        let time = event.time;
        let cause_name = self.cause_name(cause.as_deref());
        let is_fallback = *kind == ConnectionKind::Fallback;
        self.bins.add(*at, is_fallback.then_some(&*cause_name));
        match kind {
            ConnectionKind::Fallback => {
                let of_cause = self.causes.entry(cause_name.clone()).or_default();
                of_cause.fallbacks += 1;
                of_cause.inferred += u64::from(*known != Known::Reported);
                match side {
                    Some(Side::Active) => of_cause.sides.0 += 1,
                    Some(Side::Passive) => of_cause.sides.1 += 1,
                    None => {}
                }
            }
            ConnectionKind::Refused => self.reset += 1,
            ConnectionKind::Plain => self.plain += 1,
            ConnectionKind::Blackhole => self.blackholes += 1,
            ConnectionKind::Existing => self.fell_before += u64::from(*fell_back == Some(true)),
        }
        // A connection does not fall back twice: the same socket has connected anew.
        let key = key(socket, Some(id.born_at));
        let fell_at = self.lives.get(&key).and_then(|life| life.fell_at);
        if is_fallback && fell_at.is_some_and(|before| before != *at) {
            self.settle(key);
        }
        let life = self.life(socket, Some(id.born_at), time);
        life.hear(socket, owner.as_ref());
        life.side = side.or(life.side);
        if let Some(since) = since_connect {
            life.connected_at = Some(at.saturating_sub(*since));
        }
        if is_fallback {
            life.fell_at = Some(*at);
            life.fell_before = false;
        }
        life.fell_before |= *kind == ConnectionKind::Existing && *fell_back == Some(true);
        if life.has_cause_to_learn(*kind) {
            life.cause = Some(cause_name);
            life.known = *known;
        }
        time
    }

    fn last_words(&mut self, event: &VerdictEvent) -> SystemTime {
        let VerdictEvent {
            judgement,
            id,
            at,
            time,
            closed_by,
            owner,
            socket,
            doubt,
            ..
        } = event;
        self.bins.add(*at, None);
        self.verdicts.entry(judgement.verdict).or_default().1 += 1;
        self.doubtful += u64::from(doubt.is_some());
        let cause = judgement
            .cause
            .as_deref()
            .map(|it| self.cause_name(Some(it)));
        let life = self.life(socket, Some(id.born_at), *time);
        life.hear(socket, owner.as_ref());
        life.fell_at = life.fell_at.or(judgement.fell_back_at);
        life.cause = life.cause.take().or(cause);
        life.closed = Some((*at, *closed_by));
        life.is_doubtful |= doubt.is_some();
        life.judge(judgement.verdict);
        *time
    }

    fn refusal(&mut self, event: &RefusalEvent) -> SystemTime {
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
        event.time
    }

    fn cause_name(&self, cause: Option<&str>) -> String {
        let name = cause.unwrap_or(UNKNOWN);
        let has_room = self.causes.len() < CAUSES_MAX || self.causes.contains_key(name);
        if has_room { name } else { OTHERS }.to_owned()
    }

    /// What is remembered of a connection.
    fn life(&mut self, socket: &Socket, born_at: Option<Duration>, time: SystemTime) -> &mut Life {
        let key = key(socket, born_at);
        if !self.lives.contains_key(&key) {
            while self.lives.len() >= CONNECTIONS_MAX && self.settle_oldest() {
                self.forgotten += 1;
            }
            self.numbers += 1;
            self.order.push_back((key, self.numbers));
        }
        let number = self.numbers;
        self.lives
            .entry(key)
            .or_insert_with(|| Life::new(socket, born_at, time, number))
    }

    /// Counts the oldest connection that is remembered; false if there is none.
    fn settle_oldest(&mut self) -> bool {
        while let Some((key, number)) = self.order.pop_front() {
            // It may have been settled before, and its socket live again.
            if self.lives.get(&key).is_some_and(|it| it.number == number) {
                self.settle(key);
                return true;
            }
        }
        false
    }

    /// Counts a connection, and forgets it unless it is one of the worst.
    fn settle(&mut self, key: Key) {
        let Some(life) = self.lives.remove(&key) else {
            return;
        };
        let fate = life.fate();
        *self.fates.entry(fate).or_default() += 1;
        if fate != Fate::Plain {
            self.group(&life, fate);
        }
        if !fate.has_fallen() {
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

    fn group(&mut self, life: &Life, fate: Fate) {
        let addr = life.remote.ip().to_canonical();
        let known = Some(addr).filter(|it| {
            self.destinations.contains_key(&Some(*it)) || self.destinations.len() < GROUPS_MAX
        });
        if !addr.is_unspecified() {
            self.destinations.entry(known).or_default().add(fate);
        }
        let name = life.process.as_ref().map_or("?", |(_, comm)| comm.as_str());
        let has_room = self.processes.contains_key(name) || self.processes.len() < GROUPS_MAX;
        let name = if has_room { name } else { OTHERS };
        self.processes.entry(name.to_owned()).or_default().add(fate);
    }
}

impl Life {
    fn has_cause_to_learn(&self, kind: ConnectionKind) -> bool {
        match kind {
            ConnectionKind::Fallback => true,
            ConnectionKind::Existing => self.fell_before,
            ConnectionKind::Refused | ConnectionKind::Plain | ConnectionKind::Blackhole => false,
        }
    }
}

fn key(socket: &Socket, born_at: Option<Duration>) -> Key {
    let inode = match born_at {
        Some(_) => None,
        None => socket.inode,
    };
    (socket.id.0, born_at, inode)
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
