//! Verdicts: fixed scenarios as rows, and random ones for the invariants.

use std::time::SystemTime;

use proptest::prelude::*;

use super::{tests::*, *};
use crate::model::{
    Answer, Api, ChangeKind, Connection, Errno, Event, Process, Protocol, Query, Rung, SensorId,
    SensorState, Verdict,
};

const ESTABLISHED: TcpState = TcpState(1);

/// An event of the connection with that number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Falls,
    Asks(Api, Answer, TcpState),
    Dies,
    Existed,
}

pub(super) const IS_MPTCP: Action = Action::Asks(Api::TcpIsMptcp, Answer::Mptcp, ESTABLISHED);
const IS_TCP: Action = Action::Asks(Api::TcpIsMptcp, Answer::Tcp, ESTABLISHED);
const FRESH: Action = Action::Asks(Api::TcpIsMptcp, Answer::Mptcp, TcpState::CLOSE);
const LISTENS: Action = Action::Asks(Api::TcpIsMptcp, Answer::Mptcp, TcpState::LISTEN);
const PROTOCOL: Action = Action::Asks(Api::SoProtocol, Answer::Mptcp, ESTABLISHED);
const INFO_FAILS: Action = Action::Asks(Api::MptcpInfo, Answer::Tcp, ESTABLISHED);
const UNKNOWN_OPTION: Action = Action::Asks(
    Api::TcpIsMptcp,
    Answer::Unsupported(Errno::EOPNOTSUPP),
    ESTABLISHED,
);
const BAD_POINTER: Action = Action::Asks(Api::TcpIsMptcp, Answer::Failed(Errno(14)), ESTABLISHED);

fn traced_facts() -> Facts {
    Facts {
        sensors: vec![SensorState {
            sensor: SensorId::Fallback,
            rung: Rung::Fexit,
            probes: Vec::new(),
            limits: Vec::new(),
        }],
        ..facts()
    }
}

pub(super) fn make(action: Action, at_ms: u64, number: u64) -> Event {
    match action {
        Action::Falls => event(connection(ConnectionKind::Fallback, at_ms, number)),
        Action::Dies => change(
            ChangeKind::Closed,
            connection(ConnectionKind::Fallback, at_ms, number),
        ),
        Action::Existed => event(Connection {
            existing: true,
            ..connection(ConnectionKind::Existing, at_ms, number)
        }),
        Action::Asks(api, answer, state) => {
            let like = connection(ConnectionKind::Fallback, at_ms, number);
            Event::Query(QueryEvent {
                query: Query {
                    asked_at: Duration::from_millis(at_ms),
                    latency: Some(Duration::ZERO),
                    process: Process {
                        pid: Some(9),
                        tid: Some(9),
                        host_pid: 9,
                        host_tid: 9,
                        uid: 0,
                        cgroup_id: 1,
                        comm: "app".into(),
                    },
                    socket: crate::model::Socket {
                        state,
                        ..like.socket
                    },
                    id: Some(like.id),
                    connected_at: Some(Duration::ZERO),
                    api,
                    answer,
                    errno: answer.errno(),
                    fell_back: Some(answer == Answer::Tcp),
                    rung: Rung::Fexit,
                    after_untraced: false,
                    state_bits: None,
                },
                time: SystemTime::UNIX_EPOCH,
                judgement: None,
                repeats: 0,
            })
        }
    }
}

/// Verdicts in the order in which they are reported; closing verdicts in brackets.
fn verdicts(findings: &[Finding]) -> String {
    let words: Vec<String> = findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Query(event) => Some(
                event
                    .judgement
                    .as_ref()
                    .map_or("none", |it| it.verdict.name())
                    .to_owned(),
            ),
            Finding::Verdict(event) => Some(format!(
                "[{} at {}]",
                event.judgement.verdict.name(),
                event.closed_by.name()
            )),
            Finding::Connection(_)
            | Finding::Refusal(_)
            | Finding::Path(_)
            | Finding::Closed(_) => None,
        })
        .collect();
    words.join(" ")
}

