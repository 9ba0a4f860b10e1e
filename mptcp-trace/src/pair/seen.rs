//! Findings of one capture -> the ends of connections and paths that it saw.

use std::{cell::RefCell, collections::HashMap, fmt, net::SocketAddr, rc::Rc, time::Duration};

use crate::{
    filter::FindingFilter,
    model::{
        CauseCertainty, Certainty, Connection, ConnectionId, ConnectionKind, DecidedBy, Evidence,
        Finding, Marks, Outcome, Owner, Packet, Path, PathEvent, PathId, PathKind, PathRole, Shown,
        Side, Subject, displayed,
    },
    observe::Observer,
};

/// At most this many connections of a capture are compared; the others are counted.
pub const CONNECTIONS_MAX: usize = 100_000;

/// At most this many paths of a connection are compared.
const PATHS_MAX: usize = 32;

/// How a path failed or ended. Times are on `CLOCK_BOOTTIME`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathEnd {
    /// When.
    pub at: Duration,
    /// It never came up.
    pub is_failed: bool,
    /// Name of the cause, if known.
    pub cause: Option<String>,
    /// How the cause is known.
    pub known: CauseCertainty,
    /// Where that was decided, if known.
    pub decided_by: Option<DecidedBy>,
    /// The packet that decided has padding in the place of its option: it was sent with one.
    pub is_cleared: bool,
}

/// The packet surely has padding in the place of its option.
fn is_cleared(packet: Option<&Packet>) -> bool {
    let mut shown = packet.into_iter().flat_map(|it| &it.conclusions);
    shown.any(|it| it.what == Shown::Cleared && it.certainty == Certainty::Certain)
}

/// One end of a path. Times are on `CLOCK_BOOTTIME`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathSeen {
    /// Identity; `None` if it never had a socket, or is a TCP socket.
    pub id: Option<PathId>,
    /// How it belongs to the connection.
    pub role: PathRole,
    /// Which end sent the SYN, if known.
    pub side: Option<Side>,
    /// Address and port of this end.
    pub local: SocketAddr,
    /// Address and port of the other end, as this one knows it.
    pub remote: SocketAddr,
    /// Address ids, own and the peer's, if known.
    pub ids: (Option<u8>, Option<u8>),
    /// What the other end knows too.
    pub marks: Marks,
    /// When its SYN was sent or, of a passive path, its third ACK arrived, if that was observed.
    pub began: Option<Duration>,
    /// When it came up, if that was observed.
    pub up: Option<Duration>,
    /// How it failed or ended.
    pub end: Option<PathEnd>,
    /// The shortest round trip, if it was measured.
    pub round_trip: Option<Duration>,
    /// A packet with RST arrived.
    pub rst_received: bool,
    /// This host sent one.
    pub rst_sent: bool,
    /// It was open before tracing began.
    pub existing: bool,
}

impl PathSeen {
    fn of_path(event: &PathEvent) -> Self {
        let path = &event.path;
        let mut seen = Self {
            id: path.path,
            role: path.role,
            side: None,
            local: displayed(path.socket.local),
            remote: displayed(path.socket.remote),
            ids: (None, None),
            marks: Marks::default(),
            began: path.began_at.filter(|_| !path.existing),
            up: None,
            end: None,
            round_trip: None,
            rst_received: false,
            rst_sent: false,
            existing: path.existing || path.kind == PathKind::Open,
        };
        seen.update(event);
        seen
    }

