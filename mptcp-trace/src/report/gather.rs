//! Gathers findings for the report: sums, and the worst connections. Pure, with bounded memory for
//! any number of findings.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use super::{
    bins::Bins,
    path_counts::{PathCounts, PathOutcome},
};
use crate::{
    ledger::{Awareness, Change, Entry, Key, Ledger, State},
    model::{
        Answer, Api, CauseCertainty, ClosedBy, Connection, ConnectionEvent, ConnectionKind,
        Finding, Outcome, Owner, PathEvent, PathKind, PathRole, QueryEvent, RefusalEvent, Side,
        Socket, Subject, Verdict, VerdictEvent, displayed,
    },
    paths::Paths,
    peers::{self, History},
};

/// Most connections tracked at once; the oldest one is counted and dropped when full.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Most connections that are drawn.
pub const LANES_MAX: usize = 30;
/// Most connections in the list by address; the drawn ones are among them.
pub const LISTED_MAX: usize = 500;
/// Most distinct destinations, and most distinct process names.
pub const GROUPS_MAX: usize = 4096;
/// Most distinct causes; no kernel has as many.
pub const CAUSES_MAX: usize = 64;
/// Most answers kept per connection: the first ones, and the last.
const ANSWERS_MAX: usize = 8;
/// Most distinct refusals.
const REFUSALS_MAX: usize = 64;
/// Group of everything beyond a limit.
pub(super) const OTHERS: &str = "(others)";
/// Group of unknown causes.
const UNKNOWN: &str = "unknown";

/// One answer about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Time of the answer, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// How the application asked.
    pub api: Api,
    /// The kernel's answer.
    pub answer: Answer,
}

/// Packets that are described of one connection.
const PACKETS_MAX: usize = 4;

/// A connection, as the findings about it describe it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportedConnection {
    /// First observed, on `CLOCK_BOOTTIME`.
    pub born_at: Option<Duration>,
    /// Start of `connect()`, or creation by its listener, on `CLOCK_BOOTTIME`.
    pub connected_at: Option<Duration>,
    /// Time of the fallback, on `CLOCK_BOOTTIME`.
    pub fell_at: Option<Duration>,
    /// Time and kind of its end, on `CLOCK_BOOTTIME`.
    pub closed: Option<(Duration, ClosedBy)>,
    /// First observed, wall clock.
    pub time: SystemTime,
    /// Cause of the fallback.
    pub cause: Option<String>,
    /// Certainty of the cause.
    pub known: CauseCertainty,
    /// Which side opened the connection.
    pub side: Option<Side>,
    /// Process ID and name of the owner, or of the process that asked.
    pub process: Option<(String, String)>,
    /// Local address and port.
    pub local: SocketAddr,
    /// Remote address and port.
    pub remote: SocketAddr,
    /// The first answers, and the last one.
    pub asked: Vec<Asked>,
    /// Number of answers.
    pub queries: u64,
    /// State from the ledger.
    pub state: State,
    /// Its paths.
    pub paths: Paths,
    /// What it was, when it ended.
    pub outcome: Option<Outcome>,
    /// Its first path failed.
    pub is_not_opened: bool,
    /// The verdict may be wrong, since queries are known to be missing.
    pub is_doubtful: bool,
    /// The packets that decided what happened to it and its paths, described.
    pub packets: Vec<String>,
    /// What they show.
    pub shows: Vec<&'static str>,
    /// It fell back before tracing began.
    pub fell_before: bool,
    /// Time of the latest finding about it, on `CLOCK_BOOTTIME`.
    pub last_at: Duration,
    /// Process ID of the first owner or asker, in the initial PID namespace; 0 if unknown.
    pub host_pid: u32,
    /// Identifies it among all connections of the capture.
    pub(super) number: u64,
}

