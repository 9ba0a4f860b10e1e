//! The packets that are sent.

use std::net::IpAddr;

use anyhow::Context as _;
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, Ipv4Header, Ipv6FlowLabel,
    Ipv6Header, TcpHeader, UdpHeader, ip_number,
};

use super::{
    evidence::Ends,
    parse::{Heard, Quoted, Segment},
};

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carried {
    /// A SYN without MPTCP.
    Plain,
    /// A SYN with `MP_CAPABLE`.
    Capable,
    /// A SYN with an option of the size of `MP_JOIN`.
    Join,
    /// A segment of an open connection with a byte that its peer has acknowledged already, and DSS.
    Dss,
    /// An echo request (ping).
    Echo,
    /// A UDP datagram.
    Udp,
}

/// Numbers that nobody but the path knows, by which an answer is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Secrets {
    /// Source port; of an echo request, its identifier.
    pub port: u16,
    /// Sequence number; of an echo request, the lower half.
    pub sequence: u32,
    /// Value of the timestamps option.
    pub timestamp: u32,
    /// Identification of the IPv4 packet, or flow label of the IPv6 packet.
    pub id: u32,
    /// Token and random number of `MP_JOIN`.
    pub join: [u8; 8],
}

/// A packet, and how its answer is recognised.
#[derive(Clone, Debug)]
pub struct Packet {
    /// What it carries.
    pub carried: Carried,
    /// Its time to live, or hop limit.
    pub ttl: u8,
    /// What recognises the answer.
    pub secrets: Secrets,
    /// Its TCP options; empty for other protocols.
    pub options: Vec<u8>,
    /// From the IP header on.
    pub bytes: Vec<u8>,
}

/// What a segment of an open connection needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Established {
    /// Port of this end.
    pub(super) port: u16,
    /// Number of the SYN of this end.
    pub(super) sequence: u32,
    /// The next number that the peer sends.
    pub(super) acknowledgement: u32,
    /// Value and echo of the timestamps option, if the connection has it.
    pub(super) timestamps: Option<[u32; 2]>,
}

/// Ports to which `traceroute` sends UDP.
const TRACEROUTE_PORT: u16 = 33_434;
const MSS: u16 = 1_440;

impl Packet {
    pub(super) fn new(
        ends: Ends,
        carried: Carried,
        ttl: u8,
        secrets: Secrets,
        established: Option<Established>,
    ) -> anyhow::Result<Self> {
        let (options, payload) = match carried {
            Carried::Plain | Carried::Capable | Carried::Join => {
                let options = syn_options(carried, secrets);
                let segment = syn(ends, secrets, &options)?;
                (options, segment)
            }
            Carried::Dss => {
                let of = established.context("there is no connection")?;
                let options = dss_options(of, secrets);
                let segment = data(ends, of, &options)?;
                (options, segment)
            }
            Carried::Echo => (Vec::new(), echo(ends, secrets)?),
            Carried::Udp => (Vec::new(), udp(ends, secrets, ttl)?),
        };
        let bytes = with_ip(ends, carried, ttl, secrets.id, &payload)?;
        Ok(Self {
            carried,
            ttl,
            secrets,
            options,
            bytes,
        })
    }

