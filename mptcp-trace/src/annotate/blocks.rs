//! The blocks of a packet capture (pcapng; pcap is converted while it is read), and comments on them.
//!
//! Blocks are kept as bytes: nothing but a comment is added, and nothing that this program does not
//! know is lost (`docs/decisions/0015-what-is-written-by-hand.md`). The format is that of
//! <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html>.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Read},
    time::Duration,
};

/// Longest block; Wireshark reads no longer one.
pub const BLOCK_BYTES_MAX: u32 = 16 << 20;
/// Longest packet of a pcap: its block has to fit.
const PACKET_BYTES_MAX: u32 = BLOCK_BYTES_MAX - 64;
/// Longest option: its length has 16 bits.
const OPTION_BYTES_MAX: usize = 0xffff;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
/// The predecessor of [`ENHANCED_PACKET`], with the same layout but for the interface's number.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Magic number of a section, in its byte order.
const SECTION_MAGIC: u32 = 0x1a2b_3c4d;
const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
/// Its times have nanoseconds.
const PCAP_NANOS_MAGIC: u32 = 0xa1b2_3c4d;
const PCAP_HEADER_BYTES: usize = 24;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;
/// `shb_userappl`: the program that wrote the file.
const OPTION_PROGRAM: u16 = 4;

/// Bytes of a block before its body: type and length.
const HEAD: usize = 8;
/// Bytes after its body: the length again.
const TAIL: usize = 4;
/// Bytes of a packet block's body before the packet.
const PACKET_HEAD: usize = 20;

/// Why the rest of a packet capture cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// It is no packet capture, and what it seems to be.
    Foreign(&'static str),
    /// It ends within the block, or packet, at this offset.
    CutOff(u64),
    /// The block, or packet, at this offset is impossible.
    Invalid(u64, &'static str),
    /// It cannot be read.
    Unreadable(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(what) => f.write_str(what),
            Self::CutOff(at) => write!(f, "it is cut off within the block at byte {at}"),
            Self::Invalid(at, why) => write!(f, "the block at byte {at} is damaged: {why}"),
            Self::Unreadable(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Damage {
    fn from(why: io::Error) -> Self {
        Self::Unreadable(why.to_string())
    }
}

/// Byte order of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn of<const N: usize>(self, bytes: &[u8], at: usize) -> Option<[u8; N]> {
        let mut found: [u8; N] = *bytes.get(at..)?.first_chunk()?;
        if self == Self::Big {
            found.reverse();
        }
        Some(found)
    }

    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        self.of(bytes, at).map(u16::from_le_bytes)
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        self.of(bytes, at).map(u32::from_le_bytes)
    }

    fn i64(self, bytes: &[u8], at: usize) -> Option<i64> {
        self.of(bytes, at).map(i64::from_le_bytes)
    }

    fn put_u16(self, number: u16) -> [u8; 2] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }

    fn put_u32(self, number: u32) -> [u8; 4] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }

    /// The order in which the number at `at` is `magic`.
    fn find(bytes: &[u8], at: usize, magics: &[u32]) -> Option<(Self, u32)> {
        [Self::Little, Self::Big].into_iter().find_map(|order| {
            let number = order.u32(bytes, at)?;
            magics.contains(&number).then_some((order, number))
        })
    }
}

/// What is known about an interface: how to read its packets.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    /// Unit of its times, as in the option `if_tsresol`.
    resolution: u8,
    /// Seconds to add.
    offset: i64,
    /// Most bytes of a packet that are captured; 0 means no limit.
    snaplen: u32,
}

impl Interface {
    /// A time since the Unix epoch; `None` if that is out of range.
    fn time(self, ticks: u64) -> Option<Duration> {
        const NS: u128 = 1_000_000_000;
        let exponent = u32::from(self.resolution & 0x7f);
        let ticks = u128::from(ticks) * NS;
        let ns = match self.resolution & 0x80 {
            0 => ticks.checked_div(10_u128.checked_pow(exponent)?)?,
            _ => ticks >> exponent,
        };
        let seconds = i128::try_from(ns / NS).ok()? + i128::from(self.offset);
        let rest = u32::try_from(ns % NS).ok()?;
        Some(Duration::new(u64::try_from(seconds).ok()?, rest))
    }
}

/// A block.
#[derive(Debug)]
pub(super) struct Block<'a> {
    /// All its bytes.
    pub(super) bytes: &'a [u8],
    kind: u32,
    order: Order,
    interfaces: &'a [Interface],
}

/// The packet in a block.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    /// When it was captured, since the Unix epoch, if that is known.
    pub(super) time: Option<Duration>,
    /// Link type.
    pub(super) link: u16,
    /// Its bytes, as far as they were captured.
    pub(super) data: &'a [u8],
    /// Blocks of its kind may have options.
    pub(super) takes_comments: bool,
}

