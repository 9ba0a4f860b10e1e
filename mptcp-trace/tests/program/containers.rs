//! The program in a container: a PID, a mount and a cgroup namespace of its own, with the host's
//! `/proc` mounted elsewhere. And the processes of pods.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use crate::common::{
    asker, json_lines, may_trace, of_type, parse_lines, run, spawn_asker, spawn_asker_in, stderr,
    tracer, until, wait_for,
};

const UID: &str = "0a1b2c3d-4e5f-6789-abcd-ef0123456789";
const LATER_UID: &str = "11111111-2222-3333-4444-555555555555";

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A group of the unified hierarchy for this test, removed with everything in it.
struct Group {
    top: PathBuf,
    /// Its path as in `/proc/PID/cgroup`.
    path: String,
}

impl Group {
    /// None without cgroup v2.
    fn new(test: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = mounts.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let is_it = kind.starts_with("cgroup2 ");
            is_it.then(|| mount.split(' ').nth(4)).flatten()
        });
        let Some(mounted) = mounted else {
            println!("skipped: {test}: this kernel has no cgroup v2 mounted");
            return None;
        };
        let path = format!("/mptcp-test-{}-{test}.slice", std::process::id());
        let top = Path::new(mounted).join(path.trim_start_matches('/'));
        fs::create_dir(&top).unwrap();
        Some(Self { top, path })
    }

    /// A group in it, with those between.
    fn make(&self, name: &str) -> PathBuf {
        let group = self.top.join(name);
        fs::create_dir_all(&group).unwrap();
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel removes a group once its last process has been reaped.
        let remove = |group: &Path| {
            let deepest_first = Command::new("find")
                .arg(group)
                .args(["-mindepth", "0", "-depth", "-type", "d"])
                .args(["-exec", "rmdir", "{}", ";"])
                .stderr(Stdio::null())
                .status();
            deepest_first.is_ok() && !group.exists()
        };
        for _ in 0..100 {
            if remove(&self.top) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Moves itself to a control group before it runs its arguments.
const ENTERS: &str = "echo $$ >\"$1/cgroup.procs\"; shift; exec \"$@\"";

/// A tracer in a container.
struct Contained {
    child: Child,
    dir: tempfile::TempDir,
}

impl Contained {
    /// Starts it in a control group, and waits until it is live.
    fn start(group: &Path, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("mkdir $0/proc; mount --bind /proc $0/proc; {ENTERS}");
        let ready = dir.path().join("ready");
        let file = |name: &str| fs::File::create(dir.path().join(name)).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .args([dir.path(), group])
            .args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg("--cgroup")
            .arg(tracer().get_program())
            .arg("live")
            .arg("--proc")
            .arg(dir.path().join("proc"))
            .arg("--ready-file")
            .arg(&ready)
            .args(args)
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap();
        wait_for(&ready);
        Self { child, dir }
    }

    fn lines(&self) -> Vec<Value> {
        parse_lines(&fs::read(self.dir.path().join("stdout")).unwrap())
    }

    /// Waits until it ends by itself.
    fn output(mut self) -> Output {
        let status = self.child.wait().unwrap();
        let read = |name: &str| fs::read(self.dir.path().join(name)).unwrap();
        Output {
            status,
            stdout: read("stdout"),
            stderr: read("stderr"),
        }
    }
}

impl Drop for Contained {
    /// After a failed assertion: `unshare` kills what is inside.
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Provokes a fallback, and returns its owner once it is printed as number `number` of this process.
fn fall(asker: &mut Child, number: usize, tracer: &Contained) -> Value {
    asker.stdin.as_mut().unwrap().write_all(b".").unwrap();
    let owners = || -> Vec<Value> {
        let fallbacks = of_type(&tracer.lines(), "fallback");
        let owners = fallbacks.iter().map(|fallback| fallback["owner"].clone());
        owners.filter(|it| it["pid"] == asker.id()).collect()
    };
    until("the fallback is printed", || owners().len() >= number);
    owners().remove(number - 1)
}

fn in_group(group: &Path) -> Child {
    spawn_asker_in(&["sh", "-c", ENTERS, "-", group.to_str().unwrap()], "falls")
}

/// A tracer in a PID namespace sees a process of the host with the host's numbers, and notices its
/// end.
#[test]
fn with_the_hosts_proc_a_process_has_the_numbers_of_the_host() {
    let test = "with-the-hosts-proc";
    if !may_trace(test) {
        return;
    }
    let Some(group) = Group::new(test) else {
        return;
    };
    let mut outside = in_group(&group.make("nginx.service"));
    let pid = outside.id().to_string();
    let options = ["--json", "--pid", &pid, "--follow"];
    let tracer = Contained::start(&group.make("tracer.scope/inner"), &options);
    let owner = fall(&mut outside, 1, &tracer);
    assert_eq!(owner.get("host_pid"), None, "{owner}");
    // Its path is that of the host, although the tracer has a cgroup namespace of its own.
    assert_eq!(owner["cgroup"], format!("{}/nginx.service", group.path));
    assert_eq!(owner["unit"], "nginx.service");
    drop(outside.stdin.take());
    outside.wait().unwrap();
    // It ends by itself: the traced process has.
    let output = tracer.output();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("kernel agrees"), "{said}");
}

/// A command is a child of the tracer, which knows it by another number. The host may be a container
/// itself.
#[test]
fn with_the_hosts_proc_a_command_is_traced_by_its_number_on_the_host() {
    if !may_trace("with_the_hosts_proc_a_command_is_traced_by_its_number_on_the_host") {
        return;
    }
    for host_is_container in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let script = "mount --bind /proc $0; exec unshare --pid --fork --mount-proc \"$@\"";
        let mut inside = Command::new("unshare");
        if host_is_container {
            inside.args(["--pid", "--fork", "--mount-proc"]);
        }
        inside
            .args(["--mount", "sh", "-c", script])
            .arg(dir.path())
            .arg(tracer().get_program())
            .args(["--json", "--proc"])
            .arg(dir.path())
            .arg("--")
            .args(["sh", "-c", "exec \"$@\" >/dev/null", "-"])
            .args(asker("basic"));
        let output = inside.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let queries = of_type(&json_lines(&output), "query");
        assert_eq!(queries.len(), 3, "{queries:?}");
        for query in queries {
            let pid = query["pid"].as_u64().unwrap();
            let host_pid = query.get("host_pid").and_then(Value::as_u64);
            // A fresh PID namespace counts from 1.
            assert_eq!(pid < 100, host_is_container, "{query}");
            assert_eq!(host_pid.is_some_and(|it| it > 100), host_is_container);
        }
    }
}

#[test]
fn a_directory_that_does_not_show_the_host_is_refused() {
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = elsewhere.path().to_str().unwrap();
    for (dir, why) in [
        (elsewhere, "it is no procfs"),
        ("/nowhere", "it cannot be inspected"),
        ("/proc/sys", "it is not the root of a procfs"),
    ] {
        for verb in ["live", "list", "doctor", "serve", "top", "demo"] {
            let output = run([verb, "--proc", dir]);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{verb} {dir}: {said}");
            assert!(
                said.contains(why) && said.contains("mount the host's /proc"),
                "{said}"
            );
        }
    }
    if !may_trace("a_directory_that_does_not_show_the_host_is_refused") {
        return;
    }
    let mut inside = Command::new("unshare");
    inside
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(tracer().get_program())
        .args(["doctor", "--proc", "/proc"]);
    let output = inside.output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("only the processes of this container"),
        "{said}"
    );
}

