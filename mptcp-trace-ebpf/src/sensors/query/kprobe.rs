//! Attach method kprobe: kprobes on `mptcp_getsockopt_sol_tcp` if the kernel has that symbol, else
//! on `mptcp_getsockopt`, and on `do_tcp_getsockopt`.

use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_get_current_pid_tgid,
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use aya_log_ebpf::debug;
use mptcp_trace_common::{
    counter,
    map_values::InFlight,
    numbers::{SO_PROTOCOL, SOL_SOCKET, SOL_TCP},
    record::{PathBits, QueryRecord, RecordRung},
};

use super::{
    Answered, answer, is_mptcp_query, is_protocol_query, is_query, is_wanted, option, put_answer,
    refused::{is_mptcp_socket, is_ordinary, is_refusal, option_refused, outcome, socket_refused},
};
use crate::{
    call_args::{CallSite, stash_args, take_args},
    emit,
    entry::{get, set},
    kernel::{Sock, SockPrefix, argument, is_mptcp, now_ns, returned, sock_of_socket, socket_of},
    maps::{IN_FLIGHT, OUTERMOST_PROBED, in_flight},
    sensors::owner::note_untraced,
};

/// Entry of a function that answers queries; `step` is its kind, `option` the option.
#[inline(always)]
fn enter(ctx: &ProbeContext, step: PathBits, sk: Sock, option: u64) {
    let thread = bpf_get_current_pid_tgid();
    if let Some(open) = in_flight(thread) {
        if step == PathBits::TCP && get!(open, path) == PathBits::MPTCP {
            set!(open, path, PathBits::MPTCP.union(PathBits::TCP));
            return;
        }
        // The return of the previous query was never observed.
        emit::count(counter::UNFINISHED);
        note_untraced(Sock(get!(open, socket)));
        let _gone = IN_FLIGHT.remove(thread);
    }
    if step == PathBits::TCP && OUTERMOST_PROBED.load() != 0 && sk.msk_of_subflow().is_some() {
        // The outer function has already left this query out, and counted it.
        return;
    }
    let now = now_ns();
    if !is_wanted(sk, thread, now) {
        return;
    }
    let open = InFlight {
        boottime_ns: now,
        socket: sk.0,
        level: (option >> 32) as u32,
        optname: option as u32,
        path: step,
        reserved: [0; 7],
    };
    if IN_FLIGHT.insert(thread, open, 0).is_err() {
        emit::count(counter::TABLE_FULL);
        note_untraced(sk);
        debug!(ctx, "thread {}: no room for its query", ctx.pid());
    }
}

/// Entry of a function that serves all sockets: only the answer of an MPTCP socket is reported.
#[inline(always)]
fn enter_protocol(ctx: &ProbeContext, sk: Sock) {
    if sk.protocol().is_ok_and(is_mptcp) {
        enter(ctx, PathBits::UNSEEN, sk, option(SOL_SOCKET, SO_PROTOCOL));
    }
}

/// Return of a function of kind `step`.
#[inline(always)]
fn leave(ctx: &RetProbeContext, step: PathBits) {
    let thread = bpf_get_current_pid_tgid();
    let Some(open) = in_flight(thread) else {
        return;
    };
    // SAFETY: a whole value in a map; the slot belongs to the current thread.
    let open = unsafe { open.as_ptr().read() };
    if step == PathBits::TCP && open.path.contains(PathBits::MPTCP) {
        // The outermost function has yet to return.
        return;
    }
    if (step == PathBits::UNSEEN) != (open.path == PathBits::UNSEEN) {
        // This query did not pass through the returning function.
        return;
    }
    let _gone = IN_FLIGHT.remove(thread);
    let mut sk = Sock(open.socket);
    let mut path = open.path;
    if open.path == PathBits::TCP
        && let Some(msk) = sk.msk_of_subflow()
    {
        // Only inner functions are probed: the TCP code answered on behalf of a connection.
        path |= PathBits::MPTCP;
        sk = msk;
    }
    let mut sock = SockPrefix::unread();
    if sock.read(sk.0).is_err() {
        emit::count(counter::FAULTED);
        note_untraced(sk);
        return;
    }
    let answered = Answered {
        thread,
        sk,
        protocol: sk.protocol().unwrap_or(0),
        socket: socket_of(&sk).unwrap_or(0),
        rung: RecordRung::KPROBE,
        at_ns: open.boottime_ns,
    };
    let put = |record: &mut QueryRecord| {
        put_answer(
            record,
            option(open.level, open.optname),
            path,
            returned(ctx) as i32,
        );
        record.latency_ns = now_ns() - open.boottime_ns;
    };
    answer(ctx, &sock, &answered, put, |_record| ());
}

/// Level and number of the option: `f(sk, level, optname, ...)`.
#[inline(always)]
fn level_and_number(ctx: &ProbeContext) -> (u32, u32) {
    (argument(ctx, 1) as u32, argument(ctx, 2) as u32)
}

