//! IP packets with TCP in them: what the middlebox reads and rewrites. Pure.

use std::ops::Range;

use crate::rules::Treatment;

/// `IPPROTO_TCP` in an IP header.
const TCP: u8 = 6;
/// TCP option of MPTCP.
const MPTCP: u8 = 30;
/// TCP options of one byte: the end of the list, and padding.
const END: u8 = 0;
const PADDING: u8 = 1;
/// A TCP header without options.
const HEADER_BYTES_MIN: usize = 20;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Subtypes of the MPTCP option (RFC 8684, section 8.3).
const MP_CAPABLE: u8 = 0;
const DSS: u8 = 2;
/// Flags of a DSS (section 3.3.1): a data ACK is there, and has 8 bytes.
const DSS_ACK: u8 = 0x01;
const DSS_ACK_8: u8 = 0x02;
/// A mapping is there, and its data sequence number has 8 bytes.
const DSS_MAPPING: u8 = 0x04;
const DSS_SEQUENCE_8: u8 = 0x08;
/// How far a wrong subflow sequence number lies beside the right one.
const SKEW: u32 = 0x1000;

/// What to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Deliver it.
    Pass,
    /// Lose it.
    Drop,
}

/// What a packet is to its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// A SYN or SYN/ACK.
    pub is_syn: bool,
    /// A SYN that is no answer to one: a connection begins.
    pub is_first: bool,
    /// It has payload, and is no SYN.
    pub is_data: bool,
}

/// An IP address, IPv4 in the first four bytes, and a port.
pub type Place = ([u8; 16], u16);

/// From where a TCP packet comes and where it goes; none if it is no TCP.
#[must_use]
pub fn places(packet: &[u8]) -> Option<(Place, Place)> {
    let offset = tcp_offset(packet)?;
    let (from, to) = if packet[0] >> 4 == 4 {
        (&packet[12..16], &packet[16..20])
    } else {
        (&packet[8..24], &packet[24..40])
    };
    let place = |address: &[u8], port: usize| {
        let mut bytes = [0; 16];
        bytes[..address.len()].copy_from_slice(address);
        (bytes, be16(packet, port))
    };
    Some((place(from, offset), place(to, offset + 2)))
}

/// What it is to its connection; none if it is no TCP.
#[must_use]
pub fn kind(packet: &[u8]) -> Option<Kind> {
    let offset = tcp_offset(packet)?;
    let flags = packet[offset + 13];
    let is_syn = flags & SYN != 0;
    Some(Kind {
        is_syn,
        is_first: flags & (SYN | ACK) == SYN,
        is_data: !is_syn && packet.len() > payload_offset(packet, offset),
    })
}

/// Treats one packet: `data_packets` of its connection have come this way, this one included.
pub fn treat(packet: &mut [u8], treatment: Treatment, data_packets: u32) -> Verdict {
    let Some(kind) = kind(packet) else {
        return Verdict::Pass;
    };
    if kind.is_syn {
        if treatment.drop_capable_syn && is_capable(packet) {
            return Verdict::Drop;
        }
        if treatment.strip_syn {
            strip_mptcp(packet);
        }
        return Verdict::Pass;
    }
    let has_come = |from: Option<u32>| from.is_some_and(|number| data_packets >= number);
    if kind.is_data && treatment.flip_payload_at == Some(data_packets) {
        flip_payload(packet);
    }
    if has_come(treatment.shorten_dss_from) {
        shorten_mapping(packet);
    }
    if has_come(treatment.skew_subflow_seq_from) {
        skew_subflow_sequence(packet);
    }
    if has_come(treatment.strip_from) {
        strip_mptcp(packet);
    }
    Verdict::Pass
}

/// Replaces each MPTCP option by padding of the same length; true if there was one.
pub fn strip_mptcp(packet: &mut [u8]) -> bool {
    let options = mptcp_options(packet);
    for option in &options {
        packet[option.clone()].fill(PADDING);
    }
    finish(packet, !options.is_empty())
}

