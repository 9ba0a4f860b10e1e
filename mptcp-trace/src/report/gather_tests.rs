use super::*;
use crate::model::fixture::Row;

fn gather(findings: impl IntoIterator<Item = Finding>) -> Gathered {
    let mut gathered = Gathered::default();
    for finding in findings {
        gathered.add(&finding);
    }
    gathered.finish();
    gathered
}

fn row(address: u64, at_ms: u64) -> Row {
    Row {
        address,
        at_ms,
        ..Row::default()
    }
}

fn ended(row: Row, verdict: Verdict) -> Finding {
    Row {
        verdict: Some(verdict),
        ..row
    }
    .closing_verdict()
}

#[test]
fn a_connection_counts_once_whatever_is_said_of_it() {
    let asked = Row {
        verdict: Some(Verdict::Explained),
        ..row(1, 9)
    };
    let gathered = gather([
        row(1, 5).connection(),
        asked.query(),
        asked.query(),
        row(2, 6).connection(),
        ended(row(2, 7), Verdict::NeverAsked),
        Row {
            cause: None,
            verdict: Some(Verdict::StillMptcp),
            ..row(3, 8)
        }
        .query(),
    ]);
    assert_eq!(gathered.findings, 6);
    let fates = [
        (Awareness::NeverAsked, 1),
        (Awareness::Explained, 1),
        (Awareness::Healthy, 1),
    ];
    assert_eq!(gathered.awareness, BTreeMap::from(fates));
    assert_eq!(gathered.causes["DssFallback"].fallbacks, 2);
    assert_eq!(gathered.answers[&("TCP_IS_MPTCP", "mptcp")], 3);
    assert_eq!(gathered.verdicts[&Verdict::Explained], (2, 0));
    assert_eq!(gathered.verdicts[&Verdict::NeverAsked], (0, 1));
    let group = Group {
        connections: 3,
        fallen: 2,
        unaware: 1,
    };
    assert_eq!(gathered.destinations[&"192.0.2.7".parse().ok()], group);
    assert_eq!(gathered.processes["curl"], group);
}

#[test]
fn the_worst_come_first_and_of_those_the_earliest() {
    let verdicts = [
        Verdict::Explained,
        Verdict::NeverAsked,
        Verdict::Stale,
        Verdict::Contradicted,
        Verdict::Misled,
        Verdict::TooEarly,
        Verdict::NeverAsked,
    ];
    let gathered = gather(verdicts.into_iter().zip(1..).flat_map(|(verdict, number)| {
        [
            row(number, 100 - number).connection(),
            ended(row(number, 200), verdict),
        ]
    }));
    let order: Vec<(Awareness, u128)> = gathered
        .listed()
        .map(|life| {
            (
                life.awareness(),
                life.fell_at.unwrap_or_default().as_millis(),
            )
        })
        .collect();
    let expected = [
        (Awareness::Contradicted, 96),
        (Awareness::Misled, 95),
        (Awareness::Stale, 97),
        (Awareness::TooEarly, 94),
        (Awareness::NeverAsked, 93),
        (Awareness::NeverAsked, 98),
        (Awareness::Explained, 99),
    ];
    assert_eq!(order, expected);
}

#[test]
fn a_socket_that_connects_anew_is_another_connection() {
    let anew = |verdict| {
        Row {
            cause: None,
            verdict: Some(verdict),
            attempt: 1,
            ..row(1, 9)
        }
        .query()
    };
    let gathered = gather([
        row(1, 5).connection(),
        anew(Verdict::TooEarly),
        anew(Verdict::StillMptcp),
        Row {
            attempt: 1,
            ..row(1, 20)
        }
        .connection(),
    ]);
    assert_eq!(gathered.causes["DssFallback"].fallbacks, 2);
    let fallen: u64 = gathered.awareness.values().sum();
    assert_eq!((fallen, gathered.drawn().count()), (2, 2));
}

#[test]
fn whatever_comes_has_a_limit_and_what_is_beyond_is_counted() {
    let many = CONNECTIONS_MAX as u64 + 100;
    let names: Vec<String> = (0..many).map(|number| format!("c{number}")).collect();
    let mut gathered = Gathered::default();
    for (number, name) in (0..many).zip(&names) {
        let mut finding = row(number, number + 1).connection();
        if let Finding::Connection(event) = &mut finding {
            let v4 = std::net::Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap());
            event.connection.socket.remote = (v4, 443).into();
            event.connection.cause = Some(name.clone().into());
            if let Some(owner) = &mut event.connection.owner {
                owner.process.comm.clone_from(name);
            }
        }
        gathered.add(&finding);
        assert!(gathered.ledger.0.entries().count() <= CONNECTIONS_MAX);
    }
    gathered.finish();
    assert_eq!(gathered.forgotten, 100);
    assert_eq!(gathered.awareness[&Awareness::Open], many);
    assert_eq!(gathered.drawn().count(), LANES_MAX);
    assert_eq!(gathered.listed().count(), LISTED_MAX);
    assert_eq!(gathered.not_listed, many - LISTED_MAX as u64);
    assert_eq!(gathered.causes.len(), CAUSES_MAX + 1);
    assert_eq!(gathered.processes.len(), GROUPS_MAX + 1);
    assert_eq!(gathered.destinations.len(), GROUPS_MAX + 1);
    let of_causes: u64 = gathered.causes.values().map(|it| it.fallbacks).sum();
    let of_names: u64 = gathered.processes.values().map(|it| it.fallen).sum();
    assert_eq!((of_causes, of_names), (many, many));
}

#[test]
fn bins_widen_until_all_fits_and_lose_nothing() {
    for times in [
        vec![5_000],
        vec![1, 2, 3],
        vec![5_000, 1, 86_400_000],
        vec![0, u64::MAX / 2_000_000, 7],
    ] {
        let mut bins = Bins::default();
        for ms in &times {
            bins.add(Duration::from_millis(*ms), Some("x"));
        }
        let (used, begin) = bins.used();
        let total: u64 = used.iter().flat_map(BTreeMap::values).sum();
        assert_eq!(total, times.len() as u64, "{times:?}");
        assert!(!used.is_empty() && used.len() <= crate::report::BINS_MAX);
        let first = Duration::from_millis(times.iter().copied().min().unwrap_or_default());
        assert!(begin <= first && first < begin + bins.width(), "{times:?}");
        assert_eq!(used.first().map(BTreeMap::len), Some(1), "{times:?}");
        assert_eq!(used.last().map(BTreeMap::len), Some(1), "{times:?}");
    }
}

#[test]
fn an_ipv4_peer_of_an_ipv6_socket_has_an_ipv4_address() {
    let mapped = Row {
        local: "[::ffff:10.0.0.1]:40000",
        remote: "[::ffff:10.0.0.2]:443",
        ..Row::default()
    };
    let gathered = gather([mapped.connection(), mapped.query()]);
    let life = gathered.drawn().next().unwrap();
    let shown = (life.local.to_string(), life.remote.to_string());
    assert_eq!(shown, ("10.0.0.1:40000".into(), "10.0.0.2:443".into()));
}
