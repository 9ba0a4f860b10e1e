use std::collections::BTreeMap;

use super::*;

const BEFORE: &str = "mptcp_trace_seen_total{sensor=\"query\"} 2\n\
    mptcp_trace_outcomes_total{sensor=\"query\",outcome=\"emitted\"} 2\n\
    mptcp_trace_fallbacks_total{cause=\"DssFallback\"} 1\n\
    mptcp_trace_plain_connections_total 1\n";
const AFTER: &str = "mptcp_trace_seen_total{sensor=\"query\"} 102\n\
    mptcp_trace_outcomes_total{sensor=\"query\",outcome=\"emitted\"} 62\n\
    mptcp_trace_outcomes_total{sensor=\"query\",outcome=\"capped\"} 40\n\
    mptcp_trace_fallbacks_total{cause=\"DssFallback\",process=\"a\"} 6\n\
    mptcp_trace_fallbacks_total{cause=\"DssFallback\"} 2\n\
    mptcp_trace_plain_connections_total 6\n\
    mptcp_trace_namespaces{counters=\"agree\"} 3\n";

/// Half an hour in which every check passes.
fn right() -> Ledger {
    let rest = |page: &str| IdleSnapshot {
        held: Sample {
            rss_kb: 10_300,
            fds: 50,
            threads: 1,
            ..Sample::default()
        },
        page: Page::parse(page).unwrap(),
    };
    let samples = (0_u32..180).map(|number| Sample {
        at_s: f64::from(number) * 10.0,
        // Slight fluctuation.
        rss_kb: 10_000 + u64::from(number % 7) * 100,
        // A flood takes some megabytes, in varying amounts.
        peak_kb: 11_000 + u64::from(number % 2) * u64::from(number * 7919 % 4000),
        ..Sample::default()
    });
    Ledger {
        rung: "tracepoint".into(),
        duration_s: 1800.0,
        every_s: 10.0,
        samples: samples.collect(),
        before: rest(BEFORE),
        after: rest(AFTER),
        actions: ActionLog {
            asked: 100,
            flooded: 60,
            floods: 1,
            kernel: BTreeMap::from([("DssFallback".into(), 7), (THIRD_ACK.into(), 2)]),
            plain: 3,
            connections: 1,
            recipes: 1,
            namespaces: 1,
            kills: 1,
            hangups: 4,
            bad_hangups: 2,
            clock_steps: 1,
            scrapes: 1700,
            visitors: 1,
            sent_away: 1,
            ..ActionLog::default()
        },
        has_clock: true,
        clock_off_ns: 1000,
        said_read: 4,
        said_broken: 2,
        broken: None,
    }
}

/// The cells that are not ok after a change to the ledger.
fn wrong(spoil: impl FnOnce(&mut Ledger)) -> Vec<String> {
    let mut ledger = right();
    spoil(&mut ledger);
    let cells = judge(&ledger).into_iter();
    cells
        .filter(|cell| cell.outcome != Outcome::Ok)
        .map(|cell| cell.case)
        .collect()
}

fn page(ledger: &mut Ledger, from: &str, to: &str) {
    assert!(AFTER.contains(from), "{from}");
    ledger.after.page = Page::parse(&AFTER.replace(from, to)).unwrap();
}

#[test]
fn a_run_that_is_right_is_right() {
    assert_eq!(wrong(|_ledger| ()), Vec::<String>::new());
}

#[test]
fn a_peak_that_a_sample_meets_by_chance_is_no_growth() {
    let met = |ledger: &mut Ledger| {
        let last = ledger.samples.last_mut().unwrap();
        last.rss_kb += 5000;
        last.peak_kb += 8000;
    };
    assert_eq!(wrong(met), Vec::<String>::new());
}

