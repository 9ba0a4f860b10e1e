//! The headers of the packet that decided.

use std::{net::SocketAddr, time::Duration};

use mptcp_trace_common::record::{PacketFlags, PacketRecord};

use super::{DecodeError, Observation};
use crate::model::{Negotiated, Packet, PacketKey, SocketId, TcpFlags, TcpOption};

/// Length of a TCP header without options.
const TCP_HEADER: usize = 20;

/// A packet. Headers that the kernel accepted, and that are none, show that they were read at the
/// wrong place.
pub(super) fn packet(record: &PacketRecord) -> Result<Observation, DecodeError> {
    let ip = header(&record.ip, record.ip_len, "length of an IP header")?;
    let tcp = header(&record.tcp, record.tcp_len, "length of a TCP header")?;
    let wrong = |of: &[u8]| {
        let first = of.first().copied().unwrap_or(0);
        DecodeError::Field("IP header", first.into())
    };
    if tcp.len() < TCP_HEADER {
        return Err(DecodeError::Field(
            "length of a TCP header",
            tcp.len() as u64,
        ));
    }
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let bytes = |from: usize, to: usize| ip.get(from..to).ok_or_else(|| wrong(ip));
    let (source, destination, ttl) = match ip.first().map(|first| first >> 4) {
        Some(4) => {
            let address = |at| -> Result<std::net::IpAddr, DecodeError> {
                let bytes: [u8; 4] = bytes(at, at + 4)?.try_into().map_err(|_length| wrong(ip))?;
                Ok(bytes.into())
            };
            (address(12)?, address(16)?, bytes(8, 9)?[0])
        }
        Some(6) => {
            let address = |at| -> Result<std::net::IpAddr, DecodeError> {
                let bytes: [u8; 16] = bytes(at, at + 16)?
                    .try_into()
                    .map_err(|_length| wrong(ip))?;
                Ok(bytes.into())
            };
            (address(8)?, address(24)?, bytes(7, 8)?[0])
        }
        _ => return Err(wrong(ip)),
    };
    let has = |flag| record.flags.contains(flag);
    let first_path = has(PacketFlags::FIRST_PATH).then(|| Negotiated {
        mss: Some(record.first_mss),
        window_scale: has(PacketFlags::FIRST_WINDOW_SCALE).then_some(record.first_window_scale),
        timestamps: has(PacketFlags::FIRST_TIMESTAMPS),
    });
    // A record of the ring has them.
    let mut tcp = tcp.to_vec();
    TcpOption::zero_keys(&mut tcp[TCP_HEADER..]);
    let packet = Packet {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
        ttl,
        flags: TcpFlags(tcp[13]),
        window: u16::from_be_bytes([tcp[14], tcp[15]]),
        options: TcpOption::parse(&tcp[TCP_HEADER..]),
        ttl_before: has(PacketFlags::TTL_BEFORE).then_some(record.ttl_before),
        first_path,
        peer_token: has(PacketFlags::PEER_TOKEN).then_some(record.peer_token),
        conclusions: Vec::new(),
        ip: ip.to_vec(),
        tcp,
    };
    let key = PacketKey {
        at: Duration::from_nanos(record.boottime_ns),
        socket: SocketId(record.socket),
    };
    Ok(Observation::Packet(key, Box::new(packet)))
}

/// The bytes of a header that were read.
fn header<'h>(bytes: &'h [u8], length: u8, name: &'static str) -> Result<&'h [u8], DecodeError> {
    bytes
        .get(..usize::from(length))
        .ok_or(DecodeError::Field(name, length.into()))
}
