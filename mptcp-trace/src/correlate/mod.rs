//! Event -> findings: sorts events by time, waits for information that is about to arrive, applies
//! the filter, reaches verdicts, and counts causes.
//!
//! Pure: time comes from the events or from the caller. The fallback of a connection that has not
//! been accepted yet waits for its acceptance, since its owner is unknown until then.

mod connections;
mod doubt;
mod fingerprint;
mod life;
mod missed;
mod netns_counts;
mod order;
mod path_counters;
mod path_counts;
mod paths;
mod verdict;

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    time::{Duration, UNIX_EPOCH},
};

pub use netns_counts::{FallbackLedger, growth, reconcile};
pub use path_counts::{PathCounts, path_growth, reconcile_paths};

use self::{
    connections::{
        ConnectionTable, Fallen, Removed, is_of_another_connection, is_unconnected, outcome,
    },
    fingerprint::Peers,
    missed::Missed,
    order::Arriving,
    paths::PathBook,
};
use crate::model::{
    CauseCertainty, ChangeEvent, ChangeKind, ClosedBy, ConnectionEvent, ConnectionId,
    ConnectionKind, Counted, Event, Facts, Finding, LastAsked, MissedRuns, NetnsCounters,
    QueryEvent, SwitchedOff, TcpState, VerdictEvent,
};

/// How far records may be out of order: each CPU timestamps its own before it reserves room in the
/// ring. Later ones count as happening when they arrive.
pub const ORDER_WINDOW: Duration = Duration::from_millis(50);

/// How long a connection may wait to be accepted before it is reported with the listener's owner.
pub const ACCEPT_WAIT: Duration = Duration::from_secs(1);

/// Additional wait when a clock outside of the records ends it: records may still be on their way.
const CLOCK_SLACK: Duration = Duration::from_millis(300);

/// The cause of a fallback while MPTCP is disabled for some time.
const SWITCHED_OFF: &str = "MPCapableSYNTXDisabled";

/// At most this many network namespaces have a record of what disabled MPTCP; when full, the oldest
/// is dropped.
const SWITCHED_OFF_MAX: usize = 1024;

/// Limits on the memory in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Events to be sorted; when full, the oldest is processed.
    pub arriving: usize,
    /// Events that wait for an acceptance; when full, the oldest is reported as it is.
    pub waiting: usize,
    /// Tracked connections; when full, the least recently used one gets its verdict and is evicted.
    pub connections: usize,
}

impl Limits {
    /// The limits of a normal run.
    pub const STATED: Self = Self {
        arriving: 65_536,
        waiting: 65_536,
        connections: 65_536,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::STATED
    }
}

/// Sorts, delays, filters, judges, and counts events.
#[derive(Debug)]
pub struct Correlator {
    limits: Limits,
    arriving: Arriving,
    /// Time of the latest event.
    latest: Duration,
    /// By sequence number.
    waiting: BTreeMap<u64, Box<ConnectionEvent>>,
    /// Sequence numbers of a connection's waiting events, in the same order.
    waiting_of: HashMap<ConnectionId, VecDeque<u64>>,
    /// Number of events that have waited so far.
    waited: u64,
    connections: ConnectionTable,
    /// The last time that MPTCP was disabled, per network namespace.
    switched_off: BTreeMap<u32, SwitchedOff>,
    fallback_ledger: FallbackLedger,
    path_counts: PathCounts,
    paths: PathBook,
    missed: Missed,
    peers: Peers,
    filtered: u64,
    paths_filtered: u64,
    acceptances: u64,
}

impl Default for Correlator {
    fn default() -> Self {
        Self::new(Limits::STATED)
    }
}