    fn update(&mut self, event: &PathEvent) {
        let path = &event.path;
        if self.remote.ip().is_unspecified() {
            self.local = displayed(path.socket.local);
            self.remote = displayed(path.socket.remote);
        }
        self.side = path.side.or(self.side);
        self.ids = (path.local_id.or(self.ids.0), path.remote_id.or(self.ids.1));
        // One that is open may be read while a packet of it is processed.
        let is_calm = path.kind != PathKind::Open;
        self.learn(path.marks, is_calm);
        self.up = path.up_at.or(self.up);
        let measured = path.ledger.and_then(|it| it.rtt_min.or(it.rtt));
        self.round_trip = measured.or(self.round_trip);
        self.rst_received |= path.rst_received;
        self.rst_sent |= path.rst_sent;
        match path.kind {
            PathKind::Up => self.up = self.up.or(Some(path.at)),
            PathKind::Failed | PathKind::ConnectFailed | PathKind::Down => {
                self.end = Some(PathEnd {
                    at: path.at,
                    is_failed: path.kind != PathKind::Down,
                    cause: path.cause.as_deref().map(str::to_owned),
                    known: path.known,
                    decided_by: path.decided_by,
                    is_cleared: is_cleared(event.packet.as_deref()),
                });
            }
            PathKind::Open
            | PathKind::Stale
            | PathKind::Recovered
            | PathKind::Priority
            | PathKind::AddressAnnounced
            | PathKind::AddressEchoed
            | PathKind::AddressDropped
            | PathKind::AddressOverLimit
            | PathKind::AddressRemoved => {}
        }
    }

    /// Takes marks; those that are known stay unless the new ones are `better`.
    fn learn(&mut self, marks: Marks, better: bool) {
        let merge = |old: Option<u32>, new: Option<u32>| match better {
            true => new.or(old),
            false => old.or(new),
        };
        self.marks = Marks {
            sent: merge(self.marks.sent, marks.sent),
            received: merge(self.marks.received, marks.received),
            keys: merge(self.marks.keys, marks.keys),
        };
    }
}

/// The fallback of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fell {
    /// When, on `CLOCK_BOOTTIME`; `None` if that was not observed.
    pub at: Option<Duration>,
    /// Name of the cause, if known.
    pub cause: Option<String>,
    /// How the cause is known.
    pub known: CauseCertainty,
    /// What was observed before.
    pub evidence: Vec<Evidence>,
    /// The packet that decided has padding in the place of its option: it was sent with one.
    pub is_cleared: bool,
}

/// One end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Which end opened it, if known.
    pub side: Option<Side>,
    /// Name and number of the process that holds it.
    pub process: Option<String>,
    /// When it was first mentioned, on `CLOCK_BOOTTIME`.
    pub first_at: Duration,
    /// When its socket was destroyed, on `CLOCK_BOOTTIME`.
    pub closed: Option<Duration>,
    /// Its fallback.
    pub fell: Option<Fell>,
    /// It is a TCP socket at a listener with MPTCP; true if its client is known not to have asked.
    pub plain: Option<bool>,
    /// It is not known whether it fell back.
    pub is_unknown: bool,
    /// The paths, in the order in which they were first mentioned. A TCP socket counts as one.
    pub paths: Vec<PathSeen>,
    /// It is a join of an unknown connection, alone.
    pub is_orphan: bool,
    /// A filter admits a finding about it.
    pub wanted: bool,
}

impl Seen {
    fn new(first_at: Duration) -> Self {
        Self {
            netns: 0,
            side: None,
            process: None,
            first_at,
            closed: None,
            fell: None,
            plain: None,
            is_unknown: false,
            paths: Vec::new(),
            is_orphan: false,
            wanted: false,
        }
    }

    /// The path that opened it, if it is known.
    #[must_use]
    pub fn first(&self) -> Option<&PathSeen> {
        self.paths.iter().find(|path| path.role == PathRole::First)
    }

    /// Digest of its keys, if both are known here.
    #[must_use]
    pub fn keys(&self) -> Option<u32> {
        self.paths.iter().find_map(|path| path.marks.keys)
    }

    /// When it began, on `CLOCK_BOOTTIME`: the SYN or, at the passive end, the third ACK.
    #[must_use]
    pub fn begin(&self) -> Duration {
        let began = self.first().and_then(|path| path.began.or(path.up));
        began.map_or(self.first_at, |it| it.min(self.first_at))
    }

    /// It was open before tracing began.
    #[must_use]
    pub fn existing(&self) -> bool {
        self.first().is_none_or(|path| path.existing)
    }

    fn first_mut(&mut self) -> Option<&mut PathSeen> {
        let mut paths = self.paths.iter_mut();
        paths.find(|path| path.role == PathRole::First)
    }

