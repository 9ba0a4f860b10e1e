//! What routers quote: packets that say "time exceeded" and contain the packet that they are about.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::generated::{bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};

use crate::segment::{ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, sum};

/// Length of the header of ICMP and `ICMPv6`.
const ICMP_BYTES: usize = 8;
/// What is quoted behind the IP header: of TCP, the ports and the sequence number.
const QUOTED_BYTES: usize = 8;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TIME_EXCEEDED: u8 = 11;
const TIME_EXCEEDED_V6: u8 = 3;

/// A packet with the shortest quote.
const V4_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + ICMP_BYTES + IPV4_BYTES + QUOTED_BYTES;
const V6_BYTES: usize = ETHERNET_BYTES + IPV6_BYTES + ICMP_BYTES + IPV6_BYTES + QUOTED_BYTES;

/// A packet with a quote, as long as the shortest one.
enum Quote<'a> {
    V4(&'a mut [u8; V4_BYTES]),
    V6(&'a mut [u8; V6_BYTES]),
}

#[inline(always)]
fn find(context: &XdpContext) -> Option<Quote<'_>> {
    let (packet, end) = (context.data(), context.data_end());
    if packet + V4_BYTES > end {
        return None;
    }
    // SAFETY: the packet has these bytes, which an XDP program may write to.
    let v4 = unsafe { &mut *(packet as *mut [u8; V4_BYTES]) };
    let type_at = ETHERNET_BYTES + IPV4_BYTES;
    if [v4[12], v4[13]] == [0x08, 0x00] {
        let is = v4[14] == 0x45 && v4[23] == ICMP && v4[type_at] == TIME_EXCEEDED;
        return is.then_some(Quote::V4(v4));
    }
    if [v4[12], v4[13]] != [0x86, 0xdd] || packet + V6_BYTES > end {
        return None;
    }
    // SAFETY: as above.
    let v6 = unsafe { &mut *(packet as *mut [u8; V6_BYTES]) };
    let is = v6[20] == ICMPV6 && v6[ETHERNET_BYTES + IPV6_BYTES] == TIME_EXCEEDED_V6;
    is.then_some(Quote::V6(v6))
}

/// Drops a packet with a quote.
#[inline(always)]
pub(crate) fn drop(context: &XdpContext) -> u32 {
    match find(context) {
        Some(_) => XDP_DROP,
        None => XDP_PASS,
    }
}

/// Shortens a packet with a quote.
#[inline(always)]
pub(crate) fn shorten(context: &XdpContext) -> u32 {
    let bytes = match find(context) {
        None => return XDP_PASS,
        Some(Quote::V4(packet)) => {
            const ICMP_AT: usize = ETHERNET_BYTES + IPV4_BYTES;
            packet[16..18].copy_from_slice(&((V4_BYTES - ETHERNET_BYTES) as u16).to_be_bytes());
            packet[24..26].copy_from_slice(&[0, 0]);
            let header = sum::<V4_BYTES>(packet, ETHERNET_BYTES, IPV4_BYTES, 0);
            packet[24..26].copy_from_slice(&header);
            packet[ICMP_AT + 2..ICMP_AT + 4].copy_from_slice(&[0, 0]);
            let message = sum::<V4_BYTES>(packet, ICMP_AT, V4_BYTES - ICMP_AT, 0);
            packet[ICMP_AT + 2..ICMP_AT + 4].copy_from_slice(&message);
            V4_BYTES
        }
        Some(Quote::V6(packet)) => {
            const ICMP_AT: usize = ETHERNET_BYTES + IPV6_BYTES;
            const MESSAGE_BYTES: usize = V6_BYTES - ICMP_AT;
            packet[18..20].copy_from_slice(&(MESSAGE_BYTES as u16).to_be_bytes());
            packet[ICMP_AT + 2..ICMP_AT + 4].copy_from_slice(&[0, 0]);
            // With the addresses in front, and the rest of the pseudo header.
            let pseudo = u32::from(ICMPV6) + MESSAGE_BYTES as u32;
            let message = sum::<V6_BYTES>(packet, ICMP_AT - 32, 32 + MESSAGE_BYTES, pseudo);
            packet[ICMP_AT + 2..ICMP_AT + 4].copy_from_slice(&message);
            V6_BYTES
        }
    };
    // SAFETY: the context is the one that the kernel passed to the program.
    let length = unsafe { bpf_xdp_get_buff_len(context.ctx) };
    let more = length - bytes as u64;
    // SAFETY: the helper checks the length. All pointers into the packet are invalid afterwards.
    let _too_short = unsafe { bpf_xdp_adjust_tail(context.ctx, -(more as i32)) };
    XDP_PASS
}
