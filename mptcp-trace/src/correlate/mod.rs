//! Event -> findings: puts events into the order in which they happened, waits for what is about to be known, sorts
//! out what nobody wants, concludes what answers are worth, and counts causes.
//!
//! Pure: time is what the events say, or what the caller says it is. A fallback of a connection that nobody
//! has accepted yet waits for its acceptance, since only then it is known whose it is.

mod books;
mod lives;
mod missed;
mod order;
mod verdict;

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    time::{Duration, UNIX_EPOCH},
};

pub use books::{FallbackLedger, growth, reconcile};

use self::{
    lives::{ConnectionState, ConnectionTable, Fallen, Removed},
    missed::Missed,
    order::Arriving,
};
use crate::model::{
    CauseCertainty, ChangeEvent, ChangeKind, ClosedBy, ConnectionEvent, ConnectionId,
    ConnectionKind, Counted, Event, Facts, Finding, LastAsked, MissedRuns, NetnsCounters, Protocol,
    Query, QueryEvent, SwitchedOff, TcpState, VerdictEvent,
};

/// How far records may be out of order: each CPU stamps its own before it asks for room in the ring. RuntimeNeeds ones count
/// as happening when they arrive.
pub const ORDER_WINDOW: Duration = Duration::from_millis(50);

/// How long a connection may wait to be accepted before it is told under the listener's name.
pub const ACCEPT_WAIT: Duration = Duration::from_secs(1);

/// How much later than that a clock outside of the records may end the wait: records may still be on
/// their way.
const CLOCK_SLACK: Duration = Duration::from_millis(300);

/// The cause of a fallback that happens because MPTCP is switched off for a while.
const SWITCHED_OFF: &str = "MPCapableSYNTXDisabled";

/// Of so many network namespaces it is remembered who had MPTCP switched off; beyond that the longest ago is forgotten.
const SWITCHED_OFF_MAX: usize = 1024;

/// How much is kept in memory at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Events that are put into order; beyond that the oldest goes on.
    pub arriving: usize,
    /// Events that wait for an acceptance; beyond that the oldest is told as it is.
    pub waiting: usize,
    /// Connections that are remembered; beyond that the one that was used least lately is judged and forgotten.
    pub connections: usize,
}

