//! A peer that speaks MPTCP for exactly as long as the handshake takes.
//!
//! It lives behind a TUN device, in a few packets made by hand: it opens a connection with `MP_CAPABLE`
//! (RFC 8684 section 3.1), then sends data without any MPTCP option, as a middlebox that strips options would
//! make it look. The kernel's socket, accepted as MPTCP, has to fall back (section 3.7).

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, poll};
use socket2::Socket;

use crate::{
    net::{Family, Kind, open},
    sys,
};

const DEVICE: &str = "lab0";
const KERNEL: [u8; 4] = [10, 77, 0, 1];
const PEER: [u8; 4] = [10, 77, 0, 2];
const PEER_PORT: u16 = 40_000;
const PEER_KEY: u64 = 0x1122_3344_5566_7788;
const FIRST_SEQUENCE: u32 = 1_000;

const FIN_SYN_RST: u8 = 0x07;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Longest that the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection between the kernel and the peer.
pub struct Peer {
    tun: File,
    listener_port: u16,
    /// Next sequence number that the kernel will send.
    kernel_sequence: u32,
    /// The kernel's socket, accepted as MPTCP.
    pub accepted: Socket,
}

impl Peer {
    /// Makes the device in this network namespace, and connects to an MPTCP listener of the kernel.
    ///
    /// # Errors
    ///
    /// Fails if there is no TUN driver, or the kernel does not answer as MPTCP.
    pub fn connect() -> anyhow::Result<Self> {
        let mut tun = sys::open_tun(DEVICE).context("cannot make a TUN device (CONFIG_TUN)")?;
        sys::set_address(DEVICE, KERNEL).context("cannot give the TUN device an address")?;
        sys::bring_up(DEVICE).context("cannot bring the TUN device up")?;
        let listener = open(Kind::Mptcp, Family::V4).context("cannot open an MPTCP socket")?;
        let address = SocketAddr::from((Ipv4Addr::from(KERNEL), 0));
        listener
            .bind(&address.into())
            .context("cannot bind to the TUN device")?;
        listener.listen(4).context("cannot listen")?;
        let port = crate::net::local(&listener)
            .context("the listener has no address")?
            .port();

        let mss = [2, 4, 0x05, 0xb4];
        // Version 1, HMAC-SHA256; the kernel's answer carries its key.
        let syn = [&mss[..], &[30, 4, 0x01, 0x01]].concat();
        send(&mut tun, port, SYN, FIRST_SEQUENCE, 0, &syn, &[])?;
        let (sequence, key) = receive_syn_ack(&mut tun)?;
        let third = [&[30, 20, 0x01, 0x01][..], &PEER_KEY.to_be_bytes(), &key].concat();
        let kernel_sequence = sequence.wrapping_add(1);
        send(
            &mut tun,
            port,
            ACK,
            FIRST_SEQUENCE + 1,
            kernel_sequence,
            &third,
            &[],
        )?;
        wait_readable(&listener).context("the kernel did not accept the third ACK")?;
        let (accepted, _address) = listener.accept().context("cannot accept the peer")?;
        Ok(Self {
            tun,
            listener_port: port,
            kernel_sequence,
            accepted,
        })
    }

    /// Sends data without a mapping, and waits until the kernel has handed it to the application: by then
    /// it has fallen back.
    ///
    /// # Errors
    ///
    /// Fails if the data does not arrive.
    pub fn send_plain_data(&mut self) -> anyhow::Result<()> {
        let data = b"no option 30 here";
        let flags = PSH | ACK;
        let sequence = FIRST_SEQUENCE + 1;
        send(
            &mut self.tun,
            self.listener_port,
            flags,
            sequence,
            self.kernel_sequence,
            &[],
            data,
        )?;
        wait_readable(&self.accepted).context("the data did not arrive")?;
        let mut buffer = [0; 64];
        let read = (&self.accepted)
            .read(&mut buffer)
            .context("cannot read the data")?;
        if &buffer[..read] != data {
            bail!("{read} other bytes arrived");
        }
        Ok(())
    }
}

fn wait_readable(socket: &impl std::os::fd::AsFd) -> anyhow::Result<()> {
    let timeout = rustix::event::Timespec::try_from(PATIENCE)?;
    let ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout))?;
    anyhow::ensure!(ready == 1, "nothing within {} s", PATIENCE.as_secs());
    Ok(())
}

