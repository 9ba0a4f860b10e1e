use super::*;
use crate::{
    history::What::{Blind, Existing, Fallback, Other, Seeing},
    model::{ConnectionId, Finding, fixture::Row},
};

const LIMITS: HistoryLimits = HistoryLimits {
    connections: 2,
    records: 3,
    blackholes: 1,
    total: usize::MAX,
};

fn connection(address: u64, kind: ConnectionKind, born_ms: u64) -> Observation {
    let row = Row {
        address,
        kind,
        ..Row::default()
    };
    let Finding::Connection(event) = row.connection() else {
        panic!("the fixture makes another finding");
    };
    let mut connection = event.connection;
    connection.id = ConnectionId {
        born_at: Duration::from_millis(born_ms),
        ..connection.id
    };
    Observation::Connection(Box::new(connection))
}

fn shown(history: &History) -> Vec<String> {
    let records = history.lead().records;
    let text = records.into_iter().map(|it| String::from_utf8(it).unwrap());
    text.collect()
}

#[test]
fn the_least_recently_active_connection_goes_and_is_counted() {
    let mut history = History::new(LIMITS);
    let mut note = |address, born_ms, text: &str| {
        let fell = connection(address, ConnectionKind::Fallback, born_ms);
        history.note(&fell, text.as_bytes());
        (shown(&history), history.omitted())
    };
    note(1, 1, "1 fell");
    note(2, 1, "2 fell");
    note(1, 1, "1 again");
    let (records, omitted) = note(3, 1, "3 fell");
    assert_eq!(
        (records.join(", ").as_str(), omitted),
        ("1 fell, 1 again, 3 fell", 1)
    );
    // Another socket at the same address.
    let (records, omitted) = note(1, 2, "1 anew");
    assert_eq!(
        (records.join(", ").as_str(), omitted),
        ("3 fell, 1 anew", 1)
    );
}

#[test]
fn tcp_children_are_left_out_and_the_last_blackhole_is_kept() {
    let mut history = History::new(LIMITS);
    for (kind, text) in [
        (ConnectionKind::Plain, "plain"),
        (ConnectionKind::Blackhole, "first"),
        (ConnectionKind::Blackhole, "second"),
    ] {
        history.note(&connection(1, kind, 1), text.as_bytes());
    }
    assert_eq!(shown(&history), ["second"]);
    assert_eq!(history.records.len(), 2);
    history.note(&connection(1, ConnectionKind::Fallback, 1), b"fell");
    assert_eq!(shown(&history), ["plain", "second", "fell"]);
    let of_sensor = history.lead().of_sensor;
    assert_eq!((of_sensor.query, of_sensor.fallback), (0, 3));
}

#[test]
fn the_record_that_matters_least_goes_first() {
    for (records, least) in [
        (&[Existing, Seeing, Blind, Fallback][..], 2),
        (&[Existing, Seeing, Seeing, Fallback], 1),
        (&[Existing, Other, Seeing, Fallback], 1),
        (&[Existing, Fallback, Fallback, Seeing], 1),
        (&[Seeing, Seeing, Seeing, Seeing], 0),
        (&[Fallback, Existing], 0),
    ] {
        let entry = Entry {
            open_paths: 0,
            is_closed: false,
            born_at: Duration::ZERO,
            records: (0..).zip(records.iter().copied()).collect(),
            used: 0,
        };
        assert_eq!(entry.least(), least, "{records:?}");
    }
}
