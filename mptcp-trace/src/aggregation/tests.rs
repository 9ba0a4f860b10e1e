//! Rows of findings, and their sums.

use std::collections::BTreeMap;

use super::*;
use std::net::IpAddr;

use crate::model::{
    ConnectionKind, Outcome, Path, TcpState, Verdict,
    fixture::{Row, a_ledger, a_path},
};

fn summed(sums: &mut Sums, findings: &[Finding]) -> Vec<(String, u64, u64, u64)> {
    for finding in findings {
        sums.add(finding, &|id| (id == 5).then_some("/a/b.service"));
    }
    sums.tables()
        .next()
        .unwrap()
        .rows
        .into_iter()
        .map(|SumRow { key, sum }| (key, sum.connections, sum.fallbacks, sum.queries))
        .collect()
}

fn row(key: &str, connections: u64, fallbacks: u64, queries: u64) -> (String, u64, u64, u64) {
    (key.to_owned(), connections, fallbacks, queries)
}

/// Three connections of two programs: one fell back and was queried, one is fine, one was never
/// queried.
fn scene() -> Vec<Finding> {
    let curl = Row {
        verdict: Some(Verdict::Explained),
        ..Row::default()
    };
    let fine = Row {
        address: 2,
        cause: None,
        verdict: Some(Verdict::StillMptcp),
        remote: "192.0.2.9:443",
        ..Row::default()
    };
    let ssh = Row {
        address: 3,
        cause: Some("InfiniteMapTx"),
        verdict: Some(Verdict::NeverAsked),
        pid: 8,
        comm: "ssh",
        remote: "[2001:db8:1:2::3]:22",
        netns: 10,
        cgroup_id: 6,
        cgroup: None,
        ..Row::default()
    };
    vec![
        curl.connection(),
        curl.query(),
        curl.query(),
        fine.query(),
        ssh.connection(),
        ssh.closing_verdict(),
    ]
}

#[test]
fn each_property_makes_groups_of_its_own() {
    for (by, expected) in [
        (
            By::Process,
            vec![row("curl 7", 2, 1, 3), row("ssh 8", 1, 1, 0)],
        ),
        (
            By::Cause,
            vec![
                row("DssFallback", 1, 1, 2),
                row("InfiniteMapTx", 1, 1, 0),
                row("-", 1, 0, 1),
            ],
        ),
        (
            By::Dest,
            vec![
                row("192.0.2.0/24", 2, 1, 3),
                row("2001:db8:1::/48", 1, 1, 0),
            ],
        ),
        (By::Netns, vec![row("10", 1, 1, 0), row("9", 2, 1, 3)]),
        (
            By::Cgroup,
            vec![row("/a/b.service", 2, 1, 3), row("6", 1, 1, 0)],
        ),
        (
            By::Verdict,
            vec![
                row("explained", 1, 1, 2),
                row("never-asked", 1, 1, 0),
                row("still-mptcp", 1, 0, 1),
            ],
        ),
    ] {
        assert_eq!(summed(&mut Sums::new(&[by]), &scene()), expected, "{by:?}");
    }
}

#[test]
fn verdicts_are_counted_by_name_and_the_share_is_of_connections() {
    let mut sums = Sums::new(&[By::Process]);
    summed(&mut sums, &scene());
    let curl = &sums.tables().next().unwrap().rows[0].sum;
    assert_eq!(
        curl.verdicts,
        BTreeMap::from([(Verdict::Explained, 2), (Verdict::StillMptcp, 1)])
    );
    assert_eq!(curl.share(), Some(0.5));
    assert_eq!(Sum::default().share(), None);
}

#[test]
fn a_connection_counts_once_and_one_that_connects_anew_counts_again() {
    let first = Row::default();
    let second = Row {
        at_ms: 9,
        attempt: 1,
        ..first
    };
    let found = summed(
        &mut Sums::new(&[By::Netns]),
        &[
            first.connection(),
            first.connection(),
            first.query(),
            second.connection(),
        ],
    );
    assert_eq!(found, [row("9", 2, 2, 1)]);
}

