//! Runs the container of the `DaemonSet` on this machine, and lets processes of pods fall back: its
//! metrics must name these pods. What stands for the kubelet is made here: control groups, and the names
//! of log files. The container itself is the one of the manifest: its arguments, mounts and
//! capabilities, run by podman, or by a script that does the same in a chroot.

mod world;

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use self::world::World;
use super::{Looked, container};
use crate::command;

/// How long the tracer may take to start and to count a fallback.
const PATIENCE: Duration = Duration::from_secs(60);

/// Port of the metrics.
const PORT: &str = "9944";

/// What the manifest asks of a container runtime.
struct Spec {
    args: Vec<String>,
    capabilities: Vec<String>,
    /// Paths on the node and in the container.
    volumes: Vec<(String, String)>,
    /// `hostPID`
    host_pid: bool,
}

impl Spec {
    fn of(daemon_set: &Value) -> Result<Self> {
        let pod = &daemon_set["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let strings = |value: &Value| -> Vec<String> {
            let all = value.as_array().into_iter().flatten();
            all.filter_map(|it| Some(it.as_str()?.to_owned())).collect()
        };
        let on_node = |name: &Value| {
            let volumes = pod["volumes"].as_array().into_iter().flatten();
            let mut volumes = volumes.filter(|it| it["name"] == *name);
            volumes.find_map(|it| Some(it["hostPath"]["path"].as_str()?.to_owned()))
        };
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let volumes = mounts.map(|mount| {
            let is_read_only = mount["readOnly"] == true;
            let inside = mount["mountPath"].as_str().filter(|_| is_read_only);
            let inside = inside.with_context(|| format!("{mount} is not read-only"))?;
            let outside = on_node(&mount["name"]);
            let outside = outside.with_context(|| format!("{mount} has no hostPath"))?;
            Ok((outside, inside.to_owned()))
        });
        Ok(Self {
            args: strings(&container["args"]),
            capabilities: strings(&container["securityContext"]["capabilities"]["add"]),
            volumes: volumes.collect::<Result<_>>()?,
            host_pid: pod["hostPID"] == true,
        })
    }

    /// The variant of docs/install.md without the PID namespace of the host.
    fn without_host_pid(mut self) -> Self {
        self.host_pid = false;
        self.volumes.push(("/proc".into(), "/host/proc".into()));
        self.args.extend(["--proc".into(), "/host/proc".into()]);
        self
    }
}

/// A container that is running.
struct Running {
    /// The runtime, which ends when the container does.
    runtime: Child,
    /// A process in its network namespace.
    pid: u32,
}

impl Running {
    /// The page of metrics.
    fn metrics(&self) -> Result<String> {
        let get = format!(
            "import urllib.request as r; \
             print(r.urlopen('http://127.0.0.1:{PORT}/metrics', timeout=5).read().decode())"
        );
        let mut scrape = Command::new("nsenter");
        scrape
            .args(["--net", "--target", &self.pid.to_string()])
            .args(["python3", "-c", &get]);
        command::text(&mut scrape, "cannot read the metrics")
    }