#[test]
fn each_fault_is_noticed_where_it_belongs() {
    type Spoil = fn(&mut Ledger);
    #[rustfmt::skip] // a table: about a line each
    let rows: [(&str, Spoil, &[&str]); 28] = [
        (
            "memory grows by 4 MB an hour",
            |it| {
                for sample in &mut it.samples {
                    sample.rss_kb += (sample.at_s * 4000.0 / 3600.0) as u64;
                }
            },
            &["churn-memory"],
        ),
        ("memory jumps at the end, and stays", |it| it.after.held.rss_kb += GROWTH_KB_MAX + 700, &["churn-memory"]),
        (
            "peaks grow",
            |it| {
                for sample in &mut it.samples {
                    sample.peak_kb += (sample.at_s * 8000.0 / 3600.0) as u64;
                }
            },
            &["churn-memory"],
        ),
        (
            "memory grows below a peak",
            |it| {
                for sample in &mut it.samples {
                    sample.rss_kb += (sample.at_s * 4000.0 / 3600.0) as u64;
                }
                if let Some(warm) = it.samples.get_mut(50) {
                    warm.rss_kb += 5000;
                    warm.peak_kb += 5000;
                }
            },
            &["churn-memory"],
        ),
        ("no samples", |it| it.samples.clear(), &["churn-memory"]),
        ("few samples", |it| it.samples.retain(|it| (it.at_s as u64).is_multiple_of(50)), &["churn-memory"]),
        ("a descriptor leaks", |it| it.after.held.fds += 1, &["churn-descriptors"]),
        ("a thread stays", |it| it.after.held.threads += 1, &["churn-descriptors"]),
        ("one is not accounted for", |it| page(it, "\"emitted\"} 62", "\"emitted\"} 61"), &["churn-accounted"]),
        ("a query too few", |it| it.actions.asked += 1, &["churn-queries"]),
        ("a query too many", |it| it.actions.asked -= 1, &["churn-queries"]),
        ("a fallback too few", |it| page(it, "\"a\"} 6", "\"a\"} 5"), &["churn-fallbacks"]),
        ("a fallback too many", |it| page(it, "\"a\"} 6", "\"a\"} 7"), &["churn-fallbacks"]),
        ("a cause that was not traced", |it| { it.actions.kernel.insert("InfiniteMapTx".into(), 1); }, &["churn-fallbacks"]),
        ("a cause that the kernel did not count", |it| { it.actions.kernel.remove("DssFallback"); }, &["churn-fallbacks"]),
        ("a child too few", |it| page(it, "connections_total 6", "connections_total 5"), &["churn-third-ack"]),
        ("a namespace differs", |it| page(it, "\"agree\"} 3", "\"differ\"} 3"), &["churn-agreement"]),
        (
            "a record is not understood",
            |it| {
                page(
                    it,
                    "mptcp_trace_plain_",
                    "mptcp_trace_undecodable_records_total 1\nmptcp_trace_plain_",
                );
            },
            &["churn-agreement"],
        ),
        ("a counter goes back", |it| it.actions.went_back.push("x".into()), &["churn-counters-grow"]),
        ("the page cannot be read", |it| it.actions.scrapes = 100, &["churn-counters-grow"]),
        ("a hangup is lost", |it| it.said_read -= 1, &["churn-reloads"]),
        ("broken settings are taken", |it| { it.said_read += 1; it.said_broken -= 1; }, &["churn-reloads"]),
        ("the clock stays wrong", |it| it.clock_off_ns = -90_000_000_000, &["churn-clock"]),
        ("no process is killed", |it| it.actions.kills = 0, &["churn-actions"]),
        ("the clock does not step", |it| it.actions.clock_steps = 0, &["churn-actions"]),
        ("something could not be done", |it| it.actions.failed = 1, &["churn-actions"]),
        ("it dies", |it| it.broken = Some("it panicked".into()), &["churn-end"]),
        (
            "the page is empty",
            |it| it.after.page = Page::default(),
            &[
                "churn-accounted",
                "churn-queries",
                "churn-fallbacks",
                "churn-third-ack",
                "churn-actions",
            ],
        ),
    ];
    for (name, spoil, want) in rows {
        assert_eq!(wrong(spoil), want, "{name}");
    }
}

#[test]
fn others_excuse_what_is_too_many_and_nothing_that_is_missing() {
    let outcome = |asked: u64| {
        let mut ledger = right();
        ledger.actions.others = vec!["mptcp-trace (7)".into()];
        ledger.actions.asked = asked;
        queries(&ledger).outcome
    };
    assert_eq!(outcome(100), Outcome::Ok);
    assert_eq!(outcome(99), Outcome::Skipped);
    assert_eq!(outcome(101), Outcome::Mismatch);
}

#[test]
fn others_excuse_a_namespace_that_differs_and_a_rare_failure() {
    let outcomes = |others: &[&str], spoil: &dyn Fn(&mut Ledger)| {
        let mut ledger = right();
        ledger.actions.others = others.iter().map(|&other| other.to_owned()).collect();
        ledger.actions.connections = 100;
        spoil(&mut ledger);
        [agreement(&ledger), actions(&ledger)].map(|cell| cell.outcome)
    };
    let spoil = |ledger: &mut Ledger| {
        let agrees = "mptcp_trace_namespaces{counters=\"agree\"} 3";
        page(
            ledger,
            agrees,
            "mptcp_trace_namespaces{counters=\"differ\"} 1",
        );
        ledger.actions.failed = 2;
    };
    assert_eq!(outcomes(&[], &spoil), [Outcome::Mismatch; 2]);
    assert_eq!(outcomes(&["curl"], &spoil), [Outcome::Skipped; 2]);
    let worse = |ledger: &mut Ledger| {
        ledger.after.page = Page::parse("mptcp_trace_undecodable_records_total 1\n").unwrap();
        ledger.actions.failed = 3;
    };
    assert_eq!(outcomes(&["curl"], &worse), [Outcome::Mismatch; 2]);
}

#[test]
fn a_line_rises_by_what_its_points_rise() {
    let rising: Vec<(f64, f64)> = (0..9)
        .map(|x| (f64::from(x), 5.0 + 3.0 * f64::from(x)))
        .collect();
    assert!((slope(&rising).unwrap() - 3.0).abs() < 1e-9);
    assert_eq!(slope(&[(1.0, 1.0)]), None);
    assert_eq!(slope(&[]), None);
}

#[test]
fn a_warm_up_is_a_third_and_no_more_than_ten_minutes() {
    for (duration_s, want) in [(120.0, 40.0), (1800.0, 600.0), (7200.0, 600.0)] {
        assert!((warm_up_s(duration_s) - want).abs() < 1e-9);
    }
}
