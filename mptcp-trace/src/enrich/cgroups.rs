//! The place of a process: control group path, container, systemd unit, pod. The only code that reads
//! `/proc` and the names of log files for output; bounded, with one lookup per control group.

use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::pods::{self, PodNames};
use crate::model::{Place, Pod};

/// At most this many control groups are cached; when full, the cache is cleared.
const KNOWN_MAX: usize = 4096;

/// Maximum length of a kernel path, bytes (`PATH_MAX`): longer ones in a capture are truncated,
/// since each finding repeats them.
const PATH_BYTES_MAX: usize = 4096;

/// Maximum length of a directory name, bytes (`NAME_MAX`).
const UNIT_BYTES_MAX: usize = 255;

/// At most this many bytes of `/proc/PID/cgroup` are read: one line per hierarchy.
const CGROUP_BYTES_MAX: u64 = 64 * 1024;

/// The names of a pod and its container are looked up at most this often: the kubelet creates the
/// files shortly after the processes, and none for a container that writes no log.
const TRIES_MAX: u32 = 10;

/// The interval after the first try; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// Where processes of this machine are looked up.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// A procfs that uses the same process ids as the records.
    pub procfs: Option<PathBuf>,
    /// Root of our cgroup namespace, if it has one of its own and this is known.
    pub cgroup_root: Option<String>,
    /// Directory of the kubelet's logs (`pods`, `containers`).
    pub pod_logs: PathBuf,
}

/// What the cache has learnt, for the capture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Learned {
    /// Path of a control group, by its id.
    Path(u64, String),
    /// The pod of a control group, by its id. It follows the path.
    Pod(u64, Arc<Pod>),
}

/// Control groups by id.
#[derive(Debug, Default)]
pub struct CgroupCache {
    known: HashMap<u64, Known>,
    /// None at replay: the processes of a capture are not those of this machine.
    lookup: Option<Lookup>,
    names: PodNames,
    /// Added since the last call of [`Self::take_new`].
    new: Vec<Learned>,
}

/// A control group.
#[derive(Debug, Default)]
struct Known {
    place: Place,
    /// The next attempt to complete its names, and the number of earlier ones.
    retry: Option<(Instant, u32)>,
}

impl CgroupCache {
    /// Looks up processes on this machine.
    #[must_use]
    pub fn live(lookup: Lookup) -> Self {
        Self {
            names: PodNames::new(lookup.pod_logs.clone()),
            lookup: Some(lookup),
            ..Self::default()
        }
    }

    /// A cache that returns only what was inserted.
    #[must_use]
    pub fn offline() -> Self {
        Self::default()
    }

    /// Adds the path of a control group.
    pub fn insert(&mut self, cgroup_id: u64, path: &str) {
        let end = path.floor_char_boundary(PATH_BYTES_MAX);
        self.store(cgroup_id, place(&path[..end]));
    }

    /// Adds the pod of a control group whose path is known.
    pub fn insert_pod(&mut self, cgroup_id: u64, pod: &Pod) {
        if let (Some(known), Some(pod)) = (self.known.get_mut(&cgroup_id), pods::accepted(pod)) {
            known.place.pod = Some(Arc::new(pod));
        }
    }

