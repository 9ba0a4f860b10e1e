//! The verbs `list` and `bundle`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::common::{
    asker, json_lines, may_trace, of_type, parse_lines, run, scratch, spawn_asker_in,
    spawn_ready_asker, stderr, tracer,
};

fn captures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures");
    let mut captures: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|folder| ["queries.mpt", "fallbacks.mpt"].map(|name| folder.join(name)))
        .filter(|capture| capture.exists())
        .collect();
    captures.sort();
    assert!(captures.len() >= 14);
    captures
}

/// The files of a bundle by name.
fn unpacked(bundle: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = BufReader::new(std::fs::File::open(bundle).unwrap());
    let mut tar = tar::Archive::new(ruzstd::decoding::StreamingDecoder::new(file).unwrap());
    tar.entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().file_name().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (name.into_string().unwrap(), bytes)
        })
        .collect()
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Collects every string under these keys, at any depth.
fn collect(value: &Value, names: &[&str], found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let (true, Some(text)) = (names.contains(&name.as_str()), value.as_str()) {
                    found.insert(text.to_owned());
                }
                collect(value, names, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|it| collect(it, names, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The line without the fields that redaction changes.
fn without_names(mut line: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for name in ["addr", "over", "comm", "cgroup", "container", "unit"] {
                    fields.remove(name);
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    strip(&mut line);
    line
}

#[test]
fn nothing_of_what_was_redacted_is_left_anywhere_and_what_was_concluded_stays() {
    let mut addresses_seen = 0;
    for capture in captures() {
        let (_dir, bundle) = scratch("b.tar.zst");
        let (from, to) = (capture.to_str().unwrap(), bundle.to_str().unwrap());
        let output = run(["bundle", to, "--redact", "--from", from]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(!stderr(&output).contains("left out"), "{}", stderr(&output));
        let original = json_lines(&run(["replay", "--json", from]));
        let files = unpacked(&bundle);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "capture.mpt",
                "findings.jsonl",
                "list.jsonl",
                "losses.json",
                "maintainer.txt"
            ]
        );
        let (mut addrs, mut words) = (BTreeSet::new(), BTreeSet::new());
        for line in &original {
            collect(line, &["addr", "over"], &mut addrs);
            collect(line, &["comm", "cgroup", "container", "unit"], &mut words);
        }
        words.remove("/");
        // The task that ran may be a kernel worker: its name is redacted too.
        for word in words.iter().filter(|word| word.len() > 3) {
            for (name, bytes) in &files {
                assert!(!holds(bytes, word.as_bytes()), "{word} is in {name}");
            }
        }
        for text in &addrs {
            let addr: std::net::IpAddr = text.parse().unwrap();
            let canonical = addr.to_canonical();
            if canonical.is_loopback() || canonical.is_unspecified() {
                continue;
            }
            addresses_seen += 1;
            for (name, bytes) in &files {
                assert!(!holds(bytes, text.as_bytes()), "{text} is in {name}");
            }
            let raw = match canonical {
                std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
                std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            assert!(
                !holds(&files["capture.mpt"], &raw),
                "{text} is in the records"
            );
        }
        let strip =
            |lines: &[Value]| -> Vec<Value> { lines.iter().cloned().map(without_names).collect() };
        let printed = parse_lines(&files["findings.jsonl"]);
        assert_eq!(strip(&printed), strip(&original), "{from}");
        // A replay of the bundle prints the findings in it.
        let replayed = run(["replay", "--json", to]);
        assert_eq!(replayed.status.code(), Some(0), "{}", stderr(&replayed));
        assert_eq!(json_lines(&replayed), printed);
    }
    assert!(addresses_seen > 10, "{addresses_seen}");
}

#[test]
fn without_redaction_a_bundle_replays_what_the_capture_does() {
    let capture = &captures()[0];
    let (_dir, bundle) = scratch("b.tar.zst");
    let (from, to) = (capture.to_str().unwrap(), bundle.to_str().unwrap());
    let output = run(["bundle", to, "--from", from]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        run(["replay", "--json", to]).stdout,
        run(["replay", "--json", from]).stdout
    );
    // A bundle is also a capture: it can be redacted later.
    let (_dir, second) = scratch("c.tar.zst");
    let output = run(["bundle", second.to_str().unwrap(), "--redact", "--from", to]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // A truncated bundle is reported.
    let whole = std::fs::read(&bundle).unwrap();
    std::fs::write(&bundle, &whole[..whole.len() / 2]).unwrap();
    let output = run(["replay", to]);
    crate::common::assert_orderly(&output);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_bundle_of_a_live_run_holds_what_is_asked_for_first() {
    if !may_trace("a_bundle_of_a_live_run_holds_what_is_asked_for_first") {
        return;
    }
    let (_dir, bundle) = scratch("b.tar.zst");
    let mut words = ["bundle", bundle.to_str().unwrap(), "--redact", "--"]
        .map(str::to_owned)
        .to_vec();
    words.extend(asker("basic"));
    let output = run(words);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let files = unpacked(&bundle);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "capture.mpt",
            "counters-after.json",
            "counters-before.json",
            "findings.jsonl",
            "host.json",
            "list.jsonl",
            "losses.json",
            "maintainer.txt",
            "sysctls.json"
        ]
    );
    let told = String::from_utf8(files["maintainer.txt"].clone()).unwrap();
    for wanted in [
        "\nLinux ",
        "\nnet.mptcp.enabled = 1\n",
        "\nip mptcp limits show\n========================================\nadd_addr_accepted ",
        "\nip mptcp endpoint show\n",
        " plain-tcp ",
    ] {
        assert!(told.contains(wanted), "{wanted:?} is not in:\n{told}");
    }
    let json = |name: &str| -> Value { serde_json::from_slice(&files[name]).unwrap() };
    assert_eq!(json("host.json")["works"], true);
    assert_eq!(json("sysctls.json")["net.mptcp.enabled"], "1");
    let netns = std::fs::metadata("/proc/self/ns/net").unwrap();
    let netns = std::os::unix::fs::MetadataExt::ino(&netns).to_string();
    let counted = |name: &str| {
        json(name)[&netns]["MPCapableFallbackSYNACK"]
            .as_u64()
            .unwrap()
    };
    assert!(counted("counters-after.json") > counted("counters-before.json"));
    let findings = parse_lines(&files["findings.jsonl"]);
    assert_eq!(of_type(&findings, "query").len(), 3);
    assert_eq!(of_type(&findings, "fallback").len(), 1);
    let test = std::env::current_exe().unwrap();
    let comm = test.file_name().unwrap().to_str().unwrap();
    let comm = &comm[..comm.len().min(15)];
    for (name, bytes) in &files {
        assert!(!holds(bytes, comm.as_bytes()), "{comm} is in {name}");
    }
    // The exit code is that of the command.
    let mut words = ["bundle", bundle.to_str().unwrap(), "--"]
        .map(str::to_owned)
        .to_vec();
    words.extend(asker("exit 7"));
    assert_eq!(run(words).status.code(), Some(7));
}

#[test]
fn a_bundle_that_cannot_be_written_fails_before_anything_is_traced() {
    let output = run(["bundle", "/no/such/dir/b.tar.zst"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write the bundle"));
    let output = run([
        "bundle",
        "/dev/full",
        "--from",
        captures()[0].to_str().unwrap(),
    ]);
    crate::common::assert_orderly(&output);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[test]
fn a_bundle_without_a_trace_says_why_and_claims_nothing_about_the_kernel() {
    if !may_trace("a_bundle_without_a_trace_says_why_and_claims_nothing_about_the_kernel") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let btf = dir.path().join("secret-place.btf");
    std::fs::write(&btf, b"no BTF").unwrap();
    let bundle = dir.path().join("b.tar.zst");
    let output = run([
        "bundle",
        bundle.to_str().unwrap(),
        "--redact",
        "--btf",
        btf.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let text = unpacked(&bundle).remove("maintainer.txt").unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("\nnothing was traced\n"), "{text}");
    assert!(
        text.contains("\nFILE is not the type information"),
        "{text}"
    );
    for wrong in [
        "events while tracing",
        "counters that changed",
        "secret-place",
    ] {
        assert!(!text.contains(wrong), "{wrong} is in:\n{text}");
    }
}

#[test]
fn open_sockets_are_listed_with_whether_they_fell_back() {
    if !may_trace("open_sockets_are_listed_with_whether_they_fell_back") {
        return;
    }
    let mut fresh = spawn_ready_asker("wait");
    let mut fallen = spawn_ready_asker("fallen");
    let pids = [fresh.id(), fallen.id()];
    for (pid, fell_back, cause, state, subflows) in [
        (pids[0], false, Value::Null, "CLOSE", 0),
        (
            pids[1],
            true,
            "MPCapableFallbackSYNACK".into(),
            "ESTABLISHED",
            1,
        ),
    ] {
        let output = run(["list", "--json", "--pid", &pid.to_string()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let lines = json_lines(&output);
        let sockets = of_type(&lines, "socket");
        let [socket] = &sockets[..] else {
            panic!("{lines:?}")
        };
        let page = include_str!("../../../docs/output.md");
        let start = page.find("### `socket`").unwrap();
        let section = &page[start..start + page[start..].find("### `end`").unwrap()];
        for name in socket.as_object().unwrap().keys() {
            assert!(
                section.contains(&format!("`{name}`")),
                "{name} is not documented"
            );
        }
        assert_eq!(socket["fell_back"], fell_back);
        assert_eq!(socket["cause"], cause);
        assert_eq!(socket["state"], state);
        assert_eq!(socket["owner"]["pid"], pid);
        assert_eq!(socket["subflows"], subflows);
        assert_eq!(socket["asked"], Value::Null);
        let end = &lines.last().unwrap()["data"];
        assert_eq!(end["findings"], 1);
        assert!(end["not_shown"].as_u64().unwrap() >= 1, "{end}");
    }
    let text = run(["list", "--pid", &pids[1].to_string()]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.starts_with("ESTABLISHED FELL BACK") && text.ends_with("MPCapableFallbackSYNACK?\n"),
        "{text}"
    );
    for child in [&mut fresh, &mut fallen] {
        child.stdin.take().unwrap().write_all(b".").unwrap();
        child.wait().unwrap();
    }
}

/// Runs the program where the kernel's own type information is out of sight.
fn without_own_btf(words: &[&str]) -> Output {
    let hide = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", hide, "-"])
        .arg(env!("CARGO_BIN_EXE_mptcp-trace"))
        .args(words);
    command.output().unwrap()
}

#[test]
fn without_the_kernels_own_types_no_socket_is_claimed_missing() {
    if !may_trace("without_the_kernels_own_types_no_socket_is_claimed_missing") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name| dir.path().join(name).to_str().unwrap().to_owned();
    let (btf, bundle) = (path("kernel.btf"), path("b.tar.zst"));
    std::fs::copy("/sys/kernel/btf/vmlinux", &btf).unwrap();
    let mut open = spawn_ready_asker("wait");

    let facts = without_own_btf(&["doctor"]);
    assert_eq!(facts.status.code(), Some(3), "{}", stderr(&facts));
    let facts = String::from_utf8(facts.stdout).unwrap();
    let fact = |name| facts.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(fact("MPTCP  ").contains(" yes: "), "{facts}");
    assert!(fact("names causes").contains(" unknown: "), "{facts}");

    const WHY: &str = "sockets that are open when tracing begins cannot be listed";
    let output = without_own_btf(&["list", "--btf", &btf]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(output.stdout.is_empty() && stderr(&output).contains(WHY));

    let output = without_own_btf(&["bundle", &bundle, "--btf", &btf, "--duration", "1ms"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = unpacked(Path::new(&bundle))
        .remove("maintainer.txt")
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!("\nunknown: {WHY}")), "{text}");
    open.kill().unwrap();
    open.wait().unwrap();
}

#[test]
fn every_subflow_of_a_connection_counts() {
    if !may_trace("every_subflow_of_a_connection_counts") {
        return;
    }
    let script = "ip link set lo up && ip mptcp limits set subflow 2 add_addr_accepted 2 && \
                  ip mptcp endpoint add 127.0.0.2 dev lo subflow && \
                  ip mptcp endpoint add 127.0.0.3 dev lo subflow";
    let possible = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("skipped: every_subflow_of_a_connection_counts needs unshare and ip mptcp");
        return;
    }
    let script = format!("{script} && exec \"$@\"");
    let mut joined = spawn_asker_in(&["unshare", "--net", "sh", "-c", &script, "sh"], "joined");
    let pid = joined.id().to_string();
    let mut counts = Vec::new();
    // Joining takes a moment.
    for _ in 0..50 {
        let lines = json_lines(&run(["list", "--json", "--pid", &pid]));
        counts = of_type(&lines, "socket")
            .iter()
            .map(|it| (it["state"].to_string(), it["subflows"].to_string()))
            .collect();
        counts.sort();
        if counts.iter().any(|(_, subflows)| subflows == "3") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let connected = ("\"ESTABLISHED\"".to_owned(), "3".to_owned());
    let listens = ("\"LISTEN\"".to_owned(), "1".to_owned());
    assert_eq!(counts, [connected.clone(), connected, listens]);
    the_paths_are_listed(&pid);
    drop(joined.stdin.take());
    joined.wait().unwrap();
}

/// `list --paths` of a process with both ends of a connection that has three subflows.
fn the_paths_are_listed(pid: &str) {
    let output = run(["list", "--paths", "--json", "--pid", pid]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("3 MPTCP sockets, 6 open paths"), "{said}");
    let lines = json_lines(&output);
    let end = &lines.last().unwrap()["data"];
    assert_eq!(end["findings"], 9, "{end}");
    // Each path follows its socket.
    let mut of = Value::Null;
    for line in &lines {
        match line["type"].as_str() {
            Some("socket") => of = line["data"]["id"].clone(),
            Some("path_open") => assert_eq!(line["data"]["id"], of),
            _ => {}
        }
    }
    let paths = of_type(&lines, "path_open");
    for (side, expected) in [("local", "127.0.0.2"), ("remote", "127.0.0.3")] {
        let has = |path: &&Value| path[side]["addr"] == expected && path["role"] == "join";
        assert_eq!(paths.iter().filter(|it| has(it)).count(), 1, "{paths:?}");
    }
    let first = paths.iter().filter(|it| it["role"] == "first");
    assert_eq!(first.count(), 2, "{paths:?}");
    assert!(
        paths
            .iter()
            .all(|it| it["ledger"]["segments_sent"].as_u64() > Some(0))
    );
    let text = run(["list", "--paths", "--pid", pid]);
    let text = String::from_utf8(text.stdout).unwrap();
    let indented = text.lines().filter(|line| line.starts_with("  127.0.0."));
    assert_eq!(indented.count(), 6, "{text}");
}

#[test]
fn a_bundle_knows_what_was_answered_last_about_what_was_there() {
    if !may_trace("a_bundle_knows_what_was_answered_last_about_what_was_there") {
        return;
    }
    let mut silent = spawn_ready_asker("wait");
    let mut asks = spawn_ready_asker("fallen");
    let (_dir, bundle) = scratch("b.tar.zst");
    let mut bundling = tracer()
        .args(["bundle", bundle.to_str().unwrap(), "--duration", "2s"])
        .spawn()
        .unwrap();
    let mut stdin = asks.stdin.take().unwrap();
    while bundling.try_wait().unwrap().is_none() {
        stdin.write_all(b".").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let files = unpacked(&bundle);
    let sockets = of_type(&parse_lines(&files["list.jsonl"]), "socket");
    let queries = of_type(&parse_lines(&files["findings.jsonl"]), "query");
    let of = |pid: u32| sockets.iter().find(|it| it["owner"]["pid"] == pid).unwrap();
    assert_eq!(of(silent.id())["asked"], Value::Null);
    let asked = &of(asks.id())["asked"];
    assert_eq!(asked["api"], "TCP_IS_MPTCP");
    assert_eq!(asked["answer"], "tcp");
    let last = queries
        .iter()
        .rfind(|it| it["id"] == of(asks.id())["id"])
        .unwrap();
    let asked_at = last["boottime_ns"].as_u64().unwrap();
    // Some attach methods do not measure the latency; the timestamp is then that of the answer.
    let latency = last["latency_ns"].as_u64().unwrap_or(0);
    assert_eq!(asked["answered_at_ns"], asked_at + latency);
    drop((stdin, silent.stdin.take()));
    for child in [&mut silent, &mut asks] {
        child.wait().unwrap();
    }
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_bundle_that_fails_creates_nothing_and_leaves_an_existing_file_unchanged() {
    let (dir, bundle) = scratch("b.tar.zst");
    let to = bundle.to_str().unwrap();
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "no capture at all").unwrap();
    let mut rows = vec![
        (vec!["--from", garbage.to_str().unwrap()], 1),
        (vec!["--from", "/no/such/capture"], 1),
        (vec!["--no-such-option"], 2),
    ];
    if may_trace(
        "half of a_bundle_that_fails_creates_nothing_and_leaves_an_existing_file_unchanged",
    ) {
        rows.push((vec!["--", "/no/such/command"], 127));
        rows.push((
            vec!["--btf", garbage.to_str().unwrap(), "--", "/bin/true"],
            3,
        ));
    }
    for exists in [false, true] {
        for (words, code) in &rows {
            if exists {
                std::fs::write(&bundle, "of before").unwrap();
            }
            let output = run([&["bundle", to], &words[..]].concat());
            crate::common::assert_orderly(&output);
            assert_eq!(output.status.code(), Some(*code), "{}", stderr(&output));
            if *code == 3 {
                // On a host that cannot be traced, the bundle still contains the reasons.
                let names: Vec<String> = unpacked(&bundle).into_keys().collect();
                let known = [
                    "counters-after.json",
                    "counters-before.json",
                    "host.json",
                    "maintainer.txt",
                    "sysctls.json",
                ];
                assert_eq!(names, known);
                assert!(stderr(&output).contains("no trace"), "{}", stderr(&output));
                std::fs::remove_file(&bundle).unwrap();
                continue;
            }
            let there = std::fs::read(&bundle).ok();
            assert_eq!(there, exists.then(|| b"of before".to_vec()), "{words:?}");
            let others = names(dir.path());
            assert!(others.iter().all(|it| it == "garbage" || it == "b.tar.zst"));
        }
    }
}

#[test]
fn a_signal_at_any_time_leaves_a_whole_bundle_or_none() {
    if !may_trace("a_signal_at_any_time_leaves_a_whole_bundle_or_none") {
        return;
    }
    use rustix::process::{Pid, Signal, kill_process};
    // True if the earlier file is unchanged.
    let end_after = |signal: Signal, after_ms: u64| {
        let (dir, bundle) = scratch("b.tar.zst");
        let parts = tempfile::tempdir().unwrap();
        std::fs::write(&bundle, "of before").unwrap();
        let mut bundling = tracer()
            .args(["bundle", bundle.to_str().unwrap()])
            .env("TMPDIR", parts.path())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        kill_process(Pid::from_child(&bundling), signal).unwrap();
        bundling.wait().unwrap();
        assert_eq!(names(dir.path()), ["b.tar.zst"], "{signal:?} {after_ms}");
        assert_eq!(names(parts.path()), [""; 0], "{signal:?} {after_ms}");
        if std::fs::read(&bundle).unwrap() == b"of before" {
            return true;
        }
        assert!(unpacked(&bundle).contains_key("findings.jsonl"));
        false
    };
    let kept = std::thread::scope(|scope| {
        let rows = [
            (Signal::INT, 30),
            (Signal::INT, 600),
            (Signal::INT, 3000),
            (Signal::TERM, 3000),
            (Signal::KILL, 900),
            (Signal::KILL, 2000),
        ];
        let ends = rows.map(|(signal, after_ms)| scope.spawn(move || end_after(signal, after_ms)));
        let kept = ends.map(|end| u32::from(end.join().unwrap()));
        kept.iter().sum::<u32>()
    });
    assert!(kept >= 2, "{kept}");
}

/// A copy of the program that every user may run, in a directory that every user may write to.
fn for_everyone() -> (tempfile::TempDir, PathBuf) {
    let (dir, program) = scratch("mptcp-trace");
    // Another test may fork at any time: its child would hold a file that this process writes open, and
    // such a file cannot be executed.
    let mut copy = Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_mptcp-trace")).arg(&program);
    assert!(copy.status().unwrap().success());
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), everyone).unwrap();
    (dir, program)
}

#[test]
fn an_unprivileged_user_gets_the_reason_and_packs_an_existing_capture() {
    use std::os::unix::process::CommandExt as _;
    if !may_trace("an_unprivileged_user_gets_the_reason_and_packs_an_existing_capture") {
        return;
    }
    let (dir, program) = for_everyone();
    let capture = dir.path().join("run.mpt");
    std::fs::copy(&captures()[0], &capture).unwrap();
    for (words, code, says) in [
        (&[][..], 3, "lacks CAP_BPF and CAP_PERFMON"),
        (&["--", "/no/such/command"], 3, "--from CAPTURE"),
        (&["--from", "run.mpt"], 0, "wrote b.tar.zst"),
    ] {
        let output = Command::new(&program)
            .args(["bundle", "b.tar.zst"])
            .args(words)
            .current_dir(dir.path())
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
        let exists = names(dir.path()).contains(&"b.tar.zst".to_owned());
        assert_eq!(exists, code == 0, "{words:?}");
    }
}

#[test]
fn who_may_not_trace_cannot_list() {
    use std::os::unix::process::CommandExt as _;
    if !may_trace("who_may_not_trace_cannot_list") {
        return;
    }
    let (_dir, program) = for_everyone();
    let output = Command::new(&program)
        .arg("list")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}
