//! Reports of the program about itself: a reconciliation that is impossible, a sensor that is off,
//! a reader that has gone.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use rustix::process::Signal;

use serde_json::Value;

use crate::common::{
    Background, PATIENCE, asker, assert_orderly, json_lines, may_trace, of_type, run, scratch,
    stderr, tracer,
};

/// Kinds of frames of a capture, see `capture.rs`.
pub(crate) const FACTS: u32 = 1;

/// A capture of the lab with modified frames.
pub(crate) fn changed(
    name: &str,
    change: impl Fn(u32, Vec<u8>) -> Vec<u8>,
) -> (tempfile::TempDir, PathBuf) {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures");
    let bytes = fs::read(captures.join(name)).unwrap();
    let (magic, mut rest) = bytes.split_at(8);
    let mut out = magic.to_vec();
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let kind = u32::from_le_bytes(*head.first_chunk().unwrap());
        let length = u32::from_le_bytes(*head.last_chunk().unwrap());
        let (data, next) = tail.split_at(usize::try_from(length).unwrap());
        let data = change(kind, data.to_vec());
        out.extend(kind.to_le_bytes());
        out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        out.extend(data);
        rest = next;
    }
    let (dir, path) = scratch("changed.mpt");
    fs::write(&path, out).unwrap();
    (dir, path)
}

/// A capture with modified facts.
pub(crate) fn with_facts(name: &str, change: impl Fn(&mut Value)) -> (tempfile::TempDir, PathBuf) {
    changed(name, |kind, data| {
        if kind != FACTS {
            return data;
        }
        let mut facts = serde_json::from_slice(&data).unwrap();
        change(&mut facts);
        serde_json::to_vec(&facts).unwrap()
    })
}

