//! Places of processes: where they are looked up on this machine, and how a capture holds them.

use std::path::Path;

use crate::{
    capture::Frame,
    enrich::{Learned, Lookup},
    host::{cgroup_root::cgroup_root, procfs},
    model::Pod,
};

/// Where processes of this machine are looked up.
#[must_use]
pub fn lookup(pod_logs: &Path) -> Lookup {
    Lookup {
        procfs: procfs::has_our_numbers().then(|| procfs::dir().to_owned()),
        cgroup_root: cgroup_root(),
        pod_logs: pod_logs.to_owned(),
    }
}

/// What a capture holds of it.
pub(super) fn frame(learned: Learned) -> Frame {
    match learned {
        Learned::Path(cgroup_id, path) => Frame::Place(cgroup_id, path),
        Learned::Pod(cgroup_id, pod) => Frame::Pod(cgroup_id, Pod::clone(&pod)),
    }
}