/// Makes the data-level length of each mapping one smaller; true if there was one to be made smaller.
pub fn shorten_mapping(packet: &mut [u8]) -> bool {
    let mut changed = false;
    for mapping in mappings(packet) {
        let length = be16(packet, mapping.length);
        // 0 is the infinite mapping, and a length of 1 would become one.
        if length > 1 {
            packet[mapping.length..][..2].copy_from_slice(&(length - 1).to_be_bytes());
            changed = true;
        }
    }
    finish(packet, changed)
}

/// Makes the subflow sequence number of each mapping wrong; true if there was one.
pub fn skew_subflow_sequence(packet: &mut [u8]) -> bool {
    let mappings = mappings(packet);
    for mapping in &mappings {
        let at = mapping.subflow_sequence;
        let right = u32::from(be16(packet, at)) << 16 | u32::from(be16(packet, at + 2));
        packet[at..at + 4].copy_from_slice(&right.wrapping_add(SKEW).to_be_bytes());
    }
    finish(packet, !mappings.is_empty())
}

/// Flips the first byte of the payload; true if there is one.
pub fn flip_payload(packet: &mut [u8]) -> bool {
    let first = tcp_offset(packet).map(|offset| payload_offset(packet, offset));
    let Some(byte) = first.and_then(|first| packet.get_mut(first)) else {
        return false;
    };
    *byte ^= 0xff;
    finish(packet, true)
}

/// Whether it carries `MP_CAPABLE`.
fn is_capable(packet: &[u8]) -> bool {
    mptcp_options(packet)
        .iter()
        .any(|option| option.len() > 2 && packet[option.start + 2] >> 4 == MP_CAPABLE)
}

/// Where the parts of a mapping stand in the packet.
#[derive(PartialEq, Eq, Debug)]
struct Mapping {
    subflow_sequence: usize,
    length: usize,
}

/// The mappings of its DSS options: data ACK, data sequence number, subflow sequence number, length, checksum,
/// of which the first and the last may be missing.
fn mappings(packet: &[u8]) -> Vec<Mapping> {
    let mut mappings = Vec::new();
    for option in mptcp_options(packet) {
        if option.len() < 4 || packet[option.start + 2] >> 4 != DSS {
            continue;
        }
        let flags = packet[option.start + 3];
        if flags & DSS_MAPPING == 0 {
            continue;
        }
        let width = |is_there: u8, is_wide: u8| match (flags & is_there, flags & is_wide) {
            (0, _) => 0,
            (_, 0) => 4,
            _ => 8,
        };
        let sequence = option.start + 4 + width(DSS_ACK, DSS_ACK_8);
        let subflow_sequence = sequence + width(DSS_MAPPING, DSS_SEQUENCE_8);
        let length = subflow_sequence + 4;
        if length + 2 <= option.end {
            mappings.push(Mapping {
                subflow_sequence,
                length,
            });
        }
    }
    mappings
}

/// Where the MPTCP options stand in the packet, each with its kind and length.
fn mptcp_options(packet: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let Some(offset) = tcp_offset(packet) else {
        return found;
    };
    let end = payload_offset(packet, offset);
    if end > packet.len() {
        return found;
    }
    let mut at = offset + HEADER_BYTES_MIN;
    while at < end {
        let length = match packet[at..end] {
            [] | [END, ..] => break,
            [PADDING, ..] => 1,
            // A length that cannot be: the receiver stops here, and so do we.
            [_kind, length, ..] if length >= 2 && usize::from(length) <= end - at => {
                usize::from(length)
            }
            _ => break,
        };
        if packet[at] == MPTCP {
            found.push(at..at + length);
        }
        at += length;
    }
    found
}

/// Where the payload begins, by what the TCP header says of its own length.
fn payload_offset(packet: &[u8], offset: usize) -> usize {
    offset + usize::from(packet[offset + 12] >> 4) * 4
}

