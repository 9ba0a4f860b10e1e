//! Replays captures of real kernels without privileges: their output must not change.
//!
//! The JSON lines beside `fallbacks.mpt` and `verdicts.mpt` are the output of the live run. `cargo
//! xtask captures` wrote them, and rejects a capture whose replay prints anything else. A replay
//! that matches the file therefore matches the live run.
//!
//! `UPDATE_GOLDENS=1 cargo test -p mptcp-trace --test goldens` replaces the expected output by that
//! of a replay. After a change of the output there is no live run to compare with until the
//! captures are recorded again. Review the diff before you commit it.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Seven with queries, ten with fallbacks, ten with verdicts.
const CAPTURES_MIN: usize = 27;

fn captures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures");
    let within = |folder: PathBuf| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path())
    };
    let mut captures: Vec<PathBuf> = within(root)
        .filter(|path| path.is_dir())
        .flat_map(within)
        .filter(|path| path.extension().is_some_and(|it| it == "mpt"))
        .collect();
    captures.sort();
    assert!(captures.len() >= CAPTURES_MIN, "where are the captures?");
    captures
}

fn replay(capture: &Path, how: &str) -> String {
    // The lines about paths that work are printed on request.
    let kinds: &[&str] = match capture.file_stem().unwrap().to_str() {
        Some("paths") => &["--kind", "all"],
        _ => &[],
    };
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"))
        .args(["replay", how])
        .args(kinds)
        .arg(capture)
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn replays_print_what_they_always_printed() {
    for capture in captures() {
        for (how, extension) in [("--json", "jsonl"), ("--utc", "txt")] {
            let printed = replay(&capture, how);
            assert_eq!(printed, replay(&capture, how), "two replays differ");
            let golden = capture.with_extension(extension);
            if std::env::var_os("UPDATE_GOLDENS").is_some() {
                fs::write(&golden, &printed).unwrap();
            }
            let expected = fs::read_to_string(&golden).unwrap();
            assert_eq!(printed, expected, "{}", golden.display());
        }
    }
}

#[test]
fn a_report_is_the_page_that_it_always_was() {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures/sessions/program.mpt");
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"))
        .args(["report", "--utc", "-o", "-"])
        .arg(&capture)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8(output.stdout).unwrap();
    let golden = capture.with_extension("html");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&golden, &printed).unwrap();
    }
    assert!(
        printed == fs::read_to_string(&golden).unwrap(),
        "the page of {} is another: compare with `mptcp-trace report --utc`",
        golden.display()
    );
}