pub(super) fn findings_of(events: Vec<Event>, limits: Limits) -> Vec<Finding> {
    let (mut correlator, mut ready, facts) = (Correlator::new(limits), Vec::new(), traced_facts());
    for event in events {
        correlator.take(event, &facts, &mut ready);
        assert!(correlator.remembered() <= limits.connections);
        assert!(correlator.arriving.len() <= limits.arriving);
        assert!(correlator.waiting.len() <= limits.waiting);
    }
    correlator.finish(0, &facts, &mut ready);
    ready
}

#[test]
fn what_never_was_a_connection_has_no_verdict() {
    use ChangeKind::{Accepted, Closed};
    let of = |at_ms, connecting| Connection {
        connecting,
        ..connection(ConnectionKind::Fallback, at_ms, 1)
    };
    let falls = |at_ms, connecting| event(of(at_ms, connecting));
    let at = |kind, at_ms, connecting| change(kind, of(at_ms, connecting));
    for (events, want) in [
        (vec![falls(10, true)], ""),
        (vec![falls(10, true), at(Closed, 20, true)], ""),
        (
            vec![falls(10, true), at(Accepted, 15, false)],
            "[never-asked at exit]",
        ),
        (
            vec![
                falls(10, true),
                at(Accepted, 15, false),
                at(Closed, 20, false),
            ],
            "[never-asked at death]",
        ),
        (
            vec![falls(10, false), at(Closed, 20, false)],
            "[never-asked at death]",
        ),
    ] {
        assert_eq!(verdicts(&findings_of(events, Limits::STATED)), want);
    }
}

#[test]
fn every_verdict_has_a_scene() {
    let check = |actions: &[Action], want: &str| {
        let events = (1..)
            .map(|nth| nth * 1_000)
            .zip(actions)
            .map(|(at_ms, action)| make(*action, at_ms, 1))
            .collect();
        assert_eq!(
            verdicts(&findings_of(events, Limits::STATED)),
            want,
            "{actions:?}"
        );
    };
    check(&[IS_MPTCP], "still-mptcp");
    check(&[IS_MPTCP, Action::Dies], "still-mptcp");
    check(&[Action::Falls, IS_TCP, Action::Dies], "explained");
    check(&[Action::Falls, INFO_FAILS], "explained");
    check(
        &[IS_MPTCP, Action::Falls, Action::Dies],
        "still-mptcp [stale at death]",
    );
    check(&[IS_MPTCP, Action::Falls], "still-mptcp [stale at exit]");
    check(&[IS_MPTCP, Action::Falls, IS_TCP], "still-mptcp explained");
    check(&[FRESH], "too-early");
    check(&[LISTENS], "too-early");
    check(
        &[FRESH, Action::Falls, Action::Dies],
        "too-early [too-early at death]",
    );
    check(
        &[FRESH, IS_MPTCP, Action::Falls],
        "too-early still-mptcp [stale at exit]",
    );
    check(&[Action::Falls, Action::Dies], "[never-asked at death]");
    check(&[Action::Falls], "[never-asked at exit]");
    check(&[IS_TCP], "unexplained");
    check(&[Action::Existed, IS_TCP], "unexplained");
    check(&[Action::Falls, PROTOCOL, Action::Dies], "misled");
    check(&[PROTOCOL, Action::Falls], "still-mptcp [misled at exit]");
    // An answer from a better API is kept; without kernel support for one, the weaker answer
    // counts.
    check(
        &[IS_MPTCP, PROTOCOL, Action::Falls],
        "still-mptcp still-mptcp [stale at exit]",
    );
    check(
        &[UNKNOWN_OPTION, PROTOCOL, Action::Falls],
        "unsupported still-mptcp [misled at exit]",
    );
    check(&[IS_MPTCP, Action::Falls, PROTOCOL], "still-mptcp misled");
    check(&[UNKNOWN_OPTION, Action::Falls], "unsupported");
    check(&[Action::Falls, IS_MPTCP], "contradicted");
    // A call that failed for another reason changes nothing.
    check(&[BAD_POINTER], "none");
    check(&[Action::Falls, BAD_POINTER], "none [never-asked at exit]");
    // Undone by connect(AF_UNSPEC): not a contradiction.
    check(
        &[Action::Falls, IS_TCP, FRESH, IS_MPTCP],
        "explained too-early still-mptcp",
    );
}

