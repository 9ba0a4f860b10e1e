//! Joins that come to nothing although no function refuses them: nothing listens where the SYN
//! arrives, its option was removed, the third ACK never comes, or what was known of it is lost.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use mptcp_trace_common::{
    map_values::JoinRun,
    record::{Kind, PathSite},
};

use super::{
    joins::BLANK,
    record::{emit_failed, emit_refused_packet, what},
};
use crate::{
    call_args::{CallSite, stash_args, take_args},
    entry::get,
    kernel::{JoinRequest, argument, mptcp_subtypes, returned, tcp_flags},
    maps::{JOIN_RUNS, join_run},
};

/// Flags of a TCP header (RFC 9293 section 3.1).
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// Subtypes of MPTCP options, a bit each (RFC 8684 section 8.1).
const JOIN: u32 = 1 << 1;
const TCPRST: u32 = 1 << 8;

/// An RST answers a packet that belongs to no socket: a SYN that asks to join is reported.
#[inline(always)]
pub(super) fn no_listener(skb: u64) {
    if tcp_flags(skb) & (SYN | ACK) == SYN && mptcp_subtypes(skb) & JOIN != 0 {
        emit_refused_packet(
            what(Kind::JOIN_FAILED, PathSite::NO_LISTENER, SYN.into()),
            0,
            skb,
            0,
        );
    }
}

/// `tcp_check_req(listener, skb, request, ...)`: a packet for a request. If the request asks for
/// plain TCP, and the RST that ends it names an MPTCP reason, the peer had asked to join: only then
/// it does not fall back.
#[inline(always)]
fn request_gets(listener: u64, skb: u64, request: JoinRequest) {
    let flags = tcp_flags(skb);
    if flags & RST != 0 && request.is_plain() && mptcp_subtypes(skb) & TCPRST != 0 {
        emit_refused_packet(
            what(Kind::JOIN_FAILED, PathSite::PLAIN_REQUEST, flags.into()),
            listener,
            skb,
            0,
        );
    }
}

/// `tcp_check_req` is entered.
#[fentry]
pub(crate) fn path_fentry_request(ctx: FEntryContext) -> i32 {
    request_gets(ctx.arg(0), ctx.arg(1), JoinRequest(ctx.arg(2)));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_request(ctx: ProbeContext) -> u32 {
    request_gets(
        argument(&ctx, 0),
        argument(&ctx, 1),
        JoinRequest(argument(&ctx, 2)),
    );
    0
}

/// `tcp_syn_ack_timeout(request)`: the timer of a request runs. It gives up if it frees the request
/// without counting this run.
#[inline(always)]
fn waits(request: JoinRequest) {
    if request.is_of_mptcp() && request.is_join() {
        let run = JoinRun {
            reason: request.timeouts().into(),
            ..BLANK
        };
        let _full = JOIN_RUNS.insert(request.0, run, 0);
    }
}

/// `tcp_syn_ack_timeout` is entered.
#[fentry]
pub(crate) fn path_fentry_timer(ctx: FEntryContext) -> i32 {
    waits(JoinRequest(ctx.arg(0)));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_timer(ctx: ProbeContext) -> u32 {
    waits(JoinRequest(argument(&ctx, 0)));
    0
}

/// `subflow_v4_req_destructor(request)`, or the one of IPv6.
#[inline(always)]
fn request_ends(request: JoinRequest) {
    if !request.is_join() {
        return;
    }
    let Some(timer) = join_run(request.0) else {
        return;
    };
    let gives_up = get!(timer, reason) == u32::from(request.timeouts());
    let _gone = JOIN_RUNS.remove(request.0);
    if !gives_up {
        return;
    }
    emit_failed(
        what(Kind::JOIN_FAILED, PathSite::REQUEST_TIMER, 0),
        request.0,
        request.listener(),
        0,
        0,
    );
}

/// `subflow_v4_req_destructor` is entered. A program has one trampoline, so that IPv6 needs another.
#[fentry]
pub(crate) fn path_fentry_request_ends(ctx: FEntryContext) -> i32 {
    request_ends(JoinRequest(ctx.arg(0)));
    0
}

/// `subflow_v6_req_destructor` is entered.
#[fentry]
pub(crate) fn path_fentry_request6_ends(ctx: FEntryContext) -> i32 {
    request_ends(JoinRequest(ctx.arg(0)));
    0
}

/// kprobe variant of the one for IPv4.
#[kprobe]
pub(crate) fn path_kprobe_request_ends(ctx: ProbeContext) -> u32 {
    request_ends(JoinRequest(argument(&ctx, 0)));
    0
}

/// kprobe variant of the one for IPv6.
#[kprobe]
pub(crate) fn path_kprobe_request6_ends(ctx: ProbeContext) -> u32 {
    request_ends(JoinRequest(argument(&ctx, 0)));
    0
}

/// `mptcp_subflow_init_cookie_req(request, listener, skb)` returned `error`: the packet answers a
/// SYN cookie. The kernel drops it in silence.
#[inline(always)]
fn cookie_checked(listener: u64, skb: u64, error: i32) {
    if error < 0 && mptcp_subtypes(skb) & JOIN != 0 {
        emit_refused_packet(
            what(Kind::JOIN_FAILED, PathSite::COOKIE, ACK.into()),
            listener,
            skb,
            0,
        );
    }
}

/// `mptcp_subflow_init_cookie_req` returns.
#[fexit]
pub(crate) fn path_fexit_cookie(ctx: FExitContext) -> i32 {
    cookie_checked(ctx.arg(1), ctx.arg(2), ctx.arg::<u64>(3) as i32);
    0
}

/// `mptcp_subflow_init_cookie_req` is entered.
#[kprobe]
pub(crate) fn path_kprobe_cookie(ctx: ProbeContext) -> u32 {
    stash_args(CallSite::Cookie, argument(&ctx, 1), argument(&ctx, 2));
    0
}

/// `mptcp_subflow_init_cookie_req` returns.
#[kretprobe]
pub(crate) fn path_kretprobe_cookie(ctx: RetProbeContext) -> u32 {
    if let Some([listener, skb]) = take_args(CallSite::Cookie) {
        cookie_checked(listener, skb, returned(&ctx) as i32);
    }
    0
}
