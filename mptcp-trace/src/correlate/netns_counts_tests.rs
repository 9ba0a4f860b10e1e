//! The kernel's counters compared with what was traced: rows of counts.

use std::collections::BTreeMap;

use super::{tests::*, *};
use crate::model::{
    CauseCertainty, Connection, Counted, Loss, LossReport, NetnsCounters, Reconciliation, SensorId,
};

fn report(netns: u32, counters: &[(&str, u64)]) -> LossReport {
    let counters = counters
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count));
    LossReport {
        sensors: vec![Loss {
            ..Loss::none(SensorId::Fallback)
        }],
        counted: vec![Counted {
            paths: None,
            netns,
            counters: counters.clone().collect(),
            counters_after: counters.collect(),
            doubt: None,
        }],
        paths_under_way: 0,
    }
}

fn fallback_ledger(events: &[Connection]) -> FallbackLedger {
    let mut fallback_ledger = FallbackLedger::default();
    for event in events {
        fallback_ledger.record(event, &facts());
    }
    fallback_ledger
}

/// The account of the one namespace with events.
fn said(events: &[Connection], report: &LossReport) -> Option<String> {
    let all = reconcile(&fallback_ledger(events), report, &facts());
    match &all[..] {
        [] => None,
        [one] => Some(one.why.clone().unwrap_or_else(|| "agrees".into())),
        more => panic!("{more:?}"),
    }
}

/// The account of an ended namespace is dropped: its inode number is reused, and counters restart
/// at zero.
#[test]
fn a_namespace_that_is_gone_is_forgotten_unless_something_has_happened_in_it_since() {
    let fell = connection(ConnectionKind::Fallback, 10, 0xa);
    let (netns, at) = (fell.socket.netns, fell.at);
    let counted = |netns| Counted {
        netns,
        ..Counted::default()
    };
    for (there, read_at, left) in [
        (netns, at + Duration::from_nanos(1), 1),
        (netns + 1, at + Duration::from_nanos(1), 0),
        (netns + 1, at, 1),
    ] {
        let mut fallback_ledger = fallback_ledger(std::slice::from_ref(&fell));
        fallback_ledger.forget_gone(&[counted(there)], read_at);
        assert_eq!(
            fallback_ledger.namespaces().count(),
            left,
            "{there} {read_at:?}"
        );
    }
}

/// `/proc` does not show a namespace that only a descriptor holds: its counters continue.
#[test]
fn a_namespace_that_the_bpf_side_reads_is_kept_until_its_number_is_reused() {
    use Step::{Counted, Fell};
    let unseen = unseen_by_proc();
    let facts = listed_facts();
    let mut fallback_ledger = entered(&[Fell(1, 10), Fell(1, 11), Counted(1, 12, 2)]);
    fallback_ledger.forget_gone(&[], Duration::from_millis(20));
    fallback_ledger.record(&fell_in(1, 30), &facts);
    fallback_ledger.counted(counted_in(1, 31, 3));
    let accounts = reconcile(&fallback_ledger, &unseen, &facts);
    assert!(accounts.iter().all(Reconciliation::agrees), "{accounts:?}");
    assert_eq!(accounts[0].traced["DssFallback"], 3);
    fallback_ledger.record(&fell_in(2, 40), &facts);
    fallback_ledger.forget_gone(&[], Duration::from_millis(50));
    assert_eq!(fallback_ledger.namespaces().count(), 0);
    fallback_ledger.counted(counted_in(2, 51, 1));
}

/// A fallback in the namespace of this cookie; all of them have the same inode number, one after
/// the other.
fn fell_in(cookie: u64, at_ms: u64) -> Connection {
    Connection {
        netns_cookie: cookie,
        ..connection(ConnectionKind::Fallback, at_ms, at_ms)
    }
}

/// All counters were 0 when tracing began.
fn listed_facts() -> Facts {
    Facts {
        counters_listed_at: Some((Duration::ZERO, Duration::ZERO)),
        ..facts()
    }
}

/// `/proc` shows no namespace at the end.
fn unseen_by_proc() -> LossReport {
    LossReport {
        counted: Vec::new(),
        ..report(NETNS, &[])
    }
}

/// The BPF side's reading of a namespace.
fn counted_in(cookie: u64, at_ms: u64, dss: u64) -> NetnsCounters {
    NetnsCounters {
        netns: NETNS,
        cookie,
        at: Duration::from_millis(at_ms),
        counters: [("DssFallback".to_owned(), dss)].into(),
    }
}

enum Step {
    Fell(u64, u64),
    Counted(u64, u64, u64),
}