/// Adds the files that a kubelet creates.
fn log_of(logs: &Path, namespace: &str, pod: &str, uid: &str, container: &str, id: &str) {
    let directory = logs.join(format!("pods/{namespace}_{pod}_{uid}/{container}"));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("0.log"), "").unwrap();
    let links = logs.join("containers");
    fs::create_dir_all(&links).unwrap();
    let link = links.join(format!("{pod}_{namespace}_{container}-{id}.log"));
    std::os::unix::fs::symlink(directory.join("0.log"), link).unwrap();
}

/// Namespace, pod, UID and container of an owner.
fn names(owner: &Value) -> [Option<&str>; 4] {
    ["namespace.name", "pod.name", "pod.uid", "container.name"]
        .map(|name| owner.get(format!("k8s.{name}"))?.as_str())
}

/// Pods of both cgroup drivers have names, also one that the kubelet names later; a replay prints the
/// same, and a redacted bundle prints none of them.
#[test]
fn a_directory_without_names_of_pods_is_reported() {
    if !may_trace("a_directory_without_names_of_pods_is_reported") {
        return;
    }
    let logs = tempfile::tempdir().unwrap();
    let missing = logs.path().join("pods");
    let says_so = |words: &[&str]| {
        let end = ["--pod-logs", logs.path().to_str().unwrap(), "--", "true"];
        let output = run([words, &end].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output).contains(&format!("cannot read {}", missing.display()))
    };
    assert!(says_so(&[]));
    assert!(!says_so(&["--quiet"]));
    fs::create_dir(&missing).unwrap();
    assert!(!says_so(&[]));
}

