//! Counters of the BPF side, and the kernel's own statistics about its programs.

use std::{
    fs, io,
    mem::offset_of,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd},
};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuArray},
    programs::Program,
};
use aya_obj::generated::{
    bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_perf_event_type, bpf_prog_info,
};
use mptcp_trace_common::{
    counter,
    map_values::{InFlight, Path, SHARE_UNSET},
    record::{PathEvents, PathFlags},
};

use super::syscall::bpf;
use crate::model::{Loss, SensorId};

/// The map with the counters of a sensor.
#[must_use]
pub fn map_of(sensor: SensorId) -> String {
    format!("{}_COUNTERS", sensor.name().to_ascii_uppercase())
}

/// Counters of a sensor, summed over the CPUs.
pub(super) fn of(ebpf: &Ebpf, sensor: SensorId) -> anyhow::Result<Loss> {
    let mut loss = sums(ebpf, sensor)?;
    if sensor == SensorId::Query {
        loss.unfinished += open_queries(ebpf)?;
    }
    Ok(loss)
}

/// Runs of a sensor that another program took over from the one that the kernel skipped.
pub(super) fn taken(ebpf: &Ebpf, sensor: SensorId) -> anyhow::Result<u64> {
    sum(ebpf, &map_of(sensor), counter::TAKEN)
}

fn sum(ebpf: &Ebpf, name: &str, slot: u32) -> anyhow::Result<u64> {
    let map = ebpf
        .map(name)
        .with_context(|| format!("the BPF object has no map {name}"))?;
    let map: PerCpuArray<&MapData, u64> =
        PerCpuArray::try_from(map).with_context(|| format!("map {name} has another type"))?;
    let values = map.get(&slot, 0).context("cannot read the counters")?;
    Ok(values.iter().sum())
}

fn sums(ebpf: &Ebpf, sensor: SensorId) -> anyhow::Result<Loss> {
    let map = map_of(sensor);
    let sum = |slot| sum(ebpf, &map, slot);
    Ok(Loss {
        sensor,
        // The self-tests of other instances are not reported, and counted under their own name.
        seen: sum(counter::SEEN)?.saturating_sub(sum(counter::SELF_TEST)?),
        emitted: sum(counter::EMITTED)?,
        filtered: sum(counter::FILTERED)?,
        capped: sum(counter::CAPPED)?,
        ring_full: sum(counter::RING_FULL)?,
        faulted: sum(counter::FAULTED)?,
        table_full: sum(counter::TABLE_FULL)?,
        unfinished: sum(counter::UNFINISHED)?,
        missed: 0,
        unfollowed: sum(counter::UNFOLLOWED)?,
        over_share: sum(counter::OVER_SHARE)?,
        self_tests: sum(counter::SELF_TEST)?,
        packets_lost: sum(counter::PACKETS)?,
    })
}

/// Queries whose return was not observed yet.
fn open_queries(ebpf: &Ebpf) -> anyhow::Result<u64> {
    let map = ebpf
        .map("IN_FLIGHT")
        .context("the BPF object has no map IN_FLIGHT")?;
    // Only the keys are read, but the type of the values must match too.
    let map = HashMap::<&MapData, u64, [u8; size_of::<InFlight>()]>::try_from(map)
        .context("map IN_FLIGHT has another type")?;
    Ok(map.keys().filter(Result::is_ok).count() as u64)
}

/// At most this many paths are looked at, a system call each or two. On a host with more paths, the
/// counters of paths are compared less strictly.
const LOOKED_AT_MAX: usize = 16_384;

/// Paths with something that no record has reported yet; all beyond [`LOOKED_AT_MAX`] count.
pub(super) fn paths_under_way(ebpf: &Ebpf) -> anyhow::Result<u64> {
    let map = ebpf
        .map("PATHS")
        .context("the BPF object has no map PATHS")?;
    // Two of the members are read, but the type of the values must match.
    let map = HashMap::<&MapData, u64, [u8; size_of::<Path>()]>::try_from(map)
        .context("map PATHS has another type")?;
    let mut count = 0;
    for (looked_at, entry) in map.iter().enumerate() {
        // An entry that was removed meanwhile has been reported.
        let is_under_way = match entry {
            Ok(_) if looked_at >= LOOKED_AT_MAX => return Ok(u64::MAX),
            Ok((_socket, path)) => is_under_way(&path),
            Err(_) => false,
        };
        count += u64::from(is_under_way);
    }
    Ok(count)
}

