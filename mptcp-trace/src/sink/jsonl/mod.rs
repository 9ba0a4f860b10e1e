//! JSON lines, documented field by field in `docs/output.md`.

mod connection;
mod fit;
mod object;
mod parts;
mod query;
mod sums;
mod verdict;

use std::collections::BTreeMap;

use serde::Serialize;

use self::{
    object::{Object, Word},
    sums::SummaryData,
};
use super::{FindingCounts, Source};
use crate::model::{
    ConnectionEvent, Facts, Finding, LastAsked, Loss, LossReport, Reconciliation, SensorState,
    SumTable,
};

/// Version of the schema in `docs/output.md`.
const SCHEMA: u32 = 1;

/// A line that is printed once per run.
#[derive(Serialize)]
struct Message<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    data: &'a T,
}

#[derive(Serialize)]
struct Start<'a> {
    schema: u32,
    version: &'a str,
    kernel: &'a str,
    source: &'static str,
    sensors: Vec<Sensor<'a>>,
}

#[derive(Serialize)]
struct Sensor<'a> {
    name: &'a str,
    rung: &'static str,
    probes: &'a [String],
    limits: &'a [String],
}

#[derive(Serialize)]
struct ReconciliationData<'a> {
    netns: u32,
    counted: &'a BTreeMap<String, u64>,
    traced: &'a BTreeMap<String, u64>,
    agrees: bool,
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct End<'a> {
    findings: u64,
    not_shown: u64,
    coalesced: u64,
    evicted: u64,
    losses: Vec<LossData<'a>>,
    complete: bool,
    reconciliation: Vec<ReconciliationData<'a>>,
}

#[derive(Serialize)]
struct LossData<'a> {
    sensor: &'a str,
    #[serde(flatten)]
    counters: Counters,
}

/// Counters of a sensor as fields of its object, in order.
struct Counters([(&'static str, u64); Loss::COUNTERS]);

impl Serialize for Counters {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0)
    }
}

pub(super) fn start(facts: &Facts, source: Source, out: &mut Vec<u8>) {
    let Facts {
        version,
        kernel,
        boot_epoch: _,
        fallback_bit: _,
        causes: _,
        counters_read_at: _,
        counters_listed_at: _,
        counters_at_start: _,
        sensors,
    } = facts;
    let sensors = sensors
        .iter()
        .map(
            |SensorState {
                 sensor,
                 rung,
                 probes,
                 limits,
             }| Sensor {
                name: sensor.name(),
                rung: rung.name(),
                probes,
                limits,
            },
        )
        .collect();
    let source = match source {
        Source::Live => "live",
        Source::Replay => "replay",
    };
    push(
        out,
        "start",
        &Start {
            schema: SCHEMA,
            version,
            kernel,
            source,
            sensors,
        },
    );
}

pub(super) fn finding(finding: &Finding, out: &mut Vec<u8>) {
    let kind = finding.kind();
    match finding {
        Finding::Query(event) => line(out, kind, |data| query::query(event, data)),
        Finding::Connection(event) => {
            line(out, kind, |data| connection::connection(event, data));
        }
        Finding::Verdict(event) => line(out, kind, |data| verdict::verdict(event, data)),
        Finding::Refusal(event) => line(out, kind, |data| query::refusal(event, data)),
    }
}

pub(super) fn socket(event: &ConnectionEvent, asked: Option<LastAsked>, out: &mut Vec<u8>) {
    line(out, "socket", |data| connection::listed(event, asked, data));
}

pub(super) fn sums(table: &SumTable, out: &mut Vec<u8>) {
    push(out, "summary", &SummaryData::of(table));
}

pub(super) fn end(
    counts: FindingCounts,
    losses: &LossReport,
    reconciled: &[Reconciliation],
    out: &mut Vec<u8>,
) {
    let FindingCounts {
        findings,
        not_shown,
        coalesced,
        evicted,
    } = counts;
    // An evicted connection may have become stale without a line.
    let complete = losses.is_complete() && evicted == 0;
    let losses = losses
        .sensors
        .iter()
        .map(|loss| LossData {
            sensor: loss.sensor.name(),
            counters: Counters(loss.counters()),
        })
        .collect();
    push(
        out,
        "end",
        &End {
            findings,
            not_shown,
            coalesced,
            evicted,
            losses,
            complete,
            reconciliation: reconciled
                .iter()
                .map(|it| ReconciliationData {
                    netns: it.netns,
                    counted: &it.counted,
                    traced: &it.traced,
                    agrees: it.agrees(),
                    why: it.why.as_deref(),
                })
                .collect(),
        },
    );
}

/// A line that is printed often.
fn line(out: &mut Vec<u8>, kind: &'static str, fields: impl FnOnce(&mut Object<'_>)) {
    Object::write(out, |message| {
        message.field("type", Word(kind));
        message.object("data", fields);
    });
    out.push(b'\n');
}

/// A line that is printed once.
fn push(out: &mut Vec<u8>, kind: &'static str, data: &impl Serialize) {
    fit::write(out, &Message { kind, data });
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_forgot_a_connection_is_not_complete() {
        for (evicted, complete) in [(0, true), (1, false)] {
            let counts = FindingCounts {
                evicted,
                ..FindingCounts::default()
            };
            let mut out = Vec::new();
            end(counts, &LossReport::default(), &[], &mut out);
            let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(line["data"]["evicted"], evicted);
            assert_eq!(line["data"]["complete"], complete);
        }
    }
}