impl ReportedConnection {
    fn new(subject: &Subject<'_>, socket: &Socket, key: Key, time: SystemTime) -> Self {
        Self {
            born_at: key.born_at,
            connected_at: None,
            fell_at: None,
            closed: None,
            time,
            cause: None,
            known: CauseCertainty::Unknown,
            side: None,
            process: None,
            local: displayed(socket.local),
            remote: displayed(socket.remote),
            asked: Vec::new(),
            queries: 0,
            state: State::default(),
            paths: Paths::default(),
            outcome: None,
            is_not_opened: false,
            is_doubtful: false,
            fell_before: false,
            packets: Vec::new(),
            shows: Vec::new(),
            last_at: Duration::ZERO,
            host_pid: subject.process.map_or(0, |process| process.host_pid),
            number: 0,
        }
    }

    /// What the application knows about the fallback.
    #[must_use]
    pub fn awareness(&self) -> Awareness {
        self.state.awareness()
    }

    /// Applies a finding; `cause` is the name under which its cause is counted.
    fn update(&mut self, finding: &Finding, cause: String) {
        self.last_at = self.last_at.max(finding.at());
        if let Some(packet) = finding.packet()
            && self.packets.len() < PACKETS_MAX
        {
            self.packets.push(packet.description());
            self.shows
                .extend(packet.conclusions.iter().map(|it| it.what.name()));
        }
        match finding {
            Finding::Query(event) => {
                let query = &event.query;
                self.hear(&query.socket, None);
                if self.process.is_none() {
                    self.process = Some((query.process.number(), query.process.comm.clone()));
                }
                self.connected_at = query.connected_at.or(self.connected_at);
                self.fell_before |= query.fell_back == Some(true) && self.fell_at.is_none();
                self.queries += 1 + event.repeats;
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
            Finding::Path(event) => self.path(event),
            Finding::Closed(event) => {
                let closed = &event.closed;
                self.hear(&closed.socket, closed.owner.as_ref());
                self.side = closed.side.or(self.side);
                self.outcome = Some(closed.outcome.clone());
                if let Outcome::FellBack { at, cause: _ } = &closed.outcome {
                    self.fell_at = self.fell_at.or(*at);
                    if self.cause.is_none() {
                        self.cause = Some(cause);
                    }
                }
                self.closed = Some((closed.at, ClosedBy::Death));
            }
            Finding::Refusal(_) => {}
        }
    }

    fn path(&mut self, event: &PathEvent) {
        let path = &event.path;
        self.paths.take(path);
        self.is_not_opened |= path.kind == PathKind::ConnectFailed;
        if let Some(Owner { process, via: _ }) = &path.owner {
            self.process = Some((process.number(), process.comm.clone()));
        }
        // The addresses and the side of a join are its own.
        if path.role == PathRole::First && !path.kind.is_of_address() {
            self.hear(&path.socket, None);
            self.side = path.side.or(self.side);
            self.connected_at = self.connected_at.or(path.began_at);
        }
    }

    /// Its paths are worth a drawing although it did not fall back: one failed, was stale or ended
    /// early, or there are several.
    fn has_paths_to_see(&self) -> bool {
        self.paths.are_troubled() || self.paths.len() > 1
    }

    /// Worth a lane.
    fn is_drawn(&self) -> bool {
        let awareness = self.awareness();
        awareness.has_fallen() || awareness == Awareness::Healthy && self.has_paths_to_see()
    }

    /// Sort key: the worst first, then by time of the fallback.
    fn order(&self) -> (Awareness, bool, bool, Duration, u64) {
        let fell_at = self.fell_at.unwrap_or(Duration::MAX);
        let has_no_trouble = !self.paths.are_troubled();
        let awareness = self.awareness();
        // What fell back is in the order of time, whatever its paths did.
        match awareness.has_fallen() {
            true => (awareness, false, false, fell_at, self.number),
            false => (
                awareness,
                has_no_trouble,
                !self.has_paths_to_see(),
                fell_at,
                self.number,
            ),
        }
    }

    fn hear(&mut self, socket: &Socket, process: Option<&Owner>) {
        // The remote address is unknown before connect(), and may be unknown after close().
        if !socket.remote.ip().is_unspecified() {
            self.local = displayed(socket.local);
            self.remote = displayed(socket.remote);
        }
        if let Some(Owner { process, via: _ }) = process {
            self.process = Some((process.number(), process.comm.clone()));
        }
    }
}

/// Applies a finding to its connection; `cause` is the name under which its cause is counted. `None`
/// if it concerns no connection.
pub(super) fn note<'l>(
    ledger: &'l mut Ledger<ReportedConnection>,
    finding: &Finding,
    subject: &Subject<'_>,
    cause: String,
) -> Option<Change<'l, ReportedConnection>> {
    let change = ledger.take(finding, subject, |key, socket| {
        ReportedConnection::new(subject, socket, key, finding.time())
    })?;
    let life = &mut change.entry.details;
    let ends = subject
        .socket
        .map(|socket| (displayed(socket.local), displayed(socket.remote)));
    if subject.is_refusal && ends != Some((life.local, life.remote)) {
        // The kernel reuses the addresses of sockets: this is another one.
        return None;
    }
    life.number = change.entry.number;
    life.state = change.entry.state;
    life.update(finding, cause);
    Some(change)
}

