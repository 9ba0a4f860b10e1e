//! JSON lines, as `docs/output.md` promises them field by field.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde::Serialize;

use super::{Source, Told};
use crate::model::{
    Connection, ConnectionEvent, ConnectionKind, Facts, Family, Finding, Judgement, LastAsked,
    Loss, LossReport, Owner, Place, Process, Protocol, Query, QueryEvent, Reconciliation, Refusal,
    RefusalEvent, Refused, SensorState, Side, Socket, Stage, Sum, SumRow, SumTable, SwitchedOff,
    VerdictEvent,
};

/// Version of `docs/output.md`.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Message<'a> {
    Start(Start<'a>),
    Query(Box<QueryData<'a>>),
    Fallback(Box<ConnectionData<'a>>),
    Refused(Box<ConnectionData<'a>>),
    Plain(Box<ConnectionData<'a>>),
    Existing(Box<ConnectionData<'a>>),
    Blackhole(Box<ConnectionData<'a>>),
    Verdict(Box<VerdictData<'a>>),
    OptionRefused(Box<OptionRefusedData<'a>>),
    SocketRefused(Box<SocketRefusedData<'a>>),
    Summary(SummaryData<'a>),
    Socket(Box<SocketData<'a>>),
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
    id: Option<String>,
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
    verdict: Option<&'static str>,
    why: Option<&'a str>,
    cause: Option<&'a str>,
    delay_ns: Option<u64>,
    rung: &'static str,
}

#[derive(Serialize)]
struct VerdictData<'a> {
    time: String,
    boottime_ns: u64,
    id: String,
    verdict: &'static str,
    why: &'a str,
    cause: Option<&'a str>,
    fell_back_at_ns: Option<u64>,
    delay_ns: Option<u64>,
    closed_by: &'static str,
    questions: u64,
    api: Option<&'static str>,
    answer: Option<&'static str>,
    answered_at_ns: Option<u64>,
    owner: Option<OwnerData<'a>>,
    netns: u32,
    socket: String,
    inode: Option<u64>,
    protocol: &'static str,
    family: &'static str,
    state: String,
    local: Endpoint,
    remote: Endpoint,
}

#[derive(Serialize)]
struct OptionRefusedData<'a> {
    time: String,
    boottime_ns: u64,
    pid: u32,
    tid: u32,
    comm: &'a str,
    uid: u32,
    cgroup_id: u64,
    netns: u32,
    socket: String,
    inode: Option<u64>,
    family: &'static str,
    state: String,
    local: Endpoint,
    remote: Endpoint,
    call: &'static str,
    level: u32,
    optname: u32,
    option: Option<&'static str>,
    errno: String,
    why: &'static str,
    rung: &'static str,
}

#[derive(Serialize)]
struct SocketRefusedData<'a> {
    time: String,
    boottime_ns: u64,
    pid: u32,
    tid: u32,
    comm: &'a str,
    uid: u32,
    cgroup_id: u64,
    netns: u32,
    family: &'static str,
    errno: String,
    why: &'static str,
    rung: &'static str,
}

#[derive(Serialize)]
struct ConnectionData<'a> {
    time: String,
    boottime_ns: u64,
    id: String,
    cause: Option<&'a str>,
    known: &'static str,
    side: Option<&'static str>,
    stage: Option<&'static str>,
    since_connect_ns: Option<u64>,
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    evidence: Vec<&'static str>,
    existing: bool,
    fell_back: Option<bool>,
    late: bool,
    off_ms: Option<u64>,
    switched_off: Option<SwitchedOffData<'a>>,
    owner: Option<OwnerData<'a>>,
    current: Current<'a>,
    netns: u32,
    socket: String,
    inode: Option<u64>,
    protocol: &'static str,
    family: &'static str,
    state: String,
    local: Endpoint,
    remote: Endpoint,
    rung: &'static str,
}

#[derive(Serialize)]
struct OwnerData<'a> {
    pid: u32,
    tid: u32,
    comm: &'a str,
    uid: u32,
    cgroup_id: u64,
    cgroup: Option<&'a str>,
    container: Option<&'a str>,
    unit: Option<&'a str>,
    via: &'static str,
}

#[derive(Serialize)]
struct SwitchedOffData<'a> {
    boottime_ns: u64,
    off_ms: Option<u64>,
    id: String,
    remote: Endpoint,
    pid: Option<u32>,
    comm: Option<&'a str>,
}

#[derive(Serialize)]
struct Current<'a> {
    pid: u32,
    comm: &'a str,
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
struct Endpoint {
    addr: String,
    port: u16,
}

#[derive(Serialize)]
struct End<'a> {
    findings: u64,
    not_shown: u64,
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

#[derive(Serialize)]
struct SocketData<'a> {
    id: String,
    state: String,
    fell_back: Option<bool>,
    cause: Option<&'a str>,
    known: &'static str,
    side: Option<&'static str>,
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    subflows: Option<u16>,
    asked: Option<AskedData>,
    owner: Option<OwnerData<'a>>,
    netns: u32,
    socket: String,
    inode: Option<u64>,
    family: &'static str,
    local: Endpoint,
    remote: Endpoint,
}

#[derive(Serialize)]
struct AskedData {
    api: &'static str,
    answer: Option<&'static str>,
    answered_at_ns: u64,
}

#[derive(Serialize)]
struct SummaryData<'a> {
    by: &'static str,
    rows: Vec<SumRowData<'a>>,
    others: Option<SumData>,
    forgotten: u64,
}

#[derive(Serialize)]
struct SumRowData<'a> {
    key: &'a str,
    #[serde(flatten)]
    sum: SumData,
}

#[derive(Serialize)]
struct SumData {
    connections: u64,
    fallbacks: u64,
    questions: u64,
    refusals: u64,
    verdicts: BTreeMap<&'static str, u64>,
    share: Option<f64>,
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
        causes: _,
        counters_read_at: _,
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
        Finding::Connection(event) => {
            let data = Box::new(connection(event));
            let message = match event.connection.kind {
                ConnectionKind::Fallback => Message::Fallback(data),
                ConnectionKind::Refused => Message::Refused(data),
                ConnectionKind::Plain => Message::Plain(data),
                ConnectionKind::Existing => Message::Existing(data),
                ConnectionKind::Blackhole => Message::Blackhole(data),
                // Only tells whose an earlier event is; never a finding of its own.
                ConnectionKind::Accepted | ConnectionKind::Closed => return,
            };
            push(out, &message);
        }
        Finding::Verdict(event) => push(out, &Message::Verdict(Box::new(verdict(event)))),
        Finding::Refusal(event) => push(out, &refusal(event)),
    }
}

pub(super) fn socket(event: &ConnectionEvent, asked: Option<LastAsked>, out: &mut Vec<u8>) {
    let ConnectionData {
        id,
        cause,
        known,
        side,
        bytes_sent,
        bytes_received,
        fell_back,
        owner,
        netns,
        socket,
        inode,
        family,
        state,
        local,
        remote,
        ..
    } = connection(event);
    push(
        out,
        &Message::Socket(Box::new(SocketData {
            id,
            state,
            fell_back,
            cause,
            known,
            side,
            bytes_sent,
            bytes_received,
            subflows: event.connection.subflows,
            asked: asked.map(asked_data),
            owner,
            netns,
            socket,
            inode,
            family,
            local,
            remote,
        })),
    );
}

fn asked_data(LastAsked { at, api, answer }: LastAsked) -> AskedData {
    AskedData {
        api: api.name(),
        answer: answer.word(),
        answered_at_ns: ns(at),
    }
}

pub(super) fn sums(table: &SumTable, out: &mut Vec<u8>) {
    let SumTable {
        by,
        rows,
        others,
        forgotten,
    } = table;
    push(
        out,
        &Message::Summary(SummaryData {
            by: by.name(),
            rows: rows
                .iter()
                .map(|SumRow { key, sum }| SumRowData {
                    key,
                    sum: sum_data(sum),
                })
                .collect(),
            others: others.as_ref().map(sum_data),
            forgotten: *forgotten,
        }),
    );
}

fn sum_data(sum: &Sum) -> SumData {
    let Sum {
        connections,
        fallbacks,
        questions,
        refusals,
        verdicts,
    } = sum;
    SumData {
        connections: *connections,
        fallbacks: *fallbacks,
        questions: *questions,
        refusals: *refusals,
        verdicts: verdicts
            .iter()
            .map(|(verdict, count)| (verdict.name(), *count))
            .collect(),
        share: sum.share(),
    }
}

pub(super) fn end(
    told: Told,
    losses: &LossReport,
    reconciled: &[Reconciliation],
    out: &mut Vec<u8>,
) {
    let Told {
        findings,
        not_shown,
        evicted,
    } = told;
    // What nobody remembers to its end may be stale without a line.
    let complete = losses.is_complete() && evicted == 0;
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
            not_shown,
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
        }),
    );
}

