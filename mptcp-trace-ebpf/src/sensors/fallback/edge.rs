//! For kernels without `__mptcp_try_fallback`: reads the fallback bit when a function that can set
//! it returns. If such functions are nested, the innermost returns first, and reports the fallback.
//!
//! Only functions of the handshake are probed: those of the data path run for every packet (see
//! `path`).

use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use mptcp_trace_common::record::Site;

use super::{look, no_packet};
use crate::{
    call_args::{CallSite, stash_args, take_args},
    kernel::{Sock, argument},
    turns::in_turns,
};

#[inline(always)]
fn look_at_subflow(subflow: Sock, site: Site) {
    if let Some(msk) = subflow.msk_of_subflow() {
        look(msk, site, no_packet);
    }
}

in_turns! {
    fallback: #[fexit]
    fallback_fexit_connect(FExitContext), fallback_fexit_connect_2, fallback_fexit_connect_3
}
/// `mptcp_connect(msk, ...)` returns.
#[inline(never)]
fn fallback_fexit_connect(ctx: FExitContext) -> i32 {
    look(Sock(ctx.arg(0)), Site::CONNECT, no_packet);
    0
}

in_turns! {
    fallback: #[fexit]
    fallback_fexit_state_change(FExitContext), fallback_fexit_state_change_2, fallback_fexit_state_change_3
}
/// `subflow_state_change(ssk)` returns: some kernels detect a simultaneous open there.
#[inline(never)]
fn fallback_fexit_state_change(ctx: FExitContext) -> i32 {
    look_at_subflow(Sock(ctx.arg(0)), Site::SIMULTANEOUS);
    0
}

in_turns! {
    fallback: #[fexit]
    fallback_fexit_simultaneous(FExitContext), fallback_fexit_simultaneous_2, fallback_fexit_simultaneous_3
}
/// `mptcp_syn_options(ssk, ...)` returns: other kernels detect a simultaneous open there.
#[inline(never)]
fn fallback_fexit_simultaneous(ctx: FExitContext) -> i32 {
    look_at_subflow(Sock(ctx.arg(0)), Site::SIMULTANEOUS);
    0
}

in_turns! {
    fallback: #[fexit]
    fallback_fexit_detect(FExitContext), fallback_fexit_detect_2, fallback_fexit_detect_3
}
/// `mptcp_active_detect_blackhole(ssk, expired)` returns.
#[inline(never)]
fn fallback_fexit_detect(ctx: FExitContext) -> i32 {
    look_at_subflow(Sock(ctx.arg(0)), Site::DETECT_BLACKHOLE);
    0
}

/// Entry of a function that is called once per connection; its first argument is the subflow.
#[kprobe]
pub(crate) fn fallback_kprobe_edge(ctx: ProbeContext) -> u32 {
    stash_args(CallSite::Edge, argument(&ctx, 0), 0);
    0
}

/// `mptcp_active_detect_blackhole` returns.
#[kretprobe]
pub(crate) fn fallback_kretprobe_detect(_ctx: RetProbeContext) -> u32 {
    if let Some([subflow, _none]) = take_args(CallSite::Edge) {
        look_at_subflow(Sock(subflow), Site::DETECT_BLACKHOLE);
    }
    0
}