    /// Waits until the metrics have a line that contains all of these words.
    fn shows(&mut self, words: &[&str]) -> Result<()> {
        let began = Instant::now();
        loop {
            let page = self.metrics();
            let has_all = |line: &str| words.iter().all(|word| line.contains(word));
            if page.as_ref().is_ok_and(|page| page.lines().any(has_all)) {
                return Ok(());
            }
            if let Some(status) = self.runtime.try_wait()? {
                bail!("the container ended: {}", command::describe(status));
            }
            if began.elapsed() > PATIENCE {
                let page = page.unwrap_or_else(|why| format!("{why:#}"));
                let fallbacks = page.lines().filter(|it| it.contains("fallbacks_total{"));
                let found: Vec<&str> = fallbacks.filter(|it| !it.ends_with(" 0")).collect();
                bail!("the metrics have no line with {words:?}, only {found:#?}");
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Ends it as a runtime does.
    fn end(mut self, program: u32) -> Result<()> {
        command::output(
            Command::new("kill").arg(program.to_string()),
            "cannot end the container",
        )?;
        let status = self.runtime.wait()?;
        if !status.success() {
            bail!("the container ended: {}", command::describe(status));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.runtime.kill();
        let _status = self.runtime.wait();
    }
}

/// Name of the step with podman, which is not installed for it.
pub(super) const WITH_PODMAN: &str = "the Dockerfile's image, run by podman as in the DaemonSet, traces and names pods, also without hostPID";

/// In a chroot, with and without the PID namespace of the host.
pub(super) fn in_chroot(looked: &Looked<'_>) -> Result<()> {
    let manifest = container::daemon_set(looked)?;
    for spec in [
        Spec::of(&manifest)?,
        Spec::of(&manifest)?.without_host_pid(),
    ] {
        let world = World::new()?;
        let what = json!({
            "root": world.empty("root")?,
            "program": looked.release.program,
            "args": spec.args,
            "volumes": world.mounts(&spec),
            "capabilities": spec.capabilities.iter().map(|it| number_of(it)).collect::<Result<Vec<_>>>()?,
        });
        let mut contained = Command::new("unshare");
        contained.args(["--mount", "--net", "--cgroup"]);
        if !spec.host_pid {
            contained.args(["--pid", "--fork", "--kill-child"]);
        }
        contained
            .arg("python3")
            .arg(world.script("contain.py", include_str!("contain.py"))?)
            .arg(what.to_string());
        let runtime = world.enter("tracer", &contained)?.spawn()?;
        let pid = runtime.id();
        let mut running = Running { runtime, pid };
        names_pods(&world, &spec, &mut running).with_context(|| mode(&spec))?;
    }
    Ok(())
}

fn mode(spec: &Spec) -> &'static str {
    match spec.host_pid {
        true => "with hostPID",
        false => "without hostPID, with --proc",
    }
}

fn names_pods(world: &World, spec: &Spec, running: &mut Running) -> Result<()> {
    // Each run has pods of its own.
    let number = if spec.host_pid { 1 } else { 3 };
    let _first = world.pod("shop", "web-0", "nginx", number)?;
    running.shows(&[
        "mptcp_trace_fallbacks_total{",
        "k8s_namespace_name=\"shop\"",
        "k8s_pod_name=\"web-0\"",
        "k8s_container_name=\"nginx\"",
    ])?;
    // One that comes while it runs.
    let _second = world.pod("default", "cart.1", "main", number + 1)?;
    running.shows(&["k8s_namespace_name=\"default\"", "k8s_pod_name=\"cart.1\""])
}

/// The number of a capability (linux/capability.h).
fn number_of(name: &str) -> Result<u32> {
    let known = [("SYS_PTRACE", 19), ("PERFMON", 38), ("BPF", 39)];
    known
        .iter()
        .find_map(|(known, number)| (*known == name).then_some(*number))
        .ok_or_else(|| anyhow!("the number of CAP_{name} is unknown here: add it"))
}

/// The user of the rootless container.
const USER: u32 = 64_242;

/// A process in a container of an ordinary user is traced with its user on the host, its container and
/// its unit. Without systemd, podman makes no control group for such a container: the one that it has
/// elsewhere is made here.
fn rootless(world: &World, looked: &Looked<'_>) -> Result<()> {
    let directory = world.empty("rootless")?;
    let fall = directory.join("fall.py");
    fs::write(&fall, include_str!("fall.py"))?;
    // The user writes it.
    let pid_file = directory.join("run/pid");
    let mut run = Command::new("unshare");
    run.args(["--mount", "--propagation", "private", "sh"])
        .arg(world.script("rootless.sh", include_str!("rootless.sh"))?)
        .arg(&directory)
        .arg(USER.to_string())
        .args(world::LIMITS)
        .arg("--pidfile")
        .arg(&pid_file)
        .arg("--volume")
        .arg(format!("{}:/fall.py:ro", fall.display()))
        .arg("--rootfs")
        .arg(directory.join("tree"))
        .args(["python3", "/fall.py"]);
    // Its helpers outlive it: they end with the group.
    let mut runtime = world.enter("rootless", &run)?.spawn()?;
    let pid = world::number_in(&pid_file, &mut runtime, PATIENCE);
    let pid = pid.context("rootless podman starts no container")?;
    let _running = Running { runtime, pid };
    let id = "5".repeat(64);
    let group = format!(
        "user.slice/user-{USER}.slice/user@{USER}.service/user.slice/libpod-{id}.scope/container"
    );
    world.adopt(&group, pid)?;
    let mut trace = Command::new(&looked.release.program);
    trace.args([
        "--json",
        "--kind",
        "fallback",
        "--stop-after",
        "1",
        "--duration",
        "60s",
    ]);
    trace.args(["--pid", &pid.to_string()]);
    let lines = command::text(&mut trace, "cannot trace the rootless container")?;
    let lines = lines.lines().map(serde_json::from_str::<Value>);
    let lines = lines.collect::<Result<Vec<_>, _>>()?;
    let fallback = lines.iter().find(|line| line["type"] == "fallback");
    let owner = &fallback.context("no fallback of the rootless container")?["data"]["owner"];
    for (field, expected) in [
        ("pid", json!(pid)),
        ("uid", json!(USER)),
        ("container", json!(id)),
        ("unit", json!(format!("user@{USER}.service"))),
    ] {
        if owner[field] != expected {
            bail!(
                "the owner's {field} is {}, not {expected}: {owner}",
                owner[field]
            );
        }
    }
    Ok(())
}

/// With podman, from the image that the Dockerfile makes.
pub(super) fn with_podman(looked: &Looked<'_>) -> Result<()> {
    let world = World::new()?;
    let podman = world.podman()?;
    let manifest = container::daemon_set(looked)?;
    let image = format!("mptcp-trace:{}", looked.release.version);
    let context = world.empty("image")?;
    let bin = context.join("bin");
    fs::create_dir(&bin)?;
    fs::copy(&looked.release.program, bin.join("mptcp-trace"))?;
    let mut build = podman.command();
    build
        .args([
            "build",
            "--isolation",
            "chroot",
            "--quiet",
            "--tag",
            &image,
            "--file",
        ])
        .arg(looked.places.root.join("contrib/docker/Dockerfile"))
        .arg(&context);
    command::output(&mut build, "podman cannot build the image")?;
    for spec in [
        Spec::of(&manifest)?,
        Spec::of(&manifest)?.without_host_pid(),
    ] {
        let id_file = world.directory().join(mode(&spec).replace(' ', "-"));
        let mut run = podman.command();
        run.args([
            "run",
            "--rm",
            "--network",
            "none",
            "--read-only",
            "--cap-drop",
            "ALL",
        ]);
        run.args(["--security-opt", "no-new-privileges"]);
        run.args(["--security-opt", "seccomp=unconfined", "--user", "0:0"]);
        // The controller may belong to the hierarchy of cgroup v1.
        run.args(world::LIMITS).args(["--pids-limit", "0"]);
        run.arg("--pidfile").arg(&id_file);
        if spec.host_pid {
            run.args(["--pid", "host"]);
        }
        for name in &spec.capabilities {
            run.args(["--cap-add", name]);
        }
        for (outside, inside) in world.mounts(&spec) {
            run.arg("--volume").arg(format!("{outside}:{inside}:ro"));
        }
        run.arg(&image).args(&spec.args);
        let mut runtime = run.stdin(Stdio::null()).spawn()?;
        let pid = world::number_in(&id_file, &mut runtime, PATIENCE);
        let pid = pid.context("podman starts no container")?;
        let mut running = Running { runtime, pid };
        names_pods(&world, &spec, &mut running).with_context(|| mode(&spec))?;
        running.end(pid)?;
    }
    rootless(&world, looked).context("a rootless container")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(read_only: bool) -> Value {
        json!({"spec": {"template": {"spec": {
            "hostPID": true,
            "volumes": [{"name": "pods", "hostPath": {"path": "/var/log/pods"}}],
            "containers": [{
                "args": ["serve"],
                "securityContext": {"capabilities": {"add": ["BPF"]}},
                "volumeMounts": [{"name": "pods", "mountPath": "/logs", "readOnly": read_only}],
            }],
        }}}})
    }

    #[test]
    fn the_container_is_the_one_of_the_manifest() {
        let spec = Spec::of(&manifest(true)).unwrap();
        assert_eq!(spec.volumes, [("/var/log/pods".into(), "/logs".into())]);
        assert_eq!((spec.args.len(), spec.capabilities.len()), (1, 1));
        assert!(spec.host_pid);
        let spec = spec.without_host_pid();
        assert!(!spec.host_pid);
        assert_eq!(spec.args, ["serve", "--proc", "/host/proc"]);
        assert_eq!(spec.volumes.len(), 2);
        assert!(Spec::of(&manifest(false)).is_err());
    }

    #[test]
    fn a_capability_without_a_known_number_is_an_error() {
        assert_eq!(number_of("BPF").unwrap(), 39);
        assert!(number_of("SYS_ADMIN").is_err());
    }
}