#[test]
fn a_listener_is_no_connection() {
    let mut query = Row {
        cause: None,
        ..Row::default()
    }
    .query();
    let Finding::Query(event) = &mut query else {
        unreachable!()
    };
    event.query.socket.state = TcpState::LISTEN;
    let found = summed(&mut Sums::new(&[By::Netns]), &[query]);
    assert_eq!(found, [row("9", 0, 0, 1)]);
}

#[test]
fn most_fallbacks_come_first_then_names() {
    let of = |address, comm| {
        Row {
            address,
            comm,
            ..Row::default()
        }
        .connection()
    };
    let plain = Row {
        kind: ConnectionKind::Plain,
        address: 9,
        comm: "a",
        ..Row::default()
    };
    let found = summed(
        &mut Sums::new(&[By::Process]),
        &[
            of(1, "c"),
            of(2, "b"),
            of(3, "d"),
            of(4, "d"),
            plain.connection(),
        ],
    );
    let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["d 7", "b 7", "c 7", "a 7"]);
}

#[test]
fn what_has_no_room_is_counted_with_the_others_and_nothing_grows_without_end() {
    let mut sums = Sums {
        ledger: Ledger::new(3),
        aggregations: vec![Aggregation::with_limit(By::Netns, 2)],
    };
    for address in 0..10 {
        let netns = u32::try_from(address).unwrap();
        let finding = Row {
            address,
            netns,
            ..Row::default()
        }
        .connection();
        sums.add(&finding, &|_| None);
        assert!(sums.ledger.entries().count() <= 3);
    }
    let table = sums.tables().next().unwrap();
    assert_eq!(table.rows.len(), 2);
    let others = table.others.unwrap();
    assert_eq!((others.connections, others.fallbacks), (8, 8));
    assert_eq!(table.forgotten, 7);
}

#[test]
fn a_fallback_counts_once_by_cause_whatever_the_queries_say() {
    // A failed query says that the connection fell back, and nothing of the cause.
    let known = Row::default();
    let failed = Row {
        verdict: None,
        ..known
    };
    let explained = Row {
        verdict: Some(Verdict::Explained),
        ..known
    };
    for order in [
        [known.connection(), failed.query(), explained.query()],
        [failed.query(), known.connection(), explained.query()],
        [failed.query(), explained.query(), known.connection()],
    ] {
        let mut sums = Sums::new(&[By::Cause]);
        let rows = summed(&mut sums, &order);
        let fallbacks: u64 = rows.iter().map(|it| it.2).sum();
        let connections: u64 = rows.iter().map(|it| it.1).sum();
        assert_eq!((fallbacks, connections), (1, 1), "{rows:?}");
        assert_eq!(rows[0].0, known.cause.unwrap(), "{rows:?}");
    }
}

/// A query before the connect, the fallback, and the closing verdict: one connection, one answer.
#[test]
fn a_closing_verdict_replaces_that_of_the_last_answer_and_the_connection_has_one_row() {
    let fallback = Row {
        verdict: Some(Verdict::TooEarly),
        ..Row::default()
    };
    let early = Row {
        cause: None,
        remote: "0.0.0.0:0",
        ..fallback
    };
    let findings = [
        early.query(),
        fallback.connection(),
        fallback.closing_verdict(),
    ];
    for (by, key) in [
        (By::Process, "curl 7"),
        (By::Cause, "DssFallback"),
        (By::Dest, "192.0.2.0/24"),
        (By::Netns, "9"),
        (By::Cgroup, "/a/b.service"),
        (By::Verdict, "too-early"),
    ] {
        let mut sums = Sums::new(&[by]);
        assert_eq!(summed(&mut sums, &findings), [row(key, 1, 1, 1)], "{by:?}");
        let verdicts = &sums.tables().next().unwrap().rows[0].sum.verdicts;
        assert_eq!(
            *verdicts,
            BTreeMap::from([(Verdict::TooEarly, 1)]),
            "{by:?}"
        );
    }
}

