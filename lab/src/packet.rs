//! IP packets with TCP in them: what the middlebox reads and rewrites. Pure.

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

/// Whether it is a SYN or SYN/ACK; none if it is no TCP.
#[must_use]
pub fn is_syn(packet: &[u8]) -> Option<bool> {
    let tcp = packet.get(tcp_offset(packet)?..)?;
    Some(tcp[13] & SYN != 0)
}

/// Replaces each MPTCP option by padding of the same length; true if there was one.
pub fn strip_mptcp(packet: &mut [u8]) -> bool {
    let Some(offset) = tcp_offset(packet) else {
        return false;
    };
    let tcp = &mut packet[offset..];
    let end = usize::from(tcp[12] >> 4) * 4;
    let Some(mut options) = tcp.get_mut(HEADER_BYTES_MIN..end) else {
        return false;
    };
    let mut stripped = false;
    loop {
        let length = match *options {
            [] | [END, ..] => break,
            [PADDING, ..] => 1,
            // A length that cannot be: the receiver stops here, and so do we.
            [_kind, length, ..] if length >= 2 && usize::from(length) <= options.len() => {
                usize::from(length)
            }
            _ => break,
        };
        let (option, rest) = options.split_at_mut(length);
        if option[0] == MPTCP {
            option.fill(PADDING);
            stripped = true;
        }
        options = rest;
    }
    if stripped {
        write_checksum(packet, offset);
    }
    stripped
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
    fn a_syn_is_told_from_the_rest_and_from_what_is_no_tcp() {
        for (flags, syn) in [
            (SYN, true),
            (SYN | 0x10, true),
            (0x10, false),
            (0x18, false),
        ] {
            for version in [4, 6] {
                assert_eq!(is_syn(&packet(version, flags, &[], b"")), Some(syn));
            }
        }
        let mut udp = packet(4, SYN, &[], b"");
        udp[9] = 17;
        assert_eq!(is_syn(&udp), None);
        assert_eq!(is_syn(&[]), None);
    }
}
