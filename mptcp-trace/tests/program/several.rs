//! A replay of several captures: their lines one after the other, their sums together.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::common::{json_lines, of_type, run, stderr};

fn session(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../captures/sessions");
    path.join(name).to_str().unwrap().to_owned()
}

/// The row of the only network in a table by destination of these captures.
fn row(files: &[&str]) -> Value {
    let output = run([&["replay", "-q", "--json", "--by", "dest"], files].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = json_lines(&output);
    // Each capture begins and ends, and the sums of all follow the last record.
    assert_eq!(of_type(&lines, "start").len(), files.len());
    assert_eq!(of_type(&lines, "end").len(), files.len());
    let tables = of_type(&lines, "summary");
    assert_eq!(tables.len(), 1);
    let rows = tables[0]["rows"].as_array().unwrap().clone();
    let mut rows = rows.into_iter().filter(|it| it["key"] == "10.77.0.0/24");
    let row = rows.next().unwrap();
    assert!(rows.next().is_none());
    row
}

#[test]
fn the_history_of_a_peer_rests_on_all_captures_and_each_connection_counts_once() {
    let without = ["path.mpt", "host.mpt", "cleared-synack.mpt"].map(session);
    let with = session("dead-path.mpt");
    let [a, b, c] = without.each_ref().map(String::as_str);
    let spoke = |mptcp, tcp| json!([{"over": "10.77.0.1", "mptcp": mptcp, "tcp": tcp}]);
    for (files, mptcp, tcp) in [
        (&[a][..], 0, 1),
        (&[a, b, c], 0, 3),
        (&[a, b, c, &with], 2, 3),
        (&[&with, c, b, a], 2, 3),
    ] {
        let row = row(files);
        assert_eq!(row["spoke"], spoke(mptcp, tcp), "{files:?}");
        assert_eq!(row["peer_or_path"], "unknown");
        assert!(row["connections"].as_u64().unwrap() >= mptcp + tcp);
    }
    // Captures of one run may overlap: dumps of the recorder.
    let folder = tempfile::tempdir().unwrap();
    let again = folder.path().join("again.mpt");
    fs::copy(&with, &again).unwrap();
    let (one, two) = (row(&[&with]), row(&[&with, again.to_str().unwrap()]));
    assert_eq!(one["spoke"], spoke(2, 0));
    assert_eq!(two["spoke"], one["spoke"]);
    assert_eq!(two["connections"], one["connections"]);
}

#[test]
fn lines_follow_each_other_and_a_limit_holds_for_all() {
    let files = [session("path.mpt"), session("host.mpt")];
    let lines = |more: &[&str], files: &[String]| {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let output = run([&["replay", "--time", "utc"], more, &files].concat());
        (String::from_utf8(output.stdout.clone()).unwrap(), output)
    };
    let (both, output) = lines(&[], &files);
    let apart = files
        .each_ref()
        .map(|it| lines(&[], std::slice::from_ref(it)).0);
    assert_eq!(both, apart.concat());
    // The account names the capture that it is about.
    let said = stderr(&output);
    for file in &files {
        assert!(said.contains(&format!("mptcp-trace: {file}:\n")), "{said}");
    }
    let of_first = apart[0].lines().filter(|it| !it.starts_with("--")).count();
    let limit = (of_first + 1).to_string();
    let (limited, _) = lines(&["--stop-after", &limit], &files);
    let findings = limited.lines().filter(|it| !it.starts_with("--")).count();
    assert_eq!(findings, of_first + 1, "{limited}");
    let (one, output) = lines(&["--stop-after", "1"], &files);
    assert_eq!(one.lines().filter(|it| !it.starts_with("--")).count(), 1);
    assert!(!stderr(&output).contains("host.mpt"), "{one}");
    let (sums, _) = lines(&["--stop-after", "1", "--by", "dest"], &files);
    assert_eq!(sums.matches("10.77.0.0/24").count(), 1, "{sums}");
}

#[test]
fn a_missing_or_incomplete_capture_fails_the_replay_and_is_named() {
    let whole = session("path.mpt");
    let missing = run(["replay", &whole, "/no/such.mpt"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/no/such.mpt"));
    assert!(missing.stdout.is_empty(), "nothing is half done");
    let twice = run(["replay", &whole, &whole]);
    assert_eq!(twice.status.code(), Some(2));
    assert!(stderr(&twice).contains("path.mpt is given twice"));
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.mpt");
    let bytes = fs::read(session("host.mpt")).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 20]).unwrap();
    let cut = cut.to_str().unwrap();
    for files in [[cut, &whole], [&whole, cut]] {
        let output = run([&["replay", "--by", "dest"], &files[..]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("cut.mpt"), "{}", stderr(&output));
        // What there is counts.
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.matches("10.77.0.0/24").count(), 1, "{text}");
    }
    let fails = ["replay", "-q", "--fail-on", "fallback", &whole];
    let found = run([&fails[..], &[&session("other-host.mpt")]].concat());
    assert_eq!(found.status.code(), Some(4));
}
