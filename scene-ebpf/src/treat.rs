//! Applies the orders of a middlebox to one packet.

use core::{cell::UnsafeCell, hint::black_box};

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, PerCpuHashMap},
    programs::XdpContext,
};

use crate::{
    segment::{Flow, OPTIONS_BYTES_MAX, Segment, TCP_BYTES_MIN, turn_into_rst},
    wire::{
        DEEDS, DEVICES_MAX, DROPPED, FLIPPED, MIRRORED, Orders, REJECTED, RENUMBERED, SHORTENED,
        SKEWED, SPOILT, STRIPPED,
    },
};

/// Orders, by index of the ingress device.
#[map]
static ORDERS: HashMap<u32, Orders> = HashMap::with_max_entries(DEVICES_MAX, 0);

/// Packets changed or dropped, by index of the ingress device.
#[map]
static DONE: PerCpuHashMap<u32, [u64; DEEDS]> = PerCpuHashMap::with_max_entries(DEVICES_MAX, 0);

/// Data packets so far, by connection and direction.
#[map]
static COUNTS: LruHashMap<At, u32> = LruHashMap::with_max_entries(16_384, 0);

/// MPTCP options of SYNs, by connection and direction, and number of the mirror.
#[map]
static ECHOES: LruHashMap<At, Echo> = LruHashMap::with_max_entries(4_096, 0);

/// Maximum length of the MPTCP option of a SYN.
const ECHO_BYTES_MAX: usize = 12;

/// The MPTCP option of a SYN.
#[derive(Clone, Copy)]
#[repr(C)]
struct Echo {
    length: u32,
    bytes: [u8; ECHO_BYTES_MAX],
}

/// A connection and direction at one device: middleboxes share their addresses.
#[derive(Clone, Copy)]
#[repr(C)]
struct At {
    flow: Flow,
    device: u32,
}

/// Kind of the MPTCP option.
const MPTCP: u8 = 30;
/// TCP options of one byte: end of option list, and no-operation.
const END: u8 = 0;
const PADDING: u8 = 1;
/// Subtypes of the MPTCP option.
const MP_CAPABLE: u8 = 0;
const MP_JOIN: u8 = 1;
const DSS: u8 = 2;
/// Offset of the token, or of the HMAC, in an `MP_JOIN` option.
const JOIN_PROOF: usize = 4;
/// Flags of a DSS option: data ACK present, data ACK is 8 bytes, mapping present, data sequence
/// number is 8 bytes.
const HAS_ACK: u8 = 0x01;
const LONG_ACK: u8 = 0x02;
const HAS_MAPPING: u8 = 0x04;
const LONG_SEQUENCE: u8 = 0x08;

/// Room for the options and what is behind them, a power of two.
pub(crate) const ROOM: usize = 64;

/// The options of a segment, and the results of parsing them.
///
/// Kept in a map, because the verifier does not track values in maps. With local variables it would
/// explore every value in every iteration, until it reaches its limit.
#[repr(C)]
struct Notes {
    /// Length of the options.
    length: Note,
    /// Bytes left in the current option.
    left: Note,
    /// Kind of the current option.
    kind: Note,
    /// Bit N: byte N belongs to an MPTCP option.
    mptcp: Note,
    /// Bit N: byte N belongs to a DSS option.
    dss_bytes: Note,
    /// Index of the first MPTCP option, and its length; 0 if absent.
    first: Note,
    first_length: Note,
    /// Subtype of the current MPTCP option.
    subtype: Note,
    /// Not 0: an `MP_CAPABLE` option is present.
    capable: Note,
    /// Offset of a DSS option in the segment; 0 if absent.
    dss: Note,
    /// Offset of an `MP_JOIN` option in the segment; 0 if absent.
    join: Note,
    /// The options, with room to look ahead without a bounds check.
    options: UnsafeCell<[u8; ROOM]>,
    /// The options that replace them.
    kept: UnsafeCell<[u8; ROOM]>,
}

// SAFETY: each CPU has its own slot; no other user of it can interrupt this program there.
unsafe impl Sync for Notes {}

/// An integer that the compiler must keep in the map.
#[repr(transparent)]
struct Note(UnsafeCell<u64>);

impl Note {
    #[inline(always)]
    fn get(&self) -> u64 {
        // SAFETY: the pointer is valid, and no other reference to the value exists.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn set(&self, value: u64) {
        // SAFETY: as above.
        unsafe { self.0.get().write_volatile(value) }
    }
}

/// Scratch space for the packet being handled.
#[map]
static NOTES: PerCpuArray<Notes> = PerCpuArray::with_max_entries(1, 0);