    /// Whether a quote is of this packet. Ports alone could be guessed; so a second number must
    /// agree, which a box on the path does not change together with the first.
    pub(super) fn is_quoted(&self, ends: Ends, quoted: &Quoted) -> bool {
        let is_ours = |of: Option<u32>, own: u32| of == Some(own);
        let is_same = quoted.destination == ends.destination && quoted.id == self.secrets.id;
        match self.carried {
            // Segments of a connection have the same ports and number.
            Carried::Dss => {
                quoted.protocol == ip_number::TCP.0
                    && quoted.ports == [self.secrets.port, ends.port]
                    && (is_ours(quoted.timestamp(), self.secrets.timestamp) || is_same)
            }
            Carried::Plain | Carried::Capable | Carried::Join => {
                quoted.protocol == ip_number::TCP.0
                    && quoted.ports == [self.secrets.port, ends.port]
                    && (is_ours(quoted.sequence, self.secrets.sequence)
                        || is_ours(quoted.timestamp(), self.secrets.timestamp)
                        || is_same)
            }
            Carried::Udp => {
                quoted.protocol == ip_number::UDP.0
                    && quoted.ports == [self.secrets.port, udp_port(self.ttl)]
                    && is_same
            }
            // Type and code; checksum; identifier and number.
            Carried::Echo => {
                [ip_number::ICMP.0, ip_number::IPV6_ICMP.0].contains(&quoted.protocol)
                    && is_ours(quoted.sequence, echo_numbers(self.secrets))
                    && quoted.destination == ends.destination
            }
        }
    }

    /// Whether a segment answers this one.
    pub(super) fn is_answered(&self, ends: Ends, segment: &Segment) -> bool {
        let is_syn = match self.carried {
            Carried::Plain | Carried::Capable | Carried::Join => true,
            Carried::Dss | Carried::Echo | Carried::Udp => false,
        };
        is_syn
            && segment.source == ends.destination
            && segment.ports == [ends.port, self.secrets.port]
            && (segment.acknowledgement == self.secrets.sequence.wrapping_add(1)
                || segment.timestamps().map(|it| it[1]) == Some(self.secrets.timestamp))
    }

    /// Whether this is the reply to an echo request, or what a host says about a datagram.
    pub(super) fn is_echoed(&self, ends: Ends, heard: &Heard) -> bool {
        match heard {
            Heard::Echoed {
                source, numbers, ..
            } => {
                self.carried == Carried::Echo
                    && *source == ends.destination
                    && *numbers == echo_numbers(self.secrets)
            }
            Heard::Segment(_) | Heard::Report(_) => false,
        }
    }
}

/// Identifier and number of an echo request.
fn echo_numbers(secrets: Secrets) -> u32 {
    u32::from(secrets.port) << 16 | secrets.sequence & 0xffff
}

fn udp_port(ttl: u8) -> u16 {
    TRACEROUTE_PORT + u16::from(ttl)
}

/// The options that Linux sends, in its order.
fn syn_options(carried: Carried, secrets: Secrets) -> Vec<u8> {
    let [high, low] = MSS.to_be_bytes();
    // MSS, SACK permitted, timestamps, NOP, window scale.
    let mut options = vec![2, 4, high, low, 4, 2, 8, 10];
    options.extend(secrets.timestamp.to_be_bytes());
    options.extend([0, 0, 0, 0, 1, 3, 3, 7]);
    match carried {
        // Version 1, HMAC-SHA256.
        Carried::Capable => options.extend([30, 4, 0x01, 0x01]),
        // Address id 1.
        Carried::Join => {
            options.extend([30, 12, 0x10, 0x01]);
            options.extend(secrets.join);
        }
        Carried::Plain | Carried::Dss | Carried::Echo | Carried::Udp => {}
    }
    options
}

/// Timestamps, and DSS with a data acknowledgement and a mapping of a byte.
fn dss_options(of: Established, secrets: Secrets) -> Vec<u8> {
    let mut options = Vec::new();
    if let Some([_, echo]) = of.timestamps {
        options.extend([1, 1, 8, 10]);
        options.extend(
            [secrets.timestamp, echo]
                .map(u32::to_be_bytes)
                .as_flattened(),
        );
    }
    // 4-byte acknowledgement and mapping: both numbers, the relative one, and the length.
    options.extend([30, 18, 0x20, 0x05]);
    options.extend([0; 12]);
    options.extend([0, 1, 1, 1]);
    options
}

