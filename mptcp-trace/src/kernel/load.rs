//! Loads the object, with its constants filled in.

use std::{collections::BTreeMap, io, thread};

use anyhow::Context as _;
use aya::{Ebpf, EbpfLoader, maps::HashMap};
use mptcp_trace_common::{
    filter::{BY_COMM, BY_NETNS, BY_PID, FOLLOW, FilterConfig},
    layout::{
        ABSENT, Architecture, CounterNumbers, KernelLayout, KernelNumbers, NO_NUMBER, NO_SYSCALL,
        SyscallNumbers,
    },
    map_values::SHARE_OF_OTHERS,
    record::{ABI_SYMBOL, ABI_VERSION, RecordRung},
};
use rustix::{
    param::page_size,
    process::chroot,
    thread::{UnshareFlags, unshare_unsafe},
};
use zerocopy::IntoBytes as _;

use crate::{
    host::{HostSupport, PidNamespace, Preemptible, procfs},
    model::{Rung, SensorId, fallback_causes, name_of_enumerator},
    plan::{RungPlan, Selection},
};

/// Everything that is frozen into the programs before verification.
#[derive(Clone, Debug)]
pub struct TracerConfig {
    /// Offsets in the kernel's structures.
    pub layout: KernelLayout,
    /// Values of the kernel's `mapping_status` and `skb_ext_id`.
    pub numbers: KernelNumbers,
    /// Type ids of functions in the kernel's BTF.
    pub functions: BTreeMap<&'static str, u32>,
    /// How the kernel's own counters are read.
    pub counters: CountersAt,
    /// Only named processes are admitted (more can be added later).
    pub by_pid: bool,
    /// Processes named at the start: sockets that they hold are reported at the start.
    pub pids: Vec<u32>,
    /// Children of admitted processes are admitted.
    pub follow: bool,
    /// Only these thread names are admitted; empty: all.
    pub comms: Vec<[u8; 16]>,
    /// Only these network namespaces are admitted; empty: all.
    pub netns: Vec<u32>,
    /// The PID namespace whose process ids are used, if it is not the initial one.
    pub pid_namespace: Option<PidNamespace>,
    /// [`HostSupport::visits_all_tasks`].
    pub visits_all_tasks: bool,
    /// Size of the ring, bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Limit of traced queries per process and second; 0: none.
    pub cap: u32,
    /// Where the kernel may preempt a thread inside a program.
    pub preemptible: Preemptible,
    /// Maximum number of tracked sockets.
    pub sockets: u32,
    /// Maximum number of tracked sockets per user.
    pub sockets_per_user: u32,
    /// Enables debug messages of the programs.
    pub debug: bool,
}

/// What is required to read the kernel's counters of a network namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountersAt {
    /// Number of possible CPUs; 0 if something is unknown: counters are not read then.
    pub cpus: u32,
    /// Indices of the counters, in the order of [`fallback_causes`].
    pub numbers: CounterNumbers,
}

impl CountersAt {
    /// Counters are not read.
    pub const UNKNOWN: Self = Self {
        cpus: 0,
        numbers: CounterNumbers::NONE,
    };

    /// The values for a host.
    #[must_use]
    pub fn of(host: &HostSupport) -> Self {
        let KernelLayout {
            net_cookie,
            net_mptcp_counters,
            array_per_cpu,
            ..
        } = host.layout;
        let is_known = ![net_cookie, net_mptcp_counters, array_per_cpu].contains(&ABSENT);
        let cpus = host.cpus.filter(|_| is_known);
        cpus.map_or(Self::UNKNOWN, |cpus| Self {
            cpus,
            numbers: counter_numbers(&host.counters),
        })
    }
}

/// Size of the ring: at least a page, which is larger than 4 KB on some kernels for arm64.
fn ring_bytes(wanted: u32) -> u32 {
    let page = u32::try_from(page_size()).unwrap_or(wanted);
    wanted.max(page)
}

/// Indices of the fallback counters that the kernel has.
fn counter_numbers(counters: &[(i32, String)]) -> CounterNumbers {
    let mut numbers = CounterNumbers::NONE;
    for (slot, cause) in numbers.0.iter_mut().zip(fallback_causes()) {
        let of_cause = |(number, enumerator): &(i32, String)| {
            let is_it = name_of_enumerator(enumerator) == Some(cause);
            u8::try_from(*number).ok().filter(|_| is_it)
        };
        *slot = counters.iter().find_map(of_cause).unwrap_or(NO_NUMBER);
    }
    numbers
}

