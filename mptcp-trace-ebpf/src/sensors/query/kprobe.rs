//! Rung kprobe: breakpoints on `mptcp_getsockopt_sol_tcp` where the kernel has that symbol, else on
//! `mptcp_getsockopt`, and on `do_tcp_getsockopt`.

use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use mptcp_trace_common::record::{PATH_MPTCP, PATH_TCP, RUNG_KPROBE};

use super::{enter, is_query, leave};
use crate::kernel::Sock;

/// Argument `n`, or 0 where the architecture has no register for it.
#[inline(always)]
fn argument(ctx: &ProbeContext, n: usize) -> u64 {
    ctx.arg(n).unwrap_or(0)
}

/// `mptcp_getsockopt_sol_tcp(msk, optname, optval, optlen)` is entered: not fallen back, or it would
/// not have come here.
#[kprobe]
pub(crate) fn query_kprobe_sol_tcp(ctx: ProbeContext) -> u32 {
    if is_query(super::SOL_TCP, argument(&ctx, 1) as u32) {
        enter(&ctx, PATH_MPTCP, Sock(argument(&ctx, 0)));
    }
    0
}

/// `mptcp_getsockopt(sk, level, optname, optval, option)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_mptcp(ctx: ProbeContext) -> u32 {
    if is_query(argument(&ctx, 1) as u32, argument(&ctx, 2) as u32) {
        enter(&ctx, PATH_MPTCP, Sock(argument(&ctx, 0)));
    }
    0
}

/// Either of the two returns.
#[kretprobe]
pub(crate) fn query_kretprobe_mptcp(ctx: RetProbeContext) -> u32 {
    leave(&ctx, PATH_MPTCP, RUNG_KPROBE, ctx.ret());
    0
}

/// `do_tcp_getsockopt(sk, level, optname, ...)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_tcp(ctx: ProbeContext) -> u32 {
    if is_query(argument(&ctx, 1) as u32, argument(&ctx, 2) as u32) {
        enter(&ctx, PATH_TCP, Sock(argument(&ctx, 0)));
    }
    0
}

/// `do_tcp_getsockopt` returns.
#[kretprobe]
pub(crate) fn query_kretprobe_tcp(ctx: RetProbeContext) -> u32 {
    leave(&ctx, PATH_TCP, RUNG_KPROBE, ctx.ret());
    0
}
