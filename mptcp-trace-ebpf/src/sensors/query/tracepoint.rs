//! Rung tracepoint: the syscall itself, for kernels where no function can be probed.
//!
//! The path of the answer is not seen from here. What is written down instead: the state bits of the
//! connection before and after, and what the caller found in its buffer. The socket is looked up and
//! described when the syscall is entered, since another thread may have closed it when it returns.

use aya_ebpf::{
    EbpfContext as _, helpers::bpf_get_current_pid_tgid, macros::tracepoint,
    programs::TracePointContext,
};
use aya_log_ebpf::debug;
use mptcp_trace_common::{
    counter,
    layout::SYSCALL_CONTEXT_OFFSET,
    record::{
        PATH_UNSEEN, QueryRecord, RUNG_TRACEPOINT, SyscallInFlight, VALID_FLAGS_ENTER,
        VALID_FLAGS_EXIT, VALID_USER_VALUE,
    },
};

use super::{
    NOTHING, begin, describe, is_protocol_query, is_query, option,
    refused::{is_mptcp_socket, is_ordinary, is_refusal, option_refused, outcome, socket_refused},
};
use crate::{
    admit::{admit_netns, admit_task},
    emit,
    kernel::{
        Sock, current_file, is_mptcp, is_tcp_or_mptcp, now_ns, read_user_u8, read_user_u32,
        socket_of_file,
    },
    maps::SYSCALL_IN_FLIGHT,
    sensors::fallback::{Keeper, keep, kept},
};

/// The `n`-th 64-bit word behind the header of a syscall tracepoint.
#[inline(always)]
fn word(ctx: &TracePointContext, n: usize) -> u64 {
    // SAFETY: the context of these programs is the header and six words; the loader has compared the
    // offset with the kernel's BTF, and the verifier checks the bounds.
    unsafe {
        *ctx.as_ptr()
            .byte_add(SYSCALL_CONTEXT_OFFSET + n * 8)
            .cast::<u64>()
    }
}

/// `getsockopt(fd, level, optname, optval, optlen)` is entered.
#[tracepoint]
pub(crate) fn query_enter_getsockopt(ctx: TracePointContext) -> u32 {
    let (level, asked) = (word(&ctx, 1) as u32, word(&ctx, 2) as u32);
    if is_query(level, asked) || is_protocol_query(level, asked) {
        enter(&ctx, level, asked);
    } else if is_ordinary(level) {
        keep(Keeper::GetOption, word(&ctx, 0), option(level, asked));
    }
    0
}

#[inline(always)]
fn enter(ctx: &TracePointContext, level: u32, asked: u32) {
    let thread = bpf_get_current_pid_tgid();
    if SYSCALL_IN_FLIGHT.remove(thread).is_ok() {
        emit::count(counter::UNFINISHED);
    }
    let fd = word(ctx, 0) as u32;
    // A bad descriptor or another kind of socket never reaches the TCP code: not a query.
    let Ok(file) = current_file(fd) else { return };
    let Some(sk) = socket_of_file(file) else {
        return;
    };
    let (Ok(family), Ok(protocol)) = (sk.family(), sk.protocol()) else {
        return;
    };
    if !is_tcp_or_mptcp(family, protocol) || is_protocol_query(level, asked) && !is_mptcp(protocol)
    {
        return;
    }
    emit::count(counter::SEEN);
    if !admit_task() {
        emit::count(counter::FILTERED);
        return;
    }
    if SYSCALL_IN_FLIGHT.insert(thread, unasked(), 0).is_err() {
        emit::count(counter::TABLE_FULL);
        debug!(ctx, "thread {}: no room for its question", ctx.pid());
        return;
    }
    let Some(open) = SYSCALL_IN_FLIGHT.get_ptr_mut(thread) else {
        emit::count(counter::TABLE_FULL);
        return;
    };
    // SAFETY: the slot belongs to this thread, which is here and nowhere else.
    let open = unsafe { &mut *open };
    open.file = file;
    open.fd = fd;
    open.optval = word(ctx, 3);
    open.optlen = word(ctx, 4);
    open.record.level = level;
    open.record.optname = asked;
    if let Err(why_not) = write_down(&mut open.record, sk) {
        emit::count(why_not);
        let _gone = SYSCALL_IN_FLIGHT.remove(thread);
    }
}

/// Everything that is known before the call, or the counter of why there is no record.
#[inline(always)]
fn write_down(record: &mut QueryRecord, sk: Sock) -> Result<(), u32> {
    begin(record, RUNG_TRACEPOINT, now_ns());
    record.path = PATH_UNSEEN;
    describe(record, sk).map_err(|_fault| counter::FAULTED)?;
    if !admit_netns(record.netns) {
        return Err(counter::FILTERED);
    }
    if is_mptcp(record.protocol)
        && let Ok(flags) = sk.msk_flags()
    {
        record.msk_flags_enter = flags;
        record.valid |= VALID_FLAGS_ENTER;
    }
    Ok(())
}

