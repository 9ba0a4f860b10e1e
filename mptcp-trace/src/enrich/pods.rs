//! Names of pods and their containers, from the names of the kubelet's log files. No content is
//! read, and neither the cluster's API nor a socket of the container runtime is needed.
//!
//! - `pods/NAMESPACE_NAME_UID/CONTAINER/...`
//! - `containers/NAME_NAMESPACE_CONTAINER-ID.log`
//!
//! None of these names contains an underscore. Whatever does not look like a name that Kubernetes
//! accepts is ignored: a program with write access to these directories chose it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::Pod;

/// At most this many entries of a directory are read. A node has 110 pods by default.
const ENTRIES_MAX: usize = 16_384;

/// The two directories with names.
const PODS: &str = "pods";
const CONTAINERS: &str = "containers";

/// Minimum interval between two readings.
const READ_EVERY: Duration = Duration::from_millis(100);

/// Lengths of a UUID, and of the hash that identifies a static pod.
const UUID_BYTES: usize = 36;
const HASH_BYTES: usize = 32;

/// Length of a container id, hexadecimal digits.
const CONTAINER_ID_BYTES: usize = 64;

/// The pods whose log files exist, as of the last reading.
#[derive(Debug, Default)]
pub(super) struct PodNames {
    /// The directory that contains `pods` and `containers`.
    logs: PathBuf,
    read_at: Option<Instant>,
    /// By the pod's UID.
    pods: HashMap<String, Arc<Pod>>,
    /// By the container's id.
    containers: HashMap<String, Arc<Pod>>,
    has_warned: bool,
}

/// Why no name can be found in `logs`: neither of its two directories is readable. `None` if one is.
#[must_use]
pub fn unreadable(logs: &Path) -> Option<String> {
    let why = fs::read_dir(logs.join(PODS)).err()?;
    fs::read_dir(logs.join(CONTAINERS)).err()?;
    Some(format!(
        "pods and containers have no names: cannot read {}: {why}; --pod-logs names the directory in which \
         the kubelet keeps logs (in a container, mount it)",
        logs.join(PODS).display()
    ))
}

impl PodNames {
    /// Names from the files in `logs`.
    pub(super) fn new(logs: PathBuf) -> Self {
        Self {
            logs,
            ..Self::default()
        }
    }

    /// What is known of a pod and its container; `None` if nothing is.
    pub(super) fn find(&self, uid: Option<&str>, container: Option<&str>) -> Option<Pod> {
        let of_uid = uid.and_then(|uid| self.pods.get(uid));
        let of_container = container.and_then(|id| self.containers.get(id));
        let mut found = match (of_container, of_uid) {
            // The names of a file and of a directory agree, or one is not the kubelet's.
            (Some(container), Some(pod))
                if (&container.namespace, &container.name) != (&pod.namespace, &pod.name) =>
            {
                Pod::clone(pod)
            }
            (Some(pod), _) | (None, Some(pod)) => Pod::clone(pod),
            (None, None) => Pod::default(),
        };
        found.uid = uid.map(str::to_owned);
        (found != Pod::default()).then_some(found)
    }

    /// Reads the directories anew, unless that was done just before; true if it was read.
    pub(super) fn refresh(&mut self, now: Instant) -> bool {
        if self.read_at.is_some_and(|at| now < at + READ_EVERY) {
            return false;
        }
        self.read_at = Some(now);
        // Pods that have gone are forgotten; what was found out about their processes stays with
        // their control groups.
        self.pods = self.entries(PODS, pod_of_directory);
        self.containers = self.entries(CONTAINERS, container_of_link);
        true
    }

    fn entries(
        &mut self,
        directory: &str,
        parse: fn(&str) -> Option<(String, Pod)>,
    ) -> HashMap<String, Arc<Pod>> {
        let path = self.logs.join(directory);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(why) => {
                self.warn_once(&path, &why);
                return HashMap::new();
            }
        };
        let mut found = HashMap::new();
        for (count, entry) in entries.flatten().enumerate() {
            if count >= ENTRIES_MAX {
                let why = format!("more than {ENTRIES_MAX} entries");
                self.warn_once(&path, &why);
                break;
            }
            let name = entry.file_name();
            if let Some((key, pod)) = name.to_str().and_then(parse) {
                found.insert(key, Arc::new(pod));
            }
        }
        found
    }

    fn warn_once(&mut self, path: &Path, why: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.has_warned, true) {
            log::info!(
                "names of pods are unknown or incomplete: {}: {why}",
                path.display()
            );
        }
    }
}

