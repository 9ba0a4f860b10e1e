//! The kernel functions that decide on a fallback: `__mptcp_try_fallback(msk, fb_mib)`, and
//! `mptcp_dss_corruption`, into which some compilers inline a copy of it.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use mptcp_trace_common::record::{EvidenceBits, Kind, NO_MIB, Site};

use super::{add_evidence, fell_back, forget_fallen, insert_fallen, report, report_refused};
use crate::{
    call_args::{CallSite, stash_args, take_args},
    emit,
    kernel::{Sock, argument, as_number, is_mptcp, now_ns, origin, returned},
    maps::{DATA_OF, data_of},
    sensors::{
        connection_record::{self, site_and_cause},
        owner::this_run,
    },
    turns::in_turns,
};

/// `__mptcp_try_fallback` also succeeds for a connection that fell back before. Marking that
/// connection now ensures that only the transition is reported.
#[inline(always)]
fn try_entered(msk: Sock) {
    match fell_back(msk) {
        Some(true) => {
            let _known = insert_fallen(msk.0, now_ns());
        }
        // The kernel clears the bit if connect() fails at once, and in connect(AF_UNSPEC).
        Some(false) if !is_decided(msk) => forget_fallen(msk.0),
        Some(false) | None => {}
    }
}

/// The subflow of this connection whose bad data led here, in this run; 0 if there is none.
#[inline(always)]
fn bad_data_of(msk: Sock) -> u64 {
    data_of(this_run())
        .map(Sock)
        .filter(|subflow| subflow.msk_of_subflow() == Some(msk))
        .map_or(0, |subflow| subflow.0)
}

/// Time in which `mptcp_dss_corruption` calls `__mptcp_try_fallback`, in nanoseconds: some
/// microseconds, on slow emulated machines a few milliseconds.
const SAME_DECISION_NS: u64 = 100_000_000;

/// Where [`DATA_OF`] has the time of the decision about a connection.
#[inline(always)]
fn decided_at(msk: Sock) -> u64 {
    as_number(msk.0) | 1
}

/// True if `mptcp_dss_corruption` has just decided about this connection, and its probe reported it.
/// Its copy calls `__mptcp_try_fallback` unless the compiler inlined that as well.
#[inline(always)]
fn is_decided(msk: Sock) -> bool {
    data_of(decided_at(msk)).is_some_and(|at| now_ns().saturating_sub(at) < SAME_DECISION_NS)
}

#[inline(always)]
fn try_left(msk: Sock, mib: i32, allowed: bool, origin: u64) {
    if is_decided(msk) {
        return;
    }
    if allowed {
        report(
            msk.0,
            u32::from(Site::TRY_FALLBACK.0),
            mib,
            now_ns(),
            origin,
        );
    } else {
        let subflow = bad_data_of(msk);
        report_refused(msk, Site::TRY_FALLBACK, mib, subflow);
    }
}

in_turns! {
    fallback: #[fentry]
    fallback_fentry_try(FEntryContext), fallback_fentry_try_2, fallback_fentry_try_3
}
/// `__mptcp_try_fallback` is entered.
#[inline(never)]
fn fallback_fentry_try(ctx: FEntryContext) -> i32 {
    try_entered(Sock(ctx.arg(0)));
    0
}

in_turns! {
    fallback: #[fexit]
    fallback_fexit_try(FExitContext), fallback_fexit_try_2, fallback_fexit_try_3
}
/// `__mptcp_try_fallback` returns.
#[inline(never)]
fn fallback_fexit_try(ctx: FExitContext) -> i32 {
    const RETURN_VALUE: usize = 2;
    let allowed: u64 = ctx.arg(RETURN_VALUE);
    // A C bool: the upper bits of the register are undefined.
    try_left(
        Sock(ctx.arg(0)),
        ctx.arg(1),
        allowed & 0xff != 0,
        origin(&ctx),
    );
    0
}

/// `__mptcp_try_fallback` is entered.
#[kprobe]
pub(crate) fn fallback_kprobe_try(ctx: ProbeContext) -> u32 {
    let msk = argument(&ctx, 0);
    try_entered(Sock(msk));
    stash_args(CallSite::Try, msk, argument(&ctx, 1));
    0
}

