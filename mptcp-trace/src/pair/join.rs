//! Which connections and paths of two captures are the same ones.
//!
//! A path is joined by its initial sequence numbers, which NAT leaves alone; else by the digest of its
//! connection's keys, which a box that rewrites sequence numbers leaves alone; else by what its
//! connection is joined by, and its address ids; last by addresses and time, if there is only one.

mod paths;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use super::{
    Capture, Ns, Offset,
    clock::Handshake,
    seen::{PathSeen, Seen},
};
use crate::model::{PathRole, Side};

/// By what two ends were joined, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum By {
    /// The initial sequence numbers of both ends.
    Sequences,
    /// The initial sequence number of the end that opened the path: the other one is known at one end
    /// only.
    Sequence,
    /// The digest of the connection's keys: sequence numbers are rewritten between the ends.
    Keys,
    /// The connection, and the address ids of the path.
    Ids,
    /// Addresses, ports and time.
    Addresses,
    /// Only the service and the time: two connections, and something in between that opened the
    /// second one.
    Time,
}

impl By {
    /// Every one, best first.
    pub const ALL: [Self; 6] = [
        Self::Sequences,
        Self::Sequence,
        Self::Keys,
        Self::Ids,
        Self::Addresses,
        Self::Time,
    ];

    /// The name as printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequences => "sequence-numbers",
            Self::Sequence => "sequence-number",
            Self::Keys => "keys",
            Self::Ids => "address-ids",
            Self::Addresses => "addresses-and-time",
            Self::Time => "time",
        }
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Sequences => "sequence numbers",
            Self::Sequence => "the client's sequence number",
            Self::Keys => "the keys (sequence numbers are rewritten in between)",
            Self::Ids => "the connection and the address ids",
            Self::Addresses => "addresses and time",
            Self::Time => "service and time",
        }
    }

    /// Another connection could be joined by this by chance.
    #[must_use]
    pub const fn is_likely(self) -> bool {
        matches!(self, Self::Ids | Self::Addresses | Self::Time)
    }
}

/// The two ends of a path: their places in [`Seen::paths`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathPair {
    /// At the client.
    pub client: Option<usize>,
    /// At the server.
    pub server: Option<usize>,
    /// The server's end is that of a join whose connection is unknown there: its place in the ends.
    pub orphan: Option<usize>,
    /// By what they were joined; `None` for one end alone.
    pub by: Option<By>,
}

/// The two ends of a connection: their places in the ends of the two captures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The end that opened it.
    pub client: Option<usize>,
    /// The end that accepted it.
    pub server: Option<usize>,
    /// By what they were joined; `None` for one end alone.
    pub by: Option<By>,
    /// The second capture has the end that opened it.
    pub reversed: bool,
    /// The other capture has MPTCP connections of the service that the client's end is for.
    pub known_service: bool,
    /// Its paths.
    pub paths: Vec<PathPair>,
}

/// Ends whose addresses fit belong together if they began within this time: of a handshake with a few
/// SYNs that were lost.
const NEAR_NS: Ns = 10_000_000_000;
/// What terminates a connection opens the next one within this time.
const PROXY_NS: Ns = 3_000_000_000;

/// What two ends have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// Initial sequence numbers, or a digest.
    Numbers(u32, u32),
    /// Addresses of the client and of the server.
    Addresses(SocketAddr, SocketAddr),
}

/// The key of an end.
type KeyOf<'f> = &'f dyn Fn(&Seen, &PathSeen) -> Option<Key>;

/// Where a path is: connection and path.
type Place = (usize, usize);

/// The captures from the view of one direction: connections that the one end opened and the other
/// one accepted.
struct Direction<'a> {
    client: &'a Capture,
    server: &'a Capture,
    reversed: bool,
    /// The partner of each connection, and by what.
    of_client: HashMap<usize, (usize, By)>,
    of_server: HashMap<usize, usize>,
    /// Joins at the server whose connection is unknown, by the number that their SYN brought.
    orphans: HashMap<Key, usize>,
}

fn is_of(seen: &Seen, side: Side) -> bool {
    seen.side.is_none_or(|it| it == side)
}

