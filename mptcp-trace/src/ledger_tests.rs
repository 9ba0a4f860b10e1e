//! One definition of each number: for any findings, every view counts the same connections.

use proptest::prelude::*;

use super::*;
use crate::{
    aggregation::Sums,
    model::{
        By, ConnectionKind, SumTable,
        fixture::{Row, a_path},
    },
    observe::Observer as _,
    report::Gathered,
    serve::counters,
    top::board,
};

/// Findings about a few connections, each in one network namespace.
fn findings() -> impl Strategy<Value = Vec<Finding>> {
    let kinds = prop::sample::select(vec![
        ConnectionKind::Fallback,
        ConnectionKind::Plain,
        ConnectionKind::Existing,
        ConnectionKind::FallbackDenied,
        ConnectionKind::Blackhole,
    ]);
    let row = (
        (0_u64..12, 0_u32..3, 1_u64..50),
        kinds,
        prop::sample::select(Verdict::ALL.to_vec()),
        prop::bool::ANY,
        0_u8..7,
    );
    let finding = row.prop_map(
        |((address, attempt, at_ms), kind, verdict, has_cause, what)| {
            let row = Row {
                kind,
                address,
                attempt,
                at_ms,
                cause: has_cause.then_some("DssFallback"),
                verdict: Some(verdict),
                netns: u32::try_from(address % 4).unwrap_or_default(),
                ..Row::default()
            };
            match what {
                0 => row.connection(),
                1 => row.query(),
                3 => row.path(a_path(PathKind::Up)),
                4 => row.path(a_path(PathKind::Failed)),
                5 => row.path(a_path(PathKind::ConnectFailed)),
                6 => row.closed(|_| {}),
                _last => row.closing_verdict(),
            }
        },
    );
    prop::collection::vec(finding, 0..80)
}

fn total(tables: impl Iterator<Item = SumTable>) -> Counts {
    let mut total = Counts::default();
    for row in tables.flat_map(|table| table.rows) {
        total.connections += row.sum.connections;
        total.fallen += row.sum.fallbacks;
        total.deceived += row.sum.deceived;
    }
    total
}

proptest! {
    #[test]
    fn every_view_counts_the_same_connections(findings in findings()) {
        let mut ledger = Ledger::new(REMEMBERED_MAX);
        let mut sums = Sums::new(&[By::Netns]);
        let board = board::Shared::new(board::Limits::STATED);
        let mut top = board.clone();
        let mut report = Gathered::default();
        let mut metrics = counters::Shared::default();
        for finding in &findings {
            let subject = Subject::of(finding);
            ledger.take(finding, &subject, |_key, _socket| ());
            sums.add(finding, &|_id| None);
            top.finding(finding, &|_id| None);
            report.add(finding);
            metrics.finding(finding, &|_id| None);
        }
        report.finish();
        let counts = ledger.counts();

        prop_assert_eq!(total(sums.tables()), counts, "--by");

        let snapshot = board.snapshot(Duration::from_secs(1));
        let totals = snapshot.totals;
        let of_top = Counts {
            connections: totals.connections,
            fallen: totals.fallbacks,
            deceived: totals.deceived,
        };
        prop_assert_eq!(of_top, counts, "top");
        let rows = || snapshot.rows.iter();
        prop_assert_eq!(rows().filter(|it| it.is_deceived()).count() as u64, counts.deceived);
        let by_process = snapshot.sums.into_iter().filter(|it| it.by == By::Process);
        prop_assert_eq!(total(by_process), counts, "top's sums");

        let of_report = |is_it: fn(Awareness) -> bool| -> u64 {
            let wanted = report.awareness.iter().filter(|(it, _)| is_it(**it));
            wanted.map(|(_, count)| count).sum()
        };
        prop_assert_eq!(of_report(|it| it != Awareness::Plain), counts.connections, "report");
        prop_assert_eq!(of_report(Awareness::has_fallen), counts.fallen, "report");
        prop_assert_eq!(of_report(Awareness::is_deceived), counts.deceived, "report");
        let groups = report.processes.values();
        let of_groups = groups.fold((0, 0), |(all, fallen), it| (all + it.connections, fallen + it.fallen));
        prop_assert_eq!(of_groups, (counts.connections, counts.fallen), "report's processes");

        // Metrics count findings: each connection that fell back during the trace has one.
        let is_fallback = |it: &&Finding| matches!(it, Finding::Connection(event) if event.connection.kind == ConnectionKind::Fallback);
        let found = findings.iter().filter(is_fallback).count() as u64;
        prop_assert_eq!(metrics.with(counters::Counters::fallbacks), found, "metrics");
        prop_assert_eq!(report.causes.values().map(|it| it.fallbacks).sum::<u64>(), found);
    }

    #[test]
    fn nothing_is_remembered_without_end(findings in findings(), limit in 1_usize..6) {
        let mut ledger = Ledger::new(limit);
        let mut new = 0;
        for finding in &findings {
            let subject = Subject::of(finding);
            let change = ledger.take(finding, &subject, |_key, _socket| ());
            new += u64::from(change.is_some_and(|change| change.is_new));
            prop_assert!(ledger.entries().count() <= limit);
            prop_assert!(ledger.order.len() <= limit && ledger.latest.len() <= limit);
        }
        prop_assert_eq!(ledger.forgotten() + ledger.entries().count() as u64, new);
    }
}

