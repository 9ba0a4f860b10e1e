//! Attach method fexit: trampolines on `mptcp_getsockopt` and `tcp_getsockopt`, whose signature
//! never changed: `int f(struct sock *sk, int level, int optname, char *optval, int *option)`.
//!
//! Only their return is probed: the return of the outermost function shows everything but the
//! latency, and an entry trampoline and the memory that it needs would cost more than the rest.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::fexit, programs::FExitContext};
use mptcp_trace_common::{
    numbers::SOL_TCP,
    record::{PathBits, QueryRecord, RecordRung},
};

use super::{
    Answered, answer, is_protocol_query, is_query, is_wanted, option, put_answer, put_user_value,
    refused::{
        is_mptcp_socket, is_ordinary, is_refusal, may_be_refusal, option_refused, outcome,
        socket_refused,
    },
};
use crate::{
    kernel::{
        ReadMember, Sock, TypedSock, is_mptcp, now_ns, protocol_of, sock_of_socket, socket_of,
    },
    maps::{ANSWERED, answered_by_tcp},
    sensors::fallback::says_fallen,
    turns::in_turns,
};

/// Position of the return value in the trampoline's context: after the five arguments.
const RETURN_VALUE: usize = 5;

/// The outermost function answered a query; `more` adds what only the caller knows.
#[inline(always)]
fn answered(
    ctx: &FExitContext,
    (sk, sock): (Sock, &impl ReadMember),
    (path, ret): (PathBits, i32),
    more: impl FnOnce(&mut QueryRecord),
) {
    let (now, thread) = (now_ns(), bpf_get_current_pid_tgid());
    if is_wanted(sk, thread, now) {
        let answered = Answered {
            thread,
            sk,
            protocol: protocol_of(sock).unwrap_or(0),
            socket: socket_of(sock).unwrap_or(0),
            rung: RecordRung::FEXIT,
            at_ns: now,
        };
        let put = |record: &mut QueryRecord| {
            put_answer(record, option(ctx.arg(1), ctx.arg(2)), path, ret);
        };
        answer(ctx, sock, &answered, put, more);
    }
}

/// A query, or perhaps a refused option: one comparison is enough for all other calls.
#[inline(always)]
fn answers_mptcp(ctx: &FExitContext) -> bool {
    answers_tcp(ctx) || may_be_refusal(ctx.arg(RETURN_VALUE))
}

in_turns! {
    query: #[fexit]
    query_fexit_mptcp(FExitContext), query_fexit_mptcp_2, query_fexit_mptcp_3, if answers_mptcp
}
/// `mptcp_getsockopt` returns.
#[inline(never)]
fn query_fexit_mptcp(ctx: FExitContext) -> i32 {
    let ret = ctx.arg(RETURN_VALUE);
    if !is_query(ctx.arg(1), ctx.arg(2)) {
        if is_refused(&ctx, ret) {
            refused(&ctx, ret, false);
        }
        return 0;
    }
    let sock = TypedSock(ctx.arg(0));
    answered(
        &ctx,
        (Sock(ctx.arg(0)), &sock),
        (PathBits::MPTCP, ret),
        |record| {
            // A connection that has not fallen back is not passed on to the TCP code.
            if says_fallen(record.msk_flags) != Some(false) {
                if answered_by_tcp(bpf_get_current_pid_tgid(), record.socket) {
                    record.path |= PathBits::TCP;
                } else {
                    unsure(record, &ctx);
                }
            }
        },
    );
    0
}

/// The path is unknown: the connection fell back during the call, or no program ran when the TCP
/// code returned, because the kernel skips (and counts) a program that a preempted thread is
/// running on this CPU. The state bits and the caller's buffer show the answer.
#[inline(always)]
fn unsure(record: &mut QueryRecord, ctx: &FExitContext) {
    record.path = PathBits::UNSEEN;
    if record.ret == 0 && record.level == SOL_TCP {
        put_user_value(record, ctx.arg(3), ctx.arg(4));
    }
}

/// A query that TCP may answer.
#[inline(always)]
fn answers_tcp(ctx: &FExitContext) -> bool {
    is_query(ctx.arg(1), ctx.arg(2))
}

in_turns! {
    query: #[fexit]
    query_fexit_tcp(FExitContext), query_fexit_tcp_2, query_fexit_tcp_3, if answers_tcp
}
/// `tcp_getsockopt` returns: for a TCP socket, or for a fallen connection whose own function has
/// yet to return.
#[inline(never)]
fn query_fexit_tcp(ctx: FExitContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    if let Some(msk) = sk.msk_of_subflow() {
        let _full = ANSWERED.insert(bpf_get_current_pid_tgid(), msk.0, 0);
    } else {
        let sock = TypedSock(ctx.arg(0));
        let ret = ctx.arg(RETURN_VALUE);
        answered(&ctx, (sk, &sock), (PathBits::TCP, ret), |_record| ());
    }
    0
}

