//! What ends a run, what it outlives, and what it leaves behind.

use std::{
    fs,
    process::{Command, Stdio},
    time::Instant,
};

use rustix::process::Signal;

use crate::{
    common::{
        Background, asker, assert_orderly, json_lines, may_trace, of_type, run, scratch,
        spawn_asker, stderr, tracer, until,
    },
    live::{identity_holds, loaded},
};

#[test]
fn it_stops_by_time_by_count_and_by_signal_and_closes_the_books() {
    if !may_trace("it_stops_by_time_by_count_and_by_signal_and_closes_the_books") {
        return;
    }
    let output = run(["-v", "--duration", "0.2s", "--comm", "no-such-name"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output).contains("query: 0 printed"),
        "{}",
        stderr(&output)
    );

    let mut asking = spawn_asker("forever");
    let pid = asking.id().to_string();
    let output = run(["--json", "--pid", &pid, "--stop-after", "3"]);
    assert_eq!(output.status.code(), Some(0));
    let lines = json_lines(&output);
    // The first finding may be the existing socket, if the tracer lists it before the first query.
    let findings = ["query", "existing"].map(|kind| of_type(&lines, kind).len());
    assert_eq!(findings[0] + findings[1], 3, "{lines:?}");
    assert_eq!(of_type(&lines, "end")[0]["findings"], 3);

    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let tracer = Background::start(&["--json", "--pid", &pid]);
        until("a query is printed", || {
            tracer.printed().contains("{\"type\":\"query\"")
        });
        tracer.signal(signal);
        let output = tracer.output();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{signal:?}: {}",
            stderr(&output)
        );
        let lines = json_lines(&output);
        assert!(!of_type(&lines, "query").is_empty());
        identity_holds(&lines);
        assert!(stderr(&output).contains(" lost"), "{}", stderr(&output));
    }
    asking.kill().unwrap();
    asking.wait().unwrap();
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    if !may_trace("a_reader_that_goes_away_ends_it_quietly") {
        return;
    }
    let mut asking = spawn_asker("forever");
    let pid = asking.id().to_string();
    let mut tracing = tracer()
        .args(["--pid", &pid])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut head = Command::new("head")
        .arg("-1")
        .stdin(tracing.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(head.wait().unwrap().success());
    let output = tracing.wait_with_output().unwrap();
    asking.kill().unwrap();
    asking.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_orderly(&output);
}

#[test]
fn the_host_is_left_as_found() {
    if !may_trace("the_host_is_left_as_found") {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let tracer = Background::start(&["--comm", "no-such-name"]);
    let ids = tracer.program_ids();
    assert!(!ids.is_empty());
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    // Not even SIGKILL leaves anything behind.
    tracer.signal(Signal::KILL);
    assert_eq!(tracer.output().status.code(), None);
    let start = Instant::now();
    while loaded().any(|info| ids.contains(&info.id())) {
        assert!(
            start.elapsed() < crate::common::PATIENCE,
            "BPF programs stay behind"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// As with `logrotate`: the file is moved away, and the tracer gets a signal.
#[test]
fn its_output_can_be_moved_away_and_is_reopened_on_a_signal() {
    if !may_trace("its_output_can_be_moved_away_and_is_reopened_on_a_signal") {
        return;
    }
    let (_dir, output) = scratch("findings");
    let moved = output.with_extension("1");
    // A new session has no terminal.
    let ready = output.with_extension("ready");
    let mut tracing = Command::new("setsid")
        .args([
            "--wait",
            "env",
            "--default-signal=HUP",
            env!("CARGO_BIN_EXE_mptcp-trace"),
            "--json",
            "-o",
        ])
        .arg(&output)
        .arg("--ready-file")
        .arg(&ready)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    crate::common::wait_for(&ready);
    let pid = fs::read_to_string(&ready).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let lines =
        |file: &std::path::Path| fs::read_to_string(file).unwrap_or_default().lines().count();
    for signal in [Signal::USR2, Signal::HUP] {
        fs::rename(&output, &moved).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        until("the file is made anew", || output.exists());
        let before = lines(&moved);
        until("something is found", || {
            let words = asker("flood 1");
            let asked = Command::new(&words[0]).args(&words[1..]).output().unwrap();
            assert!(asked.status.success(), "{asked:?}");
            lines(&output) > 0
        });
        assert_eq!(lines(&moved), before, "{signal:?}");
        let ends = fs::read_to_string(&moved).unwrap();
        assert!(ends.is_empty() || ends.ends_with("\n"), "{ends}");
    }
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    assert_eq!(tracing.wait().unwrap().code(), Some(0));
}

#[test]
fn it_outlives_its_terminal_when_sighup_is_ignored() {
    if !may_trace("it_outlives_its_terminal_when_sighup_is_ignored") {
        return;
    }
    let (_dir, ready) = scratch("ready");
    let bin = env!("CARGO_BIN_EXE_mptcp-trace");
    let script = format!(
        "trap '' HUP; exec {bin} --comm no-such-name --ready-file {}",
        ready.display()
    );
    let mut tracing = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    crate::common::wait_for(&ready);
    let pid = rustix::process::Pid::from_child(&tracing);
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(tracing.try_wait().unwrap().is_none(), "it took the hangup");
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    assert_eq!(tracing.wait().unwrap().code(), Some(0));
}
