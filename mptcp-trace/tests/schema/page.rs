//! The tables of docs/output.md, and the JSON Schema that they are.
//!
//! The page has names, types and meanings; the model has the words. Nothing is written twice.

use std::collections::BTreeMap;

use mptcp_trace::hops::{Certainty, OptionState, Outcome as ProbeOutcome};
use mptcp_trace::model::{
    Answer, Api, By, CauseCertainty, ClosedBy, DecidedBy, Errno, Evidence, Finding, NeverTried,
    Outcome, PathKind, PathRole, ResetReason, Rung, SensorId, Shown, Side, Stage, Verdict, Via,
};
use mptcp_trace::pair::{By as PairedBy, Judgement, Packet};
use serde_json::{Map, Value, json};

/// Where the schema's `$id` says that it is from.
const ID: &str = "urn:mptcp-trace:json-lines:1";

/// The heading of the page's last table of lines.
const LAST: &str = "## JSON Schema";

/// One row of a table.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    kind: String,
    meaning: String,
}

/// The tables by name: that of a type of lines, or of a field that is an object.
pub(crate) type Tables = BTreeMap<String, Vec<Field>>;

/// The words between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Reads the tables whose first column is `field`.
pub(crate) fn tables(page: &str) -> Tables {
    let page = &page[..page.find(LAST).unwrap()];
    let mut tables = Tables::new();
    let mut names: Vec<String> = Vec::new();
    let mut is_table = false;
    for line in page.lines() {
        if line.starts_with("### ") {
            names = quoted(line).take(1).map(str::to_owned).collect();
        } else if line.starts_with("Fields of ") {
            // "Fields of `rows`, and, without `key`, of `others`:"
            let of = quoted(line).filter(|it| *it != "key");
            names = of.map(str::to_owned).collect();
        } else if line.starts_with('|') {
            is_table |= line.starts_with("| field | type | meaning |");
            if !is_table || !line.starts_with("| `") {
                continue;
            }
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            for name in &names {
                for field in quoted(cells[1]) {
                    let row = Field {
                        name: field.to_owned(),
                        kind: cells[2].to_owned(),
                        meaning: cells[3].to_owned(),
                    };
                    if (name.as_str(), field) != ("others", "key") {
                        tables.entry(name.clone()).or_default().push(row);
                    }
                }
            }
        } else {
            is_table = false;
        }
    }
    tables
}

/// The names of all variants, which must be complete to compile.
macro_rules! words {
    ($type:ident: $($variant:ident)*; $name:expr) => {{
        let _all = |it: $type| match it { $($type::$variant => {})* };
        [$($type::$variant),*].map($name).map(str::to_owned).to_vec()
    }};
}

