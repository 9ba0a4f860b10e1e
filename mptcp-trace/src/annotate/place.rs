//! Which packet gets which note.
//!
//! Ports are used again, so addresses alone do not identify a connection. In the packets, a SYN with
//! another sequence number begins a new *life* of a pair of addresses. A traced connection belongs to
//! the life that began when it did: a client's SYN follows its `connect()`, a server's child socket
//! follows the SYN. Where only one end of a life is recorded, the times decide.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use super::{
    Counts, Plan,
    gather::{Gathered, Note, Traced},
    segment::{Kind, Segment},
    words::{self, Gap},
};
use crate::model::{Side, Stage};

/// At most this many comments on one packet; the last one counts the others.
pub const COMMENTS_MAX: usize = 32;
/// At most this many lives of addresses are followed.
pub const LIVES_MAX: u64 = 1_000_000;
/// Clocks may differ by this: one is read a little after the other, and times are rounded.
const CLOCKS: Duration = Duration::from_millis(10);
/// A SYN follows the connect within this time: the address of the next hop may have to be resolved.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// A listener's child follows the first SYN within this time: packets of the handshake may be lost,
/// and the kernel repeats them for that long.
const HANDSHAKE_MAX: Duration = Duration::from_secs(130);

/// A connection is compared with this many lives before and after its beginning.
const NEIGHBOURS: usize = 4;

/// A packet: the number of its block, and its time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    time: Duration,
    block: u64,
}

/// One connection in the packets.
#[derive(Clone, Debug)]
struct Life {
    first: Place,
    last: Place,
    /// The client, if the handshake shows it.
    opened_by: Option<SocketAddr>,
    /// The SYNs of both ends: two, if both opened at once.
    syns: Vec<(SocketAddr, u32)>,
    has_only_syns: bool,
    /// The last SYN, the first SYN/ACK, and the first packet of the client after them.
    syn: Option<Place>,
    syn_ack: Option<Place>,
    third: Option<Place>,
}

impl Life {
    fn new(at: Place, segment: &Segment) -> Self {
        let opened_by = match segment.kind {
            Kind::Syn(_) => Some(segment.source),
            Kind::SynAck => Some(segment.destination),
            Kind::Other => None,
        };
        let mut life = Self {
            first: at,
            last: at,
            opened_by,
            syns: Vec::new(),
            has_only_syns: true,
            syn: None,
            syn_ack: None,
            third: None,
        };
        life.add(at, segment);
        life
    }

    /// True if the segment can be part of it, and does not begin another one.
    fn has(&self, segment: &Segment) -> bool {
        let Kind::Syn(sequence) = segment.kind else {
            return true;
        };
        match self.syn_of(segment.source) {
            Some(known) => known == sequence,
            None => self.has_only_syns,
        }
    }

    fn syn_of(&self, end: SocketAddr) -> Option<u32> {
        let syn = self.syns.iter().find(|(source, _)| *source == end);
        syn.map(|(_, sequence)| *sequence)
    }

    fn add(&mut self, at: Place, segment: &Segment) {
        self.last = self.last.max(at);
        match segment.kind {
            Kind::Syn(sequence) => {
                self.syn = Some(at);
                if self.syn_of(segment.source).is_none() {
                    self.syns.push((segment.source, sequence));
                }
            }
            Kind::SynAck => {
                self.has_only_syns = false;
                self.syn_ack.get_or_insert(at);
            }
            Kind::Other => {
                self.has_only_syns = false;
                if self.opened_by == Some(segment.source) {
                    self.third.get_or_insert(at);
                }
            }
        }
    }

    /// The packet of a stage of the handshake.
    fn of_stage(&self, stage: Stage) -> Option<Place> {
        match stage {
            Stage::Syn => self.syn,
            Stage::SynAck => self.syn_ack,
            Stage::ThirdAck => self.third,
            Stage::Data => None,
        }
    }

    /// How well a traced connection fits: the time between the beginnings of both. `None` if it is
    /// another connection.
    fn distance(&self, traced: &Traced) -> Option<Duration> {
        let first = self.first.time;
        let apart = |time: Duration| first.abs_diff(time);
        // The connection must not have ended before.
        if traced.end.is_some_and(|end| end + CLOCKS < first) {
            return None;
        }
        let Some(opened_by) = self.opened_by else {
            // Its beginning was not recorded.
            let begin = traced.begin.unwrap_or(Duration::ZERO);
            return (begin <= first + CLOCKS).then(|| apart(traced.begin.unwrap_or(traced.first)));
        };
        let is_client = opened_by == traced.local;
        let contradicts = match traced.side {
            // Both are clients if both opened at once.
            Some(Side::Active) => !is_client && self.syns.len() < 2,
            Some(Side::Passive) => is_client,
            None => false,
        };
        if contradicts {
            return None;
        }
        match traced.begin {
            Some(begin) if is_client || self.syns.len() > 1 => {
                (apart(begin) <= CONNECT_MAX).then(|| apart(begin))
            }
            // Only clocks make a child precede its SYN: any earlier SYN fits better.
            Some(begin) if begin < first => {
                (apart(begin) <= CLOCKS).then(|| HANDSHAKE_MAX + apart(begin))
            }
            Some(begin) => (apart(begin) <= HANDSHAKE_MAX).then(|| apart(begin)),
            None => (first <= traced.first + CLOCKS).then(|| apart(traced.first)),
        }
    }
}

