//! The verdicts that the model calls possible are the ones that occur: exporters announce them before
//! the first event.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    Limits,
    verdict_tests::{Action, IS_MPTCP, actions, events_of, findings_of, make},
};
use crate::model::{Answer, Api, Finding, TcpState, Verdict};

proptest! {
    #[test]
    fn only_possible_verdicts_occur(happened in actions()) {
        for finding in findings_of(events_of(&happened), Limits::STATED) {
            match finding {
                Finding::Query(event) => {
                    let possible = Verdict::possible(event.query.api, event.query.answer);
                    let is_possible = match &event.judgement {
                        Some(judgement) => possible.contains(&judgement.verdict),
                        None => possible.is_empty(),
                    };
                    prop_assert!(is_possible, "{event:?}");
                }
                Finding::Verdict(event) => prop_assert!(event.judgement.verdict.closes(), "{event:?}"),
                Finding::Connection(_) | Finding::Refusal(_) | Finding::Path(_) | Finding::Closed(_) => {}
            }
        }
    }
}

#[test]
fn every_closing_verdict_occurs() {
    use Action::{Asks, Dies, Falls};
    let mptcp = |api, state| Asks(api, Answer::Mptcp, TcpState(state));
    let is_tcp = Asks(Api::TcpIsMptcp, Answer::Tcp, TcpState(1));
    let scenes = [
        vec![(1, Falls), (2, Dies)],
        vec![(1, mptcp(Api::TcpIsMptcp, 1)), (2, Falls), (3, Dies)],
        vec![
            (1, mptcp(Api::TcpIsMptcp, TcpState::SYN_SENT.0)),
            (2, Falls),
            (3, Dies),
        ],
        vec![(1, mptcp(Api::SoProtocol, 1)), (2, Falls), (3, Dies)],
        // The fallback is reported long after the answer; another query ends the wait for it.
        vec![(1_000, is_tcp), (9_000, IS_MPTCP), (500, Falls)],
    ];
    let mut occurring = BTreeSet::new();
    for scene in scenes {
        let events = scene.into_iter().map(|(at, what)| {
            let is_other = what == IS_MPTCP && at == 9_000;
            make(what, at, if is_other { 2 } else { 1 })
        });
        for finding in findings_of(events.collect(), Limits::STATED) {
            if let Finding::Verdict(event) = finding {
                occurring.insert(event.judgement.verdict);
            }
        }
    }
    let closing = Verdict::ALL.into_iter().filter(|it| it.closes());
    assert_eq!(occurring, closing.collect());
}
