//! Attach method tracepoint: observes the system call itself, on kernels where no function can be
//! probed.
//!
//! One program runs at the return of all system calls. For a call of no interest it costs one
//! comparison; a pair of tracepoints on `getsockopt` alone would cost each `getsockopt` three times
//! as much. The program cannot observe the path of the answer. Instead it records the state bits of
//! the connection, and the caller's buffer if the bits are inconclusive. It misses a query on a
//! descriptor that another thread closes during the call.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use mptcp_trace_common::{
    counter,
    record::{PathBits, QueryRecord, RecordRung},
};

use super::{
    Answered, answer, is_protocol_query, is_query, is_wanted, option, put_user_value,
    refused::{is_mptcp_socket, is_ordinary, is_refusal, option_refused, outcome, socket_refused},
};
use crate::{
    emit,
    kernel::{
        AtReturn, Called, Sock, SockPrefix, current_file, family_of, is_mptcp,
        is_syscall_of_32_bits, is_tcp_or_mptcp, now_ns, open_socket_of_file,
        socket_queried_by_uring, syscall_number,
    },
    maps::{LIFE_AT_RETURN, syscall},
    sensors::{
        fallback::{life_returns, says_fallen},
        owner::note_untraced,
    },
    turns::in_turns,
};

/// True for the system calls that one of the two sensors handles.
#[inline(always)]
fn is_of_interest(ctx: &impl AtReturn) -> bool {
    let number = syscall_number(ctx);
    let is_get = number == syscall!(getsockopt);
    if is_get || number == syscall!(setsockopt) {
        let called = Called::native(ctx);
        return is_get && is_any_query(called.level(), called.optname())
            || is_refusal(ctx.returned());
    }
    if is_narrow(number) {
        let called = Called::narrow_getsockopt(ctx, number);
        return called.is_some_and(|called| is_any_query(called.level(), called.optname()));
    }
    if number == syscall!(socket) {
        return LIFE_AT_RETURN.load() != 0 || ctx.returned() < 0;
    }
    LIFE_AT_RETURN.load() != 0 && (number == syscall!(accept) || number == syscall!(accept4))
}

in_turns! {
    query: #[btf_tracepoint]
    query_tp_return(BtfTracePointContext), query_tp_return_2, query_tp_return_3, if is_of_interest
}
/// `sys_exit(struct pt_regs *regs, long ret)`: a system call returns.
#[inline(never)]
fn query_tp_return(ctx: BtfTracePointContext) -> i32 {
    system_call(&ctx)
}

in_turns! {
    query: #[raw_tracepoint]
    query_raw_return(RawTracePointContext), query_raw_return_2, query_raw_return_3, if is_of_interest
}
/// Variant for kernels without BTF: a helper reads the arguments.
#[inline(never)]
fn query_raw_return(ctx: RawTracePointContext) -> i32 {
    system_call(&ctx)
}

#[inline(always)]
fn system_call(ctx: &impl AtReturn) -> i32 {
    let number = syscall_number(ctx);
    let is_get = number == syscall!(getsockopt);
    if is_get || number == syscall!(setsockopt) {
        if !is_syscall_of_32_bits(ctx) {
            let called = Called::native(ctx);
            if is_get && is_any_query(called.level(), called.optname()) {
                getsockopt_returned(ctx, &called);
            } else {
                refused(ctx, !is_get);
            }
        }
        return 0;
    }
    if is_narrow(number) {
        if let Some(called) = Called::narrow_getsockopt(ctx, number) {
            getsockopt_returned(ctx, &called);
        }
        return 0;
    }
    if number == syscall!(socket) && ctx.returned() < 0 {
        socket_failed(ctx);
        return 0;
    }
    if LIFE_AT_RETURN.load() != 0 {
        life_returns(ctx, number);
    }
    0
}

/// True if a 32-bit program may have called `getsockopt` by this number.
#[inline(always)]
fn is_narrow(number: u32) -> bool {
    number == syscall!(getsockopt_32) || number == syscall!(socketcall_32)
}