/// What identifies a path at both ends: the initial sequence numbers as the end that accepted it has
/// them, the peer's first.
fn key(path: &PathSeen, side: Side) -> Option<Key> {
    let (sent, received) = (path.marks.sent?, path.marks.received?);
    Some(match side {
        Side::Active => Key::Numbers(sent.wrapping_add(1), received),
        Side::Passive => Key::Numbers(received, sent),
    })
}

fn paths(capture: &Capture, side: Side) -> impl Iterator<Item = (Place, &PathSeen)> {
    let all = capture.ends.all.iter().enumerate();
    all.flat_map(move |(number, seen)| {
        let of = seen.paths.iter().enumerate();
        of.filter(move |(_, path)| path.side.or(seen.side).is_none_or(|it| it == side))
            .map(move |(place, path)| ((number, place), path))
    })
}

/// Entries whose key occurs once.
fn unique(all: &mut dyn Iterator<Item = (Key, usize)>) -> HashMap<Key, usize> {
    let mut found = HashMap::new();
    for (key, value) in all {
        let entry = found.entry(key).or_insert((value, 0_u32));
        entry.1 += 1;
    }
    let single = found.into_iter().filter(|(_, (_, count))| *count == 1);
    single.map(|(key, (value, _))| (key, value)).collect()
}

impl<'a> Direction<'a> {
    fn new(client: &'a Capture, server: &'a Capture, reversed: bool) -> Self {
        let all = server.ends.all.iter().enumerate();
        let mut orphans = all.filter_map(|(number, seen)| {
            let path = seen.paths.first().filter(|_| seen.is_orphan)?;
            Some((Key::Numbers(path.marks.received?, 0), number))
        });
        Self {
            client,
            server,
            reversed,
            of_client: HashMap::new(),
            of_server: HashMap::new(),
            orphans: unique(&mut orphans),
        }
    }