/// A slot before anything is written into it: by reference, since it is too large for the stack.
#[inline(always)]
fn unasked() -> &'static SyscallInFlight {
    &UNASKED
}

static UNASKED: SyscallInFlight = SyscallInFlight {
    record: NOTHING,
    file: 0,
    optval: 0,
    optlen: 0,
    fd: 0,
    reserved: 0,
};

/// `getsockopt` returns.
#[tracepoint]
pub(crate) fn query_exit_getsockopt(ctx: TracePointContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    if let Some(open) = SYSCALL_IN_FLIGHT.get_ptr_mut(thread) {
        // SAFETY: the slot belongs to this thread, which is here and nowhere else.
        let open = unsafe { &mut *open };
        complete(open, word(&ctx, 0) as i32);
        emit::query(&open.record);
        debug!(
            &ctx,
            "thread {}: syscall returned {} after {} ns",
            open.record.tid,
            open.record.ret,
            open.record.latency_ns
        );
        let _gone = SYSCALL_IN_FLIGHT.remove(thread);
        return 0;
    }
    refused(&ctx, Keeper::GetOption, false);
    0
}

/// An option of a socket was set, or asked for, and perhaps refused. The descriptor is looked up only then: that another
/// thread closes it meanwhile is less likely than dear.
#[inline(always)]
fn refused(ctx: &TracePointContext, keeper: Keeper, is_set: bool) {
    let Some([fd, option]) = kept(keeper) else {
        return;
    };
    let ret = word(ctx, 0) as i32;
    if is_refusal(ret)
        && let Ok(file) = current_file(fd as u32)
        && let Some(sk) = socket_of_file(file)
        && sk
            .family()
            .is_ok_and(|family| sk.protocol().is_ok_and(|it| is_tcp_or_mptcp(family, it)))
    {
        option_refused(sk.0, option, outcome(ret, is_set, RUNG_TRACEPOINT));
    }
}

/// `setsockopt(fd, level, optname, optval, optlen)` is entered.
#[tracepoint]
pub(crate) fn query_enter_setsockopt(ctx: TracePointContext) -> u32 {
    let level = word(&ctx, 1) as u32;
    if is_ordinary(level) {
        let option = option(level, word(&ctx, 2) as u32);
        keep(Keeper::SetOption, word(&ctx, 0), option);
    }
    0
}

/// `setsockopt` returns.
#[tracepoint]
pub(crate) fn query_exit_setsockopt(ctx: TracePointContext) -> u32 {
    refused(&ctx, Keeper::SetOption, true);
    0
}

/// `socket(family, type, protocol)` is entered.
#[tracepoint]
pub(crate) fn query_enter_socket(ctx: TracePointContext) -> u32 {
    let family = word(&ctx, 0);
    if is_mptcp_socket(family, word(&ctx, 1), word(&ctx, 2)) {
        keep(Keeper::Socket, family, 0);
    }
    0
}

/// `socket` returns.
#[tracepoint]
pub(crate) fn query_exit_socket(ctx: TracePointContext) -> u32 {
    if let Some([family, _none]) = kept(Keeper::Socket) {
        let ret = word(&ctx, 0) as i32;
        if ret < 0 {
            socket_refused(family, ret);
        }
    }
    0
}

/// Adds what is known only after the call.
#[inline(always)]
fn complete(open: &mut SyscallInFlight, ret: i32) {
    let (file, fd, optval, optlen) = (open.file, open.fd, open.optval, open.optlen);
    let record: &mut QueryRecord = &mut open.record;
    record.ret = ret;
    record.latency_ns = now_ns() - record.boottime_ns;
    let sk = Sock(record.socket);
    if is_mptcp(record.protocol)
        && current_file(fd).is_ok_and(|now| now == file)
        && socket_of_file(file).is_some_and(|now| now.0 == sk.0)
        && let Ok(flags) = sk.msk_flags()
    {
        record.msk_flags_exit = flags;
        record.valid |= VALID_FLAGS_EXIT;
    }
    if ret == 0
        && let Ok(len) = read_user_u32(optlen)
        && len > 0
    {
        let value = if len >= 4 {
            read_user_u32(optval)
        } else {
            // The kernel shortens the answer to the caller's buffer; its first byte tells all.
            read_user_u8(optval).map(u32::from)
        };
        if let Ok(value) = value {
            record.user_value = value;
            record.user_len = len as i32;
            record.valid |= VALID_USER_VALUE;
        }
    }
}
