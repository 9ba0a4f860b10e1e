//! The existing descendants of named processes when tracing begins (`--follow`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::host::procfs;

/// Processes and their parents, from `/proc`.
pub(super) fn parents() -> BTreeMap<u32, u32> {
    if !procfs::has_our_numbers() {
        log::warn!("/proc belongs to another PID namespace: existing children are not followed");
        return BTreeMap::new();
    }
    let entries = fs::read_dir(procfs::dir()).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, parent(&stat)?))
        })
        .collect()
}

/// The parent in a line of `/proc/PID/stat`. The name before it may contain any character, also
/// parentheses.
fn parent(stat: &str) -> Option<u32> {
    let (_name, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// All descendants of `roots`, without the roots.
pub(super) fn descendants(parents: &BTreeMap<u32, u32>, roots: &[u32]) -> BTreeSet<u32> {
    let mut found: BTreeSet<u32> = roots.iter().copied().collect();
    loop {
        let before = found.len();
        for (pid, parent) in parents {
            if found.contains(parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            break;
        }
    }
    found.retain(|pid| !roots.contains(pid));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_stands_behind_whatever_the_process_is_called() {
        assert_eq!(parent("7 (nginx) S 3 7 7 0"), Some(3));
        assert_eq!(parent("7 (a) S 9 (b) S 3 7 7 0"), Some(3));
        assert_eq!(parent("7 (nginx"), None);
    }

    #[test]
    fn only_children_and_their_children_are_descendants() {
        let parents = BTreeMap::from([(1, 0), (10, 1), (11, 10), (9, 11), (12, 1), (13, 12)]);
        assert_eq!(descendants(&parents, &[10]), BTreeSet::from([9, 11]));
        assert_eq!(
            descendants(&parents, &[10, 12]),
            BTreeSet::from([9, 11, 13])
        );
        assert_eq!(descendants(&parents, &[]), BTreeSet::new());
    }

    #[test]
    fn we_have_a_parent() {
        assert!(parents().contains_key(&std::process::id()));
    }
}
