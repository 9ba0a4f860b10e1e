//! The packet that the kernel is processing, and its headers.

use core::arch::asm;

use super::{
    path::{TCP_HEADER, ip_header},
    *,
};
use mptcp_trace_common::record::{HEADER_MAX, PacketFlags, PacketRecord};

/// Words of the kernel's stack that are searched for the packet, from the context of the program
/// upwards. What lies deeper is not found: the field is absent then.
const STACK_WORDS: u32 = 320;

/// Most bytes of IPv6's header, whose extensions are not copied.
const IPV6_HEADER: u32 = 40;

/// The context of a program: it lies on the kernel's stack.
#[inline(always)]
pub(crate) fn origin(ctx: &impl EbpfContext) -> u64 {
    as_number(ctx.as_ptr() as u64)
}

/// Ports of a packet that a TCP socket receives, as the first four bytes of its header; and in the
/// upper half the flags that it has to have.
#[inline(always)]
fn expected(sk: Sock, flags: u32) -> u64 {
    let source: u16 = read_or_zero!(sk.0, sock_dport);
    let destination: u16 = read_or_zero!(sk.0, inet_sport);
    u64::from(source) | u64::from(destination) << 16 | u64::from(flags) << 32
}

/// Bytes around a socket in which its packets are looked for. Packets and sockets lie in the kernel's
/// map of the memory. The registers of devices are mapped elsewhere, at least a terabyte away unless
/// the machine has as much memory: reading some of them changes a device's state.
const NEAR: u64 = 1 << 38;

/// The word if it may be an address in memory, near the socket at `sk`; else 0, which cannot be read.
/// Without a branch: the verifier would walk both ways in each iteration of a loop.
#[inline(always)]
fn near(word: u64, sk: u64) -> u64 {
    let mut far = word.wrapping_sub(sk).wrapping_add(NEAR) >> (NEAR.trailing_zeros() + 1);
    // SAFETY: the assembly is empty; the compiler must not know what it holds.
    unsafe { asm!("/* {far} */", far = inout(reg) far, options(nomem, nostack)) };
    word & ((far.wrapping_sub(1) as i64) >> 63) as u64
}

/// True for what may be an address in memory, where the socket at `sk` is.
#[inline(always)]
fn is_near(word: u64, sk: u64) -> bool {
    word >> 56 == 0xff && word.wrapping_sub(sk).wrapping_add(NEAR) < 2 * NEAR
}

/// True for what may be the address of a structure in memory.
#[inline(always)]
fn is_address(word: u64, sk: u64) -> bool {
    word.trailing_zeros() >= 3 && is_near(word, sk)
}

/// True if this kernel's structures show where the headers of a packet are, and whose they are.
#[inline(always)]
pub(crate) fn has_headers() -> bool {
    offset!(skb_head) != ABSENT
        && offset!(skb_network_header) != ABSENT
        && offset!(skb_transport_header) != ABSENT
        && offset!(sock_daddr) != ABSENT
        && offset!(sock_dport) != ABSENT
        && offset!(inet_sport) != ABSENT
}

/// The packet for the TCP socket `sk` that led to this call; 0 if there is none. Its TCP header has
/// all of `flags`.
///
/// No argument of the probed functions is the packet. But the functions that called them hold its
/// address, in registers that are saved on the stack: so each word of the stack above `origin`, the
/// context of the program, is taken for the address of a packet, and the first one whose header has
/// the ports of the socket is the packet, if the addresses and flags are right too. A word that is
/// something else reads as other headers, or cannot be read. `origin` may also be the packet itself.
#[inline(never)]
pub(crate) fn packet_in_progress(origin: u64, sk: u64, flags: u32) -> u64 {
    if !has_headers() {
        return 0;
    }
    let sk = as_number(sk);
    let expected = expected(Sock(sk), flags);
    // One branch in the loop, which the verifier walks iteration by iteration: the ports. The rest is
    // compared once.
    let mut skb = origin;
    let mut at = origin;
    for _ in 0..STACK_WORDS {
        if ports_of(near(skb, sk), sk) == expected as u32 {
            break;
        }
        skb = read_or_zero_at(at, 0);
        at = at.wrapping_add(8);
    }
    match is_address(skb, sk) && is_packet_of(skb, sk, expected) != 0 {
        true => skb,
        false => 0,
    }
}

/// Source and destination port of a packet: the first four bytes of its TCP header.
#[inline(always)]
fn ports_of(skb: u64, sk: u64) -> u32 {
    let head = near(read_or_zero!(skb, skb_head), sk);
    let transport: u16 = read_or_zero!(skb, skb_transport_header);
    read_or_zero_at(head.wrapping_add(u64::from(transport)), 0)
}