/// Handles one packet and returns the XDP action. Without `MORE` it ignores orders that cost the
/// verifier too much for an emulated machine: `compact`, `strip_dss`, `drop_option_syn`, `mirror` and
/// the numbers to add.
#[inline(always)]
pub(crate) fn treat<const MORE: bool>(context: &XdpContext) -> u32 {
    // SAFETY: the context is the one that the kernel passed to the program.
    let device = unsafe { (*context.ctx).ingress_ifindex };
    let (Some(notes), Some(orders)) = (NOTES.get(0), ORDERS.get_ptr(device)) else {
        return XDP_PASS;
    };
    // SAFETY: the pointer is into the map's value. Orders that change meanwhile apply in part.
    let orders = unsafe { &*orders };
    let Some(mut segment) = Segment::parse(context) else {
        return XDP_PASS;
    };
    let drops = match segment.is_syn {
        true => orders.drop_all | orders.drop_syn,
        false => orders.drop_all | orders.drop_rest,
    };
    if drops != 0 {
        done(device, DROPPED);
        return XDP_DROP;
    }
    if orders.reject != 0 && !segment.is_rst && turn_into_rst(context) {
        done(device, REJECTED);
        return XDP_TX;
    }
    walk::<MORE>(context, &segment, notes);
    let count = count(&segment, device);
    let is_first = segment.is_syn && orders.is_to_server != 0;
    if notes.capable.get() != 0 && is_first && orders.drop_capable_syn != 0 {
        done(device, DROPPED);
        return XDP_DROP;
    }
    if MORE
        && orders.drop_option_syn != 0
        && segment.is_syn
        && !segment.is_ack
        && notes.mptcp.get() != 0
    {
        done(device, DROPPED);
        return XDP_DROP;
    }
    let strips = if segment.is_syn {
        orders.strip_syn != 0
    } else {
        count >= orders.strip_from
    };
    // The mask only gives the verifier its bound: a header is shorter than 64 bytes.
    let dss = (notes.dss.get() & 0x3f) as usize;
    let join = (notes.join.get() & 0x3f) as usize;
    let spoils_join = match segment.is_syn {
        true => orders.spoil_join_syn,
        false => orders.spoil_join_ack,
    };
    // The options that are stripped.
    let mask = match strips {
        true => notes.mptcp.get(),
        false if MORE && orders.strip_dss != 0 => notes.dss_bytes.get(),
        false if MORE && orders.mirror != 0 && segment.is_syn => {
            mirror(&mut segment, notes, orders, device)
        }
        false => 0,
    };
    if MORE && orders.sequence_add | orders.acknowledgement_add != 0 {
        renumber(&mut segment, orders, device);
    }
    if MORE && mask != 0 && (orders.compact | orders.mirror) != 0 {
        remove(context, segment, notes, mask, device);
        return XDP_PASS;
    }
    if mask != 0 {
        strip(&mut segment, mask, device);
    } else if join != 0 && spoils_join != 0 {
        if let Some(byte) = segment.get(join + JOIN_PROOF) {
            segment.put(join + JOIN_PROOF, !byte);
            done(device, SPOILT);
        }
    } else if dss != 0 {
        spoil(&mut segment, dss, count, orders, device);
    }
    if segment.has_payload && !segment.is_syn && count == orders.flip_at {
        flip(&mut segment, device);
    }
    segment.correct_checksum();
    XDP_PASS
}

/// Number of this data packet; for a packet without data, the number of data packets before it.
#[inline(always)]
fn count(segment: &Segment, device: u32) -> u32 {
    let at = At {
        flow: segment.flow,
        device,
    };
    let is_data = segment.has_payload && !segment.is_syn;
    if !segment.is_syn
        && let Some(count) = COUNTS.get_ptr_mut(at)
    {
        // SAFETY: the pointer is into the map's value. Two simultaneous packets of one connection
        // and direction could be counted as one; the sender's socket lock serializes them.
        let count = unsafe { &mut *count };
        *count += u32::from(is_data);
        return *count;
    }
    let count = u32::from(is_data);
    // Cannot be full: an LRU map evicts the least recently used entry.
    let _full = COUNTS.insert(at, count, 0);
    count
}

