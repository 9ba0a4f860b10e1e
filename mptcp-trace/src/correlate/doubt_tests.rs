//! When a closing verdict is in doubt.

use super::{
    tests::*,
    verdict_tests::{Action, IS_MPTCP, findings_of, make, of_connection},
    *,
};
use crate::model::{ChangeKind, Connection};

#[test]
fn a_verdict_that_a_missing_query_may_change_is_in_doubt() {
    let facts = facts();
    let doubts = |its_untraced: bool, dies: bool, untraced: u64| {
        let mut correlator = Correlator::default();
        let mut ready = Vec::new();
        let mut actions = vec![make(IS_MPTCP, 1, 1), make(Action::Falls, 2, 1)];
        if dies {
            let of = Connection {
                query_untraced: its_untraced,
                ..connection(ConnectionKind::Fallback, 3, 1)
            };
            actions.push(change(ChangeKind::Closed, of));
        }
        for action in actions {
            correlator.take(action, &facts, &mut ready);
        }
        correlator.finish(untraced, &facts, &mut ready);
        let doubts: Vec<_> = ready
            .iter()
            .filter_map(|finding| match finding {
                Finding::Verdict(event) => Some(event.doubt.as_deref()),
                Finding::Query(_)
                | Finding::Connection(_)
                | Finding::Refusal(_)
                | Finding::Path(_)
                | Finding::Closed(_) => None,
            })
            .collect();
        let [doubt] = doubts[..] else {
            panic!("{ready:?}")
        };
        doubt.map(|it| it.split(',').next().unwrap().to_owned())
    };
    let of_it = Some("a later query about it was not traced (capped".to_owned());
    let perhaps = Some("queries were not traced (capped or lost)".to_owned());
    for (its_untraced, dies, untraced, says) in [
        (false, true, 0, &None),
        // Queries on other sockets do not matter if the BPF side knows which connection they
        // concerned.
        (false, true, 7, &None),
        (true, true, 1, &of_it),
        (false, false, 0, &None),
        (false, false, 7, &perhaps),
    ] {
        assert_eq!(&doubts(its_untraced, dies, untraced), says);
    }
}

/// If the record of the end is lost, query records may be lost too.
#[test]
fn a_verdict_without_the_record_of_an_end_is_in_doubt() {
    let doubts = |events: Vec<Event>, limits| -> Vec<Option<String>> {
        let found = findings_of(events, limits);
        let verdicts = found.into_iter().filter_map(|finding| match finding {
            Finding::Verdict(event) => Some(event.doubt.map(Into::into)),
            Finding::Query(_)
            | Finding::Connection(_)
            | Finding::Refusal(_)
            | Finding::Path(_)
            | Finding::Closed(_) => None,
        });
        verdicts.collect()
    };
    let born_later = |mut event: Event| {
        let later = Duration::from_millis(2);
        match &mut event {
            Event::Connection(event) => event.connection.id.born_at += later,
            Event::Change(event) => event.change.id.born_at += later,
            Event::Query(_) | Event::Refusal(_) | Event::Path(_) => {}
        }
        event
    };
    // Another socket has the first one's address.
    let displaced = vec![
        make(Action::Falls, 1, 1),
        born_later(make(Action::Falls, 3, 1)),
        born_later(make(Action::Dies, 4, 1)),
    ];
    assert_eq!(
        doubts(displaced, Limits::STATED),
        [Some(doubt::UNSEEN_END.to_owned()), None]
    );
    // A table for one connection.
    let evicted = vec![
        make(Action::Falls, 1, 1),
        make(Action::Falls, 2, 2),
        make(Action::Dies, 3, 2),
    ];
    let one = Limits {
        connections: 1,
        ..Limits::STATED
    };
    assert_eq!(
        doubts(evicted, one),
        [Some(doubt::EVICTED.to_owned()), None]
    );
}

