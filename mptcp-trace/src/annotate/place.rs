//! Which packet gets which note.
//!
//! Ports are used again, so addresses alone do not identify a connection. In the packets, a SYN with
//! another sequence number begins a new *life* of a pair of addresses. A traced connection belongs to
//! the life that began when it did: a client's SYN follows its `connect()`, a server's child socket
//! follows the SYN. Where only one end of a life is recorded, the times decide.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use super::{
    Counts, Plan,
    comments::{self, Gap},
    gather::{Gathered, Note, Traced},
    segment::{Kind, Segment},
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
#[derive(Clone, Copy)]
struct Place {
    time: Duration,
    block: u64,
}

/// What is sorted, by its first number. There is one such type, so that there is one copy of the
/// sorting code.
type Ranked = (u64, usize);

/// A time, or a difference of times, as a number.
fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn sort(ranked: &mut [Ranked]) {
    ranked.sort_unstable();
}

/// One connection in the packets.
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
    /// The traced ends that it is, each with its network namespace: one end has one connection at
    /// a time in one network namespace.
    seats: Vec<(u32, SocketAddr)>,
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
            seats: Vec::new(),
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
        if self.last.time <= at.time {
            self.last = at;
        }
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

    /// Number of traced connections with the address of this one that it is: one per network
    /// namespace.
    fn twins(&self, traced: &Traced) -> usize {
        let twins = self
            .seats
            .iter()
            .filter(|(_, local)| *local == traced.local);
        twins.count()
    }

    /// How well a traced connection fits: the time between the beginnings of both. `None` if it is
    /// another connection.
    fn distance(&self, traced: &Traced) -> Option<Duration> {
        let first = self.first.time;
        let apart = |time: Duration| first.abs_diff(time);
        // The connection must not have ended before.
        if traced
            .end
            .is_some_and(|end| end.saturating_add(CLOCKS) < first)
        {
            return None;
        }
        let Some(opened_by) = self.opened_by else {
            // Its beginning was not recorded.
            let begin = traced.begin.unwrap_or(Duration::ZERO);
            return (begin <= first.saturating_add(CLOCKS))
                .then(|| apart(traced.begin.unwrap_or(traced.first)));
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
            None => (first <= traced.first.saturating_add(CLOCKS)).then(|| apart(traced.first)),
        }
    }
}

/// A note, and where it is.
#[derive(Clone, Copy)]
struct NoteAt {
    at: Duration,
    /// The place of its connection, or path, in [`Flow::connections`].
    of: usize,
    /// The traced connection that has it: another one if this is a path of that.
    from: usize,
    /// Its place in the notes of that.
    number: usize,
}

/// All that is known about a pair of addresses.
#[derive(Default)]
struct Flow {
    /// Numbers of the traced connections, each with the life that it is.
    connections: Vec<(usize, Option<usize>)>,
    /// The notes, in order of time.
    notes: Vec<NoteAt>,
    /// For each of the first notes: the last packet at or before it, and the life of that.
    before: Vec<Option<(usize, Place)>>,
    latest: Option<(usize, Place)>,
    lives: Vec<Life>,
}

impl Flow {
    /// Adds a connection with its notes; a further path also with those of its connection.
    fn add(&mut self, connection: usize, all: &[Traced]) {
        let Some(traced) = all.get(connection) else {
            return;
        };
        let of = self.connections.len();
        self.connections.push((connection, None));
        let place = |from| {
            move |(number, note): (usize, &Note)| NoteAt {
                at: note.at,
                of,
                from,
                number,
            }
        };
        let own = traced.notes.iter().enumerate();
        self.notes.extend(own.map(place(connection)));
        let main = traced.join.as_ref().and_then(|join| join.of);
        if let Some((from, main)) = main.and_then(|from| Some((from, all.get(from)?))) {
            let begin = traced.begin.unwrap_or(traced.first);
            let is_meanwhile = |note: &Note| {
                note.at >= begin
                    && traced
                        .end
                        .is_none_or(|end| note.at <= end.saturating_add(CLOCKS))
            };
            let notes = main.notes.iter().enumerate();
            let shared = notes.filter(|(_, note)| note.is_for_paths && is_meanwhile(note));
            self.notes.extend(shared.map(place(from)));
        }
    }

