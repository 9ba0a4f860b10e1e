//! Findings -> connections: which exist, which fell back, what their applications know. Pure, and
//! bounded.
//!
//! The only place that decides this; `--by`, `top`, `report` and their totals use these
//! definitions:
//!
//! - a **connection** began as MPTCP. A TCP socket, created as TCP or by an MPTCP listener for a
//!   client that did not request MPTCP, does not count, and neither does a listener, nor one that
//!   could not be opened. A socket that connects again is another connection.
//! - it **fell back** if a fallback was observed, or it is known to be TCP now.
//! - the **share** of fallbacks is relative to connections.
//! - its application is **deceived** if it believes in MPTCP although the connection fell back:
//!   [`Awareness::is_deceived`].

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::model::{ConnectionId, Finding, PathKind, Protocol, Socket, SocketId, Subject, Verdict};

/// Maximum number of tracked connections: one that reappears after its eviction counts again.
pub const REMEMBERED_MAX: usize = 262_144;

/// The identity of a finding's connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// The socket.
    pub socket: SocketId,
    /// When it was first observed, on `CLOCK_BOOTTIME`; `None` if it was not tracked.
    pub born_at: Option<Duration>,
    /// Its inode number, if nothing better is known.
    inode: Option<u64>,
    /// Number of the socket's earlier connections.
    attempt: u32,
}

impl Key {
    fn new(socket: &Socket, id: Option<ConnectionId>) -> Self {
        Self {
            socket: socket.id,
            born_at: id.map(|id| id.born_at),
            inode: if id.is_some() { None } else { socket.inode },
            attempt: id.map_or(0, |id| id.attempt),
        }
    }

    /// Converts to an identity, with a birth of 0 if it was not tracked.
    #[must_use]
    pub fn id(self) -> ConnectionId {
        ConnectionId {
            socket: self.socket,
            born_at: self.born_at.unwrap_or_default(),
            attempt: self.attempt,
        }
    }
}

/// What the application knows of a connection, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Awareness {
    /// Told MPTCP although it had fallen back.
    Contradicted,
    /// Fell back, and was queried through an API that does not see it.
    Misled,
    /// Told MPTCP, fell back later, not asked again.
    Stale,
    /// Told MPTCP before the handshake could decide, and not asked again.
    TooEarly,
    /// Fell back, and was never queried.
    NeverAsked,
    /// Fell back, and was queried through an API that this kernel does not support.
    Unsupported,
    /// Told TCP, and no fallback was observed.
    Unexplained,
    /// Fell back; what the application knows is unknown.
    Open,
    /// Told TCP, and the fallback was observed.
    Explained,
    /// It is MPTCP, as far as is known.
    Healthy,
    /// It never was MPTCP.
    Plain,
}

impl Awareness {
    /// All values, the worst first.
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

    /// The connection began as MPTCP, and is TCP now.
    #[must_use]
    pub fn has_fallen(self) -> bool {
        !matches!(self, Self::Healthy | Self::Plain)
    }

    /// It fell back, and the application believes in MPTCP.
    #[must_use]
    pub fn is_deceived(self) -> bool {
        self < Self::NeverAsked
    }

    /// It fell back, and the application did not learn of it.
    #[must_use]
    pub fn is_unaware(self) -> bool {
        self < Self::Unexplained
    }
}

/// State of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// It began as MPTCP.
    pub is_mptcp: bool,
    /// It fell back.
    pub has_fallen: bool,
    /// The last verdict.
    pub verdict: Option<Verdict>,
    /// Its end was reported.
    pub is_closed: bool,
}

impl State {
    fn update(&mut self, finding: &Finding, subject: &Subject<'_>, socket: &Socket) {
        self.has_fallen |= subject.has_fallen;
        // One that could not be opened is no connection.
        let is_not_opened = matches!(finding, Finding::Path(event)
            if event.path.kind == PathKind::ConnectFailed);
        self.is_mptcp |= socket.protocol == Protocol::Mptcp && !is_not_opened || self.has_fallen;
        self.is_closed |= matches!(finding, Finding::Verdict(_) | Finding::Closed(_));
        // A bug stays a bug, whatever verdict follows.
        if self.verdict != Some(Verdict::Contradicted) {
            self.verdict = subject.verdict.or(self.verdict);
        }
    }

    /// What its application knows.
    #[must_use]
    pub fn awareness(self) -> Awareness {
        match (self.verdict, self.has_fallen) {
            (Some(Verdict::Contradicted), true) => Awareness::Contradicted,
            (Some(Verdict::Misled), true) => Awareness::Misled,
            (Some(Verdict::Stale), true) => Awareness::Stale,
            (Some(Verdict::TooEarly), true) if self.is_closed => Awareness::TooEarly,
            (Some(Verdict::NeverAsked), true) => Awareness::NeverAsked,
            (Some(Verdict::Unsupported), true) => Awareness::Unsupported,
            (Some(Verdict::Unexplained), true) => Awareness::Unexplained,
            (Some(Verdict::Explained), true) => Awareness::Explained,
            (_, true) => Awareness::Open,
            (_, false) if self.is_mptcp => Awareness::Healthy,
            (_, false) => Awareness::Plain,
        }
    }

    /// What it contributes to sums.
    #[must_use]
    pub fn counts(self) -> Counts {
        Counts {
            connections: u64::from(self.is_mptcp),
            fallen: u64::from(self.has_fallen),
            deceived: u64::from(self.awareness().is_deceived()),
        }
    }
}