#[test]
fn a_fallback_that_is_reported_late_still_explains_the_answer() {
    let events = vec![
        make(IS_TCP, 1_000, 1),
        make(IS_MPTCP, 9_000, 2),
        make(Action::Falls, 500, 1),
    ];
    assert_eq!(
        verdicts(&findings_of(events, Limits::STATED)),
        "unexplained still-mptcp [explained at exit]"
    );
}

/// Only a query that was certainly made afterwards can be contradicted: a thread may be preempted
/// between its answer and the end of the call, and between the prediction of a fallback and the
/// fallback.
#[test]
fn a_contradiction_needs_a_query_after_the_fallback() {
    use CauseCertainty::{Inferred, Reported};
    for (latency_ms, known, asked_ms, want) in [
        (Some(1), Reported, 1_001, "contradicted"),
        (Some(1), Reported, 999, "still-mptcp [stale at exit]"),
        (None, Reported, 1_001, "still-mptcp [stale at exit]"),
        (Some(1), Inferred, 1_001, "still-mptcp [stale at exit]"),
        (None, Inferred, 10_999, "still-mptcp [stale at exit]"),
        (None, Reported, 11_000, "contradicted"),
        (Some(1), Inferred, 11_000, "contradicted"),
    ] {
        let mut falls = make(Action::Falls, 1_000, 1);
        if let Event::Connection(event) = &mut falls {
            event.connection.known = known;
        }
        let mut asks = make(IS_MPTCP, asked_ms, 1);
        if let Event::Query(event) = &mut asks {
            event.query.latency = latency_ms.map(Duration::from_millis);
        }
        let found = verdicts(&findings_of(vec![falls, asks], Limits::STATED));
        assert_eq!(found, want, "{latency_ms:?} {known:?} {asked_ms}");
    }
}

#[test]
fn a_connection_that_was_made_anew_is_not_contradicted() {
    let mut again = make(IS_MPTCP, 3_000, 1);
    if let Event::Query(event) = &mut again {
        event.query.connected_at = Some(Duration::from_millis(2_000));
    }
    let events = vec![make(Action::Falls, 1_000, 1), again];
    assert_eq!(
        verdicts(&findings_of(events, Limits::STATED)),
        "[never-asked at death] still-mptcp"
    );
}

/// An event of the socket's connection that began at `connected_ms`.
pub(super) fn of_connection(action: Action, at_ms: u64, connected_ms: u64) -> Event {
    let mut made = make(action, at_ms, 1);
    match &mut made {
        Event::Query(event) => {
            event.query.connected_at = Some(Duration::from_millis(connected_ms));
        }
        Event::Connection(event) => {
            event.connection.since_connect = Some(Duration::from_millis(at_ms - connected_ms));
        }
        Event::Change(_) | Event::Refusal(_) | Event::Path(_) => {}
    }
    made
}