/// 1 if a packet at this address has the addresses of the socket, and the expected ports and flags.
#[inline(never)]
fn is_packet_of(skb: u64, sk: u64, expected: u64) -> u32 {
    let head: u64 = read_or_zero!(skb, skb_head);
    if !is_near(head, sk) {
        return opaque(0);
    }
    let transport: u16 = read_or_zero!(skb, skb_transport_header);
    let header: [u32; 4] = read_or_zero_at(head.wrapping_add(u64::from(transport)), 0);
    let flags = (expected >> 32) as u32;
    if header[0] != expected as u32 || u32::from(header[3].to_ne_bytes()[1]) & flags != flags {
        return opaque(0);
    }
    let ip = ip_header(skb);
    let version: u8 = read_or_zero_at(ip, 0);
    let is_same = if version >> 4 == 6 {
        let of_packet: [u64; 4] = read_or_zero_at(ip, 8);
        let remote: [u64; 2] = read_or_zero!(sk, sock_v6_daddr);
        let local: [u64; 2] = read_or_zero!(sk, sock_v6_rcv_saddr);
        of_packet[0] == remote[0]
            && of_packet[1] == remote[1]
            && of_packet[2] == local[0]
            && of_packet[3] == local[1]
    } else {
        let of_packet: [u32; 2] = read_or_zero_at(ip, 12);
        let remote: u32 = read_or_zero!(sk, sock_daddr);
        let local: u32 = read_or_zero!(sk, sock_rcv_saddr);
        version >> 4 == 4 && of_packet[0] == remote && of_packet[1] == local
    };
    opaque(u32::from(is_same))
}

/// Writes the headers of a packet into a record, and nothing that follows them; false if they cannot
/// be read.
#[inline(always)]
pub(crate) fn put_headers(skb: u64, record: &mut PacketRecord) -> bool {
    let ip = ip_header(skb);
    let first: u8 = read_or_zero_at(ip, 0);
    let length = match first >> 4 {
        6 => IPV6_HEADER,
        _ => u32::from(first & 0xf) * 4,
    };
    record.ip_len = copy(ip, length, &raw mut record.ip);
    let head: u64 = read_or_zero!(skb, skb_head);
    let transport: u16 = read_or_zero!(skb, skb_transport_header);
    let tcp = head.wrapping_add(u64::from(transport));
    let offset: u8 = read_or_zero_at(tcp, 12);
    let length = u32::from(offset >> 4) * 4;
    if length >= TCP_HEADER as u32 {
        record.tcp_len = copy(tcp, length, &raw mut record.tcp);
    }
    record.ip_len != 0 && record.tcp_len != 0
}

/// Copies a header; returns how many bytes there are.
#[inline(always)]
fn copy(from: u64, length: u32, to: *mut [u8; HEADER_MAX]) -> u8 {
    let length = if length > HEADER_MAX as u32 {
        HEADER_MAX as u32
    } else {
        length
    };
    // SAFETY: the helper writes at most the bytes of the place, and accepts any address.
    let failed =
        unsafe { generated::bpf_probe_read_kernel(to.cast(), length, from as *const c_void) };
    if failed == 0 { length as u8 } else { 0 }
}

/// Writes the time to live of an earlier packet on the same path, if one was received and not read
/// yet: it waits at the path or, after MPTCP has taken it, at the connection.
#[inline(always)]
pub(crate) fn put_earlier_ttl(sk: Sock, msk: Sock, skb: u64, record: &mut PacketRecord) {
    let mut earlier = unread_of(sk.0, sk.0, skb);
    if earlier == 0 {
        earlier = unread_of(msk.0, sk.0, skb);
    }
    if earlier == 0 {
        return;
    }
    let ip = ip_header(earlier);
    let version: u8 = read_or_zero_at(ip, 0);
    let at = if version >> 4 == 6 { 7 } else { 8 };
    record.ttl_before = read_or_zero_at(ip, at);
    record.flags |= PacketFlags::TTL_BEFORE;
}

/// The first unread packet of the socket `at`, if it came on the path `sk` and is not `but`; else 0.
#[inline(never)]
fn unread_of(at: u64, sk: u64, but: u64) -> u64 {
    if at == 0 || offset!(sock_receive_queue) == ABSENT {
        return 0;
    }
    let sk = as_number(sk);
    let first: u64 = read_or_zero!(at, sock_receive_queue);
    if first == but || !is_address(first, sk) || is_packet_of(first, sk, expected(Sock(sk), 0)) == 0
    {
        return 0;
    }
    first
}

/// Writes what the peer negotiated on the connection's first path, if that is another one.
#[inline(always)]
pub(crate) fn put_first_path(sk: Sock, msk: Sock, record: &mut PacketRecord) {
    let Some(first) = msk.first_subflow() else {
        return;
    };
    let smc = offset!(tcp_smc);
    if first == sk || smc == ABSENT || offset!(tcp_mss) == ABSENT {
        return;
    }
    record.first_mss = read_or_zero!(first.0, tcp_mss);
    if record.first_mss == 0 {
        return;
    }
    let byte: u8 = read_or_zero_at(first.0, smc / 8 + 1);
    record.first_window_scale = byte & 0xf;
    record.flags |= PacketFlags::FIRST_PATH;
    if bit!(first.0, tcp_timestamps) == Some(true) {
        record.flags |= PacketFlags::FIRST_TIMESTAMPS;
    }
    if bit!(first.0, tcp_window_scaling) == Some(true) {
        record.flags |= PacketFlags::FIRST_WINDOW_SCALE;
    }
}

/// Writes the peer's token, by which a join that this host opens names the connection.
#[inline(always)]
pub(crate) fn put_peer_token(sk: Sock, record: &mut PacketRecord) {
    if let Some(context) = sk.subflow_context()
        && offset!(subflow_remote_token) != ABSENT
    {
        record.peer_token = read_or_zero!(context, subflow_remote_token);
        record.flags |= PacketFlags::PEER_TOKEN;
    }
}
