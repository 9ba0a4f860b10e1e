//! What a process holds at a moment.

use std::fs;

use anyhow::Context as _;
use serde::Serialize;

use crate::sys;

/// Has the kernel forget the most that a process had in RAM (man 5 proc).
const RESET_PEAK: &str = "5";

/// Of the tracer, at one moment of the run.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Sample {
    /// Seconds since churn began.
    pub(crate) at_s: f64,
    /// Memory in RAM.
    pub(crate) rss_kb: u64,
    /// The most of it since the sample before.
    pub(crate) peak_kb: u64,
    /// Of the memory in RAM, what is in no file and is shared with nobody.
    pub(crate) anon_kb: u64,
    /// And what is in a file: code that has run so far.
    pub(crate) file_kb: u64,
    /// Memory of BPF maps and programs, as the kernel charges it.
    pub(crate) bpf_kb: u64,
    /// Descriptors.
    pub(crate) fds: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Processor time, seconds.
    pub(crate) cpu_s: f64,
    /// Series on its page.
    pub(crate) series: u64,
    /// Questions that it saw.
    pub(crate) questions: u64,
    /// Fallbacks that it found.
    pub(crate) fallbacks: u64,
    /// Connections that it remembers.
    pub(crate) remembered: u64,
    /// Namespaces in which the kernel counted otherwise.
    pub(crate) differ: u64,
    /// Namespaces that are gone.
    pub(crate) unread: u64,
    /// Times that the page was read.
    pub(crate) scrapes: u64,
    /// Times that settings were read again.
    pub(crate) hangups: u64,
    /// Network namespaces that came and went.
    pub(crate) namespaces: u64,
    /// Times that the clock was wrong for a while.
    pub(crate) clock_steps: u64,
}

impl Sample {
    /// What the system knows of a process; the rest is for the caller to add.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let file = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            let number = word.and_then(|word| word.parse().ok());
            number.with_context(|| format!("{file} does not tell {name}"))
        };
        let (fds, bpf_bytes) = descriptors(pid)?;
        // From now on the most is counted anew.
        let file = format!("/proc/{pid}/clear_refs");
        fs::write(&file, RESET_PEAK).with_context(|| format!("cannot write to {file}"))?;
        Ok(Self {
            rss_kb: field("VmRSS:")?,
            peak_kb: field("VmHWM:")?,
            anon_kb: field("RssAnon:")?,
            file_kb: field("RssFile:")?,
            threads: field("Threads:")?,
            bpf_kb: bpf_bytes / 1024,
            fds,
            cpu_s: sys::cpu_time(pid)
                .context("cannot tell the tracer's processor time")?
                .as_secs_f64(),
            ..Self::default()
        })
    }
}

/// How many there are, and what the kernel charges for those that are BPF's.
fn descriptors(pid: u32) -> anyhow::Result<(u64, u64)> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    let (mut count, mut bytes) = (0, 0);
    for entry in entries {
        count += 1;
        // Gone since, as a client's may be.
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