    fn client(&self, number: usize) -> Option<&'a Seen> {
        self.client.ends.all.get(number)
    }

    fn server(&self, number: usize) -> Option<&'a Seen> {
        self.server.ends.all.get(number)
    }

    /// What belongs to the client's capture, and to the server's, of what is sorted by captures.
    fn sides<'s, T>(&self, [first, second]: &'s mut [T; 2]) -> [&'s mut T; 2] {
        match self.reversed {
            false => [first, second],
            true => [second, first],
        }
    }

    /// Joins two connections, unless one of them is joined already.
    fn join(&mut self, client: usize, server: usize, by: By) {
        if self.of_client.contains_key(&client) || self.of_server.contains_key(&server) {
            return;
        }
        self.of_client.insert(client, (server, by));
        self.of_server.insert(server, client);
    }

    /// By both initial sequence numbers of the first path; then by those of a join.
    fn by_sequences(&mut self) {
        for side in [Side::Active, Side::Passive] {
            let other = match side {
                Side::Active => Side::Passive,
                Side::Passive => Side::Active,
            };
            let there = paths(self.server, other);
            let there = unique(
                &mut there.filter_map(|((server, _), path)| Some((key(path, other)?, server))),
            );
            let mut found: Vec<(PathRole, usize, usize)> = paths(self.client, side)
                .filter_map(|((client, _), path)| {
                    let server = there.get(&key(path, side)?)?;
                    Some((path.role, client, *server))
                })
                .collect();
            found.sort_by_key(|(role, ..)| *role == PathRole::Join);
            for (role, client, server) in found {
                // The first path has the side of its connection.
                if role == PathRole::First && side == Side::Passive
                    || !self.may_be(client, Side::Active, self.client)
                    || !self.may_be(server, Side::Passive, self.server)
                {
                    continue;
                }
                self.join(client, server, By::Sequences);
            }
        }
    }

    fn may_be(&self, number: usize, side: Side, capture: &Capture) -> bool {
        let seen = capture.ends.all.get(number);
        seen.is_some_and(|seen| !seen.is_orphan && (is_of(seen, side) || seen.first().is_none()))
    }

    /// The connections of an end that are not joined and have a first path.
    fn left(&self, side: Side) -> Vec<(usize, &'a Seen, &'a PathSeen)> {
        let (capture, is_joined): (&'a Capture, &dyn Fn(usize) -> bool) = match side {
            Side::Active => (self.client, &|number| self.of_client.contains_key(&number)),
            Side::Passive => (self.server, &|number| self.of_server.contains_key(&number)),
        };
        let all = capture.ends.all.iter().enumerate();
        all.filter(|(number, seen)| !is_joined(*number) && is_of(seen, side))
            .filter_map(|(number, seen)| Some((number, seen, seen.first()?)))
            .collect()
    }

    /// Joins what is left and has the same key at both ends, if it is the only one.
    fn by_key(
        &mut self,
        by: By,
        at_client: KeyOf<'_>,
        at_server: KeyOf<'_>,
        fits: &dyn Fn(&Self, &Seen, &Seen) -> bool,
    ) {
        let keyed = |side, of: KeyOf<'_>| {
            let left = self.left(side).into_iter();
            unique(&mut left.filter_map(|(n, seen, path)| Some((of(seen, path)?, n))))
        };
        let here = keyed(Side::Active, at_client);
        let there = keyed(Side::Passive, at_server);
        let mut found: Vec<(usize, usize)> = here
            .into_iter()
            .filter_map(|(key, client)| Some((client, *there.get(&key)?)))
            .collect();
        found.sort_unstable();
        for (client, server) in found {
            if let (Some(a), Some(b)) = (self.client(client), self.server(server))
                && fits(self, a, b)
            {
                self.join(client, server, by);
            }
        }
    }

    /// When connections began at both ends, on the clock of the client.
    fn begins(&self, client: &Seen, server: &Seen, offset: Option<&Offset>) -> (Ns, Ns) {
        let there = self.server.about.wall(server.begin());
        let there = self.to_client(there, offset);
        (self.client.about.wall(client.begin()), there)
    }

    fn to_client(&self, server: Ns, offset: Option<&Offset>) -> Ns {
        match (offset, self.reversed) {
            (None, _) => server,
            (Some(offset), false) => server.saturating_sub(offset.by),
            (Some(offset), true) => server.saturating_add(offset.by),
        }
    }

    /// By what does not depend on the clocks.
    fn surely(&mut self) {
        self.by_sequences();
        self.by_key(
            By::Sequence,
            &|_, path| Some(Key::Numbers(path.marks.sent?.wrapping_add(1), 0)),
            &|_, path| Some(Key::Numbers(path.marks.received?, 0)),
            // If both ends know both numbers and they differ, it is another path.
            &|_, a, b| {
                let known = |seen: &Seen, side| seen.first().and_then(|path| key(path, side));
                known(a, Side::Active).is_none() || known(b, Side::Passive).is_none()
            },
        );
        self.by_key(
            By::Keys,
            &|seen, _| Some(Key::Numbers(seen.keys()?, 0)),
            &|seen, _| Some(Key::Numbers(seen.keys()?, 0)),
            &|_, _, _| true,
        );
    }

    /// Addresses of the two captures can be compared.
    fn has_addresses(&self) -> bool {
        !self.client.about.redacted && !self.server.about.redacted
    }

    /// By addresses and time, and then by the service and time.
    fn likely(&mut self, offset: Option<&Offset>) {
        if !self.has_addresses() {
            return;
        }
        // Of several connections on the same addresses, the time tells.
        let slack = offset.map_or(0, |it| it.uncertainty);
        self.by_key(
            By::Addresses,
            &|_, path| Some(Key::Addresses(path.local, path.remote)),
            &|_, path| Some(Key::Addresses(path.remote, path.local)),
            &|this, a, b| {
                let (here, there) = this.begins(a, b, offset);
                here.abs_diff(there) <= NEAR_NS.saturating_add(slack).unsigned_abs()
                    && (a.keys().is_none() || b.keys().is_none())
            },
        );
        self.by_service(offset, slack);
    }

    /// What terminates a connection opens the next one to the same service, at the same time. Each is
    /// taken once, in the order of their beginnings.
    fn by_service(&mut self, offset: Option<&Offset>, slack: Ns) {
        let services = self.services();
        let there = self.left(Side::Passive).into_iter();
        let mut there: Vec<(SocketAddr, Ns, usize)> = there
            .map(|(number, seen, path)| {
                let begin = self.to_client(self.server.about.wall(seen.begin()), offset);
                (path.local, begin, number)
            })
            .collect();
        there.sort_unstable();
        let mut taken = HashSet::new();
        let mut here = self.left(Side::Active);
        here.retain(|(_, _, path)| path.up.is_some());
        here.sort_by_key(|(_, seen, _)| seen.begin());
        for (client, seen, path) in here {
            let begin = self.client.about.wall(seen.begin()).saturating_sub(slack);
            let until = begin.saturating_add(PROXY_NS).saturating_add(slack * 2);
            let found = services.of(seen, path).find_map(|service| {
                let from = there.partition_point(|(of, at, _)| (*of, *at) < (service, begin));
                let near = there.iter().skip(from);
                let mut near = near.take_while(|(of, at, _)| *of == service && *at <= until);
                near.find(|(_, _, server)| !taken.contains(server))
            });
            if let Some((_, _, server)) = found {
                taken.insert(*server);
                self.join(client, *server, By::Time);
            }
        }
    }

    /// The services of the server that accept MPTCP.
    fn services(&self) -> Services {
        if !self.has_addresses() {
            return Services::default();
        }
        // The same address in several network namespaces is several services.
        let mut own: HashMap<SocketAddr, Option<u32>> = HashMap::new();
        for seen in &self.server.ends.all {
            if let (Some(Side::Passive), Some(path)) = (seen.side, seen.first()) {
                let netns = own.entry(path.local).or_insert(Some(seen.netns));
                *netns = netns.filter(|it| *it == seen.netns);
            }
        }
        let joined = self.of_client.iter().filter_map(|(client, (server, _))| {
            let (here, there) = (self.client(*client)?, self.server(*server)?);
            Some(((here.netns, here.first()?.remote), there.first()?.local))
        });
        Services {
            own: own
                .into_iter()
                .filter_map(|(address, netns)| netns.map(|_| address))
                .collect(),
            renamed: joined.collect(),
        }
    }

    /// The handshakes of connections that are surely the same.
    fn handshakes(&self) -> Vec<Handshake> {
        let joined = self.of_client.iter();
        joined
            .filter_map(|(client, (server, _))| {
                let here = self.client(*client)?.first()?;
                let there = self.server(*server)?.first()?;
                if there.existing || here.existing {
                    return None;
                }
                Some(Handshake {
                    syn: self.client.about.wall(here.began?),
                    up: self.client.about.wall(here.up?),
                    third_ack: self.server.about.wall(there.began.or(there.up)?),
                    round_trip: here.round_trip.map_or(0, super::ns),
                })
            })
            .collect()
    }
}

