//! Rows of findings, and their sums.

use std::collections::BTreeMap;

use super::*;
use crate::model::{ConnectionKind, TcpState, Verdict, fixture::Row};

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