#[test]
fn pods_have_names() {
    let test = "pods-have-names";
    if !may_trace(test) {
        return;
    }
    let Some(group) = Group::new(test) else {
        return;
    };
    let logs = tempfile::tempdir().unwrap();
    let logs = logs.path();
    log_of(logs, "shop", "web-7d4b9", UID, "nginx", &id('a'));
    fs::create_dir(logs.join("pods/not a pod")).unwrap();
    let of_systemd = format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{}.scope",
        UID.replace('-', "_"),
        id('a')
    );
    let of_cgroupfs = format!("kubepods/besteffort/pod{LATER_UID}/{}", id('b'));
    let capture = logs.join("run.mpt");
    let options = [
        "--json",
        "--kind",
        "fallback",
        "--pod-logs",
        logs.to_str().unwrap(),
        "--capture",
        capture.to_str().unwrap(),
    ];
    let mut first = in_group(&group.make(&of_systemd));
    let mut later = in_group(&group.make(&of_cgroupfs));
    let mut none = spawn_asker("falls");
    let pids = [&first, &later, &none]
        .map(|it| it.id().to_string())
        .join(",");
    let options = [&options[..], &["--pid", &pids]].concat();
    let tracer = Contained::start(&group.make("tracer.scope"), &options);

    let owner = fall(&mut first, 1, &tracer);
    let of_first = [Some("shop"), Some("web-7d4b9"), Some(UID), Some("nginx")];
    assert_eq!(names(&owner), of_first, "{owner}");
    assert_eq!(owner["container"], id('a'));
    assert_eq!(owner["cgroup"], format!("{}/{of_systemd}", group.path));

    // The kubelet creates the files after the process.
    let owner = fall(&mut later, 1, &tracer);
    assert_eq!(
        names(&owner),
        [None, None, Some(LATER_UID), None],
        "{owner}"
    );
    log_of(logs, "shop", "cart-0", LATER_UID, "main", &id('b'));
    let of_later = [Some("shop"), Some("cart-0"), Some(LATER_UID), Some("main")];
    let mut is_named = |number: &usize| names(&fall(&mut later, *number, &tracer)) == of_later;
    let named = (2..100).find(&mut is_named);
    assert!(named.is_some(), "{:?}", tracer.lines().pop());

    let owner = fall(&mut none, 1, &tracer);
    assert_eq!(names(&owner), [None; 4], "{owner}");

    // A pod that has gone keeps its names.
    fs::remove_dir_all(logs.join("pods")).unwrap();
    fs::remove_dir_all(logs.join("containers")).unwrap();
    let owner = fall(&mut first, 2, &tracer);
    assert_eq!(names(&owner), of_first, "{owner}");

    for child in [&mut first, &mut later, &mut none] {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    let live = of_type(&json_lines(&tracer.output()), "fallback");
    let capture = capture.to_str().unwrap();
    let replayed = run(["replay", "--json", "--kind", "fallback", capture]);
    assert_eq!(of_type(&json_lines(&replayed), "fallback"), live);

    let bundle = logs.join("bundle.tar.zst");
    let bundle = bundle.to_str().unwrap();
    let packed = run(["bundle", bundle, "--from", capture, "--redact"]);
    assert_eq!(packed.status.code(), Some(0), "{}", stderr(&packed));
    let redacted = run(["replay", "--json", bundle]);
    let text = String::from_utf8_lossy(&redacted.stdout);
    assert!(text.contains("\"k8s.pod.name\":\"pod"), "{text}");
    for secret in ["shop", "web-7d4b9", "cart-0", "nginx", UID, LATER_UID] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}