/// The kernel's SYN/ACK: its sequence number and its key.
fn receive_syn_ack(tun: &mut File) -> anyhow::Result<(u32, [u8; 8])> {
    let start = Instant::now();
    let mut packet = [0; 2048];
    while start.elapsed() < PATIENCE {
        wait_readable(&tun.as_fd()).context("the kernel does not answer the SYN")?;
        let length = tun
            .read(&mut packet)
            .context("cannot read from the TUN device")?;
        let packet = &packet[..length];
        // IPv6 chatter of a fresh interface comes here too.
        let Some(tcp) = tcp_of(packet) else { continue };
        if tcp[13] & FIN_SYN_RST != SYN {
            bail!("the kernel answers the SYN with flags {:#x}", tcp[13]);
        }
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let key = server_key(tcp).context("the kernel does not answer as MPTCP")?;
        return Ok((sequence, key));
    }
    bail!("the kernel does not answer the SYN")
}

/// The TCP part of an IPv4 packet from the kernel to the peer.
fn tcp_of(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let is_ours = packet[0] >> 4 == 4 && packet.get(9) == Some(&6);
    let tcp = packet.get(header..)?;
    (is_ours && tcp.len() >= 20).then_some(tcp)
}

/// The key in the `MP_CAPABLE` option of a SYN/ACK.
fn server_key(tcp: &[u8]) -> Option<[u8; 8]> {
    let end = usize::from(tcp[12] >> 4) * 4;
    let mut options = tcp.get(20..end)?;
    loop {
        match *options.first()? {
            0 => return None,
            1 => options = &options[1..],
            kind => {
                let length = usize::from(*options.get(1)?);
                let option = options.get(..length).filter(|option| option.len() >= 2)?;
                if kind == 30 && length == 12 && option[2] >> 4 == 0 {
                    return option[4..12].try_into().ok();
                }
                options = &options[length..];
            }
        }
    }
}

/// Sends one segment from the peer to the kernel.
fn send(
    tun: &mut File,
    port: u16,
    flags: u8,
    sequence: u32,
    acknowledged: u32,
    options: &[u8],
    data: &[u8],
) -> io::Result<()> {
    let mut tcp = Vec::new();
    tcp.extend(PEER_PORT.to_be_bytes());
    tcp.extend(port.to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledged.to_be_bytes());
    let words = (20 + options.len()) / 4;
    tcp.push((words as u8) << 4);
    tcp.push(flags);
    tcp.extend(u16::MAX.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(options);
    tcp.extend(data);
    let length = tcp.len() as u16;
    let pseudo = [&PEER[..], &KERNEL, &[0, 6], &length.to_be_bytes()].concat();
    let sum = checksum(&[&pseudo, &tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());

    let mut ip = vec![0x45, 0];
    ip.extend((20 + length).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    ip.extend(PEER);
    ip.extend(KERNEL);
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(tcp);
    tun.write_all(&ip)
}

/// The Internet checksum (RFC 1071) over parts, of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_over_a_packet_with_its_checksum_is_zero() {
        let mut header = vec![
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1,
        ];
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&[&header]), 0);
    }

    #[test]
    fn the_key_is_found_among_other_options_and_nothing_else_is_taken_for_it() {
        let segment = |options: &[u8]| {
            let mut tcp = vec![0; 20];
            tcp[12] = (((20 + options.len()) / 4) as u8) << 4;
            tcp.extend(options);
            tcp
        };
        let capable = [30, 12, 0x01, 0x01, 1, 2, 3, 4, 5, 6, 7, 8];
        let key = Some([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(server_key(&segment(&capable)), key);
        assert_eq!(
            server_key(&segment(&[&[2, 4, 5, 180][..], &capable].concat())),
            key
        );
        assert_eq!(
            server_key(&segment(&[&[1, 1, 1, 1][..], &capable].concat())),
            key
        );
        assert_eq!(server_key(&segment(&[2, 4, 5, 180])), None);
        assert_eq!(server_key(&segment(&[30, 0, 0, 0])), None);
        assert_eq!(server_key(&segment(&[30, 40, 0, 0])), None);
    }
}
