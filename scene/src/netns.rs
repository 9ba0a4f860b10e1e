//! Runs code in another network namespace; reads its counters and sets its sysctls.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::{fd::BorrowedFd, unix::fs::MetadataExt as _},
};

use anyhow::{Context as _, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::link;

/// `MPTcpExt` counters by name.
pub type Counters = BTreeMap<String, u64>;

/// Inode numbers of the client's and the server's network namespace; equal over loopback.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Namespaces {
    /// Inode number of the client's namespace.
    pub near: u64,
    /// Inode number of the server's namespace.
    pub far: u64,
}

/// Opens the network namespace of this thread.
///
/// # Errors
///
/// Fails without /proc.
pub fn current() -> anyhow::Result<File> {
    File::open("/proc/thread-self/ns/net").context("cannot open the network namespace")
}

/// Creates a network namespace with loopback up.
///
/// # Errors
///
/// Fails without `CAP_SYS_ADMIN`.
pub fn new() -> anyhow::Result<File> {
    elsewhere(|| {
        link::enter_network_namespace().context("cannot make a network namespace")?;
        current()
    })
}

/// Number of a network namespace: the inode number of its nsfs file.
///
/// # Errors
///
/// Fails if the file cannot be examined.
pub fn number(namespace: BorrowedFd<'_>) -> anyhow::Result<u64> {
    Ok(rustix::fs::fstat(namespace)
        .context("cannot read the inode number of the network namespace")?
        .st_ino)
}

/// Numbers of all network namespaces that have processes. The kernel reuses a number as soon as its
/// namespace is gone.
///
/// # Errors
///
/// Fails without /proc.
pub fn of_processes() -> anyhow::Result<BTreeSet<u64>> {
    let processes = fs::read_dir("/proc").context("cannot read /proc")?;
    Ok(processes
        .filter_map(|entry| fs::metadata(entry.ok()?.path().join("ns/net")).ok())
        .map(|namespace| namespace.ino())
        .collect())
}

/// Runs a closure on its own thread, which may change its network namespace.
///
/// # Errors
///
/// Fails with the closure's error.
pub fn elsewhere<T: Send>(act: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| scope.spawn(act).join())
        .map_err(|_panic| anyhow!("a thread in another network namespace panicked"))?
}

/// Runs a closure in a network namespace.
///
/// # Errors
///
/// Fails with the closure's error.
pub fn within<T: Send>(
    namespace: BorrowedFd<'_>,
    act: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    elsewhere(|| {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
            .context("cannot enter the network namespace")?;
        act()
    })
}

/// Reads the MPTCP counters of a network namespace.
///
/// # Errors
///
/// Fails if the counters cannot be read.
pub fn counters(namespace: BorrowedFd<'_>) -> anyhow::Result<Counters> {
    let file = "/proc/thread-self/net/netstat";
    let text = within(namespace, || {
        fs::read_to_string(file).with_context(|| format!("cannot read {file}"))
    })?;
    parse(&text).with_context(|| format!("cannot parse the MPTcpExt lines of {file}"))
}

/// Reads the MPTCP counters of the network namespace of a process.
///
/// # Errors
///
/// Fails if the counters cannot be read: the process may have ended.
pub fn counters_of(pid: u32) -> anyhow::Result<Counters> {
    let file = format!("/proc/{pid}/net/netstat");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    parse(&text).with_context(|| format!("cannot parse the MPTcpExt lines of {file}"))
}

/// Sets a sysctl of a network namespace; returns false if this kernel lacks it.
///
/// # Errors
///
/// Fails if the sysctl exists but cannot be set.
pub fn set_sysctl(namespace: BorrowedFd<'_>, name: &str, value: &str) -> anyhow::Result<bool> {
    let file = format!("/proc/sys/{}", name.replace('.', "/"));
    within(namespace, || match fs::write(&file, value) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why).with_context(|| format!("cannot set {name}")),
    })
}

/// Parses a line of names followed by a line of values.
fn parse(netstat: &str) -> Option<Counters> {
    let mut lines = netstat
        .lines()
        .filter_map(|line| line.strip_prefix("MPTcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let names: Vec<&str> = names.split_whitespace().collect();
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let is_whole = names.len() == numbers.len();
    let named = names.into_iter().map(str::to_owned).zip(numbers);
    is_whole.then(|| named.collect())
}

/// Differences between two readings, without the counters that did not change.
#[must_use]
pub fn moved(before: &Counters, after: &Counters) -> Counters {
    after
        .iter()
        .filter_map(|(name, &count)| {
            let delta = count.saturating_sub(before.get(name).copied().unwrap_or(0));
            (delta > 0).then(|| (name.clone(), delta))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_in_a_network_namespace() {
        let own = current().unwrap().metadata().unwrap().ino();
        assert!(of_processes().unwrap().contains(&own));
    }

    #[test]
    fn counters_are_read_by_name_and_half_a_file_is_none() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nMPTcpExt: A C\nMPTcpExt: 3 4\n";
        let expected = Counters::from([("A".into(), 3), ("C".into(), 4)]);
        assert_eq!(parse(text), Some(expected));
        for broken in [
            "",
            "MPTcpExt: A\n",
            "MPTcpExt: A\nMPTcpExt: 1 2\n",
            "MPTcpExt: A\nMPTcpExt: x\n",
        ] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn only_what_moved_is_told() {
        let before = Counters::from([("A".into(), 3), ("B".into(), 1)]);
        let after = Counters::from([("A".into(), 5), ("B".into(), 1), ("C".into(), 2)]);
        let expected = Counters::from([("A".into(), 2), ("C".into(), 2)]);
        assert_eq!(moved(&before, &after), expected);
    }
}
