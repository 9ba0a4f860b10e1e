//! What a line and the account say of peers.

use super::*;
use crate::model::{
    Whose,
    fixture::{Row, answered},
};

const ETH0: &str = "10.0.0.1:1000";
const ETH1: &str = "10.0.1.1:1000";

fn names(_netns: u32, local: std::net::IpAddr) -> Option<String> {
    match local.to_string().as_str() {
        "10.0.0.1" => Some("eth0".to_owned()),
        "10.0.1.1" => Some("eth1".to_owned()),
        _ => None,
    }
}

/// Takes these answers in order: what each fallback says, and the account.
fn told(book: &mut PeerBook, answers: &[(&'static str, bool)]) -> Vec<Option<String>> {
    let mut all = Vec::new();
    for (number, (local, mptcp)) in (1..).zip(answers) {
        let mut finding = answered(number, local, *mptcp);
        book.take(&mut finding, &|_| true);
        if let Finding::Connection(event) = finding {
            all.push(event.history.unwrap().sentence());
        }
    }
    all
}

#[test]
fn a_fallback_says_what_is_known_by_then_and_the_account_what_is_known_at_the_end() {
    let mut book = PeerBook::naming(names);
    let mut answers = vec![(ETH1, false); 3];
    answers.extend([(ETH0, true), (ETH0, true), (ETH1, false)]);
    let sentence = |there: &str, here: &str| {
        format!(
            "the path over {there} takes MPTCP away: the peer spoke it in 2 of 2 over {here}, 0 of 4 over \
             {there}"
        )
    };
    // The first ones were too early to say it. A replay has no names of interfaces: lines do without.
    let line = sentence("10.0.1.1", "10.0.0.1");
    let wanted = [None, None, None, Some(line)];
    assert_eq!(told(&mut book, &answers), wanted);
    assert_eq!(
        book.account(),
        format!("192.0.2.7: {}\n", sentence("eth1", "eth0"))
    );
    let counts = book.counts();
    assert_eq!((counts.peer, counts.path, counts.unknown), (0, 1, 0));
    assert_eq!(counts.over, [("eth1".to_owned(), 1)].into());
    // As many, but in another order: none of the lines knows it.
    let mut late = PeerBook::naming(names);
    answers.rotate_left(5);
    answers.truncate(4);
    answers.push((ETH0, true));
    assert_eq!(told(&mut late, &answers), [None, None, None, None]);
    assert!(late.account().contains("0 of 4 over eth1"));
}

#[test]
fn without_a_conclusion_there_is_no_sentence_and_without_a_name_the_address_stands_for_it() {
    let mut book = PeerBook::default();
    assert_eq!(told(&mut book, &[(ETH1, false); 4]), vec![None; 4]);
    assert_eq!(book.account(), "");
    assert_eq!(book.counts().unknown, 1);
    told(&mut book, &[(ETH0, true)]);
    assert!(book.account().contains("the path over 10.0.1.1 takes"));
}

#[test]
fn connections_of_others_are_evidence_but_the_account_is_about_the_users_own() {
    let mut book = PeerBook::default();
    let mut take = |remote, is_wanted| {
        for number in 0..3 {
            let mut finding = Row {
                address: number,
                remote,
                cause: Some("MPCapableFallbackSYNACK"),
                ..Row::default()
            }
            .connection();
            book.take(&mut finding, &|_| is_wanted);
        }
    };
    take("192.0.2.8:443", false);
    take("192.0.2.9:443", true);
    let mut other = answered(9, ETH0, true);
    book.take(&mut other, &|_| false);
    let account = book.account();
    assert_eq!(
        account,
        "192.0.2.9: the peer is without MPTCP: 0 of 3 over 10.0.0.1, where others speak it\n"
    );
    assert_eq!(book.counts().peer, 2);
    assert_eq!(book.best().of("192.0.2.8").unwrap().whose, Whose::Peer);
}

#[test]
fn the_account_lists_few_peers_and_says_that_there_are_more() {
    let mut book = PeerBook::default();
    for (number, remote) in [
        "192.0.2.1:1",
        "192.0.2.2:1",
        "192.0.2.3:1",
        "192.0.2.4:1",
        "192.0.2.5:1",
        "192.0.2.6:1",
    ]
    .into_iter()
    .enumerate()
    {
        for _ in 0..3 {
            let mut finding = Row {
                address: number as u64,
                remote,
                cause: Some("MPCapableFallbackSYNACK"),
                ..Row::default()
            }
            .connection();
            book.take(&mut finding, &|_| true);
        }
    }
    book.take(&mut answered(99, ETH0, true), &|_| true);
    let account = book.account();
    assert_eq!(account.lines().count(), LISTED_MAX + 1);
    assert!(account.ends_with("--by dest lists all\n"), "{account}");
}