/// The words that a field may have; `None` if it is free text.
fn words(table: &str, field: &str) -> Option<Vec<String>> {
    let fixed = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect();
    Some(match (table, field) {
        (_, "source") => fixed(&["live", "replay"]),
        ("sensors", "name") | (_, "sensor") => fixed(&SensorId::ALL.map(SensorId::name)),
        (_, "rung") => fixed(&Rung::LADDER.map(Rung::name)),
        (_, "protocol") => fixed(&["mptcp", "tcp"]),
        (_, "family") => fixed(&["ipv4", "ipv6"]),
        (_, "call") => fixed(&["getsockopt", "setsockopt"]),
        (_, "verdict" | "verdicts") => fixed(&Verdict::ALL.map(Verdict::name)),
        (_, "api") => words!(Api: TcpIsMptcp MptcpInfo MptcpTcpinfo MptcpSubflowAddrs MptcpFullInfo
            SoProtocol; Api::name),
        (_, "known") => words!(CauseCertainty: Reported Inferred Unknown; CauseCertainty::name),
        (_, "side") => words!(Side: Active Passive; Side::name),
        (_, "stage") => words!(Stage: Syn SynAck ThirdAck Data; Stage::name),
        (_, "closed_by") => words!(ClosedBy: Death Eviction Exit; ClosedBy::name),
        (_, "via") => {
            words!(Via: Socket Connect Listen Accept Io Query Listener Existing Kernel; Via::name)
        }
        (_, "role") => words!(PathRole: First Join; PathRole::name),
        (_, "decided_by") => words!(DecidedBy: Here Peer Nobody; DecidedBy::name),
        (_, "never_tried") => fixed(&NeverTried::ALL.map(NeverTried::name)),
        (_, "judgement" | "judgements") => fixed(&Judgement::ALL.map(Judgement::name)),
        (_, "peer_or_path") => fixed(&["path", "peer", "unknown"]),
        (_, "packet") => fixed(&Packet::ALL.map(Packet::name)),
        (_, "joined_by") => fixed(&PairedBy::ALL.map(PairedBy::name)),
        ("reset", "name") => fixed(&ResetReason::NAMES),
        ("conclusions", "name") => fixed(&Shown::ALL.map(Shown::name)),
        (_, "outcome") => {
            let all = [
                Outcome::Mptcp,
                Outcome::FellBack {
                    at: None,
                    cause: None,
                },
                Outcome::Unknown,
            ];
            let _all = |it: Outcome| match it {
                Outcome::Mptcp | Outcome::FellBack { .. } | Outcome::Unknown => {}
            };
            fixed(&all.iter().map(Outcome::name).collect::<Vec<_>>())
        }
        ("probe", "conclusion") => fixed(&ProbeOutcome::ALL.map(ProbeOutcome::name)),
        ("probe" | "conclusions", "certainty") => fixed(&Certainty::ALL.map(Certainty::name)),
        ("probe", "data_end") => fixed(&["acknowledged", "without-dss", "silence", "not-opened"]),
        (_, "result") => fixed(&["quote", "unreachable", "syn-ack", "reset", "echo", "silent"]),
        (_, "option_state") => fixed(&OptionState::ALL.map(OptionState::name)),
        (_, "by") => {
            words!(By: Process Cause Dest Netns Cgroup Verdict Path Endpoint Interface; By::name)
        }
        (_, "evidence") => words!(Evidence: BadChecksum NoDss InvalidMapping MpFailReceived
            MpFailSent InfiniteMappingReceived InfiniteMappingSent SimultaneousOpen; Evidence::name),
        (_, "answer") => {
            let errno = Errno(1);
            let all = [
                Answer::Mptcp,
                Answer::Tcp,
                Answer::Unsupported(errno),
                Answer::Failed(errno),
                Answer::Unknown,
            ];
            let _all = |it: Answer| match it {
                Answer::Mptcp
                | Answer::Tcp
                | Answer::Unsupported(_)
                | Answer::Failed(_)
                | Answer::Unknown => {}
            };
            fixed(&all.into_iter().filter_map(Answer::word).collect::<Vec<_>>())
        }
        _ => return None,
    })
}

/// The form of a text.
fn pattern(field: &str) -> Option<&'static str> {
    Some(match field {
        // "?" if the clock is beyond all calendars.
        "time" => r"^(\?|-?[0-9]{4,6}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z)$",
        "id" => "^0x[0-9a-f]{16}@[0-9]+(#[0-9]+)?$",
        "path_id" => "^0x[0-9a-f]{16}@[0-9]+$",
        "socket" | "msk" => "^0x[0-9a-f]{16}$",
        "errno" => "^E[A-Z0-9]+$",
        "ip" | "tcp" => "^([0-9a-f]{2})+$",
        "state" => "^[A-Z0-9_]+$",
        _ => return None,
    })
}