#[test]
fn a_socket_that_connects_again_is_judged_by_the_answers_of_its_new_connection() {
    let check = |actions: &[(Action, u64, u64)], want: &str| {
        let events = actions
            .iter()
            .map(|(action, at_ms, connected_ms)| of_connection(*action, *at_ms, *connected_ms))
            .collect();
        let found = findings_of(events, Limits::STATED);
        assert_eq!(verdicts(&found), want, "{actions:?}");
    };
    // The application knows that the first connection is TCP; it never asked about the second.
    let twice = [
        (Action::Falls, 1_000, 900),
        (IS_TCP, 1_500, 900),
        (Action::Falls, 3_000, 2_900),
    ];
    check(&twice, "explained [never-asked at exit]");
    check(
        &[&twice[..], &[(Action::Dies, 4_000, 2_900)]].concat(),
        "explained [never-asked at death]",
    );
    // Two connections that fell back, without a query about either.
    check(
        &[twice[0], twice[2]],
        "[never-asked at death] [never-asked at exit]",
    );
    // The first connection did not fall back: its answer was right, and does not apply to the
    // second.
    let still = [(IS_MPTCP, 1_000, 900), (Action::Falls, 3_000, 2_900)];
    check(&still, "still-mptcp [never-asked at exit]");
    // An answer between the two connections applies to neither, and is too early for the second.
    check(
        &[still[0], (FRESH, 2_000, 900), still[1]],
        "still-mptcp too-early [too-early at exit]",
    );
    check(
        &[twice[0], (FRESH, 2_000, 900), twice[2]],
        "[never-asked at death] too-early [too-early at exit]",
    );
    // A fallback of one connection that is observed twice counts once.
    check(
        &[(Action::Falls, 1_000, 900), (Action::Falls, 1_500, 900)],
        "[never-asked at exit]",
    );
    check(
        &[(FRESH, 800, 0), (Action::Falls, 1_000, 900)],
        "too-early [too-early at exit]",
    );
}

#[test]
fn the_closing_verdict_names_who_used_the_socket_last() {
    let by = |mut event: Event, pid: Option<u32>| {
        let owner = pid.map(|pid| owner(pid, crate::model::Via::Io));
        match &mut event {
            Event::Connection(event) => event.connection.owner = owner,
            Event::Change(event) => event.change.owner = owner,
            Event::Query(_) | Event::Refusal(_) | Event::Path(_) => {}
        }
        event
    };
    let last = |closed_by: Option<u32>| {
        let events = vec![
            by(make(Action::Falls, 1_000, 1), Some(1)),
            by(make(Action::Dies, 2_000, 1), closed_by),
        ];
        let found = findings_of(events, Limits::STATED);
        let verdict = found.iter().find_map(|it| match it {
            Finding::Verdict(event) => event.owner.as_ref().map(|owner| owner.process.pid),
            Finding::Query(_)
            | Finding::Connection(_)
            | Finding::Refusal(_)
            | Finding::Path(_)
            | Finding::Closed(_) => None,
        });
        verdict.unwrap()
    };
    // A child process inherited the socket, and only sent.
    assert_eq!(last(Some(2)), Some(2));
    assert_eq!(last(None), Some(1));
}

#[test]
fn what_was_never_mptcp_is_plain_tcp() {
    let mut asked = make(IS_TCP, 1_000, 1);
    if let Event::Query(event) = &mut asked {
        event.query.socket.protocol = Protocol::Tcp;
        event.query.id = None;
        event.query.fell_back = Some(false);
    }
    assert_eq!(
        verdicts(&findings_of(vec![asked.clone()], Limits::STATED)),
        "plain-tcp"
    );
    let child = Some(connection(ConnectionKind::Plain, 0, 1).id);
    for (id, rung, said) in [
        (
            None,
            Rung::Fexit,
            "told TCP; the socket was created as TCP, or accepted by a TCP listener or before \
             tracing began",
        ),
        (
            child,
            Rung::Fexit,
            "told TCP; its client did not request MPTCP, or no token was available",
        ),
        (
            child,
            Rung::Kprobe,
            "told TCP; its client did not request MPTCP, or no token was available",
        ),
        (
            child,
            Rung::Tracepoint,
            "told TCP; its client did not request MPTCP, no token was available, or its third \
             packet came without MPTCP; these cases look alike here",
        ),
    ] {
        let mut facts = traced_facts();
        facts.sensors[0].rung = rung;
        let Event::Query(event) = &mut asked else {
            unreachable!()
        };
        event.query.id = id;
        let judgement = verdict::of_answer(&event.query, None, &facts).unwrap();
        assert_eq!(judgement.sentence, said);
    }
    // A child that lost MPTCP in the third packet of the handshake is a TCP socket too, although
    // its client requested MPTCP.
    if let Event::Query(event) = &mut asked {
        event.query.id = Some(connection(ConnectionKind::Fallback, 0, 1).id);
        event.query.connected_at = None;
    }
    let events = vec![make(Action::Falls, 500, 1), asked];
    assert_eq!(verdicts(&findings_of(events, Limits::STATED)), "explained");
}

