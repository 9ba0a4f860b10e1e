//! `mptcp-lab ask` on the running kernel: the answer of each socket, independent of any tracer.

#![expect(
    clippy::unwrap_used,
    reason = "what fails in a test is a failed test, in its helpers too"
)]

use std::{collections::BTreeMap, process::Command};

use mptcp_trace_lab::report::{Asked, AskerLine, Truth};

/// All answers of the running kernel; none if it cannot be queried, after printing the reason.
fn ask() -> Option<(BTreeMap<String, Asked>, BTreeMap<String, String>)> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root for a network namespace of its own");
        return None;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-lab"))
        .arg("ask")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("cannot make a network namespace") {
        println!("skipped: {stderr}");
        return None;
    }
    assert!(output.status.success(), "{stderr}");
    let mut asked = BTreeMap::new();
    let mut skipped = BTreeMap::new();
    for (number, line) in String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .enumerate()
    {
        match serde_json::from_str(line).unwrap() {
            AskerLine::Asked(line) => {
                let before = asked.insert(line.case.clone(), *line);
                assert!(before.is_none(), "two queries of one name: {before:?}");
            }
            AskerLine::Skipped { case, why } => {
                println!("line {number}: the case {case} is skipped: {why}");
                skipped.insert(case, why);
            }
        }
    }
    Some((asked, skipped))
}

/// Names of queries on TCP sockets, and on MPTCP sockets whose connection fell back, by a part of
/// the name; all other queries are on sockets that are still MPTCP.
const TCP: [&str; 4] = [
    "stripped-syn-server",
    "stripped-syn-ack-server",
    "stripped-ack-server",
    // Unusual queries, on each kind of socket.
    "-tcp",
];
const FALLEN: [&str; 8] = [
    "fallen-client",
    "fallen-self",
    "-after-",
    "fallen-server-its-client",
    "stripped-syn-client",
    "stripped-syn-ack-client",
    "disconnected-before",
    "-fallen",
];

/// `SO_PROTOCOL` of the socket in the query of this name, and whether the connection fell back.
fn holding(case: &str) -> (i32, bool) {
    if case.starts_with("tcp-") || TCP.iter().any(|part| case.contains(part)) {
        return (6, false);
    }
    (262, FALLEN.iter().any(|part| case.contains(part)))
}

#[test]
fn every_socket_is_told_what_its_kind_is_told() {
    let Some((asked, skipped)) = ask() else {
        return;
    };
    for why in skipped.values() {
        let named = ["CONFIG_TUN", "no MPTCP socket", "IA32 emulation is off"];
        assert!(named.iter().any(|name| why.contains(name)), "{why}");
    }
    let knows_the_option = asked
        .get("tcp-fresh-v4")
        .is_some_and(|line| line.truth != Truth::Unsupported);
    for (case, line) in &asked {
        if matches!(line.truth, Truth::OtherSocket | Truth::OtherOption) {
            continue;
        }
        let (protocol, fell_back) = holding(case);
        assert_eq!(line.so_protocol, Some(protocol), "{case}");
        assert_eq!(line.fell_back, fell_back, "{case}");
        if ["optlen-", "bad-"].iter().any(|odd| case.starts_with(odd)) {
            continue;
        }
        let still_mptcp = protocol == 262 && !fell_back;
        if !knows_the_option {
            let errno = if still_mptcp {
                "EOPNOTSUPP"
            } else {
                "ENOPROTOOPT"
            };
            assert_eq!(line.errno.as_deref(), Some(errno), "{case}");
            continue;
        }
        assert_eq!((line.rc, &line.errno), (0, &None), "{case}");
        let value = i32::from(still_mptcp).to_ne_bytes();
        assert_eq!(line.value_bytes, value, "{case}");
        assert_eq!(line.optlen_out, Some(4), "{case}");
    }
}

#[test]
fn odd_lengths_and_pointers_are_answered_as_the_kernel_does_it() {
    let Some((asked, _skipped)) = ask() else {
        return;
    };
    let knows_the_option = asked["tcp-fresh-v4"].truth != Truth::Unsupported;
    if !knows_the_option {
        println!("skipped: this kernel has no TCP_IS_MPTCP");
        return;
    }
    for (kind, value) in [("mptcp", 1_u8), ("fallen", 0), ("tcp", 0)] {
        let Some(first) = asked.get(&format!("optlen-0-{kind}")) else {
            println!("skipped: no socket of the kind {kind}");
            continue;
        };
        assert_eq!(
            (first.rc, first.value_bytes.len(), first.optlen_out),
            (0, 0, Some(0))
        );
        for length in 1..=3_u8 {
            let line = &asked[&format!("optlen-{length}-{kind}")];
            // MPTCP writes one byte and reports that length; TCP writes as many as there is room
            // for.
            let written = if kind == "mptcp" { 1 } else { length };
            assert_eq!(
                line.value_bytes,
                vec![value; usize::from(written)],
                "{line:?}"
            );
            assert_eq!(line.optlen_out, Some(i32::from(written)), "{line:?}");
        }
        let eight = &asked[&format!("optlen-8-{kind}")];
        assert_eq!(eight.value_bytes, i32::from(value).to_ne_bytes());
        assert_eq!(eight.optlen_out, Some(4));
        for (case, errno) in [
            (format!("optlen--1-{kind}"), "EINVAL"),
            (format!("bad-optval-{kind}"), "EFAULT"),
            (format!("bad-optlen-{kind}"), "EFAULT"),
        ] {
            assert_eq!(asked[&case].errno.as_deref(), Some(errno), "{case}");
        }
    }
}

#[test]
fn what_is_no_tcp_socket_fails_and_a_thread_is_not_its_process() {
    let Some((asked, _skipped)) = ask() else {
        return;
    };
    for (case, errno) in [
        ("other-udp", "EOPNOTSUPP"),
        // The IPv6 code returns another errno.
        ("other-udp-v6", "ENOPROTOOPT"),
        ("other-unix", "EOPNOTSUPP"),
        ("other-pipe", "ENOTSOCK"),
        ("other-file", "ENOTSOCK"),
        ("other-closed", "EBADF"),
    ] {
        assert_eq!(asked[case].errno.as_deref(), Some(errno), "{case}");
        assert_eq!(asked[case].truth, Truth::OtherSocket, "{case}");
    }
    let thread = &asked["thread-tcp"];
    assert_ne!(thread.pid, thread.tid);
    assert_eq!(asked["tcp-fresh-v4"].pid, asked["tcp-fresh-v4"].tid);
}

#[test]
fn a_case_that_there_is_not_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-lab"))
        .args(["ask", "--here", "--case", "optlen", "--case", "nonsense"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("cannot run the case nonsense"), "{stderr}");
}
