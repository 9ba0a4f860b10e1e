//! The registers at a kprobe. One object serves every architecture: the loader says which one runs.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext as _,
    programs::{ProbeContext, RetProbeContext},
};
use mptcp_trace_common::layout::Architecture;

use crate::maps::ARCHITECTURE;

/// True on 64-bit ARM. The global is frozen, so that the verifier knows the answer and skips the
/// other architecture's code.
#[inline(always)]
pub(crate) fn is_arm64() -> bool {
    ARCHITECTURE.load() == Architecture::Aarch64 as u32
}

/// Loads 8 bytes of the context. The verifier accepts only constant offsets; the compiler would
/// merge plain loads of both architectures into one with a variable offset.
macro_rules! load {
    ($ctx:expr, $offset:literal) => {{
        let word: u64;
        // SAFETY: `struct pt_regs` is larger than this offset on both architectures, and the
        // verifier checks it.
        unsafe {
            asm!(
                concat!("{word} = *(u64 *)({ctx} + ", $offset, ")"),
                word = out(reg) word, ctx = in(reg) $ctx.as_ptr(), options(nostack, readonly)
            );
        }
        word
    }};
}

/// Argument `n` of the function that a kprobe is on: one of the first six, else 0.
/// The offsets are those of `struct pt_regs` for BPF programs, which is part of the kernel's ABI
/// (`bpf_user_pt_regs_t`).
#[inline(always)]
pub(crate) fn argument(ctx: &ProbeContext, n: usize) -> u64 {
    match (is_arm64(), n) {
        // di, si, dx, cx, r8, r9.
        (false, 0) => load!(ctx, 112),
        (false, 1) => load!(ctx, 104),
        (false, 2) => load!(ctx, 96),
        (false, 3) => load!(ctx, 88),
        (false, 4) => load!(ctx, 72),
        (false, 5) => load!(ctx, 64),
        // x0 to x5.
        (true, 0) => load!(ctx, 0),
        (true, 1) => load!(ctx, 8),
        (true, 2) => load!(ctx, 16),
        (true, 3) => load!(ctx, 24),
        (true, 4) => load!(ctx, 32),
        (true, 5) => load!(ctx, 40),
        _ => 0,
    }
}

/// What the function that a kretprobe is on returns: `ax` or `x0`.
#[inline(always)]
pub(crate) fn returned(ctx: &RetProbeContext) -> u64 {
    if is_arm64() {
        load!(ctx, 0)
    } else {
        load!(ctx, 80)
    }
}
