//! From an observation to an event, with what a record does not contain.

pub(super) mod packets;

use std::io::Write;

use super::Stages;
use crate::{
    decode::{DecodeError, Observation},
    enrich,
    model::{Event, Packet},
};

/// At most this many undecodable records are reported individually.
const COMPLAINTS_MAX: u64 = 10;

impl<W: Write> Stages<W> {
    /// The event of an observation, if it is one, with the packet that decided it. An observation that
    /// could not be decoded is counted.
    pub(super) fn event_of(
        &mut self,
        observation: Result<Observation, DecodeError>,
        packet: Option<Box<Packet>>,
    ) -> Option<Event> {
        match observation {
            Ok(Observation::Query(query)) => {
                self.cgroups
                    .resolve(query.process.pid, query.process.cgroup_id);
                Some(Event::Query(enrich::query(&self.facts, query)))
            }
            // Without the fallback sensor, births and fallbacks of connections are unknown: another
            // sensor's report would be taken for the state before tracing began.
            Ok(Observation::Connection(_) | Observation::Change(_)) if !self.has_fallbacks => None,
            Ok(Observation::Connection(connection)) => {
                let mut event = enrich::connection(&self.facts, &mut self.cgroups, *connection);
                event.packet = packet;
                Some(Event::Connection(Box::new(event)))
            }
            Ok(Observation::Change(change)) => {
                let event = enrich::change(&mut self.cgroups, *change);
                Some(Event::Change(Box::new(event)))
            }
            Ok(Observation::Path(path)) => {
                let mut event = enrich::path(&self.facts, &mut self.cgroups, *path);
                event.packet = packet;
                Some(Event::Path(Box::new(event)))
            }
            Ok(Observation::Refusal(refusal)) => {
                self.cgroups
                    .resolve(refusal.process.pid, refusal.process.cgroup_id);
                let event = enrich::refusal(&self.facts, *refusal);
                Some(Event::Refusal(Box::new(event)))
            }
            Ok(Observation::Counters(counters)) => {
                self.correlator.counted(*counters);
                None
            }
            Ok(
                Observation::Canary(_)
                | Observation::CanaryConnection(_)
                | Observation::CanaryChange(_)
                | Observation::CanaryPath(_)
                | Observation::PathReading(_)
                | Observation::Packet(..)
                | Observation::CountersAtStart(_),
            ) => None,
            Err(why) => {
                self.outcome.undecodable += 1;
                match self.outcome.undecodable {
                    ..COMPLAINTS_MAX => log::error!("cannot decode a record: {why}"),
                    COMPLAINTS_MAX => {
                        log::error!("cannot decode a record: {why}; further ones are only counted");
                    }
                    _more => {}
                }
                None
            }
        }
    }
}