fn entered(steps: &[Step]) -> FallbackLedger {
    let mut fallback_ledger = FallbackLedger::default();
    for step in steps {
        match *step {
            Step::Fell(cookie, at_ms) => {
                fallback_ledger.record(&fell_in(cookie, at_ms), &listed_facts());
            }
            Step::Counted(cookie, at_ms, dss) => {
                fallback_ledger.counted(counted_in(cookie, at_ms, dss));
            }
        }
    }
    fallback_ledger
}

#[test]
fn a_namespace_that_is_gone_has_an_account_of_its_own_although_others_had_its_number() {
    use Step::{Counted, Fell};
    const GONE: &str = "the namespace is gone, or no process in it is visible, and its counters \
                        were last read before 1 of its fallbacks";
    const UNREAD: &str =
        "counters could not be read: the namespace is gone, or no process in it is visible";
    let agrees = "agrees";
    let unseen = unseen_by_proc();
    for (steps, reading, at_start, says) in [
        // Read at the end of each of its connections.
        (
            &[
                Fell(1, 10),
                Counted(1, 11, 1),
                Fell(1, 12),
                Counted(1, 13, 2),
            ][..],
            None,
            0,
            vec![agrees],
        ),
        (
            &[Fell(1, 10), Counted(1, 11, 2)],
            None,
            0,
            vec!["DssFallback: kernel counted 2, traced 1"],
        ),
        // An older reading that arrives late is ignored.
        (
            &[Fell(1, 10), Counted(1, 13, 1), Counted(1, 11, 0)],
            None,
            0,
            vec![agrees],
        ),
        // Another namespace with the same number.
        (
            &[
                Fell(1, 10),
                Counted(1, 11, 1),
                Fell(2, 20),
                Counted(2, 21, 1),
            ],
            None,
            0,
            vec![agrees, agrees],
        ),
        (
            &[Fell(1, 10), Counted(1, 11, 1), Fell(2, 20)],
            None,
            0,
            vec![agrees, UNREAD],
        ),
        (
            &[Fell(1, 10), Counted(1, 11, 1), Fell(1, 20)],
            None,
            0,
            vec![GONE],
        ),
        // The last one still exists at the end.
        (
            &[Fell(1, 10), Counted(1, 11, 1), Fell(2, 20)],
            Some(1),
            0,
            vec![agrees, agrees],
        ),
        (
            &[Fell(1, 10), Counted(1, 11, 1)],
            Some(2),
            0,
            vec!["DssFallback: kernel counted 2, traced 1"],
        ),
        // Its inode number belongs to another namespace now, without events.
        (&[Fell(1, 10), Counted(1, 11, 1)], Some(0), 0, vec![agrees]),
        // It existed before, with nonzero counters.
        (&[Fell(1, 10), Counted(1, 11, 4)], None, 3, vec![agrees]),
        (
            &[
                Fell(1, 10),
                Counted(1, 11, 4),
                Fell(2, 20),
                Counted(2, 21, 1),
            ],
            None,
            3,
            vec![agrees, agrees],
        ),
        // `/proc` shows it at the end, but could not when tracing began.
        (&[Fell(1, 10), Counted(1, 11, 4)], Some(4), 3, vec![agrees]),
        // The reading of the previous namespace does not apply to the next one.
        (
            &[Fell(1, 10), Fell(2, 20), Counted(2, 21, 1)],
            None,
            3,
            vec![UNREAD, agrees],
        ),
    ] {
        let mut facts = listed_facts();
        if at_start > 0 {
            let counters = [("DssFallback".to_owned(), at_start)].into();
            facts.counters_at_start.insert(1, counters);
            facts.counters_read_at.clear();
        }
        let report = match reading {
            Some(dss) => report(NETNS, &[("DssFallback", dss)]),
            None => unseen.clone(),
        };
        let accounts = reconcile(&entered(steps), &report, &facts);
        let said: Vec<&str> = accounts
            .iter()
            .map(|it| it.why.as_deref().unwrap_or(agrees))
            .collect();
        assert_eq!(said, says, "{reading:?} {at_start} {accounts:?}");
    }
}

#[test]
fn without_a_list_of_the_start_a_reading_at_the_end_says_nothing() {
    use Step::{Counted, Fell};
    let facts = facts();
    let report = unseen_by_proc();
    // Whether the others fell back before tracing began is unknown.
    let accounts = reconcile(&entered(&[Fell(1, 10), Counted(1, 11, 4)]), &report, &facts);
    let [account] = &accounts[..] else {
        panic!("{accounts:?}")
    };
    assert!(account.unread, "{account:?}");
}

