//! JSON lines, documented field by field in `docs/output.md`.

mod connection;
mod fit;
mod object;
mod packet;
mod parts;
mod path;
mod query;
mod sums;
mod verdict;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use self::{
    object::{Object, Word},
    sums::SummaryData,
};
use super::{ConnectionCounts, FindingCounts, Source};
use crate::model::{
    ConnectionEvent, Facts, Finding, LastAsked, Loss, LossReport, PathEvent, Reconciliation,
    Reconciliations, SensorState, SumTable,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    dump_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dump_to: Option<String>,
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
    routine: u64,
    coalesced: u64,
    evicted: u64,
    connections: Option<ConnectionsData>,
    losses: Vec<LossData<'a>>,
    complete: bool,
    reconciliation: Vec<ReconciliationData<'a>>,
    path_reconciliation: Vec<ReconciliationData<'a>>,
}

#[derive(Serialize)]
struct ConnectionsData {
    closed: u64,
    mptcp: u64,
    fell_back: u64,
    unknown: u64,
    open: u64,
    not_opened: u64,
}

impl From<ConnectionCounts> for ConnectionsData {
    fn from(counts: ConnectionCounts) -> Self {
        let ConnectionCounts {
            closed,
            mptcp,
            fell_back,
            unknown,
            open,
            not_opened,
        } = counts;
        Self {
            closed,
            mptcp,
            fell_back,
            unknown,
            open,
            not_opened,
        }
    }
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
        dump: _,
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
    let dumped = facts.dumped();
    let time = |at| Timestamp::try_from(at).map_or_else(|_| "?".to_owned(), |it| it.to_string());
    push(
        out,
        "start",
        &Start {
            schema: SCHEMA,
            version,
            kernel,
            source,
            dump_from: dumped.map(|(from, _)| time(from)),
            dump_to: dumped.and_then(|(_, to)| to).map(time),
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
        Finding::Path(event) => line(out, kind, |data| path::path(event, data)),
        Finding::Closed(event) => line(out, kind, |data| path::closed(event, data)),
    }
}

pub(super) fn socket(event: &ConnectionEvent, asked: Option<LastAsked>, out: &mut Vec<u8>) {
    line(out, "socket", |data| connection::listed(event, asked, data));
}

pub(super) fn open_path(event: &PathEvent, out: &mut Vec<u8>) {
    line(out, event.path.kind.name(), |data| path::path(event, data));
}

pub(super) fn sums(table: &SumTable, out: &mut Vec<u8>) {
    push(out, "summary", &SummaryData::of(table));
}

pub(super) fn end(
    counts: FindingCounts,
    losses: &LossReport,
    reconciled: &Reconciliations,
    out: &mut Vec<u8>,
) {
    let FindingCounts {
        findings,
        not_shown,
        routine,
        coalesced,
        evicted,
        connections,
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
            routine,
            coalesced,
            evicted,
            connections: connections.map(ConnectionsData::from),
            losses,
            complete,
            reconciliation: reconciled.fallbacks.iter().map(compared).collect(),
            path_reconciliation: reconciled.paths.iter().map(compared).collect(),
        },
    );
}

fn compared(it: &Reconciliation) -> ReconciliationData<'_> {
    ReconciliationData {
        netns: it.netns,
        counted: &it.counted,
        traced: &it.traced,
        agrees: it.agrees(),
        why: it.why.as_deref(),
    }
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
    use crate::model::{
        NeverTried, Outcome, Path, PathKind, ResetReason,
        fixture::{Row, a_path},
    };

    /// No capture has these lines, which `tests/schema` compares with the page otherwise.
    #[test]
    fn lines_about_paths_are_those_of_the_schema() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../../docs/schema.json")).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let check = |finding: &Finding| {
            let mut out = Vec::new();
            super::finding(finding, &mut out);
            let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let wrong = validator.iter_errors(&line).next().map(|it| it.to_string());
            assert_eq!(wrong, None, "{line}");
            line
        };
        for kind in PathKind::ALL {
            let line = check(&Row::default().path(a_path(kind)));
            assert_eq!(line["type"], kind.name());
        }
        let line = check(&Row::default().path(a_path(PathKind::Failed)));
        assert_eq!(line["data"]["reset"]["name"], "prohibited");
        // Nothing is known but that it happened.
        let bare = Path {
            path: None,
            owner: None,
            side: None,
            began_at: None,
            up_at: None,
            cause: None,
            decided_by: None,
            reset: Some(ResetReason {
                code: 255,
                transient: true,
                received: true,
            }),
            errno: None,
            ledger: None,
            ..a_path(PathKind::Down)
        };
        let line = check(&Row::default().path(bare));
        assert!(line["data"]["reset"]["name"].is_null(), "{line}");
        let line = check(&Row::default().closed(|_| {}));
        let paths = line["data"]["paths"].as_array().unwrap();
        assert_eq!(paths.len(), 3);
        assert_eq!(paths[0]["cause"], "MPJoinSynRefused");
        assert!(paths[0]["ledger"].is_null());
        assert_eq!(paths[1]["ledger"]["rtt_ns"], 20_000_000);
        for reason in NeverTried::ALL {
            check(&Row::default().closed(|it| {
                it.never_tried = Some(reason);
                it.outcome = Outcome::Unknown;
                it.duration = None;
                it.paths.clear();
            }));
        }
        let line = check(&Row::default().closed(|it| {
            it.outcome = Outcome::FellBack {
                at: None,
                cause: Some("DssFallback".into()),
            };
        }));
        assert_eq!(line["data"]["outcome"], "fell-back");
        assert_eq!(line["data"]["cause"], "DssFallback");
    }

    #[test]
    fn the_end_counts_connections_only_if_paths_were_traced() {
        for (connections, closed) in [
            (None, None),
            (
                Some(ConnectionCounts {
                    closed: 3,
                    ..ConnectionCounts::default()
                }),
                Some(3),
            ),
        ] {
            let counts = FindingCounts {
                connections,
                ..FindingCounts::default()
            };
            let mut out = Vec::new();
            end(
                counts,
                &LossReport::default(),
                &Reconciliations::default(),
                &mut out,
            );
            let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let found = &line["data"]["connections"];
            assert_eq!(found.is_null(), closed.is_none(), "{line}");
            assert_eq!(found["closed"].as_u64(), closed);
        }
    }

    #[test]
    fn a_run_that_forgot_a_connection_is_not_complete() {
        for (evicted, complete) in [(0, true), (1, false)] {
            let counts = FindingCounts {
                evicted,
                ..FindingCounts::default()
            };
            let mut out = Vec::new();
            end(
                counts,
                &LossReport::default(),
                &Reconciliations::default(),
                &mut out,
            );
            let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(line["data"]["evicted"], evicted);
            assert_eq!(line["data"]["complete"], complete);
        }
    }
}