/// The schema of a field's value, without "null" and "absent".
fn value(table: &str, field: &Field, kind: &str) -> Value {
    let text = || match (words(table, &field.name), pattern(&field.name)) {
        (Some(words), _) => json!({"type": "string", "enum": words}),
        (None, Some(pattern)) => json!({"type": "string", "pattern": pattern}),
        (None, None) => json!({"type": "string"}),
    };
    let object = || json!({"$ref": format!("#/$defs/{}", field.name)});
    match kind {
        "number" => json!({"type": "integer", "minimum": 0}),
        "fraction" => json!({"type": "number", "minimum": 0, "maximum": 1}),
        "boolean" => json!({"type": "boolean"}),
        "string" => text(),
        "object" => object(),
        "array of numbers" => {
            json!({"type": "array", "items": {"type": "integer", "minimum": 0}})
        }
        "array of strings" => json!({"type": "array", "items": text()}),
        "array of objects" => json!({"type": "array", "items": object()}),
        "map of numbers" => {
            let mut map = json!({
                "type": "object",
                "additionalProperties": {"type": "integer", "minimum": 0}
            });
            if let Some(words) = words(table, &field.name) {
                map["propertyNames"] = json!({"enum": words});
            }
            map
        }
        other => panic!("{table}: {}: the type {other:?} is unknown", field.name),
    }
}

/// The row that a row without a type refers to, with the meaning of both.
fn resolved<'a>(tables: &'a Tables, table: &'a str, field: &Field) -> (&'a str, Field) {
    if !field.kind.is_empty() {
        return (table, field.clone());
    }
    let (before, after) = (field.meaning.split_once("as in `"))
        .unwrap_or_else(|| panic!("{table}: {} has no type", field.name));
    let of = after.split('`').next().unwrap();
    let (of, _) = tables
        .get_key_value(of)
        .unwrap_or_else(|| panic!("no table {of}"));
    let of: &str = of;
    let other = tables[of].iter().find(|it| it.name == field.name);
    let other = other.unwrap_or_else(|| panic!("{of} has no {}", field.name));
    let (of, found) = resolved(tables, of, other);
    let own = before.trim().trim_end_matches(',');
    let meaning = match own {
        "" => found.meaning.clone(),
        own => format!("{own}; {}", found.meaning),
    };
    (of, Field { meaning, ..found })
}

/// The schema of an object.
fn object(tables: &Tables, table: &str) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in &tables[table] {
        let (of, field) = resolved(tables, table, field);
        let kind = field.kind.as_str();
        let (kind, is_required) = match kind.strip_suffix(" or absent") {
            Some(kind) => (kind, false),
            None => (kind, true),
        };
        let mut schema = match kind.strip_suffix(" or null") {
            Some(kind) => json!({"anyOf": [value(of, &field, kind), {"type": "null"}]}),
            None => value(of, &field, kind),
        };
        schema["description"] = json!(field.meaning);
        if is_required {
            required.push(field.name.clone());
        }
        let before = properties.insert(field.name.clone(), schema);
        assert!(before.is_none(), "{table} has {} twice", field.name);
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The types of lines, each with the table of its fields.
fn lines() -> Vec<(&'static str, &'static str)> {
    let table = |kind| match kind {
        "refused" | "plain" | "existing" | "blackhole" => "fallback",
        kind if PathKind::ALL.iter().any(|it| it.name() == kind) => PathKind::Up.name(),
        other => other,
    };
    let findings = Finding::KINDS.map(|kind| (kind, table(kind)));
    let others = [
        "start",
        "summary",
        "socket",
        "probe",
        "pair_start",
        "pair",
        "pair_end",
        "end",
    ]
    .map(|kind| (kind, kind));
    [&findings[..], &others].concat()
}

/// The schema of a line.
pub(crate) fn schema(page: &str) -> Value {
    let tables = tables(page);
    let definitions: Map<String, Value> = tables
        .keys()
        .map(|name| (name.clone(), object(&tables, name)))
        .collect();
    let lines: Vec<Value> = lines()
        .into_iter()
        .map(|(kind, table)| {
            json!({
                "title": kind,
                "type": "object",
                "properties": {
                    "type": {"const": kind},
                    "data": {"$ref": format!("#/$defs/{table}")},
                },
                "required": ["type", "data"],
                "additionalProperties": false,
            })
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "A JSON line of mptcp-trace",
        "description": "The lines of --json, also of mptcp-trace list and probe: docs/output.md.",
        "oneOf": lines,
        "$defs": definitions,
    })
}
