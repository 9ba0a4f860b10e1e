//! `mptcp-trace report`: writes a complete page or none, and reports errors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

use crate::common::{assert_orderly, run, scratch, stderr};

fn capture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../captures")
        .join(name)
}

fn check(output: &Output, code: i32, says: &str) {
    let text = stderr(output);
    assert_orderly(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(says), "{says:?} is not in {text:?}");
}

fn report(capture: &str, page: &str, more: &[&str]) -> Output {
    run([&["report", capture, "-o", page], more].concat())
}

#[test]
fn a_page_is_written_whole_and_one_line_reports_it() {
    let (dir, page) = scratch("page.html");
    let page = page.to_str().unwrap();
    let file = capture("7.3-fexit/verdicts.mpt");
    fs::write(page, "the previous content").unwrap();
    let output = report(file.to_str().unwrap(), page, &["--title", "A & B"]);
    check(&output, 0, &format!("wrote {page}: 90 findings, "));
    assert_eq!(stderr(&output).lines().count(), 1);
    assert!(output.stdout.is_empty());
    let text = fs::read_to_string(page).unwrap();
    assert!(text.contains("<title>A &amp; B</title>") && text.ends_with("</html>\n"));
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "a file is left over"
    );
    let output = report(file.to_str().unwrap(), "-", &["--title", "A & B"]);
    check(&output, 0, "wrote standard output");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
}

/// Runs a shell command in a directory; `$M` is the program, `$C` a capture.
fn sh(command: &str, folder: &std::path::Path) -> Output {
    Command::new("bash")
        .args(["-c", command])
        .current_dir(folder)
        .env("M", env!("CARGO_BIN_EXE_mptcp-trace"))
        .env(
            "C",
            capture("7.3-fexit/verdicts.mpt").canonicalize().unwrap(),
        )
        .output()
        .unwrap()
}

#[test]
fn a_reader_that_goes_away_has_only_a_part() {
    let (dir, _page) = scratch("page.html");
    for output in ["-", "/dev/stdout", "/dev/fd/1"] {
        for format in ["html", "chrome-trace"] {
            // The reader is gone before the first byte.
            let command = format!(
                "$M report $C --format {format} -o {output} | (exec <&-; sleep 1); \
                 exit ${{PIPESTATUS[0]}}"
            );
            let ended = sh(&command, dir.path());
            check(&ended, 0, "wrote a part of ");
            check(&ended, 0, "the reader closed the output early");
        }
    }
}

#[test]
fn an_open_descriptor_is_written_to_and_not_replaced() {
    let (dir, page) = scratch("page.html");
    for (output, to) in [
        ("/dev/stdout", ""),
        ("/dev/fd/1", ""),
        ("/proc/self/fd/1", ""),
        ("/dev/fd/3", "3"),
    ] {
        fs::write(&page, "what was there\n").unwrap();
        let command = format!("$M report $C -o {output} {to}>> page.html");
        check(&sh(&command, dir.path()), 0, &format!("wrote {output}: 90"));
        let text = fs::read_to_string(&page).unwrap();
        assert!(
            text.starts_with("what was there\n<!DOCTYPE html>"),
            "{output}"
        );
        assert!(text.ends_with("</html>\n"), "{output}");
    }
}

#[test]
fn a_capture_that_is_cut_off_has_one_number_of_findings() {
    let (dir, _page) = scratch("page.html");
    let whole = fs::read(capture("7.3-fexit/verdicts.mpt")).unwrap();
    fs::write(dir.path().join("cut.mpt"), &whole[..whole.len() - 2000]).unwrap();
    for command in [
        "$M replay cut.mpt",
        "$M replay --json cut.mpt",
        "$M report cut.mpt -o page.html",
    ] {
        let ended = sh(command, dir.path());
        check(&ended, 1, "cut.mpt is cut off after 90 findings");
    }
}

#[test]
fn a_selection_is_one() {
    let file = capture("7.3-fexit/fallbacks.mpt");
    let output = report(file.to_str().unwrap(), "-", &["--cause", "InfiniteMapTx"]);
    check(&output, 0, "wrote");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("more were filtered out"));
    // The kernel's own count, further down, is of the whole run.
    let (found, _losses) = text.split_once("id=\"losses\"").unwrap();
    assert!(found.contains("InfiniteMapTx") && !found.contains("SimultConnectFallback"));
}

