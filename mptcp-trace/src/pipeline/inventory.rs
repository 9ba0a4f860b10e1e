//! Sockets that were open when tracing began, and the answers about them since.

use std::collections::HashMap;

use crate::{
    decode::{Observation, decode},
    enrich::{self, CgroupCache},
    filter::FindingFilter,
    model::{ConnectionEvent, ConnectionId, ConnectionKind, Facts, Finding, LastAsked},
    sink::Format,
};

/// Sockets that were open when tracing began.
pub struct Inventory {
    limit: usize,
    beyond: u64,
    found: Vec<Finding>,
    /// The last answer about each of them, if any.
    asked: HashMap<ConnectionId, Option<LastAsked>>,
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
            Ok(
                Observation::Connection(_)
                | Observation::Canary(_)
                | Observation::CanaryConnection(_)
                | Observation::Change(_)
                | Observation::CanaryChange(_)
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
