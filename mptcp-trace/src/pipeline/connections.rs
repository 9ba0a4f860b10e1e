//! What became of the connections of a run: MPTCP to the end, or not. Pure.

use std::{collections::HashSet, time::Duration};

use crate::{
    model::{ConnectionId, ConnectionKind, Finding, Outcome, PathKind, PathRole, SocketId},
    sink::ConnectionCounts,
};

/// At most this many connections are known to be open, and as many to have fallen back before
/// their end; further ones count when they end.
const KNOWN_MAX: usize = 65_536;

/// A connection; one that the socket opens later has the same key, after the end of this one.
type Key = (SocketId, Duration);

/// Counts connections, from the findings about them.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// Those that ended.
    ended: ConnectionCounts,
    /// Those that are open, and MPTCP.
    open: HashSet<Key>,
    /// Those that fell back, and have not ended.
    fallen: HashSet<Key>,
}

fn key(id: ConnectionId) -> Key {
    (id.socket, id.born_at)
}

fn insert(set: &mut HashSet<Key>, key: Key) {
    if set.len() < KNOWN_MAX {
        set.insert(key);
    }
}

impl Connections {
    /// Takes a finding.
    pub fn take(&mut self, finding: &Finding) {
        match finding {
            Finding::Path(event) => {
                let path = &event.path;
                match (path.kind, path.connection) {
                    (PathKind::ConnectFailed, _) => self.ended.not_opened += 1,
                    (PathKind::Up | PathKind::Open, Some(id)) if path.role == PathRole::First => {
                        let key = key(id);
                        if path.is_mptcp && !self.fallen.contains(&key) {
                            insert(&mut self.open, key);
                        }
                    }
                    (
                        PathKind::Up
                        | PathKind::Failed
                        | PathKind::Down
                        | PathKind::Stale
                        | PathKind::Recovered
                        | PathKind::Priority
                        | PathKind::Open
                        | PathKind::AddressAnnounced
                        | PathKind::AddressEchoed
                        | PathKind::AddressDropped
                        | PathKind::AddressOverLimit
                        | PathKind::AddressRemoved,
                        _,
                    ) => {}
                }
            }
            Finding::Connection(event) if event.connection.kind == ConnectionKind::Fallback => {
                let key = key(event.connection.id);
                self.open.remove(&key);
                insert(&mut self.fallen, key);
            }
            Finding::Closed(event) => {
                let key = key(event.closed.id);
                self.open.remove(&key);
                self.fallen.remove(&key);
                self.ended.closed += 1;
                match event.closed.outcome {
                    Outcome::Mptcp => self.ended.mptcp += 1,
                    Outcome::FellBack { .. } => self.ended.fell_back += 1,
                    Outcome::Unknown => self.ended.unknown += 1,
                }
            }
            Finding::Connection(_)
            | Finding::Query(_)
            | Finding::Verdict(_)
            | Finding::Refusal(_) => {}
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> ConnectionCounts {
        let len = |set: &HashSet<Key>| u64::try_from(set.len()).unwrap_or(u64::MAX);
        ConnectionCounts {
            fell_back: self.ended.fell_back.saturating_add(len(&self.fallen)),
            open: len(&self.open),
            ..self.ended
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::{Row, a_path};

    fn counts(findings: &[Finding]) -> ConnectionCounts {
        let mut connections = Connections::default();
        for finding in findings {
            connections.take(finding);
        }
        connections.counts()
    }

    #[test]
    fn a_connection_counts_once_whatever_is_seen_of_it() {
        let row = |address| Row {
            address,
            ..Row::default()
        };
        let up = |address| row(address).path(a_path(PathKind::Up));
        let closed = |address, outcome| row(address).closed(|it| it.outcome = outcome);
        let fell_back = || Outcome::FellBack {
            at: None,
            cause: None,
        };
        for (findings, wanted) in [
            (vec![], [0, 0, 0, 0, 0]),
            (vec![up(1)], [0, 0, 0, 1, 0]),
            (vec![up(1), closed(1, Outcome::Mptcp)], [1, 1, 0, 0, 0]),
            // It fell back, and has not ended.
            (vec![up(1), row(1).connection()], [0, 0, 1, 0, 0]),
            (vec![row(1).connection(), up(1)], [0, 0, 1, 0, 0]),
            (
                vec![up(1), row(1).connection(), closed(1, fell_back())],
                [1, 0, 1, 0, 0],
            ),
            (
                vec![
                    up(1),
                    up(2),
                    closed(2, Outcome::Mptcp),
                    row(3).path(a_path(PathKind::ConnectFailed)),
                ],
                [1, 1, 0, 1, 1],
            ),
        ] {
            let it = counts(&findings);
            let found = [it.closed, it.mptcp, it.fell_back, it.open, it.not_opened];
            assert_eq!(found, wanted, "{findings:?}");
        }
    }
}