/// Connections of one destination, or of one process name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Group {
    /// Connections that began as MPTCP.
    pub connections: u64,
    /// Of these, fallen back.
    pub fallen: u64,
    /// Of these, with an application that is unaware of the fallback.
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
    /// Number of fallbacks.
    pub fallbacks: u64,
    /// Of these, with an inferred cause.
    pub inferred: u64,
    /// Fallbacks of connections opened by this side, and by the other side.
    pub sides: (u64, u64),
}

impl OfCause {
    fn add(&mut self, known: CauseCertainty, side: Option<Side>) {
        self.fallbacks += 1;
        self.inferred += u64::from(known != CauseCertainty::Reported);
        match side {
            Some(Side::Active) => self.sides.0 += 1,
            Some(Side::Passive) => self.sides.1 += 1,
            None => {}
        }
    }
}

/// Sums over all findings.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Number of findings.
    pub findings: u64,
    /// Times of the first and the last finding, wall clock.
    pub range: Option<(SystemTime, SystemTime)>,
    /// Connections by awareness of the application.
    pub awareness: BTreeMap<Awareness, u64>,
    /// Fallbacks by cause.
    pub causes: BTreeMap<String, OfCause>,
    /// Fallbacks by cause over time.
    pub bins: Bins,
    /// Paths that failed or ended, by cause.
    pub path_causes: BTreeMap<(PathOutcome, String), OfCause>,
    /// What the packets show that decided, by name.
    pub shown: BTreeMap<&'static str, u64>,
    /// Connections that ended, and their paths.
    pub paths: PathCounts,
    /// Connections worth a lane.
    pub drawable: u64,
    /// Connections that fell back before tracing began.
    pub fell_before: u64,
    /// Subflows reset because the connection was not allowed to fall back.
    pub reset: u64,
    /// TCP clients of MPTCP listeners.
    pub plain: u64,
    /// Times that MPTCP was temporarily switched off.
    pub blackholes: u64,
    /// Answers by API and answer.
    pub answers: BTreeMap<(&'static str, &'static str), u64>,
    /// Verdicts: on answers, and closing verdicts.
    pub verdicts: BTreeMap<Verdict, (u64, u64)>,
    /// Verdicts that may be wrong, since queries are known to be missing.
    pub doubtful: u64,
    /// Refusals by call, error and reason.
    pub refusals: BTreeMap<(String, String, &'static str), u64>,
    /// Connections by remote address; none groups those beyond the limit.
    pub destinations: HashMap<Option<IpAddr>, Group>,
    /// How often each of these addresses spoke MPTCP, by local address.
    pub peers: History,
    /// Connections by process name; [`OTHERS`] groups those beyond the limit.
    pub processes: HashMap<String, Group>,
    /// The worst connections in the order of [`ReportedConnection::order`], at most [`LISTED_MAX`].
    listed: Vec<ReportedConnection>,
    /// Connections that are not among these.
    pub not_listed: u64,
    /// Connections counted early because the table was full; they may be counted twice.
    pub forgotten: u64,
    ledger: Connections,
}

/// Connections that are not counted yet.
#[derive(Clone, Debug)]
struct Connections(Ledger<ReportedConnection>);

