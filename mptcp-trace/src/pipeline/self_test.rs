//! The self-test of an attach method: own queries and an own fallback, which the probes must see.

use std::{collections::BTreeMap, io, time::Duration};

use anyhow::Context as _;

use crate::{
    canary::{self, SelfTestQueries},
    decode::{Observation, decode},
    kernel::{RecordRing, Tracer},
    model::{Connection, ConnectionKind, Facts, Loss, PerSensor, Query, SensorId},
    plan::Selection,
};

/// Maximum time for the canary's records to arrive from the ring.
const CANARY_WAIT_MAX: Duration = Duration::from_secs(2);

/// At most this many other records are kept during the self-test; more stay in the ring.
pub(super) const BACKLOG_RECORDS_MAX: usize = 65_536;

/// Result of the self-test.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CanaryReport {
    /// The result for each sensor that was tested.
    pub sensors: PerSensor<Option<SelfTest>>,
    /// Impossible queries, with the reason.
    pub skipped: Vec<String>,
    /// What on this host, rather than in this kernel, may explain the complaints.
    pub disturbed: Option<String>,
}

/// Result of the self-test for one sensor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SelfTest {
    /// Number of the canary's events; 0 if none was possible.
    pub made: usize,
    /// Number of those that the probes observed.
    pub seen: usize,
    /// Events that were observed incorrectly, one sentence each.
    pub complaints: Vec<String>,
}

impl CanaryReport {
    /// The first sensor with complaints, and the complaints in one sentence.
    #[must_use]
    pub fn complaint(&self) -> Option<(SensorId, String)> {
        SensorId::ALL.into_iter().find_map(|sensor| {
            let test = self.sensors.of(sensor).as_ref()?;
            (!test.complaints.is_empty()).then(|| (sensor, test.complaints.join("; ")))
        })
    }

    /// The complaint, and its possible reason, if that is a transient one on this host.
    pub(super) fn passing_complaint(&self) -> Option<String> {
        let ((_, what), why) = (self.complaint()?, self.disturbed.as_ref()?);
        Some(format!("{what} ({why})"))
    }
}

/// Calibrates what no kernel publishes, then compares the observed queries with the facts.
pub(super) fn judge(
    facts: &mut Facts,
    selection: &Selection<'_>,
    queries: &SelfTestQueries,
    own: &[Vec<u8>],
) -> CanaryReport {
    let read = |facts: &Facts| -> Vec<Query> {
        own.iter()
            .filter_map(|bytes| match decode(bytes, facts) {
                Ok(Observation::Canary(query)) => Some(query),
                Ok(
                    Observation::Query(_)
                    | Observation::Connection(_)
                    | Observation::Refusal(_)
                    | Observation::Counters(_)
                    | Observation::CountersAtStart(_)
                    | Observation::CanaryConnection(_)
                    | Observation::Change(_)
                    | Observation::CanaryChange(_)
                    | Observation::Path(_)
                    | Observation::CanaryPath(_)
                    | Observation::PathReading(_)
                    | Observation::Packet(..),
                )
                | Err(_) => None,
            })
            .collect()
    };
    let candidates = queries.fallback_bits(&read(facts));
    facts.fallback_bit = canary::only_bit(candidates);
    let seen = read(facts);
    let complaints = queries.compare(&seen);
    let asked = queries.asked.len();
    let complaints = match seen.is_empty() {
        true => vec![format!(
            "the self-test made {asked} queries, but no probe saw one"
        )],
        false => complaints.iter().map(ToString::to_string).collect(),
    };
    let report = CanaryReport {
        sensors: PerSensor {
            query: Some(SelfTest {
                made: asked,
                seen: seen.len(),
                complaints,
            }),
            ..PerSensor::default()
        },
        skipped: queries.skipped.clone(),
        // Pending work on a socket is also among its state bits, until it is done.
        disturbed: (candidates.count_ones() > 1)
            .then(|| "several state bits of our own connection changed at once".to_owned()),
    };
    if facts.fallback_bit.is_none() {
        for sensor in &mut facts.sensors {
            let plan = selection.of(sensor.sensor);
            let limit = plan.and_then(|plan| plan.uncalibrated);
            sensor.limits.extend(limit.map(str::to_owned));
        }
    }
    report
}

/// Provokes a fallback, now that the state bit is known, unless no connection of our own is
/// possible.
pub(super) async fn prove_fallback(
    mark: canary::Mark<'_>,
    collected: &mut CanaryCollector,
    records: &mut RecordRing,
    facts: &Facts,
) -> anyhow::Result<SelfTest> {
    let fallen = match canary::fall_back(mark)? {
        Ok(fallen) => fallen,
        Err(why) if canary::is_passing(&why) => return Err(why),
        // The reason was reported before.
        Err(_why) => return Ok(SelfTest::default()),
    };
    let ours = |connection: &Connection| {
        connection.kind == ConnectionKind::Fallback && connection.socket.local == fallen.local
    };
    collected
        .until(records, facts, |collected| {
            collected.own_connections.iter().any(ours)
        })
        .await?;
    let seen: Vec<&Connection> = collected
        .own_connections
        .iter()
        .filter(|it| ours(it))
        .collect();
    let complaint = fallen.complaint(&seen);
    Ok(SelfTest {
        made: 1,
        seen: usize::from(complaint.is_none()),
        complaints: complaint.into_iter().collect(),
    })
}

