use super::*;
use crate::{
    annotate::gather::Shared,
    filter::FindingFilter,
    model::{
        ConnectionKind, Finding, Path, PathId, PathKind, PathRole, SocketId,
        fixture::{Row, a_path},
    },
    observe::Observer as _,
};

const CLIENT: &str = "10.0.0.1:1000";
const SERVER: &str = "192.0.2.7:443";

/// Milliseconds since the Unix epoch, which is when the host was booted.
fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A fallback of a client at a time; it connected so long before.
fn fallback(at_ms: u64, since_ms: u64) -> Row {
    Row {
        at_ms,
        address: at_ms,
        attempt: u32::try_from(since_ms).unwrap(),
        ..Row::default()
    }
}

/// The finding of a row: `attempt` holds the time since the connect.
fn finding(row: Row, side: Option<Side>) -> Finding {
    let since = ms(row.attempt.into());
    let mut finding = Row { attempt: 0, ..row }.connection();
    if let Finding::Connection(event) = &mut finding {
        event.time = std::time::UNIX_EPOCH + ms(row.at_ms);
        event.connection.at = ms(row.at_ms);
        event.connection.since_connect = (since > Duration::ZERO).then_some(since);
        event.connection.side = side;
        event.connection.stage = None;
    }
    finding
}

/// A segment between the two ends, from the client (`>`) or the server (`<`): `S` with a sequence
/// number, `A` for SYN/ACK, `.` for any other.
fn sent(what: &str) -> Segment {
    let [client, server] = [CLIENT, SERVER].map(|it| it.parse().unwrap());
    let (source, destination) = match what.starts_with('>') {
        true => (client, server),
        false => (server, client),
    };
    let kind = match what[1..].chars().next() {
        Some('S') => Kind::Syn(what[2..].parse().unwrap()),
        Some('A') => Kind::SynAck,
        _ => Kind::Other,
    };
    Segment {
        source,
        destination,
        kind,
    }
}

/// Places findings on packets; returns the packets' numbers with the comments, shortened.
fn placed(findings: &[Finding], packets: &[(u64, &str)]) -> (Vec<(u64, Vec<String>)>, Plan) {
    let mut shared = Shared::new(FindingFilter::default());
    for finding in findings {
        shared.finding(finding, &|_| None);
    }
    let mut placing = Placing::new(shared.finish());
    for (number, (at, what)) in (0..).zip(packets) {
        placing.packet(number, Some(ms(*at)), Some(&sent(what)));
    }
    let plan = placing.finish();
    let shown = plan
        .comments
        .iter()
        .map(|(number, comments)| (*number, comments.clone()));
    (shown.collect(), plan)
}

/// The packet with each comment that contains the word.
fn with(word: &str, comments: &[(u64, Vec<String>)]) -> Vec<u64> {
    let all = comments
        .iter()
        .flat_map(|(at, all)| all.iter().map(move |it| (*at, it)));
    all.filter(|(_, it)| it.contains(word))
        .map(|(at, _)| at)
        .collect()
}

const HERE: &str = "fell back to TCP here";
const SUMMARY: &str = "connection that fell back";

#[test]
fn the_cause_stands_at_the_packet_before_it_and_a_summary_at_the_first_one() {
    let packets = [
        (100, ">S1"),
        (101, "<A"),
        (102, ">."),
        (110, ">."),
        (111, "<."),
        (150, ">."),
    ];
    for (at, packet) in [(101, 1), (103, 2), (111, 4), (149, 4), (400, 5)] {
        let row = fallback(at, at - 99);
        let (comments, plan) = placed(&[finding(row, Some(Side::Active))], &packets);
        assert_eq!(with(HERE, &comments), [packet], "{comments:?}");
        assert_eq!(with(SUMMARY, &comments), [0]);
        assert_eq!((plan.counts.found, plan.counts.placed), (1, 1));
        assert_eq!(plan.counts.of_findings, 6);
        let later = comments
            .iter()
            .flat_map(|(_, all)| all)
            .any(|it| it.contains("after this packet"));
        assert_eq!(later, ![101, 111].contains(&at), "{comments:?}");
    }
}