#[test]
fn an_answer_counts_under_the_verdict_that_is_final() {
    let fine = Row {
        cause: None,
        verdict: Some(Verdict::StillMptcp),
        ..Row::default()
    };
    let fallback = Row {
        verdict: None,
        ..Row::default()
    };
    let stale = Row {
        verdict: Some(Verdict::Stale),
        ..fallback
    };
    let mut sums = Sums::new(&[By::Process, By::Verdict]);
    let findings = [fine.query(), fallback.connection(), stale.closing_verdict()];
    summed(&mut sums, &findings);
    let tables: Vec<SumTable> = sums.tables().collect();
    assert_eq!(
        tables[0].rows[0].sum.verdicts,
        BTreeMap::from([(Verdict::Stale, 1)])
    );
    let rows: Vec<(&str, u64, u64)> = tables[1]
        .rows
        .iter()
        .map(|it| (&*it.key, it.sum.connections, it.sum.queries))
        .collect();
    assert_eq!(rows, [("stale", 1, 1)]);

    // Earlier answers keep their verdicts, and each connection has its own last answer.
    let mut sums = Sums::new(&[By::Verdict]);
    let other = Row { address: 2, ..fine };
    let mut rows = summed(
        &mut sums,
        &[
            fine.query(),
            fine.query(),
            other.query(),
            fallback.connection(),
            stale.closing_verdict(),
        ],
    );
    rows.sort();
    assert_eq!(
        rows,
        [row("stale", 1, 1, 1), row("still-mptcp", 2, 0, 2)],
        "one of the two answers became stale"
    );
}

#[test]
fn a_closed_socket_does_not_make_a_known_destination_unknown() {
    let known = Row::default();
    let closed = Row {
        remote: "[::]:0",
        ..known
    };
    let found = summed(
        &mut Sums::new(&[By::Dest]),
        &[known.connection(), closed.query()],
    );
    assert_eq!(found, [row("192.0.2.0/24", 1, 1, 1)]);
}

/// A connection that stays MPTCP, with everything that is reported of it.
fn healthy(address: u64) -> [Finding; 3] {
    let row = Row {
        address,
        cause: None,
        verdict: None,
        ..Row::default()
    };
    let down = Path {
        ledger: Some(a_ledger()),
        ..a_path(PathKind::Down)
    };
    [
        row.path(a_path(PathKind::Up)),
        row.path(down),
        row.closed(|_| {}),
    ]
}

/// 20 connections stay MPTCP, one falls back, and nobody asks.
fn one_of_21() -> Vec<Finding> {
    let fallen = Row {
        address: 99,
        ..Row::default()
    };
    let end = fallen.closed(|it| {
        it.outcome = Outcome::FellBack {
            at: None,
            cause: Some("DssFallback".into()),
        };
    });
    let mut all: Vec<Finding> = (1..=20).flat_map(healthy).collect();
    all.extend([
        fallen.path(a_path(PathKind::Up)),
        fallen.connection(),
        fallen.path(a_path(PathKind::Down)),
        end,
    ]);
    all
}

#[test]
fn the_share_is_of_all_connections_whatever_the_groups_are() {
    for (by, expected) in [
        (By::Process, vec![row("curl 7", 21, 1, 0)]),
        (
            By::Cause,
            vec![row("DssFallback", 1, 1, 0), row("-", 20, 0, 0)],
        ),
        (By::Dest, vec![row("192.0.2.0/24", 21, 1, 0)]),
        (By::Netns, vec![row("9", 21, 1, 0)]),
        (By::Cgroup, vec![row("/a/b.service", 21, 1, 0)]),
        (By::Verdict, vec![row("-", 21, 1, 0)]),
        (By::Path, vec![row("10.0.0.1 - 192.0.2.7", 21, 1, 0)]),
        (By::Endpoint, vec![row("10.0.0.1", 21, 1, 0)]),
        (By::Interface, vec![row("10.0.0.1", 21, 1, 0)]),
    ] {
        assert_eq!(
            summed(&mut Sums::new(&[by]), &one_of_21()),
            expected,
            "{by:?}"
        );
    }
}

