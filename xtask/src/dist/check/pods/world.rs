//! A node: control groups, pods with processes, log files with their names, and podman with a storage
//! of its own. All of it is removed at the end.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::Spec;
use crate::command;

/// Limits that a runtime can set without `CAP_SYS_RESOURCE`, which this machine may lack.
pub(super) const LIMITS: [&str; 4] = [
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=1024:1024",
];

/// Moves itself to a control group before it runs its arguments.
const ENTERS: &str = "echo $$ >\"$1/cgroup.procs\" && shift && exec \"$@\"";

/// Runs podman with the unified hierarchy where it expects it.
const PODMAN: &str = "\
if [ \"$(stat --file-system --format %T /sys/fs/cgroup)\" != cgroup2fs ]; then
    umount --recursive /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1
fi
exec podman \"$@\"";

pub(super) struct World {
    dir: tempfile::TempDir,
    /// The group that contains all others.
    top: PathBuf,
}

impl World {
    pub(super) fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mounted = mounts.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let is_it = kind.starts_with("cgroup2 ");
            is_it.then(|| mount.split(' ').nth(4)).flatten()
        });
        let name = format!("mptcp-dist-{}.slice", std::process::id());
        let top = Path::new(mounted.context("cgroup v2 is not mounted")?).join(name);
        fs::create_dir(&top).with_context(|| format!("cannot make {}", top.display()))?;
        let dir = tempfile::Builder::new().prefix("mptcp-dist-").tempdir()?;
        let world = Self { dir, top };
        // An ordinary user's container has files in it.
        fs::set_permissions(world.directory(), fs::Permissions::from_mode(0o755))?;
        for name in ["pods", "containers"] {
            fs::create_dir_all(world.logs().join(name))?;
        }
        Ok(world)
    }

    pub(super) fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// `/var/log` of the node.
    fn logs(&self) -> PathBuf {
        self.dir.path().join("node/var/log")
    }

    /// An empty directory.
    pub(super) fn empty(&self, name: &str) -> Result<PathBuf> {
        let directory = self.dir.path().join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    pub(super) fn script(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.dir.path().join(name);
        fs::write(&file, text)?;
        Ok(file)
    }

    /// The mounts of a container: logs are those of this node, the rest is the machine's.
    pub(super) fn mounts(&self, spec: &Spec) -> Vec<(String, String)> {
        let node = self.dir.path().join("node").display().to_string();
        let volumes = spec.volumes.iter();
        volumes
            .map(|(outside, inside)| match outside.starts_with("/var/log/") {
                true => (format!("{node}{outside}"), inside.clone()),
                false => (outside.clone(), inside.clone()),
            })
            .collect()
    }

    /// The same command, run in a control group of this name.
    pub(super) fn enter(&self, group: &str, command: &Command) -> Result<Command> {
        let group = self.top.join(group);
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        let mut entering = Command::new("sh");
        entering
            .args(["-c", ENTERS, "-"])
            .arg(&group)
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null());
        Ok(entering)
    }

    /// A pod whose process falls back until it is dropped. As a kubelet does, it creates the link with
    /// the container's name once the container runs.
    pub(super) fn pod(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        number: u32,
    ) -> Result<Falling> {
        let uid = format!("{number:08x}-1111-4222-8333-444455556666");
        let id = format!("{number:064x}");
        let directory = self
            .logs()
            .join(format!("pods/{namespace}_{name}_{uid}/{container}"));
        fs::create_dir_all(&directory)?;
        // The driver `systemd`, as on most nodes.
        let uid = uid.replace('-', "_");
        let group = format!(
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{id}.scope"
        );
        let mut falls = Command::new("python3");
        falls.arg(self.script("fall.py", include_str!("fall.py"))?);
        let falling = Falling(self.enter(&group, &falls)?.spawn()?);
        thread::sleep(Duration::from_secs(1));
        let log = directory.join("0.log");
        fs::write(&log, "")?;
        let link = format!("containers/{name}_{namespace}_{container}-{id}.log");
        symlink(log, self.logs().join(link))?;
        Ok(falling)
    }

    /// Podman, with a storage of its own.
    pub(super) fn podman(&self) -> Result<Podman> {
        let podman = Podman {
            directory: self.empty("podman")?,
        };
        let version = command::text(
            podman
                .command()
                .args(["version", "--format", "{{.Client.Version}}"]),
            "podman does not run on this machine",
        )?;
        command::say(format_args!("podman {}", version.trim()));
        Ok(podman)
    }

    /// Moves a process to a group of this name.
    pub(super) fn adopt(&self, group: &str, pid: u32) -> Result<()> {
        let group = self.top.join(group);
        fs::create_dir_all(&group)?;
        fs::write(group.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("cannot move {pid} to {}", group.display()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Ends every process in it. Groups can be removed once their last process has been reaped.
        let _ended = fs::write(self.top.join("cgroup.kill"), "1");
        for _ in 0..100 {
            let mut remove = Command::new("find");
            remove
                .arg(&self.top)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                .stderr(Stdio::null());
            let _some_left = remove.status();
            if !self.top.exists() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        command::say(format_args!("cannot remove {}", self.top.display()));
    }
}

/// A process that falls back until this is dropped.
pub(super) struct Falling(Child);

impl Drop for Falling {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

pub(super) struct Podman {
    directory: PathBuf,
}

impl Podman {
    /// A command of podman, without its words.
    pub(super) fn command(&self) -> Command {
        let mut podman = Command::new("unshare");
        podman.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            PODMAN,
            "-",
        ]);
        for (option, name) in [
            ("--root", "storage"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            podman.arg(option).arg(self.directory.join(name));
        }
        podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        if command::find_program("runc").is_some() {
            podman.args(["--runtime", "runc"]);
        }
        podman
    }
}

/// Waits for the file with a process id that this runtime writes.
pub(super) fn number_in(file: &Path, runtime: &mut Child, patience: Duration) -> Result<u32> {
    let began = Instant::now();
    while began.elapsed() < patience {
        if let Some(pid) = fs::read_to_string(file)
            .ok()
            .and_then(|it| it.trim().parse().ok())
        {
            return Ok(pid);
        }
        if let Some(status) = runtime.try_wait()? {
            bail!("the runtime ended: {}", command::describe(status));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let _ended = runtime.kill();
    bail!("{} does not appear", file.display())
}
