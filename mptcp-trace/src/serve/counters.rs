//! Counts findings in monotonic counters. Pure and bounded.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
};

use super::{
    labels::{ANSWERS, Fallback, HandshakeLabels, NONE, QueryLabels, UNKNOWN, Whose},
    paths::Paths,
    zeros,
};
use crate::{
    model::{
        Connection, ConnectionEvent, ConnectionKind, Facts, Finding, QueryEvent, Refused, Side,
        Subject,
    },
    observe::Observer,
    peers::{ends, spoke},
    sink::escape,
};

/// Most distinct names of processes, control groups or containers of pods; further ones are counted as [`OTHERS`].
pub const NAMES_MAX: usize = 1000;
/// Label value of names beyond the limit.
pub const OTHERS: &str = "(others)";
/// Label value of unknown names.
pub(super) const UNKNOWN_NAME: &str = "(unknown)";
/// Longest label value, bytes: paths of control groups may have any length.
const NAME_BYTES_MAX: usize = 256;

/// Connections that existed before tracing, by whether they had fallen back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Existing {
    /// They had.
    pub fallen: u64,
    /// They had not.
    pub sound: u64,
    /// The fallback bit of this kernel is not calibrated.
    pub unknown: u64,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    whose: Option<Whose>,
    interface_of: Option<InterfaceOf>,
    names: BTreeMap<Whose, BTreeSet<Vec<String>>>,
    /// Fallbacks.
    pub fallbacks: BTreeMap<Fallback, u64>,
    /// Fallbacks that were not allowed, by cause.
    pub refused: BTreeMap<String, u64>,
    /// TCP clients of MPTCP listeners.
    pub plain: u64,
    /// Times that MPTCP was temporarily switched off.
    pub blackholes: u64,
    /// Connections that existed before tracing.
    pub existing: Existing,
    /// Queries.
    pub queries: BTreeMap<QueryLabels, u64>,
    /// Closing verdicts.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Refused options, and refused sockets.
    pub refusals: (u64, u64),
    /// Paths, and connections that ended.
    pub paths: Paths,
    /// Connections that this host opened, by what the peer answered.
    pub handshakes: BTreeMap<HandshakeLabels, u64>,
}

/// Returns the name of the interface that has an address in a network namespace (an inode number).
pub type InterfaceOf = fn(u32, IpAddr) -> Option<String>;

/// Counters shared by the loop and its readers.
#[derive(Clone, Debug, Default)]
pub struct Shared(Rc<RefCell<Counters>>);

impl Shared {
    /// Counters at zero, with the series that can occur here; fallbacks are labelled by `whose`.
    #[must_use]
    pub fn new(whose: Option<Whose>, facts: &Facts) -> Self {
        let shared = Self(Rc::new(RefCell::new(Counters::new(facts))));
        shared.set_whose(whose);
        shared
    }

    /// Names interfaces by this function.
    #[must_use]
    pub fn naming(self, interface_of: InterfaceOf) -> Self {
        self.0.borrow_mut().interface_of = Some(interface_of);
        self
    }

    /// Labels further fallbacks by `whose`. Existing counts keep their labels: a count that moved to
    /// another series would look like new fallbacks there.
    pub fn set_whose(&self, whose: Option<Whose>) {
        self.0.borrow_mut().whose = whose;
    }

    /// Reads the counters.
    pub fn with<T>(&self, read: impl FnOnce(&Counters) -> T) -> T {
        read(&self.0.borrow())
    }
}

impl Observer for Shared {
    fn finding<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>) {
        self.0.borrow_mut().count(finding, path_of);
    }
}

impl Counters {
    /// Zeros for all series that can occur on this kernel.
    #[must_use]
    pub fn new(facts: &Facts) -> Self {
        fn at_zero<K: Ord>(keys: Vec<K>) -> BTreeMap<K, u64> {
            keys.into_iter().map(|key| (key, 0)).collect()
        }
        Self {
            fallbacks: at_zero(zeros::fallbacks(facts)),
            refused: at_zero(zeros::refused(facts)),
            queries: at_zero(zeros::queries(facts)),
            verdicts: at_zero(zeros::verdicts(facts)),
            paths: Paths::new(facts),
            handshakes: at_zero(zeros::handshakes(facts)),
            ..Self::default()
        }
    }