fn header(port: u16, ends: Ends, sequence: u32, options: &[u8]) -> anyhow::Result<TcpHeader> {
    const WINDOW: u16 = 64_240;
    let mut tcp = TcpHeader::new(port, ends.port, sequence, WINDOW);
    tcp.set_options_raw(options)
        .map_err(|why| anyhow::anyhow!("the options of a segment: {why}"))?;
    Ok(tcp)
}

fn syn(ends: Ends, secrets: Secrets, options: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut tcp = header(secrets.port, ends, secrets.sequence, options)?;
    tcp.syn = true;
    summed(ends, tcp, &[])
}

/// A byte in the place of the SYN: the peer has acknowledged it, so it never reaches its application.
/// TCP sends the same to keep a connection alive (RFC 9293 section 3.8.4).
fn data(ends: Ends, of: Established, options: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut tcp = header(of.port, ends, of.sequence, options)?;
    tcp.ack = true;
    tcp.acknowledgment_number = of.acknowledgement;
    summed(ends, tcp, &[0])
}

fn summed(ends: Ends, mut tcp: TcpHeader, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let sum = match (ends.source, ends.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            tcp.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            tcp.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
        }
        _ => anyhow::bail!(
            "{} and {} are of two families",
            ends.source,
            ends.destination
        ),
    };
    tcp.checksum = sum.context("a segment is too long")?;
    Ok([&tcp.to_bytes(), payload].concat())
}

fn echo(ends: Ends, secrets: Secrets) -> anyhow::Result<Vec<u8>> {
    let [id, seq] = [
        (echo_numbers(secrets) >> 16) as u16,
        secrets.sequence as u16,
    ];
    let header = IcmpEchoHeader { id, seq };
    Ok(match (ends.source, ends.destination) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let kind = Icmpv6Type::EchoRequest(header);
            let icmp = Icmpv6Header::with_checksum(kind, from.octets(), to.octets(), &[]);
            icmp.context("an echo request is too long")?
                .to_bytes()
                .to_vec()
        }
        _ => Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(header), &[])
            .to_bytes()
            .to_vec(),
    })
}

fn udp(ends: Ends, secrets: Secrets, ttl: u8) -> anyhow::Result<Vec<u8>> {
    let (from, to) = (secrets.port, udp_port(ttl));
    let udp = match (ends.source, ends.destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => UdpHeader::with_ipv6_checksum(
            from,
            to,
            &Ipv6Header {
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            },
            &[],
        ),
        // IPv4 needs no checksum.
        _ => UdpHeader::without_ipv4_checksum(from, to, 0),
    };
    Ok(udp.context("a datagram is too long")?.to_bytes().to_vec())
}

fn with_ip(
    ends: Ends,
    carried: Carried,
    ttl: u8,
    id: u32,
    payload: &[u8],
) -> anyhow::Result<Vec<u8>> {
    let is_v4 = ends.destination.is_ipv4();
    let protocol = match carried {
        Carried::Plain | Carried::Capable | Carried::Join | Carried::Dss => ip_number::TCP,
        Carried::Echo if is_v4 => ip_number::ICMP,
        Carried::Echo => ip_number::IPV6_ICMP,
        Carried::Udp => ip_number::UDP,
    };
    Ok(match (ends.source, ends.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = payload.len() as u16;
            let mut ip = Ipv4Header::new(length, ttl, protocol, from.octets(), to.octets())
                .context("a packet is too long")?;
            ip.identification = id as u16;
            ip.dont_fragment = true;
            ip.header_checksum = ip.calc_header_checksum();
            [&ip.to_bytes(), payload].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = Ipv6Header {
                flow_label: Ipv6FlowLabel::try_new(id).context("a flow label is too large")?,
                payload_length: payload.len() as u16,
                next_header: protocol,
                hop_limit: ttl,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            [&ip.to_bytes(), payload].concat()
        }
        _ => anyhow::bail!(
            "{} and {} are of two families",
            ends.source,
            ends.destination
        ),
    })
}
