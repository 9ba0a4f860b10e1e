use serde_json::Value;

use super::*;
use crate::{
    model::{
        Errno, Facts, Loss, LossReport, Path, PathId, PathKind, PathRole, Refusal, RefusalEvent,
        Refused, Rung, SensorId, SocketId, Verdict,
        fixture::{Row, a_path},
    },
    observe::State,
    report::Ending,
};

const HOSTILE: &str = "\"},\u{1b}[31m\u{202e}\\\u{7f}";

fn written(findings: impl IntoIterator<Item = Finding>, state: &State, ending: &Ending) -> Value {
    let mut trace = ChromeTrace::new(Vec::new());
    for finding in findings {
        trace.finding(&finding, &|_id| None);
    }
    let account = Account {
        title: HOSTILE,
        facts: &Facts::unknown(),
        state,
        ending,
        is_selection: false,
    };
    let (_, text) = trace.finish(&account).unwrap();
    let text = String::from_utf8(text).unwrap();
    for character in ['\u{1b}', '\u{202e}', '\u{7f}'] {
        assert!(!text.contains(character), "{character:?} is in the trace");
    }
    serde_json::from_str(&text).unwrap()
}

fn trace(findings: impl IntoIterator<Item = Finding>) -> Value {
    written(findings, &State::default(), &Ending::Orderly)
}

/// The events of a phase, in order of the file.
fn of<'t>(trace: &'t Value, ph: &'static str) -> impl Iterator<Item = &'t Value> {
    let events = trace["traceEvents"].as_array().unwrap().iter();
    events.filter(move |it| it["ph"] == ph)
}

/// Names of the processes or tracks, by their numbers.
fn names(trace: &Value, of_what: &str, number: &str) -> HashMap<u64, String> {
    let names = of(trace, "M").filter(|it| it["name"] == of_what);
    let of_one = |it: &Value| {
        let name = it["args"]["name"].as_str().unwrap().to_owned();
        (it[number].as_u64().unwrap(), name)
    };
    names.map(of_one).collect()
}

fn with_owner(row: Row, pid: Option<u32>, host_pid: u32) -> Finding {
    let mut finding = row.connection();
    let Finding::Connection(event) = &mut finding else {
        panic!("no connection");
    };
    match host_pid {
        0 => event.connection.owner = None,
        host_pid => {
            let owner = event.connection.owner.as_mut().unwrap();
            (owner.process.pid, owner.process.host_pid) = (pid, host_pid);
        }
    }
    finding
}

fn row(address: u64, at_ms: u64) -> Row {
    Row {
        address,
        at_ms,
        ..Row::default()
    }
}

#[test]
fn processes_with_the_same_pid_in_different_namespaces_are_different() {
    let trace = trace([
        with_owner(row(1, 1), Some(7), 7),
        with_owner(row(2, 2), Some(7), 1007),
        with_owner(row(3, 3), None, 1008),
        with_owner(row(4, 4), None, 0),
        // No kernel has such a process.
        with_owner(row(5, 5), None, u32::MAX),
    ]);
    let pids: Vec<_> = of(&trace, "i")
        .map(|it| it["pid"].as_u64().unwrap())
        .collect();
    assert_eq!(pids, [7, 1007, 1008, UNKNOWN_OWNER, UNKNOWN_OWNER, ACCOUNT]);
    let processes = names(&trace, "process_name", "pid");
    assert_eq!(processes[&1007], "curl");
    assert_eq!(processes[&UNKNOWN_OWNER], "unknown owner");
    let labels = of(&trace, "M").filter(|it| it["name"] == "process_labels");
    let labels: Vec<_> = labels
        .map(|it| it["args"]["labels"].as_str().unwrap())
        .collect();
    assert_eq!(
        labels,
        [
            "pid 7 in the PID namespace of the tracer",
            "not in the PID namespace of the tracer"
        ]
    );
}