/// An option was set or read, and refused.
#[inline(always)]
fn is_refused(ctx: &FExitContext, ret: i32) -> bool {
    is_refusal(ret) && is_ordinary(ctx.arg(1))
}

#[inline(always)]
fn refused(ctx: &FExitContext, ret: i32, is_set: bool) {
    let option = option(ctx.arg(1), ctx.arg(2));
    option_refused(ctx.arg(0), option, outcome(ret, is_set, RecordRung::FEXIT));
}

/// Position of the return value for five arguments of which one takes two words.
const RETURN_VALUE_OF_SET: usize = 6;

#[inline(always)]
fn is_set_refused(ctx: &FExitContext) -> bool {
    is_refused(ctx, ctx.arg(RETURN_VALUE_OF_SET))
}

in_turns! {
    query: #[fexit]
    query_fexit_set(FExitContext), query_fexit_set_2, query_fexit_set_3, if is_set_refused
}
/// `mptcp_setsockopt(sk, level, optname, sockptr_t optval, optlen)` returns: one of its arguments
/// takes two words.
#[inline(never)]
fn query_fexit_set(ctx: FExitContext) -> i32 {
    refused(&ctx, ctx.arg(RETURN_VALUE_OF_SET), true);
    0
}

/// Handles a query of the protocol, on any socket: only the answer of an MPTCP socket is reported.
#[inline(always)]
fn protocol(ctx: &FExitContext, sk: Sock, ret: i32) {
    if sk.protocol().is_ok_and(is_mptcp) {
        answered(ctx, (sk, &sk), (PathBits::UNSEEN, ret), |_record| ());
    }
}

#[inline(always)]
fn reads_protocol(ctx: &FExitContext) -> bool {
    is_protocol_query(ctx.arg(1), ctx.arg(2))
}

/// `sock_getsockopt(sock, level, optname, optval, optlen)` returns. One program: every option of
/// every socket comes by, and each further program would cost it as much as this one.
#[fexit]
pub(crate) fn query_fexit_socket(ctx: FExitContext) -> i32 {
    if reads_protocol(&ctx) {
        return of_socket(ctx);
    }
    0
}

/// Not inlined: the registers that it saves would cost every option.
#[inline(never)]
fn of_socket(ctx: FExitContext) -> i32 {
    if let Some(sk) = sock_of_socket(ctx.arg(0)) {
        protocol(&ctx, sk, ctx.arg(RETURN_VALUE));
    }
    0
}

/// `sk_getsockopt(sk, level, optname, sockptr_t optval, sockptr_t optlen)` returns: two of its
/// arguments take two words each. One program, as above.
#[fexit]
pub(crate) fn query_fexit_sock(ctx: FExitContext) -> i32 {
    if reads_protocol(&ctx) {
        return of_sock(ctx);
    }
    0
}

/// Not inlined, as above.
#[inline(never)]
fn of_sock(ctx: FExitContext) -> i32 {
    const RETURN_VALUE: usize = 7;
    protocol(&ctx, Sock(ctx.arg(0)), ctx.arg(RETURN_VALUE));
    0
}

/// Position of the return value for six arguments.
const RETURN_VALUE_OF_CREATE: usize = 6;

/// The kernel refused to create an MPTCP socket for a process.
#[inline(always)]
fn fails_to_create(ctx: &FExitContext) -> bool {
    let ret: i32 = ctx.arg(RETURN_VALUE_OF_CREATE);
    let by_kernel: i32 = ctx.arg(5);
    let (family, kind, protocol): (i32, i32, i32) = (ctx.arg(1), ctx.arg(2), ctx.arg(3));
    ret < 0 && by_kernel == 0 && is_mptcp_socket(family as u64, kind as u64, protocol as u64)
}

in_turns! {
    query: #[fexit]
    query_fexit_create(FExitContext), query_fexit_create_2, query_fexit_create_3, if fails_to_create
}
/// `__sock_create(net, family, type, protocol, res, kern)` returns.
#[inline(never)]
fn query_fexit_create(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(RETURN_VALUE_OF_CREATE);
    let family: i32 = ctx.arg(1);
    socket_refused(family as u64, outcome(ret, false, RecordRung::FEXIT));
    0
}
