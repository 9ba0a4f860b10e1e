//! A path that is played, and packets that want to mislead.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    packet::{Packet, Secrets},
    *,
};

mod answers;
mod data;

const V4: Ends = Ends {
    source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    destination: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    port: 443,
};
const V6: Ends = Ends {
    source: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    destination: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7)),
    port: 443,
};
const LIMITS: Limits = Limits {
    timeout: Duration::from_millis(1),
    max_hops: 30,
    max_packets: 90,
};
/// Distance of the peer.
const DISTANCE: u8 = 6;

fn secrets(number: u32) -> Secrets {
    Secrets {
        port: 40_000 + number as u16,
        sequence: 0x1000_0000_u32.wrapping_mul(number) ^ 0x5555_1234,
        timestamp: 0x9e37_79b9_u32.wrapping_mul(number),
        id: 1_000 + number,
        join: [7; 8],
    }
}

fn router(number: u8, ends: Ends) -> IpAddr {
    match ends.destination {
        IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, number).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, number.into()).into(),
    }
}

/// An IP packet around a payload.
fn ip(from: IpAddr, to: IpAddr, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = (20 + payload.len()) as u16;
            let [high, low] = length.to_be_bytes();
            let mut packet = vec![0x45, 0, high, low, 0, 1, 0, 0, ttl, protocol, 0, 0];
            packet.extend([from.octets(), to.octets()].concat());
            [packet, payload.to_vec()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = (payload.len() as u16).to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, high, low, protocol, ttl];
            packet.extend([from.octets(), to.octets()].concat());
            [packet, payload.to_vec()].concat()
        }
        _ => unreachable!("two families"),
    }
}

/// "Time exceeded" of a router about a packet, of which `behind_ip` bytes behind its IP header are
/// quoted.
fn exceeded(ends: Ends, from: IpAddr, packet: &[u8], behind_ip: usize) -> Vec<u8> {
    let (protocol, kind, header) = match from {
        IpAddr::V4(_) => (1, 11, 20),
        IpAddr::V6(_) => (58, 3, 40),
    };
    let quote = &packet[..packet.len().min(header + behind_ip)];
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], quote].concat();
    ip(from, ends.source, protocol, 60, &message)
}

/// A SYN/ACK for a SYN, with these options.
fn syn_ack(ends: Ends, packet: &Packet, options: &[u8]) -> Vec<u8> {
    let mut tcp = ends.port.to_be_bytes().to_vec();
    tcp.extend(packet.secrets.port.to_be_bytes());
    tcp.extend([0, 0, 0, 9]);
    tcp.extend(packet.secrets.sequence.wrapping_add(1).to_be_bytes());
    tcp.extend([
        ((20 + options.len()) as u8 / 4) << 4,
        0x12,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    tcp.extend(options);
    ip(ends.destination, ends.source, 6, 64 - DISTANCE + 1, &tcp)
}

/// What is on the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum On {
    Nothing,
    /// Replaces the option by NOPs, behind the hop before this one.
    Clears(u8),
    Rewrites(u8),
}

/// A path with a peer that never speaks MPTCP back, and an attacker who sends first.
struct Played<'a> {
    ends: Ends,
    on: On,
    noise: &'a [Vec<u8>],
    behind_ip: usize,
    made: u32,
    waiting: VecDeque<Vec<u8>>,
}

impl Wire for Played<'_> {
    fn send(&mut self, packet: &Packet) -> anyhow::Result<()> {
        self.waiting.extend(self.noise.iter().cloned());
        let mut bytes = packet.bytes.clone();
        let header = if self.ends.source.is_ipv4() { 20 } else { 40 };
        let is_tcp = !packet.options.is_empty();
        match self.on {
            On::Clears(at) if is_tcp && packet.ttl >= at => {
                let options = &mut bytes[header + 20..];
                if let Some(at) = options.windows(2).position(|it| it == [30, 4]) {
                    options[at..at + 4].fill(1);
                }
            }
            On::Rewrites(at) if is_tcp && packet.ttl >= at => bytes[header + 4] ^= 0x40,
            On::Nothing | On::Clears(_) | On::Rewrites(_) => {}
        }
        if packet.ttl < DISTANCE {
            let from = router(packet.ttl, self.ends);
            self.waiting
                .push_back(exceeded(self.ends, from, &bytes, self.behind_ip));
        } else if is_tcp {
            self.waiting
                .push_back(syn_ack(self.ends, packet, &[2, 4, 5, 0xb4]));
        }
        Ok(())
    }

    fn receive(&mut self, _until: Instant) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.waiting.pop_front())
    }

    fn secrets(&mut self) -> anyhow::Result<Secrets> {
        self.made += 1;
        Ok(secrets(self.made))
    }

    fn open(&mut self, _timeout: Duration) -> anyhow::Result<Opened> {
        anyhow::bail!("it is not played")
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn progress(&mut self, _what: &str) {}
}

