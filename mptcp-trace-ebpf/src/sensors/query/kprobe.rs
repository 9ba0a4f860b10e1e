//! Rung kprobe: breakpoints on `mptcp_getsockopt_sol_tcp` where the kernel has that symbol, else on
//! `mptcp_getsockopt`, and on `do_tcp_getsockopt`.

use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use mptcp_trace_common::record::{PATH_MPTCP, PATH_TCP, PATH_UNSEEN, RUNG_KPROBE};

use super::{
    SOL_TCP, enter, enter_protocol, is_mptcp_query, is_protocol_query, is_query, leave, option,
    refused::{is_ordinary, is_refusal, option_refused, outcome},
};
use crate::{
    kernel::{Sock, sock_of_socket},
    sensors::fallback::{Keeper, keep, kept},
};

/// Argument `n`, or 0 where the architecture has no register for it.
#[inline(always)]
fn argument(ctx: &ProbeContext, n: usize) -> u64 {
    ctx.arg(n).unwrap_or(0)
}

/// What a function was asked for: `f(sk, level, optname, ...)`.
#[inline(always)]
fn level_and_number(ctx: &ProbeContext) -> (u32, u32) {
    (argument(ctx, 1) as u32, argument(ctx, 2) as u32)
}

/// `mptcp_getsockopt_sol_tcp(msk, optname, optval, optlen)` is entered: not fallen back, or it would
/// not have come here.
#[kprobe]
pub(crate) fn query_kprobe_sol_tcp(ctx: ProbeContext) -> u32 {
    let asked = argument(&ctx, 1) as u32;
    if is_query(SOL_TCP, asked) {
        let option = option(SOL_TCP, asked);
        enter(&ctx, PATH_MPTCP, Sock(argument(&ctx, 0)), option);
    }
    0
}

/// `mptcp_getsockopt(sk, level, optname, optval, option)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_mptcp(ctx: ProbeContext) -> u32 {
    let (level, asked) = level_and_number(&ctx);
    if is_query(level, asked) {
        enter(
            &ctx,
            PATH_MPTCP,
            Sock(argument(&ctx, 0)),
            option(level, asked),
        );
    } else if is_ordinary(level) {
        keep(Keeper::GetOption, argument(&ctx, 0), option(level, asked));
    }
    0
}

/// Either of the two returns.
#[kretprobe]
pub(crate) fn query_kretprobe_mptcp(ctx: RetProbeContext) -> u32 {
    leave(&ctx, PATH_MPTCP, RUNG_KPROBE, ctx.ret());
    refused(&ctx, Keeper::GetOption, false);
    0
}

/// An option of a socket was set, or asked for, and perhaps refused.
#[inline(always)]
fn refused(ctx: &RetProbeContext, keeper: Keeper, is_set: bool) {
    let Some([sk, option]) = kept(keeper) else {
        return;
    };
    let ret: i32 = ctx.ret();
    if is_refusal(ret) {
        option_refused(sk, option, outcome(ret, is_set, RUNG_KPROBE));
    }
}

/// `mptcp_setsockopt(sk, level, optname, ...)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_set(ctx: ProbeContext) -> u32 {
    let (level, asked) = level_and_number(&ctx);
    if is_ordinary(level) {
        keep(Keeper::SetOption, argument(&ctx, 0), option(level, asked));
    }
    0
}

/// `mptcp_setsockopt` returns.
#[kretprobe]
pub(crate) fn query_kretprobe_set(ctx: RetProbeContext) -> u32 {
    refused(&ctx, Keeper::SetOption, true);
    0
}

/// `do_tcp_getsockopt(sk, level, optname, ...)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_tcp(ctx: ProbeContext) -> u32 {
    let (level, asked) = level_and_number(&ctx);
    if is_query(level, asked) {
        enter(
            &ctx,
            PATH_TCP,
            Sock(argument(&ctx, 0)),
            option(level, asked),
        );
    }
    0
}

/// `tcp_getsockopt(sk, level, optname, ...)` is entered, where `do_tcp_getsockopt` is probed too: that one is not asked
/// for what is not TCP's own.
#[kprobe]
pub(crate) fn query_kprobe_other(ctx: ProbeContext) -> u32 {
    let (level, asked) = level_and_number(&ctx);
    if is_mptcp_query(level, asked) {
        let sk = Sock(argument(&ctx, 0));
        enter(&ctx, PATH_TCP, sk, option(level, asked));
    }
    0
}

/// Either of the two returns.
#[kretprobe]
pub(crate) fn query_kretprobe_tcp(ctx: RetProbeContext) -> u32 {
    leave(&ctx, PATH_TCP, RUNG_KPROBE, ctx.ret());
    0
}

/// `sock_getsockopt(sock, level, optname, ...)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_socket(ctx: ProbeContext) -> u32 {
    let (level, asked) = level_and_number(&ctx);
    if is_protocol_query(level, asked)
        && let Some(sk) = sock_of_socket(argument(&ctx, 0))
    {
        enter_protocol(&ctx, sk);
    }
    0
}

/// `sk_getsockopt(sk, level, optname, ...)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_sock(ctx: ProbeContext) -> u32 {
    let (level, asked) = level_and_number(&ctx);
    if is_protocol_query(level, asked) {
        enter_protocol(&ctx, Sock(argument(&ctx, 0)));
    }
    0
}

/// Either of the two returns.
#[kretprobe]
pub(crate) fn query_kretprobe_sock(ctx: RetProbeContext) -> u32 {
    leave(&ctx, PATH_UNSEEN, RUNG_KPROBE, ctx.ret());
    0
}