fn query(event: &QueryEvent) -> QueryData<'_> {
    let QueryEvent {
        query,
        time,
        judgement,
    } = event;
    let Query {
        asked_at,
        latency,
        process,
        socket,
        id: connection_id,
        connected_at: _,
        api,
        answer,
        errno,
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
    let msk = (*protocol == Protocol::Mptcp).then(|| id.clone());
    QueryData {
        time: rfc3339(*time),
        boottime_ns: ns(*asked_at),
        latency_ns: ns(*latency),
        pid: process.pid,
        tid: process.tid,
        comm: &process.comm,
        uid: process.uid,
        cgroup_id: process.cgroup_id,
        netns: *netns,
        id: connection_id.map(|id| id.to_string()),
        socket: id,
        msk,
        inode: *inode,
        protocol: protocol_name(*protocol),
        family: family_name(*family),
        state: state.to_string(),
        local: endpoint(*local),
        remote: endpoint(*remote),
        api: api.name(),
        answer: answer.word(),
        errno: errno.map(|errno| errno.to_string()),
        fell_back: *fell_back,
        verdict: judgement.as_ref().map(|it| it.verdict.name()),
        why: judgement.as_ref().map(|it| it.sentence.as_str()),
        cause: judgement.as_ref().and_then(|it| it.cause.as_deref()),
        delay_ns: judgement.as_ref().and_then(|it| it.delay).map(ns),
        rung: rung.name(),
    }
}

