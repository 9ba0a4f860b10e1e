//! The program on the running kernel, with the attach method that it supports.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::Instant,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{
    Background, asker, json_lines, may_trace, of_type, run, scratch, spawn_asker, stderr, tracer,
};

/// Traces an asker. `stdout` holds the findings, without the asker's own output.
pub(crate) fn traced(options: &[&str], role: &str) -> std::process::Output {
    traced_by(tracer(), options, role)
}

pub(crate) fn traced_by(mut tracer: Command, options: &[&str], role: &str) -> std::process::Output {
    let (_dir, findings) = scratch("findings");
    let mut output = tracer
        .args(options)
        .arg("--output")
        .arg(&findings)
        .arg("--")
        .args(asker(role))
        .output()
        .unwrap();
    output.stdout = fs::read(&findings).unwrap_or_default();
    output
}

pub(crate) fn identity_holds(lines: &[Value]) {
    let end = of_type(lines, "end").pop().unwrap();
    let mut incomplete = 0;
    for loss in end["losses"].as_array().unwrap() {
        let count = |name: &str| loss[name].as_u64().unwrap();
        let lost =
            count("ring_full") + count("faulted") + count("table_full") + count("unfinished");
        assert_eq!(
            count("seen"),
            count("emitted") + count("filtered") + count("capped") + lost,
            "{loss}"
        );
        incomplete +=
            lost + count("capped") + count("missed") + count("unfollowed") + count("over_share");
    }
    assert_eq!(end["complete"], incomplete == 0, "{end}");
}

#[test]
fn a_program_is_traced_from_its_first_instruction() {
    if !may_trace("a_program_is_traced_from_its_first_instruction") {
        return;
    }
    let output = traced(&["--json"], "basic");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = json_lines(&output);
    assert_eq!(lines[0]["type"], "start");
    let queries = of_type(&lines, "query");
    let printed: Vec<(&str, &str, bool, &str)> = queries
        .iter()
        .map(|query| {
            (
                query["protocol"].as_str().unwrap(),
                query["answer"].as_str().unwrap_or("null"),
                query["fell_back"].as_bool().unwrap(),
                query["state"].as_str().unwrap(),
            )
        })
        .collect();
    let knows = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(
        printed,
        [
            ("mptcp", "mptcp", false, "CLOSE"),
            ("mptcp", "tcp", true, "ESTABLISHED"),
            ("tcp", "tcp", false, "LISTEN")
        ],
        "on {knows}"
    );
    assert_eq!(queries[1]["remote"], queries[2]["local"]);
    assert_ne!(queries[1]["socket"], queries[2]["socket"]);
    identity_holds(&lines);
}