impl<'a> Block<'a> {
    fn body(&self) -> &'a [u8] {
        let end = self.bytes.len().saturating_sub(TAIL);
        self.bytes.get(HEAD..end).unwrap_or_default()
    }

    /// True if the block is one of a packet. Its packet may still not fit into it, or its interface
    /// may not be described: then [`Self::packet`] has none.
    pub(super) fn is_of_packet(&self) -> bool {
        [ENHANCED_PACKET, PACKET, SIMPLE_PACKET].contains(&self.kind)
    }

    /// The packet, if the block contains one that can be read.
    pub(super) fn packet(&self) -> Option<Packet<'a>> {
        let (body, order) = (self.body(), self.order);
        let interface = match self.kind {
            ENHANCED_PACKET => order.u32(body, 0)?,
            PACKET => u32::from(order.u16(body, 0)?),
            SIMPLE_PACKET => {
                // The captured length is in no field: it is the original one, up to the limit.
                let interface = self.interfaces.first()?;
                let original = order.u32(body, 0)?;
                let captured = match interface.snaplen {
                    0 => original,
                    most => original.min(most),
                };
                return Some(Packet {
                    time: None,
                    link: interface.link,
                    data: body.get(4..)?.get(..usize::try_from(captured).ok()?)?,
                    takes_comments: false,
                });
            }
            _other => return None,
        };
        let interface = self.interfaces.get(usize::try_from(interface).ok()?)?;
        let (high, low) = (order.u32(body, 4)?, order.u32(body, 8)?);
        let data = body.get(PACKET_HEAD..)?.get(..self.captured()?)?;
        Some(Packet {
            time: interface.time(u64::from(high) << 32 | u64::from(low)),
            link: interface.link,
            data,
            takes_comments: true,
        })
    }

    /// Length of the packet in the block.
    fn captured(&self) -> Option<usize> {
        usize::try_from(self.order.u32(self.body(), 12)?).ok()
    }

    /// Where the options of a packet begin, in [`Self::bytes`].
    fn options_at(&self) -> Option<usize> {
        let at = HEAD + PACKET_HEAD + self.captured()?.next_multiple_of(4);
        (at <= self.bytes.len().saturating_sub(TAIL)).then_some(at)
    }
}

/// The options in `bytes`, up to their end, and where they end; `None` if they are damaged.
fn options(order: Order, bytes: &[u8]) -> (Vec<(u16, &[u8])>, Option<usize>) {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (Some(code), Some(length)) = (order.u16(bytes, at), order.u16(bytes, at + 2)) else {
            return (found, None);
        };
        if code == OPTION_END {
            break;
        }
        let from = at + 4;
        let length = usize::from(length);
        let next = from + length.next_multiple_of(4);
        if next > bytes.len() {
            return (found, None);
        }
        found.extend(bytes.get(from..from + length).map(|value| (code, value)));
        at = next;
    }
    (found, Some(at))
}

/// An option with its padding.
fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let value = &value[..value.len().min(OPTION_BYTES_MAX)];
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    let mut bytes = [order.put_u16(code), order.put_u16(length)].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A block around a body whose length is a multiple of four.
fn framed(order: Order, kind: u32, body: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(HEAD + body.len() + TAIL).ok()?;
    let length = order.put_u32(length);
    Some([&order.put_u32(kind)[..], &length, body, &length].concat())
}

/// The bytes of a block with comments behind its own options; `None` if they have no room.
///
/// The length of a section becomes unknown, because its packets grow.
pub(super) fn commented<'a>(block: &Block<'a>, comments: &[String]) -> Option<Cow<'a, [u8]>> {
    const LENGTH: std::ops::Range<usize> = 16..24;
    if block.kind == SECTION {
        let mut bytes = block.bytes.to_vec();
        bytes.get_mut(LENGTH)?.fill(0xff);
        return Some(bytes.into());
    }
    if comments.is_empty() {
        return Some(block.bytes.into());
    }
    let begin = block.options_at()?;
    let end = block.bytes.len() - TAIL;
    // Behind damaged options nobody would find a comment.
    let (_known, length) = options(block.order, block.bytes.get(begin..end)?);
    let at = begin + length.unwrap_or(0);
    let mut body = block.bytes.get(HEAD..at)?.to_vec();
    for comment in comments {
        body.extend(option(block.order, OPTION_COMMENT, comment.as_bytes()));
    }
    let rest = block.bytes.get(at..end)?;
    match rest.is_empty() {
        true => body.extend(option(block.order, OPTION_END, &[])),
        false => body.extend_from_slice(rest),
    }
    let bytes = framed(block.order, block.kind, &body)?;
    let fits = bytes.len() <= usize::try_from(BLOCK_BYTES_MAX).ok()?;
    fits.then_some(bytes.into())
}

