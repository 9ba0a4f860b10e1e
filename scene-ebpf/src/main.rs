//! XDP program of the lab's middlebox: strips MPTCP options, corrupts them, or drops packets.
//!
//! It runs on ingress, at the server's end of a veth pair and at the client's end. It expects
//! linear packets with a complete TCP checksum: the lab switches the offloads off.

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

/// Handles every packet that arrives at a device of a middlebox. The orders are looked up by the
/// ingress device's index, so one loaded program serves any number of middleboxes at the same time.
#[xdp]
fn middlebox(context: XdpContext) -> u32 {
    treat::treat::<false>(&context)
}

/// Licence of the object, the same as the tracer's.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable; the verifier proves it.
    loop {}
}
