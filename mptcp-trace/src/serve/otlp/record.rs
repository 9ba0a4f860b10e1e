//! Converts findings to OTLP log records. Pure.
//!
//! Attributes follow OpenTelemetry's semantic conventions where these define a name; others start
//! with `mptcp.` and use the names of the JSON lines. Unknown values are omitted. `docs/metrics.md`
//! documents each attribute; a test compares the two.

mod path;

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::{boolean, int, nanos, string};
use crate::model::{
    Connection, ConnectionEvent, ConnectionId, Errno, Family, Finding, Judgement, Place, Pod,
    Process, Protocol, Query, QueryEvent, Refusal, RefusalEvent, Refused, Severity, Side, Socket,
    Stage, VerdictEvent,
};

/// A log record as JSON. `line` is the finding as text.
#[must_use]
pub fn record(finding: &Finding, line: &str, observed: SystemTime, path: Option<&str>) -> Value {
    let (kind, time) = (finding.kind(), finding.time());
    let (number, text) = severity(finding);
    let mut attributes = vec![string("mptcp.finding", kind)];
    match finding {
        Finding::Query(event) => query(event, path, &mut attributes),
        Finding::Connection(event) => connection(event, path, &mut attributes),
        Finding::Verdict(event) => verdict(event, path, &mut attributes),
        Finding::Refusal(event) => refusal(event, path, &mut attributes),
        Finding::Path(event) => path::path(event, path, &mut attributes),
        Finding::Closed(event) => path::closed(event, path, &mut attributes),
    }
    if let Some(decided) = finding.packet() {
        path::packet(decided, &mut attributes);
    }
    let mut record = Map::new();
    record.insert("timeUnixNano".into(), nanos(time).into());
    // The wall clock may have been set back since; events are dated by the boot clock.
    record.insert(
        "observedTimeUnixNano".into(),
        nanos(observed.max(time)).into(),
    );
    record.insert("severityNumber".into(), number.into());
    record.insert("severityText".into(), text.into());
    record.insert("eventName".into(), format!("mptcp.{kind}").into());
    record.insert("body".into(), json!({"stringValue": line}));
    record.insert("attributes".into(), attributes.into());
    Value::Object(record)
}

/// Number and name of a severity (OpenTelemetry's log data model, "Severity fields").
fn severity(finding: &Finding) -> (u8, &'static str) {
    match finding.severity() {
        Severity::Info => (9, "INFO"),
        Severity::Warning => (13, "WARN"),
        Severity::Error => (17, "ERROR"),
    }
}

fn query(event: &QueryEvent, path: Option<&str>, to: &mut Vec<Value>) {
    let QueryEvent {
        query,
        time: _,
        judgement,
        repeats: _,
    } = event;
    let Query {
        asked_at,
        latency: _,
        process: asker,
        socket: about,
        id,
        connected_at: _,
        api,
        answer,
        errno,
        fell_back,
        rung,
        after_untraced: _,
        state_bits: _,
    } = query;
    process(asker, path, to);
    to.extend(asker.tid.map(|tid| int("thread.id", tid)));
    socket(about, to);
    to.extend(id.map(connection_id));
    to.push(string("mptcp.api", api.name()));
    to.extend(answer.word().map(|word| string("mptcp.answer", word)));
    to.extend(errno.map(error));
    to.extend(fell_back.map(|it| boolean("mptcp.fell_back", it)));
    if let Some(judgement) = judgement {
        judged(judgement, to);
    }
    to.push(string("mptcp.rung", rung.name()));
    to.push(boottime(*asked_at));
}