#[test]
fn what_happened_while_counters_were_first_read_may_be_in_them() {
    let ms = Duration::from_millis;
    let unseen = unseen_by_proc();
    for (at_ms, at_start, later, agrees) in [
        // Before the first reading, which includes it: no account.
        (9, 1, 1, None),
        // During the reading of its namespace: either side.
        (15, 1, 1, Some(true)),
        (15, 0, 1, Some(true)),
        (15, 0, 2, Some(false)),
        // After the reading.
        (21, 0, 1, Some(true)),
        (21, 1, 1, Some(false)),
    ] {
        let mut facts = Facts {
            counters_listed_at: Some((ms(10), ms(20))),
            counters_read_at: BTreeMap::new(),
            ..facts()
        };
        let counters = [("DssFallback".to_owned(), at_start)].into();
        facts.counters_at_start.insert(1, counters);
        let mut fallback_ledger = FallbackLedger::default();
        fallback_ledger.record(&fell_in(1, at_ms), &facts);
        fallback_ledger.counted(counted_in(1, 30, later));
        let accounts = reconcile(&fallback_ledger, &unseen, &facts);
        let said = accounts.first().map(Reconciliation::agrees);
        assert_eq!(said, agrees, "{at_ms} {at_start} {later} {accounts:?}");
    }
}

#[test]
fn more_namespaces_than_there_is_room_for_share_an_account_or_are_said_to_have_none() {
    const MANY: u64 = 5_000;
    let mut all = Vec::new();
    for cookie in 1..=MANY {
        all.push(Step::Fell(cookie, 10 + cookie));
        all.push(Step::Counted(cookie, 10 + cookie, 1));
    }
    let facts = listed_facts();
    let unseen = LossReport::default();
    let accounts = reconcile(&entered(&all), &unseen, &facts);
    assert!(accounts.len() < MANY as usize);
    assert!(accounts.iter().all(Reconciliation::agrees), "{accounts:?}");
    let sum = |of: fn(&Reconciliation) -> &BTreeMap<String, u64>| {
        accounts.iter().map(|it| of(it)["DssFallback"]).sum::<u64>()
    };
    assert_eq!((sum(|it| &it.counted), sum(|it| &it.traced)), (MANY, MANY));
    let unread: Vec<Step> = (1..=MANY).map(|it| Step::Fell(it, 10 + it)).collect();
    let accounts = reconcile(&entered(&unread), &unseen, &facts);
    let last = accounts.last().unwrap();
    assert!(last.unread);
    assert!(
        last.why
            .as_deref()
            .unwrap()
            .starts_with("904 fallbacks are not reconciled"),
        "{last:?}"
    );
}

#[test]
fn the_account_holds_only_if_every_cause_does() {
    let fallback = || connection(ConnectionKind::Fallback, 10, 0xa);
    let unknown = || Connection {
        cause: None,
        known: CauseCertainty::Unknown,
        ..fallback()
    };
    let child = |known| Connection {
        cause: None,
        known,
        ..connection(ConnectionKind::Plain, 10, 0xa)
    };
    let early = || connection(ConnectionKind::Fallback, 0, 0xa);
    let dss = |count| report(NETNS, &[("DssFallback", count)]);
    let ack = |count| report(NETNS, &[("MPCapableFallbackACK", count)]);
    let check = |events: &[Connection], report: &LossReport, says: Option<&str>| {
        assert_eq!(said(events, report).as_deref(), says, "{events:?}");
    };
    check(&[], &dss(0), None);
    check(&[fallback()], &dss(1), Some("agrees"));
    check(
        &[fallback()],
        &dss(2),
        Some("DssFallback: kernel counted 2, traced 1"),
    );
    check(
        &[fallback(), fallback()],
        &dss(1),
        Some("DssFallback: kernel counted 1, traced 2"),
    );
    check(
        &[unknown()],
        &dss(1),
        Some("DssFallback: kernel counted 1, traced 0; 1 traced with an unknown cause"),
    );
    // The first reading of the counters included it already.
    check(&[early()], &dss(0), None);
    // During the first reading, either is possible.
    let meanwhile = || connection(ConnectionKind::Fallback, 2, 0xa);
    check(&[meanwhile()], &dss(0), Some("agrees"));
    check(&[meanwhile()], &dss(1), Some("agrees"));
    // The same holds while the probes are detached.
    let mut at_the_end = dss(1);
    at_the_end.counted[0]
        .counters_after
        .insert("DssFallback".into(), 2);
    check(&[fallback()], &at_the_end, Some("agrees"));
    check(&[fallback(), fallback()], &at_the_end, Some("agrees"));
    check(
        &[],
        &at_the_end,
        Some("DssFallback: kernel counted 1, traced 0"),
    );
    // Connections outside of the filter have an account too.
    let others = || Connection {
        admitted: false,
        ..fallback()
    };
    check(&[others()], &dss(1), Some("agrees"));
    check(
        &[others()],
        &dss(2),
        Some("DssFallback: kernel counted 2, traced 1"),
    );
    // A child's cause may be ambiguous, but for no more than the number of such children.
    check(
        &[child(CauseCertainty::Unknown)],
        &ack(1),
        Some(
            "MPCapableFallbackACK: kernel counted 1, traced 0 (1 TCP child of MPTCP listeners may \
             count as MPCapableFallbackACK)",
        ),
    );
    check(&[child(CauseCertainty::Inferred)], &ack(0), None);
    check(&[child(CauseCertainty::Unknown)], &ack(0), Some("agrees"));
    check(
        &[child(CauseCertainty::Unknown)],
        &ack(2),
        Some(
            "MPCapableFallbackACK: kernel counted 2, traced 0; 1 TCP children of MPTCP listeners, \
             which may count as MPCapableFallbackACK",
        ),
    );
    // A refused fallback is not counted.
    check(
        &[connection(ConnectionKind::FallbackDenied, 10, 0xa)],
        &dss(1),
        Some("DssFallback: kernel counted 1, traced 0"),
    );
}