/// Finds the MPTCP options.
///
/// One loop over the bytes: nested loops over options and bytes would exceed the verifier's limit.
#[inline(always)]
fn walk<const MORE: bool>(context: &XdpContext, segment: &Segment, notes: &Notes) {
    for note in [
        &notes.left,
        &notes.mptcp,
        &notes.capable,
        &notes.dss,
        &notes.join,
        &notes.dss_bytes,
        &notes.first_length,
    ] {
        note.set(0);
    }
    let length = segment.load_options(context, notes.options.get().cast());
    notes.length.set(length as u64);
    // SAFETY: nothing writes to the options from here on.
    let options = unsafe { &*notes.options.get() };
    for index in 0..OPTIONS_BYTES_MAX {
        if index as u64 >= notes.length.get() {
            break;
        }
        if notes.left.get() == 0 && !begin::<MORE>(options, index, notes) {
            break;
        }
        if notes.kind.get() == u64::from(MPTCP) {
            notes.mptcp.set(notes.mptcp.get() | 1 << index);
            if MORE && notes.subtype.get() == u64::from(DSS) {
                notes.dss_bytes.set(notes.dss_bytes.get() | 1 << index);
            }
        }
        notes.left.set(notes.left.get() - 1);
    }
}

/// Starts parsing the option at this index; false at the end of the list.
#[inline(always)]
fn begin<const MORE: bool>(options: &[u8; ROOM], index: usize, notes: &Notes) -> bool {
    let [kind, option_length, subtype] = [options[index], options[index + 1], options[index + 2]];
    let option_length = match kind {
        PADDING => 1,
        // Invalid length: the receiver stops parsing here, and so do we.
        _ if option_length < 2 => return false,
        _ => option_length,
    };
    if kind == END || index as u64 + u64::from(option_length) > notes.length.get() {
        return false;
    }
    notes.left.set(option_length.into());
    notes.kind.set(kind.into());
    if kind == MPTCP {
        if MORE {
            notes.subtype.set((subtype >> 4).into());
        }
        if MORE && notes.first_length.get() == 0 {
            notes.first.set(index as u64);
            notes.first_length.set(option_length.into());
        }
        match subtype >> 4 {
            MP_CAPABLE => notes.capable.set(1),
            MP_JOIN => notes.join.set((TCP_BYTES_MIN + index) as u64),
            DSS => notes.dss.set((TCP_BYTES_MIN + index) as u64),
            _ => {}
        }
    }
    true
}

/// Overwrites the MPTCP options with NOPs.
#[inline(always)]
fn strip(segment: &mut Segment, mptcp: u64, device: u32) {
    if mptcp == 0 {
        return;
    }
    for index in 0..OPTIONS_BYTES_MAX {
        // Check each byte, so that the verifier has the same bounds on both branches.
        if segment.get(TCP_BYTES_MIN + index).is_none() {
            break;
        }
        if mptcp >> index & 1 != 0 {
            segment.put(TCP_BYTES_MIN + index, PADDING);
        }
    }
    done(device, STRIPPED);
}

/// Removes options: those behind them move up. A packet without payload becomes shorter, if the
/// header's length can say so; in others the list ends earlier.
#[inline(always)]
fn remove(context: &XdpContext, mut segment: Segment, notes: &Notes, mask: u64, device: u32) {
    // SAFETY: nothing else reads or writes the options here.
    let options = unsafe { &*notes.options.get() };
    // SAFETY: as above.
    let kept = unsafe { &mut *notes.kept.get() };
    *kept = *options;
    let length = notes.length.get();
    notes.left.set(0);
    for (index, byte) in options.iter().enumerate().take(OPTIONS_BYTES_MAX) {
        if index as u64 >= length {
            break;
        }
        if mask >> index & 1 == 0 {
            kept[within(notes.left.get() as usize)] = *byte;
            notes.left.set(notes.left.get() + 1);
        }
    }
    let removed = length.wrapping_sub(notes.left.get());
    for _ in 0..OPTIONS_BYTES_MAX {
        if notes.left.get() >= length {
            break;
        }
        kept[within(notes.left.get() as usize)] = END;
        notes.left.set(notes.left.get() + 1);
    }
    segment.store_options(context, length as usize, options, kept);
    done(device, STRIPPED);
    if !segment.has_payload && removed.is_multiple_of(4) && removed - 1 < OPTIONS_BYTES_MAX as u64 {
        segment.cut(context, removed as usize);
    } else {
        segment.correct_checksum();
    }
}

