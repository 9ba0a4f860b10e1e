//! What happens to a path before it ends.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use mptcp_trace_common::record::{Kind, PathEvents, PathFlags, PathSite, RecordRung};

use super::{
    LISTEN,
    life::happened,
    lost::no_listener,
    record::{emit_refused_packet, what},
};
use crate::{
    call_args::{CallSite, stash_args, take_args},
    entry::{get, set},
    kernel::{Sock, argument, copy_options, reason_for_reset, returned, tcp_flags},
    maps::{PATHS_RUNG, numbers, path},
};

/// `tcp_receive_reset(struct sock *sk)`.
#[raw_tracepoint]
pub(crate) fn path_tp_receive_reset(ctx: RawTracePointContext) -> i32 {
    happened(Sock(ctx.arg(0)), PathEvents::RST_RECEIVED);
    0
}

/// `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, ...)`.
///
/// Without functions, it also shows joins that this host refuses: the reason is an extension of the
/// packet that the RST answers. Without a socket, the packet belongs to none; kernels before 6.12
/// pass this tracepoint with a socket only.
#[raw_tracepoint]
pub(crate) fn path_tp_send_reset(ctx: RawTracePointContext) -> i32 {
    let (sk, skb) = (Sock(ctx.arg(0)), ctx.arg::<u64>(1));
    if skb != 0
        && PATHS_RUNG.load() == u32::from(RecordRung::TRACEPOINT.0)
        && sk.state().is_ok_and(|state| u32::from(state) == LISTEN)
        && let Some(reason) = reason_for_reset(skb, numbers().skb_ext_mptcp)
    {
        let flags = u32::from(tcp_flags(skb));
        emit_refused_packet(
            what(Kind::JOIN_FAILED, PathSite::RESET, flags),
            sk.0,
            skb,
            u32::from(reason) + 1,
        );
        return 0;
    }
    if skb != 0 && sk.0 == 0 {
        no_listener(skb);
        return 0;
    }
    happened(sk, PathEvents::RST_SENT);
    0
}

/// The options of an RST name its reason (RFC 8684 section 3.6), which the kernel reads on a fully
/// established path only.
#[inline(always)]
fn reset_received(sk: Sock, skb: u64) {
    if let Some(path) = path(sk.0) {
        // SAFETY: the address of a field of a value in a map.
        let place = unsafe { &raw mut (*path.as_ptr()).options };
        set!(path, options_len, copy_options(skb, place));
        set!(path, flags, get!(path, flags) | PathFlags::OPTIONS);
        happened(sk, PathEvents::RST_RECEIVED);
    }
}

/// `tcp_reset(sk, skb)` is entered.
#[fentry]
pub(crate) fn path_fentry_tcp_reset(ctx: FEntryContext) -> i32 {
    reset_received(Sock(ctx.arg(0)), ctx.arg(1));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_tcp_reset(ctx: ProbeContext) -> u32 {
    reset_received(Sock(argument(&ctx, 0)), argument(&ctx, 1));
    0
}

/// `mptcp_subflow_shutdown(msk, ssk, how)`: only the path manager shuts down both directions
/// (`SEND_SHUTDOWN | RCV_SHUTDOWN`).
#[inline(always)]
fn shut_down(sk: Sock, how: u64) {
    if how as u32 == 3 {
        happened(sk, PathEvents::REMOVED);
    }
}

/// `mptcp_subflow_shutdown` is entered.
#[fentry]
pub(crate) fn path_fentry_shutdown(ctx: FEntryContext) -> i32 {
    shut_down(Sock(ctx.arg(1)), ctx.arg(2));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_shutdown(ctx: ProbeContext) -> u32 {
    shut_down(Sock(argument(&ctx, 1)), argument(&ctx, 2));
    0
}

/// `mptcp_subflow_reset(ssk)` is entered.
#[fentry]
pub(crate) fn path_fentry_reset(ctx: FEntryContext) -> i32 {
    happened(Sock(ctx.arg(0)), PathEvents::RESET);
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_reset(ctx: ProbeContext) -> u32 {
    happened(Sock(argument(&ctx, 0)), PathEvents::RESET);
    0
}

/// `tcp_done_with_error(sk, err)` is entered, for any TCP socket.
#[fentry]
pub(crate) fn path_fentry_error(ctx: FEntryContext) -> i32 {
    happened(Sock(ctx.arg(0)), PathEvents::ERROR);
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_error(ctx: ProbeContext) -> u32 {
    happened(Sock(argument(&ctx, 0)), PathEvents::ERROR);
    0
}

/// `tcp_abort(sk, err)` is entered, for any TCP socket.
#[fentry]
pub(crate) fn path_fentry_abort(ctx: FEntryContext) -> i32 {
    happened(Sock(ctx.arg(0)), PathEvents::ABORTED);
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_abort(ctx: ProbeContext) -> u32 {
    happened(Sock(argument(&ctx, 0)), PathEvents::ABORTED);
    0
}

/// `__mptcp_finish_join(msk, ssk)` returned `joins`. A path that waited until the connection was
/// unlocked is tracked already; its refusal decides its end.
#[inline(always)]
fn finished(sk: Sock, joins: u64) {
    // A C bool: the upper bits of the register are undefined.
    if joins as u8 == 0 {
        happened(sk, PathEvents::LATE_REFUSED);
    }
}

/// `__mptcp_finish_join` returns.
#[fexit]
pub(crate) fn path_fexit_finish(ctx: FExitContext) -> i32 {
    finished(Sock(ctx.arg(1)), ctx.arg(2));
    0
}

/// `__mptcp_finish_join` is entered.
#[kprobe]
pub(crate) fn path_kprobe_finish(ctx: ProbeContext) -> u32 {
    stash_args(CallSite::FinishJoin, argument(&ctx, 1), 0);
    0
}

/// `__mptcp_finish_join` returns.
#[kretprobe]
pub(crate) fn path_kretprobe_finish(ctx: RetProbeContext) -> u32 {
    if let Some([sk, _none]) = take_args(CallSite::FinishJoin) {
        finished(Sock(sk), returned(&ctx));
    }
    0
}