/// A note that waits for its packet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    at: Duration,
    connection: usize,
    note: usize,
}

/// All that is known about a pair of addresses.
#[derive(Debug, Default)]
struct Flow {
    connections: Vec<usize>,
    /// In order of time.
    notes: Vec<Waiting>,
    /// For each of the first notes: the last packet at or before it, and the life of that.
    before: Vec<Option<(usize, Place)>>,
    latest: Option<(usize, Place)>,
    lives: Vec<Life>,
}

impl Flow {
    fn packet(&mut self, at: Place, segment: &Segment) {
        let life = match self.lives.last_mut() {
            Some(life) if life.has(segment) => {
                life.add(at, segment);
                self.lives.len() - 1
            }
            Some(_) | None => {
                self.lives.push(Life::new(at, segment));
                self.lives.len() - 1
            }
        };
        // These precede the packet.
        let passed = self.notes.iter().skip(self.before.len());
        let passed = passed.take_while(|note| note.at < at.time).count();
        self.before.extend(std::iter::repeat_n(self.latest, passed));
        // Packets of several processors are not in order of time.
        let is_latest = self.latest.is_none_or(|(_, latest)| latest.time <= at.time);
        if is_latest {
            self.latest = Some((life, at));
        }
    }

    /// Which life each connection is: the closest pairs first. One end has one connection at a
    /// time in one network namespace.
    fn assign(&self, traced: &[Traced]) -> BTreeMap<usize, usize> {
        let mut pairs = Vec::new();
        for connection in &self.connections {
            let Some(one) = traced.get(*connection) else {
                continue;
            };
            let begin = one.begin.unwrap_or(one.first);
            let middle = self.lives.partition_point(|life| life.first.time <= begin);
            for life in middle.saturating_sub(NEIGHBOURS)..middle + NEIGHBOURS {
                let distance = self.lives.get(life).and_then(|it| it.distance(one));
                pairs.extend(distance.map(|distance| (distance, *connection, life)));
            }
        }
        pairs.sort_unstable();
        let mut taken = HashSet::new();
        let mut assigned = BTreeMap::new();
        for (_, connection, life) in pairs {
            let Some(one) = traced.get(connection) else {
                continue;
            };
            let seat = (life, one.netns, one.local);
            if !assigned.contains_key(&connection) && taken.insert(seat) {
                assigned.insert(connection, life);
            }
        }
        assigned
    }

    /// The packet for a note of a connection that is this life, and how far apart they are: the
    /// packet of the stage that the note names, else the last one before it.
    fn packet_for(&self, number: usize, note: &Note, life: usize) -> Option<(Place, Gap)> {
        let span = self.lives.get(life)?;
        // Where no function is traced, a fallback is noticed when the system call returns.
        let of_stage = note.stage.and_then(|stage| span.of_stage(stage));
        let of_stage = of_stage.filter(|place| place.time <= note.at + CLOCKS);
        let before = self.before.get(number).copied().unwrap_or(self.latest);
        let place = match (of_stage, before) {
            (Some(place), _) => place,
            (None, Some((of, place))) if of == life => place,
            (None, Some((of, _))) if of > life => span.last,
            (None, _) => span.first,
        };
        let gap = match note.at.checked_sub(place.time) {
            Some(after) => Gap::After(after),
            None => Gap::Before(place.time.saturating_sub(note.at)),
        };
        Some((place, gap))
    }
}

/// The first pass over the packets.
pub(super) struct Placing {
    traced: Vec<Traced>,
    flows: HashMap<[SocketAddr; 2], Flow>,
    lives: u64,
    counts: Counts,
}

/// Both ends of a connection, in an order that does not depend on the direction.
fn pair(one: SocketAddr, other: SocketAddr) -> [SocketAddr; 2] {
    [one.min(other), one.max(other)]
}