#[test]
fn a_program_not_written_here_is_seen_right() {
    let name = "a_program_not_written_here_is_seen_right";
    if !may_trace(name) {
        return;
    }
    let script = "import socket\n\
        m = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\n\
        print(m.getsockopt(6, 43), m.fileno())\n\
        t = socket.socket(socket.AF_INET6)\n\
        print(t.getsockopt(6, 43), t.fileno())\n";
    if Command::new("python3").arg("-c").arg("0").output().is_err() {
        println!("skipped: {name} needs python3");
        return;
    }
    let (_dir, file) = scratch("lines");
    let output = run([
        "--json",
        "-o",
        file.to_str().unwrap(),
        "--",
        "python3",
        "-c",
        script,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1 3\n0 4\n",
        "the answers to python3"
    );
    let lines = crate::common::parse_lines(&fs::read(&file).unwrap());
    let queries = of_type(&lines, "query");
    assert_eq!(queries.len(), 2);
    for (query, (answer, family)) in queries.iter().zip([("mptcp", "ipv4"), ("tcp", "ipv6")]) {
        assert_eq!(query["answer"], answer);
        assert_eq!(query["family"], family);
        assert_eq!(query["comm"], "python3");
        assert_eq!(query["uid"], 0);
        assert_eq!(query["pid"], query["tid"]);
    }
}

#[test]
fn the_commands_exit_code_is_ours() {
    if !may_trace("the_commands_exit_code_is_ours") {
        return;
    }
    assert_eq!(traced(&[], "exit 42").status.code(), Some(42));
    assert_eq!(
        run(["--", "sh", "-c", "kill -TERM $$"]).status.code(),
        Some(128 + 15)
    );
    let output = run(["--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(
        stderr(&output).contains("cannot run no-such-program"),
        "{}",
        stderr(&output)
    );
    assert_eq!(run(["--", "/etc/passwd"]).status.code(), Some(126));
}

#[test]
fn one_process_is_picked_out_of_many_with_all_its_threads() {
    if !may_trace("one_process_is_picked_out_of_many_with_all_its_threads") {
        return;
    }
    let mut wanted = spawn_asker("wait");
    let mut other = spawn_asker("wait");
    let pid = wanted.id().to_string();
    let tracer = Background::start(&["--json", "--pid", &pid]);
    for _ in 0..2 {
        for asker in [&mut other, &mut wanted] {
            asker.stdin.as_mut().unwrap().write_all(b"12").unwrap();
        }
    }
    drop((wanted.stdin.take(), other.stdin.take()));
    wanted.wait().unwrap();
    other.wait().unwrap();
    // The only traced process has exited, so the tracer exits too.
    let output = tracer.output();
    assert_eq!(output.status.code(), Some(0));
    let lines = json_lines(&output);
    let queries = of_type(&lines, "query");
    assert_eq!(queries.len(), 4);
    assert!(
        queries.iter().all(|query| query["pid"] == wanted.id()),
        "{queries:?}"
    );
    identity_holds(&lines);

    let lines = json_lines(&traced(&["--json"], "threads"));
    let queries = of_type(&lines, "query");
    assert_eq!(queries.len(), 1);
    assert_ne!(queries[0]["pid"], queries[0]["tid"]);
}

#[test]
fn children_are_followed_when_asked_and_only_then() {
    if !may_trace("children_are_followed_when_asked_and_only_then") {
        return;
    }
    for (options, want) in [(&["--json"][..], 0), (&["--json", "--follow"], 1)] {
        // A shell that waits for input, so that the tracer is live before the child starts.
        let words = asker("flood 1").map(|word| format!("'{word}'")).join(" ");
        let mut shell = Command::new("sh")
            .args(["-c", &format!("read go; {words}; true")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = shell.id().to_string();
        let tracer = Background::start(&[options, &["--pid", &pid]].concat());
        shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
        shell.wait().unwrap();
        let output = tracer.output();
        assert_eq!(
            of_type(&json_lines(&output), "query").len(),
            want,
            "{options:?}"
        );
    }
    // A command's children are always followed.
    let lines = json_lines(&traced(&["--json"], "child"));
    assert_eq!(of_type(&lines, "query").len(), 1);
}

#[test]
fn thread_names_and_namespaces_are_filtered_in_the_kernel() {
    if !may_trace("thread_names_and_namespaces_are_filtered_in_the_kernel") {
        return;
    }
    // The filtered count covers the whole host, including the queries of other tests: only a lower
    // bound can be asserted.
    let count = |options: &[&str], role: &str| {
        let lines = json_lines(&traced(options, role));
        identity_holds(&lines);
        let end = of_type(&lines, "end").pop().unwrap();
        (
            of_type(&lines, "query").len(),
            end["losses"][0]["filtered"].as_u64().unwrap(),
        )
    };
    let printed = |options: &[&str], role: &str| count(options, role).0;
    assert_eq!(printed(&["--json", "--comm", "alice"], "name alice"), 1);
    assert_eq!(
        printed(&["--json", "--comm", "alice", "--comm", "bob"], "name bob"),
        1
    );
    let (queries, filtered) = count(&["--json", "--comm", "alice"], "name bob");
    assert_eq!(queries, 0);
    assert!(filtered >= 1);
    assert_eq!(
        printed(&["--json", "--netns", "/proc/self/ns/net"], "flood 3"),
        3
    );
    let (queries, filtered) = count(&["--json", "--netns", "1"], "flood 3");
    assert_eq!(queries, 0);
    assert!(filtered >= 3);
}

#[test]
fn a_replay_prints_what_the_live_run_printed() {
    if !may_trace("a_replay_prints_what_the_live_run_printed") {
        return;
    }
    let (_dir, capture) = scratch("run.mpt");
    let output = traced(&["--json", "--capture", capture.to_str().unwrap()], "basic");
    assert_eq!(output.status.code(), Some(0));
    let live = String::from_utf8(output.stdout).unwrap();
    let replayed = run(["replay", "--json", capture.to_str().unwrap()]);
    assert_eq!(replayed.status.code(), Some(0));
    let replayed = String::from_utf8_lossy(&replayed.stdout).into_owned();
    assert_eq!(
        replayed,
        live.replace("\"source\":\"live\"", "\"source\":\"replay\"")
    );
}

#[test]
fn a_full_ring_is_counted_to_the_last_query() {
    if !may_trace("a_full_ring_is_counted_to_the_last_query") {
        return;
    }
    const QUERIES: u64 = 100_000;
    let output = traced(
        &["--json", "--ring-size", "4K", "--cap", "0"],
        &format!("flood {QUERIES}"),
    );
    assert_eq!(output.status.code(), Some(0));
    let lines = json_lines(&output);
    identity_holds(&lines);
    let end = of_type(&lines, "end").pop().unwrap();
    let loss = &end["losses"][0];
    let printed = of_type(&lines, "query").len() as u64;
    assert_eq!(loss["emitted"], printed);
    assert_eq!(
        printed + loss["ring_full"].as_u64().unwrap(),
        QUERIES,
        "{loss}"
    );
    assert!(
        loss["ring_full"].as_u64().unwrap() > 0,
        "the ring was never full: {loss}"
    );
}

#[test]
fn a_process_that_asks_too_often_is_capped_and_counted_and_can_be_coalesced() {
    if !may_trace("a_process_that_asks_too_often_is_capped_and_counted_and_can_be_coalesced") {
        return;
    }
    const QUERIES: u64 = 50_000;
    const CAP: u64 = 1000;
    let flood = format!("flood {QUERIES}");
    for (options, is_coalesced) in [
        (&["--json", "--cap", "1000"][..], false),
        (&["--json", "--cap", "1000", "--coalesce"], true),
    ] {
        let start = Instant::now();
        let output = traced(options, &flood);
        // A run of less than N + 1 seconds overlaps at most N + 2 seconds of the clock.
        let seconds = start.elapsed().as_secs() + 2;
        let lines = json_lines(&output);
        identity_holds(&lines);
        let end = of_type(&lines, "end").pop().unwrap();
        let count = |name: &str| end["losses"][0][name].as_u64().unwrap();
        let emitted = CAP..=seconds * CAP;
        assert!(emitted.contains(&count("emitted")), "{emitted:?}: {end}");
        assert_eq!(count("emitted") + count("capped"), QUERIES, "{end}");
        assert_eq!(end["complete"], false);
        let said = format!(" + {} capped (--cap) + 0 lost", count("capped"));
        assert!(stderr(&output).contains(&said), "{}", stderr(&output));
        let printed = of_type(&lines, "query").len() as u64;
        let coalesced = end["coalesced"].as_u64().unwrap();
        assert_eq!(printed + coalesced, count("emitted"), "{end}");
        assert_eq!(printed == 1, is_coalesced, "{end}");
    }
    let output = traced(&["--json", "--cap", "0"], "flood 5000");
    let end = of_type(&json_lines(&output), "end").pop().unwrap();
    assert_eq!(end["losses"][0]["capped"], 0, "{end}");
}

#[test]
fn the_doctor_proves_a_working_sensor_and_notices_a_silent_one() {
    if !may_trace("the_doctor_proves_a_working_sensor_and_notices_a_silent_one") {
        return;
    }
    let output = run(["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["works"], true);
    let sensor = &report["sensors"][0];
    assert_eq!(sensor["canary"]["asked"], sensor["canary"]["seen"]);
    assert!(sensor["rung"].is_string());

    let rung = sensor["rung"].as_str().unwrap();
    let broken = run(["doctor", "--json", "--break-sensor", "--attach", rung]);
    assert_eq!(broken.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&broken.stdout).unwrap();
    assert_eq!(report["works"], false);
    let why = report["refusal"].as_str().unwrap();
    assert!(why.contains("attached, but it does not work"), "{why}");
    let text = run(["doctor", "--break-sensor", "--attach", rung]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("NOT RUNNING"));
}

#[test]
fn bpf_programs_log_only_at_the_second_verbose() {
    if !may_trace("bpf_programs_log_only_at_the_second_verbose") {
        return;
    }
    for (options, talks) in [(&["-vv"][..], true), (&["-v"], false), (&[], false)] {
        let output = traced(options, "flood 1");
        assert_eq!(
            stderr(&output).contains("returned 0"),
            talks,
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn debug_messages_cost_nothing_unless_requested() {
    if !may_trace("debug_messages_cost_nothing_unless_requested") {
        return;
    }
    // Size of the largest program after verification, in bytes.
    let sizes = |option: &[&str]| -> u32 {
        let tracer = Background::start(&[option, &["--comm", "no-such-name"]].concat());
        let ids = tracer.program_ids();
        let mine = loaded().filter(|info| ids.contains(&info.id()));
        let size = mine
            .map(|info| info.size_translated().unwrap_or(0))
            .max()
            .unwrap();
        tracer.signal(Signal::INT);
        assert_eq!(tracer.output().status.code(), Some(0));
        size
    };
    let (quiet, talking) = (sizes(&[]), sizes(&["-vv"]));
    assert!(
        quiet > 0 && quiet < talking,
        "{quiet} bytes without, {talking} with messages"
    );
}

/// All loaded programs of mptcp-trace, including those of other tests.
pub(crate) fn loaded() -> impl Iterator<Item = aya::programs::ProgramInfo> {
    let ours = |info: &aya::programs::ProgramInfo| {
        info.name_as_str()
            .is_some_and(|name| name.starts_with("query_"))
    };
    aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .filter(ours)
}

#[test]
fn every_cause_is_a_counter_of_the_kernel_or_of_a_newer_one() {
    let Ok(netstat) = fs::read_to_string("/proc/net/netstat") else {
        println!("skipped: every_cause_is_a_counter needs /proc/net/netstat");
        return;
    };
    let listed = run(["explain"]);
    assert_eq!(listed.status.code(), Some(0));
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names: Vec<&str> = netstat
        .lines()
        .find_map(|line| line.strip_prefix("MPTcpExt: "))
        .map(|line| line.split(' ').collect())
        .unwrap_or_default();
    // Every counter of this kernel whose name contains `Fallback` must be explained.
    for name in names.iter().filter(|name| name.contains("Fallback")) {
        assert!(listed.contains(name), "{name} is not explained");
        let page = run(["explain", name]);
        assert!(
            String::from_utf8_lossy(&page.stdout).starts_with(name),
            "{name}"
        );
    }
    let unknown = run(["explain", "NoSuchCause"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn the_account_says_what_became_of_the_connections_of_a_command() {
    if !may_trace("the_account_says_what_became_of_the_connections_of_a_command") {
        return;
    }
    for (role, sentence, counts) in [
        ("exit 0", "mptcp-trace: no MPTCP connection\n", [0, 0, 0]),
        (
            "fall 3",
            "mptcp-trace: 3 connections: 3 fell back\n",
            [3, 0, 3],
        ),
        // Both ends are in the command.
        (
            "joined",
            "mptcp-trace: 2 connections: 2 MPTCP to the end\n",
            [2, 2, 0],
        ),
    ] {
        let output = traced(&["--json", "--kind", "query"], role);
        let said = stderr(&output);
        assert!(said.contains(sentence), "{role}: {said}");
        let lines = json_lines(&output);
        let end = of_type(&lines, "end").pop().unwrap();
        let found =
            ["closed", "mptcp", "fell_back"].map(|it| end["connections"][it].as_u64().unwrap());
        assert_eq!(found, counts, "{role}: {end}");
        // No line says so: other kinds were wanted.
        assert!(of_type(&lines, "closed").is_empty(), "{role}");
    }
}