    fn store(&mut self, cgroup_id: u64, place: Place) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let known = Known { place, retry: None };
        self.known.insert(cgroup_id, known);
    }

    /// All that is known, paths before pods.
    pub fn all(&self) -> impl Iterator<Item = Learned> {
        self.known.iter().flat_map(|(id, known)| {
            let Place { cgroup, pod, .. } = &known.place;
            let path = cgroup.iter().map(|path| Learned::Path(*id, path.clone()));
            path.chain(pod.iter().map(|pod| Learned::Pod(*id, Arc::clone(pod))))
        })
    }

    /// What was added since the last call, for the capture.
    pub fn take_new(&mut self) -> Vec<Learned> {
        std::mem::take(&mut self.new)
    }

    /// The place of a process, if it can still be determined.
    pub fn of(&mut self, pid: Option<u32>, cgroup_id: u64) -> Place {
        self.resolve(pid, cgroup_id);
        let known = self.known.get(&cgroup_id);
        known.map(|it| it.place.clone()).unwrap_or_default()
    }

    /// Looks up the place of a process for later; does nothing for a process that the procfs does
    /// not show.
    pub fn resolve(&mut self, pid: Option<u32>, cgroup_id: u64) {
        let Some(lookup) = &self.lookup else {
            return;
        };
        if cgroup_id == 0 {
            return;
        }
        if let Some(known) = self.known.get(&cgroup_id) {
            if known.retry.is_some() {
                self.complete(cgroup_id, Instant::now());
            }
            return;
        }
        // If it has ended, another process of the same group may provide it later.
        let Some(text) = lookup.procfs.as_deref().zip(pid).and_then(read) else {
            return;
        };
        match path_in(&text) {
            Some(path) => {
                let path = absolute(path, lookup.cgroup_root.as_deref());
                self.insert(cgroup_id, &path);
                self.new.push(Learned::Path(cgroup_id, path));
                self.start_naming(cgroup_id);
            }
            // Cached too: reading a file for each record would be the largest cost of all.
            None => self.store(cgroup_id, Place::default()),
        }
    }

    /// Looks for the names of a new control group.
    fn start_naming(&mut self, cgroup_id: u64) {
        let now = Instant::now();
        if let Some(known) = self.known.get_mut(&cgroup_id)
            && (known.place.pod.is_some() || known.place.container.is_some())
        {
            if let Some(pod) = &known.place.pod {
                self.new.push(Learned::Pod(cgroup_id, Arc::clone(pod)));
            }
            known.retry = Some((now, 0));
            self.complete(cgroup_id, now);
        }
    }

    /// Looks for names that are still missing, if that is due.
    fn complete(&mut self, cgroup_id: u64, now: Instant) {
        let Some(known) = self.known.get_mut(&cgroup_id) else {
            return;
        };
        let Some((_, tries)) = known.retry.filter(|(due, _)| now >= *due) else {
            return;
        };
        let Place { container, pod, .. } = &known.place;
        let container = container.as_deref();
        let uid = pod.as_ref().and_then(|pod| pod.uid.as_deref());
        let lacks = |found: &Option<Pod>| {
            let Some(pod) = found else {
                return true;
            };
            pod.name.is_none() || container.is_some() && pod.container.is_none()
        };
        let mut found = self.names.find(uid, container);
        if lacks(&found) && self.names.refresh(now) {
            found = self.names.find(uid, container);
        }
        known.retry = match lacks(&found) && tries < TRIES_MAX {
            true => Some((now + RETRY_FIRST * 2_u32.pow(tries), tries + 1)),
            false => None,
        };
        if let Some(found) = found
            && known.place.pod.as_deref() != Some(&found)
        {
            let found = Arc::new(found);
            known.place.pod = Some(Arc::clone(&found));
            self.new.push(Learned::Pod(cgroup_id, found));
        }
    }

    /// Path of a control group, if known.
    #[must_use]
    pub fn path(&self, cgroup_id: u64) -> Option<&str> {
        self.known.get(&cgroup_id)?.place.cgroup.as_deref()
    }
}