#[test]
fn a_connection_is_a_track_with_phases_in_order() {
    let stale = Row {
        verdict: Some(Verdict::Stale),
        ..row(1, 900)
    };
    let mut fallback = row(1, 500).connection();
    if let Finding::Connection(event) = &mut fallback {
        event.connection.since_connect = Some(Duration::from_millis(200));
    }
    let healthy = Row {
        cause: None,
        verdict: Some(Verdict::StillMptcp),
        ..row(2, 400)
    };
    let trace = trace([healthy.query(), fallback, stale.closing_verdict()]);
    let phases: Vec<_> = of(&trace, "X")
        .map(|it| {
            let number = |name: &str| it[name].as_f64().unwrap();
            let name = it["name"].as_str().unwrap();
            (
                it["tid"].as_u64().unwrap() - TRACKS_FROM,
                name,
                number("ts"),
                number("dur"),
            )
        })
        .collect();
    // In microseconds since the birth of the first one, at 1 ns.
    assert_eq!(
        phases,
        [
            (1, "MPTCP", 0.0, 399_999.999),
            (2, "MPTCP", 299_999.999, 199_999.999),
            (2, "TCP after fallback", 499_999.999, 400_000.0),
        ]
    );
    assert_eq!(
        names(&trace, "thread_name", "tid")[&(TRACKS_FROM + 2)],
        "10.0.0.1:1000 -> 192.0.2.7:443"
    );
    let outcome = of(&trace, "X").last().unwrap();
    assert_eq!(outcome["args"]["outcome"], "stale");
    assert_eq!(outcome["args"]["end"], "closed");
    assert_eq!(trace["displayTimeUnit"], "ns");
    assert_eq!(trace["otherData"]["findings"], 3);
}

#[test]
fn a_beginning_that_becomes_known_later_does_not_precede_the_trace() {
    let mut late = row(2, 600).connection();
    if let Finding::Connection(event) = &mut late {
        event.connection.since_connect = Some(Duration::from_millis(599));
        event.connection.id.born_at = Duration::from_millis(1);
    }
    let mut first = row(1, 500).connection();
    if let Finding::Connection(event) = &mut first {
        event.connection.id.born_at = Duration::from_millis(500);
    }
    for (before, begin) in [(0, 0.0), (events::HELD_MAX, 0.0)] {
        let filler = (0..before).map(|_| first.clone());
        let trace = trace(filler.chain([first.clone(), late.clone()]));
        let second = of(&trace, "X")
            .find(|it| it["tid"] == TRACKS_FROM + 2)
            .unwrap();
        assert_eq!(second["ts"].as_f64().unwrap(), begin);
        assert_eq!(
            second["args"].get("begin").is_some(),
            before > 0,
            "{second}"
        );
        let zero = trace["otherData"]["ts_zero_boottime_ns"].as_u64().unwrap();
        assert_eq!(zero, if before > 0 { 500_000_000 } else { 1_000_000 });
    }
}

#[test]
fn a_refusal_on_another_socket_at_the_same_address_extends_no_connection() {
    let refused = |local: &'static str| {
        let Finding::Query(event) = (Row {
            local,
            ..row(1, 9000)
        })
        .query() else {
            panic!("no query");
        };
        Finding::Refusal(Box::new(RefusalEvent {
            refusal: Refusal {
                at: event.query.asked_at,
                process: event.query.process,
                what: Refused::Option {
                    socket: event.query.socket,
                    level: 6,
                    optname: 31,
                    is_set: true,
                },
                errno: Errno::ENOPROTOOPT,
                rung: Rung::Fexit,
            },
            time: event.time,
        }))
    };
    for (local, track, length) in [
        ("10.0.0.1:1000", TRACKS_FROM + 1, 8_999_000.0),
        ("10.0.0.1:2000", TRACKS_OF_PROCESSES + 7, 0.0),
    ] {
        let trace = trace([row(1, 1).connection(), refused(local)]);
        let refusal = of(&trace, "i")
            .find(|it| it["cat"] == "option_refused")
            .unwrap();
        assert_eq!(refusal["name"], "refused: setsockopt TCP_ULP, ENOPROTOOPT");
        assert_eq!(refusal["tid"], track, "{local}");
        let phase = of(&trace, "X").last().unwrap();
        assert_eq!(phase["dur"].as_f64().unwrap(), length, "{local}");
    }
}

