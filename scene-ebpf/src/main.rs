//! The lab's middlebox as an XDP program: it takes MPTCP out of packets, spoils it, or drops them.
//!
//! It sits where packets arrive, once at the server's end of a veth pair and once at the client's, and
//! expects whole packets with a complete TCP checksum: the rig has switched the offloads off.

#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand the context over by value"
)]

mod segment;
mod treat;
mod wire;

use aya_ebpf::{macros::xdp, programs::XdpContext};

/// Treats every packet that arrives at a device of a middlebox. The device's index selects the orders, so that one
/// loaded program serves any number of middleboxes at the same time.
#[xdp]
fn middlebox(context: XdpContext) -> u32 {
    treat::treat(&context)
}

/// Licence of the object, as that of the tracer's.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that this is never reached.
    loop {}
}
