//! Describes the machine that ran the benchmarks, without anything that identifies it.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::command;

/// Hardware, kernel, and versions of the programs that matter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: u64,
    pub(crate) memory_gb: f64,
    /// Kernel version, without the suffix.
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    pub(crate) bpftrace: Option<String>,
    pub(crate) iperf3: Option<String>,
    pub(crate) qemu: Option<String>,
    pub(crate) date: String,
}

impl Machine {
    /// Describes the current machine.
    pub(crate) fn this() -> Result<Self> {
        let read =
            |file: &str| fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
        let cpus = read("/proc/cpuinfo")?;
        let memory = read("/proc/meminfo")?;
        let memory_kb: f64 = field(&memory, "MemTotal")
            .and_then(|value| value.trim_end_matches(" kB").parse().ok())
            .context("/proc/meminfo does not contain the size of the memory")?;
        let processors = cpus.lines().filter(|line| line.starts_with("processor"));
        Ok(Self {
            cpu: field(&cpus, "model name").unwrap_or("unknown").to_owned(),
            cores: processors.count() as u64,
            memory_gb: (memory_kb / 1e5).round() / 10.0,
            kernel: series(&read("/proc/sys/kernel/osrelease")?),
            rustc: version("rustc").context("rustc is missing")?,
            bpftrace: version("bpftrace"),
            iperf3: version("iperf3"),
            qemu: version("qemu-system-x86_64"),
            date: jiff::Timestamp::now().strftime("%F").to_string(),
        })
    }
}

/// Returns the value of a field of a /proc file.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))
        .map(str::trim)
}

/// `6.18` of `6.18.44-whatever`: the suffix may identify a machine.
pub(crate) fn series(release: &str) -> String {
    let version = version_number(release.trim());
    let mut parts = version.split('.');
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        (_, _) => version.to_owned(),
    }
}

/// `6.12.118` of `6.12.118+deb13-cloud-amd64`.
pub(crate) fn version_number(release: &str) -> &str {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.');
    release[..end.unwrap_or(release.len())].trim_end_matches('.')
}

/// The version that a program reports; `None` if the program is missing.
fn version(program: &str) -> Option<String> {
    let path = command::find_program(program)?;
    let said = command::text(Command::new(path).arg("--version"), "asking for a version").ok()?;
    number_in(&said)
}

/// The first word that begins with a digit, after an optional `v`.
fn number_in(said: &str) -> Option<String> {
    said.split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .map(|word| version_number(word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_of_a_release_is_shown() {
        for (release, short, long) in [
            ("6.18.44-cloud-x1\n", "6.18", "6.18.44"),
            ("6.12.118+deb13-cloud-amd64", "6.12", "6.12.118"),
            ("7.3", "7.3", "7.3"),
        ] {
            assert_eq!(series(release), short);
            assert_eq!(version_number(release.trim()), long);
        }
    }

    #[test]
    fn programs_tell_their_version_in_their_own_ways() {
        for (said, want) in [
            ("rustc 1.95.0 (abc 2026-01-01)", "1.95.0"),
            ("bpftrace v0.17.0\n", "0.17.0"),
            ("iperf 3.12 (cJSON 1.7.15)\nLinux", "3.12"),
            ("QEMU emulator version 7.2.22 (Debian 1:7.2)", "7.2.22"),
        ] {
            assert_eq!(number_in(said).as_deref(), Some(want));
        }
        assert_eq!(number_in("no version"), None);
    }

    #[test]
    fn fields_are_found_whatever_the_white_space() {
        let text = "processor\t: 0\nmodel name\t: A CPU\nMemTotal:       16 kB\n";
        assert_eq!(field(text, "model name"), Some("A CPU"));
        assert_eq!(field(text, "MemTotal"), Some("16 kB"));
        assert_eq!(field(text, "nothing"), None);
    }
}