#[test]
fn a_connection_with_a_verdict_does_not_count_again_without_one_when_it_ends() {
    let asked = Row {
        cause: None,
        verdict: Some(Verdict::StillMptcp),
        ..Row::default()
    };
    let silent = Row {
        address: 2,
        ..asked
    };
    let findings = [asked.query(), asked.closed(|_| {}), silent.closed(|_| {})];
    let mut sums = Sums::new(&[By::Verdict]);
    assert_eq!(
        summed(&mut sums, &findings),
        [row("-", 1, 0, 0), row("still-mptcp", 1, 0, 1)]
    );
}

/// Local and remote address, the kind of event and its cause.
fn event(row: Row, ends: [&str; 2], kind: PathKind) -> Finding {
    let mut finding = row.path(Path {
        ledger: Some(a_ledger()),
        ..a_path(kind)
    });
    let Finding::Path(event) = &mut finding else {
        unreachable!()
    };
    let [local, remote] = ends.map(|it| it.parse().unwrap());
    (event.path.socket.local, event.path.socket.remote) = (local, remote);
    finding
}

#[test]
fn paths_are_grouped_by_their_own_addresses() {
    let wifi = ["10.0.1.1:1000", "[::ffff:192.0.2.7]:443"];
    let lte = ["10.0.2.1:2000", "192.0.2.7:443"];
    let row = Row {
        cause: None,
        verdict: Some(Verdict::StillMptcp),
        ..Row::default()
    };
    let other = Row { address: 2, ..row };
    let findings = [
        event(row, wifi, PathKind::Up),
        event(row, lte, PathKind::Up),
        event(row, lte, PathKind::Down),
        event(other, lte, PathKind::Failed),
        event(other, lte, PathKind::Failed),
        // Opens no connection.
        event(Row { address: 3, ..row }, lte, PathKind::ConnectFailed),
        // Without an address it counts with a path of its connection, and a stale path is no change.
        event(row, ["0.0.0.0:0", "0.0.0.0:0"], PathKind::Stale),
    ];
    let name =
        |_netns, address| (address == IpAddr::from([10, 0, 2, 1])).then(|| "wwan0".to_owned());
    for (by, keys) in [
        (By::Path, ["10.0.1.1 - 192.0.2.7", "10.0.2.1 - 192.0.2.7"]),
        (By::Endpoint, ["10.0.1.1", "10.0.2.1"]),
        (By::Interface, ["10.0.1.1", "wwan0"]),
    ] {
        let mut sums = Sums::new(&[by]).naming(name);
        summed(&mut sums, &findings);
        let rows = sums.tables().next().unwrap().rows;
        let found: Vec<(&str, u64, PathSum)> = rows
            .iter()
            .map(|it| (&*it.key, it.sum.connections, it.sum.paths))
            .collect();
        let up = PathSum {
            up: 1,
            ..PathSum::default()
        };
        let all = PathSum {
            up: 1,
            failed: 3,
            down: 1,
            bytes_sent: 4 * 8_000,
            bytes_received: 4 * 1_200,
            retransmissions: 4 * 3,
        };
        let [first, second] = keys;
        assert_eq!(found, [(first, 1, up), (second, 2, all)], "{by:?}");
    }
}