/// `NAMESPACE_NAME_UID`
fn pod_of_directory(name: &str) -> Option<(String, Pod)> {
    let mut parts = name.split('_');
    let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let uid = is_uid(uid).then(|| uid.to_owned())?;
    let pod = Pod {
        uid: None,
        namespace: label(namespace)?,
        name: subdomain(name)?,
        container: None,
    };
    Some((uid, pod))
}

/// `NAME_NAMESPACE_CONTAINER-ID.log`. If it were longer than a file's name may be, the kubelet cuts
/// off its end: such a container is found by its pod's UID only.
fn container_of_link(name: &str) -> Option<(String, Pod)> {
    let mut parts = name.strip_suffix(".log")?.split('_');
    let (name, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (container, id) = rest.rsplit_once('-')?;
    let id = is_container_id(id).then(|| id.to_owned())?;
    let pod = Pod {
        uid: None,
        namespace: label(namespace)?,
        name: subdomain(name)?,
        container: label(container)?,
    };
    Some((id, pod))
}

/// The UID of the pod in a component of a control group's path: `podUID` (driver `cgroupfs`), or
/// `kubepods-burstable-podUID.slice` with `_` for `-` (driver `systemd`).
pub(super) fn uid_in(component: &str) -> Option<String> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let uid = match name.strip_prefix("pod") {
        Some(uid) => uid,
        None => name.rsplit_once("-pod")?.1,
    };
    let uid = uid.replace('_', "-");
    is_uid(&uid).then_some(uid)
}