/// Loads the object: creates maps and freezes constants; programs are attached by
/// [`super::attach`].
pub(super) fn load(config: &TracerConfig, selection: &Selection<'_>) -> anyhow::Result<Ebpf> {
    let (rung, fallback) = (selection.query(), selection.of(SensorId::Fallback));
    raise_memlock_limit();
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    let filter = FilterConfig {
        flags: flag(config.by_pid, BY_PID)
            | flag(config.follow, FOLLOW)
            | flag(!config.comms.is_empty(), BY_COMM)
            | flag(!config.netns.is_empty(), BY_NETNS),
        own_tgid: procfs::own_pid(),
        pidns_inum: config.pid_namespace.map_or(0, |ns| ns.inum),
    };
    let outermost_probed = u32::from(rung.outermost_probed());
    let rung_number = number_of(fallback.unwrap_or(rung));
    let paths_rung = selection.of(SensorId::Subflow).map_or(0, number_of);
    let joins_asked = selection
        .of(SensorId::Subflow)
        .is_some_and(RungPlan::joins_asked);
    let joins_asked = u32::from(joins_asked);
    let decision_probed = u32::from(fallback.is_some_and(RungPlan::decision_probed));
    let children_probed = u32::from(fallback.is_some_and(RungPlan::children_probed));
    let syscalls = syscall_numbers();
    let life_at_return = u32::from(selection.is_shared(SensorId::Fallback));
    let turns_at_functions = u32::from(config.preemptible.functions);
    let turns_at_tracepoints = u32::from(config.preemptible.tracepoints);
    let ring_bytes = ring_bytes(config.ring_bytes);
    let eighth = u64::from(ring_bytes) / 8;
    let (room_for_connections, room_for_queries) = (eighth * 7, eighth * 6);
    let (room_for_paths, room_for_joins) = (eighth * 5, eighth * 4);
    let sockets_per_user = u64::from(config.sockets_per_user);
    let level: u8 = if config.debug {
        aya_log::Level::Debug as u8
    } else {
        0
    };
    let mut loader = loader()?;
    loader
        // The object has no CO-RE relocations.
        .btf(None)
        .override_global(ABI_SYMBOL, &ABI_VERSION, true)
        .override_global("LAYOUT", config.layout.as_bytes(), true)
        .override_global("FILTER", filter.as_bytes(), true)
        .override_global("ARCHITECTURE", &(Architecture::NATIVE as u32), true)
        .override_global("OUTERMOST_PROBED", &outermost_probed, true)
        .override_global("NUMBERS", config.numbers.as_bytes(), true)
        .override_global("RUNG", &rung_number, true)
        .override_global("DECISION_PROBED", &decision_probed, true)
        .override_global("CHILDREN_PROBED", &children_probed, true)
        .override_global("COUNTER_NUMBERS", &config.counters.numbers.0[..], true)
        .override_global("CPUS", &config.counters.cpus, true)
        .override_global("CAP", &config.cap, true)
        .override_global("SYSCALLS", syscalls.as_bytes(), true)
        .override_global("LIFE_AT_RETURN", &life_at_return, true)
        .override_global("TURNS_AT_FUNCTIONS", &turns_at_functions, true)
        .override_global("TURNS_AT_TRACEPOINTS", &turns_at_tracepoints, true)
        .override_global("ROOM_FOR_QUERIES", &room_for_queries, true)
        .override_global("ROOM_FOR_CONNECTIONS", &room_for_connections, true)
        .override_global("ROOM_FOR_JOINS", &room_for_joins, true)
        .override_global("ROOM_FOR_PATHS", &room_for_paths, true)
        .override_global("PATHS_RUNG", &paths_rung, true)
        .override_global("JOINS_ASKED", &joins_asked, true)
        .override_global(aya_log::LEVEL, &level, true)
        .override_global("SHARE_MAX", &sockets_per_user, true)
        .map_max_entries("RECORDS", ring_bytes)
        .map_max_entries("CONNS", config.sockets)
        .map_max_entries("PATHS", config.sockets)
        .map_max_entries("FALLEN", config.sockets);
    // Memory only for the attach method in use.
    if rung.rung == Rung::Tracepoint {
        loader.map_max_entries("IN_FLIGHT", 1);
    }
    if config.preemptible == Preemptible::default() {
        loader.map_max_entries("RUNS", 1);
    }
    let mut ebpf = loader
        .load(&super::Object::unpack()?)
        .context("cannot load the BPF object into this kernel")?;
    set_up_shares(&mut ebpf)?;
    Ok(ebpf)
}