impl Limits {
    /// What a run has.
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

/// Orders, holds back, sorts out, judges, and counts.
#[derive(Debug)]
pub struct Correlator {
    limits: Limits,
    arriving: Arriving,
    /// The latest moment that an event tells of.
    latest: Duration,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Box<ConnectionEvent>>,
    /// Which of them are of a connection, in the same order.
    waiting_of: HashMap<ConnectionId, VecDeque<u64>>,
    /// How many have waited so far.
    waited: u64,
    lives: ConnectionTable,
    /// The last time that MPTCP was switched off, network namespace by network namespace.
    switched_off: BTreeMap<u32, SwitchedOff>,
    books: FallbackLedger,
    missed: Missed,
    filtered: u64,
    acceptances: u64,
}

impl Default for Correlator {
    fn default() -> Self {
        Self::new(Limits::STATED)
    }
}

impl Correlator {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            arriving: Arriving::default(),
            latest: Duration::ZERO,
            waiting: BTreeMap::new(),
            waiting_of: HashMap::new(),
            waited: 0,
            lives: ConnectionTable::new(limits.connections),
            switched_off: BTreeMap::new(),
            books: FallbackLedger::default(),
            missed: Missed::default(),
            filtered: 0,
            acceptances: 0,
        }
    }

    /// Takes one event; what is ready to be told is added to `ready`.
    pub fn take(&mut self, event: Event, facts: &Facts, ready: &mut Vec<Finding>) {
        if let Event::Connection(event) = &event {
            self.books.record(&event.connection, facts);
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

    /// The kernel half has read what the kernel counted in a namespace.
    pub fn counted(&mut self, counters: NetnsCounters) {
        self.books.counted(counters);
    }

    /// The clock says that it is `now`; what has waited long enough is added to `ready`.
    pub fn clock(&mut self, now: Duration, facts: &Facts, ready: &mut Vec<Finding>) {
        self.settle(now.saturating_sub(ORDER_WINDOW), facts, ready);
        self.waited_until(now.saturating_sub(CLOCK_SLACK), ready);
    }

    /// Until then the kernel has kept so many questions from the probes; false if none of them is new. About which connections is
    /// not known: what is concluded of those that lived then is in doubt.
    ///
    /// Has to be told before what happened until then is settled.
    pub fn missed(&mut self, by: Duration, runs: MissedRuns) -> bool {
        self.missed.read(by, runs)
    }

    /// Until then the kernel may have kept one more question from the probes, as a capture says.
    pub fn doubt_until(&mut self, by: Duration) {
        self.missed.doubt_until(by);
    }

    /// True if something waits for the clock.
    #[must_use]
    pub fn waits(&self) -> bool {
        !(self.arriving.is_empty() && self.waiting.is_empty())
    }

    /// Nothing more will be heard, although more may have happened: what waits is told, open verdicts stay open.
    pub fn cut_off(&mut self, facts: &Facts, ready: &mut Vec<Finding>) {
        self.settle(Duration::MAX, facts, ready);
        self.waited_until(Duration::MAX, ready);
    }

    /// Nothing more will come. `untold` questions were not traced; whether about those that live is not known.
    pub fn finish(&mut self, untold: u64, facts: &Facts, ready: &mut Vec<Finding>) {
        self.cut_off(facts, ready);
        for mut gone in self.lives.drain() {
            gone.1.doubt = (untold > 0).then_some(PERHAPS_UNTOLD);
            self.close(gone, ClosedBy::Exit, self.latest, facts, ready);
        }
    }

    /// Events that the filter does not want.
    #[must_use]
    pub fn filtered(&self) -> u64 {
        self.filtered
    }

    /// Events that only tell whose an earlier one is, or that a connection is no more.
    #[must_use]
    pub fn acceptances(&self) -> u64 {
        self.acceptances
    }

    /// Connections that were judged before their end, because too many were remembered.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.lives.evicted()
    }

    /// True if somebody whom the filter wants has asked about this connection, or held it.
    pub fn is_wanted(&mut self, id: ConnectionId) -> bool {
        self.lives.get(id).is_some_and(|life| life.admitted)
    }

    /// Connections that are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.lives.len()
    }

    /// Namespaces that are gone are kept account of no more.
    pub fn forget_gone(&mut self, counted: &[Counted], read_at: Duration) {
        self.books.forget_gone(counted, read_at);
    }

    /// What was traced, wanted or not.
    #[must_use]
    pub fn books(&self) -> &FallbackLedger {
        &self.books
    }

    /// Everything that happened until then is heard of: one after the other.
    fn settle(&mut self, until: Duration, facts: &Facts, ready: &mut Vec<Finding>) {
        while let Some(event) = self.arriving.pop_until(until) {
            self.happened(event, facts, ready);
        }
    }

    /// One event, in the order of time.
    fn happened(&mut self, event: Event, facts: &Facts, ready: &mut Vec<Finding>) {
        self.waited_until(event.at(), ready);
        match event {
            Event::Query(event) => self.asked(event, facts, ready),
            Event::Connection(event) => self.connection(event, facts, ready),
            Event::Change(event) => self.changed(&event, facts, ready),
            Event::Refusal(event) => ready.push(Finding::Refusal(event)),
        }
    }

    fn asked(&mut self, mut event: QueryEvent, facts: &Facts, ready: &mut Vec<Finding>) {
        let query = &event.query;
        let Some(id) = query.id else {
            event.judgement = verdict::of_answer(query, None, facts);
            ready.push(Finding::Query(event));
            return;
        };
        let (life, before, oldest) = self.lives.touch(id, &query.socket);
        let ended = is_of_another_connection(query, life).then(|| life.starts_anew());
        life.seen(&query.socket);
        // A socket that is not connected still carries the time of the connection that it left.
        if query.socket.state != TcpState::CLOSE {
            life.connected(query.connected_at);
        }
        life.connecting &= is_unconnected(query.socket.state);
        event.judgement = verdict::of_answer(query, Some(life), facts);
        life.questions += 1;
        life.admitted = true;
        life.asked_by(&query.process);
        // Who asks by a way that sees no fallback, before there is one, does not unlearn what a better one told.
        let is_news = query.api.sees_fallbacks() || !life.knows() || life.fallen.is_some();
        if let Some(judgement) = event.judgement.as_ref().filter(|_| is_news) {
            life.told = Some(judgement.verdict);
            life.asked = Some(LastAsked::of(query));
        }
        let at = query.answered_at();
        event.query.id = Some(life.id(id));
        self.close_both(before, oldest, at, facts, ready);
        if let Some(mut ended) = ended {
            ended.doubt = event.query.after_untold.then_some(UNTOLD);
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
                    self.tell_oldest(ready);
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
            | ConnectionKind::Blackhole => self.tell(event, ready),
        }
    }

    fn changed(&mut self, event: &ChangeEvent, facts: &Facts, ready: &mut Vec<Finding>) {
        self.acceptances += 1;
        let change = &event.change;
        match change.kind {
            ChangeKind::Accepted => self.accepted(event, ready),
            ChangeKind::Closed => {
                self.tell_waiting(change.id, ready);
                if let Some(mut gone) = self.lives.remove(change.id) {
                    // The kernel half notes every use; of those that only send or receive, this is the first to say so.
                    gone.1.was_used_by(event);
                    gone.1.doubt = change.untold.then_some(UNTOLD);
                    gone.1.connecting = change.connecting;
                    self.close(gone, ClosedBy::Death, change.at, facts, ready);
                }
            }
        }
    }

    /// Remembers what matters for later answers.
    fn note(&mut self, event: &ConnectionEvent, facts: &Facts, ready: &mut Vec<Finding>) {
        let connection = &event.connection;
        let is_fallback = match connection.kind {
            ConnectionKind::Fallback => true,
            ConnectionKind::Existing => false,
            ConnectionKind::FallbackDenied | ConnectionKind::Plain | ConnectionKind::Blackhole => {
                return;
            }
        };
        let (life, before, oldest) = self.lives.touch(connection.id, &connection.socket);
        let mut ended = None;
        if is_fallback {
            let connected_at = connection
                .since_connect
                .map(|since| connection.at.saturating_sub(since));
            // Nobody asked since the socket connected again: no answer has said so yet.
            ended = life
                .has_connected_again(connected_at)
                .then(|| life.starts_anew());
            life.connected(connected_at);
            life.fallen = Some(Fallen {
                at: connection.at,
                cause: connection.cause.clone(),
                is_foretold: connection.known != CauseCertainty::Reported,
            });
        }
        life.seen(&connection.socket);
        life.existing |= connection.existing;
        life.connecting = connection.connecting;
        self.close_both(before, oldest, connection.at, facts, ready);
        if let Some(mut ended) = ended {
            ended.doubt = connection.untold.then_some(UNTOLD);
            let id = connection.id;
            self.close((id, ended), ClosedBy::Death, connection.at, facts, ready);
        }
    }

    /// Remembers who has MPTCP switched off, and tells whom that hits.
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
            let life = self.lives.get(of_socket);
            let switched_off = SwitchedOff {
                at: connection.at,
                off_for: connection.off_for,
                id: life.map_or(of_socket, |life| life.id(of_socket)),
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
        // Another socket lives at its address: it is no more, although nobody saw its end. Whether it was asked before that, a record
        // would have said that is lost.
        if let Some(mut gone) = before {
            gone.1.doubt = Some(UNSEEN_END);
            self.tell_waiting(gone.0, ready);
            self.close(gone, ClosedBy::Death, at, facts, ready);
        }
        if let Some(mut gone) = oldest {
            gone.1.doubt = Some(EVICTED);
            self.tell_waiting(gone.0, ready);
            self.close(gone, ClosedBy::Eviction, at, facts, ready);
        }
    }

    /// What is left to say of a connection.
    fn close(
        &mut self,
        (id, life): Removed,
        closed_by: ClosedBy,
        at: Duration,
        facts: &Facts,
        ready: &mut Vec<Finding>,
    ) {
        let is_connection = !life.connecting;
        let Some(judgement) = verdict::of_life(&life).filter(|_| life.admitted && is_connection)
        else {
            return;
        };
        let born_at = id.born_at;
        let may_be_missed = || self.missed.is_in_doubt(born_at).then_some(MAY_BE_MISSED);
        let doubt = life.doubt.or_else(may_be_missed);
        ready.push(Finding::Verdict(Box::new(VerdictEvent {
            judgement,
            id: life.id(id),
            at,
            time: UNIX_EPOCH + facts.boot_epoch + at,
            closed_by,
            owner: life.owner,
            place: life.place,
            socket: life.socket,
            asked: life.asked,
            questions: life.questions,
            doubt: doubt.map(Into::into),
        })));
    }

    /// It has an owner of its own now: whatever waits for that is told under that name.
    fn accepted(&mut self, event: &ChangeEvent, ready: &mut Vec<Finding>) {
        let acceptance = &event.change;
        for mut waiting in self.take_waiting(acceptance.id) {
            waiting.connection.owner = acceptance.owner.clone();
            waiting.connection.socket.inode = acceptance.socket.inode;
            waiting.connection.admitted = acceptance.admitted;
            waiting.connection.unaccepted = false;
            waiting.place = event.place.clone();
            self.tell(waiting, ready);
        }
        if let Some(life) = self.lives.get(acceptance.id) {
            life.was_used_by(event);
            life.connecting = acceptance.connecting;
        }
    }

    /// Nobody will accept it any more.
    fn tell_waiting(&mut self, id: ConnectionId, ready: &mut Vec<Finding>) {
        for event in self.take_waiting(id) {
            self.tell(event, ready);
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

    fn waited_until(&mut self, now: Duration, ready: &mut Vec<Finding>) {
        while let Some((_, oldest)) = self.waiting.first_key_value() {
            if oldest.connection.at.saturating_add(ACCEPT_WAIT) > now {
                break;
            }
            self.tell_oldest(ready);
        }
    }

    fn tell_oldest(&mut self, ready: &mut Vec<Finding>) {
        let Some((_, oldest)) = self.waiting.pop_first() else {
            return;
        };
        if let Entry::Occupied(mut numbers) = self.waiting_of.entry(oldest.connection.id) {
            numbers.get_mut().pop_front();
            if numbers.get().is_empty() {
                numbers.remove();
            }
        }
        self.tell(oldest, ready);
    }

    fn tell(&mut self, mut event: Box<ConnectionEvent>, ready: &mut Vec<Finding>) {
        if let Some(life) = self.lives.get(event.connection.id) {
            life.belongs(&event);
            event.connection.id = life.id(event.connection.id);
        }
        if event.connection.admitted {
            ready.push(Finding::Connection(event));
        } else {
            self.filtered += 1;
        }
    }
}

/// Why a verdict may be wrong where the kernel did not run a probe.
const MAY_BE_MISSED: &str =
    "the kernel skipped probe runs since, perhaps for queries about this connection";

/// The same of a connection of which a question is missing for sure.
const UNTOLD: &str = "a later query about it was not traced (capped, lost, or through io_uring)";

/// The same where questions are missing, and nobody knows about which connections.
const PERHAPS_UNTOLD: &str =
    "queries were not traced (capped or lost), perhaps about this connection";

/// The doubt of a connection whose end was not recorded.
const UNSEEN_END: &str = "its end was lost, and queries about it may be lost too";

/// The same of a connection that lives on, for all we know.
const EVICTED: &str = "later queries may be unknown: it was evicted (--max-connections)";

/// True if a question is about another connection than the one that is remembered of its socket.
fn is_of_another_connection(query: &Query, life: &ConnectionState) -> bool {
    // What became TCP when it was accepted stays so.
    if query.protocol() == Protocol::Tcp {
        return false;
    }
    let is_mptcp = query.fell_back == Some(false);
    match &life.fallen {
        // A socket that is not connected has left its old connection behind.
        Some(_) if is_unconnected(query.socket.state) && is_mptcp => true,
        // Where it is not known when it connected, an answer is believed.
        Some(_) if query.connected_at.is_none() => is_mptcp,
        None if query.socket.state == TcpState::CLOSE => life.was_connected(),
        Some(_) | None => life.has_connected_again(query.connected_at),
    }
}

fn is_unconnected(state: TcpState) -> bool {
    matches!(state, TcpState::CLOSE | TcpState::SYN_SENT)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod verdict_tests;
