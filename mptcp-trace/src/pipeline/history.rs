//! The records that a capture needs from the time before it began: what happened to the connections
//! that are still open. Bounded; pure.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::{
    decode::Observation,
    model::{ChangeKind, Connection, ConnectionKind, PerSensor, SensorId, SocketId},
};

/// Limits of the history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryLimits {
    /// Most connections; when full, the least recently active one is dropped.
    pub connections: usize,
    /// Most records of a connection. Fallbacks, and the last answer that shows whether it fell
    /// back, are kept longest.
    pub records: usize,
    /// Most network namespaces whose last blackhole is kept.
    pub blackholes: usize,
}

impl HistoryLimits {
    /// Default: 2 MB for 4,096 connections with two records each, 15 MB when full.
    pub const STATED: Self = Self {
        connections: 8192,
        records: 8,
        blackholes: 256,
    };
}

/// What is known of open connections.
#[derive(Debug)]
pub(super) struct History {
    limits: HistoryLimits,
    /// Records by the order of their arrival.
    records: BTreeMap<u64, (SensorId, Vec<u8>)>,
    arrived: u64,
    connections: HashMap<SocketId, Entry>,
    /// By last use, the least recent first.
    by_use: BTreeMap<u64, SocketId>,
    /// The last blackhole of each network namespace: it is the reason of later fallbacks.
    blackholes: BTreeMap<u32, u64>,
    omitted: u64,
}

/// The records of a connection.
#[derive(Debug)]
struct Entry {
    born_at: Duration,
    records: Vec<(u64, What)>,
    used: u64,
}

/// What a record is, as far as it matters for dropping it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Fallback,
    /// It was open before tracing began.
    Existing,
    /// An answer that shows whether the connection fell back.
    Seeing,
    /// Another answer.
    Blind,
    /// An owner, or a TCP child.
    Other,
}

/// The history of the connections that are open.
#[derive(Debug, Default)]
pub(super) struct Lead {
    /// Their records, in the order of arrival.
    pub(super) records: Vec<Vec<u8>>,
    /// Number of these records of each sensor.
    pub(super) of_sensor: PerSensor<u64>,
}

impl History {
    pub(super) fn new(limits: HistoryLimits) -> Self {
        Self {
            limits,
            records: BTreeMap::new(),
            arrived: 0,
            connections: HashMap::new(),
            by_use: BTreeMap::new(),
            blackholes: BTreeMap::new(),
            omitted: 0,
        }
    }

    /// Takes a record.
    pub(super) fn note(&mut self, observation: &Observation, bytes: &[u8]) {
        let (id, what, sensor) = match observation {
            Observation::Query(query) => {
                let Some(id) = query.id else {
                    return;
                };
                let what = match query.api.sees_fallbacks() {
                    true => What::Seeing,
                    false => What::Blind,
                };
                (id, what, SensorId::Query)
            }
            Observation::Connection(it) if it.kind == ConnectionKind::Blackhole => {
                self.blackhole(it, bytes);
                return;
            }
            Observation::Connection(it) => {
                let what = match it.kind {
                    ConnectionKind::Fallback | ConnectionKind::FallbackDenied => What::Fallback,
                    ConnectionKind::Existing => What::Existing,
                    ConnectionKind::Plain | ConnectionKind::Blackhole => What::Other,
                };
                (it.id, what, SensorId::Fallback)
            }
            Observation::Change(it) if it.kind == ChangeKind::Closed => {
                self.forget(it.id.socket);
                return;
            }
            Observation::Change(it) => (it.id, What::Other, SensorId::Fallback),
            Observation::Refusal(_)
            | Observation::Counters(_)
            | Observation::Canary(_)
            | Observation::CanaryConnection(_)
            | Observation::CanaryChange(_)
            | Observation::CountersAtStart(_) => return,
        };
        let (socket, born_at) = (id.socket, id.born_at);
        // Another socket is at its address: the earlier one has ended.
        if self
            .connections
            .get(&socket)
            .is_some_and(|it| it.born_at != born_at)
        {
            self.forget(socket);
        }
        if !self.connections.contains_key(&socket) {
            self.make_room();
        }
        let number = self.keep(sensor, bytes);
        let records_max = self.limits.records;
        let entry = self.connections.entry(socket).or_insert_with(|| Entry {
            born_at,
            records: Vec::new(),
            used: number,
        });
        self.by_use.remove(&entry.used);
        entry.used = number;
        self.by_use.insert(number, socket);
        entry.records.push((number, what));
        if entry.records.len() > records_max {
            let dropped = entry.records.remove(entry.least());
            self.records.remove(&dropped.0);
        }
    }

    fn keep(&mut self, sensor: SensorId, bytes: &[u8]) -> u64 {
        self.arrived += 1;
        self.records.insert(self.arrived, (sensor, bytes.to_vec()));
        self.arrived
    }

    fn blackhole(&mut self, connection: &Connection, bytes: &[u8]) {
        let netns = connection.socket.netns;
        let is_new = !self.blackholes.contains_key(&netns);
        if is_new && self.blackholes.len() >= self.limits.blackholes {
            let oldest = self.blackholes.iter().min_by_key(|it| it.1);
            if let Some(oldest) = oldest.map(|it| *it.0)
                && let Some(number) = self.blackholes.remove(&oldest)
            {
                self.records.remove(&number);
            }
        }
        let number = self.keep(SensorId::Fallback, bytes);
        if let Some(before) = self.blackholes.insert(netns, number) {
            self.records.remove(&before);
        }
    }

    /// A connection has ended.
    fn forget(&mut self, socket: SocketId) {
        if let Some(entry) = self.connections.remove(&socket) {
            self.by_use.remove(&entry.used);
            for (number, _) in entry.records {
                self.records.remove(&number);
            }
        }
    }

    fn make_room(&mut self) {
        if self.connections.len() >= self.limits.connections
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.forget(oldest);
            self.omitted += 1;
        }
    }

    /// The records of open connections. TCP children are left out unless they were queried: their
    /// end is not reported.
    pub(super) fn lead(&self) -> Lead {
        let mut numbers: Vec<u64> = self.blackholes.values().copied().collect();
        let is_wanted = |entry: &&Entry| entry.records.iter().any(|it| it.1 != What::Other);
        for entry in self.connections.values().filter(is_wanted) {
            numbers.extend(entry.records.iter().map(|it| it.0));
        }
        numbers.sort_unstable();
        let mut lead = Lead::default();
        for (sensor, bytes) in numbers.iter().filter_map(|it| self.records.get(it)) {
            *lead.of_sensor.of_mut(*sensor) += 1;
            lead.records.push(bytes.clone());
        }
        lead
    }

    /// Number of connections that were dropped because there was no room.
    pub(super) fn omitted(&self) -> u64 {
        self.omitted
    }
}

impl Entry {
    /// Index of the record that is needed least.
    fn least(&self) -> usize {
        let last_seeing = self.records.iter().rposition(|it| it.1 == What::Seeing);
        // The newest record stays.
        let older = || self.records.iter().enumerate().rev().skip(1).rev();
        let first = |is: &dyn Fn(usize, What) -> bool| {
            let mut all = older();
            all.find(|(at, it)| is(*at, it.1)).map(|(at, _)| at)
        };
        first(&|at, what| what == What::Blind || what == What::Seeing && Some(at) != last_seeing)
            .or_else(|| first(&|_at, what| what == What::Other))
            .or_else(|| first(&|at, what| what == What::Fallback && at > 0))
            .unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