#[test]
fn what_is_wrong_is_said() {
    let (dir, page) = scratch("page.html");
    let page = page.to_str().unwrap();
    let file = capture("sessions/program.mpt");
    let file = file.to_str().unwrap();
    check(&run(["report", file]), 2, "--output");
    check(
        &report("/no/such/capture", page, &[]),
        1,
        "cannot open the capture",
    );
    check(
        &report("/etc/passwd", page, &[]),
        1,
        "this is not an mptcp-trace capture",
    );
    check(
        &report(file, "/no/such/folder/page.html", &[]),
        1,
        "cannot write /no/such/folder",
    );
    check(
        &report(file, dir.path().to_str().unwrap(), &[]),
        1,
        "cannot write",
    );
    assert!(!fs::exists(page).unwrap());
    let copy = dir.path().join("copy.mpt");
    fs::copy(file, &copy).unwrap();
    let copy = copy.to_str().unwrap();
    check(&report(copy, copy, &[]), 2, "is the capture itself");
    assert_eq!(fs::read(copy).unwrap(), fs::read(file).unwrap());
}

#[test]
fn the_page_of_a_truncated_or_damaged_capture_has_a_warning() {
    let (dir, page) = scratch("page.html");
    let page = page.to_str().unwrap();
    let whole = fs::read(capture("7.3-fexit/verdicts.mpt")).unwrap();
    let half = dir.path().join("half.mpt");
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let half = half.to_str().unwrap();
    check(&report(half, page, &[]), 1, "is cut off after");
    let text = fs::read_to_string(page).unwrap();
    assert!(text.contains("The capture is cut off.") && text.contains("lab-client"));
    assert!(!text.contains("No losses: every event"));
    let mut bad = whole[..whole.len() / 2].to_vec();
    bad.extend([0xff; 64]);
    fs::write(half, bad).unwrap();
    let output = report(half, page, &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = fs::read_to_string(page).unwrap();
    assert!(text.contains("role=\"alert\""), "{}", stderr(&output));
}

#[test]
fn an_answer_that_the_kernel_does_not_give_deceives_no_application() {
    let file = capture("6.1-fexit/queries.mpt");
    let output = report(file.to_str().unwrap(), "-", &[]);
    check(&output, 0, "wrote");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("8 were not answered (this kernel does not support the query)"));
    assert!(!text.contains("told MPTCP and never corrected"));
}

/// Every committed capture.
fn captures() -> Vec<PathBuf> {
    let folders = fs::read_dir(capture(""))
        .unwrap()
        .map(|it| it.unwrap().path());
    let folders = folders.filter(|it| it.is_dir());
    let files = folders.flat_map(|it| fs::read_dir(it).unwrap().map(|it| it.unwrap().path()));
    files
        .filter(|it| it.extension().is_some_and(|it| it == "mpt"))
        .collect()
}

/// Nanoseconds, from a time of a trace.
fn ns(event: &Value, name: &str) -> u64 {
    let micros = event[name].as_f64().unwrap();
    assert!(micros >= 0.0, "{event}");
    format!("{:.0}", micros * 1000.0).parse().unwrap()
}

#[test]
fn a_trace_has_every_finding_at_its_time_and_every_connection_on_a_track_of_its_own() {
    let captures = captures();
    assert!(captures.len() >= 20, "{captures:?}");
    for capture in captures {
        let file = capture.to_str().unwrap();
        let replayed = run(["replay", "--json", "--kind", "all", file]);
        let lines = String::from_utf8(replayed.stdout).unwrap();
        let lines = lines.lines().map(|it| serde_json::from_str(it).unwrap());
        let findings: Vec<Value> = lines
            .filter(|it: &Value| it["type"] != "start" && it["type"] != "end")
            .collect();
        let output = report(file, "-", &["--format", "chrome-trace"]);
        check(&output, 0, "wrote standard output");
        let trace: Value = serde_json::from_slice(&output.stdout).unwrap();
        check_trace(&trace, &findings, file);
    }
}

