//! The kernel's own MPTCP counters of a network namespace.
//!
//! The kernel frees the counters together with their namespace, so they are read before that: at
//! the end of each connection that fell back, while its socket still holds a reference to the
//! namespace, and on request of userspace. The tracer itself holds no reference to any namespace.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use mptcp_trace_common::{
    calibrated::NO_DATA,
    map_values::NetCounters,
    record::{COUNTERS, Kind},
};

use crate::{
    emit,
    entry::{get, set},
    kernel::{
        Net, Sock, counter, current_file, now_ns, per_cpu_address, per_cpu_offset, socket_of_file,
    },
    maps::{ANSWER, CPUS, NETS, counter_number, net_of},
};

/// Maximum number of readings per namespace and second at the end of fallen connections. Beyond it,
/// the next reading, in a later second or by userspace, includes what was skipped.
const READINGS_PER_SECOND: u32 = 1000;

/// On machines with more CPUs than this, only userspace triggers readings, because the verifier
/// walks the loop of [`read`] once per CPU.
const CPUS_AT_END_MAX: u32 = 64;

const SECOND_NS: u64 = 1_000_000_000;

/// The kernel may count an event slightly after this program reports it, and the thread may be
/// preempted in between. So a namespace that is read within this time after an event is read again.
const COUNTED_WITHIN_NS: u64 = 100_000_000;

/// Marks the namespace as changed: the kernel has counted the event just reported, or is about to.
/// Not inlined, because its callers have little stack left.
#[inline(never)]
pub(crate) fn changes(kind: Kind, net: u64, cookie: u64) -> u32 {
    if cookie == 0 || kind != Kind::FALLBACK && kind != Kind::TCP_CHILD {
        return 0;
    }
    let now = now_ns();
    if let Some(known) = net_of(cookie) {
        set!(known, reported_ns, now);
    } else {
        let new = NetCounters {
            net,
            reported_ns: now,
            second: 0,
            readings: 0,
        };
        let _no_room = NETS.insert(cookie, new, 0);
    }
    0
}

/// Reads the counters when a subflow or a TCP child ends: its namespace still exists, and the
/// kernel has already counted its events.
#[inline(always)]
pub(crate) fn at_end(sk: Sock) {
    if let Ok(net) = sk.net()
        && let Ok(cookie) = net.cookie()
        && let Some(known) = net_of(cookie)
        && get!(known, reported_ns) != 0
    {
        let second = (now_ns() / SECOND_NS) as u32;
        let before = match get!(known, second) == second {
            true => get!(known, readings),
            false => 0,
        };
        set!(known, second, second);
        set!(known, readings, before + 1);
        if before < READINGS_PER_SECOND && CPUS.load() <= CPUS_AT_END_MAX {
            read(net.0, cookie, Kind::COUNTED);
        }
    }
}

/// Result of [`read`] if the ring is full.
const NO_ROOM: u32 = 2;

/// Reads the counters of a live namespace and emits them as a record of this kind. Not inlined,
/// because it uses 100 bytes of stack. At each call, the verifier walks its loop once per CPU.
#[inline(never)]
fn read(net: u64, cookie: u64, kind: Kind) -> u32 {
    let net = Net(net);
    let at = net.counters().and_then(per_cpu_offset);
    let (Ok(at), Ok(netns)) = (at, net.inode()) else {
        return 0;
    };
    // Cleared before the reading, so that an event counted meanwhile causes another reading.
    if kind == Kind::COUNTED
        && let Some(known) = net_of(cookie)
        && now_ns() - get!(known, reported_ns) > COUNTED_WITHIN_NS
    {
        set!(known, reported_ns, 0);
    }
    let mut sums = [0; COUNTERS];
    let cpus = CPUS.load();
    let mut cpu = 0;
    while cpu < cpus {
        add_cpu(&mut sums, at, cpu);
        cpu += 1;
    }
    let Some(mut entry) = emit::reserve_counted() else {
        if kind == Kind::COUNTED
            && let Some(known) = net_of(cookie)
        {
            set!(known, reported_ns, now_ns());
        }
        return NO_ROOM;
    };
    let record = emit::blank(&mut entry);
    record.kind = kind;
    record.netns = netns;
    record.boottime_ns = now_ns();
    record.cookie = cookie;
    for (slot, sum) in sums.into_iter().enumerate() {
        record.counters[slot] = sum;
    }
    entry.submit(0);
    1
}

/// Adds the counters of one CPU.
#[inline(always)]
fn add_cpu(sums: &mut [u64; COUNTERS], at: u64, cpu: u32) {
    let Ok(per_cpu_address) = per_cpu_address(cpu) else {
        return;
    };
    let counters = at.wrapping_add(per_cpu_address);
    for (slot, sum) in sums.iter_mut().enumerate() {
        *sum += counter(counters, counter_number(slot));
    }
}

/// Reads the namespace with this cookie. Userspace runs this program with `BPF_PROG_TEST_RUN`; it
/// is not attached.
#[raw_tracepoint]
pub(crate) fn counted_now(ctx: RawTracePointContext) -> i32 {
    let cookie: u64 = ctx.arg(0);
    let Some(known) = net_of(cookie) else {
        return 0;
    };
    let net = Net(get!(known, net));
    // The kernel first removes a namespace from the list of all, and frees it only after running
    // programs have ended (RCU).
    if get!(known, reported_ns) != 0 && net.is_listed() && net.cookie().is_ok_and(|it| it == cookie)
    {
        read(net.0, cookie, Kind::COUNTED);
    }
    0
}

/// Network namespace of a socket of the current process.
#[inline(always)]
fn net_of_descriptor(fd: u64) -> Option<Net> {
    let socket = current_file(fd as u32).ok().and_then(socket_of_file)?;
    socket.net().ok()
}

/// Helps userspace to find the index of MPTCP's per-namespace data. Userspace sets the blackhole
/// timeout in the namespace of its socket `fd` to a distinctive number, and runs this program for
/// one index after another. The program assumes that `id` is the index and returns the timeout that
/// it reads there, or [`NO_DATA`] if the index does not exist. It is not attached.
#[raw_tracepoint]
pub(crate) fn counted_pernet(ctx: RawTracePointContext) -> i32 {
    let (fd, id): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let answer = match net_of_descriptor(fd) {
        Some(net) if (id as u32) < net.data_count() => u64::from(net.blackhole_timeout(id as u32)),
        Some(_) | None => NO_DATA,
    };
    let _set = ANSWER.set(0, answer, 0);
    0
}

/// Walks the namespaces when tracing begins: reads the counters of the one at this address, and
/// returns the address of the next one, or 0 if this one is being removed or the ring is full. For
/// address 0 it returns the namespace of the socket `fd`. Userspace runs this program; it is not
/// attached.
#[raw_tracepoint]
pub(crate) fn counted_next(ctx: RawTracePointContext) -> i32 {
    let (fd, address): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let net = Net(address);
    let answer = match address {
        0 => net_of_descriptor(fd).map_or(0, |net| net.0),
        _ => match net.cookie() {
            Ok(cookie)
                if net.is_listed() && read(address, cookie, Kind::COUNTED_AT_START) != NO_ROOM =>
            {
                net.next()
            }
            Ok(_) | Err(_) => 0,
        },
    };
    let _set = ANSWER.set(0, answer, 0);
    0
}