fn read((procfs, pid): (&Path, u32)) -> Option<String> {
    let file = File::open(procfs.join(format!("{pid}/cgroup"))).ok()?;
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

/// A path from the root of the hierarchy. The kernel prints one outside of our cgroup namespace as
/// `/../../NAME`, and one inside of it as if it began there.
fn absolute(path: &str, root: Option<&str>) -> String {
    let Some(root) = root else {
        return path.to_owned();
    };
    let mut whole: Vec<&str> = root.split('/').collect();
    for component in path.split('/').filter(|part| !part.is_empty()) {
        match component {
            ".." => {
                whole.truncate(whole.len().saturating_sub(1).max(1));
            }
            name => whole.push(name),
        }
    }
    match whole.len() {
        1 => "/".to_owned(),
        _ => whole.join("/"),
    }
}

fn place(path: &str) -> Place {
    // Only the kubelet's groups are those of pods.
    let is_of_kubelet = path.contains("kubepods");
    let components = || path.split('/').filter(|part| !part.is_empty()).rev();
    Place {
        cgroup: Some(path.to_owned()),
        container: components().find_map(container),
        unit: components()
            .find(|part| part.len() <= UNIT_BYTES_MAX && part.ends_with(".service"))
            .map(str::to_owned),
        pod: is_of_kubelet
            .then(|| components().find_map(pods::uid_in))
            .flatten()
            .map(|uid| {
                Arc::new(Pod {
                    uid: Some(uid),
                    ..Pod::default()
                })
            }),
    }
}

/// The container id in a component such as `docker-ID.scope`, `cri-containerd-ID.scope`, or `ID`.
fn container(component: &str) -> Option<String> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let id = name.rsplit('-').next()?;
    pods::is_container_id(id).then(|| id.to_owned())
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
        let mut cgroups = CgroupCache::live(Lookup::default());
        cgroups.resolve(Some(std::process::id()), 7);
        assert!(!cgroups.known.contains_key(&7));
        let mut cgroups = CgroupCache::live(Lookup {
            procfs: Some("/proc".into()),
            ..Lookup::default()
        });
        let me = Some(std::process::id());
        cgroups.resolve(me, 7);
        assert!(cgroups.known.contains_key(&7));
        for unknown in [Some(u32::MAX), None] {
            cgroups.resolve(unknown, 8);
            assert!(!cgroups.known.contains_key(&8));
        }
    }

    #[test]
    fn a_path_outside_of_our_cgroup_namespace_begins_at_the_root_of_the_hierarchy() {
        let root = Some("/kubepods/pod1/tracer");
        for (path, whole) in [
            ("/", "/kubepods/pod1/tracer"),
            ("/inner", "/kubepods/pod1/tracer/inner"),
            ("/../other", "/kubepods/pod1/other"),
            ("/../../../init.scope", "/init.scope"),
            ("/../../..", "/"),
            // More than there are: no kernel prints it.
            ("/../../../../../x", "/x"),
        ] {
            assert_eq!(absolute(path, root), whole, "{path}");
            assert_eq!(absolute(path, None), path);
        }
    }

    #[test]
    fn only_a_group_of_the_kubelet_is_a_pods() {
        let uid = "0a1b2c3d-4e5f-6789-abcd-ef0123456789";
        let id = "a".repeat(64);
        for (path, has_pod) in [
            (format!("/kubepods/burstable/pod{uid}/{id}"), true),
            (format!("/../../pod{uid}/{id}"), false),
            (format!("/user.slice/pod{uid}/{id}"), false),
            (format!("/docker/{id}/kubelet/kubepods/pod{uid}/{id}"), true),
            ("/kubepods.slice/x.scope".to_owned(), false),
        ] {
            let pod = place(&path).pod;
            let found = pod.as_ref().and_then(|pod| pod.uid.as_deref());
            assert_eq!(found, has_pod.then_some(uid), "{path}");
        }
    }

    /// A container without a log, such as the pause container, is not searched for without end.
    #[test]
    fn names_are_looked_up_a_limited_number_of_times() {
        let uid = "0a1b2c3d-4e5f-6789-abcd-ef0123456789";
        let mut cgroups = CgroupCache::live(Lookup::default());
        cgroups.insert(7, &format!("/kubepods/pod{uid}/{}", "a".repeat(64)));
        cgroups.start_naming(7);
        let start = Instant::now();
        let mut now = start;
        let mut tries = 0;
        while let Some((due, _)) = cgroups.known[&7].retry {
            now = now.max(due);
            cgroups.complete(7, now);
            tries += 1;
        }
        assert_eq!(tries, TRIES_MAX);
        assert!(now - start > Duration::from_secs(60), "{:?}", now - start);
        // The UID is known from the path: it is captured once.
        assert_eq!(cgroups.take_new().len(), 1);
    }

    #[test]
    fn a_replay_takes_the_recorded_pod_of_a_known_group() {
        let pod = Pod {
            name: Some("web".into()),
            container: Some("not a name\n".into()),
            ..Pod::default()
        };
        let mut cgroups = CgroupCache::offline();
        cgroups.insert_pod(7, &pod);
        assert_eq!(cgroups.of(None, 7), Place::default());
        cgroups.insert(7, "/a.service");
        cgroups.insert_pod(7, &pod);
        let kept = cgroups.of(None, 7).pod.unwrap();
        assert_eq!(
            (kept.name.as_deref(), &kept.container),
            (Some("web"), &None)
        );
        assert_eq!(cgroups.all().count(), 2);
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