/// A path that was not reported as up, or is about to end.
fn is_under_way(path: &[u8; size_of::<Path>()]) -> bool {
    let flags = bytes_at(path, offset_of!(Path, flags)).map_or(0, u32::from_ne_bytes);
    let flags = PathFlags::from_bits_retain(flags);
    let events = bytes_at(path, offset_of!(Path, events)).map_or(0, u16::from_ne_bytes);
    let events = PathEvents::from_bits_retain(events);
    let share = bytes_at(path, offset_of!(Path, share)).map_or(0, u32::from_ne_bytes);
    let is_known =
        flags.intersects(PathFlags::WAS_UP | PathFlags::EXISTING) || share == SHARE_UNSET;
    !is_known || events.contains(PathEvents::REMOVED)
}

/// The bytes of a member.
fn bytes_at<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..at + N)?.try_into().ok()
}

/// How often the kernel skipped a program: because it was running on that CPU already, or, for a
/// kprobe or kretprobe, because its function was called too often at once.
pub(super) fn misses(program: &Program) -> anyhow::Result<u64> {
    let mut skipped_calls = 0;
    for link in kprobe_links([program])? {
        skipped_calls += missed_by_link(link)?;
    }
    let program = program.fd().context("the program is not loaded")?;
    Ok(recursion_misses(program.as_fd())? + skipped_calls)
}

/// How often the kernel skipped a program because it was running on that CPU already.
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> anyhow::Result<u64> {
    // SAFETY: an all-zero bpf_prog_info is valid: integers and integers that hold addresses.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    info_of(program, &mut info).context("cannot query a BPF program")?;
    Ok(info.recursion_misses)
}

/// The links that attach these programs to kprobes. aya does not expose them, so this searches the
/// links among our own descriptors: listing those of the host would require `CAP_SYS_ADMIN`.
pub(super) fn kprobe_links<'a>(
    programs: impl IntoIterator<Item = &'a Program>,
) -> anyhow::Result<Vec<RawFd>> {
    let mut ids = Vec::new();
    for program in programs {
        // Only these links report missed calls.
        if let Program::KProbe(probe) = program {
            ids.push(probe.info()?.id());
        }
    }
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let links = our_links().context("cannot list our own file descriptors")?;
    let are_theirs = links.into_iter().map(|link| {
        let info = info_of_link(link)?;
        let is_breakpoint = info.type_ == bpf_link_type::BPF_LINK_TYPE_PERF_EVENT as u32;
        anyhow::Ok((is_breakpoint && ids.contains(&info.prog_id)).then_some(link))
    });
    are_theirs.filter_map(Result::transpose).collect()
}

/// How many calls this link's kprobe or kretprobe missed (`struct kretprobe.nmissed`); kernels
/// before 6.7 do not report it.
pub(super) fn missed_by_link(link: RawFd) -> anyhow::Result<u64> {
    let info = info_of_link(link)?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_PERF_EVENT as u32 {
        return Ok(0);
    }
    // SAFETY: the type determines which member of the union was written; unwritten bytes are 0.
    Ok(unsafe {
        let event = info.__bindgen_anon_1.perf_event;
        let is_breakpoint = event.type_ == bpf_perf_event_type::BPF_PERF_EVENT_KPROBE as u32
            || event.type_ == bpf_perf_event_type::BPF_PERF_EVENT_KRETPROBE as u32;
        match is_breakpoint {
            true => event.__bindgen_anon_1.kprobe.missed,
            false => 0,
        }
    })
}

fn info_of_link(link: RawFd) -> anyhow::Result<bpf_link_info> {
    // SAFETY: a descriptor of this process. If it was closed since, the kernel returns an error; if
    // it was reused, the answer concerns another program.
    let link = unsafe { BorrowedFd::borrow_raw(link) };
    // SAFETY: an all-zero bpf_link_info is valid: integers and integers that hold addresses.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    info_of(link, &mut info).context("cannot query a link of a BPF program")?;
    Ok(info)
}

/// Our descriptors that are BPF links.
fn our_links() -> io::Result<Vec<RawFd>> {
    /// Link target of such a descriptor.
    const LINK: &str = "anon_inode:bpf_link";
    let mut links = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_link = fs::read_link(entry.path()).is_ok_and(|it| it.as_os_str() == LINK);
        if let Some(fd) = entry.file_name().to_str().and_then(|it| it.parse().ok())
            && is_link
        {
            links.push(fd);
        }
    }
    Ok(links)
}

/// What the kernel reports about a program or a link; `info` is the zeroed structure to fill.
fn info_of<T>(fd: BorrowedFd<'_>, info: &mut T) -> anyhow::Result<()> {
    // SAFETY: an all-zero bpf_attr is valid: the kernel expects zeroes in unused fields.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.info.bpf_fd = fd.as_raw_fd().cast_unsigned();
    attr.info.info_len = u32::try_from(size_of::<T>())?;
    attr.info.info = (&raw mut *info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(())
}
