//! Received bytes -> segments, echo replies, and what routers report. Every byte is untrusted.

use std::net::IpAddr;

use etherparse::{LaxIpSlice, ip_number};

use super::options;

/// A packet that may be an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A TCP segment.
    Segment(Segment),
    /// An echo reply.
    Echoed {
        /// Who sent it.
        source: IpAddr,
        /// Its time to live as it arrived.
        ttl: u8,
        /// Identifier and number.
        numbers: u32,
    },
    /// "Time exceeded" or "destination unreachable", with the packet that it is about.
    Report(Reported),
}

/// A TCP segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Who sent it.
    pub source: IpAddr,
    /// Its time to live as it arrived.
    pub ttl: u8,
    /// Source and destination port.
    pub ports: [u16; 2],
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags: FIN is the lowest bit, then SYN, RST, PSH, ACK.
    pub flags: u8,
    /// Its options.
    pub options: Vec<u8>,
}

/// A report of a router or a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    /// Who sent it.
    pub source: IpAddr,
    /// What it reports.
    pub what: What,
    /// The packet.
    pub quoted: Quoted,
}

/// What is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The time to live, or hop limit, was used up.
    TimeExceeded,
    /// The destination cannot be reached; the code says why.
    Unreachable(u8),
}

/// A quoted packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// To whom it was sent.
    pub destination: IpAddr,
    /// Protocol above IP.
    pub protocol: u8,
    /// Identification of the IPv4 packet, or flow label of the IPv6 packet.
    pub id: u32,
    /// Number of bytes behind the IP header.
    pub bytes: usize,
    /// The first two numbers of 16 bits: ports.
    pub ports: [u16; 2],
    /// The number of 32 bits behind them: of TCP the sequence number.
    pub sequence: Option<u32>,
    /// Of TCP, the options that the quote has; none if it ends before them.
    pub options: Option<Vec<u8>>,
    /// The quote has the whole TCP header.
    pub has_all: bool,
}

impl Quoted {
    /// The sender's value of the timestamps option.
    pub(super) fn timestamp(&self) -> Option<u32> {
        options::timestamps(self.options.as_deref()?).map(|it| it[0])
    }
}

impl Segment {
    pub(super) fn timestamps(&self) -> Option<[u32; 2]> {
        options::timestamps(&self.options)
    }
}

/// Length of a TCP header without options.
const TCP_BYTES_MIN: usize = 20;
/// Length of the header of ICMP and `ICMPv6`.
const ICMP_BYTES: usize = 8;

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn ports(bytes: &[u8]) -> Option<[u16; 2]> {
    let both = number(bytes, 0)?;
    Some([(both >> 16) as u16, both as u16])
}

/// The part of a TCP header behind its fixed part, and whether that is all of it.
fn tcp_options(tcp: &[u8]) -> Option<(&[u8], bool)> {
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    if header < TCP_BYTES_MIN {
        return None;
    }
    let options = tcp.get(TCP_BYTES_MIN..header.min(tcp.len()))?;
    Some((options, header <= tcp.len()))
}

/// Reads a packet from its IP header on; none if it cannot be an answer.
#[must_use]
pub fn parse(packet: &[u8]) -> Option<Heard> {
    let (ip, _cut_short) = LaxIpSlice::from_slice(packet).ok()?;
    if ip.is_fragmenting_payload() {
        return None;
    }
    let source = ip.source_addr();
    let payload = ip.payload().payload;
    let ttl = ttl(&ip);
    match ip.payload_ip_number() {
        ip_number::TCP => {
            let (options, has_all) = tcp_options(payload)?;
            Some(Heard::Segment(Segment {
                source,
                ttl,
                ports: ports(payload)?,
                sequence: number(payload, 4)?,
                acknowledgement: number(payload, 8)?,
                flags: *payload.get(13)?,
                options: has_all.then(|| options.to_vec())?,
            }))
        }
        ip_number::ICMP if source.is_ipv4() => icmp(source, ttl, payload, [0, 11, 3]),
        ip_number::IPV6_ICMP if source.is_ipv6() => icmp(source, ttl, payload, [129, 3, 1]),
        _ => None,
    }
}

fn ttl(ip: &LaxIpSlice<'_>) -> u8 {
    match ip {
        LaxIpSlice::Ipv4(ip) => ip.header().ttl(),
        LaxIpSlice::Ipv6(ip) => ip.header().hop_limit(),
    }
}

fn icmp(source: IpAddr, ttl: u8, message: &[u8], types: [u8; 3]) -> Option<Heard> {
    let [echo_reply, time_exceeded, unreachable] = types;
    let kind = *message.first()?;
    let code = *message.get(1)?;
    if kind == echo_reply {
        let numbers = number(message, 4)?;
        return Some(Heard::Echoed {
            source,
            ttl,
            numbers,
        });
    }
    let what = match kind {
        // Not the time for reassembly, code 1.
        kind if kind == time_exceeded && code == 0 => What::TimeExceeded,
        kind if kind == unreachable => What::Unreachable(code),
        _ => return None,
    };
    let quoted = quoted(message.get(ICMP_BYTES..)?)?;
    Some(Heard::Report(Reported {
        source,
        what,
        quoted,
    }))
}

fn quoted(packet: &[u8]) -> Option<Quoted> {
    // It may be cut off anywhere behind the IP header. An extension (RFC 4884) behind it is not part
    // of the packet.
    let (ip, _cut_short) = LaxIpSlice::from_slice(packet).ok()?;
    let id = match &ip {
        LaxIpSlice::Ipv4(ip) => u32::from(ip.header().identification()),
        LaxIpSlice::Ipv6(ip) => ip.header().flow_label().value(),
    };
    if ip.is_fragmenting_payload() {
        return None;
    }
    let payload = ip.payload().payload;
    let protocol = ip.payload_ip_number();
    let is_tcp = protocol == ip_number::TCP;
    let options = tcp_options(payload).filter(|_header| is_tcp);
    Some(Quoted {
        destination: ip.destination_addr(),
        protocol: protocol.0,
        id,
        bytes: payload.len(),
        ports: ports(payload)?,
        sequence: number(payload, 4),
        options: options.map(|(options, _)| options.to_vec()),
        has_all: options.is_some_and(|(_, has_all)| has_all),
    })
}
