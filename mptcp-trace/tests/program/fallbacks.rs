//! Fallbacks on the running kernel, with the attach method that it supports.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{
    Background, PATIENCE, asker, json_lines, may_trace, of_type, run, scratch, spawn_asker,
    spawn_ready_asker, stderr, tracer, until,
};

const CAUSE: &str = "MPCapableFallbackSYNACK";

/// Lines of a type whose owner is this process.
fn owned_by(lines: &[Value], name: &str, pid: u32) -> Vec<Value> {
    of_type(lines, name)
        .into_iter()
        .filter(|line| line["owner"]["pid"] == pid)
        .collect()
}

#[test]
fn a_fallback_is_printed_with_its_cause_before_the_answer_that_it_explains() {
    if !may_trace("a_fallback_is_printed_with_its_cause_before_the_answer_that_it_explains") {
        return;
    }
    let (_dir, findings) = scratch("findings");
    let mut command = tracer();
    command.args(["-v", "--json", "--kind", "!path,!closed", "--output"]);
    let output = command
        .arg(&findings)
        .arg("--")
        .args(asker("basic"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = crate::common::parse_lines(&fs::read(&findings).unwrap());
    let types: Vec<&str> = lines
        .iter()
        .map(|it| it["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        ["start", "query", "fallback", "query", "query", "end"]
    );
    let fallback = &lines[2]["data"];
    assert_eq!(fallback["cause"], CAUSE);
    assert_eq!(
        (&fallback["side"], &fallback["stage"]),
        (&"active".into(), &"SYN/ACK".into())
    );
    let (before, after) = (&lines[1]["data"], &lines[3]["data"]);
    assert_eq!(before["id"], fallback["id"]);
    assert_eq!(after["id"], fallback["id"]);
    assert_eq!(fallback["owner"]["pid"], before["pid"]);
    assert_eq!(fallback["owner"]["via"], "connect");
    assert_eq!(fallback["local"], after["local"]);
    assert_eq!(fallback["remote"], after["remote"]);
    assert_eq!(fallback["inode"], after["inode"]);
    assert!(
        stderr(&output).contains("fallback: 1 printed"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_process_is_picked_by_what_belongs_to_it() {
    if !may_trace("a_process_is_picked_by_what_belongs_to_it") {
        return;
    }
    let mut wanted = spawn_asker("falls");
    let mut other = spawn_asker("falls");
    let (ours, theirs) = (wanted.id(), other.id());
    let tracer = Background::start(&["--json", "--pid", &ours.to_string()]);
    // The wanted process comes last, because its exit ends the run.
    for child in [&mut other, &mut wanted] {
        child.stdin.take().unwrap().write_all(b"...").unwrap();
        assert!(child.wait().unwrap().success());
    }
    let output = tracer.output();
    let lines = json_lines(&output);
    assert_eq!(owned_by(&lines, "fallback", ours).len(), 3);
    assert_eq!(owned_by(&lines, "fallback", theirs), [] as [Value; 0]);
    assert_eq!(of_type(&lines, "fallback").len(), 3);
    let end = of_type(&lines, "end").pop().unwrap();
    let filtered = end["losses"][1]["filtered"].as_u64().unwrap();
    assert!(filtered >= 3, "{end}");
    // Reconciliation covers the whole network namespace, whatever the filter. Other namespaces are
    // also listed if their counters differ, since other programs on this host may come and go.
    let netns = &of_type(&lines, "fallback")[0]["netns"];
    let accounts = end["reconciliation"].as_array().unwrap();
    let account = accounts.iter().find(|it| it["netns"] == *netns).unwrap();
    let traced = account["traced"][CAUSE].as_u64().unwrap_or(0);
    assert!(traced >= 6 && account["agrees"] == true, "{account}");
}

#[test]
fn sockets_open_before_tracing_are_printed_once_and_marked() {
    if !may_trace("sockets_open_before_tracing_are_printed_once_and_marked") {
        return;
    }
    let mut fresh = spawn_ready_asker("wait");
    let mut fallen = spawn_ready_asker("fallen");
    let pids = [fresh.id(), fallen.id()];
    let words = pids.map(|pid| pid.to_string());
    let tracer = Background::start(&["--json", "--pid", &words[0], "--pid", &words[1]]);
    for child in [&mut fresh, &mut fallen] {
        child.stdin.take().unwrap().write_all(b".").unwrap();
        child.wait().unwrap();
    }
    let lines = json_lines(&tracer.output());
    for (pid, fell_back, cause) in [(pids[0], false, Value::Null), (pids[1], true, CAUSE.into())] {
        let printed = owned_by(&lines, "existing", pid);
        let [printed] = &printed[..] else {
            panic!("{printed:?}")
        };
        assert_eq!(printed["fell_back"], fell_back);
        assert_eq!(printed["cause"], cause);
        assert_eq!(
            (&printed["existing"], &printed["owner"]["via"]),
            (&true.into(), &"existing".into())
        );
        // A later query refers to the same socket.
        let queries = of_type(&lines, "query");
        let query = queries.iter().find(|query| query["pid"] == pid).unwrap();
        assert_eq!(query["id"], printed["id"]);
    }
    // It fell back before the tracer started, so it is neither reported as a fallback nor counted.
    assert_eq!(of_type(&lines, "fallback"), [] as [Value; 0]);
}

#[test]
fn a_signal_asks_for_the_account_so_far_and_nothing_ends() {
    if !may_trace("a_signal_asks_for_the_account_so_far_and_nothing_ends") {
        return;
    }
    let mut child = spawn_asker("falls");
    let pid = child.id();
    let tracer = Background::start(&["-v", "--json", "--pid", &pid.to_string()]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b".").unwrap();
    until("the first fallback is printed", || {
        tracer.printed().contains("{\"type\":\"fallback\"")
    });
    tracer.signal(Signal::USR1);
    until("the account is said", || {
        tracer.said().contains("counters: kernel counted ")
    });
    stdin.write_all(b".").unwrap();
    drop(stdin);
    child.wait().unwrap();
    let output = tracer.output();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(owned_by(&json_lines(&output), "fallback", pid).len(), 2);
    let said = stderr(&output);
    for line in [
        "fallback: 1 printed",
        "fallback: 2 printed",
        "counters: kernel counted ",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn a_replay_prints_the_fallbacks_of_the_live_run() {
    if !may_trace("a_replay_prints_the_fallbacks_of_the_live_run") {
        return;
    }
    let (_dir, capture) = scratch("run.mpt");
    let mut child = spawn_asker("falls");
    let words = ["--json", "--pid", &child.id().to_string(), "--capture"];
    let tracer = Background::start(&[&words[..], &[capture.to_str().unwrap()]].concat());
    child.stdin.take().unwrap().write_all(b"..").unwrap();
    child.wait().unwrap();
    let live = String::from_utf8(tracer.output().stdout).unwrap();
    let replayed = run(["replay", "-v", "--json", capture.to_str().unwrap()]);
    assert_eq!(replayed.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&replayed.stdout),
        live.replace("\"source\":\"live\"", "\"source\":\"replay\"")
    );
    assert!(
        stderr(&replayed).contains("fallback: 2 printed"),
        "{}",
        stderr(&replayed)
    );
}

#[test]
fn the_demo_shows_a_real_fallback_of_both_ends() {
    if !may_trace("the_demo_shows_a_real_fallback_of_both_ends") {
        return;
    }
    let output = run(["demo", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = json_lines(&output);
    let fallbacks = of_type(&lines, "fallback");
    let mut sides: Vec<(&str, &str)> = fallbacks
        .iter()
        .map(|line| {
            (
                line["side"].as_str().unwrap(),
                line["cause"].as_str().unwrap(),
            )
        })
        .collect();
    sides.sort_unstable();
    assert_eq!(
        sides,
        [("active", "DssFallback"), ("passive", "DssFallback")]
    );
    let answers: Vec<Value> = of_type(&lines, "query")
        .into_iter()
        .map(|line| line["fell_back"].clone())
        .collect();
    assert_eq!(answers, [false, false, true, true].map(Value::from));
}

#[test]
fn a_demo_that_is_killed_leaves_nothing_behind() {
    if !may_trace("a_demo_that_is_killed_leaves_nothing_behind") {
        return;
    }
    // The demo's children inherit this variable; other demos on this host do not have it.
    const MARK: &str = "MPTCP_TRACE_TEST_DEMO";
    let mark = std::process::id().to_string();
    let marked = format!("{MARK}={mark}\0");
    let scenes = || -> Vec<String> {
        fs::read_dir("/proc")
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|process| {
                fs::read(process.join("environ"))
                    .is_ok_and(|it| String::from_utf8_lossy(&it).contains(&marked))
            })
            .filter_map(|process| fs::read_to_string(process.join("cmdline")).ok())
            .filter(|words| !words.is_empty())
            .collect()
    };
    for milliseconds in [50, 150, 300] {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"))
            .arg("demo")
            .env(MARK, &mark)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        demo.kill().unwrap();
        demo.wait().unwrap();
        // Its namespaces live as long as the process that plays, which ends by itself.
        let start = Instant::now();
        while !scenes().is_empty() {
            assert!(start.elapsed() < PATIENCE, "{:?}", scenes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let devices = fs::read_to_string("/proc/net/dev").unwrap();
    assert!(!devices.contains("lab0"), "{devices}");
}