#[test]
fn names_from_outside_are_only_names() {
    let row = Row {
        comm: HOSTILE,
        cause: Some(HOSTILE),
        verdict: Some(Verdict::Stale),
        ..row(1, 1)
    };
    let trace = trace([row.connection(), row.query(), row.closing_verdict()]);
    assert_eq!(
        names(&trace, "process_name", "pid")[&7],
        "\"},\\u{1b}[31m\\u{202e}\\\\u{7f}"
    );
}

#[test]
fn numbers_that_a_reader_would_round_are_text() {
    let mut args = Args::default();
    args.number("exact", 1 << 53);
    args.number("rounded", (1 << 53) + 1);
    let args: Value = serde_json::from_str(&args.json()).unwrap();
    assert_eq!(args["exact"], 1_u64 << 53);
    assert_eq!(args["rounded"], "9007199254740993");
    assert_eq!(events::micros(Duration::from_nanos(1_234_567)), "1234.567");
    assert_eq!(events::micros(Duration::from_nanos(5)), "0.005");
}

#[test]
fn what_is_missing_is_said() {
    let loss = Loss {
        seen: 41,
        ring_full: 41,
        ..Loss::none(SensorId::Query)
    };
    let lossy = State {
        losses: LossReport {
            sensors: vec![loss],
            ..LossReport::default()
        },
        not_shown: 5,
        ..State::default()
    };
    for (state, ending, says) in [
        (State::default(), Ending::Orderly, "no losses"),
        (
            lossy.clone(),
            Ending::Orderly,
            "41 events lost or not traced",
        ),
        (
            lossy,
            Ending::CutOff,
            "the capture is cut off: losses are unknown, 41 events lost or not traced",
        ),
        (
            State::default(),
            Ending::Damaged(HOSTILE.to_owned()),
            "the capture is damaged: losses are unknown",
        ),
    ] {
        let trace = written([row(1, 1).connection()], &state, &ending);
        let account = of(&trace, "i").find(|it| it["cat"] == "account").unwrap();
        assert_eq!(account["name"], says);
        let other = &trace["otherData"];
        assert_eq!(other["losses"], account["args"]);
        assert_eq!(
            other["losses"]["untraced"],
            state.losses.sensors.len() as u64 * 41
        );
        assert_eq!(other["not_shown"], state.not_shown);
    }
}

#[test]
fn any_number_of_connections_has_its_tracks_in_bounded_memory() {
    let many = TRACKS_MAX as u64 + 100;
    let mut shared = ChromeTrace::new(Vec::new());
    for number in 1..=many {
        let finding = with_owner(row(number, number), None, u32::try_from(number).unwrap());
        shared.finding(&finding, &|_id| None);
        let inner = shared.0.borrow();
        let inner = inner.as_ref().unwrap();
        assert!(
            inner.connections.entries().count() <= TRACKS_MAX
                && inner.events.held_count() <= events::HELD_MAX
        );
    }
    let state = State::default();
    let account = Account {
        title: "",
        facts: &Facts::unknown(),
        state: &state,
        ending: &Ending::Orderly,
        is_selection: false,
    };
    let (findings, text) = shared.finish(&account).unwrap();
    let trace: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(findings, many);
    assert_eq!(trace["otherData"]["connections_split_at_most"], 100);
    assert_eq!(names(&trace, "thread_name", "tid").len() as u64, many + 1);
    assert_eq!(of(&trace, "X").count() as u64, 2 * many);
    assert!(shared.finish(&account).is_err());
}