fn taken(ledger: &mut Ledger<()>, finding: &Finding) -> Option<State> {
    let subject = Subject::of(finding);
    let change = ledger.take(finding, &subject, |_key, _socket| ());
    change.map(|change| change.entry.state)
}

#[test]
fn what_its_application_knows_of_a_connection_is_the_last_that_was_concluded() {
    let said = |verdict, cause| Row {
        verdict: Some(verdict),
        cause,
        ..Row::default()
    };
    let early = said(Verdict::TooEarly, None).query();
    let falls = Row::default().connection();
    let fell = Some("DssFallback");
    for (findings, awareness) in [
        (vec![early.clone()], Awareness::Healthy),
        (vec![early.clone(), falls.clone()], Awareness::Open),
        (
            vec![
                early.clone(),
                falls.clone(),
                said(Verdict::TooEarly, fell).closing_verdict(),
            ],
            Awareness::TooEarly,
        ),
        (
            vec![
                falls.clone(),
                said(Verdict::Misled, fell).query(),
                said(Verdict::Explained, fell).query(),
            ],
            Awareness::Explained,
        ),
        (
            vec![
                falls.clone(),
                said(Verdict::Contradicted, fell).query(),
                said(Verdict::Explained, fell).query(),
            ],
            Awareness::Contradicted,
        ),
        (
            vec![falls, said(Verdict::NeverAsked, fell).closing_verdict()],
            Awareness::NeverAsked,
        ),
    ] {
        let mut ledger = Ledger::new(REMEMBERED_MAX);
        let states = findings.iter().map(|it| taken(&mut ledger, it));
        let last = states.last().flatten().map(State::awareness);
        assert_eq!(last, Some(awareness));
    }
}

#[test]
fn a_socket_that_connects_again_is_another_connection_and_a_plain_client_is_none() {
    let mut ledger = Ledger::new(REMEMBERED_MAX);
    let again = Row {
        attempt: 1,
        ..Row::default()
    };
    let plain = Row {
        kind: ConnectionKind::Plain,
        address: 2,
        cause: None,
        ..Row::default()
    };
    for row in [Row::default(), Row::default(), again, plain] {
        taken(&mut ledger, &row.connection());
    }
    let counts = Counts {
        connections: 2,
        fallen: 2,
        deceived: 0,
    };
    assert_eq!(ledger.counts(), counts);
}
