//! Sockets that were open when tracing began, and the answers about them since.

use std::collections::HashMap;

use crate::{
    decode::{Observation, decode},
    enrich::{self, CgroupCache},
    filter::FindingFilter,
    model::{
        ConnectionEvent, ConnectionId, ConnectionKind, Facts, Finding, LastAsked, PathEvent,
        PathKind, SocketId,
    },
    sink::{Format, Listed},
};

/// Sockets that were open when tracing began.
pub struct Inventory {
    limit: usize,
    beyond: u64,
    found: Vec<Finding>,
    /// The last answer about each of them, if any.
    asked: HashMap<ConnectionId, Option<LastAsked>>,
    /// The open paths of each of them.
    paths: HashMap<SocketId, Vec<PathEvent>>,
}

/// Number of what was printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PrintedSockets {
    /// Sockets.
    pub sockets: u64,
    /// Their open paths.
    pub paths: u64,
    /// Of these, backups.
    pub backups: u64,
}

impl Default for Inventory {
    fn default() -> Self {
        Self::bounded(usize::MAX)
    }
}

impl Inventory {
    /// An empty inventory for at most `limit` sockets; further ones are only counted.
    #[must_use]
    pub fn bounded(limit: usize) -> Self {
        Self {
            limit,
            beyond: 0,
            found: Vec::new(),
            asked: HashMap::new(),
            paths: HashMap::new(),
        }
    }

    /// Number of sockets beyond the limit.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    /// Takes one record.
    pub fn take(&mut self, bytes: &[u8], facts: &Facts, cgroups: &mut CgroupCache) {
        // The stages report undecodable records.
        match decode(bytes, facts) {
            Ok(Observation::Connection(connection))
                if connection.kind == ConnectionKind::Existing =>
            {
                if self.found.len() >= self.limit {
                    self.beyond += 1;
                    return;
                }
                self.asked.entry(connection.id).or_default();
                let event = enrich::connection(facts, cgroups, *connection);
                self.found.push(Finding::Connection(Box::new(event)));
            }
            Ok(Observation::Query(query)) => {
                if let Some(last) = query.id.and_then(|id| self.asked.get_mut(&id)) {
                    let answered = LastAsked::of(&query);
                    // Records of several CPUs may be out of order in the ring.
                    if last.is_none_or(|last| last.at <= answered.at) {
                        *last = Some(answered);
                    }
                }
            }
            Ok(Observation::Path(path)) if path.kind == PathKind::Open => {
                // Those of sockets beyond the limit are left out with them.
                let of = path.connection.filter(|id| self.asked.contains_key(id));
                if let Some(id) = of {
                    let event = enrich::path(facts, cgroups, *path);
                    self.paths.entry(id.socket).or_default().push(event);
                }
            }
            Ok(
                Observation::Connection(_)
                | Observation::Canary(_)
                | Observation::CanaryConnection(_)
                | Observation::Change(_)
                | Observation::CanaryChange(_)
                | Observation::Path(_)
                | Observation::CanaryPath(_)
                | Observation::PathReading(_)
                | Observation::Packet(..)
                | Observation::Counters(_)
                | Observation::CountersAtStart(_)
                | Observation::Refusal(_),
            )
            | Err(_) => {}
        }
    }

    /// Prints the sockets that the filter admits, in the order of the records; returns their
    /// number.
    pub fn print(
        &self,
        wanted: &FindingFilter,
        cgroups: &CgroupCache,
        format: &Format,
        out: &mut Vec<u8>,
    ) -> u64 {
        let mut printed = 0;
        format.sockets(out);
        for finding in &self.found {
            if let Finding::Connection(event) = finding
                && wanted.matches(finding, &|id| cgroups.path(id))
            {
                format.socket(event, self.asked(event), out);
                printed += 1;
            }
        }
        printed
    }

    /// Prints the sockets that the filter admits, each with its open paths.
    pub fn print_with_paths<'a>(
        &'a self,
        wanted: &FindingFilter,
        cgroups: &CgroupCache,
        format: &Format,
        out: &mut Vec<u8>,
    ) -> PrintedSockets {
        let is_wanted = |finding: &&Finding| wanted.matches(finding, &|id| cgroups.path(id));
        let listed = |finding: &'a Finding| match finding {
            Finding::Connection(event) => {
                let paths = self.paths.get(&event.connection.id.socket);
                Some(Listed {
                    event,
                    asked: self.asked(event),
                    paths: paths.map_or(&[], Vec::as_slice),
                })
            }
            Finding::Query(_)
            | Finding::Verdict(_)
            | Finding::Refusal(_)
            | Finding::Path(_)
            | Finding::Closed(_) => None,
        };
        let all: Vec<Listed<'_>> = self
            .found
            .iter()
            .filter(is_wanted)
            .filter_map(listed)
            .collect();
        format.sockets_with_paths(&all, out);
        let paths = all.iter().flat_map(|it| it.paths);
        let backups = paths
            .clone()
            .filter(|it| it.path.backup_here || it.path.backup_peer);
        PrintedSockets {
            sockets: all.len() as u64,
            paths: paths.count() as u64,
            backups: backups.count() as u64,
        }
    }

    fn asked(&self, event: &ConnectionEvent) -> Option<LastAsked> {
        self.asked.get(&event.connection.id).copied().flatten()
    }

    /// Number of sockets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}