impl Placing {
    pub(super) fn new(mut gathered: Gathered) -> Self {
        let mut counts = Counts {
            addressless: gathered.addressless,
            beyond: gathered.beyond,
            ..Counts::default()
        };
        let traced = gathered.connections();
        let mut flows: HashMap<_, Flow> = HashMap::new();
        for (connection, one) in traced.iter().enumerate() {
            if !one.has_addresses() {
                counts.addressless += u64::try_from(one.notes.len()).unwrap_or_default();
                continue;
            }
            counts.connections += u64::from(!one.notes.is_empty());
            let flow = flows.entry(pair(one.local, one.remote)).or_default();
            flow.connections.push(connection);
            let notes = one.notes.iter().enumerate();
            flow.notes.extend(notes.map(|(note, it)| Waiting {
                at: it.at,
                connection,
                note,
            }));
        }
        for flow in flows.values_mut() {
            flow.notes.sort_by_key(|note| note.at);
        }
        Self {
            traced,
            flows,
            lives: 0,
            counts,
        }
    }

    /// Takes a packet; without a time it is only counted.
    pub(super) fn packet(&mut self, block: u64, time: Option<Duration>, segment: Option<&Segment>) {
        self.counts.packets += 1;
        let Some(time) = time else {
            self.counts.bare += 1;
            return;
        };
        let Some(segment) = segment else {
            return;
        };
        let ends = pair(segment.source, segment.destination);
        let Some(flow) = self.flows.get_mut(&ends) else {
            return;
        };
        let before = flow.lives.len();
        let begins = flow.lives.last().is_none_or(|life| !life.has(segment));
        if begins && self.lives >= LIVES_MAX {
            self.counts.unfollowed += 1;
            return;
        }
        flow.packet(Place { time, block }, segment);
        self.lives += u64::from(flow.lives.len() > before);
        self.counts.of_findings += 1;
    }

    /// Decides, after all packets.
    pub(super) fn finish(mut self) -> Plan {
        let mut plan = Decided::default();
        for flow in self.flows.values() {
            plan.decide(flow, &self.traced, &mut self.counts);
        }
        plan.left.sort();
        let comments = plan.comments.into_iter();
        Plan {
            comments: comments.map(|(at, all)| (at, bounded(all))).collect(),
            left: plan.left,
            counts: self.counts,
            ..Plan::default()
        }
    }
}

/// What was decided so far.
#[derive(Default)]
struct Decided {
    /// Comments with their times, by the packet's block.
    comments: HashMap<u64, Vec<(Duration, String)>>,
    left: Vec<String>,
}

impl Decided {
    fn decide(&mut self, flow: &Flow, traced: &[Traced], counts: &mut Counts) {
        let assigned = flow.assign(traced);
        let mut seats: HashMap<_, usize> = HashMap::new();
        for (connection, life) in &assigned {
            let seat = traced.get(*connection).map(|one| (*life, one.local));
            *seats.entry(seat).or_default() += 1;
        }
        let twins = |one: &Traced, life| seats.get(&Some((life, one.local))).copied().unwrap_or(1);
        for (connection, life) in &assigned {
            let (Some(one), Some(span)) = (traced.get(*connection), flow.lives.get(*life)) else {
                continue;
            };
            if !one.notes.is_empty() {
                counts.found += 1;
                let text = words::summary(one, twins(one, *life));
                self.put(span.first, Duration::ZERO, text);
            }
        }
        for (number, waiting) in flow.notes.iter().enumerate() {
            let one = traced.get(waiting.connection);
            let note = one.and_then(|one| one.notes.get(waiting.note));
            let (Some(one), Some(note)) = (one, note) else {
                continue;
            };
            let life = assigned.get(&waiting.connection).copied();
            let found = life.and_then(|life| flow.packet_for(number, note, life));
            let (Some(life), Some((place, gap))) = (life, found) else {
                counts.elsewhere += 1;
                let (local, remote) = (one.local, one.remote);
                self.left
                    .push(format!("{local} -> {remote}: {}", note.text));
                continue;
            };
            counts.placed += 1;
            let text = words::comment(one, twins(one, life), &note.text, &gap);
            self.put(place, waiting.at, text);
        }
    }

    fn put(&mut self, place: Place, at: Duration, text: String) {
        self.comments
            .entry(place.block)
            .or_default()
            .push((at, text));
    }
}

/// In order of time, and not too many.
fn bounded(mut all: Vec<(Duration, String)>) -> Vec<String> {
    all.sort();
    let mut texts: Vec<String> = all.into_iter().map(|(_, text)| text).collect();
    if texts.len() > COMMENTS_MAX {
        let rest = texts.len() - (COMMENTS_MAX - 1);
        texts.truncate(COMMENTS_MAX - 1);
        texts.push(words::more(rest));
    }
    texts
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
