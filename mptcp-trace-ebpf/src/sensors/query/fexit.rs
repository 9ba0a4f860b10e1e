//! Rung fexit: trampolines on `mptcp_getsockopt` and `tcp_getsockopt`, whose signature never changed:
//! `int f(struct sock *sk, int level, int optname, char *optval, int *option)`.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use mptcp_trace_common::record::{PATH_MPTCP, PATH_TCP, PATH_UNSEEN, RUNG_FEXIT};

use super::{
    enter, enter_protocol, is_protocol_query, is_query, leave, option,
    refused::{is_ordinary, is_refusal, option_refused, outcome},
};
use crate::kernel::{Sock, sock_of_socket};

/// Where the trampoline keeps the return value: behind the five arguments.
const RETURN_VALUE: usize = 5;

/// `mptcp_getsockopt` is entered.
#[fentry(function = "mptcp_getsockopt")]
pub(crate) fn query_fentry_mptcp(ctx: FEntryContext) -> i32 {
    if is_query(ctx.arg(1), ctx.arg(2)) {
        enter(
            &ctx,
            PATH_MPTCP,
            Sock(ctx.arg(0)),
            option(ctx.arg(1), ctx.arg(2)),
        );
    }
    0
}

/// `mptcp_getsockopt` returns.
#[fexit(function = "mptcp_getsockopt")]
pub(crate) fn query_fexit_mptcp(ctx: FExitContext) -> i32 {
    if is_query(ctx.arg(1), ctx.arg(2)) {
        leave(&ctx, PATH_MPTCP, RUNG_FEXIT, ctx.arg(RETURN_VALUE));
    } else {
        refused(&ctx, ctx.arg(RETURN_VALUE), false);
    }
    0
}

/// An option of a socket was set, or asked for, and perhaps refused.
#[inline(always)]
fn refused(ctx: &FExitContext, ret: i32, is_set: bool) {
    if is_refusal(ret) && is_ordinary(ctx.arg(1)) {
        let option = option(ctx.arg(1), ctx.arg(2));
        option_refused(ctx.arg(0), option, outcome(ret, is_set, RUNG_FEXIT));
    }
}

/// `mptcp_setsockopt(sk, level, optname, sockptr_t optval, optlen)` returns: one of its arguments takes two words.
#[fexit(function = "mptcp_setsockopt")]
pub(crate) fn query_fexit_set(ctx: FExitContext) -> i32 {
    const RETURN_VALUE: usize = 6;
    refused(&ctx, ctx.arg(RETURN_VALUE), true);
    0
}

/// `tcp_getsockopt` is entered.
#[fentry(function = "tcp_getsockopt")]
pub(crate) fn query_fentry_tcp(ctx: FEntryContext) -> i32 {
    if is_query(ctx.arg(1), ctx.arg(2)) {
        enter(
            &ctx,
            PATH_TCP,
            Sock(ctx.arg(0)),
            option(ctx.arg(1), ctx.arg(2)),
        );
    }
    0
}

/// `tcp_getsockopt` returns.
#[fexit(function = "tcp_getsockopt")]
pub(crate) fn query_fexit_tcp(ctx: FExitContext) -> i32 {
    if is_query(ctx.arg(1), ctx.arg(2)) {
        leave(&ctx, PATH_TCP, RUNG_FEXIT, ctx.arg(RETURN_VALUE));
    }
    0
}

/// `sock_getsockopt(sock, level, optname, optval, optlen)` is entered.
#[fentry(function = "sock_getsockopt")]
pub(crate) fn query_fentry_socket(ctx: FEntryContext) -> i32 {
    if is_protocol_query(ctx.arg(1), ctx.arg(2))
        && let Some(sk) = sock_of_socket(ctx.arg(0))
    {
        enter_protocol(&ctx, sk);
    }
    0
}

/// `sock_getsockopt` returns.
#[fexit(function = "sock_getsockopt")]
pub(crate) fn query_fexit_socket(ctx: FExitContext) -> i32 {
    if is_protocol_query(ctx.arg(1), ctx.arg(2)) {
        leave(&ctx, PATH_UNSEEN, RUNG_FEXIT, ctx.arg(RETURN_VALUE));
    }
    0
}

/// Where it is for `sk_getsockopt(sk, level, optname, sockptr_t optval, sockptr_t optlen)`: two of its arguments take
/// two words each.
const RETURN_VALUE_OF_SK_GETSOCKOPT: usize = 7;

/// `sk_getsockopt` is entered.
#[fentry(function = "sk_getsockopt")]
pub(crate) fn query_fentry_sock(ctx: FEntryContext) -> i32 {
    if is_protocol_query(ctx.arg(1), ctx.arg(2)) {
        enter_protocol(&ctx, Sock(ctx.arg(0)));
    }
    0
}

/// `sk_getsockopt` returns.
#[fexit(function = "sk_getsockopt")]
pub(crate) fn query_fexit_sock(ctx: FExitContext) -> i32 {
    if is_protocol_query(ctx.arg(1), ctx.arg(2)) {
        let ret = ctx.arg(RETURN_VALUE_OF_SK_GETSOCKOPT);
        leave(&ctx, PATH_UNSEEN, RUNG_FEXIT, ret);
    }
    0
}
