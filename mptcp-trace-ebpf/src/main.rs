//! The BPF side of mptcp-trace: it observes, timestamps, and emits or counts. It never interprets.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "core's atomic integers need compare-and-swap for their addition; BPF can add atomically without"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand the context over by value"
)]

mod admit;
mod call_args;
mod emit;
mod entry;
mod kernel;
mod maps;
mod sensors;
mod turns;

/// Licence of the object: the kernel provides its helpers only to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the verifier rejects a program that could get here.
    loop {}
}
