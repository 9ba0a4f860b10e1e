//! Answers that are missing, contradict each other, or come from somebody else.

use super::{super::parse::What, *};

pub(super) const ABOUT: About<'_> = About {
    host: "peer.example",
    addresses: 1,
    took: Duration::from_millis(1_200),
    width: 100,
};

const fn syn_ack_with(back: Back) -> Answer {
    Answer::SynAck {
        ttl: 60,
        back,
        is_acknowledged: true,
    }
}

fn report(source: IpAddr, what: What) -> Answer {
    Answer::Report(Report {
        source,
        what,
        is_whole: true,
        bytes: 44,
        option: OptionState::Unknown,
        is_sequence_kept: Some(true),
    })
}

fn said(found: &Evidence) -> String {
    let wrap = |text: &str, _width: usize| vec![text.to_owned()];
    text(ABOUT, found, &conclude(found), wrap)
}

/// A path of which the routers 1 to `routers` quote, and nothing else answers.
fn unanswered(routers: usize) -> Evidence {
    let (mut found, _) = surveyed(V4, On::Nothing, &[], 60);
    found.hops.truncate(routers);
    (found.capable, found.plain, found.distance) = (None, None, None);
    found.others.clear();
    found
}

#[test]
fn unreachable_is_a_refusal_if_a_syn_without_mptcp_is_answered() {
    let plain = Some(syn_ack_with(Back::Nothing));
    for code in [3, 9, 10, 13] {
        let mut found = unanswered(2);
        let unreachable = report(router(2, V4), What::Unreachable(code));
        found.capable = Some(unreachable.clone());
        found.plain.clone_from(&plain);
        let concluded = conclude(&found);
        assert_eq!(concluded.outcome, Outcome::Refused);
        assert_eq!(concluded.outcome.passes(), Passes::No);
        // The answer to a hop's SYN has a place.
        found.hops.push(Hop {
            number: 3,
            answer: Some(unreachable),
        });
        for capable in [None, found.capable.clone()] {
            found.capable = capable;
            let concluded = conclude(&found);
            let before = Some(3);
            assert_eq!(concluded.outcome, Outcome::Refused);
            assert_eq!(concluded.span, Some(Span { after: 2, before }));
            assert!(said(&found).contains("refused by 203.0.113.2 with \"unreachable\""));
        }
        // The same for both: nothing about MPTCP.
        found.plain = found.hops[2].answer.clone();
        assert_eq!(conclude(&found).outcome, Outcome::NoAnswer);
        found.plain = Some(Answer::Reset { ttl: 60 });
        assert_eq!(conclude(&found).outcome, Outcome::Closed);
    }
}

#[test]
fn the_answer_to_a_syn_for_a_hop_is_an_answer() {
    for (answer, expected) in [
        (syn_ack_with(Back::Nothing), Outcome::Peer),
        (syn_ack_with(Back::Mirrored), Outcome::Mirrored),
        (syn_ack_with(Back::Mptcp), Outcome::HandshakeOnly),
        (Answer::Reset { ttl: 60 }, Outcome::Closed),
    ] {
        let mut found = unanswered(5);
        let answer = Some(answer);
        found.hops.push(Hop { number: 6, answer });
        found.distance = Some(6);
        assert_eq!(conclude(&found).outcome, expected);
        assert!(said(&found).contains("no answer"), "{}", said(&found));
    }
}

#[test]
fn answers_that_contradict_each_other_decide_nothing() {
    let mut found = unanswered(5);
    let answer = Some(syn_ack_with(Back::Mptcp));
    found.hops.push(Hop { number: 6, answer });
    found.distance = Some(6);
    for other in [Answer::Reset { ttl: 60 }, syn_ack_with(Back::Nothing)] {
        found.capable = Some(other);
        assert_eq!(conclude(&found).certainty, Certainty::Open);
        assert!(said(&found).contains("answered other SYNs differently"));
    }
    found.capable = Some(syn_ack_with(Back::Mptcp));
    assert_eq!(conclude(&found).certainty, Certainty::Certain);
}

#[test]
fn only_a_router_whose_hop_expired_is_the_last_that_reports() {
    let mut found = unanswered(2);
    let unreachable = report(router(2, V4), What::Unreachable(1));
    for number in 3..=5 {
        let answer = Some(unreachable.clone());
        found.hops.push(Hop { number, answer });
    }
    let said = said(&found);
    assert!(
        said.contains("hop 2 (203.0.113.2) is the last that reports something"),
        "{said}"
    );
    assert!(
        said.contains("203.0.113.2 reports that it is unreachable"),
        "{said}"
    );
}

#[test]
fn a_report_of_this_host_is_not_one_of_a_router() {
    let mut found = unanswered(0);
    let own = report(found.ends.source, What::Unreachable(1));
    found.hops = vec![Hop {
        number: 1,
        answer: Some(own),
    }];
    let said = said(&found);
    assert!(said.contains("this host itself ("), "{said}");
    assert!(said.contains("its next hop does not answer"), "{said}");
}

#[test]
fn a_whole_quote_of_a_syn_without_mptcp_is_not_too_short() {
    let mut found = unanswered(1);
    let quote = report(router(2, V4), What::TimeExceeded);
    found.plain = Some(quote.clone());
    let answer = Some(quote);
    found.plain_hops = vec![Hop { number: 2, answer }];
    let text = said(&found);
    assert!(
        !text.contains("too short") && !text.contains("44 bytes"),
        "{text}"
    );
    assert!(text.contains("time exceeded at 203.0.113.2"), "{text}");
    let line = json(ABOUT, &found, &conclude(&found));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        line["data"]["plain_hops"][0]["option_state"],
        serde_json::Value::Null
    );
}

#[test]
fn only_nops_of_the_length_and_place_of_the_option_are_certain() {
    let concluded = |options: &[u8]| {
        let padded = [
            options,
            &vec![0; options.len().next_multiple_of(4) - options.len()],
        ]
        .concat();
        let packet = Packet::new(V4, Carried::Capable, 64, secrets(1), None).unwrap();
        let heard = parse(&syn_ack(V4, &packet, &padded)).unwrap();
        let mut found = unanswered(5);
        found.capable = survey::answer_to(V4, &packet, &heard);
        let concluded = conclude(&found);
        (concluded.outcome, concluded.certainty)
    };
    let taken_out = |certainty| (Outcome::TakenOutBack, certainty);
    let mss = [2, 4, 5, 0xb4];
    let exact = [&mss[..], &[1; 12]].concat();
    assert_eq!(concluded(&exact), taken_out(Certainty::Certain));
    for likely in [
        vec![1; 40],
        [&mss[..], &[1; 16]].concat(),
        // Not at a multiple of 4 bytes.
        [&[3, 3, 7][..], &[1; 12]].concat(),
    ] {
        assert_eq!(
            concluded(&likely),
            taken_out(Certainty::Likely),
            "{likely:?}"
        );
    }
    let few = [&mss[..], &[1; 8]].concat();
    assert_eq!(concluded(&few), (Outcome::Peer, Certainty::Open));
}
