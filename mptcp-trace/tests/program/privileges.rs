//! The minimum privileges, the messages if they are missing, and the privileges left once the
//! tracer is live.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::PermissionsExt, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{
    Background, PATIENCE, assert_orderly, json_lines, may_trace, of_type, run, spawn_asker_in,
    stderr, until, wait_for,
};

/// The minimum capabilities stated in docs/security.md.
const STATED: [&str; 2] = ["bpf", "perfmon"];
const SYS_PTRACE: u64 = 1 << 19;
const KILL: u64 = 1 << 5;
/// User id of an ordinary user.
const UNPRIVILEGED: &str = "65534";

/// A directory with the program that an ordinary user may read and write.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(
            env!("CARGO_BIN_EXE_mptcp-trace"),
            dir.path().join("mptcp-trace"),
        )
        .unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program as an ordinary user with only these capabilities, and no way to gain more.
    fn tracer(&self, capabilities: &[&str]) -> Command {
        let mut set = "-all".to_owned();
        for capability in capabilities {
            set.push_str(",+");
            set.push_str(capability);
        }
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid",
                UNPRIVILEGED,
                "--regid",
                UNPRIVILEGED,
                "--clear-groups",
            ])
            .arg(format!("--inh-caps={set}"))
            .arg(format!("--ambient-caps={set}"))
            .arg(format!("--bounding-set={set}"))
            .arg(self.path("mptcp-trace"))
            .env("RUST_BACKTRACE", "0")
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a tracer like `tracer`, and waits until it is live.
    fn live(&self, capabilities: &[&str], args: &[&str]) -> Child {
        let ready = self.path("ready");
        let _none = fs::remove_file(&ready);
        let child = self
            .tracer(capabilities)
            .args(["--json", "--ready-file", "ready"])
            .args(args)
            .spawn()
            .unwrap();
        wait_for(&ready);
        child
    }
}

