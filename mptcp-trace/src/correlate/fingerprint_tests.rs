//! Each conclusion from a packet, and none that does not follow.

use super::*;

const NETNS: u32 = 4;

/// A SYN/ACK of Linux, without MPTCP, whose last options are these.
fn syn_ack(more: &[TcpOption]) -> Packet {
    let mut options = vec![
        TcpOption::Mss(1460),
        TcpOption::SackPermitted,
        TcpOption::Timestamps(7, 8),
        TcpOption::Nop,
        TcpOption::WindowScale(10),
    ];
    options.extend_from_slice(more);
    Packet {
        ip: Vec::new(),
        tcp: Vec::new(),
        source: "192.0.2.7:443".parse().unwrap(),
        destination: "192.0.2.1:5000".parse().unwrap(),
        ttl: 61,
        flags: TcpFlags::SYN_ACK,
        window: 65160,
        options,
        ttl_before: None,
        first_path: None,
        peer_token: Some(0x0102_0304),
        conclusions: Vec::new(),
    }
}

fn rst(ttl: u8) -> Packet {
    Packet {
        flags: TcpFlags::RST,
        ttl,
        options: Vec::new(),
        ..syn_ack(&[])
    }
}

/// Names and certainties of the conclusions.
#[track_caller]
fn check(peers: &mut Peers, mut packet: Packet, expected: &[(Shown, Certainty)]) {
    peers.judge(NETNS, &mut packet);
    let found: Vec<(Shown, Certainty)> = packet
        .conclusions
        .iter()
        .map(|it| (it.what, it.certainty))
        .collect();
    assert_eq!(found, expected, "{packet:?}");
}

const CLEARED: (Shown, Certainty) = (Shown::Cleared, Certainty::Certain);
const ABSENT: (Shown, Certainty) = (Shown::Absent, Certainty::Open);

#[test]
fn a_gap_is_longer_than_stacks_align() {
    let nops = |number| vec![TcpOption::Nop; number];
    let likely = (Shown::Cleared, Certainty::Likely);
    for (number, expected) in [
        (0, ABSENT),
        (3, ABSENT),
        (4, likely),
        (7, likely),
        (8, CLEARED),
        (12, CLEARED),
    ] {
        check(&mut Peers::default(), syn_ack(&nops(number)), &[expected]);
    }
    // A box that clears timestamps leaves as much.
    let mut untimed = syn_ack(&nops(12));
    untimed
        .options
        .retain(|it| !matches!(it, TcpOption::Timestamps(..)));
    check(&mut Peers::default(), untimed, &[likely]);
    let ends = vec![TcpOption::End; 12];
    check(&mut Peers::default(), syn_ack(&ends), &[CLEARED]);
}

#[test]
fn an_option_is_reflected_in_the_form_of_a_syn_only() {
    let with = |content: &[u8]| syn_ack(&[TcpOption::Mptcp(content.to_vec())]);
    let reflected = |certainty| [(Shown::Reflected, certainty)];
    let present = [(Shown::Present, Certainty::Certain)];
    let join = |token: [u8; 4]| {
        let [a, b, c, d] = token;
        with(&[0x10, 2, a, b, c, d, 9, 9, 9, 9])
    };
    let mut key = vec![1, 0x81];
    key.extend([7; 8]);
    for (packet, expected) in [
        (with(&[1, 0x81]), &reflected(Certainty::Likely)),
        (with(&key), &present),
        (join([1, 2, 3, 4]), &reflected(Certainty::Certain)),
        (join([4, 3, 2, 1]), &reflected(Certainty::Likely)),
        (with(&[0x10; 14]), &present),
    ] {
        check(&mut Peers::default(), packet, expected);
    }
    // A third ACK has the same length of MP_CAPABLE in no form.
    let ack = Packet {
        flags: TcpFlags(16),
        ..with(&[1, 0x81])
    };
    check(&mut Peers::default(), ack, &present);
}

#[test]
fn an_rst_is_compared_with_the_path_first_then_with_the_peer_and_else_with_nothing() {
    let unknown = [(Shown::RstUnknown, Certainty::Open)];
    let same = [(Shown::RstSameTtl, Certainty::Open)];
    let other = [(Shown::RstOtherTtl, Certainty::Likely)];
    let mut peers = Peers::default();
    check(&mut peers, rst(64), &unknown);
    // An RST is no example of the peer's packets.
    check(&mut peers, rst(64), &unknown);
    let before = |ttl| Packet {
        ttl_before: Some(ttl),
        ..rst(64)
    };
    check(&mut peers, before(61), &other);
    check(&mut peers, before(64), &same);
    check(&mut peers, rst(64), &same);
    let mut peers = Peers::default();
    check(&mut peers, syn_ack(&[]), &[ABSENT]);
    check(&mut peers, rst(61), &same);
    check(&mut peers, rst(64), &other);
}

#[test]
fn another_machine_differs_in_what_a_machine_does_not_change() {
    let likely = [ABSENT, (Shown::AnotherMachine, Certainty::Likely)];
    let open = [ABSENT, (Shown::AnotherMachine, Certainty::Open)];
    let first = |negotiated: Negotiated| Packet {
        first_path: Some(negotiated),
        ..syn_ack(&[])
    };
    let same = Negotiated {
        mss: Some(1460),
        window_scale: Some(10),
        timestamps: true,
    };
    let scale = Negotiated {
        window_scale: Some(7),
        ..same
    };
    let plain = Negotiated {
        timestamps: false,
        ..same
    };
    let larger = Negotiated {
        mss: Some(8960),
        ..same
    };
    check(&mut Peers::default(), first(same), &[ABSENT]);
    check(&mut Peers::default(), first(scale), &likely);
    check(&mut Peers::default(), first(plain), &likely);
    check(&mut Peers::default(), first(larger), &open);
    // The same peer, in an earlier connection.
    let mut peers = Peers::default();
    check(&mut peers, syn_ack(&[]), &[ABSENT]);
    check(&mut peers, syn_ack(&[]), &[ABSENT]);
    let nearer = Packet {
        ttl: 63,
        ..syn_ack(&[])
    };
    check(&mut peers, nearer.clone(), &open);
    // On the same path, a route seldom changes in the meantime.
    let on_this_path = Packet {
        ttl_before: Some(61),
        ..nearer
    };
    check(&mut Peers::default(), on_this_path, &likely);
    // The same addresses in another namespace are another peer.
    let mut packet = Packet {
        ttl: 63,
        ..syn_ack(&[])
    };
    peers.judge(NETNS + 1, &mut packet);
    assert_eq!(packet.conclusions.len(), 1);
}

#[test]
fn the_oldest_peers_are_dropped() {
    let mut peers = Peers::default();
    let from = |number: usize| Packet {
        source: std::net::SocketAddr::new(std::net::Ipv4Addr::from(number as u32).into(), 443),
        ..syn_ack(&[])
    };
    for number in 0..=PEERS_MAX {
        peers.judge(NETNS, &mut from(number));
    }
    assert_eq!((peers.seen.len(), peers.ways.len()), (PEERS_MAX, PEERS_MAX));
    let nearer = |number| Packet {
        ttl: 9,
        ..from(number)
    };
    check(&mut peers, nearer(0), &[ABSENT]);
    check(
        &mut peers,
        nearer(PEERS_MAX),
        &[ABSENT, (Shown::AnotherMachine, Certainty::Open)],
    );
}
