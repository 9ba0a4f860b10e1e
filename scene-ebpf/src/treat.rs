//! What is done to a packet.

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

/// What to do, by index of the device where packets arrive.
#[map]
static ORDERS: HashMap<u32, Orders> = HashMap::with_max_entries(DEVICES_MAX, 0);

/// What was done, by index of the device.
#[map]
static DONE: PerCpuHashMap<u32, [u64; DEEDS]> = PerCpuHashMap::with_max_entries(DEVICES_MAX, 0);

/// Data packets so far, of each connection and direction.
#[map]
static COUNTS: LruHashMap<At, u32> = LruHashMap::with_max_entries(16_384, 0);

/// A connection and direction at one device: middleboxes have the same addresses.
#[derive(Clone, Copy)]
#[repr(C)]
struct At {
    flow: Flow,
    device: u32,
}

/// TCP option of MPTCP.
const MPTCP: u8 = 30;
/// TCP options of one byte: the end of the list, and padding.
const END: u8 = 0;
const PADDING: u8 = 1;
/// Subtypes of the MPTCP option.
const MP_CAPABLE: u8 = 0;
const DSS: u8 = 2;
/// Flags of a DSS option: a data acknowledgement is there, it has 8 bytes, a mapping is there, its data
/// sequence number has 8 bytes.
const HAS_ACK: u8 = 0x01;
const LONG_ACK: u8 = 0x02;
const HAS_MAPPING: u8 = 0x04;
const LONG_SEQUENCE: u8 = 0x08;

/// The options of a segment, and what is known of them.
///
/// In a map: what is there the verifier forgets at once. Of local variables it would tell apart every value, in
/// every iteration, until it gives up.
#[repr(C)]
struct Notes {
    /// Length of the options.
    length: Note,
    /// Bytes left in this option.
    left: Note,
    /// Its kind.
    kind: Note,
    /// Bit N: the N-th byte belongs to an MPTCP option.
    mptcp: Note,
    /// Not 0: one is `MP_CAPABLE`.
    capable: Note,
    /// Offset of a DSS option in the segment; 0 if there is none.
    dss: Note,
    /// The options, and room to look beyond an option's first byte without asking where they end.
    options: UnsafeCell<[u8; OPTIONS_BYTES_MAX + 2]>,
}

// SAFETY: each processor has a slot of its own, and nothing interrupts this program there that would use it.
unsafe impl Sync for Notes {}

/// A number that the compiler leaves in the map.
#[repr(transparent)]
struct Note(UnsafeCell<u64>);

impl Note {
    #[inline(always)]
    fn get(&self) -> u64 {
        // SAFETY: the number is valid, and nobody else uses it.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn set(&self, value: u64) {
        // SAFETY: as above.
        unsafe { self.0.get().write_volatile(value) }
    }
}

/// Room for the notes about one packet.
#[map]
static NOTES: PerCpuArray<Notes> = PerCpuArray::with_max_entries(1, 0);

/// Handles one packet, and says what shall become of it.
#[inline(always)]
pub(crate) fn treat(context: &XdpContext) -> u32 {
    // SAFETY: the context is the one that the kernel has called the program with.
    let device = unsafe { (*context.ctx).ingress_ifindex };
    let (Some(notes), Some(orders)) = (NOTES.get(0), ORDERS.get_ptr(device)) else {
        return XDP_PASS;
    };
    // SAFETY: the pointer is into the map's value. An order that changes in the middle of a packet is obeyed in part.
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
    // The mask changes nothing, but the verifier believes it: a header ends before its 64th byte.
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

/// The number of this data packet, or how many there were before a packet without data.
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
        // SAFETY: the pointer is into the map's value. Two packets of one connection and direction at the
        // same time could be counted as one; the sender's lock on its socket keeps them apart.
        let count = unsafe { &mut *count };
        *count += u32::from(is_data);
        return *count;
    }
    let count = u32::from(is_data);
    // There is always room: the map forgets whom it has not seen for longest.
    let _full = COUNTS.insert(at, count, 0);
    count
}

/// Finds what MPTCP has put into the options.
///
/// One loop over the bytes. The verifier would not follow one over the options with another one inside.
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

/// Begins with the option at this place; false if there is none.
#[inline(always)]
fn begin(options: &[u8; OPTIONS_BYTES_MAX + 2], index: usize, notes: &Notes) -> bool {
    let [kind, option_length, subtype] = [options[index], options[index + 1], options[index + 2]];
    let option_length = match kind {
        PADDING => 1,
        // A length that cannot be: the receiver stops here, and so do we.
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

/// Replaces MPTCP by padding.
#[inline(always)]
fn strip(segment: &mut Segment, mptcp: u64, device: u32) {
    if mptcp == 0 {
        return;
    }
    for index in 0..OPTIONS_BYTES_MAX {
        // Looked at for each byte, so that the verifier knows the same about the packet on either way.
        if segment.get(TCP_BYTES_MIN + index).is_none() {
            break;
        }
        if mptcp >> index & 1 != 0 {
            segment.put(TCP_BYTES_MIN + index, PADDING);
        }
    }
    done(device, STRIPPED);
}

/// Makes a DSS option wrong, as ordered. One that maps nothing stays as it is.
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
        // So far away that it cannot fall into any mapping.
        segment.put(subflow_sequence, high ^ 0x40);
        done(device, SKEWED);
    }
    if count >= orders.shorten_from {
        shorten(segment, subflow_sequence + 4, device);
    }
}

/// Makes a data-level length smaller by one, but not 0: that would mean an endless mapping.
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

/// Adds one to a counter of the device.
#[inline(always)]
fn done(device: u32, deed: usize) {
    if let Some(counters) = DONE.get_ptr_mut(device) {
        // SAFETY: the pointer is into this CPU's value of the map, and nothing interrupts this program on its
        // CPU that would count as well.
        unsafe { (*counters)[deed] += 1 };
    }
}