#[test]
fn a_packet_of_the_handshake_is_found_by_its_stage() {
    let packets = [(100, ">S1"), (101, "<A"), (102, ">."), (103, ">.")];
    for (stage, packet) in [
        (Some(Stage::Syn), 0),
        (Some(Stage::SynAck), 1),
        (Some(Stage::ThirdAck), 2),
        (Some(Stage::Data), 3),
        (None, 3),
    ] {
        let mut found = finding(fallback(104, 5), Some(Side::Active));
        if let Finding::Connection(event) = &mut found {
            event.connection.stage = stage;
        }
        let (comments, _) = placed(&[found], &packets);
        assert_eq!(with(HERE, &comments), [packet], "{stage:?}");
    }
}

#[test]
fn what_precedes_the_first_packet_stands_there() {
    let (comments, _) = placed(
        &[finding(fallback(99, 1), Some(Side::Active))],
        &[(100, ">S1")],
    );
    assert_eq!(with(HERE, &comments), [0]);
    assert!(
        comments[0].1[1].ends_with("[1000 us before this packet]")
            || comments[0].1[1].contains("before this packet")
    );
}

#[test]
fn a_port_that_is_used_again_is_another_connection() {
    // Three connections within 30 ms; the second one was not traced.
    let packets = [
        (100, ">S1"),
        (101, "<A"),
        (105, ">."),
        (110, ">S2"),
        (110, ">S2"),
        (111, "<A"),
        (115, ">."),
        (120, ">S3"),
        (121, "<A"),
        (125, ">."),
    ];
    let first = finding(fallback(101, 2), Some(Side::Active));
    let third = finding(fallback(121, 2), Some(Side::Active));
    let (comments, plan) = placed(&[first.clone(), third.clone()], &packets);
    assert_eq!(with(HERE, &comments), [1, 8]);
    assert_eq!(with(SUMMARY, &comments), [0, 7]);
    assert_eq!(plan.counts.found, 2);
    // What ends long after the first one is said at its own last packet.
    let mut late = first;
    if let Finding::Connection(event) = &mut late {
        event.connection.at = ms(900);
        event.time = std::time::UNIX_EPOCH + ms(900);
        event.connection.since_connect = Some(ms(801));
    }
    let (comments, _) = placed(&[late, third], &packets);
    assert_eq!(with(HERE, &comments), [2, 8]);
}

#[test]
fn a_servers_child_belongs_to_the_syn_before_it() {
    // The handshake takes longer than the next connection is away.
    let packets = [
        (100, ">S1"),
        (150, "<A"),
        (200, ">."),
        (201, ">."),
        (210, ">S2"),
        (260, "<A"),
        (310, ">."),
    ];
    let server = Row {
        local: SERVER,
        remote: CLIENT,
        ..fallback(201, 1)
    };
    let (comments, _) = placed(&[finding(server, Some(Side::Passive))], &packets);
    assert_eq!(
        (with(HERE, &comments), with(SUMMARY, &comments)),
        (vec![3], vec![0])
    );
    // The same times at the other end are another connection: it began with the second SYN.
    let client = fallback(212, 3);
    let (comments, _) = placed(&[finding(client, Some(Side::Active))], &packets);
    assert_eq!(with(SUMMARY, &comments), [4]);
}

