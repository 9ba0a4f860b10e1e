//! Kernels on which no function is told the cause: the fallback bit is looked at when a function returns that
//! can set it. Of functions that call each other the innermost returns first, and is the one that tells.

use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use mptcp_trace_common::record::{
    SITE_CONNECT, SITE_DATA_AVAILABLE, SITE_DETECT_BLACKHOLE, SITE_DSS_CORRUPTION,
    SITE_FINISH_CONNECT, SITE_INCOMING_OPTIONS, SITE_SENDMSG_FRAG, SITE_SIMULTANEOUS,
};

use super::{
    decision::{Keeper, argument, keep, kept},
    look,
};
use crate::kernel::Sock;

#[inline(always)]
fn look_at_subflow(subflow: Sock, site: u8) {
    if let Some(msk) = subflow.msk_of_subflow() {
        look(msk, site);
    }
}

/// `mptcp_connect(msk, ...)` returns.
#[fexit(function = "mptcp_connect")]
pub(crate) fn fallback_fexit_connect(ctx: FExitContext) -> i32 {
    look(Sock(ctx.arg(0)), SITE_CONNECT);
    0
}

/// `subflow_finish_connect(ssk, skb)` returns.
#[fexit(function = "subflow_finish_connect")]
pub(crate) fn fallback_fexit_finish(ctx: FExitContext) -> i32 {
    look_at_subflow(Sock(ctx.arg(0)), SITE_FINISH_CONNECT);
    0
}

/// `subflow_state_change(ssk)` returns: some kernels notice a simultaneous open there.
#[fexit(function = "subflow_state_change")]
pub(crate) fn fallback_fexit_state_change(ctx: FExitContext) -> i32 {
    look_at_subflow(Sock(ctx.arg(0)), SITE_SIMULTANEOUS);
    0
}

/// `mptcp_syn_options(ssk, ...)` returns: others do so there.
#[fexit(function = "mptcp_syn_options")]
pub(crate) fn fallback_fexit_simultaneous(ctx: FExitContext) -> i32 {
    look_at_subflow(Sock(ctx.arg(0)), SITE_SIMULTANEOUS);
    0
}

/// `mptcp_active_detect_blackhole(ssk, expired)` returns.
#[fexit(function = "mptcp_active_detect_blackhole")]
pub(crate) fn fallback_fexit_detect(ctx: FExitContext) -> i32 {
    look_at_subflow(Sock(ctx.arg(0)), SITE_DETECT_BLACKHOLE);
    0
}

/// `mptcp_incoming_options(ssk, skb)` returns.
#[fexit(function = "mptcp_incoming_options")]
pub(crate) fn fallback_fexit_options(ctx: FExitContext) -> i32 {
    look_at_subflow(Sock(ctx.arg(0)), SITE_INCOMING_OPTIONS);
    0
}

/// `mptcp_subflow_data_available(ssk)` returns.
#[fexit(function = "mptcp_subflow_data_available")]
pub(crate) fn fallback_fexit_data(ctx: FExitContext) -> i32 {
    look_at_subflow(Sock(ctx.arg(0)), SITE_DATA_AVAILABLE);
    0
}

/// `__mptcp_move_skbs_from_subflow(msk, ssk, ...)` returns, which calls `mptcp_dss_corruption`.
#[fexit(function = "__mptcp_move_skbs_from_subflow")]
pub(crate) fn fallback_fexit_move(ctx: FExitContext) -> i32 {
    look(Sock(ctx.arg(0)), SITE_DSS_CORRUPTION);
    0
}

/// `mptcp_sendmsg_frag(msk, ssk, ...)` returns.
#[fexit(function = "mptcp_sendmsg_frag")]
pub(crate) fn fallback_fexit_frag(ctx: FExitContext) -> i32 {
    look(Sock(ctx.arg(0)), SITE_SENDMSG_FRAG);
    0
}

/// A function that is called once a connection is entered; its first argument is the subflow.
#[kprobe]
pub(crate) fn fallback_kprobe_edge(ctx: ProbeContext) -> u32 {
    keep(Keeper::Edge, argument(&ctx, 0), 0);
    0
}

/// `subflow_finish_connect` returns.
#[kretprobe]
pub(crate) fn fallback_kretprobe_finish(_ctx: RetProbeContext) -> u32 {
    if let Some([subflow, _none]) = kept(Keeper::Edge) {
        look_at_subflow(Sock(subflow), SITE_FINISH_CONNECT);
    }
    0
}

/// `mptcp_active_detect_blackhole` returns.
#[kretprobe]
pub(crate) fn fallback_kretprobe_detect(_ctx: RetProbeContext) -> u32 {
    if let Some([subflow, _none]) = kept(Keeper::Edge) {
        look_at_subflow(Sock(subflow), SITE_DETECT_BLACKHOLE);
    }
    0
}