    fn sort_notes(&mut self) {
        let notes = self.notes.iter().enumerate();
        let mut order: Vec<Ranked> = notes.map(|(index, note)| (ns(note.at), index)).collect();
        sort(&mut order);
        let sorted = order.iter().filter_map(|(_, index)| self.notes.get(*index));
        self.notes = sorted.copied().collect();
    }

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

    /// Decides which life each connection is: the closest pairs first.
    fn assign(&mut self, traced: &[Traced]) {
        let mut pairs: Vec<Ranked> = Vec::new();
        let mut candidates = Vec::new();
        for (of, (connection, _)) in self.connections.iter().enumerate() {
            let Some(one) = traced.get(*connection) else {
                continue;
            };
            let begin = one.begin.unwrap_or(one.first);
            let middle = self.lives.partition_point(|life| life.first.time <= begin);
            for life in middle.saturating_sub(NEIGHBOURS)..middle + NEIGHBOURS {
                if let Some(distance) = self.lives.get(life).and_then(|it| it.distance(one)) {
                    pairs.push((ns(distance), candidates.len()));
                    candidates.push((of, life));
                }
            }
        }
        sort(&mut pairs);
        for (_, candidate) in pairs {
            let Some((of, number)) = candidates.get(candidate) else {
                continue;
            };
            let (connection, life) = (self.connections.get_mut(*of), self.lives.get_mut(*number));
            if let (Some((connection, assigned @ None)), Some(life)) = (connection, life)
                && let Some(one) = traced.get(*connection)
                && !life.seats.contains(&(one.netns, one.local))
            {
                life.seats.push((one.netns, one.local));
                *assigned = Some(*number);
            }
        }
    }

    /// The packet for a note of a connection that is this life, and how far apart they are: the
    /// packet of the stage that the note names, else the last one before it.
    ///
    /// The handshake of a further path is not the one that a note of its connection names.
    fn packet_for(
        &self,
        number: usize,
        note: &Note,
        life: usize,
        is_own: bool,
    ) -> Option<(Place, Gap)> {
        let span = self.lives.get(life)?;
        // Where no function is traced, a fallback is noticed when the system call returns.
        let stage = note.stage.filter(|_| is_own);
        let of_stage = stage.and_then(|stage| span.of_stage(stage));
        let of_stage = of_stage.filter(|place| place.time <= note.at.saturating_add(CLOCKS));
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
    flows: BTreeMap<[SocketAddr; 2], Flow>,
    lives: u64,
    counts: Counts,
}

/// Both ends of a connection, in an order that does not depend on the direction.
fn pair(one: SocketAddr, other: SocketAddr) -> [SocketAddr; 2] {
    [one.min(other), one.max(other)]
}

impl Placing {
    pub(super) fn new(gathered: Gathered) -> Self {
        let mut counts = Counts {
            addressless: gathered.addressless,
            beyond: gathered.beyond,
            ..Counts::default()
        };
        let traced = gathered.connections;
        let mut flows: BTreeMap<_, Flow> = BTreeMap::new();
        for (connection, one) in traced.iter().enumerate() {
            if one.has_addresses() {
                counts.connections += u64::from(one.join.is_none() && !one.notes.is_empty());
                let flow = flows.entry(pair(one.local, one.remote)).or_default();
                flow.add(connection, &traced);
            } else {
                counts.addressless += u64::try_from(one.notes.len()).unwrap_or_default();
            }
        }
        for flow in flows.values_mut() {
            flow.sort_notes();
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
        let mut decided = Decided::default();
        for flow in self.flows.values_mut() {
            flow.assign(&self.traced);
            decided.decide(flow, &self.traced, &mut self.counts);
        }
        decided.leave(&self.traced, &mut self.counts);
        Plan {
            comments: decided.by_packet(),
            left: decided.left,
            counts: self.counts,
            ..Plan::default()
        }
    }
}

/// What was decided so far.
#[derive(Default)]
struct Decided {
    /// Comments: the packet's block, the time, the text.
    comments: Vec<(u64, u64, String)>,
    /// Notes without a packet, and notes that have one: the place of the connection, and of the note
    /// in it.
    missing: Vec<(usize, usize)>,
    placed: BTreeSet<(usize, usize)>,
    left: Vec<String>,
}

impl Decided {
    fn decide(&mut self, flow: &Flow, traced: &[Traced], counts: &mut Counts) {
        for (of, (connection, life)) in flow.connections.iter().enumerate() {
            let life = life.and_then(|life| flow.lives.get(life));
            let (Some(one), Some(life)) = (traced.get(*connection), life) else {
                continue;
            };
            let has_notes = match &one.join {
                None => !one.notes.is_empty(),
                Some(_) => flow.notes.iter().any(|note| note.of == of),
            };
            if has_notes {
                counts.found += u64::from(one.join.is_none());
                let main = one.join.as_ref().and_then(|join| traced.get(join.of?));
                let text = comments::summary(one, life.twins(one), main);
                self.comments.push((life.first.block, 0, text));
            }
        }
        for (number, it) in flow.notes.iter().enumerate() {
            let Some((connection, assigned)) = flow.connections.get(it.of) else {
                continue;
            };
            let one = traced.get(*connection);
            let note = traced
                .get(it.from)
                .and_then(|from| from.notes.get(it.number));
            let (Some(one), Some(note)) = (one, note) else {
                continue;
            };
            let is_own = it.from == *connection;
            let life = assigned.and_then(|life| flow.lives.get(life));
            let place = assigned.and_then(|life| flow.packet_for(number, note, life, is_own));
            let (Some(life), Some((place, gap))) = (life, place) else {
                if is_own {
                    self.missing.push((it.from, it.number));
                }
                continue;
            };
            self.placed.insert((it.from, it.number));
            let text = match is_own {
                true => comments::comment(one, life.twins(one), &note.text, &gap),
                false => {
                    let text = format!("its connection: {}", note.text);
                    comments::comment(one, life.twins(one), &text, &gap)
                }
            };
            // The summary comes first.
            self.comments.push((place.block, ns(it.at).max(1), text));
        }
    }

