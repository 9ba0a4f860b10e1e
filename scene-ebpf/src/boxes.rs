//! XDP programs of the lab's routers: the middlebox with more that it can do, for which the verifier
//! needs longer, and what routers quote of the packets that they drop.
//!
//! They run on ingress, at both devices of a router. They expect linear packets with a complete TCP
//! checksum: the lab switches the offloads off.

#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand the context over by value"
)]

mod quote;
mod segment;
mod treat;
mod wire;

use aya_ebpf::{macros::xdp, programs::XdpContext};

/// Handles every packet that arrives at a device of a middlebox. The orders are looked up by the
/// ingress device's index, so one loaded program serves any number of middleboxes at the same time.
#[xdp]
fn middlebox(context: XdpContext) -> u32 {
    treat::treat::<true>(&context)
}

/// Shortens the packets that arrive at a device and quote another one, "time exceeded", to the quote
/// that RFC 792 asks for: the IP header and 8 bytes.
#[xdp]
fn short_quotes(context: XdpContext) -> u32 {
    quote::shorten(&context)
}

/// Drops the packets that arrive at a device and quote another one: its routers are silent.
#[xdp]
fn no_quotes(context: XdpContext) -> u32 {
    quote::drop(&context)
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
