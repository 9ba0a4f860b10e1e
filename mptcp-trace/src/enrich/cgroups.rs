//! The place of a process: control group path, container, systemd unit. The only code that reads
//! `/proc` for output; bounded, with one lookup per control group.

use std::{collections::HashMap, fs::File, io::Read as _};

use crate::model::Place;

/// At most this many control groups are cached; when full, the cache is cleared.
const KNOWN_MAX: usize = 4096;

/// Maximum length of a kernel path, bytes (`PATH_MAX`): longer ones in a capture are truncated,
/// since each finding repeats them.
const PATH_BYTES_MAX: usize = 4096;

/// Maximum length of a directory name, bytes (`NAME_MAX`).
const UNIT_BYTES_MAX: usize = 255;

/// At most this many bytes of `/proc/PID/cgroup` are read: one line per hierarchy.
const CGROUP_BYTES_MAX: u64 = 64 * 1024;

/// Control group paths by id.
#[derive(Debug)]
pub struct CgroupCache {
    known: HashMap<u64, Place>,
    /// False at replay: the processes of a capture are not those of this machine.
    live: bool,
    /// Added since the last call of [`Self::take_new`].
    new: Vec<(u64, String)>,
}

impl CgroupCache {
    /// Looks up processes on this machine, if its `/proc` (`is_ours`) uses the same process ids as
    /// the records.
    #[must_use]
    pub fn live(is_ours: bool) -> Self {
        Self {
            known: HashMap::new(),
            live: is_ours,
            new: Vec::new(),
        }
    }

    /// A cache that returns only inserted paths.
    #[must_use]
    pub fn offline() -> Self {
        Self::live(false)
    }

    /// Adds the path of a control group.
    pub fn insert(&mut self, cgroup_id: u64, path: &str) {
        let end = path.floor_char_boundary(PATH_BYTES_MAX);
        self.store(cgroup_id, place(&path[..end]));
    }

    fn store(&mut self, cgroup_id: u64, place: Place) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(cgroup_id, place);
    }

    /// All known paths, by the id of the control group.
    pub fn paths(&self) -> impl Iterator<Item = (u64, &str)> {
        let known = self.known.iter();
        known.filter_map(|(id, place)| Some((*id, place.cgroup.as_deref()?)))
    }

    /// Paths added since the last call, for the capture.
    pub fn take_new(&mut self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.new)
    }

    /// The place of a process, if it can still be determined.
    pub fn of(&mut self, pid: Option<u32>, cgroup_id: u64) -> Place {
        self.resolve(pid, cgroup_id);
        self.known.get(&cgroup_id).cloned().unwrap_or_default()
    }

    /// Looks up the place of a process for later; does nothing for a process outside of our PID
    /// namespace.
    pub fn resolve(&mut self, pid: Option<u32>, cgroup_id: u64) {
        if !self.live || cgroup_id == 0 || self.known.contains_key(&cgroup_id) {
            return;
        }
        // If it has ended, another process of the same group may provide it later.
        let Some(text) = pid.and_then(read) else {
            return;
        };
        match path_in(&text) {
            Some(path) => {
                self.insert(cgroup_id, path);
                self.new.push((cgroup_id, path.to_owned()));
            }
            // Cached too: reading a file for each record would be the largest cost of all.
            None => self.store(cgroup_id, Place::default()),
        }
    }

    /// Path of a control group, if known.
    #[must_use]
    pub fn path(&self, cgroup_id: u64) -> Option<&str> {
        self.known.get(&cgroup_id)?.cgroup.as_deref()
    }
}

fn read(pid: u32) -> Option<String> {
    let file = File::open(format!("/proc/{pid}/cgroup")).ok()?;
    let mut text = Vec::new();
    file.take(CGROUP_BYTES_MAX).read_to_end(&mut text).ok()?;
    // A process that has just ended has no lines.
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
}