#[test]
fn a_connection_that_is_not_there_gets_no_packet_of_another_one() {
    let packets = [(100, ">S1"), (101, "<A"), (102, ">.")];
    let active = Some(Side::Active);
    for (why, row, side) in [
        ("it began much later", fallback(9_000, 1_000), active),
        ("it began long before", fallback(20_000, 20_000), None),
        (
            "the other side opened it",
            fallback(102, 3),
            Some(Side::Passive),
        ),
        (
            "other addresses",
            Row {
                remote: "192.0.2.8:443",
                ..fallback(101, 2)
            },
            active,
        ),
    ] {
        let expected = why == "it began long before";
        let (comments, plan) = placed(&[finding(row, side)], &packets);
        assert_eq!(!comments.is_empty(), expected, "{why}: {comments:?}");
        assert_eq!(plan.counts.elsewhere, u64::from(!expected), "{why}");
        assert_eq!(plan.left.len(), usize::from(!expected));
    }
    // One end has one connection at a time: the closer one is it.
    let near = finding(fallback(101, 2), active);
    let far = finding(fallback(102, 900), active);
    let (comments, plan) = placed(&[far, near], &packets);
    assert_eq!((plan.counts.connections, plan.counts.found), (2, 1));
    assert_eq!(with(HERE, &comments), [1]);
}

#[test]
fn both_ends_and_all_namespaces_are_said_and_told_apart() {
    let packets = [(100, ">S1"), (101, "<A"), (102, ">.")];
    let client = fallback(101, 2);
    let server = Row {
        local: SERVER,
        remote: CLIENT,
        comm: "nginx",
        ..fallback(103, 1)
    };
    let twin = Row {
        netns: 10,
        comm: "twin",
        address: 77,
        ..client
    };
    let all = [
        finding(client, Some(Side::Active)),
        finding(server, Some(Side::Passive)),
    ];
    let (comments, _) = placed(&all, &packets);
    assert_eq!(
        with(
            "client 10.0.0.1:1000, curl (7): fell back to TCP here",
            &comments
        ),
        [1]
    );
    assert_eq!(
        with(
            "server 192.0.2.7:443, nginx (7): fell back to TCP here",
            &comments
        ),
        [2]
    );
    assert_eq!(with(SUMMARY, &comments), [0, 0]);
    assert_eq!(with("in network namespace", &comments), [] as [u64; 0]);
    let all = [&all[..], &[finding(twin, Some(Side::Active))]].concat();
    let (comments, _) = placed(&all, &packets);
    assert_eq!(
        with(
            "in network namespace 9, one of 2 with these addresses",
            &comments
        ),
        [0, 1]
    );
    assert_eq!(
        with(
            "in network namespace 10, one of 2 with these addresses",
            &comments
        ),
        [0, 1]
    );
}

#[test]
fn without_its_beginning_a_connection_is_the_one_that_was_open() {
    // The recording of the packets began later than the connection, which later was another one.
    let packets = [(100, "<."), (101, ">."), (5_000, ">S2"), (5_001, "<A")];
    let row = fallback(101, 60_000);
    let before_boot = Row {
        attempt: 101,
        ..row
    };
    let (comments, _) = placed(&[finding(before_boot, Some(Side::Active))], &packets);
    assert_eq!(
        (with(SUMMARY, &comments), with(HERE, &comments)),
        (vec![0], vec![1])
    );
    // Existing sockets do not say when they began.
    let existing = Row {
        kind: ConnectionKind::Existing,
        ..fallback(90, 0)
    };
    let (comments, _) = placed(&[finding(existing, Some(Side::Active))], &packets);
    assert_eq!(with("when tracing began", &comments), [0]);
}

#[test]
fn packets_out_of_order_and_without_a_time_do_no_harm() {
    let packets = [(100, ">S1"), (103, ">."), (102, "<A"), (104, ">.")];
    let (comments, _) = placed(&[finding(fallback(103, 4), Some(Side::Active))], &packets);
    assert_eq!(with(HERE, &comments), [1]);
    let mut placing = Placing::new(Shared::new(FindingFilter::default()).finish());
    placing.packet(0, None, Some(&sent(">S1")));
    placing.packet(1, Some(ms(1)), None);
    let counts = placing.finish().counts;
    assert_eq!((counts.packets, counts.bare, counts.of_findings), (2, 1, 0));
}

