//! A TCP segment within its packet: its position, bounds-checked reads, and single-byte writes.

use core::hint::black_box;

use aya_ebpf::{
    helpers::generated::{
        bpf_csum_diff, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    programs::XdpContext,
};

use crate::treat::ROOM;

pub(crate) const ETHERNET_BYTES: usize = 14;
pub(crate) const IPV4_BYTES: usize = 20;
pub(crate) const IPV6_BYTES: usize = 40;
/// Length of a TCP header without options.
pub(crate) const TCP_BYTES_MIN: usize = 20;
/// Maximum length of the TCP options.
pub(crate) const OPTIONS_BYTES_MAX: usize = 40;
/// Unit of the header length fields (IHL, data offset).
const WORD_BYTES: usize = 4;
const DATA_OFFSET: usize = 12;
const CHECKSUM: usize = 16;
const TCP: u8 = 6;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// One direction of a connection. An IPv4 address occupies the first of the four words.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Flow {
    addresses: [u32; 8],
    ports: u32,
}

impl Flow {
    /// The other direction of the connection.
    #[inline(always)]
    pub(crate) fn reversed(&self) -> Self {
        let [a, b, c, d, e, f, g, h] = self.addresses;
        Self {
            addresses: [e, f, g, h, a, b, c, d],
            ports: self.ports.rotate_left(16),
        }
    }
}

/// A segment whose fixed TCP header is in the packet. Offsets are relative to the TCP header.
pub(crate) struct Segment {
    start: usize,
    end: usize,
    pub(crate) flow: Flow,
    /// Length of the TCP header, options included.
    header: usize,
    /// Whether the segment carries data. Padding of a short Ethernet frame does not count.
    pub(crate) has_payload: bool,
    pub(crate) is_syn: bool,
    pub(crate) is_rst: bool,
    pub(crate) is_ack: bool,
    is_v4: bool,
    /// Sum of the changes made so far, to be applied to the checksum (RFC 1624); not yet folded.
    correction: u32,
}

/// Reads an integer in network byte order at this address.
///
/// The caller has compared the address with the end of the packet; the verifier checks that.
macro_rules! read {
    ($type:ty, $address:expr) => {{
        let bytes = $address as *const [u8; size_of::<$type>()];
        // SAFETY: see above; an array of bytes needs no alignment.
        <$type>::from_be_bytes(unsafe { *bytes })
    }};
}

impl Segment {
    /// None for anything but TCP, for fragments, and for packets with IPv6 extension headers.
    #[inline(always)]
    pub(crate) fn parse(context: &XdpContext) -> Option<Self> {
        let (packet, end) = (context.data(), context.data_end());
        if packet + ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES_MIN > end {
            return None;
        }
        let ip = packet + ETHERNET_BYTES;
        let mut addresses = [0; 8];
        let (start, length, is_v4) = match read!(u16, packet + 12) {
            0x0800 => {
                // The "more fragments" flag is set, or the fragment offset is not 0.
                let is_fragment = read!(u16, ip + 6) & 0x3fff != 0;
                if read!(u8, ip) != 0x45 || read!(u8, ip + 9) != TCP || is_fragment {
                    return None;
                }
                addresses[0] = read!(u32, ip + 12);
                addresses[4] = read!(u32, ip + 16);
                let length = usize::from(read!(u16, ip + 2));
                (ip + IPV4_BYTES, length.wrapping_sub(IPV4_BYTES), true)
            }
            0x86dd => {
                if ip + IPV6_BYTES + TCP_BYTES_MIN > end || read!(u8, ip + 6) != TCP {
                    return None;
                }
                for (index, word) in addresses.iter_mut().enumerate() {
                    *word = read!(u32, ip + 8 + 4 * index);
                }
                (ip + IPV6_BYTES, usize::from(read!(u16, ip + 4)), false)
            }
            _ => return None,
        };
        if start + TCP_BYTES_MIN > end {
            return None;
        }
        let header = usize::from(read!(u8, start + 12) >> 4) * WORD_BYTES;
        if header < TCP_BYTES_MIN {
            return None;
        }
        Some(Self {
            start,
            end,
            flow: Flow {
                addresses,
                ports: read!(u32, start),
            },
            header,
            has_payload: length > header,
            is_syn: read!(u8, start + 13) & SYN != 0,
            is_rst: read!(u8, start + 13) & RST != 0,
            is_ack: read!(u8, start + 13) & ACK != 0,
            is_v4,
            correction: 0,
        })
    }