/// The services of a host that accept MPTCP.
#[derive(Debug, Default)]
struct Services {
    /// Addresses of its sockets, if they are those of one network namespace.
    own: HashSet<SocketAddr>,
    /// What clients call them, by network namespace, where NAT is in between.
    renamed: HashMap<(u32, SocketAddr), SocketAddr>,
}

impl Services {
    /// The services that an end of a client may be for, the likely one first.
    fn of(&self, seen: &Seen, path: &PathSeen) -> impl Iterator<Item = SocketAddr> {
        let renamed = self.renamed.get(&(seen.netns, path.remote)).copied();
        let own = self.own.get(&path.remote).copied();
        renamed.into_iter().chain(own)
    }

    fn is_known(&self, seen: &Seen) -> bool {
        seen.first()
            .is_some_and(|path| self.of(seen, path).next().is_some())
    }
}

/// The connections of two captures, joined where they are the same, and the offset of the clocks.
#[must_use]
pub fn joined(first: &Capture, second: &Capture) -> (Vec<Pair>, Option<Offset>) {
    let mut there = Direction::new(first, second, false);
    let mut back = Direction::new(second, first, true);
    let mut used = [HashSet::new(), HashSet::new()];
    there.surely();
    back.surely();
    without_twins(&there, &mut back, &mut used);
    let offset = offset(&there, &back);
    there.likely(offset.as_ref());
    back.likely(offset.as_ref());
    without_twins(&there, &mut back, &mut used);
    let services = [there.services(), back.services()];
    let mut pairs = Vec::new();
    for direction in [&there, &back] {
        let mut numbers: Vec<_> = direction.of_client.iter().collect();
        numbers.sort_unstable_by_key(|(client, _)| **client);
        for (client, (server, by)) in numbers {
            let (Some(a), Some(b)) = (direction.client(*client), direction.server(*server)) else {
                continue;
            };
            let paths = direction.paths(a, b, *by);
            let [near, far] = direction.sides(&mut used);
            near.insert(*client);
            far.insert(*server);
            far.extend(paths.iter().filter_map(|path| path.orphan));
            pairs.push(Pair {
                client: Some(*client),
                server: Some(*server),
                by: Some(*by),
                reversed: direction.reversed,
                known_service: true,
                paths,
            });
        }
    }
    let pairs = with_single_ends(pairs, [first, second], used, &services);
    (pairs, offset)
}