/// The path in the unified hierarchy, `0::PATH` (man 7 cgroups), whose ids the BPF side reports.
/// `None` for a process in its root while cgroup v1 hierarchies exist (`N:CONTROLLERS:PATH`): all
/// such processes share one id, whatever their groups are.
fn path_in(text: &str) -> Option<&str> {
    let paths = text.lines().filter_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (_controllers, path) = rest.split_once(':')?;
        Some((number == "0", path))
    });
    let (unified, others): (Vec<_>, Vec<_>) = paths.partition(|(is_unified, _)| *is_unified);
    let (_, path) = unified.first()?;
    (*path != "/" || others.is_empty()).then_some(*path)
}

fn place(path: &str) -> Place {
    let components = || path.split('/').filter(|part| !part.is_empty()).rev();
    Place {
        cgroup: Some(path.to_owned()),
        container: components().find_map(container),
        unit: components()
            .find(|part| part.len() <= UNIT_BYTES_MAX && part.ends_with(".service"))
            .map(str::to_owned),
    }
}

/// The container id in a component such as `docker-ID.scope`, `cri-containerd-ID.scope`, or `ID`.
fn container(component: &str) -> Option<String> {
    const ID_LENGTH: usize = 64;
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let id = name.rsplit('-').next()?;
    let is_id = id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_contains_its_container_and_its_unit() {
        let id = "0123456789abcdef".repeat(4);
        for (path, has_container, unit) in [
            (
                "/system.slice/nginx.service".to_owned(),
                false,
                Some("nginx.service"),
            ),
            (format!("/system.slice/docker-{id}.scope"), true, None),
            (
                format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
                true,
                None,
            ),
            (format!("/docker/{id}"), true, None),
            (
                "/user.slice/user-0.slice/session-1.scope".to_owned(),
                false,
                None,
            ),
            ("/".to_owned(), false, None),
        ] {
            let place = place(&path);
            assert_eq!(place.container, has_container.then(|| id.clone()), "{path}");
            assert_eq!(place.unit.as_deref(), unit, "{path}");
            assert_eq!(place.cgroup.as_deref(), Some(path.as_str()));
        }
    }

    #[test]
    fn only_the_unified_hierarchy_gives_the_cgroup_of_a_process() {
        for (text, path) in [
            ("0::/a.service\n", Some("/a.service")),
            // Another process has the same id and is in another group.
            ("1:cpu:/docker/x\n0::/\n", None),
            ("1:cpu:/docker/x\n", None),
            ("1:cpu:/longer/path\n0::/u\n", Some("/u")),
            ("1:cpu:/\n0::/\n", None),
            ("0::/\n", Some("/")),
            ("", None),
        ] {
            assert_eq!(path_in(text), path, "{text:?}");
        }
    }

    #[test]
    fn a_control_group_is_asked_for_once_whatever_the_answer() {
        let mut cgroups = CgroupCache::live(false);
        cgroups.resolve(Some(std::process::id()), 7);
        assert!(!cgroups.known.contains_key(&7));
        let mut cgroups = CgroupCache::live(true);
        let me = Some(std::process::id());
        cgroups.resolve(me, 7);
        assert!(cgroups.known.contains_key(&7));
        for unknown in [Some(u32::MAX), None] {
            cgroups.resolve(unknown, 8);
            assert!(!cgroups.known.contains_key(&8));
        }
    }

    #[test]
    fn a_path_that_no_kernel_has_is_cut_off() {
        let mut cgroups = CgroupCache::offline();
        cgroups.insert(7, &"ż".repeat(PATH_BYTES_MAX));
        let kept = cgroups.path(7).unwrap();
        assert_eq!(kept.len(), PATH_BYTES_MAX);
        assert!(kept.chars().all(|it| it == 'ż'));
    }

    #[test]
    fn a_replay_uses_the_recorded_cgroup_paths() {
        let mut cgroups = CgroupCache::offline();
        let me = Some(std::process::id());
        assert_eq!(cgroups.of(me, 7), Place::default());
        cgroups.insert(7, "/a.service");
        assert_eq!(cgroups.of(me, 7).unit.as_deref(), Some("a.service"));
        assert_eq!(cgroups.take_new(), []);
    }
}
