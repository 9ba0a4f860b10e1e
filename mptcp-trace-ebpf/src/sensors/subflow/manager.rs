//! What the path managers of both ends say: addresses that are announced and removed (RFC 8684
//! section 3.4), and priorities (section 3.3.8).

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use mptcp_trace_common::{
    counter,
    record::{Kind, PathSite},
};

use super::{
    ESTABLISHED,
    record::{self, emit_address, what},
};
use crate::{
    admit::is_over_cheap,
    call_args::{CallSite, stash_args, take_args},
    emit,
    kernel::{PathEnd, RemovedIds, Sock, argument, now_ns, returned},
};

/// `mptcp_pm_add_addr_received(ssk, address)`: the peer announced an address.
#[inline(always)]
fn received(subflow: Sock, address: u64) {
    if let Some(msk) = subflow.msk_of_subflow() {
        let status = u32::from(msk.path_manager_status());
        emit_address(
            what(Kind::ADDRESS_RECEIVED, PathSite::MANAGER, 0),
            msk.0,
            address,
            0,
            status,
        );
    }
}

/// `mptcp_pm_add_addr_received` is entered.
#[fentry]
pub(crate) fn path_fentry_received(ctx: FEntryContext) -> i32 {
    received(Sock(ctx.arg(0)), ctx.arg(1));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_received(ctx: ProbeContext) -> u32 {
    received(Sock(argument(&ctx, 0)), argument(&ctx, 1));
    0
}

/// `mptcp_pm_add_addr_echoed(msk, address)`: the peer has received an announcement.
#[inline(always)]
fn echoed(msk: u64, address: u64) {
    emit_address(
        what(Kind::ADDRESS_ECHOED, PathSite::MANAGER, 0),
        msk,
        address,
        0,
        0,
    );
}

/// `mptcp_pm_add_addr_echoed` is entered.
#[fentry]
pub(crate) fn path_fentry_echoed(ctx: FEntryContext) -> i32 {
    echoed(ctx.arg(0), ctx.arg(1));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_echoed(ctx: ProbeContext) -> u32 {
    echoed(argument(&ctx, 0), argument(&ctx, 1));
    0
}

/// `mptcp_pm_announce_addr(msk, address, echo)` returned `error`: this host announces an address, or
/// confirms one.
#[inline(always)]
fn announced(msk: u64, address: u64, error: i32) {
    emit_address(
        what(Kind::ADDRESS_ANNOUNCED, PathSite::MANAGER, 0),
        msk,
        address,
        0,
        error as u32,
    );
}

/// `mptcp_pm_announce_addr` returns.
#[fexit]
pub(crate) fn path_fexit_announce(ctx: FExitContext) -> i32 {
    // A C bool: the upper bits of the register are undefined.
    if ctx.arg::<u64>(2) as u8 == 0 {
        announced(ctx.arg(0), ctx.arg(1), ctx.arg::<u64>(3) as i32);
    }
    0
}

/// `mptcp_pm_announce_addr` is entered.
#[kprobe]
pub(crate) fn path_kprobe_announce(ctx: ProbeContext) -> u32 {
    if argument(&ctx, 2) as u8 == 0 {
        stash_args(CallSite::Announce, argument(&ctx, 0), argument(&ctx, 1));
    }
    0
}

/// `mptcp_pm_announce_addr` returns.
#[kretprobe]
pub(crate) fn path_kretprobe_announce(ctx: RetProbeContext) -> u32 {
    if let Some([msk, address]) = take_args(CallSite::Announce) {
        announced(msk, address, returned(&ctx) as i32);
    }
    0
}

/// `mptcp_pm_remove_addr(msk, ids)`: this host removes addresses.
#[inline(always)]
fn removed(kind: Kind, msk: u64, ids: u64) {
    let ids = RemovedIds(ids);
    emit_address(
        what(kind, PathSite::MANAGER, 0),
        msk,
        PathEnd::NONE.0,
        ids.ids(),
        u32::from(ids.count()),
    );
}

/// `mptcp_pm_remove_addr` is entered.
#[fentry]
pub(crate) fn path_fentry_remove(ctx: FEntryContext) -> i32 {
    removed(Kind::ADDRESS_REMOVED, ctx.arg(0), ctx.arg(1));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_remove(ctx: ProbeContext) -> u32 {
    removed(Kind::ADDRESS_REMOVED, argument(&ctx, 0), argument(&ctx, 1));
    0
}

/// `mptcp_pm_rm_addr_received(msk, ids)` is entered: the peer removed addresses.
#[fentry]
pub(crate) fn path_fentry_rm_received(ctx: FEntryContext) -> i32 {
    removed(Kind::ADDRESS_REMOVED_BY_PEER, ctx.arg(0), ctx.arg(1));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_rm_received(ctx: ProbeContext) -> u32 {
    removed(
        Kind::ADDRESS_REMOVED_BY_PEER,
        argument(&ctx, 0),
        argument(&ctx, 1),
    );
    0
}

/// `mptcp_pm_mp_prio_received(ssk, backup)`: the peer changes the priority of a path. Emitted before
/// the kernel notes it.
#[inline(always)]
fn priority(subflow: Sock, backup: u64) {
    let kind = match backup as u8 {
        0 => Kind::PATH_REGULAR,
        _ => Kind::PATH_BACKUP,
    };
    if is_over_cheap(subflow.0, now_ns()) {
        emit::count_subflow(counter::SEEN);
        emit::count_subflow(counter::CAPPED);
        return;
    }
    record::emit(what(kind, PathSite::PRIORITY, ESTABLISHED), subflow.0, 0);
}

/// `mptcp_pm_mp_prio_received` is entered.
#[fentry]
pub(crate) fn path_fentry_priority(ctx: FEntryContext) -> i32 {
    priority(Sock(ctx.arg(0)), ctx.arg(1));
    0
}

/// kprobe variant.
#[kprobe]
pub(crate) fn path_kprobe_priority(ctx: ProbeContext) -> u32 {
    priority(Sock(argument(&ctx, 0)), argument(&ctx, 1));
    0
}
