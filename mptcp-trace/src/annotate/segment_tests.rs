use super::*;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP header from port 1000 to port 443.
fn tcp(flags: u8) -> Vec<u8> {
    let mut header = vec![0x03, 0xe8, 0x01, 0xbb, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, flags];
    header.resize(20, 0);
    header
}

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2.
fn ipv4(protocol: u8, fragment: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let total = u16::try_from(header + payload.len()).unwrap();
    let version = 0x40 | u8::try_from(header / 4).unwrap();
    let mut packet = vec![version, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.resize(header, 1);
    packet.extend(payload);
    packet
}

/// An IPv6 packet from `2001:db8::1` to `2001:db8::2`.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    for last in [1, 2] {
        packet.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(payload);
    packet
}

fn behind(header: &[u8], packet: &[u8]) -> Vec<u8> {
    [header, packet].concat()
}

#[test]
fn segments_are_found_behind_every_link_layer() {
    let (v4, v6) = (ipv4(6, 0, 0, &tcp(SYN)), ipv6(6, &tcp(SYN)));
    let ethernet = |types: &[u8]| [&[0; 12], types].concat();
    let sll2 = |of: [u8; 2]| [&of[..], &[0; 18]].concat();
    for (what, link, data) in [
        ("Ethernet", 1, behind(&ethernet(&[8, 0]), &v4)),
        ("Ethernet", 1, behind(&ethernet(&[0x86, 0xdd]), &v6)),
        ("VLAN", 1, behind(&ethernet(&[0x81, 0, 0, 5, 8, 0]), &v4)),
        (
            "two VLANs",
            1,
            behind(
                &ethernet(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd]),
                &v6,
            ),
        ),
        (
            "cooked",
            113,
            behind(&[&[0; 14][..], &[8, 0]].concat(), &v4),
        ),
        ("cooked 2", 276, behind(&sll2([0x86, 0xdd]), &v6)),
        ("raw", 101, v4.clone()),
        ("raw", 12, v6.clone()),
        ("IPv4", 228, v4.clone()),
        ("IPv6", 229, v6.clone()),
        ("loopback", 0, behind(&[2, 0, 0, 0], &v4)),
        ("loopback", 0, behind(&[0, 0, 0, 10], &v6)),
        ("OpenBSD loopback", 108, behind(&[0, 0, 0, 2], &v4)),
    ] {
        let found = segment(link, &data).unwrap_or_else(|| panic!("{what}"));
        assert_eq!((found.source.port(), found.destination.port()), (1000, 443));
        let source = match found.source.is_ipv4() {
            true => "10.0.0.1:1000",
            false => "[2001:db8::1]:1000",
        };
        assert_eq!(found.source.to_string(), source, "{what}");
        assert_eq!(found.kind, Kind::Syn(7), "{what}");
        // Whatever is missing at its end, it is the same packet or none.
        for length in 0..data.len() {
            let cut = segment(link, &data[..length]);
            assert!(cut.is_none_or(|cut| cut.source == found.source), "{what}");
        }
    }
}

#[test]
fn headers_between_ip_and_tcp_are_passed() {
    let is = |packet: &[u8], kind: Option<Kind>| {
        assert_eq!(segment(101, packet).map(|it| it.kind), kind, "{packet:?}");
    };
    is(&ipv4(6, 0, 8, &tcp(SYN | ACK)), Some(Kind::SynAck));
    // A fragment that is the first one, and one that is not.
    is(&ipv4(6, 0x2000, 0, &tcp(ACK)), Some(Kind::Other));
    is(&ipv4(6, 0x2001, 0, &tcp(ACK)), None);
    is(&ipv4(17, 0, 0, &tcp(SYN)), None);
    // Hop-by-hop options, then a fragment header.
    let options = [44, 0, 1, 4, 0, 0, 0, 0];
    let fragment = |offset: u8| [6, 0, 0, offset | 1, 0, 0, 0, 9];
    let packet = |offset| ipv6(0, &[&options[..], &fragment(offset), &tcp(SYN)].concat());
    is(&packet(0), Some(Kind::Syn(7)));
    is(&packet(8), None);
    is(&ipv6(17, &tcp(SYN)), None);
}

#[test]
fn what_is_cut_short_or_unknown_is_no_segment() {
    let packet = ipv4(6, 0, 0, &tcp(SYN));
    // The ports are enough, but then it is unknown whether it is a SYN.
    assert_eq!(segment(101, &packet[..24]).unwrap().kind, Kind::Other);
    assert_eq!(segment(101, &packet[..23]), None);
    assert_eq!(segment(147, &packet), None);
    assert_eq!(segment(1, &[0; 14]), None);
    assert_eq!(segment(1, &[0x81; 64]), None);
    assert_eq!(segment(101, &[]), None);
}

#[test]
fn mapped_addresses_are_those_of_ipv4() {
    let mut packet = ipv6(6, &tcp(ACK));
    for from in [8, 24] {
        packet[from..from + 16]
            .copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 9]);
    }
    assert_eq!(
        segment(101, &packet).unwrap().source.to_string(),
        "10.0.0.9:1000"
    );
}