fn check_trace(trace: &Value, findings: &[Value], file: &str) {
    let zero = trace["otherData"]["ts_zero_boottime_ns"].as_u64().unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let (mut processes, mut tracks) = (BTreeSet::new(), BTreeSet::new());
    let mut lanes = BTreeMap::new();
    let (mut named, mut at, mut ids) = (BTreeSet::new(), Vec::new(), BTreeMap::new());
    let mut phases: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for event in events {
        let [pid, tid] = ["pid", "tid"].map(|name| event[name].as_u64().unwrap());
        match (
            event["ph"].as_str().unwrap(),
            event["name"].as_str().unwrap(),
        ) {
            ("M", "process_name") => assert!(processes.insert(pid), "{file}: {event}"),
            ("M", "thread_name") => assert!(named.insert((pid, tid)), "{file}: {event}"),
            ("M", _) => {}
            ("i", _) if event["cat"] == "account" => {}
            ("i", _) => {
                tracks.insert((pid, tid));
                let id = event["args"]["id"].as_str();
                let kind = event["cat"].as_str().unwrap();
                at.push((ns(event, "ts") + zero, kind, id.map(str::to_owned)));
                if let Some(id) = id.filter(|_| event["args"]["remote"] != "0.0.0.0:0") {
                    ids.entry(id.to_owned())
                        .or_insert_with(BTreeSet::new)
                        .insert(tid);
                }
            }
            ("X", _) => {
                let begin = ns(event, "ts");
                let span = (begin, begin + ns(event, "dur"));
                // A path has a track of its own, also if nothing about it is worth a finding.
                if event["args"]["role"].is_string() {
                    lanes.entry((pid, tid)).or_insert_with(Vec::new).push(span);
                } else {
                    phases.entry(tid).or_default().push(span);
                    assert!(tracks.contains(&(pid, tid)), "{file}: {event}");
                }
            }
            (other, _) => panic!("{file}: {other}"),
        }
    }
    let mut expected: Vec<_> = findings
        .iter()
        .map(|finding| {
            let data = &finding["data"];
            let latency = data["latency_ns"].as_u64().unwrap_or(0);
            let time = data["boottime_ns"].as_u64().unwrap() + latency;
            let id = data["id"].as_str().map(str::to_owned);
            (time, finding["type"].as_str().unwrap(), id)
        })
        .collect();
    at.sort_unstable();
    expected.sort_unstable();
    assert_eq!(at, expected, "{file}");
    for (id, tracks) in &ids {
        assert_eq!(tracks.len(), 1, "{file}: {id} is on several tracks");
    }
    for (pid, tid) in tracks.iter().chain(lanes.keys()) {
        assert!(
            named.contains(&(*pid, *tid)) && processes.contains(pid),
            "{file}: {tid}"
        );
    }
    for (tid, spans) in &phases {
        assert!(
            spans.windows(2).all(|it| it[0].1 + 1 == it[1].0),
            "{file}: {tid} has {spans:?}"
        );
    }
    // The handshake is the beginning of a path.
    for ((_, tid), spans) in &lanes {
        let is_inside = |it: &(u64, u64)| it.0 >= spans[0].0 && it.1 <= spans[0].1;
        assert!(spans.iter().all(is_inside), "{file}: {tid} has {spans:?}");
    }
    assert!(phases.len() >= ids.len(), "{file}");
}

#[test]
fn a_trace_is_written_whole_and_says_what_its_capture_lacks() {
    let (dir, page) = scratch("trace.json");
    let page = page.to_str().unwrap();
    let trace = ["--format", "chrome-trace"];
    let file = capture("7.3-fexit/verdicts.mpt");
    fs::write(page, "the previous content").unwrap();
    let more = [&trace[..], &["--cause", "DssFallback"]].concat();
    let output = report(file.to_str().unwrap(), page, &more);
    check(&output, 0, &format!("wrote {page}: "));
    let text: Value = serde_json::from_str(&fs::read_to_string(page).unwrap()).unwrap();
    assert_eq!(text["otherData"]["is_selection"], true);
    assert!(text["otherData"]["not_shown"].as_u64().unwrap() > 0);
    let whole = fs::read(&file).unwrap();
    let half = dir.path().join("half.mpt");
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let half = half.to_str().unwrap();
    check(&report(half, page, &trace), 1, "is cut off after");
    let text: Value = serde_json::from_str(&fs::read_to_string(page).unwrap()).unwrap();
    assert_eq!(text["otherData"]["losses"]["capture_end"], "cut off");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "a file is left over"
    );
    // Nothing is replaced if the capture is none.
    let before = fs::read(page).unwrap();
    let output = report("/etc/passwd", page, &trace);
    check(&output, 1, "this is not an mptcp-trace capture");
    assert_eq!(fs::read(page).unwrap(), before);
    let output = report(half, "/no/such/folder/trace.json", &trace);
    check(&output, 1, "cannot write /no/such/folder");
    check(
        &report(half, "/dev/full", &trace),
        1,
        "cannot write /dev/full",
    );
    check(&report(half, page, &["--format", "svg"]), 2, "chrome-trace");
}