impl Default for Connections {
    fn default() -> Self {
        Self(Ledger::new(CONNECTIONS_MAX))
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
            Finding::Query(event) => self.query(event),
            Finding::Connection(event) => self.connection(event),
            Finding::Verdict(event) => self.closing_verdict(event),
            Finding::Refusal(event) => self.refusal(event),
            Finding::Path(event) => self.path(event),
            Finding::Closed(event) => {
                self.bins.add(event.closed.at, None);
                self.paths.close(&event.closed);
            }
        }
        self.remember(finding);
        for shown in finding.packet().into_iter().flat_map(|it| &it.conclusions) {
            *self.shown.entry(shown.what.name()).or_default() += 1;
        }
        let ends = peers::ends(&Subject::of(finding));
        if let (Some(mptcp), Some([local, remote])) = (peers::spoke(finding), ends) {
            self.peers
                .take(&remote.to_string(), &local.to_string(), mptcp);
        }
    }

    /// Counts the remaining connections. Nothing may be added after that.
    pub fn finish(&mut self) {
        for entry in self.ledger.0.drain() {
            self.settle(entry);
        }
    }

    /// The worst connections, worst first; those that fell back precede all others.
    pub fn listed(&self) -> impl Iterator<Item = &ReportedConnection> {
        self.listed.iter()
    }

    /// Those of them that are drawn.
    pub fn drawn(&self) -> impl Iterator<Item = &ReportedConnection> {
        let drawn = self.listed().filter(|it| it.is_drawn());
        drawn.take(LANES_MAX)
    }

    fn query(&mut self, event: &QueryEvent) {
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
                of_cause.add(*known, *side);
            }
            ConnectionKind::FallbackDenied => self.reset += 1,
            ConnectionKind::Plain => self.plain += 1,
            ConnectionKind::Blackhole => self.blackholes += 1,
            ConnectionKind::Existing => self.fell_before += u64::from(*fell_back == Some(true)),
        }
    }

    fn path(&mut self, event: &PathEvent) {
        self.bins.add(event.path.at, None);
        if let Some((outcome, cause)) = self.paths.take(&event.path) {
            let key = (outcome, cause.unwrap_or(UNKNOWN).to_owned());
            let has_room =
                self.path_causes.len() < CAUSES_MAX || self.path_causes.contains_key(&key);
            let key = if has_room {
                key
            } else {
                (outcome, OTHERS.to_owned())
            };
            let of_cause = self.path_causes.entry(key).or_default();
            of_cause.add(event.path.known, event.path.side);
        }
    }

    fn closing_verdict(&mut self, event: &VerdictEvent) {
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

    /// Applies a finding to its connection.
    fn remember(&mut self, finding: &Finding) {
        let subject = Subject::of(finding);
        // There is no connection if it could not be opened.
        let is_not_opened = matches!(finding, Finding::Path(event)
            if event.path.kind == PathKind::ConnectFailed);
        if subject.is_refusal || is_not_opened {
            return;
        }
        let cause = self.cause_name(subject.cause);
        let change = note(&mut self.ledger.0, finding, &subject, cause);
        if let Some(forgotten) = change.and_then(|change| change.forgotten) {
            self.forgotten += 1;
            self.settle(forgotten);
        }
    }

    fn cause_name(&self, cause: Option<&str>) -> String {
        let name = cause.unwrap_or(UNKNOWN);
        let has_room = self.causes.len() < CAUSES_MAX || self.causes.contains_key(name);
        if has_room { name } else { OTHERS }.to_owned()
    }

    /// Counts a connection, and drops it unless it is one of the worst.
    fn settle(&mut self, entry: Entry<ReportedConnection>) {
        let (state, life) = (entry.state, entry.details);
        *self.awareness.entry(state.awareness()).or_default() += 1;
        self.group(&life);
        self.drawable += u64::from(life.is_drawn());
        let order = life.order();
        let at = self.listed.partition_point(|it| it.order() < order);
        if at < LISTED_MAX {
            self.not_listed += u64::from(self.listed.len() == LISTED_MAX);
            self.listed.truncate(LISTED_MAX - 1);
            self.listed.insert(at, life);
        } else {
            self.not_listed += 1;
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