fn verdict(event: &VerdictEvent) -> VerdictData<'_> {
    let VerdictEvent {
        judgement:
            Judgement {
                verdict,
                sentence,
                fell_back_at,
                cause,
                delay,
            },
        id,
        at,
        time,
        closed_by,
        owner,
        place,
        socket,
        asked,
        questions,
    } = event;
    let Socket {
        id: address,
        inode,
        netns,
        protocol,
        family,
        state,
        local,
        remote,
    } = socket;
    VerdictData {
        time: rfc3339(*time),
        boottime_ns: ns(*at),
        id: id.to_string(),
        verdict: verdict.name(),
        why: sentence,
        cause: cause.as_deref(),
        fell_back_at_ns: fell_back_at.map(ns),
        delay_ns: delay.map(ns),
        closed_by: closed_by.name(),
        questions: *questions,
        api: asked.map(|it| it.api.name()),
        answer: asked.and_then(|it| it.answer.word()),
        answered_at_ns: asked.map(|it| ns(it.at)),
        owner: owner.as_ref().map(|owner| owner_data(owner, place)),
        netns: *netns,
        socket: address.to_string(),
        inode: *inode,
        protocol: protocol_name(*protocol),
        family: family_name(*family),
        state: state.to_string(),
        local: endpoint(*local),
        remote: endpoint(*remote),
    }
}

fn refusal(event: &RefusalEvent) -> Message<'_> {
    let RefusalEvent { refusal, time } = event;
    let Refusal {
        at,
        process,
        what,
        errno,
        rung,
    } = refusal;
    let Process {
        pid,
        tid,
        uid,
        cgroup_id,
        comm,
    } = process;
    match what {
        Refused::Option {
            socket,
            level,
            optname,
            is_set: _,
        } => {
            let Socket {
                id,
                inode,
                netns,
                protocol: _,
                family,
                state,
                local,
                remote,
            } = socket;
            Message::OptionRefused(Box::new(OptionRefusedData {
                time: rfc3339(*time),
                boottime_ns: ns(*at),
                pid: *pid,
                tid: *tid,
                comm,
                uid: *uid,
                cgroup_id: *cgroup_id,
                netns: *netns,
                socket: id.to_string(),
                inode: *inode,
                family: family_name(*family),
                state: state.to_string(),
                local: endpoint(*local),
                remote: endpoint(*remote),
                call: refusal.call(),
                level: *level,
                optname: *optname,
                option: refusal.option(),
                errno: errno.to_string(),
                why: refusal.why(),
                rung: rung.name(),
            }))
        }
        Refused::Socket { family, netns } => Message::SocketRefused(Box::new(SocketRefusedData {
            time: rfc3339(*time),
            boottime_ns: ns(*at),
            pid: *pid,
            tid: *tid,
            comm,
            uid: *uid,
            cgroup_id: *cgroup_id,
            netns: *netns,
            family: family_name(*family),
            errno: errno.to_string(),
            why: refusal.why(),
            rung: rung.name(),
        })),
    }
}

