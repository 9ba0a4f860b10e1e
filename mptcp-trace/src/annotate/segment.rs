//! Bytes of a packet -> the ends of its TCP connection.

use std::net::SocketAddr;

use etherparse::{Ipv6ExtensionSlice, LaxIpSlice, ip_number};

/// The facts about a TCP segment that identify its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    /// The sender's address, IPv4-mapped ones as IPv4.
    pub(super) source: SocketAddr,
    /// The receiver's.
    pub(super) destination: SocketAddr,
    /// Its part in the handshake.
    pub(super) kind: Kind,
}

/// The part of a segment in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A SYN, with its sequence number: it begins a connection.
    Syn(u32),
    /// A SYN/ACK.
    SynAck,
    /// None.
    Other,
}

/// Link types as numbered by <https://www.tcpdump.org/linktypes.html>.
mod link {
    pub(super) const NULL: u16 = 0;
    pub(super) const ETHERNET: u16 = 1;
    /// Raw IP as some writers number it.
    pub(super) const RAW_BSD: u16 = 12;
    pub(super) const RAW: u16 = 101;
    pub(super) const LOOP: u16 = 108;
    /// `tcpdump -i any`, older versions.
    pub(super) const LINUX_SLL: u16 = 113;
    pub(super) const IPV4: u16 = 228;
    pub(super) const IPV6: u16 = 229;
    /// `tcpdump -i any`.
    pub(super) const LINUX_SLL2: u16 = 276;
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Ether types of VLAN tags, which are followed by two bytes and the next ether type.
const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// The segment in a packet; `None` if it contains no TCP, or not enough of it.
pub(super) fn segment(link: u16, data: &[u8]) -> Option<Segment> {
    let (ip, _cut_short) = LaxIpSlice::from_slice(ip_packet(link, data)?).ok()?;
    if ip.payload_ip_number() != ip_number::TCP || is_later_fragment(&ip) {
        return None;
    }
    let tcp = ip.payload().payload;
    let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
    let end = |addr: std::net::IpAddr, port| SocketAddr::new(addr.to_canonical(), port);
    Some(Segment {
        source: end(ip.source_addr(), port(0)?),
        destination: end(ip.destination_addr(), port(2)?),
        kind: kind(tcp).unwrap_or(Kind::Other),
    })
}

fn kind(tcp: &[u8]) -> Option<Kind> {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
    match (tcp.get(13)? & SYN, tcp.get(13)? & ACK) {
        (SYN, ACK) => Some(Kind::SynAck),
        (SYN, _) => Some(Kind::Syn(sequence)),
        _ => None,
    }
}

/// Only the first fragment holds the TCP header.
fn is_later_fragment(ip: &LaxIpSlice<'_>) -> bool {
    match ip {
        LaxIpSlice::Ipv4(ip) => ip.header().fragments_offset().value() > 0,
        LaxIpSlice::Ipv6(ip) => ip.extensions().clone().into_iter().any(|extension| {
            matches!(extension, Ipv6ExtensionSlice::Fragment(it) if it.fragment_offset().value() > 0)
        }),
    }
}

/// The IP packet behind the link layer's header.
fn ip_packet(link: u16, data: &[u8]) -> Option<&[u8]> {
    let (ether_type_at, header) = match link {
        link::ETHERNET => (12, 14),
        link::LINUX_SLL => (14, 16),
        link::LINUX_SLL2 => (0, 20),
        // The four bytes are an address family in an unknown byte order; the IP header has its
        // version.
        link::NULL | link::LOOP => return data.get(4..),
        link::RAW | link::RAW_BSD | link::IPV4 | link::IPV6 => return Some(data),
        _other => return None,
    };
    let number = |at: usize| Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?));
    let mut ether_type = number(ether_type_at)?;
    let mut at = header;
    while VLAN.contains(&ether_type) {
        ether_type = number(at + 2)?;
        at += 4;
    }
    match ether_type {
        IPV4 | IPV6 => data.get(at..),
        _other => None,
    }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