/// A field of `/proc/PID/status` of a thread.
fn status_of(path: &Path, name: &str) -> String {
    let status = fs::read_to_string(path.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

fn set_of(path: &Path, name: &str) -> u64 {
    u64::from_str_radix(&status_of(path, name), 16).unwrap()
}

/// Waits until every thread holds exactly the capabilities that it still needs. The thread that
/// forks for a command exits when the command starts.
fn assert_lean(pid: u32, kept: u64) {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let start = Instant::now();
    while let Some(fault) = not_lean(&process, kept) {
        assert!(start.elapsed() < PATIENCE, "{fault}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The capability that a thread has in excess or lacks; `None` if all are correct.
fn not_lean(process: &Path, kept: u64) -> Option<String> {
    let threads = fs::read_dir(process.join("task")).unwrap();
    for thread in threads.map(|it| it.unwrap().path()) {
        // The thread may have exited.
        let Ok(status) = fs::read_to_string(thread.join("status")) else {
            continue;
        };
        for (name, set) in [
            ("CapEff", kept),
            ("CapPrm", kept),
            ("CapInh", 0),
            ("CapAmb", 0),
        ] {
            if !status.contains(&format!("{name}:\t{set:016x}\n")) {
                return Some(format!("{name} is not {set:016x}: {status}"));
            }
        }
        if !status.contains("NoNewPrivs:\t1\n") {
            return Some(format!("it may gain privileges: {status}"));
        }
    }
    None
}

fn end(child: Child) -> Output {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait_with_output().unwrap()
}

/// The counter `MPCapableFallbackSYNACK` in the network namespace of a process.
fn fallen_in(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/net/netstat")).unwrap();
    let mut lines = text.lines().filter_map(|it| it.strip_prefix("MPTcpExt: "));
    let (names, counts) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(counts.split(' '));
    let count = pairs.find(|(name, _)| *name == "MPCapableFallbackSYNACK");
    count.unwrap().1.parse().unwrap()
}

/// The lab's scene, as root: the process waits for a byte, then plays.
fn held_scene() -> Child {
    Command::new("sh")
        .args(["-c", "read go && exec \"$0\" demo --scene"])
        .arg(env!("CARGO_BIN_EXE_mptcp-trace"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn with_the_stated_capabilities_alone_an_ordinary_user_sees_real_fallbacks() {
    if !may_trace("with_the_stated_capabilities_alone_an_ordinary_user_sees_real_fallbacks") {
        return;
    }
    let place = Place::new();
    let mut scene = held_scene();
    let tracer = place.live(&STATED, &["--pid", &scene.id().to_string(), "-v"]);
    assert_lean(tracer.id(), 0);
    scene.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let played = scene.wait_with_output().unwrap();
    assert!(played.status.success(), "{}", stderr(&played));
    // The traced process has exited, and the run with it.
    let output = tracer.wait_with_output().unwrap();
    assert_orderly(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let mut sides: Vec<String> = of_type(&json_lines(&output), "fallback")
        .into_iter()
        .map(|it| format!("{} {}", it["side"], it["cause"]).replace('"', ""))
        .collect();
    sides.sort_unstable();
    assert_eq!(sides, ["active DssFallback", "passive DssFallback"]);
    let said = stderr(&output);
    for sentence in [
        "without CAP_SYS_PTRACE: the kernel's counters are not compared in namespaces with only other users' processes and no traced fallback",
        "privileges kept: nothing",
        "privileges dropped: CAP_PERFMON, CAP_BPF",
    ] {
        assert!(said.contains(sentence), "{sentence}: {said}");
    }
}

#[test]
fn with_one_of_the_stated_capabilities_less_it_says_which() {
    if !may_trace("with_one_of_the_stated_capabilities_less_it_says_which") {
        return;
    }
    let place = Place::new();
    for (there, missing) in [("bpf", "CAP_PERFMON"), ("perfmon", "CAP_BPF")] {
        for args in [&["--json"][..], &["list"], &["doctor"]] {
            let output = place.tracer(&[there]).args(args).output().unwrap();
            assert_orderly(&output);
            assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
            let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
            assert!(
                said.contains(&format!("this process lacks {missing}")),
                "{said}"
            );
            assert!(
                // In a container without sudo, the container is what lacks them.
                said.contains("setcap cap_bpf,cap_perfmon+ep") || said.contains("--cap-add BPF"),
                "how to give it: {said}"
            );
        }
    }
}

#[test]
fn doctor_shows_an_ordinary_user_what_works_and_what_the_missing_privileges_are_for() {
    let name = "doctor_shows_an_ordinary_user_what_works_and_what_the_missing_privileges_are_for";
    if !may_trace(name) {
        return;
    }
    let place = Place::new();
    let output = place
        .tracer(&STATED)
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let capabilities = report["capabilities"].as_array().unwrap();
    let held: Vec<&str> = capabilities
        .iter()
        .filter(|it| it["held"] == true)
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(held, ["CAP_BPF", "CAP_PERFMON"]);
    // The table must match the documentation.
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
    let page = fs::read_to_string(page).unwrap();
    for capability in capabilities {
        let row = format!(
            "| `{}` | {} | {} |",
            capability["name"].as_str().unwrap(),
            capability["purpose"].as_str().unwrap(),
            match capability["mandatory"].as_bool().unwrap() {
                true => "**nothing is traced**",
                false => capability["cost"].as_str().unwrap(),
            }
        );
        assert!(
            page.contains(&row),
            "docs/security.md lacks the row:\n{row}"
        );
    }
    // The self-test needs a network namespace, which an ordinary user may not be allowed to create.
    let canary = &report["sensors"][1]["canary"];
    if canary["skipped"] == Value::Array(Vec::new()) {
        assert_eq!(canary["seen"], 1, "{report}");
    } else {
        println!("skipped: {name}: {}", canary["skipped"]);
    }
}

#[test]
fn counters_of_other_users_are_compared_with_the_stated_capabilities_alone() {
    let name = "counters_of_other_users_are_compared_with_the_stated_capabilities_alone";
    if !may_trace(name) {
        return;
    }
    let place = Place::new();
    for (capabilities, kept) in [
        (&["bpf", "perfmon", "sys_ptrace"][..], SYS_PTRACE),
        (&STATED, 0),
    ] {
        let script = "ip link set lo up && exec \"$@\"";
        let mut asker = spawn_asker_in(&["unshare", "--net", "sh", "-c", script, "sh"], "falls");
        let pid = asker.id();
        // Once it has become the asker, it is in its own namespace.
        let start = Instant::now();
        while !fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|words| {
            words.contains("asker_in_disguise\0--nocapture") && !words.starts_with("sh")
        }) {
            assert!(start.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(5));
        }
        let tracer = place.live(capabilities, &["--pid", &pid.to_string()]);
        assert_lean(tracer.id(), kept);
        let mut stdin = asker.stdin.take().unwrap();
        stdin.write_all(b"..").unwrap();
        // Counted events are in the ring, which the tracer drains at exit.
        until("both have fallen back", || fallen_in(pid) >= 2);
        let output = end(tracer);
        drop(stdin);
        asker.wait().unwrap();
        let lines = json_lines(&output);
        assert_eq!(of_type(&lines, "fallback").len(), 2, "{}", stderr(&output));
        let netns = &of_type(&lines, "fallback")[0]["netns"];
        let end = of_type(&lines, "end").pop().unwrap();
        let accounts = end["reconciliation"].as_array().unwrap();
        let account = accounts.iter().find(|it| it["netns"] == *netns).unwrap();
        assert_eq!(account["agrees"], true, "{account}");
    }
}

#[test]
fn root_keeps_what_it_needs_later_and_its_command_keeps_everything() {
    if !may_trace("root_keeps_what_it_needs_later_and_its_command_keeps_everything") {
        return;
    }
    let own = PathBuf::from("/proc/self");
    let tracer = Background::start(&["--json", "--comm", "no-such-name"]);
    assert_lean(tracer.pid(), SYS_PTRACE);
    let process = PathBuf::from(format!("/proc/{}", tracer.pid()));
    assert_eq!(set_of(&process, "CapBnd"), 0);
    tracer.signal(Signal::INT);
    assert_eq!(tracer.output().status.code(), Some(0));

    // The command waits until the tracer has dropped its capabilities, then prints both sets.
    let script = "until grep -q '^NoNewPrivs:.1' /proc/$PPID/status; do sleep 0.01; done; \
                  grep -E '^(CapEff|NoNewPrivs)' /proc/self/status /proc/$PPID/status | sed 's/.*://'";
    let output = run(["--output", "/dev/null", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = said.split_whitespace().collect();
    let [command, command_nnp, tracer, tracer_nnp] = words[..] else {
        panic!("{said}");
    };
    let set = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
    assert_eq!(set(command), set_of(&own, "CapEff"));
    assert_eq!(set(tracer), (SYS_PTRACE | KILL) & set_of(&own, "CapPrm"));
    assert_eq!((command_nnp, tracer_nnp), ("0", "1"));
}

#[test]
fn a_command_that_changed_its_user_still_gets_the_signal_to_end() {
    if !may_trace("a_command_that_changed_its_user_still_gets_the_signal_to_end") {
        return;
    }
    let place = Place::new();
    let ready = place.path("ready");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"));
    command.args(["--ready-file", ready.to_str().unwrap(), "--"]);
    command.args(["setpriv", "--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED]);
    command.args(["--clear-groups", "sleep", "60"]);
    let tracer = command
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    wait_for(&ready);
    assert_lean(tracer.id(), SYS_PTRACE | KILL);
    until("the command is another user", || {
        let is_it = |status: String| {
            status.contains(&format!("\nPPid:\t{}\n", tracer.id()))
                && status.contains(&format!("\nUid:\t{UNPRIVILEGED}\t"))
        };
        fs::read_dir("/proc").unwrap().any(|process| {
            fs::read_to_string(process.unwrap().path().join("status")).is_ok_and(is_it)
        })
    });
    let start = Instant::now();
    kill_process(Pid::from_child(&tracer), Signal::TERM).unwrap();
    let status = tracer.wait_with_output().unwrap().status;
    assert_eq!(status.code(), Some(128 + Signal::TERM.as_raw()));
    assert!(start.elapsed() < PATIENCE);
}
