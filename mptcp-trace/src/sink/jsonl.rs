//! JSON lines, as `docs/output.md` promises them field by field.

use std::{net::SocketAddr, time::SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use super::Source;
use crate::model::{
    Facts, Family, Finding, Loss, LossReport, Protocol, Query, QueryEvent, SensorState, Socket,
};

/// Version of `docs/output.md`.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Message<'a> {
    Start(Start<'a>),
    Query(Box<QueryData<'a>>),
    End(End<'a>),
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
struct QueryData<'a> {
    time: String,
    boottime_ns: u64,
    latency_ns: u64,
    pid: u32,
    tid: u32,
    comm: &'a str,
    uid: u32,
    cgroup_id: u64,
    netns: u32,
    socket: String,
    msk: Option<String>,
    inode: Option<u64>,
    protocol: &'static str,
    family: &'static str,
    state: String,
    local: Endpoint,
    remote: Endpoint,
    api: &'static str,
    answer: Option<&'static str>,
    errno: Option<String>,
    fell_back: Option<bool>,
    rung: &'static str,
}

#[derive(Serialize)]
struct Endpoint {
    addr: String,
    port: u16,
}

#[derive(Serialize)]
struct End<'a> {
    findings: u64,
    losses: Vec<LossData<'a>>,
    complete: bool,
}

#[derive(Serialize)]
struct LossData<'a> {
    sensor: &'a str,
    #[serde(flatten)]
    counters: Counters,
}

/// The counters of a sensor as fields of its object, in their order.
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
        sensors,
    } = facts;
    let sensors = sensors
        .iter()
        .map(
            |SensorState {
                 name,
                 rung,
                 probes,
                 limits,
             }| Sensor {
                name,
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
        &Message::Start(Start {
            schema: SCHEMA,
            version,
            kernel,
            source,
            sensors,
        }),
    );
}

pub(super) fn finding(finding: &Finding, out: &mut Vec<u8>) {
    match finding {
        Finding::Query(event) => push(out, &Message::Query(Box::new(query(event)))),
    }
}

pub(super) fn end(findings: u64, losses: &LossReport, out: &mut Vec<u8>) {
    let complete = losses.is_complete();
    let losses = losses
        .sensors
        .iter()
        .map(|loss| LossData {
            sensor: &loss.sensor,
            counters: Counters(loss.counters()),
        })
        .collect();
    push(
        out,
        &Message::End(End {
            findings,
            losses,
            complete,
        }),
    );
}

fn query(event: &QueryEvent) -> QueryData<'_> {
    let QueryEvent { query, time } = event;
    let Query {
        asked_at,
        latency,
        process,
        socket,
        api,
        answer,
        fell_back,
        rung,
        state_bits: _,
    } = query;
    let Socket {
        id,
        inode,
        netns,
        protocol,
        family,
        state,
        local,
        remote,
    } = socket;
    let id = id.to_string();
    let (protocol, msk) = match protocol {
        Protocol::Mptcp => ("mptcp", Some(id.clone())),
        Protocol::Tcp => ("tcp", None),
    };
    QueryData {
        time: rfc3339(*time),
        boottime_ns: u64::try_from(asked_at.as_nanos()).unwrap_or(u64::MAX),
        latency_ns: u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX),
        pid: process.pid,
        tid: process.tid,
        comm: &process.comm,
        uid: process.uid,
        cgroup_id: process.cgroup_id,
        netns: *netns,
        socket: id,
        msk,
        inode: *inode,
        protocol,
        family: match family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        },
        state: state.to_string(),
        local: endpoint(*local),
        remote: endpoint(*remote),
        api: api.name(),
        answer: answer.word(),
        errno: answer.errno().map(|errno| errno.to_string()),
        fell_back: *fell_back,
        rung: rung.name(),
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        addr: address.ip().to_string(),
        port: address.port(),
    }
}

/// UTC with all nine digits, so that lines sort as text.
fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "?".to_owned(), |stamp| format!("{stamp:.9}"))
}

fn push(out: &mut Vec<u8>, message: &Message<'_>) {
    // Plain structures of strings and numbers, written to memory: neither half can fail.
    let _infallible = serde_json::to_writer(&mut *out, message);
    out.push(b'\n');
}