fn connection(event: &ConnectionEvent) -> ConnectionData<'_> {
    let ConnectionEvent {
        connection,
        time,
        place,
        switched_off,
    } = event;
    let Connection {
        kind: _,
        at,
        id,
        socket,
        owner,
        unaccepted: _,
        admitted: _,
        cause,
        known,
        side,
        stage,
        since_connect,
        bytes,
        // Said of sockets that are there, not of what happened: only the last subflow can fall back.
        subflows: _,
        evidence,
        existing,
        fell_back,
        late,
        current: (current_pid, current_comm),
        off_for,
        rung,
    } = connection;
    let Socket {
        id: address,
        inode,
        netns,
        protocol,
        family,
        state,
        local,
        remote,
    } = socket;
    ConnectionData {
        time: rfc3339(*time),
        boottime_ns: ns(*at),
        id: id.to_string(),
        cause: cause.as_deref(),
        known: known.name(),
        side: side.map(Side::name),
        stage: stage.map(Stage::name),
        since_connect_ns: since_connect.map(ns),
        bytes_sent: bytes.map(|(sent, _)| sent),
        bytes_received: bytes.map(|(_, received)| received),
        evidence: evidence.iter().map(|it| it.name()).collect(),
        existing: *existing,
        fell_back: *fell_back,
        late: *late,
        off_ms: off_for.and_then(millis),
        switched_off: switched_off.as_ref().map(switched_off_data),
        owner: owner.as_ref().map(|owner| owner_data(owner, place)),
        current: Current {
            pid: *current_pid,
            comm: current_comm,
        },
        netns: *netns,
        socket: address.to_string(),
        inode: *inode,
        protocol: protocol_name(*protocol),
        family: family_name(*family),
        state: state.to_string(),
        local: endpoint(*local),
        remote: endpoint(*remote),
        rung: rung.name(),
    }
}

fn switched_off_data(switched_off: &SwitchedOff) -> SwitchedOffData<'_> {
    let SwitchedOff {
        at,
        off_for,
        id,
        remote,
        owner,
    } = switched_off;
    let process = owner.as_ref().map(|owner| &owner.process);
    SwitchedOffData {
        boottime_ns: ns(*at),
        off_ms: off_for.and_then(millis),
        id: id.to_string(),
        remote: endpoint(*remote),
        pid: process.map(|process| process.pid),
        comm: process.map(|process| process.comm.as_str()),
    }
}

fn millis(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_millis()).ok()
}

fn owner_data<'a>(owner: &'a Owner, place: &'a Place) -> OwnerData<'a> {
    let Owner { process, via } = owner;
    let Place {
        cgroup,
        container,
        unit,
    } = place;
    OwnerData {
        pid: process.pid,
        tid: process.tid,
        comm: &process.comm,
        uid: process.uid,
        cgroup_id: process.cgroup_id,
        cgroup: cgroup.as_deref(),
        container: container.as_deref(),
        unit: unit.as_deref(),
        via: via.name(),
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Mptcp => "mptcp",
        Protocol::Tcp => "tcp",
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_forgot_a_connection_is_not_complete() {
        for (evicted, complete) in [(0, true), (1, false)] {
            let told = Told {
                evicted,
                ..Told::default()
            };
            let mut out = Vec::new();
            end(told, &LossReport::default(), &[], &mut out);
            let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(line["data"]["evicted"], evicted);
            assert_eq!(line["data"]["complete"], complete);
        }
    }
}