/// What may have kept the canary's records from us.
pub(super) fn disturbed(
    tracer: &Tracer,
    collected: &CanaryCollector,
) -> anyhow::Result<Option<String>> {
    if collected.backlog.len() >= BACKLOG_RECORDS_MAX {
        let why = format!("{} other records came first", collected.backlog.len());
        return Ok(Some(why));
    }
    let losses = tracer.losses()?;
    let count = |of: fn(&Loss) -> u64| losses.sensors.iter().map(of).sum::<u64>();
    let (full, skipped) = (count(|it| it.ring_full), count(|it| it.missed));
    let why = match (full, skipped) {
        (0, 0) => None,
        (0, skipped) => Some(format!(
            "{skipped} runs of a probe were skipped by the kernel"
        )),
        (full, _) => Some(format!("{full} records did not fit into the ring")),
    };
    Ok(why)
}

/// Records that arrive from the ring during the self-test.
#[derive(Default)]
pub(super) struct CanaryCollector {
    pub(super) own: Vec<Vec<u8>>,
    own_connections: Vec<Connection>,
    /// Number of the canary's own records of each sensor.
    pub(super) own_records: PerSensor<u64>,
    pub(super) backlog: Vec<Vec<u8>>,
    /// The BPF side's readings when tracing began, by the namespace's cookie.
    pub(super) counters_at_start: BTreeMap<u64, BTreeMap<String, u64>>,
}

impl CanaryCollector {
    /// Reads until `enough`, for [`CANARY_WAIT_MAX`], or until the backlog is full.
    pub(super) async fn until(
        &mut self,
        records: &mut RecordRing,
        facts: &Facts,
        enough: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let home = async {
            while !enough(self) && self.backlog.len() < BACKLOG_RECORDS_MAX {
                records.next_turn(|bytes| self.take(bytes, facts)).await?;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(CANARY_WAIT_MAX, home).await {
            Ok(done) => done.context("cannot read our own records back"),
            // A timeout is a result, not an error: the comparison reports what is missing.
            Err(_elapsed) => Ok(()),
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8], facts: &Facts) -> Result<(), io::Error> {
        match decode(bytes, facts) {
            Ok(Observation::Canary(_)) => {
                self.own_records.query += 1;
                self.own.push(bytes.to_vec());
            }
            Ok(Observation::CanaryConnection(connection)) => {
                self.own_records.fallback += 1;
                self.own_connections.push(*connection);
            }
            Ok(Observation::CanaryChange(_)) => self.own_records.fallback += 1,
            Ok(Observation::CanaryPath(_)) => self.own_records.subflow += 1,
            Ok(Observation::CountersAtStart(read)) => {
                if !read.counters.is_empty() {
                    self.counters_at_start.insert(read.cookie, read.counters);
                }
            }
            // Undecodable records are reported later, with all others.
            Ok(
                Observation::Query(_)
                | Observation::Path(_)
                | Observation::PathReading(_)
                | Observation::Packet(..)
                | Observation::Connection(_)
                | Observation::Change(_)
                | Observation::Refusal(_)
                | Observation::Counters(_),
            )
            | Err(_) => {
                self.backlog.push(bytes.to_vec());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sensor_that_has_to_run_complains_first_and_only_this_host_can_excuse_it() {
        let works = SelfTest {
            made: 1,
            seen: 1,
            complaints: Vec::new(),
        };
        let fails = |why: &str| SelfTest {
            complaints: vec![why.to_owned(), "and more".to_owned()],
            ..works.clone()
        };
        let report =
            |query: SelfTest, fallback: Option<SelfTest>, disturbed: Option<&str>| CanaryReport {
                sensors: PerSensor::from_fn(|sensor| match sensor.is_optional() {
                    true => fallback.clone().filter(|_| sensor == SensorId::Fallback),
                    false => Some(query.clone()),
                }),
                skipped: Vec::new(),
                disturbed: disturbed.map(str::to_owned),
            };
        let complaint = |report: &CanaryReport| report.complaint().map(|it| it.1);
        let quiet = report(works.clone(), None, Some("a flood"));
        assert_eq!((complaint(&quiet), quiet.passing_complaint()), (None, None));
        let of_one = report(works.clone(), Some(fails("late")), Some("a flood"));
        assert_eq!(of_one.complaint().unwrap().0, SensorId::Fallback);
        assert_eq!(
            of_one.passing_complaint().unwrap(),
            "late; and more (a flood)"
        );
        let of_both = report(fails("wrong"), Some(fails("late")), None);
        assert_eq!(complaint(&of_both).unwrap(), "wrong; and more");
        assert_eq!(of_both.passing_complaint(), None);
    }
}