#[test]
fn an_error_in_writing_is_reported() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let state = State::default();
    let account = Account {
        title: "",
        facts: &Facts::unknown(),
        state: &state,
        ending: &Ending::Orderly,
        is_selection: false,
    };
    for (room, fits) in [(0, false), (300, false), (1_000_000, true)] {
        let mut trace = ChromeTrace::new(Full(room));
        trace.finding(&row(1, 1).connection(), &|_id| None);
        assert_eq!(trace.finish(&account).is_ok(), fits, "{room}");
    }
}

#[test]
fn an_ipv4_peer_of_an_ipv6_socket_has_an_ipv4_address() {
    let mapped = Row {
        local: "[::ffff:10.0.0.1]:40000",
        remote: "[::ffff:10.0.0.2]:443",
        ..row(1, 500)
    };
    let text = trace([mapped.connection()]).to_string();
    assert!(text.contains("\"10.0.0.2:443\""), "{text}");
    assert!(!text.contains("::ffff:"), "{text}");
}

#[test]
fn a_path_is_a_track_with_nested_spans() {
    let event = |kind, at_ms| {
        let path = Path {
            path: Some(PathId {
                socket: SocketId(5),
                began_at: Duration::from_millis(100),
            }),
            began_at: Some(Duration::from_millis(100)),
            up_at: Some(Duration::from_millis(120)),
            role: PathRole::Join,
            ..a_path(kind)
        };
        Row {
            cause: None,
            ..row(1, at_ms)
        }
        .path(path)
    };
    let failed = Row {
        cause: None,
        ..row(1, 500)
    }
    .path(Path {
        path: None,
        began_at: Some(Duration::from_millis(400)),
        up_at: None,
        ..a_path(PathKind::Failed)
    });
    let closed = Row {
        cause: None,
        ..row(1, 900)
    }
    .closed(|_| {});
    let trace = trace([
        event(PathKind::Up, 120),
        event(PathKind::Stale, 300),
        event(PathKind::Recovered, 350),
        failed,
        event(PathKind::Down, 900),
        closed,
    ]);
    let tracks = names(&trace, "thread_name", "tid");
    assert_eq!(
        tracks[&(PATHS_FROM + 1)],
        "path 10.0.0.1:1000 -> 192.0.2.7:443 (join)"
    );
    let owner = |tid: u64| of_tid(&trace, tid).next().unwrap()["pid"].as_u64();
    assert_eq!(owner(PATHS_FROM + 1), owner(TRACKS_FROM + 1));
    let spans: Vec<_> = of_tid(&trace, PATHS_FROM + 1)
        .chain(of_tid(&trace, PATHS_FROM + 2))
        .map(|it| {
            let ms = |name: &str| it[name].as_f64().unwrap() / 1000.0;
            let end = ms("ts") + ms("dur");
            (it["name"].as_str().unwrap(), ms("ts").round(), end.round())
        })
        .collect();
    assert_eq!(
        spans,
        [
            (
                "up, then down: connection-closed, by the peer",
                100.0,
                900.0
            ),
            ("handshake", 100.0, 120.0),
            ("stale", 300.0, 350.0),
            (
                "failed: MPJoinAckRejected (prohibited), by the peer",
                400.0,
                500.0
            ),
        ]
    );
    let instants: Vec<_> = of(&trace, "i")
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert!(
        instants.contains(&"path failed: MPJoinAckRejected"),
        "{instants:?}"
    );
    assert!(instants.contains(&"closed: mptcp"), "{instants:?}");
    let args = &of_tid(&trace, PATHS_FROM + 1).next().unwrap()["args"];
    assert_eq!(
        (&args["bytes_sent"], &args["cause"]),
        (&Value::from(8_000), &Value::from("connection-closed"))
    );
}

/// The spans of a track.
fn of_tid(trace: &Value, tid: u64) -> impl Iterator<Item = &Value> {
    of(trace, "X").filter(move |it| it["tid"] == tid)
}