/// A socket that connects again ends its first connection without a record; the next record shows
/// what was missed.
#[test]
fn a_query_missed_before_a_socket_connects_again_casts_doubt_on_its_first_connection() {
    for is_untraced in [false, true] {
        let first = of_connection(Action::Falls, 1_000, 900);
        let mut falls_again = of_connection(Action::Falls, 3_000, 2_900);
        let mut asks_again = of_connection(IS_MPTCP, 3_000, 2_900);
        if let Event::Connection(event) = &mut falls_again {
            event.connection.query_untraced = is_untraced;
        }
        if let Event::Query(event) = &mut asks_again {
            event.query.after_untraced = is_untraced;
        }
        for next in [falls_again, asks_again] {
            let found = findings_of(vec![first.clone(), next], Limits::STATED);
            let doubt = found.iter().find_map(|finding| match finding {
                Finding::Verdict(event) => Some(event.doubt.as_deref()),
                Finding::Query(_)
                | Finding::Connection(_)
                | Finding::Refusal(_)
                | Finding::Path(_)
                | Finding::Closed(_) => None,
            });
            assert_eq!(
                doubt,
                Some(is_untraced.then_some(doubt::UNTRACED)),
                "{found:?}"
            );
        }
    }
}

/// Which connection a skipped query concerned is unknown: all that lived at that time are in doubt,
/// and no later one is.
#[test]
fn a_verdict_is_in_doubt_if_the_kernel_may_have_skipped_a_query_during_the_connection() {
    let facts = facts();
    // Readings, the last of them while a connection lives: seconds, missed runs, taken runs.
    let is_in_doubt = |takes_turns: bool, readings: &[(u64, u64, u64)]| {
        let mut correlator = Correlator::default();
        let mut ready = Vec::new();
        let born_at = readings.last().map_or(0, |(at, ..)| *at) * 1_000 - 1;
        let (last, before) = readings.split_last().unwrap();
        let read = |correlator: &mut Correlator, (at, missed, taken): &(u64, u64, u64)| {
            let runs = MissedRuns {
                missed: *missed,
                taken: *taken,
                takes_turns,
            };
            correlator.missed(Duration::from_secs(*at), runs);
        };
        before.iter().for_each(|it| read(&mut correlator, it));
        let born = |mut event: Event| {
            let born_at = Duration::from_millis(born_at);
            match &mut event {
                Event::Connection(event) => event.connection.id.born_at = born_at,
                Event::Change(event) => event.change.id.born_at = born_at,
                Event::Query(_) | Event::Refusal(_) | Event::Path(_) => {}
            }
            event
        };
        let falls = born(make(Action::Falls, born_at, 1));
        correlator.take(falls, &facts, &mut ready);
        read(&mut correlator, last);
        let dies = born(make(Action::Dies, born_at + 2, 1));
        correlator.take(dies, &facts, &mut ready);
        correlator.finish(0, &facts, &mut ready);
        let verdict = ready.iter().find_map(|finding| match finding {
            Finding::Verdict(event) => Some(event),
            Finding::Query(_)
            | Finding::Connection(_)
            | Finding::Refusal(_)
            | Finding::Path(_)
            | Finding::Closed(_) => None,
        });
        verdict.unwrap().doubt.as_deref() == Some(doubt::MAY_BE_MISSED)
    };
    // If no program takes over missed runs, only their growth is news.
    assert!(!is_in_doubt(false, &[(9, 0, 0)]));
    assert!(is_in_doubt(false, &[(9, 1, 0)]));
    assert!(!is_in_doubt(false, &[(1, 5, 0), (9, 5, 0)]));
    assert!(is_in_doubt(false, &[(1, 5, 0), (9, 6, 0)]));
    // If others do, a run missed just now may still be taken over.
    assert!(!is_in_doubt(true, &[(9, 0, 0)]));
    assert!(!is_in_doubt(true, &[(9, 5, 5)]));
    assert!(is_in_doubt(true, &[(9, 5, 4)]));
    // A run that was not taken over for a long time is lost, and is not news.
    assert!(is_in_doubt(true, &[(1, 5, 4), (2, 5, 4)]));
    assert!(!is_in_doubt(true, &[(1, 5, 4), (9, 5, 4)]));
    assert!(is_in_doubt(true, &[(1, 5, 4), (9, 6, 4)]));
    assert!(!is_in_doubt(true, &[(1, 5, 4), (8, 5, 4), (9, 6, 5)]));
    // The pending run has been taken over since: one not taken over later is a new loss, although
    // the difference is the same.
    assert!(is_in_doubt(true, &[(1, 5, 4), (1, 5, 5), (9, 6, 5)]));
    assert!(is_in_doubt(true, &[(1, 9, 3), (4, 9, 9), (9, 10, 9)]));
}
