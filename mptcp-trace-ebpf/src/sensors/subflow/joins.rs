//! Joins that fail before the path has a socket of its own, or on the way to one.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use mptcp_trace_common::{
    map_values::JoinRun,
    record::{JoinAnswer, Kind, PathSite},
};

use super::record::{emit_dropped, emit_failed, emit_not_opened, what};
use crate::{
    call_args::{CallSite, stash_args, take_args},
    entry::{get, set},
    kernel::{
        JoinRequest, Sock, argument, is_join, msk_of_context, origin, packet_in_progress,
        reason_for_reset, returned, token_of,
    },
    maps::{JOIN_RUNS, JOINS_ASKED, join_run, numbers},
    sensors::owner::this_run,
};

/// No observation.
pub(super) const BLANK: JoinRun = JoinRun {
    msk: 0,
    packet: 0,
    reason: 0,
    answer: 0,
};

/// A join came up: what was observed of it is of no use any more.
#[inline(always)]
pub(super) fn joined() {
    let _none = JOIN_RUNS.remove(this_run());
}

/// `subflow_add_reset_reason(skb, reason)`: an RST is about to be sent.
#[inline(always)]
fn reason_given(packet: u64, reason: u64) {
    let reason = u32::from(reason as u8) + 1;
    let key = this_run();
    match join_run(key) {
        Some(run) => {
            set!(run, reason, reason);
            set!(run, packet, packet);
        }
        None => {
            let run = JoinRun {
                packet,
                reason,
                ..BLANK
            };
            let _full = JOIN_RUNS.insert(key, run, 0);
        }
    }
}