    fn take_owner(&mut self, owner: Option<&Owner>) {
        if let Some(owner) = owner {
            let pid = owner.process.pid.unwrap_or(owner.process.host_pid);
            self.process = Some(format!("{} {pid}", owner.process.comm));
        }
    }

    fn path(&mut self, event: &PathEvent) {
        let path = &event.path;
        let is_it = |it: &&mut PathSeen| it.id.is_some() && it.id == path.path;
        match self.paths.iter_mut().find(is_it) {
            Some(known) => known.update(event),
            None => {
                // The fallback has made one already.
                let of_fallback = self.paths.iter().position(|it| {
                    it.id.is_none() && it.role == PathRole::First && path.role == it.role
                });
                let mut new = PathSeen::of_path(event);
                if let Some(at) = of_fallback {
                    let old = self.paths.remove(at);
                    new.learn(old.marks, false);
                    new.began = new.began.or(old.began);
                }
                if self.paths.len() < PATHS_MAX {
                    self.paths.push(new);
                }
            }
        }
        if path.role == PathRole::First {
            self.side = path.side.or(self.side);
        }
        self.take_owner(path.owner.as_ref());
    }

    fn connection(&mut self, it: &Connection) {
        self.side = it.side.or(self.side);
        self.take_owner(it.owner.as_ref());
        if self.first().is_none() && !it.socket.remote.ip().is_unspecified() {
            let began = it.since_connect.map(|since| it.at.saturating_sub(since));
            let is_plain = it.kind == ConnectionKind::Plain;
            self.paths.push(PathSeen {
                id: None,
                role: PathRole::First,
                side: self.side,
                local: displayed(it.socket.local),
                remote: displayed(it.socket.remote),
                ids: (Some(0), Some(0)),
                marks: Marks::default(),
                // A child is created when the third ACK arrives.
                began: began.or(is_plain.then_some(it.at)),
                up: is_plain.then_some(it.at),
                end: None,
                round_trip: None,
                rst_received: false,
                rst_sent: false,
                existing: it.existing,
            });
        }
        if let Some(first) = self.first_mut() {
            first.learn(it.marks, false);
        }
        let fell = || Fell {
            at: Some(it.at).filter(|_| it.kind != ConnectionKind::Existing),
            cause: it.cause.as_deref().map(str::to_owned),
            known: it.known,
            evidence: it.evidence.clone(),
            is_cleared: false,
        };
        match it.kind {
            ConnectionKind::Fallback => self.fell = Some(fell()),
            ConnectionKind::Existing if it.fell_back == Some(true) => self.fell = Some(fell()),
            ConnectionKind::Plain => {
                self.side = Some(Side::Passive);
                self.plain = Some(it.known != CauseCertainty::Unknown);
            }
            ConnectionKind::Existing
            | ConnectionKind::FallbackDenied
            | ConnectionKind::Blackhole => {}
        }
    }
}

/// The ends of connections that a capture saw.
#[derive(Clone, Default, Debug)]
pub struct Ends {
    /// In the order in which they were first mentioned.
    pub all: Vec<Seen>,
    /// The newest one of each socket.
    pub(super) places: HashMap<ConnectionId, usize>,
    /// Findings about connections beyond [`CONNECTIONS_MAX`].
    pub beyond: u64,
}