    /// Copies the options, at most [`OPTIONS_BYTES_MAX`] of them, and returns their length.
    #[inline(always)]
    pub(crate) fn load_options(&self, context: &XdpContext, options: *mut u8) -> usize {
        // The compiler knows the maximum and would drop a comparison that the verifier needs. Old
        // verifiers learn nothing from a comparison with 0, so compare the excess over one word.
        let more = black_box(self.header.wrapping_sub(TCP_BYTES_MIN + WORD_BYTES));
        if more > OPTIONS_BYTES_MAX - WORD_BYTES {
            return 0;
        }
        let length = more + WORD_BYTES;
        let offset = self.start + TCP_BYTES_MIN - context.data();
        // SAFETY: the helper fails beyond the end of the packet; the verifier checks the buffer.
        let failed = unsafe {
            bpf_xdp_load_bytes(context.ctx, offset as u32, options.cast(), length as u32)
        };
        if failed == 0 { length } else { 0 }
    }

    /// Replaces the options, of this length, by others, and records the effect on the checksum.
    #[inline(always)]
    pub(crate) fn store_options(
        &mut self,
        context: &XdpContext,
        length: usize,
        old: &[u8; ROOM],
        new: &[u8; ROOM],
    ) {
        // As when they were loaded.
        let more = black_box(length.wrapping_sub(WORD_BYTES));
        if more > OPTIONS_BYTES_MAX - WORD_BYTES {
            return;
        }
        let length = (more + WORD_BYTES) as u32;
        let offset = (self.start + TCP_BYTES_MIN - context.data()) as u32;
        let bytes = OPTIONS_BYTES_MAX as u32;
        let (from, to) = (old.as_ptr().cast_mut(), new.as_ptr().cast_mut());
        // SAFETY: both have these bytes; the helper writes to none of them. It may also not change
        // the packet, if it ends earlier: then the packet is malformed and gets a wrong checksum.
        let difference = unsafe {
            let _failed = bpf_xdp_store_bytes(context.ctx, offset, to.cast(), length);
            bpf_csum_diff(from.cast(), bytes, to.cast(), bytes, 0)
        } as u32;
        // Of words in the order of this machine; folded once, it has at most 17 bits.
        let sum = (difference & 0xffff) + (difference >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        self.correction += u32::from((sum as u16).to_be());
    }

    /// Offset of the payload.
    #[inline(always)]
    pub(crate) fn payload(&self) -> usize {
        self.header
    }

    /// Reads a byte; none beyond the end of the packet.
    #[inline(always)]
    pub(crate) fn get(&self, offset: usize) -> Option<u8> {
        let address = self.start + offset;
        if address + 1 > self.end {
            return None;
        }
        Some(read!(u8, address))
    }

    /// Changes a byte and records the effect on the checksum.
    #[inline(always)]
    pub(crate) fn put(&mut self, offset: usize, new: u8) {
        let address = self.start + offset;
        if address + 1 > self.end {
            return;
        }
        let old = read!(u8, address);
        // SAFETY: the address is inside the packet, which an XDP program may write to.
        unsafe { *(address as *mut u8) = new };
        // The first byte of each 16-bit word is the high one.
        let shift = if offset.is_multiple_of(2) { 8 } else { 0 };
        self.correction += 0xffff - (u32::from(old) << shift) + (u32::from(new) << shift);
    }

    /// Adds to a 32-bit number, modulo 2^32.
    #[inline(always)]
    pub(crate) fn add(&mut self, offset: usize, more: u32) {
        let (Some(a), Some(b), Some(c), Some(d)) = (
            self.get(offset),
            self.get(offset + 1),
            self.get(offset + 2),
            self.get(offset + 3),
        ) else {
            return;
        };
        let sum = u32::from_be_bytes([a, b, c, d]).wrapping_add(more);
        for (index, byte) in sum.to_be_bytes().into_iter().enumerate() {
            self.put(offset + index, byte);
        }
    }

    /// Makes the header shorter by this many bytes, a multiple of 4, of a packet without payload
    /// whose last bytes are 0. Ends the work on the segment: it updates the checksum.
    #[inline(always)]
    pub(crate) fn cut(mut self, context: &XdpContext, bytes: usize) {
        let Some(data_offset) = self.get(DATA_OFFSET) else {
            return;
        };
        self.put(DATA_OFFSET, data_offset - ((bytes / WORD_BYTES) << 4) as u8);
        // The length is in the pseudo header.
        self.correction += 0xffff - bytes as u32;
        self.correct_checksum();
        let (at, length_at) = match self.is_v4 {
            true => (self.start - IPV4_BYTES, 2),
            false => (self.start - IPV6_BYTES, 4),
        };
        if at + IPV4_BYTES > self.end {
            return;
        }
        let length = read!(u16, at + length_at) - bytes as u16;
        // SAFETY: the address is inside the packet, which an XDP program may write to.
        unsafe { *((at + length_at) as *mut [u8; 2]) = length.to_be_bytes() };
        if self.is_v4 {
            let sum = u32::from(!read!(u16, at + 10)) + 0xffff - bytes as u32;
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            // SAFETY: as above.
            unsafe { *((at + 10) as *mut [u8; 2]) = (!(sum as u16)).to_be_bytes() };
        }
        // SAFETY: the helper checks the length. All pointers into the packet are invalid afterwards.
        let _too_short = unsafe { bpf_xdp_adjust_tail(context.ctx, -(bytes as i32)) };
    }

    /// Updates the TCP checksum for all changes made so far.
    #[inline(always)]
    pub(crate) fn correct_checksum(&self) {
        let address = self.start + CHECKSUM;
        if address + 2 > self.end {
            return;
        }
        let mut sum = u32::from(!read!(u16, address)) + self.correction;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        // SAFETY: the address is inside the packet, which an XDP program may write to.
        unsafe { *(address as *mut [u8; 2]) = (!(sum as u16)).to_be_bytes() };
    }
}

/// Turns a TCP packet into the RST that answers it (RFC 9293 section 3.10.7.1), for the way back:
/// without options, with the rest of the packet as padding. False for other packets.
#[inline(always)]
pub(crate) fn turn_into_rst(context: &XdpContext) -> bool {
    const V4_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES_MIN;
    const V6_BYTES: usize = ETHERNET_BYTES + IPV6_BYTES + TCP_BYTES_MIN;
    let (packet, end) = (context.data(), context.data_end());
    if packet + V4_BYTES > end {
        return false;
    }
    // SAFETY: the packet has these bytes, which an XDP program may write to.
    let v4 = unsafe { &mut *(packet as *mut [u8; V4_BYTES]) };
    match [v4[12], v4[13]] {
        [0x08, 0x00] => {
            v4[16..18].copy_from_slice(&((IPV4_BYTES + TCP_BYTES_MIN) as u16).to_be_bytes());
            v4[24..26].copy_from_slice(&[0, 0]);
            let sum = sum::<V4_BYTES>(v4, ETHERNET_BYTES, IPV4_BYTES, 0);
            v4[24..26].copy_from_slice(&sum);
            answer::<V4_BYTES, 26, 4>(v4);
            true
        }
        [0x86, 0xdd] if packet + V6_BYTES <= end => {
            // SAFETY: as above.
            let v6 = unsafe { &mut *(packet as *mut [u8; V6_BYTES]) };
            v6[18..20].copy_from_slice(&(TCP_BYTES_MIN as u16).to_be_bytes());
            answer::<V6_BYTES, 22, 16>(v6);
            true
        }
        _ => false,
    }
}

/// Swaps the ends of a packet whose last bytes are a TCP header without options, and whose addresses
/// of this length are at `ADDRESSES`; makes the header an RST.
#[inline(always)]
fn answer<const BYTES: usize, const ADDRESSES: usize, const LENGTH: usize>(
    packet: &mut [u8; BYTES],
) {
    let tcp = BYTES - TCP_BYTES_MIN;
    for index in 0..6 {
        packet.swap(index, index + 6);
    }
    for index in 0..LENGTH {
        packet.swap(ADDRESSES + index, ADDRESSES + LENGTH + index);
    }
    packet.swap(tcp, tcp + 2);
    packet.swap(tcp + 1, tcp + 3);
    let sequence = [
        packet[tcp + 4],
        packet[tcp + 5],
        packet[tcp + 6],
        packet[tcp + 7],
    ];
    let acknowledged = [
        packet[tcp + 8],
        packet[tcp + 9],
        packet[tcp + 10],
        packet[tcp + 11],
    ];
    // Without ACK it is a SYN, which has no data here.
    let next = u32::from_be_bytes(sequence).wrapping_add(1).to_be_bytes();
    let (sequence, acknowledged, flags) = match packet[tcp + 13] & ACK {
        0 => ([0; 4], next, RST | ACK),
        _ => (acknowledged, [0; 4], RST),
    };
    for index in 0..4 {
        packet[tcp + 4 + index] = sequence[index];
        packet[tcp + 8 + index] = acknowledged[index];
    }
    packet[tcp + 12] = ((TCP_BYTES_MIN / WORD_BYTES) << 4) as u8;
    packet[tcp + 13] = flags;
    // Window, checksum and urgent pointer.
    for index in 14..TCP_BYTES_MIN {
        packet[tcp + index] = 0;
    }
    // The pseudo header: addresses, protocol and length.
    let pseudo = u32::from(TCP) + TCP_BYTES_MIN as u32;
    let sum = sum::<BYTES>(packet, ADDRESSES, 2 * LENGTH + TCP_BYTES_MIN, pseudo);
    packet[tcp + CHECKSUM] = sum[0];
    packet[tcp + CHECKSUM + 1] = sum[1];
}

/// Internet checksum of a part of a packet, and of more.
#[inline(always)]
pub(crate) fn sum<const BYTES: usize>(
    packet: &[u8; BYTES],
    start: usize,
    length: usize,
    more: u32,
) -> [u8; 2] {
    let mut sum = more;
    let mut index = start;
    while index + 1 < start + length && index + 1 < BYTES {
        sum += u32::from(u16::from_be_bytes([packet[index], packet[index + 1]]));
        index += 2;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}
