//! What the kernel half counted, and what the kernel itself counted about it.

use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuArray},
    programs::Program,
};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_info};
use mptcp_trace_common::{counter, record::InFlight};

use crate::{
    model::Loss,
    plan::{FALLBACK, QUERY},
};

/// Counters of the query sensor, summed over the CPUs.
pub(super) fn query(ebpf: &Ebpf) -> anyhow::Result<Loss> {
    let mut loss = sums(ebpf, "QUERY_COUNTERS", QUERY)?;
    loss.unfinished += open_questions(ebpf)?;
    Ok(loss)
}

/// Counters of the fallback sensor, summed over the CPUs.
pub(super) fn fallback(ebpf: &Ebpf) -> anyhow::Result<Loss> {
    sums(ebpf, "FALLBACK_COUNTERS", FALLBACK)
}

fn sums(ebpf: &Ebpf, name: &str, sensor: &str) -> anyhow::Result<Loss> {
    let map = ebpf
        .map(name)
        .with_context(|| format!("the BPF object has no map {name}"))?;
    let map: PerCpuArray<&MapData, u64> =
        PerCpuArray::try_from(map).with_context(|| format!("map {name} has another type"))?;
    let sum = |slot: u32| -> anyhow::Result<u64> {
        let values = map.get(&slot, 0).context("cannot read the counters")?;
        Ok(values.iter().sum())
    };
    Ok(Loss {
        sensor: sensor.to_owned(),
        seen: sum(counter::SEEN)?,
        emitted: sum(counter::EMITTED)?,
        filtered: sum(counter::FILTERED)?,
        capped: sum(counter::CAPPED)?,
        ring_full: sum(counter::RING_FULL)?,
        faulted: sum(counter::FAULTED)?,
        table_full: sum(counter::TABLE_FULL)?,
        unfinished: sum(counter::UNFINISHED)?,
        missed: 0,
        unfollowed: sum(counter::UNFOLLOWED)?,
    })
}

/// Questions whose return was not seen yet.
fn open_questions(ebpf: &Ebpf) -> anyhow::Result<u64> {
    let map = ebpf
        .map("IN_FLIGHT")
        .context("the BPF object has no map IN_FLIGHT")?;
    // Only the keys are read; the type of the values has to fit all the same.
    let map = HashMap::<&MapData, u64, [u8; size_of::<InFlight>()]>::try_from(map)
        .context("map IN_FLIGHT has another type")?;
    Ok(map.keys().filter(Result::is_ok).count() as u64)
}

/// How often the kernel skipped a program because one was running on that CPU already.
pub(super) fn recursion_misses(program: &Program) -> anyhow::Result<u64> {
    let fd = program.fd().context("the program is not loaded")?;
    // SAFETY: an all-zero bpf_prog_info is valid: integers and integers that hold addresses.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    // SAFETY: an all-zero bpf_attr is what the kernel wants of what is not set.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.info.bpf_fd = fd.as_fd().as_raw_fd().cast_unsigned();
    attr.info.info_len = u32::try_from(size_of_val(&info))?;
    attr.info.info = (&raw mut info) as u64;
    // SAFETY: the command fills `info`, which is as long as `attr` says and lives until after the call.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attr,
            size_of_val(&attr),
        )
    };
    if failed < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot ask about a BPF program");
    }
    Ok(info.recursion_misses)
}
