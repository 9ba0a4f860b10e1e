//! Other users of this machine: the tracer counts them, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    time::Duration,
};

use anyhow::ensure;

use super::actions::Churn;
use crate::netns;

/// Interval of the checks.
const OTHERS_EVERY: Duration = Duration::from_millis(500);

/// The tracer also counts other tracers, other programs that make queries, and their connections.
pub(super) fn watch(churn: &Churn) {
    let mut known = BTreeSet::new();
    let mut counted = BTreeMap::new();
    while !churn.rest(OTHERS_EVERY) {
        let me = std::process::id();
        let found = processes().map(|all| {
            let mut found = strangers(&all, me);
            for (netns, process) in elsewhere(&all, me) {
                let Ok(counters) = netns::counters_of(process.0) else {
                    continue;
                };
                let before = counted.insert(netns, counters.clone());
                let has_moved =
                    before.is_some_and(|before| !netns::moved(&before, &counters).is_empty());
                if has_moved {
                    found.insert(format!("{} in network namespace {netns}", process.2));
                }
            }
            found
        });
        for stranger in churn.note("others", found).unwrap_or_default() {
            if known.insert(stranger.clone()) {
                churn.actions().others.push(stranger);
            }
        }
    }
}

/// The network namespaces in which our processes open no connections, with one process of each that
/// does not belong to this project: these are foreign in any case.
fn elsewhere(all: &[Process], me: u32) -> BTreeMap<u64, &Process> {
    let number = |pid: u32| {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
        Some(namespace.ino())
    };
    // In our own namespace we make queries, but no connection that the kernel counts.
    let own = number(me);
    let of_ours: BTreeSet<u64> = all
        .iter()
        .filter(|process| is_ours(all, me, process))
        .filter_map(|process| number(process.0))
        .filter(|netns| Some(*netns) != own)
        .collect();
    all.iter()
        .filter(|process| !NAMES.iter().any(|it| process.2.starts_with(it)))
        .filter_map(|process| Some((number(process.0)?, process)))
        .filter(|(netns, _)| !of_ours.contains(netns))
        .collect()
}

/// This process, one that it started, or an orphan of a killed one.
fn is_ours(all: &[Process], me: u32, process: &Process) -> bool {
    let parent = |pid: u32| all.iter().find(|it| it.0 == pid).map(|it| it.1);
    let is_left_behind = process.1 <= 1 && process.2.starts_with("lab-");
    is_left_behind
        || std::iter::successors(Some(process.0), |pid| parent(*pid))
            .take(all.len())
            .any(|pid| pid == me)
}

/// Name prefixes of this project's processes.
const NAMES: [&str; 2] = ["mptcp-", "lab-"];

/// A process: its number, its parent's number, its name.
type Process = (u32, u32, String);

fn processes() -> anyhow::Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let stat = entry?.path().join("stat");
        // The process has exited, or this is not a process.
        let Ok(stat) = fs::read_to_string(stat) else {
            continue;
        };
        all.extend(process(&stat));
    }
    ensure!(!all.is_empty(), "there are no processes in /proc");
    Ok(all)
}

/// `pid (name) state ppid ...`; the name may contain parentheses.
fn process(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let parent = rest.split(' ').nth(1)?;
    Some((pid.parse().ok()?, parent.parse().ok()?, name.to_owned()))
}

/// Names of this project's processes that are neither `me` nor its ancestors or descendants.
fn strangers(all: &[Process], me: u32) -> BTreeSet<String> {
    let parent = |pid: u32| all.iter().find(|it| it.0 == pid).map(|it| it.1);
    let line = |pid: u32| std::iter::successors(Some(pid), |pid| parent(*pid)).take(all.len());
    all.iter()
        .filter(|(_, _, name)| NAMES.iter().any(|ours| name.starts_with(ours)))
        // Ignore orphans: killed actors leave such children.
        .filter(|(pid, parent, _)| *parent > 1 && !line(*pid).any(|it| it == me))
        .filter(|(pid, _, _)| !line(me).any(|it| it == *pid))
        .map(|(_, _, name)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_no_relative_of_mine_is_a_stranger() {
        assert_eq!(process("7 (a) b) S 3 1 1"), Some((7, 3, "a) b".to_owned())));
        let all: Vec<Process> = [
            (1, 0, "init"),
            (2, 1, "mptcp-lab"),
            (3, 2, "mptcp-trace"),
            (4, 3, "lab-client"),
            (5, 1, "sh"),
            (6, 5, "mptcp-trace"),
            (7, 5, "vi"),
        ]
        .map(|(pid, parent, name)| (pid, parent, name.to_owned()))
        .to_vec();
        let names: Vec<String> = strangers(&all, 2).into_iter().collect();
        assert_eq!(names, ["mptcp-trace"]);
        let ours: Vec<u32> = all
            .iter()
            .filter(|process| is_ours(&all, 2, process))
            .map(|process| process.0)
            .collect();
        assert_eq!(ours, [2, 3, 4]);
        let left_behind = (8, 1, "lab-server".to_owned());
        assert!(is_ours(&all, 2, &left_behind));
    }
}
