//! Findings -> how often each peer spoke MPTCP over each interface, and what follows from it: whether
//! the peer or a path is the reason that connections stay TCP. Pure, and bounded.
//!
//! Only connections that this host opens count, once each, by their handshake: what happens to a
//! connection later says nothing about whether its peer speaks MPTCP.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use crate::model::{
    ConnectionKind, Finding, PathRole, PeerCounts, PeerHistory, Side, Spoke, Subject, Whose,
};

/// "Never" needs at least this many connections: two may be chance, such as a server of several that is
/// configured otherwise, or lost SYNs.
pub const NEVER_MIN: u64 = 3;

/// At most this many pairs of peer and interface are distinguished; connections of others do not count.
pub const PAIRS_MAX: usize = 10_000;

/// Causes of fallbacks that say that nothing came back that spoke MPTCP.
const UNANSWERED: [&str; 2] = ["MPCapableFallbackSYNACK", "MPCapableSYNTXDrop"];

/// Connections of a peer over an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Tally {
    mptcp: u64,
    tcp: u64,
}

/// The counts so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    peers: HashMap<String, BTreeMap<String, Tally>>,
    /// Interfaces over which a peer spoke.
    spoken_over: BTreeSet<String>,
    pairs: usize,
    /// Connections beyond [`PAIRS_MAX`].
    pub left_out: u64,
}

/// Whether the peer spoke MPTCP in the handshake of a connection that this host opened; `None` if the
/// finding does not say.
#[must_use]
pub fn spoke(finding: &Finding) -> Option<bool> {
    match finding {
        Finding::Path(event) => {
            let path = &event.path;
            let is_new = path.comes_up();
            let opened = path.side == Some(Side::Active) && path.role == PathRole::First;
            (is_new && opened && path.is_mptcp).then_some(true)
        }
        Finding::Connection(event) => {
            let connection = &event.connection;
            let is_it = connection.kind == ConnectionKind::Fallback
                && connection.side == Some(Side::Active)
                && connection
                    .cause
                    .as_deref()
                    .is_some_and(|it| UNANSWERED.contains(&it));
            is_it.then_some(false)
        }
        Finding::Query(_) | Finding::Verdict(_) | Finding::Refusal(_) | Finding::Closed(_) => None,
    }
}

/// Local and remote address of the connection that [`spoke`] is about; `None` if it has none yet.
#[must_use]
pub fn ends(subject: &Subject<'_>) -> Option<[IpAddr; 2]> {
    let socket = subject.socket?;
    let ends = [socket.local, socket.remote].map(|end| end.ip().to_canonical());
    (!ends.iter().any(IpAddr::is_unspecified)).then_some(ends)
}

impl History {
    /// Counts a connection of a peer over an interface.
    pub fn take(&mut self, peer: &str, local: &str, mptcp: bool) {
        let known = self
            .peers
            .get(peer)
            .is_some_and(|it| it.contains_key(local));
        if !known && self.pairs >= PAIRS_MAX {
            self.left_out += 1;
            return;
        }
        self.pairs += usize::from(!known);
        let of_peer = self.peers.entry(peer.to_owned()).or_default();
        let tally = of_peer.entry(local.to_owned()).or_default();
        match mptcp {
            true => tally.mptcp += 1,
            false => tally.tcp += 1,
        }
        if mptcp && !self.spoken_over.contains(local) {
            self.spoken_over.insert(local.to_owned());
        }
    }

    /// What the counts say about a peer; `None` if no connection to it counted.
    #[must_use]
    pub fn of(&self, peer: &str) -> Option<PeerHistory> {
        let own = self.peers.get(peer)?;
        let spoke = own.iter().map(|(local, tally)| Spoke {
            local: local.clone(),
            mptcp: tally.mptcp,
            tcp: tally.tcp,
        });
        Some(PeerHistory {
            whose: self.whose(own),
            spoke: spoke.collect(),
        })
    }

    /// For how many peers each conclusion holds.
    #[must_use]
    pub fn counts(&self) -> PeerCounts {
        let mut counts = PeerCounts::default();
        for own in self.peers.values() {
            match self.whose(own) {
                Whose::Peer => counts.peer += 1,
                Whose::Unknown => {
                    counts.unknown += u64::from(own.values().any(|tally| tally.tcp > 0));
                }
                Whose::Path(over) => {
                    counts.path += 1;
                    for local in over {
                        *counts.over.entry(local).or_default() += 1;
                    }
                }
            }
        }
        counts
    }