/// A children's account stays explained when it is merged with others.
#[test]
fn namespaces_that_share_an_account_share_its_explanation() {
    const MANY: u64 = 4_097;
    let facts = listed_facts();
    let mut ledger = FallbackLedger::default();
    for cookie in 1..=MANY {
        let child = Connection {
            kind: ConnectionKind::Plain,
            cause: None,
            known: CauseCertainty::Unknown,
            ..fell_in(cookie, 10 + cookie)
        };
        ledger.record(&child, &facts);
        ledger.counted(NetnsCounters {
            counters: [("MPCapableFallbackACK".to_owned(), 1)].into(),
            ..counted_in(cookie, 10 + cookie, 0)
        });
    }
    let accounts = reconcile(&ledger, &LossReport::default(), &facts);
    let merged = accounts.iter().find(|it| it.netns == 0).unwrap();
    assert!(merged.agrees() && merged.explained);
    let why = merged.why.as_deref().unwrap();
    assert!(
        why.starts_with("MPCapableFallbackACK: kernel counted 4095, traced 0 (4095 TCP children"),
        "{why}"
    );
}

/// Whatever differs has a reason: also a request for MPTCP that a listener without a token answered
/// with TCP.
#[test]
fn a_difference_for_which_tcp_children_account_says_so() {
    let plain = Connection {
        cause: None,
        known: CauseCertainty::Inferred,
        ..connection(ConnectionKind::Plain, 10, 0xa)
    };
    let ledger = fallback_ledger(&[plain]);
    let mut facts = facts();
    facts
        .causes
        .push((2, "MPTCP_MIB_TOKENFALLBACKINIT".to_owned()));
    for (counted, agrees, why) in [
        (0, true, None),
        (
            1,
            true,
            Some("(1 TCP child of MPTCP listeners may count as MPFallbackTokenInit)"),
        ),
        (
            2,
            false,
            Some("MPFallbackTokenInit: kernel counted 2, traced 0"),
        ),
    ] {
        let report = report(NETNS, &[("MPFallbackTokenInit", counted)]);
        let accounts = reconcile(&ledger, &report, &facts);
        let all_agree = accounts.iter().all(Reconciliation::agrees);
        assert_eq!(all_agree, agrees, "{accounts:?}");
        let differs = accounts.iter().any(|it| it.counted != it.traced);
        let said = accounts.iter().find_map(|it| it.why.as_deref());
        assert_eq!(said.is_some(), differs, "{accounts:?}");
        if let Some(why) = why {
            assert!(said.unwrap().ends_with(why), "{said:?}");
        }
    }
}

#[test]
fn what_is_known_of_the_reason_for_a_difference_is_said() {
    let mut lossy = report(NETNS, &[("DssFallback", 3)]);
    lossy.sensors[0].ring_full = 2;
    lossy.counted[0].doubt = Some("this namespace is new".into());
    assert_eq!(
        said(&[connection(ConnectionKind::Fallback, 10, 0xa)], &lossy).as_deref(),
        Some("DssFallback: kernel counted 3, traced 1; 2 were lost; this namespace is new")
    );
    // A namespace with unreadable counters is always reported.
    let elsewhere = LossReport::default();
    assert_eq!(
        said(&[connection(ConnectionKind::Fallback, 10, 0xa)], &elsewhere).as_deref(),
        Some("counters could not be read: the namespace is gone, or no process in it is visible")
    );
}

#[test]
fn growth_is_what_was_added_and_only_of_fallbacks() {
    let counters = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
        pairs
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    };
    let before = counters(&[("DssFallback", 2), ("MPCapableSYNRX", 1)]);
    let after = counters(&[
        ("DssFallback", 5),
        ("MPCapableSYNRX", 9),
        ("InfiniteMapTx", 0),
    ]);
    assert_eq!(
        growth(Some(&before), &after),
        counters(&[("DssFallback", 3)])
    );
    assert_eq!(growth(None, &after), counters(&[("DssFallback", 5)]));
}
