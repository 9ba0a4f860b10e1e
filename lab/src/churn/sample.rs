//! Resource usage of a process at one moment.

use std::fs;

use anyhow::Context as _;
use serde::Serialize;

use crate::{process::Status, sys};

/// Value for `clear_refs` that resets the peak resident set size (man 5 proc).
const RESET_PEAK: &str = "5";

/// One sample of the tracer.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Sample {
    /// Seconds since the start of the churn.
    pub(crate) at_s: f64,
    pub(crate) rss_kb: u64,
    /// Peak resident memory since the previous sample, KiB.
    pub(crate) peak_kb: u64,
    pub(crate) anon_kb: u64,
    /// Resident file-backed memory, KiB: code that has run so far.
    pub(crate) file_kb: u64,
    /// Memory of BPF maps and programs as charged by the kernel, KiB.
    pub(crate) bpf_kb: u64,
    pub(crate) fds: u64,
    pub(crate) threads: u64,
    pub(crate) cpu_s: f64,
    pub(crate) series: u64,
    pub(crate) queries: u64,
    pub(crate) fallbacks: u64,
    pub(crate) remembered: u64,
    /// Namespaces in which its counts differ from the kernel's.
    pub(crate) differ: u64,
    /// Namespaces that could not be read because they are gone.
    pub(crate) unread: u64,
    pub(crate) scrapes: u64,
    pub(crate) hangups: u64,
    pub(crate) namespaces: u64,
    pub(crate) clock_steps: u64,
}

impl Sample {
    /// Reads what the kernel reports about a process; the caller fills in the rest.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let status = Status::of(pid)?;
        let (fds, bpf_bytes) = descriptors(pid)?;
        // Reset the peak.
        let file = format!("/proc/{pid}/clear_refs");
        fs::write(&file, RESET_PEAK).with_context(|| format!("cannot write to {file}"))?;
        Ok(Self {
            rss_kb: status.number("VmRSS:")?,
            peak_kb: status.number("VmHWM:")?,
            anon_kb: status.number("RssAnon:")?,
            file_kb: status.number("RssFile:")?,
            threads: status.number("Threads:")?,
            bpf_kb: bpf_bytes / 1024,
            fds,
            cpu_s: sys::cpu_time(pid)
                .context("cannot read the tracer's CPU time")?
                .as_secs_f64(),
            ..Self::default()
        })
    }
}

/// Number of descriptors, and the memory charged for the BPF objects among them.
fn descriptors(pid: u32) -> anyhow::Result<(u64, u64)> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    let (mut count, mut bytes) = (0, 0);
    for entry in entries {
        count += 1;
        // It may have been closed meanwhile, like a client's connection.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let charged = info.lines().find_map(|line| line.strip_prefix("memlock:"));
        bytes += charged
            .and_then(|word| word.trim().parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok((count, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_a_descriptor_more_once_it_opens_a_file() {
        let pid = std::process::id();
        let before = Sample::of(pid).unwrap();
        assert!(before.rss_kb > 0 && before.threads > 0);
        let held: Vec<_> = (0..50)
            .map(|_| fs::File::open("/proc/self/status").unwrap())
            .collect();
        assert!(Sample::of(pid).unwrap().fds > before.fds + 25);
        drop(held);
    }
}