/// `__mptcp_try_fallback` returns.
#[kretprobe]
pub(crate) fn fallback_kretprobe_try(ctx: RetProbeContext) -> u32 {
    if let Some([msk, mib]) = take_args(CallSite::Try) {
        let allowed = returned(&ctx);
        try_left(Sock(msk), mib as i32, allowed & 0xff != 0, origin(&ctx));
    }
    0
}

/// `mptcp_dss_corruption(msk, ssk)` is entered, or a compiler's copy of it without the first
/// argument: the subflow is recognised by its structure. The function decides as
/// `__mptcp_try_fallback` does, which is inlined into the copies of x86-64, and called by that of
/// arm64 7.3.
#[kprobe]
pub(crate) fn fallback_kprobe_dss(ctx: ProbeContext) -> u32 {
    let (first, second) = (Sock(argument(&ctx, 0)), Sock(argument(&ctx, 1)));
    let subflow = if second.is_subflow() { second } else { first };
    let Some(msk) = subflow.msk_of_subflow() else {
        return 0;
    };
    if fell_back(msk) == Some(true) {
        return 0;
    }
    let _full = DATA_OF.insert(decided_at(msk), now_ns(), 0);
    if msk.msk_may_fall_back() {
        report(
            msk.0,
            u32::from(Site::DSS_CORRUPTION.0),
            NO_MIB,
            now_ns(),
            origin(&ctx),
        );
    } else {
        report_refused(msk, Site::DSS_CORRUPTION, NO_MIB, subflow.0);
    }
    0
}

#[inline(always)]
fn mp_fail(subflow: Sock) {
    if let Some(msk) = subflow.msk_of_subflow() {
        add_evidence(msk, EvidenceBits::MP_FAIL_RECEIVED);
    }
}

in_turns! {
    fallback: #[fentry]
    fallback_fentry_mp_fail(FEntryContext), fallback_fentry_mp_fail_2, fallback_fentry_mp_fail_3
}
/// `mptcp_pm_mp_fail_received(subflow, sequence)` is entered.
#[inline(never)]
fn fallback_fentry_mp_fail(ctx: FEntryContext) -> i32 {
    mp_fail(Sock(ctx.arg(0)));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn fallback_kprobe_mp_fail(ctx: ProbeContext) -> u32 {
    mp_fail(Sock(argument(&ctx, 0)));
    0
}

/// The kernel disables MPTCP for a while, because the peer answered only a SYN without MPTCP.
#[inline(always)]
pub(super) fn blackhole(sk: Sock) {
    let Ok(protocol) = sk.protocol() else { return };
    let msk = if is_mptcp(protocol) {
        Some(sk)
    } else {
        sk.msk_of_subflow()
    };
    if let Some(msk) = msk {
        emit::count_fallback(mptcp_trace_common::counter::SEEN);
        let what = site_and_cause(Site::ACTIVE_DISABLE, NO_MIB, false);
        connection_record::emit(Kind::BLACKHOLE, msk.0, what, 0);
    }
}

in_turns! {
    fallback: #[fexit]
    fallback_fexit_disable(FExitContext), fallback_fexit_disable_2, fallback_fexit_disable_3
}
/// `mptcp_active_disable(sk)` returns: MPTCP is disabled now.
#[inline(never)]
fn fallback_fexit_disable(ctx: FExitContext) -> i32 {
    blackhole(Sock(ctx.arg(0)));
    0
}

/// kprobe variant, at entry.
#[kprobe]
pub(crate) fn fallback_kprobe_disable(ctx: ProbeContext) -> u32 {
    stash_args(CallSite::Disable, argument(&ctx, 0), 0);
    0
}

/// kprobe variant, at return.
#[kretprobe]
pub(crate) fn fallback_kretprobe_disable(_ctx: RetProbeContext) -> u32 {
    if let Some([sk, _none]) = take_args(CallSite::Disable) {
        blackhole(Sock(sk));
    }
    0
}