#[test]
fn sentences_say_when_and_why_and_who() {
    let sentence = |events: Vec<Event>| -> String {
        let found = findings_of(events, Limits::STATED);
        let sentences: Vec<String> = found
            .iter()
            .filter_map(|finding| match finding {
                Finding::Query(event) => event.judgement.as_ref().map(|it| it.sentence.to_string()),
                Finding::Verdict(event) => Some(event.judgement.sentence.to_string()),
                Finding::Connection(_)
                | Finding::Refusal(_)
                | Finding::Path(_)
                | Finding::Closed(_) => None,
            })
            .collect();
        sentences.join("\n")
    };
    assert_eq!(
        sentence(vec![make(Action::Falls, 1_000, 1), make(IS_TCP, 1_029, 1)]),
        "told TCP; it fell back 29.0 ms earlier: DssFallback (path)"
    );
    assert_eq!(
        sentence(vec![
            make(IS_MPTCP, 1_000, 1),
            make(Action::Falls, 3_000, 1)
        ]),
        "told MPTCP, and it is\ntold MPTCP while it still was MPTCP; it fell back 2.00 s later: DssFallback (path), \
         and was not asked again"
    );
}

/// The observed fallback and the query that a verdict requires.
fn has_evidence(event: &VerdictEvent, happened: &[(u64, u64, Action)]) -> bool {
    let number = event.id.socket.0;
    let of = |wanted: fn(Action) -> bool| {
        happened
            .iter()
            .filter(move |(_, whose, action)| *whose == number && wanted(*action))
            .map(|(at, _, _)| Duration::from_millis(*at))
    };
    let fell = event
        .judgement
        .fell_back_at
        .is_some_and(|at| of(|action| action == Action::Falls).any(|it| it == at));
    let asked = event.asked.is_some_and(|asked| {
        of(|action| matches!(action, Action::Asks(..))).any(|at| at == asked.at)
    });
    fell && (asked || event.judgement.verdict == Verdict::NeverAsked)
}

pub(super) fn actions() -> impl Strategy<Value = Vec<(u64, u64, Action)>> {
    let action = prop_oneof![
        2 => Just(Action::Falls),
        2 => Just(IS_MPTCP),
        2 => Just(IS_TCP),
        1 => Just(FRESH),
        1 => Just(PROTOCOL),
        1 => Just(INFO_FAILS),
        1 => Just(UNKNOWN_OPTION),
        1 => Just(BAD_POINTER),
        1 => Just(Action::Dies),
        1 => Just(Action::Existed),
    ];
    prop::collection::vec((1_u64..40, 1_u64..12, action), 0..120).prop_map(|steps| {
        let mut now = 10;
        steps
            .into_iter()
            .map(|(pause, whose, action)| {
                now += pause;
                (now, whose, action)
            })
            .collect()
    })
}

pub(super) fn events_of(happened: &[(u64, u64, Action)]) -> Vec<Event> {
    happened
        .iter()
        .map(|(at, whose, action)| make(*action, *at, *whose))
        .collect()
}