#[test]
fn the_end_of_time_is_a_time() {
    for time in [Duration::MAX, Duration::ZERO] {
        for word in [">S1", ">."] {
            let mut shared = Shared::new(FindingFilter::default());
            shared.finding(&finding(fallback(101, 2), Some(Side::Active)), &|_| None);
            let mut placing = Placing::new(shared.finish());
            placing.packet(0, Some(time), Some(&sent(word)));
            assert_eq!(placing.finish().counts.of_findings, 1);
        }
    }
}

#[test]
fn both_ends_may_open_at_once() {
    let packets = [(100, ">S1"), (100, "<S9"), (101, "<A"), (102, ">.")];
    let (comments, _) = placed(&[finding(fallback(101, 2), Some(Side::Active))], &packets);
    assert_eq!(
        (with(SUMMARY, &comments), with(HERE, &comments)),
        (vec![0], vec![2])
    );
    let other = Row {
        local: SERVER,
        remote: CLIENT,
        ..fallback(101, 2)
    };
    let (comments, _) = placed(&[finding(other, Some(Side::Active))], &packets);
    assert_eq!(with(SUMMARY, &comments), [0]);
}

#[test]
fn a_packet_has_few_comments_and_the_last_one_counts_the_others() {
    let findings: Vec<Finding> = (0..100)
        .map(|number| {
            let row = Row {
                address: 5,
                cause: None,
                ..fallback(101, 2)
            };
            let mut found = finding(row, Some(Side::Active));
            if let Finding::Connection(event) = &mut found {
                event.connection.bytes = Some((number, 1));
            }
            found
        })
        .collect();
    let (comments, plan) = placed(&findings, &[(100, ">S1")]);
    assert_eq!(comments[0].1.len(), COMMENTS_MAX);
    // A summary and 30 findings are shown.
    let last = comments[0].1.last().unwrap();
    assert_eq!(
        last,
        "mptcp-trace: 70 more findings here; mptcp-trace replay prints all of them"
    );
    assert_eq!(plan.counts.placed, 100);
}

#[test]
fn findings_without_addresses_are_counted() {
    let never = Row {
        remote: "0.0.0.0:0",
        ..fallback(5, 1)
    };
    let (comments, plan) = placed(&[finding(never, None)], &[(100, ">S1")]);
    assert!(comments.is_empty());
    assert_eq!((plan.counts.addressless, plan.counts.connections), (1, 0));
}

/// The client's address of a further path.
const JOINED: &str = "10.0.9.1:2000";

/// An event of a path of the client's connection.
fn of_path(kind: PathKind, role: PathRole, at_ms: u64, began_ms: u64) -> Finding {
    let path = Path {
        path: Some(PathId {
            socket: SocketId(began_ms),
            began_at: ms(began_ms),
        }),
        began_at: Some(ms(began_ms)),
        role,
        ..a_path(kind)
    };
    let local = match role {
        PathRole::First => CLIENT,
        PathRole::Join => JOINED,
    };
    let row = Row {
        at_ms,
        local,
        address: 5,
        ..Row::default()
    };
    let mut finding = row.path(path);
    if let Finding::Path(event) = &mut finding {
        event.time = std::time::UNIX_EPOCH + ms(at_ms);
    }
    finding
}

/// Places findings on packets of the first path (`1`) and of the further one (`2`).
fn placed_on_both(findings: &[Finding], packets: &[(u64, &str)]) -> (Vec<Vec<String>>, Plan) {
    let mut shared = Shared::new(FindingFilter::default());
    for finding in findings {
        shared.finding(finding, &|_| None);
    }
    let mut placing = Placing::new(shared.finish());
    for (number, (at, what)) in (0..).zip(packets) {
        let mut segment = sent(&what[1..]);
        if what.starts_with('2') {
            let client: SocketAddr = CLIENT.parse().unwrap();
            for end in [&mut segment.source, &mut segment.destination] {
                if *end == client {
                    *end = JOINED.parse().unwrap();
                }
            }
        }
        placing.packet(number, Some(ms(*at)), Some(&segment));
    }
    let plan = placing.finish();
    let of = |number| plan.comments.iter().find(|(block, _)| *block == number);
    let texts = (0..u64::try_from(packets.len()).unwrap())
        .map(|number| of(number).map_or(Vec::new(), |(_, texts)| texts.clone()));
    (texts.collect(), plan)
}

