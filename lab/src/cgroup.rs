//! A control group for this run: it separates our processes from other MPTCP programs on this host.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// File that lists the processes of a group; writing to it moves a process there.
const PROCESSES: &str = "cgroup.procs";

/// A control group (v2) that contains this process and every process started from now on. Dropping
/// it moves this process back.
pub(crate) struct Cgroup {
    own: PathBuf,
    former: PathBuf,
    /// Path as in `/proc/PID/cgroup`.
    pub(crate) path: String,
}

impl Cgroup {
    /// Creates a group below the current group of this process.
    pub(crate) fn enter() -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .context("cannot read /proc/self/mountinfo")?;
        let root = mounted(&mounts).context("cgroup v2 is not mounted")?;
        let groups =
            fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
        let former = current(&groups).context("this process is not in a cgroup v2")?;
        let name = format!("mptcp-lab-{}", std::process::id());
        let path = format!("{}/{name}", former.trim_end_matches('/'));
        let former = Path::new(root).join(former.trim_start_matches('/'));
        let own = former.join(&name);
        fs::create_dir(&own).with_context(|| format!("cannot make {}", own.display()))?;
        let cgroup = Self { own, former, path };
        cgroup.move_to(&cgroup.own)?;
        Ok(cgroup)
    }

    fn move_to(&self, group: &Path) -> anyhow::Result<()> {
        fs::write(group.join(PROCESSES), std::process::id().to_string())
            .with_context(|| format!("cannot move to {}", group.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The directory stays while it contains a running process; it is empty and harmless
        // afterwards.
        let _stays = self.move_to(&self.former);
        let _busy = fs::remove_dir(&self.own);
    }
}

/// Mount point of cgroup v2. The format is `ID PARENT DEV ROOT PLACE OPTIONS... - TYPE ...`.
fn mounted(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let is_it = kind.split(' ').next() == Some("cgroup2");
        is_it.then(|| mount.split(' ').nth(4)).flatten()
    })
}

/// The line of the unified hierarchy.
fn current(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_among_others() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mounted("30 25 0:26 / /proc rw - proc proc rw\n"), None);
        assert_eq!(current("4:cpu:/a\n0::/b/c\n"), Some("/b/c"));
        assert_eq!(current("4:cpu:/a\n"), None);
    }
}
