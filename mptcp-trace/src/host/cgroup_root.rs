//! The root of our cgroup namespace. A container has one of its own, and reads the control groups of
//! other processes relative to it: `/../../system.slice/nginx.service`.

use std::{collections::VecDeque, fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use rustix::fs::{FsWord, statfs};

use super::procfs;

/// Type of a unified hierarchy's file system (linux/magic.h).
const CGROUP2_SUPER_MAGIC: FsWord = 0x6367_7270;

/// At most this many control groups are searched.
const GROUPS_MAX: usize = 20_000;

/// The path of our cgroup namespace's root in the host's unified hierarchy, if it is not the
/// hierarchy's own root and can be determined. It needs `CAP_SYS_PTRACE`.
#[must_use]
pub fn cgroup_root() -> Option<String> {
    let of_init = fs::read_to_string(procfs::of(1).join("cgroup")).ok()?;
    if !unified(&of_init)?.starts_with("/..") {
        return None;
    }
    let ours = fs::read_to_string(procfs::dir().join("self/cgroup")).ok()?;
    let found = find_own_group();
    let root = found
        .as_deref()
        .and_then(|group| above(group, unified(&ours)?));
    if root.is_none() {
        log::info!(
            "control groups are shown relative to that of this container, because its own cannot be \
             found in the host's hierarchy"
        );
    }
    root
}

/// The path in the unified hierarchy (man 7 cgroups).
fn unified(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Where the namespace begins, given our group in the hierarchy and in the namespace.
fn above(group: &str, inside: &str) -> Option<String> {
    let root = group.strip_suffix(inside.trim_end_matches('/'))?;
    Some(root.to_owned())
}

/// The host's unified hierarchy, in the mount namespace of any process that shows all of it. Process 1
/// usually does, and so do the threads of the kernel.
fn hierarchy() -> Option<PathBuf> {
    /// Inode number of the root of a control group hierarchy.
    const ROOT_INO: u64 = 1;
    let is_whole = |mount: &PathBuf| {
        let is_root = fs::metadata(mount).is_ok_and(|it| it.ino() == ROOT_INO);
        is_root && statfs(mount).is_ok_and(|it| it.f_type == CGROUP2_SUPER_MAGIC)
    };
    let processes = fs::read_dir(procfs::dir()).into_iter().flatten().flatten();
    processes
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .flat_map(|entry| {
            let mount = entry.path().join("root/sys/fs/cgroup");
            [mount.join("unified"), mount]
        })
        .find(is_whole)
}

/// Our group, by the process ids in `cgroup.procs`, which the kernel prints as our PID namespace
/// numbers them.
fn find_own_group() -> Option<String> {
    let top = hierarchy()?;
    let us = std::process::id().to_string();
    let mut waiting = VecDeque::from([PathBuf::new()]);
    for _ in 0..GROUPS_MAX {
        let group = waiting.pop_front()?;
        let dir = top.join(&group);
        let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        if members.lines().any(|pid| pid == us) {
            return Some(format!("/{}", group.to_str()?));
        }
        let inside = fs::read_dir(dir).into_iter().flatten().flatten();
        let nested = inside.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
        waiting.extend(nested.map(|it| group.join(it.file_name())));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_what_precedes_our_group_in_the_namespace() {
        for (group, inside, root) in [
            ("/kubepods/pod1/c", "/", Some("/kubepods/pod1/c")),
            ("/kubepods/pod1/c/init", "/init", Some("/kubepods/pod1/c")),
            ("/a", "/b", None),
        ] {
            assert_eq!(above(group, inside).as_deref(), root, "{group} {inside}");
        }
    }
}