/// `subflow_add_reset_reason` is entered.
#[fentry]
pub(crate) fn path_fentry_reason(ctx: FEntryContext) -> i32 {
    reason_given(ctx.arg(0), ctx.arg(1));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_reason(ctx: ProbeContext) -> u32 {
    reason_given(argument(&ctx, 0), argument(&ctx, 1));
    0
}

/// `mptcp_can_accept_new_subflow(msk)` returned `accepts`.
#[inline(always)]
fn answered(msk: u64, accepts: u64) {
    // A C bool: the upper bits of the register are undefined.
    let answer = match accepts as u8 {
        0 => JoinAnswer::REFUSED,
        _ => JoinAnswer::ACCEPTED,
    };
    let run = JoinRun {
        msk,
        answer: answer.bits(),
        ..BLANK
    };
    let _full = JOIN_RUNS.insert(this_run(), run, 0);
}

/// `mptcp_can_accept_new_subflow` returns.
#[fexit]
pub(crate) fn path_fexit_accepts(ctx: FExitContext) -> i32 {
    answered(ctx.arg(0), ctx.arg(1));
    0
}

/// `mptcp_can_accept_new_subflow` is entered.
#[kprobe]
pub(crate) fn path_kprobe_accepts(ctx: ProbeContext) -> u32 {
    stash_args(CallSite::AcceptsPath, argument(&ctx, 0), 0);
    0
}

/// `mptcp_can_accept_new_subflow` returns.
#[kretprobe]
pub(crate) fn path_kretprobe_accepts(ctx: RetProbeContext) -> u32 {
    if let Some([msk, _none]) = take_args(CallSite::AcceptsPath) {
        answered(msk, returned(&ctx));
    }
    0
}

/// `mptcp_pm_get_local_id(msk, socket)` returned `id`: the address id of an own address, or an error.
#[inline(always)]
fn id_found(msk: u64, id: i32) {
    if id < 0 {
        let run = JoinRun {
            msk,
            answer: JoinAnswer::NO_ID.bits(),
            ..BLANK
        };
        let _full = JOIN_RUNS.insert(this_run(), run, 0);
    }
}

/// `mptcp_pm_get_local_id` returns.
#[fexit]
pub(crate) fn path_fexit_id(ctx: FExitContext) -> i32 {
    id_found(ctx.arg(0), ctx.arg::<u64>(2) as i32);
    0
}

/// `mptcp_pm_get_local_id` is entered.
#[kprobe]
pub(crate) fn path_kprobe_id(ctx: ProbeContext) -> u32 {
    stash_args(CallSite::LocalId, argument(&ctx, 0), 0);
    0
}

/// `mptcp_pm_get_local_id` returns.
#[kretprobe]
pub(crate) fn path_kretprobe_id(ctx: RetProbeContext) -> u32 {
    if let Some([msk, _none]) = take_args(CallSite::LocalId) {
        id_found(msk, returned(&ctx) as i32);
    }
    0
}

/// `subflow_check_req(request, listener, skb)` returned `error`: a SYN with `MP_JOIN` is refused if
/// it is negative.
#[inline(always)]
fn syn_checked(request: JoinRequest, listener: u64, skb: u64, error: i32) {
    if error >= 0 {
        return;
    }
    let key = this_run();
    let (mut reason, mut answer, asked) = match join_run(key) {
        Some(run) => (
            get!(run, reason),
            JoinAnswer::from_bits_retain(get!(run, answer)),
            Sock(get!(run, msk)),
        ),
        None => (0, JoinAnswer::empty(), Sock(0)),
    };
    if !request.is_join() {
        let _gone = JOIN_RUNS.remove(key);
        return;
    }
    // Where the compiler has inlined `subflow_add_reset_reason`.
    if reason == 0
        && let Some(given) = reason_for_reset(skb, numbers().skb_ext_mptcp)
    {
        reason = u32::from(given) + 1;
    }
    // Where it cannot be seen whether the connection was asked: what fails before the question is
    // another port than the connection's.
    if JOINS_ASKED.load() == 0
        && let Some(msk) = request.connection()
        && msk.local_port().ok() == Sock(listener).local_port().ok()
    {
        answer |= JoinAnswer::REFUSED;
    }
    // The request does not keep a connection that has no id for it.
    let mut msk = 0;
    if answer.contains(JoinAnswer::NO_ID) {
        if asked.msk_token() == request.token() {
            msk = asked.0;
        } else {
            answer = answer.difference(JoinAnswer::NO_ID);
        }
    }
    emit_failed(
        what(Kind::JOIN_FAILED, PathSite::SYN, answer.bits()),
        request.0,
        listener,
        u64::from(error as u32) | u64::from(reason) << 32,
        msk,
    );
    let _gone = JOIN_RUNS.remove(key);
}

/// `subflow_check_req` returns.
#[fexit]
pub(crate) fn path_fexit_syn(ctx: FExitContext) -> i32 {
    syn_checked(
        JoinRequest(ctx.arg(0)),
        ctx.arg(1),
        ctx.arg(2),
        ctx.arg::<u64>(3) as i32,
    );
    0
}

/// `subflow_check_req` is entered.
#[kprobe]
pub(crate) fn path_kprobe_syn(ctx: ProbeContext) -> u32 {
    stash_args(CallSite::JoinRequest, argument(&ctx, 0), argument(&ctx, 1));
    stash_args(CallSite::JoinPacket, argument(&ctx, 2), 0);
    0
}

/// `subflow_check_req` returns.
#[kretprobe]
pub(crate) fn path_kretprobe_syn(ctx: RetProbeContext) -> u32 {
    let packet = take_args(CallSite::JoinPacket).map_or(0, |[packet, _none]| packet);
    if let Some([request, listener]) = take_args(CallSite::JoinRequest) {
        let error = returned(&ctx) as i32;
        syn_checked(JoinRequest(request), listener, packet, error);
    }
    0
}

/// What [`JoinRun::reason`] is for "MPTCP specific error" (RFC 8684 section 3.6).
const ERROR: u32 = 2;

/// A child without a subflow context is dropped: true if it is a join for which there was no memory.
/// The kernel gives a reason for an RST then; to a child that is plain TCP it does not. Called by two
/// programs, in any order.
#[inline(always)]
pub(crate) fn lacks_context(child: Sock) -> bool {
    let Some(run) = join_run(this_run()) else {
        return false;
    };
    if get!(run, msk) == child.0 {
        return true;
    }
    if get!(run, reason) != ERROR {
        return false;
    }
    set!(run, reason, 0);
    set!(run, msk, child.0);
    true
}

/// `mptcp_subflow_drop_ctx(child)`: the child does not become a subflow. At entry, since nothing
/// shows afterwards that it was a join. `origin` is the context of the program.
#[inline(always)]
fn context_dropped(child: Sock, origin: u64) {
    if child.0 == 0 {
        return;
    }
    let Some(context) = child.subflow_context() else {
        if lacks_context(child) {
            let answer = JoinAnswer::NO_CONTEXT.bits();
            emit_dropped(child.0, 0, 0, 0, u64::from(answer) | u64::from(ERROR) << 32);
        }
        return;
    };
    if !is_join(context) {
        return;
    }
    let mut answer = JoinAnswer::empty();
    let mut reason = 0;
    let mut packet = 0;
    let mut msk = msk_of_context(context);
    if msk.is_some() {
        answer |= JoinAnswer::ATTACHED;
    }
    let key = this_run();
    if let Some(run) = join_run(key) {
        reason = get!(run, reason);
        packet = get!(run, packet);
        let asked = Sock(get!(run, msk));
        // Else the connection was not asked about this join.
        if asked.0 != 0 && asked.msk_token() == token_of(context) {
            answer |= JoinAnswer::from_bits_retain(get!(run, answer));
            msk = Some(asked);
        }
        let _gone = JOIN_RUNS.remove(key);
    }
    // Where the compiler has inlined `subflow_add_reset_reason` into the function that drops the child.
    if packet == 0 {
        const ACK: u32 = 0x10;
        packet = packet_in_progress(origin, child.0, ACK);
        if packet != 0
            && let Some(given) = reason_for_reset(packet, numbers().skb_ext_mptcp)
        {
            reason = u32::from(given) + 1;
        }
    }
    if JOINS_ASKED.load() != 0 && !answer.intersects(JoinAnswer::REFUSED | JoinAnswer::ACCEPTED) {
        answer |= JoinAnswer::NOT_ASKED;
    }
    let answer_and_reason = u64::from(answer.bits()) | u64::from(reason) << 32;
    let msk = msk.unwrap_or(Sock(0));
    emit_dropped(child.0, context, msk.0, packet, answer_and_reason);
}

/// `mptcp_subflow_drop_ctx` is entered.
#[fentry]
pub(crate) fn path_fentry_drop(ctx: FEntryContext) -> i32 {
    context_dropped(Sock(ctx.arg(0)), origin(&ctx));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_drop(ctx: ProbeContext) -> u32 {
    context_dropped(Sock(argument(&ctx, 0)), origin(&ctx));
    0
}

/// `__mptcp_subflow_connect(msk, local, remote)` opens a path: until it returns, the second word of
/// the stored arguments says whether the path got a socket.
#[inline(always)]
fn opens(msk: u64) {
    stash_args(CallSite::JoinConnection, msk, 0);
}

/// A new path sends its SYN: it has a socket.
#[inline(always)]
pub(super) fn has_socket() {
    if let Some([msk, _not_yet]) = take_args(CallSite::JoinConnection) {
        stash_args(CallSite::JoinConnection, msk, 1);
    }
}

/// `__mptcp_subflow_connect` returned `error`. If the path has a socket, the socket tells.
#[inline(always)]
fn opened(local: u64, remote: u64, error: i32) {
    if let Some([msk, has_socket]) = take_args(CallSite::JoinConnection)
        && has_socket == 0
        && error < 0
    {
        emit_not_opened(msk, local, remote, error);
    }
}

/// `__mptcp_subflow_connect` is entered.
#[fentry]
pub(crate) fn path_fentry_connect(ctx: FEntryContext) -> i32 {
    opens(ctx.arg(0));
    0
}

/// `__mptcp_subflow_connect` returns.
#[fexit]
pub(crate) fn path_fexit_connect(ctx: FExitContext) -> i32 {
    opened(ctx.arg(1), ctx.arg(2), ctx.arg::<u64>(3) as i32);
    0
}

/// `__mptcp_subflow_connect` is entered.
#[kprobe]
pub(crate) fn path_kprobe_connect(ctx: ProbeContext) -> u32 {
    opens(argument(&ctx, 0));
    stash_args(CallSite::JoinEnds, argument(&ctx, 1), argument(&ctx, 2));
    0
}

/// `__mptcp_subflow_connect` returns.
#[kretprobe]
pub(crate) fn path_kretprobe_connect(ctx: RetProbeContext) -> u32 {
    if let Some([local, remote]) = take_args(CallSite::JoinEnds) {
        opened(local, remote, returned(&ctx) as i32);
    }
    0
}
