//! What the program says of itself: an account that cannot be drawn, a sensor that is off, a reader that has gone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::common::{
    asker, assert_orderly, json_lines, may_trace, of_type, run, scratch, stderr, tracer,
};

/// Kinds of frames of a capture, see `capture.rs`.
pub(crate) const FACTS: u32 = 1;

/// A capture of the lab with its frames changed.
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

/// Facts with something changed.
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
fn without_the_fallback_sensor_nothing_is_green_and_nothing_was_there_before() {
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
            said.contains("proves nothing: the fallback sensor is off"),
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

/// What the account on stderr says: printed, counted by the kernel, traced.
fn account(said: &str) -> [u64; 3] {
    let number = |before: &str, after: &str| -> u64 {
        let (_, rest) = said
            .split_once(before)
            .unwrap_or_else(|| panic!("{before}: {said}"));
        rest.split_once(after).unwrap().0.trim().parse().unwrap()
    };
    [
        number("fallback: ", " printed"),
        number("kernel counted ", ","),
        number(", traced ", "\n"),
    ]
}

#[test]
fn the_account_holds_when_the_reader_has_gone_and_when_the_disk_is_full() {
    if !may_trace("the_account_holds_when_the_reader_has_gone_and_when_the_disk_is_full") {
        return;
    }
    let (_dir, capture) = scratch("run.mpt");
    let mut command = Command::new("unshare");
    // In a namespace of its own nobody else falls back.
    command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "-"]);
    let mut words = vec![tracer().get_program().to_owned()];
    words.extend(["--capture".into(), capture.clone().into(), "--".into()]);
    // The command says something too: not to the reader that goes away.
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
    // The capture goes on to an orderly end: its replay has the same account.
    let replayed = run(["replay".as_ref(), capture.as_os_str()]);
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