fn surveyed(ends: Ends, on: On, noise: &[Vec<u8>], behind_ip: usize) -> (Evidence, Conclusion) {
    let mut wire = Played {
        ends,
        on,
        noise,
        behind_ip,
        made: 0,
        waiting: VecDeque::new(),
    };
    let found = survey(ends, LIMITS, &mut wire).unwrap();
    let concluded = conclude(&found);
    (found, concluded)
}

#[test]
fn the_place_of_a_box_follows_from_the_quotes() {
    for ends in [V4, V6] {
        for at in 1..DISTANCE {
            let (_, concluded) = surveyed(ends, On::Clears(at), &[], 60);
            let before = Some(at);
            let span = Some(Span {
                after: at - 1,
                before,
            });
            assert_eq!(
                (concluded.outcome, concluded.span),
                (Outcome::TakenOut, span)
            );
            assert_eq!(concluded.how, Some(OptionState::Cleared));
            let (_, concluded) = surveyed(ends, On::Rewrites(at), &[], 60);
            assert_eq!(concluded.renumbered, span, "{at}");
            // 8 bytes are enough for that.
            let (_, concluded) = surveyed(ends, On::Rewrites(at), &[], 8);
            assert_eq!(concluded.renumbered, span, "{at}");
        }
        let (_, concluded) = surveyed(ends, On::Nothing, &[], 60);
        let span = Some(Span {
            after: DISTANCE - 1,
            before: None,
        });
        assert_eq!((concluded.outcome, concluded.span), (Outcome::Peer, span));
        assert_eq!(concluded.certainty, Certainty::Open);
    }
}

#[test]
fn quotes_of_8_bytes_name_no_place_and_text_and_json_say_so() {
    let (found, concluded) = surveyed(V4, On::Clears(3), &[], 8);
    assert_eq!(
        (concluded.outcome, concluded.certainty),
        (Outcome::Peer, Certainty::Open)
    );
    let about = About {
        host: "peer.example",
        addresses: 2,
        took: Duration::from_millis(1_200),
        width: 100,
    };
    let wrap = |text: &str, _width: usize| vec![text.to_owned()];
    let said = text(about, &found, &concluded, wrap);
    assert!(
        said.contains("no router quotes the option: cannot say"),
        "{said}"
    );
    assert!(said.contains("  3  203.0.113.3"), "{said}");
    assert!(said.contains("1 other addresses"), "{said}");
    let line: serde_json::Value = serde_json::from_str(&json(about, &found, &concluded)).unwrap();
    assert_eq!(line["data"]["conclusion"], "peer");
    assert_eq!(line["data"]["passes"], false);
    assert_eq!(line["data"]["hops"][2]["option_state"], "unknown");
    assert_eq!(line["data"]["hops"][2]["quoted_bytes"], 8);
}

#[test]
fn columns_are_aligned_for_both_families_and_fit_a_narrow_terminal() {
    for ends in [V4, V6] {
        let (found, concluded) = surveyed(ends, On::Clears(3), &[], 60);
        for width in [60, 80, 100] {
            let about = About {
                width,
                ..answers::ABOUT
            };
            let said = text(about, &found, &concluded, crate::sink::wrapped);
            let table: Vec<&str> = said.split("\n\n").nth(1).unwrap().lines().collect();
            let [who, quotes, option] =
                ["who", "quotes", "MP_CAPABLE"].map(|name| table[0].find(name).unwrap());
            for line in &table {
                let cells: Vec<char> = line.chars().collect();
                assert!(cells.len() <= width, "{width} columns: {line}");
                for start in [who, quotes, option] {
                    let gap = cells.get(start - 2..start);
                    assert!(gap.is_none_or(|gap| gap == [' ', ' ']), "{line}");
                }
            }
            assert!(table[1].starts_with("  0  "), "{said}");
            let marked = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                marked.contains("replaced by NOPs <-- the first without it"),
                "{said}"
            );
        }
    }
}