    /// The rule.
    fn whose(&self, own: &BTreeMap<String, Tally>) -> Whose {
        let never = own
            .iter()
            .filter(|(_, tally)| tally.mptcp == 0 && tally.tcp >= NEVER_MIN)
            .map(|(local, _)| local);
        let speaks = own.values().any(|tally| tally.mptcp > 0);
        // Over one of the interfaces over which it never spoke, others do: that one is not the reason.
        let others_speak = |local| self.spoken_over.contains(local);
        match (never.clone().count() > 0, speaks) {
            (true, true) => Whose::Path(never.cloned().collect()),
            (true, false) if never.clone().any(others_speak) => Whose::Peer,
            (true | false, _) => Whose::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ConnectionEvent, PathEvent, PathKind, Place,
        fixture::{Row, a_path},
    };
    use std::time::SystemTime;

    /// Peer, interface, connections with MPTCP and without.
    type Rows<'a> = &'a [(&'a str, &'a str, u64, u64)];

    fn whose(rows: Rows<'_>, peer: &str) -> Option<Whose> {
        let mut history = History::default();
        for &(peer, local, mptcp, tcp) in rows {
            (0..mptcp).for_each(|_| history.take(peer, local, true));
            (0..tcp).for_each(|_| history.take(peer, local, false));
        }
        history.of(peer).map(|it| it.whose)
    }

    #[test]
    fn where_the_reason_lies_follows_from_who_spoke_over_what() {
        let path =
            |locals: &[&str]| Whose::Path(locals.iter().map(|it| (*it).to_owned()).collect());
        for (rows, wanted) in [
            // The same peer speaks over the one, and never over the other.
            (
                &[("a", "eth0", 5, 0), ("a", "eth1", 0, 3)][..],
                path(&["eth1"]),
            ),
            (
                &[
                    ("a", "eth0", 1, 9),
                    ("a", "eth1", 0, 3),
                    ("a", "eth2", 0, 7),
                ],
                path(&["eth1", "eth2"]),
            ),
            // Two are too few.
            (&[("a", "eth0", 5, 0), ("a", "eth1", 0, 2)], Whose::Unknown),
            // Never from anywhere, while others speak over the same interface.
            (&[("a", "eth0", 0, 3), ("b", "eth0", 1, 0)], Whose::Peer),
            (
                &[
                    ("a", "eth0", 0, 3),
                    ("a", "eth1", 0, 9),
                    ("b", "eth1", 1, 0),
                ],
                Whose::Peer,
            ),
            // Others speak, but not over that one: it may be the interface.
            (&[("a", "eth0", 0, 3), ("b", "eth1", 1, 0)], Whose::Unknown),
            // Nobody speaks.
            (
                &[("a", "eth0", 0, 30), ("b", "eth0", 0, 30)],
                Whose::Unknown,
            ),
            // Sometimes.
            (&[("a", "eth0", 1, 30), ("b", "eth0", 9, 0)], Whose::Unknown),
        ] {
            assert_eq!(whose(rows, "a"), Some(wanted), "{rows:?}");
        }
        assert_eq!(whose(&[("b", "eth0", 1, 0)], "a"), None);
    }

    #[test]
    fn a_connection_counts_once_by_its_handshake_and_only_if_this_host_opened_it() {
        let path = |kind, side, role, is_mptcp, was_reported_up| {
            let mut path = a_path(kind);
            (path.side, path.role, path.is_mptcp) = (Some(side), role, is_mptcp);
            path.was_reported_up = was_reported_up;
            Finding::Path(Box::new(PathEvent {
                packet: None,
                path,
                time: SystemTime::UNIX_EPOCH,
                place: Place::default(),
                of_connection: None,
            }))
        };
        let (here, there) = (Side::Active, Side::Passive);
        for (finding, wanted) in [
            (
                path(PathKind::Up, here, PathRole::First, true, false),
                Some(true),
            ),
            (
                path(PathKind::Down, here, PathRole::First, true, true),
                None,
            ),
            (
                path(PathKind::Down, here, PathRole::First, true, false),
                Some(true),
            ),
            (
                path(PathKind::Up, here, PathRole::First, false, false),
                None,
            ),
            (path(PathKind::Up, here, PathRole::Join, true, false), None),
            (
                path(PathKind::Up, there, PathRole::First, true, false),
                None,
            ),
        ] {
            assert_eq!(spoke(&finding), wanted, "{finding:?}");
        }
        let fallback = |cause, side| {
            let Finding::Connection(mut event) = (Row {
                cause,
                ..Row::default()
            })
            .connection() else {
                unreachable!()
            };
            let ConnectionEvent { connection, .. } = &mut *event;
            connection.side = Some(side);
            Finding::Connection(event)
        };
        for (cause, side, wanted) in [
            (Some("MPCapableFallbackSYNACK"), here, Some(false)),
            (Some("MPCapableSYNTXDrop"), here, Some(false)),
            // MPTCP was off here, or the data lost it.
            (Some("MPCapableSYNTXDisabled"), here, None),
            (Some("DssFallback"), here, None),
            (Some("MPCapableFallbackACK"), there, None),
            (None, here, None),
        ] {
            assert_eq!(spoke(&fallback(cause, side)), wanted, "{cause:?}");
        }
    }

    #[test]
    fn peers_are_counted_by_what_follows_and_those_that_always_speak_are_not() {
        let mut history = History::default();
        let mut take = |peer: &str, local, mptcp, tcp| {
            (0..mptcp).for_each(|_| history.take(peer, local, true));
            (0..tcp).for_each(|_| history.take(peer, local, false));
        };
        take("path", "eth0", 1, 0);
        take("path", "eth1", 0, 3);
        take("path", "eth2", 0, 3);
        take("peer", "eth0", 0, 3);
        take("too few", "eth0", 0, 2);
        take("fine", "eth0", 9, 0);
        let wanted = PeerCounts {
            peer: 1,
            path: 1,
            unknown: 1,
            over: [("eth1".to_owned(), 1), ("eth2".to_owned(), 1)].into(),
        };
        assert_eq!(history.counts(), wanted);
    }

    #[test]
    fn beyond_the_limit_connections_are_counted_as_left_out() {
        let mut history = History::default();
        for number in 0..=PAIRS_MAX {
            history.take(&number.to_string(), "eth0", true);
        }
        history.take("0", "eth0", true);
        assert_eq!((history.left_out, history.pairs), (1, PAIRS_MAX));
        assert_eq!(history.of("0").unwrap().spoke[0].mptcp, 2);
    }
}