fn connection(event: &ConnectionEvent, path: Option<&str>, to: &mut Vec<Value>) {
    let ConnectionEvent {
        connection,
        time: _,
        place: lives,
        switched_off: _,
        packet: _,
        history,
    } = event;
    let Connection {
        kind: _,
        at,
        id,
        socket: about,
        netns_cookie: _,
        owner,
        unaccepted: _,
        admitted: _,
        cause,
        known,
        side,
        stage,
        since_connect,
        bytes,
        subflows: _,
        evidence: _,
        existing: _,
        query_untraced: _,
        connecting: _,
        fell_back,
        late: _,
        current: _,
        off_for: _,
        marks: _,
        rung,
    } = connection;
    if let Some(owner) = owner {
        process(&owner.process, lives.cgroup.as_deref().or(path), to);
    }
    place(lives, to);
    socket(about, to);
    to.push(connection_id(*id));
    to.extend(cause.as_deref().map(|cause| string("mptcp.cause", cause)));
    to.push(string("mptcp.known", known.name()));
    to.extend(side.map(|side| string("mptcp.side", Side::name(side))));
    to.extend(stage.map(|stage| string("mptcp.stage", Stage::name(stage))));
    to.extend(since_connect.map(|since| int("mptcp.since_connect_ns", ns(since))));
    if let Some((sent, received)) = bytes {
        to.push(int("mptcp.bytes_sent", *sent));
        to.push(int("mptcp.bytes_received", *received));
    }
    to.extend(fell_back.map(|it| boolean("mptcp.fell_back", it)));
    if let Some(history) = history {
        to.push(string("mptcp.peer_or_path", history.whose.name()));
        let sentence = history.sentence();
        to.extend(sentence.map(|it| string("mptcp.peer_history", &it)));
    }
    to.push(string("mptcp.rung", rung.name()));
    to.push(boottime(*at));
}

fn verdict(event: &VerdictEvent, path: Option<&str>, to: &mut Vec<Value>) {
    let VerdictEvent {
        judgement,
        id,
        at,
        time: _,
        closed_by,
        owner,
        place: lives,
        socket: about,
        asked,
        queries,
        doubt,
    } = event;
    if let Some(owner) = owner {
        process(&owner.process, lives.cgroup.as_deref().or(path), to);
    }
    place(lives, to);
    socket(about, to);
    to.push(connection_id(*id));
    judged(judgement, to);
    if let Some(asked) = asked {
        to.push(string("mptcp.api", asked.api.name()));
        to.extend(asked.answer.word().map(|word| string("mptcp.answer", word)));
    }
    to.push(int("mptcp.questions", *queries));
    to.push(string("mptcp.closed_by", closed_by.name()));
    to.extend(doubt.as_deref().map(|doubt| string("mptcp.doubt", doubt)));
    to.push(boottime(*at));
}

fn refusal(event: &RefusalEvent, path: Option<&str>, to: &mut Vec<Value>) {
    let RefusalEvent { refusal, time: _ } = event;
    let Refusal {
        at,
        process: asker,
        what,
        errno,
        rung,
    } = refusal;
    process(asker, path, to);
    to.extend(asker.tid.map(|tid| int("thread.id", tid)));
    match what {
        Refused::Option {
            socket: about,
            level: _,
            optname: _,
            is_set: _,
        } => {
            socket(about, to);
            to.extend(refusal.option().map(|name| string("mptcp.option", name)));
        }
        Refused::Socket { family, netns } => {
            to.push(network_type(*family));
            to.push(int("mptcp.netns", *netns));
        }
    }
    to.push(error(*errno));
    to.push(string("mptcp.why", refusal.why()));
    to.push(string("mptcp.rung", rung.name()));
    to.push(boottime(*at));
}

fn process(process: &Process, cgroup: Option<&str>, to: &mut Vec<Value>) {
    let Process {
        pid,
        tid: _,
        host_pid: _,
        host_tid: _,
        uid,
        cgroup_id: _,
        comm,
    } = process;
    to.extend(pid.map(|pid| int("process.pid", pid)));
    // The conventions require the name in /proc/PID/status.
    to.push(string("process.executable.name", comm));
    to.push(int("process.real_user.id", *uid));
    to.extend(cgroup.map(|path| string("process.linux.cgroup", path)));
}

