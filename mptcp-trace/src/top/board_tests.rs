use super::*;
use crate::model::fixture::Row as Fixture;

fn board(limits: Limits, findings: &[Finding]) -> Board {
    let mut board = Board::new(limits);
    for finding in findings {
        board.take(finding, &|_id| None);
    }
    board
}

fn fallback(at_ms: u64, address: u64) -> Finding {
    Fixture {
        at_ms,
        address,
        ..Fixture::default()
    }
    .connection()
}

fn asked(at_ms: u64, address: u64, verdict: Verdict) -> Finding {
    Fixture {
        at_ms,
        address,
        verdict: Some(verdict),
        ..Fixture::default()
    }
    .query()
}

#[test]
fn the_events_of_a_connection_are_listed_in_order_of_time() {
    let ended = Fixture {
        at_ms: 90,
        verdict: Some(Verdict::Misled),
        ..Fixture::default()
    };
    let board = board(
        Limits::STATED,
        &[
            fallback(50, 1),
            asked(20, 1, Verdict::TooEarly),
            asked(70, 1, Verdict::Explained),
            ended.closing_verdict(),
        ],
    );
    let snapshot = board.snapshot(Duration::from_millis(100));
    let [row] = &snapshot.rows[..] else {
        panic!("{:?}", snapshot.rows);
    };
    let kinds: Vec<TimelineKind> = row.moments.iter().map(|moment| moment.kind).collect();
    use TimelineKind::{Asked, Begin, End, Fallback};
    assert_eq!(kinds, [Begin, Asked, Fallback, Asked, End]);
    assert!(
        row.moments[2].words.starts_with("FELL BACK: DssFallback"),
        "{row:?}"
    );
    assert_eq!(row.state(), "fell back");
    assert_eq!(row.verdict, Some(Verdict::Misled));
    assert!(row.is_closed && row.is_deceived());
    assert_eq!(row.queries, 2);
    let totals = snapshot.totals;
    assert_eq!(
        (
            totals.connections,
            totals.fallbacks,
            totals.queries,
            totals.deceived
        ),
        (1, 1, 2, 1)
    );
}

#[test]
fn beyond_the_limit_the_connection_that_was_quiet_longest_goes_and_is_counted() {
    let limits = Limits {
        connections: 2,
        moments: 4,
    };
    let board = board(
        limits,
        &[
            fallback(1, 1),
            fallback(2, 2),
            asked(3, 1, Verdict::Explained),
            fallback(4, 3),
        ],
    );
    let snapshot = board.snapshot(Duration::from_secs(1));
    let mut left: Vec<u64> = snapshot.rows.iter().map(|row| row.id.socket.0).collect();
    left.sort_unstable();
    assert_eq!(left, [1, 3]);
    assert_eq!(
        (snapshot.totals.connections, snapshot.totals.forgotten),
        (3, 1)
    );
    assert_eq!(board.ledger.entries().count(), 2);
}

#[test]
fn of_many_moments_the_first_the_fallback_and_the_last_ones_stay() {
    let limits = Limits {
        connections: 2,
        moments: 4,
    };
    let mut findings = vec![fallback(1, 1)];
    findings.extend((2..30).map(|at_ms| asked(at_ms, 1, Verdict::Explained)));
    let snapshot = board(limits, &findings).snapshot(Duration::from_secs(1));
    let row = &snapshot.rows[0];
    assert_eq!(row.moments.len(), 4);
    assert_eq!(row.moments[0].kind, TimelineKind::Begin);
    assert_eq!(row.moments[1].kind, TimelineKind::Fallback);
    assert_eq!(row.moments[3].at, Duration::from_millis(29));
    assert_eq!(row.forgotten, 26);
}

#[test]
fn fallbacks_are_counted_by_the_second_they_happened_in() {
    let findings = [fallback(1_000, 1), fallback(1_900, 2), fallback(3_000, 3)];
    let rate = board(Limits::STATED, &findings)
        .snapshot(Duration::from_secs(4))
        .rate;
    assert_eq!(rate.len(), SECONDS);
    assert_eq!(rate[SECONDS - 4..], [2, 0, 1, 0]);
    assert_eq!(rate.iter().sum::<u64>(), 3);
}

#[test]
fn what_was_refused_makes_no_connection() {
    let mut board = board(Limits::STATED, &[fallback(1, 1)]);
    assert_eq!(board.ledger.counts().connections, 1);
    let listener = Fixture {
        address: 9,
        ..Fixture::default()
    };
    let mut listener = listener.query();
    if let Finding::Query(event) = &mut listener {
        event.query.socket.state = crate::model::TcpState::LISTEN;
    }
    board.take(&listener, &|_id| None);
    assert_eq!(board.ledger.counts().connections, 1);
    assert_eq!(board.totals.queries, 1);
}

#[test]
fn an_ipv4_peer_of_an_ipv6_socket_has_an_ipv4_address() {
    let mapped = Fixture {
        local: "[::ffff:10.0.0.1]:40000",
        remote: "[::ffff:10.0.0.2]:443",
        ..Fixture::default()
    };
    let board = board(Limits::STATED, &[mapped.connection(), mapped.query()]);
    let rows = board.snapshot(Duration::from_secs(1)).rows;
    let shown = (rows[0].local.to_string(), rows[0].remote.to_string());
    assert_eq!(shown, ("10.0.0.1:40000".into(), "10.0.0.2:443".into()));
}

#[test]
fn a_reading_is_of_the_connection_that_has_the_socket_now() {
    use crate::model::{
        PathId, PathKind, SocketId,
        fixture::{a_ledger, a_path},
    };
    let row = Fixture {
        at_ms: 1_000,
        ..Fixture::default()
    };
    let id = PathId {
        socket: SocketId(9),
        began_at: Duration::from_secs(1),
    };
    let Finding::Path(event) = row.path(Path {
        path: Some(id),
        ledger: Some(a_ledger()),
        ..a_path(PathKind::Up)
    }) else {
        panic!("no path")
    };
    let path = event.path.clone();
    let mut board = board(Limits::STATED, &[Finding::Path(event)]);
    let read_at = |board: &Board| {
        let snapshot = board.snapshot(Duration::from_secs(2));
        snapshot.rows[0].paths.read_at()
    };
    let connection = path.connection.unwrap();
    let earlier = ConnectionId {
        born_at: connection.born_at + Duration::from_secs(5),
        ..connection
    };
    for other in [None, Some(earlier)] {
        board.read(&Path {
            connection: other,
            ..path.clone()
        });
        assert_eq!(read_at(&board), None);
    }
    board.read(&path);
    assert_eq!(read_at(&board), Some(path.at));
}