impl Correlator {
    /// Creates a correlator without state.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            arriving: Arriving::default(),
            latest: Duration::ZERO,
            waiting: BTreeMap::new(),
            waiting_of: HashMap::new(),
            waited: 0,
            connections: ConnectionTable::new(limits.connections),
            switched_off: BTreeMap::new(),
            fallback_ledger: FallbackLedger::default(),
            path_counts: PathCounts::default(),
            paths: PathBook::new(limits.connections),
            missed: Missed::default(),
            peers: Peers::default(),
            filtered: 0,
            paths_filtered: 0,
            acceptances: 0,
        }
    }

    /// Takes one event; adds findings that are ready to `ready`.
    pub fn take(&mut self, mut event: Event, facts: &Facts, ready: &mut Vec<Finding>) {
        self.peers.judge_packet_of(&mut event);
        match &event {
            Event::Connection(event) => self.fallback_ledger.record(&event.connection, facts),
            Event::Path(event) => self.path_counts.record(&event.path, facts),
            Event::Query(_) | Event::Change(_) | Event::Refusal(_) => {}
        }
        let at = event.at();
        self.latest = self.latest.max(at);
        self.arriving.insert(at, event);
        self.settle(self.latest.saturating_sub(ORDER_WINDOW), facts, ready);
        while self.arriving.len() > self.limits.arriving {
            let Some(oldest) = self.arriving.pop_until(Duration::MAX) else {
                break;
            };
            self.happened(oldest, facts, ready);
        }
    }

    /// Takes the BPF side's reading of a namespace's counters.
    pub fn counted(&mut self, counters: NetnsCounters) {
        self.fallback_ledger.counted(counters);
    }

    /// The clock is at `now`; adds findings that have waited long enough to `ready`.
    pub fn clock(&mut self, now: Duration, facts: &Facts, ready: &mut Vec<Finding>) {
        self.settle(now.saturating_sub(ORDER_WINDOW), facts, ready);
        self.waited_until(now.saturating_sub(CLOCK_SLACK), facts, ready);
    }

    /// By this time the probes have missed this many queries; false if none of them is new. Which
    /// connections they concern is unknown: the verdicts on all that lived at that time are in
    /// doubt.
    ///
    /// Must be called before the events until `by` are settled.
    pub fn missed(&mut self, by: Duration, runs: MissedRuns) -> bool {
        self.missed.read(by, runs)
    }

    /// By this time the probes may have missed one more query, according to a capture.
    pub fn doubt_until(&mut self, by: Duration) {
        self.missed.doubt_until(by);
    }

    /// Time of the latest event.
    #[cfg(test)]
    #[must_use]
    pub fn latest(&self) -> Duration {
        self.latest
    }

    /// Until when the probes may have missed a query, if they may.
    #[must_use]
    pub fn doubted_until(&self) -> Option<Duration> {
        self.missed.until()
    }

    /// True if a path is stale: whether the scheduler uses it again is only seen by looking.
    #[must_use]
    pub fn has_stale_paths(&self) -> bool {
        self.paths.has_stale()
    }

    /// True if an event waits for the clock.
    #[must_use]
    pub fn waits(&self) -> bool {
        !(self.arriving.is_empty() && self.waiting.is_empty()) || self.paths.waits()
    }

    /// The input ends early: reports what waits; open verdicts stay open.
    pub fn cut_off(&mut self, facts: &Facts, ready: &mut Vec<Finding>) {
        self.settle(Duration::MAX, facts, ready);
        self.waited_until(Duration::MAX, facts, ready);
    }

    /// The input is complete. `untraced` queries were not traced; whether they concern live
    /// connections is unknown.
    pub fn finish(&mut self, untraced: u64, facts: &Facts, ready: &mut Vec<Finding>) {
        self.cut_off(facts, ready);
        for mut gone in self.connections.drain() {
            gone.1.doubt = (untraced > 0).then_some(doubt::PERHAPS_UNTRACED);
            self.close(gone, ClosedBy::Exit, self.latest, facts, ready);
        }
    }

    /// Number of events of paths that the filter left out.
    #[must_use]
    pub fn paths_filtered(&self) -> u64 {
        self.paths_filtered
    }

    /// Number of other events that the filter left out.
    #[must_use]
    pub fn filtered(&self) -> u64 {
        self.filtered
    }

    /// Number of events that only report the owner of an earlier one, or the end of a connection.
    #[must_use]
    pub fn acceptances(&self) -> u64 {
        self.acceptances
    }

    /// Number of connections that got their verdict before their end, because the table was full.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.connections.evicted() + self.paths.evicted()
    }

    /// True if a process that the filter admits has queried or held this connection.
    pub fn is_wanted(&mut self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|state| state.admitted) || self.paths.is_wanted(id)
    }

    /// Number of tracked connections.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.connections.len()
    }

    /// Drops the accounts of namespaces that have ended.
    pub fn forget_gone(&mut self, counted: &[Counted], read_at: Duration) {
        self.fallback_ledger.forget_gone(counted, read_at);
        self.path_counts.forget_gone(counted, read_at);
    }

    /// All traced fallbacks, admitted by the filter or not.
    #[must_use]
    pub fn fallback_ledger(&self) -> &FallbackLedger {
        &self.fallback_ledger
    }

    /// All traced events of paths that the kernel counts, admitted by the filter or not.
    #[must_use]
    pub fn path_counts(&self) -> &PathCounts {
        &self.path_counts
    }

    /// All events until this time have arrived: processes them in order.
    fn settle(&mut self, until: Duration, facts: &Facts, ready: &mut Vec<Finding>) {
        while let Some(event) = self.arriving.pop_until(until) {
            self.happened(event, facts, ready);
        }
    }

    /// Processes one event, in the order of time.
    fn happened(&mut self, event: Event, facts: &Facts, ready: &mut Vec<Finding>) {
        self.waited_until(event.at(), facts, ready);
        match event {
            Event::Query(event) => self.asked(event, facts, ready),
            Event::Connection(event) => self.connection(event, facts, ready),
            Event::Change(event) => self.changed(&event, facts, ready),
            Event::Refusal(event) => ready.push(Finding::Refusal(event)),
            Event::Path(event) => self.path(event, facts, ready),
        }
    }

    fn asked(&mut self, mut event: QueryEvent, facts: &Facts, ready: &mut Vec<Finding>) {
        let query = &event.query;
        let Some(id) = query.id else {
            event.judgement = verdict::of_answer(query, None, facts);
            ready.push(Finding::Query(event));
            return;
        };
        let (state, before, oldest) = self.connections.touch(id, &query.socket);
        let ended = is_of_another_connection(query, state).then(|| state.starts_anew());
        state.seen(&query.socket);
        // An unconnected socket still carries the time of its previous connection.
        if query.socket.state != TcpState::CLOSE {
            state.connected(query.connected_at);
        }
        state.connecting &= is_unconnected(query.socket.state);
        event.judgement = verdict::of_answer(query, Some(state), facts);
        state.queries += 1;
        state.admitted = true;
        state.asked_by(&query.process);
        // Before a fallback, a query through an API that does not see fallbacks does not replace a
        // better answer.
        let is_news = query.api.sees_fallbacks() || !state.knows() || state.fallen.is_some();
        if let Some(judgement) = event.judgement.as_ref().filter(|_| is_news) {
            state.judged = Some(judgement.verdict);
            state.asked = Some(LastAsked::of(query));
        }
        let at = query.answered_at();
        event.query.id = Some(state.id(id));
        self.close_both(before, oldest, at, facts, ready);
        if let Some(mut ended) = ended {
            ended.doubt = event.query.after_untraced.then_some(doubt::UNTRACED);
            self.close((id, ended), ClosedBy::Death, at, facts, ready);
        }
        ready.push(Finding::Query(event));
    }

    fn connection(
        &mut self,
        mut event: Box<ConnectionEvent>,
        facts: &Facts,
        ready: &mut Vec<Finding>,
    ) {
        self.note(&event, facts, ready);
        self.blame(&mut event);
        match event.connection.kind {
            ConnectionKind::Fallback | ConnectionKind::Plain | ConnectionKind::FallbackDenied
                if event.connection.unaccepted =>
            {
                if self.waiting.len() >= self.limits.waiting {
                    self.release_oldest(ready);
                }
                let of = self.waiting_of.entry(event.connection.id).or_default();
                of.push_back(self.waited);
                self.waiting.insert(self.waited, event);
                self.waited += 1;
            }
            ConnectionKind::Fallback
            | ConnectionKind::Plain
            | ConnectionKind::FallbackDenied
            | ConnectionKind::Existing
            | ConnectionKind::Blackhole => self.release(event, ready),
        }
    }

    fn changed(&mut self, event: &ChangeEvent, facts: &Facts, ready: &mut Vec<Finding>) {
        self.acceptances += 1;
        let change = &event.change;
        self.paths.changed(change, &event.place);
        match change.kind {
            ChangeKind::Accepted => self.accepted(event, ready),
            ChangeKind::Closed => {
                self.release_waiting(change.id, ready);
                let gone = self.connections.remove(change.id);
                let outcome = outcome(change, gone.as_ref().map(|(_id, state)| state));
                let queries = gone.as_ref().map_or(0, |(_id, state)| state.queries);
                if let Some(mut gone) = gone {
                    // The BPF side records every use; of a process that only sends or receives,
                    // this is the first report.
                    gone.1.was_used_by(event);
                    gone.1.doubt = change.query_untraced.then_some(doubt::UNTRACED);
                    gone.1.connecting = change.connecting;
                    self.close(gone, ClosedBy::Death, change.at, facts, ready);
                }
                self.paths.closed(change, outcome, queries);
            }
        }
    }

    /// Records what matters for later answers.
    fn note(&mut self, event: &ConnectionEvent, facts: &Facts, ready: &mut Vec<Finding>) {
        let connection = &event.connection;
        let is_fallback = match connection.kind {
            ConnectionKind::Fallback => true,
            ConnectionKind::Existing => false,
            ConnectionKind::FallbackDenied | ConnectionKind::Plain | ConnectionKind::Blackhole => {
                return;
            }
        };
        let (state, before, oldest) = self.connections.touch(connection.id, &connection.socket);
        let mut ended = None;
        if is_fallback {
            let connected_at = connection
                .since_connect
                .map(|since| connection.at.saturating_sub(since));
            // No query since the socket connected again, so no answer has shown that yet.
            ended = state
                .has_connected_again(connected_at)
                .then(|| state.starts_anew());
            state.connected(connected_at);
            state.fallen = Some(Fallen {
                at: connection.at,
                cause: connection.cause.clone(),
                is_predicted: connection.known != CauseCertainty::Reported,
            });
        }
        state.seen(&connection.socket);
        state.existing |= connection.existing;
        state.connecting = connection.connecting;
        self.close_both(before, oldest, connection.at, facts, ready);
        if let Some(mut ended) = ended {
            ended.doubt = connection.query_untraced.then_some(doubt::UNTRACED);
            let id = connection.id;
            self.close((id, ended), ClosedBy::Death, connection.at, facts, ready);
        }
    }

    /// Records which connection disabled MPTCP, and attaches it to the fallbacks that this causes.
    fn blame(&mut self, event: &mut ConnectionEvent) {
        let connection = &event.connection;
        let netns = connection.socket.netns;
        if connection.kind == ConnectionKind::Blackhole {
            let is_new = !self.switched_off.contains_key(&netns);
            if is_new && self.switched_off.len() >= SWITCHED_OFF_MAX {
                let oldest = self.switched_off.iter().min_by_key(|(_, it)| it.at);
                if let Some(oldest) = oldest.map(|(netns, _)| *netns) {
                    self.switched_off.remove(&oldest);
                }
            }
            let of_socket = connection.id;
            let state = self.connections.get(of_socket);
            let switched_off = SwitchedOff {
                at: connection.at,
                off_for: connection.off_for,
                id: state.map_or(of_socket, |state| state.id(of_socket)),
                remote: connection.socket.remote,
                owner: connection.owner.clone(),
            };
            self.switched_off.insert(netns, switched_off);
        } else if connection.cause.as_deref() == Some(SWITCHED_OFF) {
            event.switched_off = self.switched_off.get(&netns).cloned();
        }
    }

    fn close_both(
        &mut self,
        before: Option<Removed>,
        oldest: Option<Removed>,
        at: Duration,
        facts: &Facts,
        ready: &mut Vec<Finding>,
    ) {
        // Another socket is at its address: it ended unobserved. A record of an earlier query may
        // be lost too.
        if let Some(mut gone) = before {
            gone.1.doubt = Some(doubt::UNSEEN_END);
            self.release_waiting(gone.0, ready);
            self.close(gone, ClosedBy::Death, at, facts, ready);
        }
        if let Some(mut gone) = oldest {
            gone.1.doubt = Some(doubt::EVICTED);
            self.release_waiting(gone.0, ready);
            self.close(gone, ClosedBy::Eviction, at, facts, ready);
        }
    }

    /// Emits the closing verdict of a connection.
    fn close(
        &mut self,
        (id, state): Removed,
        closed_by: ClosedBy,
        at: Duration,
        facts: &Facts,
        ready: &mut Vec<Finding>,
    ) {
        let is_connection = !state.connecting;
        let Some(judgement) = verdict::of_life(&state).filter(|_| state.admitted && is_connection)
        else {
            return;
        };
        let born_at = id.born_at;
        let may_be_missed = || {
            self.missed
                .is_in_doubt(born_at)
                .then_some(doubt::MAY_BE_MISSED)
        };
        let doubt = state.doubt.or_else(may_be_missed);
        ready.push(Finding::Verdict(Box::new(VerdictEvent {
            judgement,
            id: state.id(id),
            at,
            time: UNIX_EPOCH + facts.boot_epoch + at,
            closed_by,
            owner: state.owner,
            place: state.place,
            socket: state.socket,
            asked: state.asked,
            queries: state.queries,
            doubt: doubt.map(Into::into),
        })));
    }

    /// A connection has its own owner now: events that waited for that are reported with it.
    fn accepted(&mut self, event: &ChangeEvent, ready: &mut Vec<Finding>) {
        let acceptance = &event.change;
        for mut waiting in self.take_waiting(acceptance.id) {
            waiting.connection.owner = acceptance.owner.clone();
            waiting.connection.socket.inode = acceptance.socket.inode;
            waiting.connection.admitted = acceptance.admitted;
            waiting.connection.unaccepted = false;
            waiting.place = event.place.clone();
            self.release(waiting, ready);
        }
        if let Some(state) = self.connections.get(acceptance.id) {
            state.was_used_by(event);
            state.connecting = acceptance.connecting;
        }
    }

    /// The connection will not be accepted any more.
    fn release_waiting(&mut self, id: ConnectionId, ready: &mut Vec<Finding>) {
        for event in self.take_waiting(id) {
            self.release(event, ready);
        }
    }

    #[expect(
        clippy::vec_box,
        reason = "they go from one queue into another as they are"
    )]
    fn take_waiting(&mut self, id: ConnectionId) -> Vec<Box<ConnectionEvent>> {
        let numbers = self.waiting_of.remove(&id).unwrap_or_default();
        numbers
            .iter()
            .filter_map(|number| self.waiting.remove(number))
            .collect()
    }

    fn waited_until(&mut self, now: Duration, facts: &Facts, ready: &mut Vec<Finding>) {
        let ended = self.paths.waited_until(now).into_iter();
        ready.extend(ended.filter_map(|it| paths::finding(it, facts)));
        while let Some((_, oldest)) = self.waiting.first_key_value() {
            if oldest.connection.at.saturating_add(ACCEPT_WAIT) > now {
                break;
            }
            self.release_oldest(ready);
        }
    }

    fn release_oldest(&mut self, ready: &mut Vec<Finding>) {
        let Some((_, oldest)) = self.waiting.pop_first() else {
            return;
        };
        if let Entry::Occupied(mut numbers) = self.waiting_of.entry(oldest.connection.id) {
            numbers.get_mut().pop_front();
            if numbers.get().is_empty() {
                numbers.remove();
            }
        }
        self.release(oldest, ready);
    }

    fn release(&mut self, mut event: Box<ConnectionEvent>, ready: &mut Vec<Finding>) {
        if let Some(state) = self.connections.get(event.connection.id) {
            state.belongs(&event);
            event.connection.id = state.id(event.connection.id);
        }
        if event.connection.admitted {
            ready.push(Finding::Connection(event));
        } else {
            self.filtered += 1;
        }
    }
}

#[cfg(test)]
mod doubt_tests;
#[cfg(test)]
mod life_tests;
#[cfg(test)]
mod netns_counts_tests;
#[cfg(test)]
mod path_counts_tests;
#[cfg(test)]
mod paths_tests;
#[cfg(test)]
mod possible_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verdict_tests;
