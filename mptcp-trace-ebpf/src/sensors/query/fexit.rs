//! Rung fexit: trampolines on `mptcp_getsockopt` and `tcp_getsockopt`, whose signature never changed:
//! `int f(struct sock *sk, int level, int optname, char *optval, int *option)`.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use mptcp_trace_common::record::{PATH_MPTCP, PATH_TCP, RUNG_FEXIT};

use super::{enter, is_query, leave};
use crate::kernel::Sock;

/// Where the trampoline keeps the return value: behind the five arguments.
const RETURN_VALUE: usize = 5;

/// `mptcp_getsockopt` is entered.
#[fentry(function = "mptcp_getsockopt")]
pub(crate) fn query_fentry_mptcp(ctx: FEntryContext) -> i32 {
    if is_query(ctx.arg(1), ctx.arg(2)) {
        enter(&ctx, PATH_MPTCP, Sock(ctx.arg(0)));
    }
    0
}

/// `mptcp_getsockopt` returns.
#[fexit(function = "mptcp_getsockopt")]
pub(crate) fn query_fexit_mptcp(ctx: FExitContext) -> i32 {
    if is_query(ctx.arg(1), ctx.arg(2)) {
        leave(&ctx, PATH_MPTCP, RUNG_FEXIT, ctx.arg(RETURN_VALUE));
    }
    0
}

/// `tcp_getsockopt` is entered.
#[fentry(function = "tcp_getsockopt")]
pub(crate) fn query_fentry_tcp(ctx: FEntryContext) -> i32 {
    if is_query(ctx.arg(1), ctx.arg(2)) {
        enter(&ctx, PATH_TCP, Sock(ctx.arg(0)));
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
