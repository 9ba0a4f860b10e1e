//! A TCP segment within its packet: its position, bounds-checked reads, and single-byte writes.

use core::hint::black_box;

use aya_ebpf::{helpers::generated::bpf_xdp_load_bytes, programs::XdpContext};

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// Length of a TCP header without options.
pub(crate) const TCP_BYTES_MIN: usize = 20;
/// Maximum length of the TCP options.
pub(crate) const OPTIONS_BYTES_MAX: usize = 40;
/// Unit of the header length fields (IHL, data offset).
const WORD_BYTES: usize = 4;
const CHECKSUM: usize = 16;
const TCP: u8 = 6;
const SYN: u8 = 0x02;

/// One direction of a connection. An IPv4 address occupies the first of the four words.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Flow {
    addresses: [u32; 8],
    ports: u32,
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
        let (start, length) = match read!(u16, packet + 12) {
            0x0800 => {
                // The "more fragments" flag is set, or the fragment offset is not 0.
                let is_fragment = read!(u16, ip + 6) & 0x3fff != 0;
                if read!(u8, ip) != 0x45 || read!(u8, ip + 9) != TCP || is_fragment {
                    return None;
                }
                addresses[0] = read!(u32, ip + 12);
                addresses[4] = read!(u32, ip + 16);
                let length = usize::from(read!(u16, ip + 2));
                (ip + IPV4_BYTES, length.wrapping_sub(IPV4_BYTES))
            }
            0x86dd => {
                if ip + IPV6_BYTES + TCP_BYTES_MIN > end || read!(u8, ip + 6) != TCP {
                    return None;
                }
                for (index, word) in addresses.iter_mut().enumerate() {
                    *word = read!(u32, ip + 8 + 4 * index);
                }
                (ip + IPV6_BYTES, usize::from(read!(u16, ip + 4)))
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