/// The format of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Pcapng,
    Pcap {
        is_nanos: bool,
        /// Longest captured packet, as the header states.
        snaplen: u32,
        link: u16,
    },
}

/// Reads a packet capture block by block.
pub(super) struct Blocks<R> {
    input: R,
    format: Format,
    order: Order,
    interfaces: Vec<Interface>,
    /// Offset of the next byte of the input.
    at: u64,
    /// Number of blocks that were read.
    number: u64,
    /// The block; when it is opened, the first bytes of the file.
    bytes: Vec<u8>,
}

impl<R: Read> Blocks<R> {
    /// Recognises the format.
    pub(super) fn open(input: R) -> Result<Self, Damage> {
        let mut blocks = Self {
            input,
            format: Format::Pcapng,
            order: Order::Little,
            interfaces: Vec::new(),
            at: 0,
            number: 0,
            bytes: Vec::new(),
        };
        let has_magic = blocks.fill(4)?;
        if blocks.bytes == SECTION.to_le_bytes() {
            return Ok(blocks);
        }
        let pcap = Order::find(&blocks.bytes, 0, &[PCAP_MAGIC, PCAP_NANOS_MAGIC]);
        let Some((order, magic)) = pcap else {
            return Err(Damage::Foreign(foreign(&blocks.bytes, has_magic)));
        };
        if !blocks.fill(PCAP_HEADER_BYTES)? {
            return Err(Damage::CutOff(0));
        }
        let field = |at| order.u32(&blocks.bytes, at).unwrap_or_default();
        blocks.format = Format::Pcap {
            is_nanos: magic == PCAP_NANOS_MAGIC,
            snaplen: field(16),
            // The upper half holds flags.
            link: u16::try_from(field(20) & 0xffff).unwrap_or_default(),
        };
        blocks.order = order;
        Ok(blocks)
    }

    /// Where the next block begins in the input.
    pub(super) fn position(&self) -> u64 {
        // The first bytes of a pcapng are read when the format is recognised.
        match (self.format, self.number) {
            (Format::Pcapng, 0) => 0,
            (Format::Pcapng | Format::Pcap { .. }, _) => self.at,
        }
    }