proptest! {
    #[test]
    fn no_verdict_is_without_evidence(happened in actions()) {
        for finding in findings_of(events_of(&happened), Limits::STATED) {
            if let Finding::Verdict(event) = finding {
                prop_assert!(has_evidence(&event, &happened), "{event:?}");
            }
        }
    }

    #[test]
    fn nothing_is_stale_that_was_asked_again(happened in actions()) {
        for finding in findings_of(events_of(&happened), Limits::STATED) {
            let Finding::Verdict(event) = finding else { continue };
            if event.judgement.verdict != Verdict::Stale {
                continue;
            }
            let fell = event.judgement.fell_back_at.unwrap_or_default();
            let asked_again = happened.iter().any(|(at, whose, action)| {
                let at = Duration::from_millis(*at);
                let is_answer = matches!(action, Action::Asks(_, Answer::Mptcp | Answer::Tcp, _));
                // A query when the socket connects again ends the old connection, but does not
                // concern it.
                let is_before = at < event.at || event.closed_by == ClosedBy::Exit && at == event.at;
                *whose == event.id.socket.0 && is_answer && at > fell && is_before
            });
            prop_assert!(!asked_again, "{event:?}");
        }
    }

    #[test]
    fn every_query_and_every_fallback_is_reported_once(happened in actions()) {
        let found = findings_of(events_of(&happened), Limits::STATED);
        let count = |wanted: fn(&Finding) -> bool| found.iter().filter(|it| wanted(it)).count();
        let asked = happened.iter().filter(|it| matches!(it.2, Action::Asks(..))).count();
        let others = happened.iter().filter(|it| matches!(it.2, Action::Falls | Action::Existed)).count();
        prop_assert_eq!(count(|it| matches!(it, Finding::Query(_))), asked);
        prop_assert_eq!(count(|it| matches!(it, Finding::Connection(_))), others);
    }

    #[test]
    fn the_order_within_the_window_does_not_matter(
        happened in actions(),
        delays in prop::collection::vec(0_u64..50, 120),
    ) {
        let in_order = findings_of(events_of(&happened), Limits::STATED);
        let mut arrivals: Vec<(u64, Event)> = events_of(&happened)
            .into_iter()
            .zip(&happened)
            .zip(&delays)
            .map(|((event, (at, _, _)), delay)| (at + delay, event))
            .collect();
        arrivals.sort_by_key(|(at, _)| *at);
        let shuffled = arrivals.into_iter().map(|(_, event)| event).collect();
        prop_assert_eq!(findings_of(shuffled, Limits::STATED), in_order);
    }

    #[test]
    fn memory_is_bounded_whatever_happens(happened in actions()) {
        // The limits are asserted after each event.
        let limits = Limits { arriving: 6, waiting: 4, connections: 5 };
        findings_of(events_of(&happened), limits);
    }
}

/// The closing verdict names the addresses of the connection that fell back, not those of the
/// socket's next one.
#[test]
fn the_closing_verdict_of_a_socket_that_connected_again_is_about_its_first_connection() {
    let at = |mut event: Event, port: u16| {
        let remote = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        match &mut event {
            Event::Connection(event) => event.connection.socket.remote = remote,
            Event::Query(event) => event.query.socket.remote = remote,
            Event::Change(_) | Event::Refusal(_) | Event::Path(_) => {}
        }
        event
    };
    let first = at(of_connection(Action::Falls, 1_000, 900), 1);
    for next in [
        of_connection(Action::Falls, 3_000, 2_900),
        of_connection(IS_MPTCP, 3_000, 2_900),
    ] {
        let found = findings_of(vec![first.clone(), at(next, 2)], Limits::STATED);
        let remote = found.iter().find_map(|finding| match finding {
            Finding::Verdict(event) => Some(event.socket.remote.port()),
            Finding::Query(_)
            | Finding::Connection(_)
            | Finding::Refusal(_)
            | Finding::Path(_)
            | Finding::Closed(_) => None,
        });
        assert_eq!(remote, Some(1), "{found:?}");
    }
}