#[test]
fn without_the_fallback_sensor_nothing_is_green_and_nothing_counts_as_existing() {
    let (_dir, capture) = with_facts("6.12-fexit/fallbacks.mpt", |facts| {
        let sensors = facts["sensors"].as_array_mut().unwrap();
        sensors.retain(|sensor| sensor["name"] != "fallback");
    });
    let capture = capture.to_str().unwrap();
    for (on, code) in [
        ("fallback", 5),
        ("InfiniteMapTx", 5),
        ("never-asked", 5),
        ("unsupported", 0),
    ] {
        let output = run(["replay", "--json", "--fail-on", on, capture]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{on}: {said}");
        assert_eq!(
            said.contains("may have been missed: the fallback sensor is off"),
            code == 5,
            "{said}"
        );
        assert!(said.contains("fallback: the sensor is off"), "{said}");
        let lines = json_lines(&output);
        for kind in ["existing", "fallback"] {
            assert_eq!(of_type(&lines, kind), [Value::Null; 0], "{on}");
        }
    }
}

#[test]
fn a_live_run_with_few_descriptors_is_never_green_after_a_fallback() {
    if !may_trace("a_live_run_with_few_descriptors_is_never_green_after_a_fallback") {
        return;
    }
    for descriptors in [47, 49, 51, 256] {
        let (_dir, ran) = scratch("ran");
        let words = asker("basic").map(|word| format!("'{word}'")).join(" ");
        let script = format!(
            "ulimit -n {descriptors}; exec {} --json --fail-on fallback -- sh -c \"{words}; echo ran > {}\"",
            env!("CARGO_BIN_EXE_mptcp-trace"),
            ran.display()
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = stderr(&output);
        let code = output.status.code();
        assert_ne!(code, Some(0), "{descriptors}: {said}");
        if said.contains("sensor is off") {
            assert!(!ran.exists(), "{descriptors}: {said}");
            assert_eq!(code, Some(5), "{descriptors}: {said}");
        }
    }
}

/// The account on stderr: printed, counted by the kernel, traced.
fn account(said: &str) -> [u64; 3] {
    let number = |before: &str| -> u64 {
        let (_, rest) = said
            .split_once(before)
            .unwrap_or_else(|| panic!("{before}: {said}"));
        let end = rest
            .find(|it: char| !it.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse().unwrap()
    };
    ["fallback: ", "kernel counted ", ", traced "].map(number)
}

#[test]
fn the_account_holds_when_the_reader_has_gone_and_when_the_disk_is_full() {
    if !may_trace("the_account_holds_when_the_reader_has_gone_and_when_the_disk_is_full") {
        return;
    }
    let (_dir, capture) = scratch("run.mpt");
    let mut command = Command::new("unshare");
    // A network namespace of its own, so that no other connections fall back.
    command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "-"]);
    let mut words = vec![tracer().get_program().to_owned()];
    words.extend(["-v".into(), "--capture".into(), capture.clone().into()]);
    words.push("--".into());
    // The command also prints, so send its output to stderr, not to the reader that goes away.
    words.extend(["sh", "-c", "exec \"$@\" >&2", "-"].map(Into::into));
    words.extend(asker("fall 400").map(Into::into));
    let mut tracing = command
        .args(&words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut head = Command::new("head")
        .arg("-1")
        .stdin(tracing.stdout.take().unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    head.wait().unwrap();
    let output = tracing.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_orderly(&output);
    let [printed, counted, traced] = account(&said);
    assert!(
        printed <= traced && traced == counted && counted > 0,
        "{said}"
    );
    // The capture is still closed properly: its replay has the same account.
    let replayed = run(["replay".as_ref(), "-v".as_ref(), capture.as_os_str()]);
    assert_eq!(replayed.status.code(), Some(0), "{}", stderr(&replayed));
    assert_eq!(account(&stderr(&replayed))[1..], [counted, traced]);

    let mut words = ["--output", "/dev/full", "--"].map(str::to_owned).to_vec();
    words.extend(asker("fall 400"));
    let output = run(words);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the findings"), "{said}");
    assert!(account(&said)[2] > 0, "{said}");
}

#[test]
fn a_filtered_capture_names_no_other_process_and_its_replay_equals_the_live_run() {
    if !may_trace("a_filtered_capture_names_no_other_process_and_its_replay_equals_the_live_run") {
        return;
    }
    let (_dir, capture) = scratch("run.mpt");
    let path = capture.to_str().unwrap();
    let tracer = Background::start(&["--json", "--comm", "no-such-name", "--capture", path]);
    let mut asking = Command::new("bash")
        .args(["-c", "exec -a stranger-here \"$@\"", "-"])
        .args(asker("fall 5"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(asking.wait().unwrap().success());
    tracer.signal(Signal::INT);
    let live = tracer.output();
    assert_eq!(live.status.code(), Some(0), "{}", stderr(&live));
    let bytes = fs::read(&capture).unwrap();
    // The name of the test binary, truncated as the kernel does.
    let me = std::env::current_exe().unwrap();
    let me = me.file_name().unwrap().as_bytes();
    let name = &me[..me.len().min(15)];
    assert!(!bytes.windows(name.len()).any(|it| it == name));
    assert_eq!(
        fs::metadata(&capture).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let replayed = run(["replay", "--json", path]);
    let live = String::from_utf8(live.stdout).unwrap();
    let replayed = String::from_utf8(replayed.stdout).unwrap();
    assert_eq!(
        replayed,
        live.replace("\"source\":\"live\"", "\"source\":\"replay\"")
    );
}

#[test]
fn what_was_not_shown_can_fail_a_run_and_one_that_ended_early_proves_nothing() {
    if !may_trace("what_was_not_shown_can_fail_a_run_and_one_that_ended_early_proves_nothing") {
        return;
    }
    let (_dir, capture) = scratch("run.mpt");
    let ended = |words: &[&str], later: &str| {
        let mut words: Vec<OsString> = words.iter().map(Into::into).collect();
        let script = format!("\"$@\"; {later}");
        words.extend(["--", "sh", "-c", &script, "-"].map(Into::into));
        words.extend(asker("fall 5").into_iter().map(Into::into));
        run(words)
    };
    let early = ended(&["--stop-after", "1", "--fail-on", "stale"], "sleep 2");
    let said = stderr(&early);
    assert_eq!(early.status.code(), Some(5), "{said}");
    assert!(said.contains("--stop-after ended the run"), "{said}");
    let words = [
        "--duration",
        "1s",
        "--fail-on",
        "fallback",
        "--",
        "sleep",
        "3",
    ];
    let outlived = run(words);
    let said = stderr(&outlived);
    assert_eq!(outlived.status.code(), Some(5), "{said}");
    assert!(said.contains("the command keeps running"), "{said}");
    assert!(said.contains("still running when tracing ended"), "{said}");
    let whole = ended(&["-v", "--capture", capture.to_str().unwrap()], "true");
    assert_eq!(whole.status.code(), Some(0), "{}", stderr(&whole));
    // There were no queries for the five connections, so `--fail-on` cannot refer to the first
    // line.
    let path = capture.to_str().unwrap();
    let replayed = run([
        "replay",
        "-v",
        path,
        "--stop-after",
        "1",
        "--fail-on",
        "never-asked",
    ]);
    let said = stderr(&replayed);
    assert_eq!(replayed.status.code(), Some(4), "{said}");
    assert!(said.contains("5 findings fail the run"), "{said}");
    assert_eq!(account(&said)[1..], account(&stderr(&whole))[1..], "{said}");
}

#[test]
fn a_replay_whose_stdout_is_closed_still_prints_the_account() {
    if !may_trace("a_replay_whose_stdout_is_closed_still_prints_the_account") {
        return;
    }
    let (_dir, capture) = scratch("run.mpt");
    let mut words: Vec<OsString> = vec!["-v".into(), "--capture".into(), capture.clone().into()];
    words.push("--".into());
    words.extend(asker("fall 2000").into_iter().map(Into::into));
    let live = run(words);
    let script = "\"$0\" replay \"$1\" | head -1 >/dev/null";
    let replayed = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_mptcp-trace")])
        .arg(&capture)
        .output()
        .unwrap();
    let said = stderr(&replayed);
    assert_eq!(account(&said)[1..], account(&stderr(&live))[1..], "{said}");
    assert!(said.contains("not written"), "{said}");
}

#[test]
fn the_account_is_the_kernels_whatever_the_filter_wants() {
    if !may_trace("the_account_is_the_kernels_whatever_the_filter_wants") {
        return;
    }
    let (_dir, ready) = scratch("ready");
    let mut alone = Command::new("unshare");
    let script = "ip link set lo up; tracer=$1; ready=$2; shift 2
        { until [ -e \"$ready\" ]; do sleep 0.1; done; exec \"$@\" >&2; } &
        exec \"$tracer\" -v --comm nosuchthing --duration 3s --ready-file \"$ready\"";
    alone.args(["--net", "sh", "-c", script, "-"]);
    alone.arg(env!("CARGO_BIN_EXE_mptcp-trace")).arg(&ready);
    let output = alone.args(asker("fall 3")).output().unwrap();
    let said = stderr(&output);
    let [printed, counted, traced] = account(&said);
    assert_eq!(printed, 0, "{said}");
    assert!(counted >= 3 && counted == traced, "{said}");
}

#[test]
fn one_file_is_not_written_twice_by_whatever_names() {
    if !may_trace("one_file_is_not_written_twice_by_whatever_names") {
        return;
    }
    let (dir, file) = scratch("same");
    fs::write(&file, "of before\n").unwrap();
    std::os::unix::fs::symlink("same", dir.path().join("link")).unwrap();
    fs::hard_link(&file, dir.path().join("twin")).unwrap();
    for other in ["same", "./same", "link", "twin"] {
        for option in ["--capture", "--ready-file"] {
            let output = tracer()
                .current_dir(dir.path())
                .args(["-o", "same", option, other, "--", "true"])
                .output()
                .unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{option} {other}: {said}");
            assert!(said.contains("are the same file"), "{said}");
            assert_eq!(fs::read(&file).unwrap(), b"of before\n");
        }
    }
    // Existing content stays before the new output.
    let output = tracer()
        .current_dir(dir.path())
        .args(["-o", "same", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(fs::read(&file).unwrap().starts_with(b"of before\n"));
}

#[test]
fn it_ends_when_the_reader_has_gone_although_nothing_is_found() {
    if !may_trace("it_ends_when_the_reader_has_gone_although_nothing_is_found") {
        return;
    }
    let mut tracing = tracer()
        .args(["--comm", "no-such-name"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(tracing.stdout.take());
    let start = Instant::now();
    while tracing.try_wait().unwrap().is_none() {
        assert!(
            start.elapsed() < 3 * PATIENCE,
            "it waits for a finding although its reader has gone"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(tracing.wait().unwrap().code(), Some(0));
}

#[test]
fn a_command_gets_no_copy_of_stdout_and_no_ambient_capabilities() {
    if !may_trace("a_command_gets_no_copy_of_stdout_and_no_ambient_capabilities") {
        return;
    }
    let output = Command::new("setpriv")
        .args(["--inh-caps=+sys_time", "--ambient-caps=+sys_time"])
        .arg(tracer().get_program())
        .args([
            "--",
            "sh",
            "-c",
            "grep CapAmb /proc/self/status; ls -l /proc/self/fd",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("CapAmb:\t0000000000000000"),
        "{said} {}",
        stderr(&output)
    );
    let pipes = |fd: &str| -> Vec<&str> {
        let links = said.lines().filter_map(|line| line.split_once(" -> "));
        let links = links.filter(|(link, _)| link.ends_with(fd));
        links.map(|(_, target)| target).collect()
    };
    let [stdout] = pipes(" 1")[..] else {
        panic!("{said}");
    };
    assert_eq!(
        pipes("").iter().filter(|it| **it == stdout).count(),
        1,
        "{said}"
    );
}

#[test]
fn a_capture_that_makes_no_sense_is_not_packed_and_that_takes_one_sentence() {
    const RECORD: u32 = 2;
    let name = "6.12-fexit/fallbacks.mpt";
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures");
    let whole = fs::read(captures.join(name)).unwrap();
    let (_dir, behind) = scratch("behind.mpt");
    fs::write(&behind, [&whole[..], &[0; 64]].concat()).unwrap();
    let (_dir, nonsense) = changed(name, |kind, mut data| {
        if kind == RECORD {
            data.truncate(9);
        }
        data
    });
    let (_dir, bundle) = scratch("b.tar.zst");
    for (capture, says) in [
        (&behind, "data follows its end"),
        (&nonsense, "record 1 cannot be decoded"),
    ] {
        let output = run([
            "bundle".as_ref(),
            bundle.as_os_str(),
            "--from".as_ref(),
            capture.as_os_str(),
        ]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!bundle.exists());
    }
    let replayed = run(["replay".as_ref(), nonsense.as_os_str()]);
    let said = stderr(&replayed);
    let complaints = said
        .lines()
        .filter(|line| line.contains("cannot decode"))
        .count();
    assert_eq!(complaints, 10, "{said}");
}