fn place(place: &Place, to: &mut Vec<Value>) {
    let Place {
        cgroup: _,
        container,
        unit,
        pod,
    } = place;
    to.extend(container.as_deref().map(|id| string("container.id", id)));
    to.extend(unit.as_deref().map(|unit| string("mptcp.unit", unit)));
    let Some(Pod {
        uid,
        namespace,
        name,
        container,
    }) = pod.as_deref()
    else {
        return;
    };
    let known = [
        ("k8s.namespace.name", namespace),
        ("k8s.pod.name", name),
        ("k8s.pod.uid", uid),
        ("k8s.container.name", container),
    ];
    to.extend(
        known
            .iter()
            .filter_map(|(key, value)| Some(string(key, value.as_deref()?))),
    );
}

fn socket(socket: &Socket, to: &mut Vec<Value>) {
    let Socket {
        id: _,
        inode: _,
        netns,
        protocol,
        family,
        state,
        local,
        remote,
    } = socket;
    to.push(string("network.transport", "tcp"));
    to.push(network_type(*family));
    for (address, port, end) in [
        ("network.local.address", "network.local.port", local),
        ("network.peer.address", "network.peer.port", remote),
    ] {
        // The address is unset before connect().
        if end.port() != 0 || !end.ip().is_unspecified() {
            to.push(string(address, &end.ip().to_string()));
            to.push(int(port, end.port()));
        }
    }
    let protocol = match protocol {
        Protocol::Mptcp => "mptcp",
        Protocol::Tcp => "tcp",
    };
    to.push(string("mptcp.protocol", protocol));
    to.push(string("mptcp.state", &state.to_string()));
    to.push(int("mptcp.netns", *netns));
}

fn judged(judgement: &Judgement, to: &mut Vec<Value>) {
    let Judgement {
        verdict,
        sentence,
        fell_back_at: _,
        cause,
        delay,
    } = judgement;
    to.push(string("mptcp.verdict", verdict.name()));
    to.push(string("mptcp.why", sentence));
    to.extend(cause.as_deref().map(|cause| string("mptcp.cause", cause)));
    to.extend(delay.map(|delay| int("mptcp.delay_ns", ns(delay))));
}

fn network_type(family: Family) -> Value {
    let family = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    string("network.type", family)
}

fn connection_id(id: ConnectionId) -> Value {
    string("mptcp.connection.id", &id.to_string())
}

fn error(errno: Errno) -> Value {
    string("mptcp.errno", &errno.to_string())
}

