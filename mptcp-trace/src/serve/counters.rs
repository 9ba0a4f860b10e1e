//! Counts findings in monotonic counters. Pure and bounded.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::{
    labels::{Fallback, NONE, QueryLabels, UNKNOWN, Whose},
    zeros,
};
use crate::{
    model::{
        Connection, ConnectionEvent, ConnectionKind, Facts, Finding, QueryEvent, Refused, Side,
    },
    observe::Observer,
    sink::escape,
};

/// Most distinct names of processes or control groups; further ones are counted as [`OTHERS`].
pub const NAMES_MAX: usize = 1000;
/// Label value of names beyond the limit.
pub const OTHERS: &str = "(others)";
/// Label value of unknown names.
const UNKNOWN_NAME: &str = "(unknown)";
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
    names: BTreeMap<Whose, BTreeSet<String>>,
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
}

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
            ..Self::default()
        }
    }

    /// All fallbacks.
    #[must_use]
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.values().sum()
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
        }
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
                    .map(|whose| (whose, self.name(whose, event, path_of)));
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

    fn name<'a>(
        &mut self,
        whose: Whose,
        event: &'a ConnectionEvent,
        path_of: &dyn Fn(u64) -> Option<&'a str>,
    ) -> String {
        let process = event.connection.owner.as_ref().map(|owner| &owner.process);
        let name = match whose {
            Whose::Process => process.map(|it| it.comm.as_str()),
            Whose::Cgroup => event
                .place
                .cgroup
                .as_deref()
                .or_else(|| process.and_then(|it| path_of(it.cgroup_id))),
        };
        let name = name.unwrap_or(UNKNOWN_NAME);
        // Names must not pass control characters to readers of metrics.
        let name = escape(&name[..name.floor_char_boundary(NAME_BYTES_MAX)]);
        let known = self.names.entry(whose).or_default();
        if known.contains(&name) {
            return name;
        }
        if known.len() >= NAMES_MAX {
            return OTHERS.to_owned();
        }
        known.insert(name.clone());
        name
    }
}