#[test]
fn packets_of_a_further_path_have_its_findings_and_those_of_its_connection() {
    let mut fell = finding(
        Row {
            address: 5,
            ..fallback(500, 400)
        },
        Some(Side::Active),
    );
    if let Finding::Connection(event) = &mut fell {
        event.connection.id.socket = SocketId(5);
    }
    let (comments, plan) = placed_on_both(
        &[
            of_path(PathKind::Up, PathRole::First, 101, 100),
            of_path(PathKind::Up, PathRole::Join, 203, 200),
            of_path(PathKind::Failed, PathRole::Join, 303, 300),
            fell,
        ],
        &[
            (100, "1>S1"),
            (101, "1<A"),
            (200, "2>S7"),
            (202, "2<A"),
            (203, "2>."),
            (300, "2>S8"),
            (302, "2<."),
            (499, "1<."),
        ],
    );
    let has = |packet: usize, text: &str| {
        let found = comments[packet]
            .iter()
            .any(|comment| comment.contains(text));
        assert!(found, "{packet}: {text} is not in {comments:#?}");
    };
    has(
        0,
        "client 10.0.0.1:1000, curl (7): connection that fell back",
    );
    has(1, "the first path came up");
    has(
        2,
        "client 10.0.9.1:2000, curl (7): further path (MP_JOIN) of connection 10.0.0.1:1000 -> \
         192.0.2.7:443",
    );
    has(4, "path came up");
    has(4, "its connection: fell back to TCP here: DssFallback");
    has(
        5,
        "further path (MP_JOIN) of connection 10.0.0.1:1000 -> 192.0.2.7:443; it failed: MPJoinAckRejected",
    );
    has(6, "path failed: MPJoinAckRejected, RST: prohibited");
    has(7, "client 10.0.0.1:1000, curl (7): fell back to TCP here");
    // Each finding counts once, and the paths are no connections.
    let counts = plan.counts;
    assert_eq!((counts.connections, counts.found), (1, 1));
    assert_eq!((counts.placed, counts.elsewhere), (4, 0));
    assert_eq!((counts.packets, counts.of_findings), (8, 8));
}

#[test]
fn a_finding_that_only_a_further_path_shows_is_not_missing() {
    let fell = || {
        let mut fell = finding(fallback(500, 400), Some(Side::Active));
        if let Finding::Connection(event) = &mut fell {
            event.connection.id.socket = SocketId(5);
            event.connection.socket.id = SocketId(5);
        }
        fell
    };
    let up = of_path(PathKind::Up, PathRole::Join, 203, 200);
    let (_, plan) = placed_on_both(&[up, fell()], &[(200, "2>S7"), (203, "2>.")]);
    assert_eq!((plan.counts.placed, plan.counts.elsewhere), (2, 0));
    let (_, plan) = placed_on_both(&[fell()], &[(200, "2>S7")]);
    assert_eq!((plan.counts.placed, plan.counts.elsewhere), (0, 1));
}

#[test]
fn a_refused_join_of_an_unknown_connection_has_its_packets() {
    let mut refused = of_path(PathKind::Failed, PathRole::Join, 201, 200);
    if let Finding::Path(event) = &mut refused {
        event.path.connection = None;
        event.path.path = None;
    }
    let (comments, plan) = placed_on_both(&[refused], &[(200, "2>S7"), (201, "2<.")]);
    let refused = &comments[1];
    assert!(
        refused[0].contains("path failed: MPJoinAckRejected"),
        "{refused:?}"
    );
    assert_eq!((plan.counts.placed, plan.counts.addressless), (1, 0));
}
