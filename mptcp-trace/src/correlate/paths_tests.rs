use std::time::{Duration, SystemTime};

use super::{
    tests::{change, connection, facts, owner},
    *,
};
use crate::model::{
    ChangeKind, Closed, Connection, Outcome, Path, PathEvent, PathId, PathKind, PathRole, Place,
    SocketId, Via, fixture::a_path,
};

const PID: u32 = 7;

/// A path of the connection at address 1.
fn path(kind: PathKind, at_ms: u64, number: u64) -> Path {
    let of = connection(ConnectionKind::Fallback, 0, 1);
    Path {
        at: Duration::from_millis(at_ms),
        path: Some(PathId {
            socket: SocketId(100 + number),
            began_at: Duration::from_millis(1),
        }),
        connection: Some(of.id),
        owner: Some(owner(PID, Via::Connect)),
        role: match number {
            1 => PathRole::First,
            _ => PathRole::Join,
        },
        token: 5,
        was_reported_up: true,
        ..a_path(kind)
    }
}

fn event(path: Path) -> Event {
    Event::Path(Box::new(PathEvent {
        path,
        time: SystemTime::UNIX_EPOCH,
        place: Place::default(),
        of_connection: None,
        packet: None,
    }))
}

fn dies(at_ms: u64, fell_back: Option<bool>) -> Event {
    let of = Connection {
        owner: Some(owner(PID, Via::Connect)),
        admitted: true,
        ..connection(ConnectionKind::Fallback, at_ms, 1)
    };
    let mut event = change(ChangeKind::Closed, of);
    if let Event::Change(event) = &mut event {
        event.change.fell_back = fell_back;
    }
    event
}

fn closed(ready: &[Finding]) -> Vec<Closed> {
    ready
        .iter()
        .filter_map(|it| match it {
            Finding::Closed(event) => Some(event.closed.clone()),
            Finding::Query(_)
            | Finding::Connection(_)
            | Finding::Verdict(_)
            | Finding::Refusal(_)
            | Finding::Path(_) => None,
        })
        .collect()
}

/// Takes the events, and lets the clock run on.
fn run(correlator: &mut Correlator, events: Vec<Event>) -> Vec<Finding> {
    let (mut ready, facts) = (Vec::new(), facts());
    let mut last = Duration::ZERO;
    for event in events {
        last = last.max(event.at());
        correlator.take(event, &facts, &mut ready);
    }
    correlator.clock(last + Duration::from_secs(2), &facts, &mut ready);
    ready
}

/// The path that a finding is about, if it is one about a path.
fn path_of(finding: &Finding) -> Option<&Path> {
    if let Finding::Path(event) = finding {
        Some(&event.path)
    } else {
        None
    }
}

#[test]
fn a_join_that_names_only_a_token_belongs_to_the_connection_with_it() {
    let refused = |token| Path {
        path: None,
        connection: None,
        owner: None,
        admitted: false,
        token,
        ..path(PathKind::Failed, 20, 2)
    };
    let mut correlator = Correlator::default();
    let ready = run(
        &mut correlator,
        vec![
            event(path(PathKind::Up, 10, 1)),
            event(refused(5)),
            event(refused(6)),
        ],
    );
    let joins: Vec<_> = ready
        .iter()
        .filter_map(path_of)
        .filter(|path| path.kind == PathKind::Failed)
        .collect();
    let [of_connection] = joins[..] else {
        panic!("{joins:?}");
    };
    let id = connection(ConnectionKind::Fallback, 0, 1).id;
    assert_eq!(of_connection.connection, Some(id));
    let holder = of_connection.owner.as_ref();
    assert_eq!(holder.and_then(|it| it.process.pid), Some(PID));
    // Whose the other one is, is unknown: the filter does not admit it.
    assert_eq!(correlator.paths_filtered(), 1);
}

#[test]
fn a_connection_closes_once_after_its_paths_in_whatever_order_they_end() {
    let up = || event(path(PathKind::Up, 10, 1));
    let join = || event(path(PathKind::Up, 20, 2));
    let down = |at_ms, number| event(path(PathKind::Down, at_ms, number));
    for (events, is_incomplete) in [
        (
            vec![
                up(),
                join(),
                down(30, 2),
                down(31, 1),
                dies(32, Some(false)),
            ],
            false,
        ),
        // The kernel frees the connection first.
        (
            vec![
                up(),
                join(),
                dies(30, Some(false)),
                down(31, 2),
                down(32, 1),
            ],
            false,
        ),
        // A path outlives it: its socket still sends.
        (vec![up(), join(), down(29, 1), dies(30, Some(false))], true),
    ] {
        let mut correlator = Correlator::default();
        let ready = run(&mut correlator, events);
        let closed = closed(&ready);
        assert_eq!(closed.len(), 1, "{closed:?}");
        assert_eq!((closed[0].paths_tried, closed[0].paths_up), (2, 2));
        assert_eq!(closed[0].outcome, Outcome::Mptcp);
        assert_eq!(closed[0].incomplete, is_incomplete);
        // A path that outlives it still has an owner.
        let late = Path {
            owner: None,
            admitted: false,
            ..path(PathKind::Down, 60_000, 2)
        };
        let ready = run(&mut correlator, vec![event(late)]);
        let has_owner = ready
            .iter()
            .filter_map(path_of)
            .any(|path| path.owner.is_some());
        assert_eq!(has_owner, is_incomplete);
    }
}

#[test]
fn what_never_was_a_connection_has_no_end() {
    let failed = event(path(PathKind::ConnectFailed, 10, 1));
    let ready = run(
        &mut Correlator::default(),
        vec![failed, dies(20, Some(false))],
    );
    assert_eq!(closed(&ready), []);
    let ready = run(&mut Correlator::default(), vec![dies(20, Some(false))]);
    assert_eq!(closed(&ready), []);
}

#[test]
fn a_closed_connection_fell_back_if_an_event_or_its_state_says_so() {
    let fallback = || {
        tests::event(Connection {
            cause: Some("DssFallback".into()),
            ..connection(ConnectionKind::Fallback, 15, 1)
        })
    };
    for (events, fell_back, expected) in [
        (vec![], Some(false), "mptcp"),
        (vec![], Some(true), "fell-back"),
        (vec![], None, "unknown"),
        (vec![fallback()], Some(true), "fell-back"),
    ] {
        let has_cause = !events.is_empty();
        let mut all = vec![event(path(PathKind::Up, 10, 1))];
        all.extend(events);
        all.extend([event(path(PathKind::Down, 30, 1)), dies(31, fell_back)]);
        let ready = run(&mut Correlator::default(), all);
        let closed = closed(&ready);
        assert_eq!(closed[0].outcome.name(), expected);
        let cause = match &closed[0].outcome {
            Outcome::FellBack { at: _, cause } => cause.clone(),
            Outcome::Mptcp | Outcome::Unknown => None,
        };
        assert_eq!(cause.is_some(), has_cause);
    }
}
