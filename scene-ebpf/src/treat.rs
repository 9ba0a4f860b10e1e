//! Applies the orders of a middlebox to one packet.

use core::cell::UnsafeCell;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, PerCpuHashMap},
    programs::XdpContext,
};

use crate::{
    segment::{Flow, OPTIONS_BYTES_MAX, Segment, TCP_BYTES_MIN},
    wire::{DEEDS, DEVICES_MAX, DROPPED, FLIPPED, Orders, SHORTENED, SKEWED, STRIPPED},
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
const DSS: u8 = 2;
/// Flags of a DSS option: data ACK present, data ACK is 8 bytes, mapping present, data sequence
/// number is 8 bytes.
const HAS_ACK: u8 = 0x01;
const LONG_ACK: u8 = 0x02;
const HAS_MAPPING: u8 = 0x04;
const LONG_SEQUENCE: u8 = 0x08;

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
    /// Not 0: an `MP_CAPABLE` option is present.
    capable: Note,
    /// Offset of a DSS option in the segment; 0 if absent.
    dss: Note,
    /// The options, with room to look two bytes ahead without a bounds check.
    options: UnsafeCell<[u8; OPTIONS_BYTES_MAX + 2]>,
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

/// Handles one packet and returns the XDP action.
#[inline(always)]
pub(crate) fn treat(context: &XdpContext) -> u32 {
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
    walk(context, &segment, notes);
    let count = count(&segment, device);
    let is_first = segment.is_syn && orders.is_to_server != 0;
    if notes.capable.get() != 0 && is_first && orders.drop_capable_syn != 0 {
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
    if strips {
        strip(&mut segment, notes.mptcp.get(), device);
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
fn walk(context: &XdpContext, segment: &Segment, notes: &Notes) {
    for note in [&notes.left, &notes.mptcp, &notes.capable, &notes.dss] {
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
        if notes.left.get() == 0 && !begin(options, index, notes) {
            break;
        }
        if notes.kind.get() == u64::from(MPTCP) {
            notes.mptcp.set(notes.mptcp.get() | 1 << index);
        }
        notes.left.set(notes.left.get() - 1);
    }
}

/// Starts parsing the option at this index; false at the end of the list.
#[inline(always)]
fn begin(options: &[u8; OPTIONS_BYTES_MAX + 2], index: usize, notes: &Notes) -> bool {
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
        match subtype >> 4 {
            MP_CAPABLE => notes.capable.set(1),
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
