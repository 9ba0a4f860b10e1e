//! Two ends as a table of what each saw -> the judgement.

use std::{net::SocketAddr, time::Duration};

use super::{
    About, By, Capture, Ends, Judgement, Look, Options, Paired,
    join::joined,
    json,
    judge::{Judge, Judged, Packet},
    seen::{Fell, PathEnd, PathSeen, Seen},
    text,
};
use crate::model::{CauseCertainty, DecidedBy, Evidence, Marks, PathId, PathRole, Side, SocketId};
use crate::sink::wrapped;

const SECOND: Duration = Duration::from_secs(1);
/// The server's clock is ahead.
const AHEAD: Duration = Duration::from_secs(500);

/// As without a terminal.
const PLAIN: Look = Look {
    width: None,
    colour: false,
    wrapped,
};

fn ms(at: u64) -> Duration {
    SECOND * 100 + Duration::from_millis(at)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The first path of connection `number` as the end of this side sees it, through NAT: it begins
/// `number` seconds into the capture, and a round trip takes 2 ms.
fn first(side: Side, number: u32) -> PathSeen {
    let (client, server) = (number * 1000, number * 77_777);
    let at = u64::from(number) * 1000;
    let marks = |sent, received| Marks {
        sent: Some(sent),
        received: Some(received),
        keys: None,
    };
    let (local, remote, marks, began, up) = match side {
        Side::Active => (
            format!("10.0.0.1:{}", 1000 + number),
            "192.0.2.1:443".to_owned(),
            marks(client, server + 1),
            ms(at),
            ms(at + 2),
        ),
        Side::Passive => (
            "10.9.0.1:8443".to_owned(),
            format!("10.9.0.254:{}", 40_000 + number),
            marks(server + 1, client + 1),
            ms(at + 3),
            ms(at + 3),
        ),
    };
    PathSeen {
        id: Some(PathId {
            socket: SocketId(number.into()),
            began_at: began,
        }),
        role: PathRole::First,
        side: Some(side),
        local: addr(&local),
        remote: addr(&remote),
        ids: (Some(0), Some(0)),
        marks,
        began: Some(began),
        up: Some(up),
        end: None,
        round_trip: Some(Duration::from_millis(2)),
        rst_received: false,
        rst_sent: false,
        existing: false,
    }
}

fn seen(side: Side, number: u32) -> Seen {
    let path = first(side, number);
    Seen {
        netns: 1,
        side: Some(side),
        process: Some("curl 7".into()),
        first_at: path.began.unwrap(),
        closed: None,
        fell: None,
        plain: None,
        is_unknown: false,
        paths: vec![path],
        is_orphan: false,
        wanted: true,
    }
}

fn client(number: u32) -> Seen {
    seen(Side::Active, number)
}

fn server(number: u32) -> Seen {
    seen(Side::Passive, number)
}

fn fell(mut seen: Seen, cause: &str, after_ms: u64, evidence: &[Evidence]) -> Seen {
    seen.fell = Some(Fell {
        at: Some(seen.begin() + Duration::from_millis(after_ms)),
        cause: Some(cause.into()),
        known: CauseCertainty::Reported,
        evidence: evidence.to_vec(),
        is_cleared: false,
    });
    seen
}

/// The packet that decided has padding in the place of the option.
fn cleared(mut seen: Seen) -> Seen {
    seen.fell.iter_mut().for_each(|fell| fell.is_cleared = true);
    seen
}

fn plain(mut seen: Seen, asked_not: bool) -> Seen {
    seen.plain = Some(asked_not);
    seen
}

fn failed(mut path: PathSeen, cause: &str, decided_by: DecidedBy) -> PathSeen {
    path.up = None;
    path.end = Some(PathEnd {
        at: path.began.unwrap() + Duration::from_millis(20),
        is_failed: true,
        cause: Some(cause.into()),
        known: CauseCertainty::Reported,
        decided_by: Some(decided_by),
        is_cleared: false,
    });
    path
}

fn down(mut seen: Seen, cause: &str, after_ms: u64) -> Seen {
    let path = &mut seen.paths[0];
    path.rst_received = cause == "rst-received";
    path.end = Some(PathEnd {
        at: path.began.unwrap() + Duration::from_millis(after_ms),
        is_failed: false,
        cause: Some(cause.into()),
        known: CauseCertainty::Reported,
        decided_by: Some(DecidedBy::Peer),
        is_cleared: false,
    });
    seen
}

/// A join of a connection, from the other address.
fn join(side: Side, number: u32, marks: [Option<u32>; 2]) -> PathSeen {
    let [sent, received] = marks;
    PathSeen {
        role: PathRole::Join,
        id: Some(PathId {
            socket: SocketId(u64::from(number) + 1000),
            began_at: ms(0),
        }),
        ids: match side {
            Side::Active => (Some(1), Some(0)),
            Side::Passive => (Some(0), Some(1)),
        },
        marks: Marks {
            sent,
            received,
            keys: None,
        },
        ..first(side, number)
    }
}

fn capture(name: &str, epoch: Duration, all: Vec<Seen>) -> Capture {
    Capture {
        about: About {
            name: name.into(),
            epoch,
            span: (Duration::ZERO, SECOND * 10_000),
            ..About::default()
        },
        ends: Ends {
            all,
            ..Ends::default()
        },
    }
}

/// Captures of both ends, with a connection that is MPTCP at both: the clocks are known by it.
fn captures(mut clients: Vec<Seen>, mut servers: Vec<Seen>) -> [Capture; 2] {
    clients.push(client(900));
    servers.push(server(900));
    [
        capture("client.mpt", SECOND * 1000, clients),
        capture("server.mpt", SECOND * 1000 + AHEAD, servers),
    ]
}

/// What is said about all connections but the one that is MPTCP at both ends.
fn judged(captures: &[Capture; 2]) -> Vec<(Option<By>, Judged)> {
    let [first, second] = captures;
    let (pairs, offset) = joined(first, second);
    let judge = Judge::new([first, second], offset);
    let ours = |seen: Option<&Seen>| {
        seen.is_none_or(|it| it.paths[0].id.is_none_or(|id| id.socket != SocketId(900)))
    };
    let pairs = pairs.iter().filter(|pair| {
        let [a, b] = judge.ends(pair);
        ours(a) && ours(b)
    });
    pairs
        .map(|pair| (pair.by, judge.connection(pair)))
        .collect()
}

#[track_caller]
fn check(
    clients: Vec<Seen>,
    servers: Vec<Seen>,
    what: Judgement,
    packet: Option<Packet>,
    by: Option<By>,
) {
    let all = judged(&captures(clients, servers));
    let [(joined, judged)] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(
        (judged.what, judged.packet, *joined),
        (what, packet, by),
        "{}",
        judged.why
    );
    let has_words = !judged.why.is_empty() && !judged.why.ends_with('.');
    assert!(has_words, "{}", judged.why);
}

const SYN_ACK: &str = "MPCapableFallbackSYNACK";
const THIRD_ACK: &str = "MPCapableFallbackACK";

#[test]
fn what_each_end_saw_tells_which_packet_lost_its_option() {
    use Judgement::{Changed, Mptcp, NeverArrived, NotRequested, OptionRemoved};
    let no_dss = &[Evidence::NoDss][..];
    let sequences = Some(By::Sequences);
    for (here, there, what, packet) in [
        (client(1), server(1), Mptcp, None),
        (
            fell(client(1), SYN_ACK, 2, &[]),
            plain(server(1), true),
            OptionRemoved,
            Some(Packet::Syn),
        ),
        (
            fell(client(1), SYN_ACK, 2, &[]),
            plain(server(1), false),
            OptionRemoved,
            Some(Packet::Handshake),
        ),
        (
            cleared(fell(client(1), SYN_ACK, 2, &[])),
            plain(server(1), false),
            OptionRemoved,
            Some(Packet::SynAck),
        ),
        (
            fell(client(1), SYN_ACK, 2, &[]),
            fell(server(1), THIRD_ACK, 0, &[]),
            OptionRemoved,
            Some(Packet::SynAck),
        ),
        (
            fell(client(1), "MPCapableDataFallback", 9, &[]),
            plain(server(1), false),
            OptionRemoved,
            Some(Packet::ThirdAck),
        ),
        (
            client(1),
            fell(server(1), THIRD_ACK, 0, &[]),
            OptionRemoved,
            Some(Packet::ThirdAck),
        ),
        // Who falls back first has lost the option; the other one follows.
        (
            fell(client(1), "DssFallback", 50, no_dss),
            fell(server(1), "DssFallback", 60, no_dss),
            OptionRemoved,
            Some(Packet::DataToClient),
        ),
        (
            fell(client(1), "DssFallback", 70, no_dss),
            fell(server(1), "DssFallback", 60, no_dss),
            OptionRemoved,
            Some(Packet::DataToServer),
        ),
        (
            client(1),
            fell(server(1), "DssFallback", 60, no_dss),
            OptionRemoved,
            Some(Packet::DataToServer),
        ),
        (
            fell(client(1), "DssFallback", 50, &[]),
            fell(server(1), "DssFallback", 60, &[Evidence::BadChecksum]),
            Changed,
            Some(Packet::DataToServer),
        ),
        (
            fell(client(1), "InfiniteMapTx", 70, &[]),
            server(1),
            Changed,
            Some(Packet::DataToServer),
        ),
        (
            fell(client(1), "DSSCorruptionFallback", 70, &[]),
            fell(server(1), "DssFallback", 60, &[]),
            Changed,
            Some(Packet::DataToClient),
        ),
        (
            fell(client(1), "MPCapableSYNTXDrop", 2, &[]),
            plain(server(1), false),
            NeverArrived,
            Some(Packet::Syn),
        ),
        (
            fell(client(1), "MPCapableSYNTXDisabled", 0, &[]),
            plain(server(1), false),
            NotRequested,
            None,
        ),
    ] {
        check(vec![here], vec![there], what, packet, sequences);
    }
}

#[test]
fn contradictions_and_unknown_fallbacks_are_not_explained() {
    let unknown = Seen {
        is_unknown: true,
        ..server(1)
    };
    for (here, there) in [
        (fell(client(1), SYN_ACK, 2, &[]), server(1)),
        (client(1), unknown),
        (fell(client(1), "NameOfLater", 50, &[]), server(1)),
    ] {
        check(
            vec![here],
            vec![there],
            Judgement::CannotSay,
            None,
            Some(By::Sequences),
        );
    }
}

#[test]
fn an_rst_that_the_other_end_did_not_send_is_from_between() {
    let sender = |mut seen: Seen| {
        seen.paths[0].rst_sent = true;
        seen
    };
    let reset = || down(client(1), "rst-received", 500);
    for (there, what) in [
        (server(1), Judgement::ResetBetween),
        (
            down(server(1), "connection-closed", 900),
            Judgement::ResetBetween,
        ),
        (sender(server(1)), Judgement::Mptcp),
        // A host answers so what arrives for a connection that it has closed.
        (down(server(1), "connection-closed", 300), Judgement::Mptcp),
    ] {
        check(vec![reset()], vec![there], what, None, Some(By::Sequences));
    }
}

#[test]
fn what_only_one_capture_has_is_explained_as_far_as_it_goes() {
    use Judgement::{CannotSay, NeverArrived, NotInOther};
    let lonely = |cause, by| {
        let mut seen = client(1);
        seen.paths[0] = failed(first(Side::Active, 1), cause, by);
        seen
    };
    // Another service than the one of the server that is known.
    let elsewhere = |mut seen: Seen| {
        seen.paths[0].remote = addr("203.0.113.7:80");
        seen
    };
    check(
        vec![elsewhere(fell(client(1), SYN_ACK, 2, &[]))],
        vec![],
        NotInOther,
        None,
        None,
    );
    check(vec![elsewhere(client(1))], vec![], NotInOther, None, None);
    check(vec![], vec![plain(server(1), true)], NotInOther, None, None);
    check(
        vec![lonely("MPCapableSynTimeout", DecidedBy::Nobody)],
        vec![],
        NeverArrived,
        Some(Packet::Handshake),
        None,
    );
    check(
        vec![lonely("MPCapableSynRefused", DecidedBy::Peer)],
        vec![],
        CannotSay,
        None,
        None,
    );
}

#[test]
fn a_connection_of_a_service_with_mptcp_that_does_not_arrive_is_ended_in_between() {
    let ended = || fell(client(1), SYN_ACK, 2, &[]);
    check(vec![ended()], vec![], Judgement::Proxy, None, None);
    // The other one began at the same time, with numbers of its own.
    let mut there = plain(server(1), false);
    there.paths[0].marks = first(Side::Passive, 2).marks;
    check(
        vec![ended()],
        vec![there.clone()],
        Judgement::Proxy,
        None,
        Some(By::Time),
    );
    // Much later: it is another one.
    let late = ms(500_000);
    (there.paths[0].began, there.paths[0].up, there.first_at) = (Some(late), Some(late), late);
    let all = judged(&captures(vec![ended()], vec![there]));
    let words: Vec<_> = all.iter().map(|(by, judged)| (*by, judged.what)).collect();
    assert_eq!(
        words,
        [(None, Judgement::Proxy), (None, Judgement::NotInOther)]
    );
}

#[test]
fn an_address_of_several_network_namespaces_is_no_known_service() {
    let mut there = server(900);
    (there.netns, there.paths[0].local) = (2, addr("192.0.2.9:443"));
    let mut here = fell(client(1), SYN_ACK, 2, &[]);
    here.paths[0].remote = addr("192.0.2.9:443");
    let what = |others: Vec<Seen>| {
        let [mut first, mut second] = captures(vec![here.clone()], vec![]);
        second.ends.all.extend(others);
        first.ends.all[0].netns = 5;
        let all = judged(&[first, second]);
        all.iter()
            .find(|(_, it)| it.left.is_some())
            .map(|(_, it)| it.what)
    };
    let mut number = 900;
    let mut in_namespace = |netns| {
        number -= 1;
        let mut seen = server(number);
        (seen.netns, seen.paths[0].local) = (netns, addr("192.0.2.9:443"));
        seen.paths[0].id = there.paths[0].id;
        seen
    };
    assert_eq!(what(vec![in_namespace(2)]), Some(Judgement::Proxy));
    assert_eq!(
        what(vec![in_namespace(2), in_namespace(3)]),
        Some(Judgement::NotInOther)
    );
}

#[test]
fn sequence_numbers_that_are_rewritten_leave_the_keys_and_without_these_addresses() {
    let with_keys = |mut seen: Seen, keys| {
        seen.paths[0].marks.keys = Some(keys);
        seen
    };
    let rewritten = |mut seen: Seen| {
        seen.paths[0].marks.sent = Some(5);
        seen.paths[0].marks.received = Some(6);
        seen
    };
    let sees = |mut seen: Seen, local, remote| {
        (seen.paths[0].local, seen.paths[0].remote) = (addr(local), addr(remote));
        seen
    };
    check(
        vec![with_keys(client(1), 7)],
        vec![rewritten(with_keys(server(1), 7))],
        Judgement::Mptcp,
        None,
        Some(By::Keys),
    );
    check(
        vec![fell(client(1), SYN_ACK, 2, &[])],
        vec![sees(
            plain(rewritten(server(1)), true),
            "192.0.2.1:443",
            "10.0.0.1:1001",
        )],
        Judgement::OptionRemoved,
        Some(Packet::Syn),
        Some(By::Addresses),
    );
    // The same addresses, and other keys: something in between speaks for both.
    check(
        vec![with_keys(client(1), 7)],
        vec![sees(
            rewritten(with_keys(server(1), 8)),
            "192.0.2.1:443",
            "10.0.0.1:1001",
        )],
        Judgement::Proxy,
        None,
        Some(By::Time),
    );
}

#[test]
fn nothing_follows_from_absence_where_records_were_lost_or_the_time_is_not_covered() {
    let lonely = || vec![fell(client(1), SYN_ACK, 2, &[])];
    for spoil in [
        |about: &mut About| about.gap = Some("3 of its events were lost".into()),
        |about: &mut About| about.span.0 = ms(5_000),
        |about: &mut About| about.span.1 = ms(500),
    ] {
        let mut captures = captures(lonely(), vec![]);
        spoil(&mut captures[1].about);
        let all = judged(&captures);
        assert!(
            matches!(&all[..], [(None, it)] if it.what == Judgement::CannotSay),
            "{all:?}"
        );
    }
    let mut captures = captures(vec![down(client(1), "rst-received", 500)], vec![server(1)]);
    captures[1].about.gap = Some("3 of its events were lost".into());
    assert_eq!(judged(&captures)[0].1.what, Judgement::CannotSay);
}

#[test]
fn joins_are_judged_with_what_the_server_says_about_them() {
    use Judgement::{Changed, DecidedByEnd, Mptcp, NeverArrived, OptionRemoved, ResetBetween};
    let (here, there) = (Some(50), Some(60));
    for (cause, refusal, what, packet) in [
        (None, Some(None), Mptcp, None),
        (
            Some("MPJoinSynAckNoMPJoin"),
            None,
            OptionRemoved,
            Some(Packet::Handshake),
        ),
        (
            Some("MPJoinSynAckNoMPJoin"),
            Some(Some("MPJoinSynNoMPJoin")),
            OptionRemoved,
            Some(Packet::Syn),
        ),
        (
            Some("MPJoinSynAckNoMPJoin"),
            Some(Some("MPJoinThirdAckMissing")),
            OptionRemoved,
            Some(Packet::SynAck),
        ),
        (
            Some("MPJoinAckRejected"),
            Some(Some("MPJoinAckNoMPJoin")),
            OptionRemoved,
            Some(Packet::ThirdAck),
        ),
        (
            Some("MPJoinAckRejected"),
            Some(Some("MPJoinAckHMacFailure")),
            Changed,
            Some(Packet::ThirdAck),
        ),
        (
            Some("MPJoinAckRejected"),
            Some(Some("MPJoinRejected")),
            DecidedByEnd,
            None,
        ),
        (
            Some("MPJoinSynAckHMacFailure"),
            None,
            Changed,
            Some(Packet::SynAck),
        ),
        (
            Some("MPJoinSynRejected"),
            Some(Some("MPJoinNoTokenFound")),
            Changed,
            Some(Packet::Syn),
        ),
        (
            Some("MPJoinSynTimeout"),
            None,
            NeverArrived,
            Some(Packet::Handshake),
        ),
        (
            Some("MPJoinSynTimeout"),
            Some(Some("MPJoinThirdAckMissing")),
            NeverArrived,
            Some(Packet::SynAck),
        ),
        (Some("MPJoinSynRefused"), None, ResetBetween, None),
    ] {
        let (mut a, mut b) = (client(1), server(1));
        let opened = join(Side::Active, 1, [here, there.map(|it| it + 1)]);
        a.paths.push(match cause {
            Some(cause) => failed(opened, cause, DecidedBy::Here),
            None => opened,
        });
        let accepted = join(
            Side::Passive,
            1,
            [there.map(|it| it + 1), here.map(|it| it + 1)],
        );
        let mut orphan = None;
        match refusal {
            None => {}
            Some(None) => b.paths.push(accepted),
            // What the server refuses may have no connection there.
            Some(Some(refusal)) => {
                let mut lone = server(1);
                lone.is_orphan = true;
                lone.side = None;
                lone.paths = vec![failed(accepted, refusal, DecidedBy::Here)];
                lone.paths[0].id = None;
                orphan = Some(lone);
            }
        }
        let servers = std::iter::once(b).chain(orphan).collect();
        check(vec![a], servers, what, packet, Some(By::Sequences));
    }
}

#[test]
fn padding_shows_that_the_answer_to_a_join_was_sent_with_its_option() {
    let mut here = client(1);
    let opened = join(Side::Active, 1, [Some(50), Some(61)]);
    let mut path = failed(opened, "MPJoinSynAckNoMPJoin", DecidedBy::Here);
    path.end.iter_mut().for_each(|end| end.is_cleared = true);
    here.paths.push(path);
    check(
        vec![here],
        vec![server(1)],
        Judgement::OptionRemoved,
        Some(Packet::SynAck),
        Some(By::Sequences),
    );
}

#[test]
fn clocks_are_aligned_and_captures_in_the_wrong_order_are_exchanged() {
    let [first, second] = captures(
        vec![fell(client(1), SYN_ACK, 2, &[])],
        vec![plain(server(1), true)],
    );
    let options = Options {
        all: true,
        utc: true,
        ..Options::default()
    };
    let (paired, swapped) = Paired::new(&first, &second);
    assert!(!swapped);
    let lines = text(&paired, &options, PLAIN);
    assert!(
        lines.contains("clocks: the server's is 500 s ahead (+-"),
        "{lines}"
    );
    assert!(
        lines.contains("left at 00:18:21.000000, noticed at 00:18:21.00"),
        "{lines}"
    );
    let (exchanged, swapped) = Paired::new(&second, &first);
    assert!(swapped);
    assert_eq!(text(&exchanged, &options, PLAIN), lines);
    let json = String::from_utf8(json(&paired, &options).unwrap()).unwrap();
    let types = json.lines().map(|line| line[..20].to_owned());
    assert_eq!(types.collect::<Vec<_>>().len(), 4, "{json}");
}

#[test]
fn captures_that_both_have_both_ends_give_each_connection_once() {
    let both = || vec![client(1), server(1), client(2), server(2)];
    let (first, second) = (capture("a", SECOND, both()), capture("b", SECOND, both()));
    let (pairs, offset) = joined(&first, &second);
    let sure = pairs
        .iter()
        .filter(|pair| pair.by == Some(By::Sequences))
        .count();
    assert_eq!((sure, offset.is_some()), (2, true), "{pairs:?}");
}

#[test]
fn text_from_outside_is_escaped() {
    let mut here = fell(client(1), SYN_ACK, 2, &[]);
    here.process = Some("\u{1b}[31mred 7".into());
    let [first, second] = captures(vec![here], vec![plain(server(1), true)]);
    let (paired, _) = Paired::new(&first, &second);
    assert!(!text(&paired, &Options::default(), PLAIN).contains('\u{1b}'));
}

#[test]
fn text_fits_the_terminal_and_nothing_is_left_out() {
    let mut with_join = client(2);
    let (mut here, mut there) = (server(2), join(Side::Active, 2, [Some(70), Some(90)]));
    there.local = addr("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:1]:40000");
    with_join
        .paths
        .push(failed(there, "MPJoinSynAckNoMPJoin", DecidedBy::Here));
    here.paths
        .push(join(Side::Passive, 2, [Some(90), Some(71)]));
    let [first, second] = captures(
        vec![fell(client(1), SYN_ACK, 2, &[]), with_join],
        vec![plain(server(1), true), here],
    );
    let (paired, _) = Paired::new(&first, &second);
    let options = Options {
        all: true,
        utc: true,
        ..Options::default()
    };
    let wide = text(&paired, &options, PLAIN);
    let header = wide.lines().find(|line| line.starts_with("TIME")).unwrap();
    let row = wide
        .lines()
        .find(|line| line.contains("option-removed"))
        .unwrap();
    for (name, cell) in [
        ("JUDGEMENT", "option-removed"),
        ("CLIENT", "curl 7 10.0.0.1:1001 -> "),
        ("SERVER", "curl 7 10.9.0.1:8443 <- "),
    ] {
        let at = header.find(name).unwrap();
        assert!(row[at..].starts_with(cell), "{name} in\n{wide}");
    }
    let words = |text: &str| {
        let mut all: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        all.retain(|word| !word.starts_with("CLIENT"));
        all
    };
    for width in [72, 80, 100, 128, 200] {
        let look = Look {
            width: Some(width),
            ..PLAIN
        };
        let text = text(&paired, &options, look);
        let too_wide = text.lines().find(|line| line.chars().count() > width);
        assert_eq!(too_wide, None, "{width}");
        assert!(
            text.contains("\nTIME            JUDGEMENT      CLIENT"),
            "{text}"
        );
        assert_eq!(words(&text), words(&wide), "{width}");
    }
    let painted = text(
        &paired,
        &options,
        Look {
            colour: true,
            ..PLAIN
        },
    );
    assert!(
        painted.contains("\u{1b}[31moption-removed\u{1b}[0m curl"),
        "{painted}"
    );
    let bare = painted.replace("\u{1b}[31m", "").replace("\u{1b}[32m", "");
    assert_eq!(
        bare.replace("\u{1b}[33m", "").replace("\u{1b}[0m", ""),
        wide
    );
}

#[test]
fn addresses_of_redacted_captures_join_nothing() {
    // Without numbers that join them, the same addresses do, and the service is known.
    let unnumbered = |mut seen: Seen| {
        seen.paths[0].marks = Marks::default();
        seen
    };
    let ends = || {
        let (mut here, mut there) = (unnumbered(client(1)), unnumbered(server(1)));
        there.paths[0].local = here.paths[0].remote;
        there.paths[0].remote = here.paths[0].local;
        here.paths[0].remote = there.paths[0].local;
        (here, there)
    };
    let (here, there) = ends();
    let clear = captures(vec![here], vec![there]);
    assert_eq!(judged(&clear)[0].0, Some(By::Addresses));
    for which in [0, 1] {
        let mut redacted = clear.clone();
        redacted[which].about.redacted = true;
        let all = judged(&redacted);
        assert_eq!(all.len(), 2, "{all:?}");
        for (by, judged) in all {
            assert_eq!(
                (by, judged.what),
                (None, Judgement::NotInOther),
                "{judged:?}"
            );
        }
    }
}

#[test]
fn two_captures_without_a_common_connection_are_explained() {
    let of = |first: &Capture, second: &Capture| Paired::new(first, second).0.why_nothing_fits();
    let [first, second] = captures(vec![], vec![]);
    assert_eq!(of(&first, &second), None);
    let says = |first: &Capture, second: &Capture, what: &str| {
        let why = of(first, second).unwrap();
        assert!(why.contains(what), "{why}");
    };
    let empty = capture("empty.mpt", SECOND, vec![]);
    says(&first, &empty, "empty.mpt has no connections");
    let strangers = capture("b", SECOND * 1000, vec![server(5)]);
    says(&first, &strangers, "the two ends of the same connections");
    let later = capture("b", SECOND * 100_000, vec![server(5)]);
    says(&first, &later, "different times");
}