#[test]
fn a_limit_of_packets_is_kept_and_reported() {
    for max_packets in [2, 5, 7] {
        let mut wire = Played {
            ends: V4,
            on: On::Nothing,
            noise: &[],
            behind_ip: 60,
            made: 0,
            waiting: VecDeque::new(),
        };
        let limits = Limits {
            max_packets,
            ..LIMITS
        };
        let found = survey(V4, limits, &mut wire).unwrap();
        assert_eq!((found.packets, wire.made), (max_packets, max_packets));
        assert!(found.has_too_few_packets);
        // Each hop that is listed was asked, and answered.
        assert_eq!(
            found.hops.len(),
            usize::from(found.packets as u8 - 2).min(6)
        );
        assert!(found.hops.iter().all(|hop| hop.answer.is_some()));
        let wrap = |text: &str, _width: usize| vec![text.to_owned()];
        let said = text(answers::ABOUT, &found, &conclude(&found), wrap);
        assert!(!said.contains("silent"), "{said}");
        assert!(said.contains("  not asked\n"), "{said}");
    }
}

/// An attacker who never stops: the next packet is always there.
struct Flooded<'a>(Played<'a>);

impl Wire for Flooded<'_> {
    fn send(&mut self, packet: &Packet) -> anyhow::Result<()> {
        self.0.send(packet)
    }

    fn receive(&mut self, until: Instant) -> anyhow::Result<Option<Vec<u8>>> {
        let waiting = self.0.receive(until)?;
        Ok(Some(waiting.unwrap_or_else(|| {
            exceeded(V4, router(9, V4), &[0x45; 40], 8)
        })))
    }

    fn secrets(&mut self) -> anyhow::Result<Secrets> {
        self.0.secrets()
    }

    fn open(&mut self, timeout: Duration) -> anyhow::Result<Opened> {
        self.0.open(timeout)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.0.finish()
    }

    fn progress(&mut self, _what: &str) {}
}

#[test]
fn packets_without_end_do_not_keep_a_survey_from_its_end() {
    let mut wire = Flooded(Played {
        ends: V4,
        on: On::Clears(2),
        noise: &[],
        behind_ip: 60,
        made: 0,
        waiting: VecDeque::new(),
    });
    let found = survey(V4, LIMITS, &mut wire).unwrap();
    assert_eq!(conclude(&found).outcome, Outcome::TakenOut);
}

/// Forged answers: everything that can be known without seeing our packets is right.
fn forged(ends: Ends) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for number in 1..40 {
        let own = secrets(number);
        let guessed = Secrets {
            sequence: own.sequence ^ 1,
            timestamp: own.timestamp ^ 1,
            id: own.id ^ 1,
            ..own
        };
        for carried in [Carried::Plain, Carried::Capable, Carried::Join] {
            let mut packet = Packet::new(ends, carried, 1, guessed, None).unwrap();
            all.push(syn_ack(ends, &packet, &[30, 4, 1, 1]));
            let at = packet.bytes.len() - 4;
            packet.bytes[at..].fill(1);
            all.push(exceeded(ends, router(99, ends), &packet.bytes, 60));
            // 8 bytes: ports, and another sequence number.
            all.push(exceeded(ends, router(98, ends), &packet.bytes, 8));
        }
    }
    all
}

#[test]
fn forged_answers_change_nothing() {
    for ends in [V4, V6] {
        let noise = forged(ends);
        for on in [On::Nothing, On::Clears(1), On::Clears(3), On::Rewrites(2)] {
            let (clean, concluded) = surveyed(ends, on, &[], 60);
            let (noisy, misled) = surveyed(ends, on, &noise, 60);
            assert_eq!((&clean, &concluded), (&noisy, &misled), "{on:?}");
        }
    }
}

#[test]
fn a_hop_that_says_otherwise_than_a_later_one_is_outweighed() {
    let (mut found, _) = surveyed(V4, On::Nothing, &[], 60);
    let touched = |found: &mut Evidence, at: usize| {
        if let Some(Answer::Report(report)) = &mut found.hops[at].answer {
            report.option = OptionState::Removed;
        }
    };
    // The packet to hop 2 took another way: hop 5 has the option.
    touched(&mut found, 1);
    let concluded = conclude(&found);
    assert_eq!(concluded.outcome, Outcome::Peer);
    // Hops 4 and 5 lack it too.
    touched(&mut found, 3);
    touched(&mut found, 4);
    let concluded = conclude(&found);
    let before = Some(4);
    assert_eq!(concluded.span, Some(Span { after: 3, before }));
}