#[test]
fn what_a_path_did_moves_to_the_cause_when_its_connection_falls_back() {
    let row = Row {
        verdict: None,
        ..Row::default()
    };
    let ends = ["10.0.1.1:1000", "192.0.2.7:443"];
    let mut sums = Sums::new(&[By::Cause]);
    let findings = [
        event(row, ends, PathKind::Up),
        event(row, ends, PathKind::Failed),
        event(row, ends, PathKind::Down),
        row.connection(),
    ];
    summed(&mut sums, &findings);
    let rows = sums.tables().next().unwrap().rows;
    let found: Vec<(&str, u64, u64, u64, u64)> = rows
        .iter()
        .map(|SumRow { key, sum }| {
            let PathSum {
                up, failed, down, ..
            } = sum.paths;
            (&**key, sum.connections, up, failed, down)
        })
        .collect();
    let wanted = [
        ("DssFallback", 1, 1, 0, 1),
        // The connection went on after it.
        ("MPJoinAckRejected", 1, 0, 1, 0),
    ];
    assert_eq!(
        found, wanted,
        "a path that was closed has no row of its own"
    );
}

/// Anybody can send joins that are refused, from any address.
#[test]
fn a_flood_of_refused_joins_takes_half_of_a_table_and_no_memory_beyond() {
    const LIMIT: usize = 10;
    for by in [By::Path, By::Dest, By::Endpoint, By::Interface, By::Cause] {
        let mut sums = Sums {
            ledger: Ledger::new(3),
            aggregations: vec![Aggregation::with_limit(by, LIMIT)],
        };
        for number in 0..1000_u32 {
            let [_, b, c, d] = number.to_be_bytes();
            let mut finding = Row::default().path(a_path(PathKind::Failed));
            let Finding::Path(event) = &mut finding else {
                unreachable!()
            };
            // Some name a connection.
            if number >= 200 {
                event.path.connection = None;
            }
            event.path.socket.local = ([10, b, c, d], 443).into();
            event.path.socket.remote = ([b, c, d, 1], 1).into();
            sums.add(&finding, &|_| None);
        }
        let marks: Vec<usize> = sums
            .ledger
            .entries()
            .map(|it| it.details.all.len())
            .collect();
        assert_eq!(marks.len(), 1, "{by:?}");
        assert!(marks[0] <= LIMIT / 2 + 1, "{by:?}");
        let table = sums.tables().next().unwrap();
        assert!(table.rows.len() <= LIMIT / 2, "{by:?}");
        let rows = table.rows.iter().map(|it| &it.sum);
        let failed = rows.chain(&table.others).map(|it| it.paths.failed);
        assert_eq!(failed.sum::<u64>(), 1000, "{by:?}: all are counted");
        // Connections still have rows.
        for address in 0..3 {
            let remote = ["198.51.100.1:1", "198.51.101.1:1", "198.51.102.1:1"][address];
            let row = Row {
                address: 10 + u64::try_from(address).unwrap(),
                remote,
                cause: Some(["A", "B", "C"][address]),
                ..Row::default()
            };
            sums.add(&row.connection(), &|_| None);
        }
        let aggregation = &sums.aggregations[0];
        assert!(aggregation.sums.len() <= LIMIT, "{by:?}");
        assert_eq!(aggregation.indices.len(), aggregation.sums.len());
        let table = sums.tables().next().unwrap();
        let in_rows: u64 = table.rows.iter().map(|it| it.sum.connections).sum();
        // The local address of all three is the same, and so is the connection that was joined.
        assert!(in_rows >= 3, "{by:?}: {:?}", table.others);
    }
}

#[test]
fn a_connection_with_very_many_paths_takes_bounded_memory() {
    let mut sums = Sums::new(&[By::Path]);
    for number in 0..1000_u32 {
        let [_, b, c, d] = number.to_be_bytes();
        let remote = format!("10.{b}.{c}.{d}:443");
        let up = event(Row::default(), ["10.9.9.9:1", &remote], PathKind::Up);
        sums.add(&up, &|_| None);
    }
    let marks = sums.ledger.entries().next().unwrap().details.all.len();
    assert_eq!(marks, GROUPS_OF_ONE_MAX);
    let table = sums.tables().next().unwrap();
    let up: u64 = table.rows.iter().map(|it| it.sum.paths.up).sum();
    assert_eq!((table.rows.len(), up), (1000, 1000), "each path counts");
}
