//! What the kernel accounts for an MPTCP connection and for each of its paths: the socket options of
//! `SOL_MPTCP`. `ss -ti` prints the same structure for a path.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::RawFd,
};

use crate::{net::Endpoint, sys};

const SOL_MPTCP: i32 = 284;
const MPTCP_INFO: i32 = 1;
const MPTCP_TCPINFO: i32 = 2;
const MPTCP_SUBFLOW_ADDRS: i32 = 3;

/// More paths than the path manager allows.
const PATHS_MAX: usize = 16;
/// Length of a `mptcp_subflow_data`: its own length, the number of paths, and the length of an
/// element as the kernel and as the caller know it.
const HEADER_BYTES: usize = 16;
/// Length of a `mptcp_subflow_addrs`: two `sockaddr_storage`.
const ADDRESSES_BYTES: usize = 256;
/// Room for a `tcp_info`, which grows from release to release.
const TCP_INFO_BYTES: usize = 256;
/// Room for a `mptcp_info`, which does too.
const INFO_BYTES: usize = 128;

/// A connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Its additional paths.
    pub joins: u8,
    /// Endpoints that it has tried.
    pub endpoints_used: u8,
    /// Payload that was sent on a second path because the first one failed to deliver it; none before
    /// Linux 6.5.
    pub bytes_resent: Option<u64>,
}

/// One path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Path {
    /// Payload sent, with retransmissions.
    pub bytes_sent: u64,
    /// Payload sent again.
    pub bytes_retransmitted: u64,
    /// Sequence numbers acknowledged: payload, and one each for SYN and FIN.
    pub bytes_acked: u64,
    /// Sequence numbers received in order: payload, and one for FIN.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmissions: u32,
    /// Segments sent.
    pub segments_sent: u32,
    /// Segments received.
    pub segments_received: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Minimal round-trip time, microseconds.
    pub rtt_min_us: u32,
}

/// Reads `MPTCP_INFO`.
///
/// # Errors
///
/// Fails with the kernel's error; after a fallback with `EOPNOTSUPP`.
pub fn connection(fd: RawFd) -> io::Result<Connection> {
    /// Members of a `mptcp_info`.
    const JOINS: usize = 0;
    const ENDPOINTS_USED: usize = 40;
    const BYTES_RESENT: usize = 48;
    let info = get(fd, MPTCP_INFO, vec![0; INFO_BYTES])?;
    Ok(Connection {
        joins: byte(&info, JOINS)?,
        endpoints_used: byte(&info, ENDPOINTS_USED)?,
        bytes_resent: u64_at(&info, BYTES_RESENT).ok(),
    })
}

/// Reads `MPTCP_SUBFLOW_ADDRS`: the own and the other address of each path.
///
/// # Errors
///
/// Fails with the kernel's error, or for an address of another family.
pub fn addresses(fd: RawFd) -> io::Result<Vec<(Endpoint, Endpoint)>> {
    let (of_one, all) = of_paths(fd, MPTCP_SUBFLOW_ADDRS, ADDRESSES_BYTES)?;
    let each = all.chunks_exact(of_one).map(|path| {
        let (local, remote) = path.split_at(of_one / 2);
        Ok((address(local)?.into(), address(remote)?.into()))
    });
    each.collect()
}

/// Reads `MPTCP_TCPINFO`: the `tcp_info` of each path, in the order of [`addresses`].
///
/// # Errors
///
/// Fails with the kernel's error.
pub fn paths(fd: RawFd) -> io::Result<Vec<Path>> {
    let (of_one, all) = of_paths(fd, MPTCP_TCPINFO, TCP_INFO_BYTES)?;
    all.chunks_exact(of_one).map(path).collect()
}

fn path(info: &[u8]) -> io::Result<Path> {
    /// Members of a `tcp_info`.
    const RTT: usize = 68;
    const RETRANSMISSIONS: usize = 100;
    const BYTES_ACKED: usize = 120;
    const BYTES_RECEIVED: usize = 128;
    const SEGMENTS_SENT: usize = 136;
    const SEGMENTS_RECEIVED: usize = 140;
    const RTT_MIN: usize = 148;
    const BYTES_SENT: usize = 200;
    const BYTES_RETRANSMITTED: usize = 208;
    Ok(Path {
        bytes_sent: u64_at(info, BYTES_SENT)?,
        bytes_retransmitted: u64_at(info, BYTES_RETRANSMITTED)?,
        bytes_acked: u64_at(info, BYTES_ACKED)?,
        bytes_received: u64_at(info, BYTES_RECEIVED)?,
        retransmissions: u32_at(info, RETRANSMISSIONS)?,
        segments_sent: u32_at(info, SEGMENTS_SENT)?,
        segments_received: u32_at(info, SEGMENTS_RECEIVED)?,
        rtt_us: u32_at(info, RTT)?,
        rtt_min_us: u32_at(info, RTT_MIN)?,
    })
}