/// Returns every object in a line, at any depth.
fn objects(value: &Value) -> Vec<&serde_json::Map<String, Value>> {
    match value {
        Value::Object(object) => std::iter::once(object)
            .chain(object.values().flat_map(objects))
            .collect(),
        Value::Array(values) => values.iter().flat_map(objects).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// A capture contains processes of the lab only, even if others ran on the host.
#[test]
fn captures_contain_only_processes_of_the_lab() {
    let is_of_lab = |comm: &str| {
        ["lab-", "mptcp-lab", "python3"]
            .iter()
            .any(|name| comm.starts_with(name))
    };
    // The task that runs when a packet arrives may also be a kernel thread, or the tracer.
    let may_run = |comm: &str| {
        [
            "swapper/",
            "ksoftirqd/",
            "kworker/",
            "rcu_",
            "migration/",
            "mptcp-trace",
        ]
        .iter()
        .any(|name| comm.starts_with(name))
    };
    let is_address_of_lab = |addr: &str| {
        let v4 = addr.strip_prefix("::ffff:").unwrap_or(addr);
        [
            "10.77.0.1",
            "10.77.0.2",
            "10.78.0.1",
            "10.78.0.2",
            "10.77.1.1",
            "10.77.5.2",
            "fd77::1",
            "fd77::2",
            "127.0.0.1",
            "0.0.0.0",
            "::",
            "::1",
        ]
        .contains(&v4)
    };
    for capture in captures() {
        for line in replay(&capture, "--json").lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let current = line["data"]["current"]["comm"].as_str();
            for object in objects(&line) {
                if let Some(comm) = object.get("comm").and_then(Value::as_str) {
                    let is_known = is_of_lab(comm) || (Some(comm) == current && may_run(comm));
                    assert!(is_known, "{comm} in {}: {line}", capture.display());
                }
                if let Some(addr) = object.get("addr").and_then(Value::as_str) {
                    let file = capture.display();
                    assert!(is_address_of_lab(addr), "{addr} in {file}: {line}");
                }
                if let Some(cgroup) = object.get("cgroup").and_then(Value::as_str) {
                    let is_anonymous = cgroup == "/" || cgroup.starts_with("/lab");
                    assert!(is_anonymous, "{cgroup} in {}: {line}", capture.display());
                }
            }
        }
    }
}

/// The attach method does not change the answers that a program received.
#[test]
fn the_rungs_of_one_kernel_saw_the_same() {
    let printed = |capture: &Path| -> Vec<String> {
        replay(capture, "--json")
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["type"] == "query")
            .map(|line| {
                let field = |name: &str| line["data"][name].to_string();
                let fields = [
                    "answer",
                    "errno",
                    "fell_back",
                    "protocol",
                    "family",
                    "state",
                ];
                fields.map(field).join(" ")
            })
            .collect()
    };
    for kernel in ["6.1", "6.12"] {
        let of = |rung: &str| {
            let folder = format!("../captures/{kernel}-{rung}/queries.mpt");
            printed(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        };
        let fexit = of("fexit");
        assert_eq!(fexit.len(), 44);
        assert_eq!(fexit, of("kprobe"), "{kernel}");
        assert_eq!(fexit, of("tracepoint"), "{kernel}");
    }
}

/// The attach method does not change verdicts, closing verdicts and refusals.
#[test]
fn the_rungs_of_one_kernel_concluded_the_same() {
    let printed = |kernel: &str, rung: &str| -> Vec<String> {
        let capture = format!("../captures/{kernel}-{rung}/verdicts.mpt");
        let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join(capture);
        let is_conclusion = |line: &Value| {
            ["query", "verdict", "option_refused", "socket_refused"]
                .iter()
                .any(|it| line["type"] == *it)
        };
        let mut printed: Vec<String> = replay(&capture, "--json")
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(is_conclusion)
            .map(|line| {
                let field = |name: &str| line["data"][name].to_string();
                let fields = [
                    "comm", "api", "answer", "errno", "verdict", "cause", "call", "level",
                    "optname",
                ];
                format!("{} {}", line["type"], fields.map(field).join(" "))
            })
            .collect();
        printed.sort();
        printed
    };
    for kernel in ["6.1", "6.12", "7.3"] {
        let fexit = printed(kernel, "fexit");
        assert!(fexit.len() >= 50, "{fexit:?}");
        assert_eq!(fexit, printed(kernel, "kprobe"), "{kernel}");
        assert_eq!(fexit, printed(kernel, "tracepoint"), "{kernel}");
    }
}

/// The attach method does not change the reported causes, except where it documents that it cannot
/// read them.
#[test]
fn the_rungs_of_one_kernel_saw_the_same_fallbacks() {
    let printed = |kernel: &str, rung: &str| -> Vec<String> {
        let folder = format!("../captures/{kernel}-{rung}/fallbacks.mpt");
        let mut printed: Vec<String> = replay(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            "--json",
        )
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| {
            ["fallback", "plain", "blackhole"]
                .iter()
                .any(|it| line["type"] == *it)
        })
        .map(|line| {
            let data = &line["data"];
            let what = match (line["type"].as_str(), data["known"].as_str()) {
                // This attach method cannot distinguish the two.
                (Some("plain"), Some("unknown")) => "plain or third ACK".to_owned(),
                _ => format!("{} {}", line["type"], data["cause"]),
            };
            format!("{what} {} {}", data["side"], data["owner"]["comm"])
        })
        .collect();
        printed.sort();
        printed
    };
    let plain = |printed: &[String]| -> Vec<String> {
        let mut printed: Vec<String> = printed
            .iter()
            .map(|line| {
                // Without a tracepoint for send and receive, the process that accepted or connected
                // is the owner.
                line.replace("lab-s-child", "lab-server")
                    .replace("lab-other", "lab-client")
                    .replace("\"plain\" null", "plain or third ACK")
                    .replace(
                        "\"fallback\" \"MPCapableFallbackACK\"",
                        "plain or third ACK",
                    )
            })
            .collect();
        printed.sort();
        printed
    };
    for kernel in ["6.1", "6.12", "7.3"] {
        let fexit = printed(kernel, "fexit");
        assert!(fexit.len() >= 30, "{fexit:?}");
        assert_eq!(fexit, printed(kernel, "kprobe"), "{kernel}");
        assert_eq!(
            plain(&fexit),
            plain(&printed(kernel, "tracepoint")),
            "{kernel}"
        );
    }
}