#[test]
fn options_are_compared_byte_by_byte_and_absurd_lengths_say_nothing() {
    let sent = [2, 4, 5, 0xb4, 1, 30, 4, 1, 1];
    let rows: [(&[u8], bool, OptionState); 12] = [
        (&sent, true, OptionState::Intact),
        (&[30, 4, 1, 1], true, OptionState::Intact),
        // Cut off behind the option, and before its end.
        (&sent, false, OptionState::Intact),
        (&sent[..7], false, OptionState::Unknown),
        (&[2, 4, 5, 0xb4, 1, 1, 1, 1, 1], true, OptionState::Cleared),
        (&[2, 4, 5, 0xb4, 1, 0, 0, 0, 0], true, OptionState::Removed),
        (&[2, 4, 5, 0xb4, 1], true, OptionState::Removed),
        (&[2, 4, 5, 0xb4, 1], false, OptionState::Unknown),
        (
            &[2, 4, 5, 0xb4, 1, 30, 4, 1, 0x81],
            true,
            OptionState::Changed,
        ),
        // Length 0, length 1, and a length behind the end.
        (&[8, 0, 30, 4, 1, 1], true, OptionState::Unknown),
        (&[8, 1, 30, 4, 1, 1], true, OptionState::Unknown),
        (&[8, 255, 30, 4, 1, 1], true, OptionState::Unknown),
    ];
    for (quoted, has_all, expected) in rows {
        assert_eq!(
            options::compare(&sent, quoted, has_all),
            expected,
            "{quoted:?}"
        );
    }
}

#[test]
fn an_extension_behind_the_quote_is_not_part_of_it() {
    // RFC 4884: the quote is padded to 128 bytes, and objects follow.
    let packet = Packet::new(V4, Carried::Capable, 3, secrets(1), None).unwrap();
    let mut reported = exceeded(V4, router(3, V4), &packet.bytes, 60);
    let missing = 128 - packet.bytes.len();
    reported.extend(vec![0; missing]);
    reported.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 30, 4, 9, 9]);
    let length = (reported.len() as u16).to_be_bytes();
    reported[2..4].copy_from_slice(&length);
    let Some(Heard::Report(it)) = parse(&reported) else {
        panic!("it is a report");
    };
    assert_eq!(it.quoted.bytes, packet.bytes.len() - 20);
    assert!(it.quoted.has_all && packet.is_quoted(V4, &it.quoted));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _refused = parse(&bytes);
    }

    /// Reports with a damaged or truncated quote: nothing panics, and a quote that still is ours has
    /// its option or says nothing, unless the damage hit the option.
    #[test]
    fn a_damaged_report_is_no_proof(
        is_v4 in any::<bool>(),
        cut in 0_usize..150,
        damage in prop::collection::vec((0_usize..150, any::<u8>()), 0..6),
    ) {
        let ends = if is_v4 { V4 } else { V6 };
        let packet = Packet::new(ends, Carried::Capable, 3, secrets(1), None).unwrap();
        let mut bytes = exceeded(ends, router(3, ends), &packet.bytes, 60);
        let options = bytes.len() - 20;
        let mut hit = false;
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
                // Of the outer headers up to the end of the quote.
                hit |= value != 0;
            }
        }
        bytes.truncate(cut);
        if let Some(Heard::Report(it)) = parse(&bytes)
            && packet.is_quoted(ends, &it.quoted)
        {
            let quoted = it.quoted.options.as_deref().unwrap_or_default();
            let state = options::compare(&packet.options, quoted, it.quoted.has_all);
            if !hit {
                let is_right = match state {
                    OptionState::Intact => cut >= options,
                    OptionState::Unknown => true,
                    OptionState::Cleared | OptionState::Removed | OptionState::Changed => false,
                };
                prop_assert!(is_right, "{state:?} at {cut}");
            }
        }
    }

    #[test]
    fn noise_of_any_kind_names_no_wrong_place(
        at in 1_u8..6,
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..4),
    ) {
        let (_, concluded) = surveyed(V4, On::Clears(at), &noise, 60);
        prop_assert_eq!(concluded.span, Some(Span { after: at - 1, before: Some(at) }));
    }
}