    /// Counts the findings with and without a packet. One that is on a further path only has one.
    fn leave(&mut self, traced: &[Traced], counts: &mut Counts) {
        counts.placed = u64::try_from(self.placed.len()).unwrap_or(u64::MAX);
        for (connection, number) in &self.missing {
            if self.placed.contains(&(*connection, *number)) {
                continue;
            }
            counts.elsewhere += 1;
            let one = traced.get(*connection);
            if let Some((one, note)) = one.and_then(|one| Some((one, one.notes.get(*number)?))) {
                let (local, remote) = (one.local, one.remote);
                self.left
                    .push(format!("{local} -> {remote}: {}", note.text));
            }
        }
    }

    /// The comments of each packet in order of time, and not too many.
    fn by_packet(&mut self) -> Vec<(u64, Vec<String>)> {
        // In the order of time first: sorting by packet keeps it, as the second number.
        let mut by_time: Vec<Ranked> = Vec::new();
        let rank = |of: &(u64, u64, String)| of.1;
        by_time.extend(
            self.comments
                .iter()
                .enumerate()
                .map(|(index, it)| (rank(it), index)),
        );
        sort(&mut by_time);
        let mut by_block: Vec<Ranked> = Vec::new();
        for (nth, (_, index)) in by_time.iter().enumerate() {
            by_block.extend(self.comments.get(*index).map(|it| (it.0, nth)));
        }
        sort(&mut by_block);
        let mut packets: Vec<(u64, Vec<String>)> = Vec::new();
        let mut hidden = 0;
        for (nth, (block, at)) in by_block.iter().enumerate() {
            let index = by_time.get(*at).map(|(_, index)| *index);
            let text = index.and_then(|index| self.comments.get_mut(index));
            let text = text.map(|it| std::mem::take(&mut it.2)).unwrap_or_default();
            match packets.last_mut() {
                Some((last, texts)) if last == block && texts.len() >= COMMENTS_MAX => hidden += 1,
                Some((last, texts)) if last == block => texts.push(text),
                _ => packets.push((*block, vec![text])),
            }
            let is_last = by_block.get(nth + 1).is_none_or(|(next, _)| next != block);
            if is_last && hidden > 0 {
                if let Some(end) = packets.last_mut().and_then(|(_, texts)| texts.last_mut()) {
                    *end = comments::more(hidden + 1);
                }
                hidden = 0;
            }
        }
        packets
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