    /// The next block; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Block<'_>>, Damage> {
        let kind = match self.format {
            Format::Pcapng => self.next_block()?,
            Format::Pcap {
                is_nanos,
                snaplen,
                link,
            } => match self.number {
                0 => Some(self.section()),
                1 => Some(self.interface(link, snaplen, is_nanos)),
                _later => self.next_packet(is_nanos)?,
            },
        };
        self.number += 1;
        let Some(kind) = kind else {
            return Ok(None);
        };
        if kind == INTERFACE {
            let interface = self.described();
            self.interfaces.push(interface);
        }
        Ok(Some(Block {
            bytes: &self.bytes,
            kind,
            order: self.written_order(),
            interfaces: &self.interfaces,
        }))
    }

    /// Converted packets are little-endian.
    fn written_order(&self) -> Order {
        match self.format {
            Format::Pcapng => self.order,
            Format::Pcap { .. } => Order::Little,
        }
    }

    /// Reads until the block has this many bytes; false if the input ends before.
    fn fill(&mut self, length: usize) -> Result<bool, Damage> {
        let missing = length.saturating_sub(self.bytes.len());
        let limit = u64::try_from(missing).unwrap_or(u64::MAX);
        // The length may be a lie: memory grows with what is read.
        let mut input = (&mut self.input).take(limit);
        let got = input.read_to_end(&mut self.bytes)?;
        self.at += u64::try_from(got).unwrap_or_default();
        Ok(got == missing)
    }

    /// Reads a block of a pcapng; returns its type.
    fn next_block(&mut self) -> Result<Option<u32>, Damage> {
        // The first bytes were read when the format was recognised.
        if self.number > 0 {
            self.bytes.clear();
        }
        let begin = self.at - u64::try_from(self.bytes.len()).unwrap_or_default();
        let has_head = self.fill(HEAD + TAIL)?;
        if self.bytes.is_empty() {
            return Ok(None);
        }
        if !has_head {
            return Err(Damage::CutOff(begin));
        }
        let invalid = |why| Err(Damage::Invalid(begin, why));
        let kind = self.order.u32(&self.bytes, 0).unwrap_or_default();
        if kind == SECTION {
            let Some((order, _)) = Order::find(&self.bytes, HEAD, &[SECTION_MAGIC]) else {
                return invalid("a section has no known byte order");
            };
            self.order = order;
            self.interfaces.clear();
        }
        let length = self.order.u32(&self.bytes, 4).unwrap_or_default();
        // A section's length is changed.
        let shortest = if kind == SECTION { 28 } else { 12 };
        if !(shortest..=BLOCK_BYTES_MAX).contains(&length) || !length.is_multiple_of(4) {
            return invalid("its length is impossible");
        }
        if !self.fill(usize::try_from(length).unwrap_or(usize::MAX))? {
            return Err(Damage::CutOff(begin));
        }
        let again = self.order.u32(&self.bytes, self.bytes.len() - TAIL);
        if again != Some(length) {
            return invalid("its two lengths differ");
        }
        Ok(Some(kind))
    }

    /// The interface that the block describes.
    fn described(&self) -> Interface {
        let order = self.written_order();
        let mut interface = Interface {
            link: order.u16(&self.bytes, HEAD).unwrap_or_default(),
            resolution: 6,
            offset: 0,
            snaplen: order.u32(&self.bytes, HEAD + 4).unwrap_or_default(),
        };
        let end = self.bytes.len().saturating_sub(TAIL);
        let (known, _end) = options(order, self.bytes.get(HEAD + 8..end).unwrap_or_default());
        for (code, value) in known {
            match (code, value) {
                (OPTION_RESOLUTION, [resolution]) => interface.resolution = *resolution,
                (OPTION_OFFSET, value) => {
                    interface.offset = order.i64(value, 0).unwrap_or_default();
                }
                _ => {}
            }
        }
        interface
    }

    /// Replaces the block.
    fn set(&mut self, kind: u32, body: &[u8]) -> u32 {
        // The parts of a pcap fit.
        self.bytes = framed(Order::Little, kind, body).unwrap_or_default();
        kind
    }

    /// The section that a pcap becomes.
    fn section(&mut self) -> u32 {
        let program = concat!("mptcp-trace ", env!("CARGO_PKG_VERSION"));
        let body = [
            &SECTION_MAGIC.to_le_bytes()[..],
            &[1, 0, 0, 0],
            &(-1_i64).to_le_bytes(),
            &option(Order::Little, OPTION_PROGRAM, program.as_bytes()),
            &option(Order::Little, OPTION_END, &[]),
        ];
        self.set(SECTION, &body.concat())
    }

    /// Its only interface.
    fn interface(&mut self, link: u16, snaplen: u32, is_nanos: bool) -> u32 {
        let resolution = if is_nanos { 9 } else { 6 };
        let body = [
            &u32::from(link).to_le_bytes()[..],
            &snaplen.to_le_bytes(),
            &option(Order::Little, OPTION_RESOLUTION, &[resolution]),
            &option(Order::Little, OPTION_END, &[]),
        ];
        self.set(INTERFACE, &body.concat())
    }

    /// Reads a packet of a pcap.
    fn next_packet(&mut self, is_nanos: bool) -> Result<Option<u32>, Damage> {
        const HEAD: usize = 16;
        self.bytes.clear();
        let begin = self.at;
        let has_head = self.fill(HEAD)?;
        if self.bytes.is_empty() {
            return Ok(None);
        }
        if !has_head {
            return Err(Damage::CutOff(begin));
        }
        let field = |at| self.order.u32(&self.bytes, at).unwrap_or_default();
        let (seconds, fraction, captured, original) = (field(0), field(4), field(8), field(12));
        if captured > PACKET_BYTES_MAX {
            return Err(Damage::Invalid(begin, "its length is impossible"));
        }
        if !self.fill(HEAD + usize::try_from(captured).unwrap_or(usize::MAX))? {
            return Err(Damage::CutOff(begin));
        }
        let per_second = if is_nanos { 1_000_000_000 } else { 1_000_000 };
        let ticks = u64::from(seconds) * per_second + u64::from(fraction);
        let [l0, l1, l2, l3, h0, h1, h2, h3] = ticks.to_le_bytes();
        let mut body = [
            [0; 4],
            [h0, h1, h2, h3],
            [l0, l1, l2, l3],
            captured.to_le_bytes(),
            original.to_le_bytes(),
        ]
        .concat();
        body.extend_from_slice(self.bytes.get(HEAD..).unwrap_or_default());
        body.resize(body.len().next_multiple_of(4), 0);
        Ok(Some(self.set(ENHANCED_PACKET, &body)))
    }
}

/// What a file is that is no packet capture.
fn foreign(head: &[u8], has_magic: bool) -> &'static str {
    match head {
        [] => "it is empty",
        _ if !has_magic => "it is too short for a packet capture",
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] | [0xfd, b'7', b'z', b'X'] => {
            "it is compressed: unpack it first"
        }
        [0x34, 0xcd, 0xb2, 0xa1] | [0xa1, 0xb2, 0xcd, 0x34] => {
            "it is a variant of pcap that this program does not read: convert it (editcap -F pcapng)"
        }
        _ => "it is neither pcapng nor pcap",
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
