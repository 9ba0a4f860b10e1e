//! The program in a PID namespace, and processes in one.

use std::process::Command;

use crate::{
    common::{asker, json_lines, may_trace, of_type, stderr},
    live::traced_by,
};

/// Runs its arguments in a new PID namespace, with a /proc of its own.
fn in_a_pid_namespace() -> Command {
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--mount-proc"]);
    inside
}

#[test]
fn it_works_from_inside_a_pid_namespace() {
    if !may_trace("it_works_from_inside_a_pid_namespace") {
        return;
    }
    let trace = |role: &str| {
        let mut inside = in_a_pid_namespace();
        inside.arg(env!("CARGO_BIN_EXE_mptcp-trace"));
        let output = traced_by(inside, &["--json"], role);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        of_type(&json_lines(&output), "query").len()
    };
    assert_eq!(trace("flood 2"), 2);
    assert_eq!(trace("child"), 1);
}

/// Process ids are those of the tracer's PID namespace, as in `--pid` and `/proc`, also for a
/// process in a nested one.
#[test]
fn a_process_has_the_number_of_the_pid_namespace_that_the_tracer_stands_in() {
    if !may_trace("a_process_has_the_number_of_the_pid_namespace_that_the_tracer_stands_in") {
        return;
    }
    for deeper in [false, true] {
        let mut inside = in_a_pid_namespace();
        inside.args([
            env!("CARGO_BIN_EXE_mptcp-trace"),
            "--json",
            "--follow",
            "--",
        ]);
        if deeper {
            // It sees the `/proc` of the tracer's namespace.
            inside.args(["unshare", "--pid", "--fork"]);
        }
        let says_who = "read pid rest </proc/self/stat; echo \"it is $pid\" >&2; exec \"$@\" >&2 <<EOF\n.\nEOF";
        inside.args(["sh", "-c", says_who, "-"]);
        inside.args(asker("fallen"));
        let output = inside.output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let pid = said.lines().find_map(|line| line.strip_prefix("it is "));
        let pid: u64 = pid.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
        let lines = json_lines(&output);
        let queries = of_type(&lines, "query");
        let fallbacks = of_type(&lines, "fallback");
        let owners = fallbacks.iter().map(|fallback| &fallback["owner"]);
        let mut count = 0;
        for process in queries.iter().chain(owners) {
            let number = |name: &str| process[name].as_u64().unwrap();
            assert_eq!(number("pid"), pid);
            assert!(number("tid") >= pid);
            assert_ne!(number("host_pid"), pid);
            assert!(number("host_tid") >= number("host_pid"));
            count += 1;
        }
        assert!(count > queries.len() && !queries.is_empty(), "{lines:?}");
    }
}

/// In a PID namespace, the tracer reports that it cannot see processes outside.
#[test]
fn in_a_pid_namespace_it_says_that_others_are_not_listed() {
    if !may_trace("in_a_pid_namespace_it_says_that_others_are_not_listed") {
        return;
    }
    let inside = |word: &str| {
        let mut inside = in_a_pid_namespace();
        inside.arg(env!("CARGO_BIN_EXE_mptcp-trace")).arg(word);
        let output = inside.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
    };
    for verb in ["list", "doctor"] {
        let said = inside(verb);
        assert!(
            said.contains("outside of this PID namespace are not listed"),
            "{said}"
        );
    }
}

/// The same for sockets that already existed.
#[test]
fn sockets_are_listed_with_the_numbers_of_the_pid_namespace_that_the_tracer_stands_in() {
    if !may_trace("sockets_are_listed_with_the_numbers_of_the_pid_namespace") {
        return;
    }
    let script = "tracer=$1; shift; sleep 60 | \"$@\" >&2 & pid=$!; sleep 2; \
        echo \"it is $pid\" >&2; \"$tracer\" list --json --pid $pid";
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    inside.args(["sh", "-c", script, "-", env!("CARGO_BIN_EXE_mptcp-trace")]);
    inside.args(asker("wait"));
    let output = inside.output().unwrap();
    let said = stderr(&output);
    let pid = said.lines().find_map(|line| line.strip_prefix("it is "));
    let pid: u64 = pid.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
    let lines = json_lines(&output);
    let sockets = of_type(&lines, "socket");
    assert_eq!(sockets.len(), 1, "{said}{lines:?}");
    assert_eq!(sockets[0]["owner"]["pid"], pid);
    assert_ne!(sockets[0]["owner"]["host_pid"].as_u64().unwrap(), pid);
}