pub(super) fn is_container_id(id: &str) -> bool {
    id.len() == CONTAINER_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_uid(text: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_of_uuid = |(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => is_hex(byte),
    };
    match text.len() {
        UUID_BYTES => text.bytes().enumerate().all(is_of_uuid),
        HASH_BYTES => text.bytes().all(is_hex),
        _ => false,
    }
}

/// A DNS label (RFC 1123), as names of namespaces and containers are. The outer `None` refuses it.
fn label(text: &str) -> Option<Option<String>> {
    const BYTES_MAX: usize = 63;
    is_name(text, BYTES_MAX, false).then(|| Some(text.to_owned()))
}

/// A DNS subdomain, as names of pods are.
fn subdomain(text: &str) -> Option<Option<String>> {
    const BYTES_MAX: usize = 253;
    is_name(text, BYTES_MAX, true).then(|| Some(text.to_owned()))
}

fn is_name(text: &str, bytes_max: usize, may_have_dots: bool) -> bool {
    let is_letter = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let is_inner = |byte| is_letter(byte) || byte == b'-' || (may_have_dots && byte == b'.');
    let (first, last) = (text.bytes().next(), text.bytes().last());
    text.len() <= bytes_max
        && first.is_some_and(is_letter)
        && last.is_some_and(is_letter)
        && text.bytes().all(is_inner)
}

/// Keeps only what Kubernetes accepts: a capture may contain anything.
pub(super) fn accepted(pod: &Pod) -> Option<Pod> {
    let Pod {
        uid,
        namespace,
        name,
        container,
    } = pod;
    let kept = Pod {
        uid: uid.clone().filter(|uid| is_uid(uid)),
        namespace: namespace.as_deref().and_then(label).flatten(),
        name: name.as_deref().and_then(subdomain).flatten(),
        container: container.as_deref().and_then(label).flatten(),
    };
    (kept != Pod::default()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a1b2c3d-4e5f-6789-abcd-ef0123456789";
    const HASH: &str = "0123456789abcdef0123456789abcdef";

    fn id() -> String {
        "0123456789abcdef".repeat(4)
    }

    fn pod(namespace: &str, name: &str, container: Option<&str>) -> Pod {
        Pod {
            uid: None,
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            container: container.map(Into::into),
        }
    }

    #[test]
    fn a_directory_names_a_pod_and_anything_else_does_not() {
        let good = format!("shop_web-7d4b9.1_{UID}");
        let found = pod_of_directory(&good).unwrap();
        assert_eq!(found, (UID.to_owned(), pod("shop", "web-7d4b9.1", None)));
        let of_static = format!("kube-system_etcd-node1_{HASH}");
        assert_eq!(pod_of_directory(&of_static).unwrap().0, HASH);
        for bad in [
            String::new(),
            "shop_web".into(),
            format!("shop_web_{UID}_x"),
            format!("Shop_web_{UID}"),
            format!("shop_we b_{UID}"),
            format!("shop_-web_{UID}"),
            format!("shop_web\n_{UID}"),
            format!("sh.op_web_{UID}"),
            format!("_web_{UID}"),
            format!("{}_web_{UID}", "a".repeat(64)),
            format!("shop_{}_{UID}", "a".repeat(254)),
            "shop_web_1234".into(),
            format!("shop_web_{}", UID.replace('-', "g")),
        ] {
            assert_eq!(pod_of_directory(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_link_names_a_container_and_anything_else_does_not() {
        let good = format!("web-1_shop_nginx-proxy-{}.log", id());
        let found = container_of_link(&good).unwrap();
        assert_eq!(found, (id(), pod("shop", "web-1", Some("nginx-proxy"))));
        for bad in [
            format!("web-1_shop_nginx-{}", id()),
            format!("web-1_shop_{}.log", id()),
            format!("web-1_shop_-{}.log", id()),
            // Cut off by the kubelet.
            format!("web-1_shop_nginx-{}.log", &id()[..60]),
            format!("web-1_shop_ngi$nx-{}.log", id()),
        ] {
            assert_eq!(container_of_link(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn both_drivers_put_the_uid_into_the_path() {
        let systemd = UID.replace('-', "_");
        for (component, uid) in [
            (format!("pod{UID}"), Some(UID)),
            (format!("kubepods-besteffort-pod{systemd}.slice"), Some(UID)),
            (format!("kubepods-pod{systemd}.slice"), Some(UID)),
            (
                format!("kubelet-kubepods-burstable-pod{HASH}.slice"),
                Some(HASH),
            ),
            ("kubepods.slice".into(), None),
            ("machine-libpod_pod_0123.slice".into(), None),
            ("podinfo.service".into(), None),
        ] {
            assert_eq!(uid_in(&component).as_deref(), uid, "{component}");
        }
    }

    #[test]
    fn pods_come_and_go() {
        let logs = tempfile::tempdir().unwrap();
        let mut names = PodNames::new(logs.path().to_owned());
        let why = unreadable(logs.path()).unwrap();
        assert!(why.contains("--pod-logs"), "{why}");
        let start = Instant::now();
        assert!(names.refresh(start));
        let directory = logs.path().join(format!("pods/shop_web_{UID}"));
        fs::create_dir_all(&directory).unwrap();
        assert_eq!(unreadable(logs.path()), None);
        // It was read just before.
        assert!(!names.refresh(start));
        assert!(names.refresh(start + READ_EVERY));
        let expected = Pod {
            uid: Some(UID.into()),
            ..pod("shop", "web", None)
        };
        let containers = logs.path().join("containers");
        assert_eq!(names.find(Some(UID), Some(&id())), Some(expected.clone()));
        fs::create_dir(&containers).unwrap();
        let link = containers.join(format!("web_shop_nginx-{}.log", id()));
        std::os::unix::fs::symlink("/nowhere", &link).unwrap();
        assert!(names.refresh(start + READ_EVERY * 2));
        let with_container = Pod {
            container: Some("nginx".into()),
            ..expected.clone()
        };
        assert_eq!(names.find(Some(UID), Some(&id())), Some(with_container));
        // A link that names another pod is not believed.
        fs::rename(&link, containers.join(format!("x_shop_nginx-{}.log", id()))).unwrap();
        assert!(names.refresh(start + READ_EVERY * 3));
        assert_eq!(names.find(Some(UID), Some(&id())), Some(expected));
        fs::remove_dir(&directory).unwrap();
        fs::remove_dir_all(&containers).unwrap();
        assert!(names.refresh(start + READ_EVERY * 4));
        let only_uid = Pod {
            uid: Some(UID.into()),
            ..Pod::default()
        };
        assert_eq!(names.find(Some(UID), Some(&id())), Some(only_uid));
        assert_eq!(names.find(None, Some(&id())), None);
    }

    #[test]
    fn a_capture_gives_no_name_that_kubernetes_refuses() {
        let good = Pod {
            uid: Some(UID.into()),
            ..pod("shop", "web", Some("nginx"))
        };
        assert_eq!(accepted(&good), Some(good.clone()));
        let bad = Pod {
            uid: Some("\u{1b}[31m".into()),
            ..pod("sh\"op", "web\n", Some("a".repeat(64).as_str()))
        };
        assert_eq!(accepted(&bad), None);
    }
}