/// Counts of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Connections.
    pub connections: u64,
    /// Of these, the ones that fell back.
    pub fallen: u64,
    /// Of these, the ones whose application believes in MPTCP.
    pub deceived: u64,
}

impl Counts {
    /// Replaces a connection's earlier contribution `before` by `now`.
    pub fn replace(&mut self, before: Self, now: Self) {
        let replace = |sum: &mut u64, before: u64, now: u64| {
            *sum = sum.saturating_sub(before).saturating_add(now);
        };
        replace(&mut self.connections, before.connections, now.connections);
        replace(&mut self.fallen, before.fallen, now.fallen);
        replace(&mut self.deceived, before.deceived, now.deceived);
    }
}

/// A connection, with the data of a view.
#[derive(Clone, Debug)]
pub struct Entry<D> {
    /// Identifies the connection.
    pub key: Key,
    /// Its state so far.
    pub state: State,
    /// Data of the view.
    pub details: D,
    /// Sequence number.
    pub number: u64,
    /// It was mentioned since the last search for one to evict.
    is_recent: bool,
}

/// The effect of a finding.
pub struct Change<'a, D> {
    /// The connection, as it is now.
    pub entry: &'a mut Entry<D>,
    /// Its contribution before; zero if it is new.
    pub before: Counts,
    /// It was not known before.
    pub is_new: bool,
    /// The connection that was evicted to make room.
    pub forgotten: Option<Entry<D>>,
}

impl<D> Change<'_, D> {
    /// Its contribution now.
    #[must_use]
    pub fn now(&self) -> Counts {
        self.entry.state.counts()
    }
}

/// The connections that findings mentioned.
#[derive(Clone, Debug)]
pub struct Ledger<D> {
    limit: usize,
    entries: HashMap<Key, Entry<D>>,
    /// The connection of each socket that was mentioned last.
    latest: HashMap<SocketId, Key>,
    /// In the order of first mention; a connection mentioned again is moved back when it would be
    /// evicted.
    order: VecDeque<(Key, u64)>,
    numbers: u64,
    counts: Counts,
    forgotten: u64,
}

impl<D> Ledger<D> {
    /// An empty ledger for at most `limit` connections.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            entries: HashMap::new(),
            latest: HashMap::new(),
            order: VecDeque::new(),
            numbers: 0,
            counts: Counts::default(),
            forgotten: 0,
        }
    }

    /// Takes a finding; `None` if it does not concern a connection. `details` creates the view's
    /// data of a new one.
    pub fn take(
        &mut self,
        finding: &Finding,
        subject: &Subject<'_>,
        details: impl FnOnce(Key, &Socket) -> D,
    ) -> Option<Change<'_, D>> {
        let socket = subject.socket.filter(|_| !subject.is_listener())?;
        // A join that names no connection concerns none.
        if matches!(finding, Finding::Path(event) if event.path.connection.is_none()) {
            return None;
        }
        let key = match subject.is_refusal {
            // A refusal does not show which connection of the socket it concerns.
            true => *self.latest.get(&socket.id)?,
            false => Key::new(socket, subject.id),
        };
        let is_new = !self.entries.contains_key(&key);
        let forgotten = match is_new && self.entries.len() >= self.limit {
            true => self.forget(),
            false => None,
        };
        if is_new {
            self.numbers += 1;
            self.order.push_back((key, self.numbers));
            self.latest.insert(socket.id, key);
        }
        let number = self.numbers;
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            key,
            state: State::default(),
            details: details(key, socket),
            number,
            is_recent: false,
        });
        entry.is_recent = !is_new;
        let before = entry.state.counts();
        if !subject.is_refusal {
            entry.state.update(finding, subject, socket);
        }
        self.counts.replace(before, entry.state.counts());
        Some(Change {
            entry,
            before,
            is_new,
            forgotten,
        })
    }

    /// Evicts the least recently mentioned connection, approximately.
    fn forget(&mut self) -> Option<Entry<D>> {
        while let Some((key, number)) = self.order.pop_front() {
            match self.entries.get_mut(&key) {
                Some(entry) if entry.number == number && entry.is_recent => {
                    entry.is_recent = false;
                    self.order.push_back((key, number));
                }
                Some(entry) if entry.number == number => {
                    if self.latest.get(&key.socket) == Some(&key) {
                        self.latest.remove(&key.socket);
                    }
                    self.forgotten += 1;
                    return self.entries.remove(&key);
                }
                Some(_) | None => {}
            }
        }
        None
    }

    /// Sums over all connections, including evicted ones.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Number of evicted connections.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The tracked connections, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry<D>> {
        self.entries.values()
    }

    /// The view's data of the connection of a socket that was mentioned last, if that connection was
    /// first observed at this time.
    pub fn latest_mut(&mut self, id: ConnectionId) -> Option<&mut D> {
        let key = self.latest.get(&id.socket)?;
        let entry = self.entries.get_mut(key)?;
        (entry.key.id().born_at == id.born_at).then_some(&mut entry.details)
    }

    /// Removes all of them, in the order of first mention.
    pub fn drain(&mut self) -> Vec<Entry<D>> {
        let mut all: Vec<_> = self.entries.drain().map(|(_, entry)| entry).collect();
        all.sort_by_key(|entry| entry.number);
        self.order.clear();
        self.latest.clear();
        all
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