#[inline(always)]
fn is_any_query(level: u32, number: u32) -> bool {
    is_query(level, number) || is_protocol_query(level, number)
}

/// `socket(family, type, protocol)` failed.
#[inline(always)]
fn socket_failed(ctx: &impl AtReturn) {
    let called = Called::native(ctx);
    if is_mptcp_socket(called.family(), called.kind(), called.protocol())
        && !is_syscall_of_32_bits(ctx)
    {
        let outcome = outcome(ctx.returned(), false, RecordRung::TRACEPOINT);
        socket_refused(called.family(), outcome);
    }
}

/// `getsockopt(fd, level, optname, optval, optlen)` returns, and it was a query.
#[inline(always)]
fn getsockopt_returned<C: AtReturn>(ctx: &C, called: &Called<'_, C>) {
    let (level, number) = (called.level(), called.optname());
    let ret = ctx.returned();
    // A bad descriptor or another kind of socket never reaches the TCP code: not a query.
    let mut sock = SockPrefix::unread();
    let Some((socket, sk, protocol)) = queried_socket(called, &mut sock) else {
        if ret == 0 && is_query(level, number) {
            // It was answered: the descriptor has been closed since.
            emit::count(counter::SEEN);
            emit::count(counter::FAULTED);
        }
        return;
    };
    if is_protocol_query(level, number) && !is_mptcp(protocol) {
        return;
    }
    let (now, thread) = (now_ns(), bpf_get_current_pid_tgid());
    if !is_wanted(sk, thread, now) {
        return;
    }
    let answered = Answered {
        thread,
        sk,
        protocol,
        socket,
        rung: RecordRung::TRACEPOINT,
        at_ns: now,
    };
    // Registers are read where they are written to the record: the stack is small.
    let answer_of = |record: &mut QueryRecord| {
        record.level = called.level();
        record.optname = called.optname();
        record.path = PathBits::UNSEEN;
        record.ret = ctx.returned();
    };
    answer(ctx, &sock, &answered, answer_of, |record| {
        put_answer_if_unsure(record, called);
    });
}

/// The TCP or MPTCP socket of a system call's descriptor: its `struct socket`, its `struct sock`,
/// and its protocol; the beginning of the `struct sock` is read into `sock`.
#[inline(always)]
fn queried_socket(
    called: &Called<'_, impl AtReturn>,
    sock: &mut SockPrefix,
) -> Option<(u64, Sock, u16)> {
    let (socket, sk) = open_socket_of_file(current_file(called.fd()).ok()?)?;
    sock.read(sk.0).ok()?;
    let protocol = sk.protocol().ok()?;
    is_tcp_or_mptcp(family_of(sock).ok()?, protocol).then_some((socket, sk, protocol))
}

/// Adds the answer from the caller's buffer, unless the state bits show that there was no fallback.
#[inline(always)]
fn put_answer_if_unsure(record: &mut QueryRecord, called: &Called<'_, impl AtReturn>) {
    if !is_mptcp(record.protocol) || record.ret != 0 || says_fallen(record.msk_flags) == Some(false)
    {
        return;
    }
    put_user_value(record, called.optval(), called.optlen());
}

/// An option was set or read, and perhaps refused.
#[inline(always)]
fn refused(ctx: &impl AtReturn, is_set: bool) {
    let called = Called::native(ctx);
    let ret = ctx.returned();
    let level = called.level();
    if !is_refusal(ret) || !is_ordinary(level) {
        return;
    }
    let mut sock = SockPrefix::unread();
    if let Some((_socket, sk, _protocol)) = queried_socket(&called, &mut sock) {
        let outcome = outcome(ret, is_set, RecordRung::TRACEPOINT);
        option_refused(sk.0, option(level, called.optname()), outcome);
    }
}

/// `io_uring_complete(void *ctx, void *req, ...)`: a request completed. A query through `io_uring`
/// is only marked as untraced.
#[raw_tracepoint]
pub(crate) fn query_tp_uring(ctx: RawTracePointContext) -> i32 {
    if let Some(sk) = socket_queried_by_uring(ctx.arg(1)) {
        note_untraced(sk);
    }
    0
}