    /// All fallbacks.
    #[must_use]
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.values().sum()
    }

    /// The label of further fallbacks.
    pub(super) fn whose(&self) -> Option<Whose> {
        self.whose
    }

    fn count<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>) {
        match finding {
            Finding::Query(event) => self.query(event),
            Finding::Connection(event) => self.connection(event, path_of),
            Finding::Verdict(event) => {
                *self
                    .verdicts
                    .entry(event.judgement.verdict.name())
                    .or_default() += 1;
            }
            Finding::Refusal(event) => match event.refusal.what {
                Refused::Option { .. } => self.refusals.0 += 1,
                Refused::Socket { .. } => self.refusals.1 += 1,
            },
            Finding::Path(event) => self.paths.path(&event.path),
            Finding::Closed(event) => self.paths.closed(&event.closed.outcome),
        }
        self.handshake(finding);
    }

    /// Counts whether the peer of a connection that this host opened spoke MPTCP, if the finding
    /// says that.
    fn handshake(&mut self, finding: &Finding) {
        let Some(mptcp) = spoke(finding).filter(|_| !self.handshakes.is_empty()) else {
            return;
        };
        let subject = Subject::of(finding);
        let Some([local, _]) = ends(&subject) else {
            return;
        };
        let is_labelled = self.whose == Some(Whose::Interface);
        let interface = is_labelled.then(|| {
            let name = self.interface_of.and_then(|of| of(subject.netns, local));
            self.bounded(Whose::Interface, &[name.as_deref()]).concat()
        });
        let key = (ANSWERS[usize::from(!mptcp)], interface);
        *self.handshakes.entry(key).or_default() += 1;
    }

    fn query(&mut self, event: &QueryEvent) {
        let verdict = event.judgement.as_ref().map(|it| it.verdict.name());
        let key = (
            event.query.api.name(),
            event.query.answer.word().unwrap_or(NONE),
            verdict.unwrap_or(NONE),
        );
        *self.queries.entry(key).or_default() += 1;
    }

    fn connection<'a>(
        &mut self,
        event: &'a ConnectionEvent,
        path_of: &dyn Fn(u64) -> Option<&'a str>,
    ) {
        let Connection {
            kind,
            cause,
            side,
            known,
            fell_back,
            ..
        } = &event.connection;
        let cause = || cause.as_deref().unwrap_or(UNKNOWN).to_owned();
        match kind {
            ConnectionKind::Fallback => {
                let whose = self
                    .whose
                    .map(|whose| (whose, self.names(whose, event, path_of)));
                let fallback = Fallback {
                    cause: cause(),
                    side: side.map_or(UNKNOWN, Side::name),
                    known: known.name(),
                    whose,
                };
                *self.fallbacks.entry(fallback).or_default() += 1;
            }
            ConnectionKind::FallbackDenied => *self.refused.entry(cause()).or_default() += 1,
            ConnectionKind::Plain => self.plain += 1,
            ConnectionKind::Blackhole => self.blackholes += 1,
            ConnectionKind::Existing => match fell_back {
                Some(true) => self.existing.fallen += 1,
                Some(false) => self.existing.sound += 1,
                None => self.existing.unknown += 1,
            },
        }
    }

    fn names<'a>(
        &mut self,
        whose: Whose,
        event: &'a ConnectionEvent,
        path_of: &dyn Fn(u64) -> Option<&'a str>,
    ) -> Vec<String> {
        let process = event.connection.owner.as_ref().map(|owner| &owner.process);
        let pod = event.place.pod.as_deref();
        let socket = &event.connection.socket;
        let interface = self.interface_of.filter(|_| whose == Whose::Interface);
        let interface = interface.and_then(|of| of(socket.netns, socket.local.ip().to_canonical()));
        let names = match whose {
            Whose::Interface => vec![interface.as_deref()],
            Whose::Process => vec![process.map(|it| it.comm.as_str())],
            Whose::Cgroup => {
                let path = event.place.cgroup.as_deref();
                vec![path.or_else(|| process.and_then(|it| path_of(it.cgroup_id)))]
            }
            Whose::Pod => vec![
                pod.and_then(|it| it.namespace.as_deref()),
                pod.and_then(|it| it.name.as_deref()),
                pod.and_then(|it| it.container.as_deref()),
            ],
        };
        self.bounded(whose, &names)
    }

    /// Label values; beyond the limit, those of the others.
    fn bounded(&mut self, whose: Whose, names: &[Option<&str>]) -> Vec<String> {
        let name = |name: &Option<&str>| {
            let name = name.unwrap_or(UNKNOWN_NAME);
            // Names must not pass control characters to readers of metrics.
            escape(&name[..name.floor_char_boundary(NAME_BYTES_MAX)])
        };
        let names: Vec<String> = names.iter().map(name).collect();
        let known = self.names.entry(whose).or_default();
        if known.contains(&names) {
            return names;
        }
        if known.len() >= NAMES_MAX {
            return vec![OTHERS.to_owned(); names.len()];
        }
        known.insert(names.clone());
        names
    }
}