/// Everybody else's share of the tables is always there.
fn set_up_shares(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    for name in ["SHARES", "PATH_SHARES"] {
        let shares = ebpf
            .map_mut(name)
            .with_context(|| format!("the BPF object has no map {name}"))?;
        HashMap::<_, u32, u64>::try_from(shares)
            .and_then(|mut shares| shares.insert(SHARE_OF_OTHERS, 0, 0))
            .with_context(|| format!("cannot set up the map {name}"))?;
    }
    Ok(())
}

/// The number of an attach method in records.
fn number_of(plan: &RungPlan) -> u32 {
    let number = match plan.rung {
        Rung::Fexit => RecordRung::FEXIT,
        Rung::Kprobe => RecordRung::KPROBE,
        Rung::Tracepoint => RecordRung::TRACEPOINT,
    };
    number.0.into()
}

/// System call numbers of the architecture that this program was built for, which is the kernel's.
fn syscall_numbers() -> SyscallNumbers {
    let number = |number: libc::c_long| u32::try_from(number).unwrap_or(NO_SYSCALL);
    // Of i386 (`syscall_32.tbl`) and of 32-bit ARM (`syscall.tbl`): part of the ABI of 32-bit programs.
    let (getsockopt_32, socketcall_32) = match Architecture::NATIVE {
        Architecture::X86_64 => (365, 102),
        Architecture::Aarch64 => (295, NO_SYSCALL),
    };
    SyscallNumbers {
        getsockopt: number(libc::SYS_getsockopt),
        setsockopt: number(libc::SYS_setsockopt),
        socket: number(libc::SYS_socket),
        accept: number(libc::SYS_accept),
        accept4: number(libc::SYS_accept4),
        getsockopt_32,
        socketcall_32,
    }
}

/// A loader that has not read the kernel's types.
///
/// aya reads all of them whenever it creates one, before they can be disabled: 20 ms and 20 MB per
/// attach method that is tried. So the loader is created on a thread that finds no BTF at the
/// expected path. To be removed with the first aya that reads types when they are needed (decision
/// 15).
fn loader() -> anyhow::Result<EbpfLoader<'static>> {
    let making = || {
        if let Err(why) = look_from(NOTHING) {
            log::debug!("the kernel's types are read needlessly: {why}");
        }
        EbpfLoader::new()
    };
    thread::Builder::new()
        .name("loader".into())
        .spawn(making)
        .context("cannot start a thread")?
        .join()
        .map_err(|_panic| anyhow::anyhow!("the loader thread panicked"))
}

/// A directory that exists wherever `/proc` is mounted, and has no subdirectories.
const NOTHING: &str = "/proc/self/fdinfo";

/// Makes that directory `/` for this thread only.
fn look_from(directory: &str) -> io::Result<()> {
    // SAFETY: a root directory of this thread's own; descriptors and memory stay shared, so other
    // threads are unaffected.
    unsafe { unshare_unsafe(UnshareFlags::FS) }?;
    chroot(directory)?;
    Ok(())
}

/// Kernels before 5.11 charge maps to `RLIMIT_MEMLOCK`. Failing to raise it is not fatal: if it
/// matters, creating the map fails.
fn raise_memlock_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(why) = setrlimit(Resource::Memlock, unlimited) {
        log::debug!("RLIMIT_MEMLOCK is unchanged: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_fallbacks_has_a_slot_and_its_number_of_this_kernel() {
        let causes: Vec<&str> = fallback_causes().collect();
        assert!(causes.len() <= CounterNumbers::NONE.0.len());
        let slot = |cause| causes.iter().position(|it| *it == cause).unwrap();
        let CounterNumbers(numbers) = counter_numbers(&[
            (0, "MPTCP_MIB_NUM".to_owned()),
            (41, "MPTCP_MIB_DSSFALLBACK".to_owned()),
            (7, "MPTCP_MIB_MPCAPABLEACTIVEFALLBACK".to_owned()),
            (8, "MPTCP_MIB_RETRANSSEGS".to_owned()),
        ]);
        assert_eq!(numbers[slot("DssFallback")], 41);
        assert_eq!(numbers[slot("MPCapableFallbackSYNACK")], 7);
        let known = numbers.iter().filter(|number| **number != NO_NUMBER);
        assert_eq!(known.count(), 2);
    }
}