/// Keeps the MPTCP option of a SYN; puts it into the options of the SYN/ACK, and returns which bytes
/// of these are not needed any more.
#[inline(always)]
fn mirror(segment: &mut Segment, notes: &Notes, orders: &Orders, device: u32) -> u64 {
    let (first, length) = (notes.first.get(), notes.first_length.get());
    if length == 0 || first >= OPTIONS_BYTES_MAX as u64 {
        return 0;
    }
    // SAFETY: nothing else reads or writes the options here.
    let options = unsafe { &mut *notes.options.get() };
    let device_of_both = orders.mirror;
    if !segment.is_ack {
        let mut echo = Echo {
            length: length as u32,
            bytes: [0; ECHO_BYTES_MAX],
        };
        for (index, byte) in echo.bytes.iter_mut().enumerate() {
            *byte = options[within(first as usize + index)];
        }
        let at = At {
            flow: segment.flow,
            device: device_of_both,
        };
        // Cannot be full: an LRU map evicts the least recently used entry.
        let _full = ECHOES.insert(at, echo, 0);
        return 0;
    }
    let at = At {
        flow: segment.flow.reversed(),
        device: device_of_both,
    };
    let Some(echo) = ECHOES.get_ptr(at) else {
        return 0;
    };
    // SAFETY: the pointer is into the map's value.
    let echo = unsafe { &*echo };
    let own = u64::from(echo.length);
    if own > length || own > ECHO_BYTES_MAX as u64 {
        return 0;
    }
    for (index, byte) in echo.bytes.iter().enumerate() {
        if (index as u64) < own {
            // In the packet too: `remove` compares the two.
            let at = within(first as usize + index);
            options[at] = *byte;
            segment.put(TCP_BYTES_MIN + at, *byte);
        }
    }
    done(device, MIRRORED);
    let kept = ((1_u64 << (own & 0x1f)) - 1) << (first & 0x3f);
    notes.mptcp.get() & !kept
}

/// The index, with a bound that the compiler keeps for the verifier.
#[inline(always)]
fn within(index: usize) -> usize {
    black_box(index) & (ROOM - 1)
}

/// Changes the sequence number, and the acknowledgement number of the other direction's.
#[inline(always)]
fn renumber(segment: &mut Segment, orders: &Orders, device: u32) {
    const SEQUENCE: usize = 4;
    const ACKNOWLEDGEMENT: usize = 8;
    segment.add(SEQUENCE, orders.sequence_add);
    if segment.is_ack {
        segment.add(ACKNOWLEDGEMENT, orders.acknowledgement_add);
    }
    done(device, RENUMBERED);
}

/// Corrupts a DSS option as ordered. A DSS option without a mapping stays unchanged.
#[inline(always)]
fn spoil(segment: &mut Segment, dss: usize, count: u32, orders: &Orders, device: u32) {
    let Some(flags) = segment.get(dss + 3) else {
        return;
    };
    if flags & HAS_MAPPING == 0 {
        return;
    }
    let acknowledgement = match flags & (HAS_ACK | LONG_ACK) {
        HAS_ACK => 4,
        both if both == HAS_ACK | LONG_ACK => 8,
        _ => 0,
    };
    let sequence = if flags & LONG_SEQUENCE != 0 { 8 } else { 4 };
    let subflow_sequence = dss + 4 + acknowledgement + sequence;
    if count >= orders.skew_from
        && let Some(high) = segment.get(subflow_sequence)
    {
        // Too large a change for the result to fall into any mapping.
        segment.put(subflow_sequence, high ^ 0x40);
        done(device, SKEWED);
    }
    if count >= orders.shorten_from {
        shorten(segment, subflow_sequence + 4, device);
    }
}

/// Decrements a data-level length, but not to 0, which would mean an infinite mapping.
#[inline(always)]
fn shorten(segment: &mut Segment, offset: usize, device: u32) {
    let (Some(high), Some(low)) = (segment.get(offset), segment.get(offset + 1)) else {
        return;
    };
    let length = u16::from_be_bytes([high, low]);
    if length > 1 {
        let [high, low] = (length - 1).to_be_bytes();
        segment.put(offset, high);
        segment.put(offset + 1, low);
        done(device, SHORTENED);
    }
}

/// Flips the first byte of the payload.
#[inline(always)]
fn flip(segment: &mut Segment, device: u32) {
    let offset = segment.payload();
    if let Some(byte) = segment.get(offset) {
        segment.put(offset, !byte);
        done(device, FLIPPED);
    }
}

/// Increments a counter of the device.
#[inline(always)]
fn done(device: u32, deed: usize) {
    if let Some(counters) = DONE.get_ptr_mut(device) {
        // SAFETY: the pointer is into this CPU's value of the map, and no other program that counts
        // can interrupt this one on its CPU.
        unsafe { (*counters)[deed] += 1 };
    }
}