impl Ends {
    /// Takes a finding; it is wanted if a filter admits it.
    pub fn take(&mut self, finding: &Finding, wanted: bool) {
        let subject = Subject::of(finding);
        if subject.is_listener() {
            return;
        }
        let of_socket = subject.id.map(ConnectionId::of_socket);
        let place = match finding {
            Finding::Path(event) if event.path.kind.is_of_address() => return,
            Finding::Path(event) => self.place_of_path(of_socket, &event.path),
            Finding::Connection(event) => self.place_of_connection(of_socket, &event.connection),
            Finding::Closed(_) => of_socket.and_then(|id| self.places.get(&id)).copied(),
            Finding::Query(_) | Finding::Verdict(_) | Finding::Refusal(_) => {
                let known = of_socket.and_then(|id| self.places.get(&id)).copied();
                if let Some(seen) = known.and_then(|place| self.all.get_mut(place)) {
                    seen.wanted |= wanted;
                }
                return;
            }
        };
        let Some(seen) = place.and_then(|place| self.all.get_mut(place)) else {
            return;
        };
        seen.wanted |= wanted;
        seen.netns = subject.netns;
        match finding {
            Finding::Path(event) => seen.path(event),
            Finding::Connection(event) => {
                seen.connection(&event.connection);
                if let Some(fell) = &mut seen.fell {
                    fell.is_cleared |= is_cleared(event.packet.as_deref());
                }
            }
            Finding::Closed(event) => {
                let closed = &event.closed;
                seen.closed = Some(closed.at);
                seen.side = closed.side.or(seen.side);
                seen.take_owner(closed.owner.as_ref());
                match &closed.outcome {
                    Outcome::FellBack { at, cause } if seen.fell.is_none() => {
                        seen.fell = Some(Fell {
                            at: *at,
                            cause: cause.as_deref().map(str::to_owned),
                            known: CauseCertainty::Unknown,
                            evidence: Vec::new(),
                            is_cleared: false,
                        });
                    }
                    Outcome::Unknown => seen.is_unknown = true,
                    Outcome::FellBack { .. } | Outcome::Mptcp => {}
                }
            }
            Finding::Query(_) | Finding::Verdict(_) | Finding::Refusal(_) => {}
        }
    }

    fn place_of_path(&mut self, id: Option<ConnectionId>, path: &Path) -> Option<usize> {
        let Some(id) = id else {
            // A join of an unknown connection stands for itself.
            let place = self.new_place(path.at)?;
            if let Some(seen) = self.all.get_mut(place) {
                seen.is_orphan = true;
            }
            return Some(place);
        };
        let known = self.places.get(&id).copied();
        let is_later_one = |seen: &Seen| {
            path.role == PathRole::First
                && path.path.is_some()
                && (seen.first()).is_some_and(|first| first.end.is_some() && first.id != path.path)
        };
        self.place(id, known, is_later_one, path.at)
    }

    fn place_of_connection(&mut self, id: Option<ConnectionId>, it: &Connection) -> Option<usize> {
        let id = id?;
        let known = self.places.get(&id).copied();
        // The first path of the same socket's earlier connection has ended.
        let is_later_one = |seen: &Seen| {
            seen.first().is_some_and(|first| {
                first.end.as_ref().is_some_and(|end| end.at < it.at)
                    && it.marks.sent.is_some()
                    && first.marks.sent != it.marks.sent
            })
        };
        self.place(id, known, is_later_one, it.at)
    }

    fn place(
        &mut self,
        id: ConnectionId,
        known: Option<usize>,
        is_later_one: impl FnOnce(&Seen) -> bool,
        at: Duration,
    ) -> Option<usize> {
        if let Some(place) = known
            && !self.all.get(place).is_some_and(is_later_one)
        {
            return Some(place);
        }
        let place = self.new_place(at)?;
        self.places.insert(id, place);
        Some(place)
    }

    fn new_place(&mut self, at: Duration) -> Option<usize> {
        if self.all.len() >= CONNECTIONS_MAX {
            self.beyond += 1;
            return None;
        }
        self.all.push(Seen::new(at));
        Some(self.all.len() - 1)
    }
}

/// A gatherer that the stages and the comparison share.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<(FindingFilter, Ends)>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// Gathers all findings, and marks the connections that a filter admits.
    #[must_use]
    pub fn new(wanted: FindingFilter) -> Self {
        Self(Rc::new(RefCell::new((wanted, Ends::default()))))
    }

    /// Returns what was gathered, after all findings.
    #[must_use]
    pub fn finish(&self) -> Ends {
        std::mem::take(&mut self.0.borrow_mut().1)
    }
}

impl Observer for Shared {
    fn finding<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>) {
        let (filter, ends) = &mut *self.0.borrow_mut();
        ends.take(finding, filter.matches(finding, path_of));
    }
}