fn be16(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Writes the checksum where something has changed.
fn finish(packet: &mut [u8], changed: bool) -> bool {
    if let Some(offset) = tcp_offset(packet).filter(|_| changed) {
        write_checksum(packet, offset);
    }
    changed
}

/// Where TCP begins in an IPv4 or IPv6 packet; at least a whole TCP header stands there.
fn tcp_offset(packet: &[u8]) -> Option<usize> {
    let (protocol, offset) = match packet.first()? >> 4 {
        4 => (*packet.get(9)?, usize::from(packet[0] & 0x0f) * 4),
        // The kernel puts no extension header before its TCP.
        6 => (*packet.get(6)?, 40),
        _ => return None,
    };
    (protocol == TCP && packet.len() >= offset + HEADER_BYTES_MIN).then_some(offset)
}

fn write_checksum(packet: &mut [u8], offset: usize) {
    packet[offset + 16..offset + 18].fill(0);
    let sum = !sum(packet, offset);
    packet[offset + 16..offset + 18].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071), not yet inverted, over pseudo header and TCP.
fn sum(packet: &[u8], offset: usize) -> u16 {
    let addresses = if packet[0] >> 4 == 4 {
        &packet[12..20]
    } else {
        &packet[8..40]
    };
    let tcp = &packet[offset..];
    let mut sum = tcp.len() as u64 + u64::from(TCP);
    // Addresses have an even length, so that a byte left over can only be TCP's last.
    for pair in addresses.chunks(2).chain(tcp.chunks(2)) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: [u8; 4] = [2, 4, 5, 180];
    const CAPABLE: [u8; 12] = [30, 12, 0x01, 0x01, 1, 2, 3, 4, 5, 6, 7, 8];

    /// A packet as the kernel would send it, checksum included.
    fn packet(version: u8, flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
        let mut packet = if version == 4 {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0];
            header.extend([10, 77, 0, 1, 10, 77, 0, 2]);
            header
        } else {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, TCP, 64];
            header.extend((0..32_u8).map(|byte| byte * 7));
            header
        };
        let offset = packet.len();
        packet.extend([0x9c, 0x40, 0x1f, 0x90, 0, 0, 3, 232, 0, 0, 0, 0]);
        packet.extend([(((20 + options.len()) / 4) as u8) << 4, flags]);
        packet.extend([0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(options);
        packet.extend(data);
        write_checksum(&mut packet, offset);
        packet
    }

    #[test]
    fn mptcp_becomes_padding_and_the_checksum_holds() {
        for version in [4, 6] {
            for data in [&b""[..], b"even", b"odd"] {
                let options = [&MSS[..], &CAPABLE].concat();
                let mut stripped = packet(version, SYN, &options, data);
                assert!(strip_mptcp(&mut stripped));
                let expected = [&MSS[..], &[PADDING; 12]].concat();
                assert_eq!(stripped, packet(version, SYN, &expected, data));
                let offset = tcp_offset(&stripped).unwrap();
                assert_eq!(sum(&stripped, offset), 0xffff);
            }
        }
    }

    #[test]
    fn what_has_no_mptcp_or_no_sense_stays_as_it_is() {
        let rows: [&[u8]; 6] = [
            &[],
            &MSS,
            // A length of 0, and one beyond the header.
            &[30, 0, 0, 0],
            &[30, 40, 0, 0],
            // Behind the end of the list nothing is an option.
            &[0, 30, 3, 0],
            // Inside of another option.
            &[254, 4, 30, 4],
        ];
        for options in rows {
            for version in [4, 6] {
                let before = packet(version, 0x10, options, b"data");
                let mut after = before.clone();
                assert!(!strip_mptcp(&mut after), "{options:?}");
                assert_eq!(before, after);
            }
        }
        for junk in [&b""[..], b"E", &[0x45; 30], &[0x60; 40], &[0xff; 80]] {
            let mut after = junk.to_vec();
            assert!(!strip_mptcp(&mut after));
            assert_eq!(after, junk);
        }
    }

    #[test]
    fn a_packet_is_told_from_the_rest_and_from_what_is_no_tcp() {
        let rows = [
            (SYN, &b""[..], (true, true, false)),
            // Data in a SYN is not counted.
            (SYN, b"data", (true, true, false)),
            (SYN | ACK, b"", (true, false, false)),
            (ACK, b"", (false, false, false)),
            (ACK | 0x08, b"d", (false, false, true)),
        ];
        for (flags, data, (is_syn, is_first, is_data)) in rows {
            for version in [4, 6] {
                let expected = Kind {
                    is_syn,
                    is_first,
                    is_data,
                };
                let options = [&CAPABLE[..], &MSS].concat();
                assert_eq!(
                    kind(&packet(version, flags, &options, data)),
                    Some(expected)
                );
            }
        }
        let mut udp = packet(4, SYN, &[], b"");
        udp[9] = 17;
        assert_eq!(kind(&udp), None);
        assert_eq!(kind(&[]), None);
        assert_eq!(places(&udp), None);
    }

    #[test]
    fn a_packet_tells_where_it_comes_from_and_where_it_goes() {
        let mut from = [0; 16];
        from[..4].copy_from_slice(&[10, 77, 0, 1]);
        let mut to = [0; 16];
        to[..4].copy_from_slice(&[10, 77, 0, 2]);
        let v4 = packet(4, ACK, &[], b"");
        assert_eq!(places(&v4), Some(((from, 40_000), (to, 8_080))));
        let v6 = places(&packet(6, ACK, &[], b"")).unwrap();
        assert_eq!((v6.0.0[1], v6.1.0[15]), (7, 31 * 7));
    }

    /// A DSS with these flags, with or without a checksum, padded to whole words; the mapping, if there is one,
    /// begins at 0x01020304 of the subflow and has this length.
    fn dss(flags: u8, length: u16, has_checksum: bool) -> Vec<u8> {
        let mut option = vec![MPTCP, 0, DSS << 4, flags];
        if flags & DSS_ACK != 0 {
            option.extend(vec![0xaa; if flags & DSS_ACK_8 != 0 { 8 } else { 4 }]);
        }
        if flags & DSS_MAPPING != 0 {
            option.extend(vec![0xbb; if flags & DSS_SEQUENCE_8 != 0 { 8 } else { 4 }]);
            option.extend([1, 2, 3, 4]);
            option.extend(length.to_be_bytes());
            if has_checksum {
                option.extend([0xcc, 0xdd]);
            }
        }
        option[1] = option.len() as u8;
        option.resize(option.len().next_multiple_of(4), PADDING);
        option
    }

    #[test]
    fn a_mapping_is_found_whatever_stands_before_and_behind_it() {
        for flags in 0..0x20 {
            for has_checksum in [false, true] {
                for version in [4, 6] {
                    let of = |length| [&MSS[..], &dss(flags, length, has_checksum)].concat();
                    let mut shortened = packet(version, ACK, &of(1_000), b"data");
                    let has_mapping = flags & DSS_MAPPING != 0;
                    let found = shorten_mapping(&mut shortened);
                    assert_eq!(found, has_mapping, "{flags:#x} {has_checksum}");
                    let expected = if has_mapping { 999 } else { 1_000 };
                    assert_eq!(shortened, packet(version, ACK, &of(expected), b"data"));
                    let before = packet(version, ACK, &of(9), b"data");
                    let mut skewed = before.clone();
                    assert_eq!(skew_subflow_sequence(&mut skewed), has_mapping);
                    for mapping in mappings(&before) {
                        let at = mapping.subflow_sequence;
                        assert_eq!(before[at..at + 4], [1, 2, 3, 4]);
                        assert_eq!(skewed[at..at + 4], [1, 2, 0x13, 4]);
                    }
                    let offset = tcp_offset(&skewed).unwrap();
                    assert_eq!(sum(&skewed, offset), 0xffff);
                }
            }
        }
    }

    #[test]
    fn no_length_becomes_an_infinite_mapping_or_is_one() {
        for length in [0, 1] {
            let before = packet(4, ACK, &dss(DSS_MAPPING, length, false), b"d");
            let mut after = before.clone();
            assert!(!shorten_mapping(&mut after));
            assert_eq!(before, after);
        }
    }

    #[test]
    fn a_dss_that_is_cut_off_has_no_mapping() {
        let whole = dss(DSS_MAPPING | DSS_ACK, 9, false);
        for length in 2..whole[1] {
            let mut cut = whole[..usize::from(length)].to_vec();
            cut[1] = length;
            cut.resize(cut.len().next_multiple_of(4), PADDING);
            assert_eq!(mappings(&packet(4, ACK, &cut, b"d")), [], "{length}");
        }
    }

    #[test]
    fn the_payload_is_changed_in_one_byte_and_the_checksum_holds() {
        for version in [4, 6] {
            let mut flipped = packet(version, ACK, &MSS, b"data");
            assert!(flip_payload(&mut flipped));
            assert_eq!(
                flipped,
                packet(version, ACK, &MSS, &[b'd' ^ 0xff, b'a', b't', b'a'])
            );
            assert!(!flip_payload(&mut packet(version, ACK, &MSS, b"")));
        }
    }

    #[test]
    fn only_a_syn_with_mp_capable_is_dropped() {
        let drop = Treatment {
            drop_capable_syn: true,
            ..Treatment::NONE
        };
        let join = [30, 12, 0x10, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let rows = [
            (SYN, &CAPABLE[..], Verdict::Drop),
            (SYN, &join, Verdict::Pass),
            (SYN, &MSS, Verdict::Pass),
            (ACK, &CAPABLE, Verdict::Pass),
        ];
        for (flags, options, verdict) in rows {
            let before = packet(4, flags, options, b"");
            let mut after = before.clone();
            assert_eq!(treat(&mut after, drop, 0), verdict);
            assert_eq!(before, after);
        }
    }

    #[test]
    fn a_treatment_begins_with_its_packet_and_a_flip_ends_with_it() {
        let options = dss(DSS_MAPPING, 9, false);
        let changes = |treatment: Treatment, data: &[u8]| -> Vec<u32> {
            let before = packet(4, ACK, &options, data);
            (0..6)
                .filter(|&number| {
                    let mut after = before.clone();
                    assert_eq!(treat(&mut after, treatment, number), Verdict::Pass);
                    before != after
                })
                .collect()
        };
        let none = Treatment::NONE;
        let strip_from = Some(4);
        let strip = Treatment { strip_from, ..none };
        assert_eq!(changes(strip, b"data"), [4, 5]);
        // Pure ACKs behind the packet too.
        assert_eq!(changes(strip, b""), [4, 5]);
        let at_once = Treatment {
            strip_from: Some(0),
            ..none
        };
        assert_eq!(changes(at_once, b""), [0, 1, 2, 3, 4, 5]);
        let flip_payload_at = Some(4);
        let flip = Treatment {
            flip_payload_at,
            ..none
        };
        assert_eq!(changes(flip, b"data"), [4]);
        assert_eq!(changes(flip, b""), [0_u32; 0]);
        let shorten = Treatment {
            shorten_dss_from: Some(4),
            ..none
        };
        assert_eq!(changes(shorten, b"data"), [4, 5]);
        let skew = Treatment {
            skew_subflow_seq_from: Some(4),
            ..none
        };
        assert_eq!(changes(skew, b"data"), [4, 5]);
        assert_eq!(changes(none, b"data"), [0_u32; 0]);
    }
}