/// Removes from the second direction what the first one has too: both captures have both ends, because
/// they were taken on one host. Once is enough.
fn without_twins(there: &Direction<'_>, back: &mut Direction<'_>, used: &mut [HashSet<usize>; 2]) {
    // The same socket at the same addresses.
    let identity = |seen: &Seen| {
        let path = seen.first()?;
        let socket = path.id.map(|id| id.socket);
        Some((seen.netns, path.local, path.remote, socket))
    };
    let known = there.of_client.keys();
    let known: HashSet<_> = known
        .filter_map(|number| identity(there.client(*number)?))
        .collect();
    let twins: Vec<(usize, usize)> = back
        .of_client
        .iter()
        .filter(|(client, _)| {
            let own = back.client(**client).and_then(identity);
            own.is_some_and(|own| known.contains(&own))
        })
        .map(|(client, (server, _))| (*client, *server))
        .collect();
    for (client, server) in twins {
        back.of_client.remove(&client);
        let [near, far] = back.sides(used);
        near.insert(client);
        far.insert(server);
    }
}

/// The offset of the clocks, from both directions.
fn offset(there: &Direction<'_>, back: &Direction<'_>) -> Option<Offset> {
    let forth = Offset::of(&there.handshakes());
    let reverse = Offset::of(&back.handshakes()).map(|it| Offset { by: -it.by, ..it });
    match (forth, reverse) {
        (Some(forth), Some(reverse)) => Some(Offset {
            handshakes: forth.handshakes + reverse.handshakes,
            ..if forth.uncertainty <= reverse.uncertainty {
                forth
            } else {
                reverse
            }
        }),
        (one, other) => one.or(other),
    }
}

/// Adds the connections that only one capture has.
fn with_single_ends(
    mut pairs: Vec<Pair>,
    captures: [&Capture; 2],
    used: [HashSet<usize>; 2],
    services: &[Services; 2],
) -> Vec<Pair> {
    for (is_second, (capture, used)) in captures.into_iter().zip(used).enumerate() {
        let services = &services[is_second];
        let is_second = is_second == 1;
        for (number, seen) in capture.ends.all.iter().enumerate() {
            // What never got as far as an address is nobody's but its own.
            let has_address = |path: &PathSeen| !path.remote.ip().is_unspecified();
            if used.contains(&number) || !seen.paths.iter().any(has_address) {
                continue;
            }
            let is_passive = seen.side == Some(Side::Passive)
                || seen.first().is_none()
                    && seen.paths.iter().all(|it| it.side == Some(Side::Passive));
            let (client, server) = match is_passive {
                true => (None, Some(number)),
                false => (Some(number), None),
            };
            let places = (0..seen.paths.len()).map(|place| PathPair {
                client: client.map(|_| place),
                server: server.map(|_| place),
                orphan: None,
                by: None,
            });
            pairs.push(Pair {
                client,
                server,
                by: None,
                reversed: is_second != is_passive,
                known_service: !is_passive && services.is_known(seen),
                paths: places.collect(),
            });
        }
    }
    pairs
}