/// The elements of all paths one after the other, and the length of one.
fn of_paths(fd: RawFd, option: i32, length: usize) -> io::Result<(usize, Vec<u8>)> {
    const HEADER_AND_ELEMENT: [usize; 2] = [0, 12];
    let mut buffer = vec![0; HEADER_BYTES + PATHS_MAX * length];
    for (at, value) in HEADER_AND_ELEMENT.into_iter().zip([HEADER_BYTES, length]) {
        let value = u32::try_from(value).map_err(io::Error::other)?;
        buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let got = get(fd, option, buffer)?;
    let number = u32_at(&got, 4)? as usize;
    // A kernel whose element is shorter puts its elements at shorter distances.
    let length = u32_at(&got, HEADER_AND_ELEMENT[1])? as usize;
    if length == 0 {
        return Err(short());
    }
    let elements = HEADER_BYTES..HEADER_BYTES + number.min(PATHS_MAX) * length;
    let elements = got.get(elements).ok_or_else(short)?;
    Ok((length, elements.to_vec()))
}

fn get(fd: RawFd, option: i32, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut length = u32::try_from(buffer.len()).map_err(io::Error::other)?;
    let pointers = [buffer.as_mut_ptr() as usize, &raw mut length as usize];
    let returned = sys::getsockopt(fd, SOL_MPTCP, option, pointers[0], pointers[1]);
    if returned.errno != 0 {
        return Err(io::Error::from_raw_os_error(returned.errno));
    }
    buffer.truncate(length as usize);
    Ok(buffer)
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is short")
}

fn byte(bytes: &[u8], at: usize) -> io::Result<u8> {
    bytes.get(at).copied().ok_or_else(short)
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map(|it| u32::from_ne_bytes(*it)).ok_or_else(short)
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map(|it| u64::from_ne_bytes(*it)).ok_or_else(short)
}

/// A `sockaddr_in` or `sockaddr_in6`.
fn address(storage: &[u8]) -> io::Result<SocketAddr> {
    let chunk = |from: usize| storage.get(from..).ok_or_else(short);
    let family = u16::from_ne_bytes(*chunk(0)?.first_chunk().ok_or_else(short)?);
    let port = u16::from_be_bytes(*chunk(2)?.first_chunk().ok_or_else(short)?);
    match i32::from(family) {
        libc::AF_INET => {
            let bytes: [u8; 4] = *chunk(4)?.first_chunk().ok_or_else(short)?;
            Ok(SocketAddr::from((Ipv4Addr::from(bytes), port)))
        }
        libc::AF_INET6 => {
            let bytes: [u8; 16] = *chunk(8)?.first_chunk().ok_or_else(short)?;
            Ok(SocketAddr::from((Ipv6Addr::from(bytes), port)))
        }
        other => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("an address of family {other}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::net::{self, Family, Kind};

    #[test]
    fn the_kernel_accounts_for_the_one_path_of_a_connection_over_loopback() {
        for family in Family::BOTH {
            let Ok(listener) = net::listen(Kind::Mptcp, family) else {
                eprintln!("this kernel has no MPTCP");
                return;
            };
            let (client, server) = net::pair(Kind::Mptcp, &listener, family).unwrap();
            net::say(&client, &server).unwrap();
            let fd = client.as_raw_fd();
            let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let ends = (net::endpoint(&ends.0), net::endpoint(&ends.1));
            let [(local, remote)] = &addresses(fd).unwrap()[..] else {
                panic!("not one path");
            };
            assert_eq!(
                (Some(local), Some(remote)),
                (ends.0.as_ref(), ends.1.as_ref())
            );
            let [path] = paths(fd).unwrap()[..] else {
                panic!("not one path");
            };
            let connection = connection(fd).unwrap();
            assert_eq!((connection.joins, connection.endpoints_used), (0, 0));
            assert_eq!((path.bytes_sent, path.bytes_retransmitted), (15, 0));
            assert!(path.rtt_min_us <= path.rtt_us && path.rtt_us > 0);
            let [other] = paths(server.as_raw_fd()).unwrap()[..] else {
                panic!("not one path");
            };
            assert_eq!((other.bytes_received, other.bytes_sent), (15, 0));
        }
    }

    #[test]
    fn a_short_answer_and_an_unknown_family_are_errors() {
        assert!(path(&[0; 215]).is_err());
        assert!(path(&[0; 216]).is_ok());
        assert!(address(&[0; 128]).is_err());
        assert!(address(&libc::AF_INET6.to_ne_bytes()).is_err());
    }
}
