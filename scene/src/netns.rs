//! What is done in another network namespace, and what can be read and set there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::{fd::BorrowedFd, unix::fs::MetadataExt as _},
};

use anyhow::{Context as _, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

/// Counters of `MPTcpExt`, by name.
pub type Counters = BTreeMap<String, u64>;

/// Numbers of the client's and the server's network namespace; over loopback they are one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Namespaces {
    /// The client's.
    pub near: u64,
    /// The server's.
    pub far: u64,
}

/// The network namespace of this thread.
///
/// # Errors
///
/// Fails without /proc.
pub fn current() -> anyhow::Result<File> {
    File::open("/proc/thread-self/ns/net").context("cannot open the network namespace")
}

/// Number of a network namespace: the inode that all of its sockets share.
///
/// # Errors
///
/// Fails if that is no open file.
pub fn number(namespace: BorrowedFd<'_>) -> anyhow::Result<u64> {
    Ok(rustix::fs::fstat(namespace)
        .context("cannot tell the number of the network namespace")?
        .st_ino)
}

/// The numbers of all network namespaces that a process lives in. The kernel gives a number to a new namespace as soon as
/// the one that had it is gone.
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

/// Does something on a thread of its own, which may change its network namespace.
///
/// # Errors
///
/// Those of what is done.
pub fn elsewhere<T: Send>(act: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| scope.spawn(act).join())
        .map_err(|_panic| anyhow!("a thread in another network namespace panicked"))?
}

/// Does something in a network namespace.
///
/// # Errors
///
/// Those of what is done.
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

/// The MPTCP counters of a network namespace.
///
/// # Errors
///
/// Fails if they cannot be read.
pub fn counters(namespace: BorrowedFd<'_>) -> anyhow::Result<Counters> {
    let file = "/proc/thread-self/net/netstat";
    let text = within(namespace, || {
        fs::read_to_string(file).with_context(|| format!("cannot read {file}"))
    })?;
    parse(&text).with_context(|| format!("{file} has no MPTcpExt lines that make sense"))
}

/// The MPTCP counters of the network namespace of a process.
///
/// # Errors
///
/// Fails if they cannot be read: the process may have ended.
pub fn counters_of(pid: u32) -> anyhow::Result<Counters> {
    let file = format!("/proc/{pid}/net/netstat");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    parse(&text).with_context(|| format!("{file} has no MPTcpExt lines that make sense"))
}

/// Sets a sysctl of a network namespace; false if this kernel does not have it.
///
/// # Errors
///
/// Fails if it has, but cannot be set.
pub fn set_sysctl(namespace: BorrowedFd<'_>, name: &str, value: &str) -> anyhow::Result<bool> {
    let file = format!("/proc/sys/{}", name.replace('.', "/"));
    within(namespace, || match fs::write(&file, value) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why).with_context(|| format!("cannot set {name}")),
    })
}

/// A line of names, then a line of numbers.
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

/// What has been counted in between; what did not move is left out.
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