/// `mptcp_getsockopt_sol_tcp(msk, optname, optval, optlen)` is entered. The kernel calls it only
/// for a connection that has not fallen back.
#[kprobe]
pub(crate) fn query_kprobe_sol_tcp(ctx: ProbeContext) -> u32 {
    let number = argument(&ctx, 1) as u32;
    if is_query(SOL_TCP, number) {
        let option = option(SOL_TCP, number);
        enter(&ctx, PathBits::MPTCP, Sock(argument(&ctx, 0)), option);
    }
    0
}

/// `mptcp_getsockopt(sk, level, optname, optval, option)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_mptcp(ctx: ProbeContext) -> u32 {
    let (level, number) = level_and_number(&ctx);
    if is_query(level, number) {
        enter(
            &ctx,
            PathBits::MPTCP,
            Sock(argument(&ctx, 0)),
            option(level, number),
        );
    } else if is_ordinary(level) {
        stash_args(
            CallSite::GetOption,
            argument(&ctx, 0),
            option(level, number),
        );
    }
    0
}

/// Either of the two returns.
#[kretprobe]
pub(crate) fn query_kretprobe_mptcp(ctx: RetProbeContext) -> u32 {
    leave(&ctx, PathBits::MPTCP);
    refused(&ctx, CallSite::GetOption, false);
    0
}

/// An option was set or read, and perhaps refused.
#[inline(always)]
fn refused(ctx: &RetProbeContext, site: CallSite, is_set: bool) {
    let Some([sk, option]) = take_args(site) else {
        return;
    };
    let ret = returned(ctx) as i32;
    if is_refusal(ret) {
        option_refused(sk, option, outcome(ret, is_set, RecordRung::KPROBE));
    }
}

/// `mptcp_setsockopt(sk, level, optname, ...)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_set(ctx: ProbeContext) -> u32 {
    let (level, number) = level_and_number(&ctx);
    if is_ordinary(level) {
        stash_args(
            CallSite::SetOption,
            argument(&ctx, 0),
            option(level, number),
        );
    }
    0
}

/// `mptcp_setsockopt` returns.
#[kretprobe]
pub(crate) fn query_kretprobe_set(ctx: RetProbeContext) -> u32 {
    refused(&ctx, CallSite::SetOption, true);
    0
}

/// `do_tcp_getsockopt(sk, level, optname, ...)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_tcp(ctx: ProbeContext) -> u32 {
    let (level, number) = level_and_number(&ctx);
    if is_query(level, number) {
        enter(
            &ctx,
            PathBits::TCP,
            Sock(argument(&ctx, 0)),
            option(level, number),
        );
    }
    0
}

/// `tcp_getsockopt(sk, level, optname, ...)` is entered, where `do_tcp_getsockopt` is probed too:
/// that function handles only options of level TCP.
#[kprobe]
pub(crate) fn query_kprobe_other(ctx: ProbeContext) -> u32 {
    let (level, number) = level_and_number(&ctx);
    if is_mptcp_query(level, number) {
        let sk = Sock(argument(&ctx, 0));
        enter(&ctx, PathBits::TCP, sk, option(level, number));
    }
    0
}

/// Either of the two returns.
#[kretprobe]
pub(crate) fn query_kretprobe_tcp(ctx: RetProbeContext) -> u32 {
    leave(&ctx, PathBits::TCP);
    0
}

/// `sock_getsockopt(sock, level, optname, ...)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_socket(ctx: ProbeContext) -> u32 {
    let (level, number) = level_and_number(&ctx);
    if is_protocol_query(level, number)
        && let Some(sk) = sock_of_socket(argument(&ctx, 0))
    {
        enter_protocol(&ctx, sk);
    }
    0
}

/// `sk_getsockopt(sk, level, optname, ...)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_sock(ctx: ProbeContext) -> u32 {
    let (level, number) = level_and_number(&ctx);
    if is_protocol_query(level, number) {
        enter_protocol(&ctx, Sock(argument(&ctx, 0)));
    }
    0
}

/// Either of the two returns.
#[kretprobe]
pub(crate) fn query_kretprobe_sock(ctx: RetProbeContext) -> u32 {
    leave(&ctx, PathBits::UNSEEN);
    0
}

/// `__sock_create(net, family, type, protocol, res, kern)` is entered.
#[kprobe]
pub(crate) fn query_kprobe_create(ctx: ProbeContext) -> u32 {
    let family = u64::from(argument(&ctx, 1) as u32);
    let (kind, protocol) = (argument(&ctx, 2), argument(&ctx, 3));
    if argument(&ctx, 5) as u32 == 0 && is_mptcp_socket(family, kind, protocol) {
        stash_args(CallSite::Socket, family, 0);
    }
    0
}

/// `__sock_create` returns.
#[kretprobe]
pub(crate) fn query_kretprobe_create(ctx: RetProbeContext) -> u32 {
    if let Some([family, _none]) = take_args(CallSite::Socket) {
        let ret = returned(&ctx) as i32;
        if ret < 0 {
            socket_refused(family, outcome(ret, false, RecordRung::KPROBE));
        }
    }
    0
}