fn boottime(at: Duration) -> Value {
    int("mptcp.boottime_ns", ns(at))
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Outcome, Path, PathKind, PeerHistory, Spoke, Verdict, Whose};

    const INFO: (u8, &str) = (9, "INFO");
    const WARN: (u8, &str) = (13, "WARN");
    const ERROR: (u8, &str) = (17, "ERROR");
    use crate::model::fixture::{Row, a_ledger, a_path, cleared};

    fn written(finding: &Finding) -> Value {
        let observed = SystemTime::UNIX_EPOCH + Duration::from_nanos(5);
        record(finding, "line", observed, Some("/about_process"))
    }

    fn attribute(record: &Value, key: &str) -> Option<Value> {
        let all = record["attributes"].as_array().unwrap();
        let mut found = all.iter().filter(|it| it["key"] == key);
        let one = found.next().map(|it| it["value"].clone());
        assert!(found.next().is_none(), "{key} twice in {record}");
        one
    }

    #[test]
    fn a_fallback_is_a_whole_record() {
        let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        let number = |key: &str, value: &str| json!({"key": key, "value": {"intValue": value}});
        assert_eq!(
            written(&Row::default().connection()),
            json!({
                "timeUnixNano": "0",
                "observedTimeUnixNano": "5",
                "severityNumber": 13,
                "severityText": "WARN",
                "eventName": "mptcp.fallback",
                "body": {"stringValue": "line"},
                "attributes": [
                    text("mptcp.finding", "fallback"),
                    number("process.pid", "7"),
                    text("process.executable.name", "curl"),
                    number("process.real_user.id", "0"),
                    text("process.linux.cgroup", "/a/b.service"),
                    text("network.transport", "tcp"),
                    text("network.type", "ipv4"),
                    text("network.local.address", "10.0.0.1"),
                    number("network.local.port", "1000"),
                    text("network.peer.address", "192.0.2.7"),
                    number("network.peer.port", "443"),
                    text("mptcp.protocol", "mptcp"),
                    text("mptcp.state", "ESTABLISHED"),
                    number("mptcp.netns", "9"),
                    text("mptcp.connection.id", "0x0000000000000001@1"),
                    text("mptcp.cause", "DssFallback"),
                    text("mptcp.known", "reported"),
                    text("mptcp.side", "active"),
                    {"key": "mptcp.fell_back", "value": {"boolValue": true}},
                    text("mptcp.rung", "fexit"),
                    number("mptcp.boottime_ns", "1000000"),
                ],
            })
        );
    }

    #[test]
    fn a_verdict_decides_how_severe_it_is() {
        for verdict in Verdict::ALL {
            let want = match verdict.severity() {
                Severity::Error => ERROR,
                Severity::Warning => WARN,
                Severity::Info => INFO,
            };
            let row = Row {
                verdict: Some(verdict),
                ..Row::default()
            };
            for finding in [row.query(), row.closing_verdict()] {
                let record = written(&finding);
                assert_eq!(record["severityNumber"], want.0, "{record}");
                assert_eq!(record["severityText"], want.1);
                let said = attribute(&record, "mptcp.verdict").unwrap();
                assert_eq!(said["stringValue"], verdict.name());
                assert!(attribute(&record, "mptcp.cause").is_some());
            }
        }
        let about_process = written(&Row::default().query());
        let cgroup = attribute(&about_process, "process.linux.cgroup").unwrap();
        assert_eq!(cgroup["stringValue"], "/about_process");
    }

    #[test]
    fn a_record_has_what_its_packet_shows_and_what_other_connections_say_of_the_peer() {
        let mut finding = cleared(Row::default().connection());
        let Finding::Connection(event) = &mut finding else {
            unreachable!()
        };
        event.history = Some(Box::new(PeerHistory {
            whose: Whose::Peer,
            spoke: vec![Spoke {
                local: "eth0".into(),
                mptcp: 0,
                tcp: 3,
            }],
        }));
        let record = written(&finding);
        for (key, value) in [
            ("mptcp.packet.shows", "option-cleared"),
            ("mptcp.packet.certainty", "certain"),
            ("mptcp.peer_or_path", "peer"),
            (
                "mptcp.peer_history",
                "the peer is without MPTCP: 0 of 3 over eth0, where others speak it",
            ),
        ] {
            assert_eq!(attribute(&record, key).unwrap()["stringValue"], value);
        }
        let headers = attribute(&record, "mptcp.packet.headers").unwrap();
        let headers = headers["stringValue"].as_str().unwrap();
        assert!(headers.contains("options: 12 nop"), "{headers}");
        let path = written(&cleared(Row::default().path(a_path(PathKind::Failed))));
        assert!(attribute(&path, "mptcp.packet.shows").is_some());
        assert!(attribute(&path, "mptcp.peer_or_path").is_none());
    }

    #[test]
    fn a_path_says_what_happened_to_it_and_what_it_carried() {
        let path = Path {
            ledger: Some(a_ledger()),
            removed_ids: vec![1, 2],
            ..a_path(PathKind::Failed)
        };
        let record = written(&Row::default().path(path));
        assert_eq!(record["eventName"], "mptcp.path_failed");
        assert_eq!(record["severityText"], "WARN");
        for (key, value) in [
            ("mptcp.connection.id", "0x0000000000000001@1"),
            ("mptcp.path.role", "join"),
            ("mptcp.cause", "MPJoinAckRejected"),
            ("mptcp.decided_by", "peer"),
            ("mptcp.reset.name", "prohibited"),
            ("mptcp.path.removed_ids", "1,2"),
            ("process.executable.name", "curl"),
            ("network.peer.address", "192.0.2.7"),
        ] {
            let found = attribute(&record, key).unwrap();
            assert_eq!(found["stringValue"], value, "{key}");
        }
        for (key, value) in [
            ("mptcp.reset.code", "3"),
            ("mptcp.bytes_sent", "8000"),
            ("mptcp.retransmissions", "3"),
            ("mptcp.rtt_ns", "20000000"),
        ] {
            let found = attribute(&record, key).unwrap();
            assert_eq!(found["intValue"], value, "{key}");
        }
        let is_up = attribute(&record, "mptcp.path.up").unwrap();
        assert_eq!(is_up["boolValue"], false);
        // Unknown values are omitted.
        let bare = written(&Row::default().path(a_path(PathKind::Up)));
        for key in ["mptcp.reset.code", "mptcp.cause", "mptcp.bytes_sent"] {
            assert!(attribute(&bare, key).is_none(), "{key}");
        }
    }

    #[test]
    fn a_connection_that_ended_says_what_it_was() {
        let mptcp = written(&Row::default().closed(|_| {}));
        let fell_back = written(&Row::default().closed(|it| {
            it.outcome = Outcome::FellBack {
                at: None,
                cause: Some("DssFallback".into()),
            };
        }));
        assert_eq!(mptcp["eventName"], "mptcp.closed");
        for (record, outcome, cause, fallen) in [
            (&mptcp, "mptcp", None, false),
            (&fell_back, "fell-back", Some("DssFallback"), true),
        ] {
            let text = |key| attribute(record, key).map(|it| it["stringValue"].clone());
            assert_eq!(text("mptcp.outcome").unwrap(), outcome);
            assert_eq!(text("mptcp.cause"), cause.map(Into::into));
            let found = attribute(record, "mptcp.fell_back").unwrap();
            assert_eq!(found["boolValue"], fallen);
            for (key, value) in [
                ("mptcp.paths_tried", "3"),
                ("mptcp.paths_failed", "1"),
                ("mptcp.bytes_sent", "16000"),
                ("mptcp.duration_ns", "2000000000"),
            ] {
                assert_eq!(attribute(record, key).unwrap()["intValue"], value, "{key}");
            }
        }
    }

    #[test]
    fn a_pod_has_the_attributes_of_the_conventions() {
        let mut finding = Row::default().connection();
        if let Finding::Connection(event) = &mut finding {
            event.place.pod = Some(std::sync::Arc::new(Pod {
                namespace: Some("shop".into()),
                name: Some("web-0".into()),
                ..Pod::default()
            }));
        }
        let record = written(&finding);
        let text = |key| attribute(&record, key).map(|it| it["stringValue"].clone());
        assert_eq!(text("k8s.namespace.name").unwrap(), "shop");
        assert_eq!(text("k8s.pod.name").unwrap(), "web-0");
        // What is unknown is left out.
        assert_eq!(text("k8s.container.name"), None);
    }

    #[test]
    fn every_attribute_is_documented_and_no_other_is() {
        let source = include_str!("record.rs");
        let source = &source[..source.find("#[cfg(test)]").unwrap()];
        let both = [source, include_str!("record/path.rs")].concat();
        let source = both.as_str();
        let is_name = |text: &&str| {
            [
                "mptcp.",
                "network.",
                "process.",
                "thread.",
                "container.",
                "k8s.",
            ]
            .iter()
            .any(|start| text.starts_with(start))
                && !text.contains('{')
        };
        let mut used: Vec<&str> = source
            .split('"')
            .skip(1)
            .step_by(2)
            .filter(is_name)
            .collect();
        used.sort_unstable();
        used.dedup();
        let page = include_str!("../../../../docs/metrics.md");
        let mut documented: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter(|line| is_name(line))
            .filter_map(|line| line.split(" |").next())
            .flat_map(|cell| cell.split(", "))
            .map(|name| name.trim_matches('`'))
            .collect();
        documented.sort_unstable();
        assert_eq!(documented, used);
    }
}
