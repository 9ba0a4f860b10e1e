//! The records that a capture needs from the time before it began: what happened to the connections
//! that are still open. Bounded; pure.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::{
    decode::Observation,
    model::{
        ChangeKind, Connection, ConnectionId, ConnectionKind, PathKind, PerSensor, SensorId,
        SocketId,
    },
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
    /// Most records of all connections together; when full, the least recently active connection
    /// is dropped.
    pub total: usize,
}

impl HistoryLimits {
    /// Default: 2 MB for 4,096 connections with two records each, 15 MB when full.
    pub const STATED: Self = Self {
        connections: 8192,
        records: 8,
        blackholes: 256,
        total: usize::MAX,
    };
}

/// What is known of open connections.
#[derive(Debug)]
pub struct History {
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
    /// Paths that came up and have not ended.
    open_paths: u32,
    /// It has ended, but not all of its paths.
    is_closed: bool,
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
    /// A path came up, or is open.
    PathOpens,
    /// A path ended.
    PathEnds,
    /// The connection ended.
    Closed,
    /// An owner, another event of a path, or a TCP child.
    Other,
}

/// The history of the connections that are open.
#[derive(Debug, Default)]
pub struct Lead {
    /// Their records, in the order of arrival.
    pub records: Vec<Vec<u8>>,
    /// Number of these records of each sensor.
    pub of_sensor: PerSensor<u64>,
}

impl History {
    /// A history without records.
    #[must_use]
    pub fn new(limits: HistoryLimits) -> Self {
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
    pub fn note(&mut self, observation: &Observation, bytes: &[u8]) {
        let Some((id, what, sensor)) = self.understood(observation, bytes) else {
            return;
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
            if what == What::PathEnds {
                return;
            }
            self.make_room();
        }
        let number = self.keep(sensor, bytes);
        let records_max = self.limits.records;
        let entry = self.connections.entry(socket).or_insert_with(|| Entry {
            born_at,
            open_paths: 0,
            is_closed: false,
            records: Vec::new(),
            used: number,
        });
        match what {
            What::PathOpens => entry.open_paths += 1,
            What::PathEnds => entry.open_paths = entry.open_paths.saturating_sub(1),
            What::Fallback
            | What::Existing
            | What::Seeing
            | What::Blind
            | What::Closed
            | What::Other => {}
        }
        let is_over = entry.is_closed && entry.open_paths == 0;
        self.by_use.remove(&entry.used);
        entry.used = number;
        self.by_use.insert(number, socket);
        entry.records.push((number, what));
        if entry.records.len() > records_max {
            let dropped = entry.records.remove(entry.least());
            self.records.remove(&dropped.0);
        }
        if is_over {
            self.forget(socket);
        }
        if self.records.len() > self.limits.total {
            self.make_room();
        }
    }

    /// What a record says about which connection, as far as it is kept for it.
    fn understood(
        &mut self,
        observation: &Observation,
        bytes: &[u8],
    ) -> Option<(ConnectionId, What, SensorId)> {
        Some(match observation {
            Observation::Query(query) => {
                let id = query.id?;
                let what = match query.api.sees_fallbacks() {
                    true => What::Seeing,
                    false => What::Blind,
                };
                (id, what, SensorId::Query)
            }
            Observation::Connection(it) if it.kind == ConnectionKind::Blackhole => {
                self.blackhole(it, bytes);
                return None;
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
                // Its last paths may end later: what they carried counts for the connection.
                let entry = self.connections.get_mut(&it.id.socket);
                match entry.filter(|entry| entry.open_paths > 0) {
                    Some(entry) => entry.is_closed = true,
                    None => {
                        self.forget(it.id.socket);
                        return None;
                    }
                }
                (it.id, What::Closed, SensorId::Fallback)
            }
            Observation::Change(it) => (it.id, What::Other, SensorId::Fallback),
            Observation::Path(it) => (it.connection?, of_path(it.kind), SensorId::Subflow),
            Observation::Refusal(_)
            | Observation::CanaryPath(_)
            | Observation::PathReading(_)
            | Observation::Packet(..)
            | Observation::Counters(_)
            | Observation::Canary(_)
            | Observation::CanaryConnection(_)
            | Observation::CanaryChange(_)
            | Observation::CountersAtStart(_) => return None,
        })
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
        while (self.connections.len() >= self.limits.connections
            || self.records.len() >= self.limits.total)
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.forget(oldest);
            self.omitted += 1;
        }
    }

    /// The records of open connections. TCP children are left out unless they were queried: their
    /// end is not reported.
    #[must_use]
    pub fn lead(&self) -> Lead {
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
    #[must_use]
    pub fn omitted(&self) -> u64 {
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
            .or_else(|| first(&|_at, what| matches!(what, What::PathOpens | What::PathEnds)))
            .or_else(|| first(&|at, what| what == What::Fallback && at > 0))
            .unwrap_or(0)
    }
}

/// What a record of a path is.
fn of_path(kind: PathKind) -> What {
    match kind {
        PathKind::Up | PathKind::Open => What::PathOpens,
        PathKind::Down => What::PathEnds,
        PathKind::Failed
        | PathKind::ConnectFailed
        | PathKind::Stale
        | PathKind::Recovered
        | PathKind::Priority
        | PathKind::AddressAnnounced
        | PathKind::AddressEchoed
        | PathKind::AddressDropped
        | PathKind::AddressOverLimit
        | PathKind::AddressRemoved => What::Other,
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
