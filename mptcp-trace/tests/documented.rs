//! docs/output.md names every verdict and every sensor, and another program understands the lines.
//! `tests/schema` compares its fields with the lines.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use mptcp_trace::model::{SensorId, Verdict};

const PAGE: &str = include_str!("../../docs/output.md");

#[test]
fn every_verdict_is_documented_and_no_other() {
    let start = PAGE.find("Verdicts:").unwrap();
    let section = &PAGE[start..PAGE.find("### `verdict`").unwrap()];
    let documented: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split(" |").next())
        .filter(|word| *word != "verdict")
        .collect();
    let known: BTreeSet<&str> = Verdict::ALL.iter().map(|verdict| verdict.name()).collect();
    assert_eq!(documented, known);
}

#[test]
fn every_sensor_is_documented_and_no_other() {
    let of_name = |line: &str| line.starts_with("| `sensor` | string | its name:");
    let line = PAGE.lines().find(|line| of_name(line)).unwrap();
    let documented: BTreeSet<&str> = line.split('`').skip(1).step_by(2).skip(1).collect();
    let known = SensorId::ALL.map(SensorId::name);
    assert_eq!(documented, BTreeSet::from(known));
}

/// The reader is an independent program, and reaches the same verdicts from the lines alone.
#[test]
fn a_reader_in_another_language_understands_the_lines() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: no python3");
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |capture: &Path| -> String {
        let mut replay = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"))
            .args(["replay", "--json"])
            .arg(capture)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Command::new("python3")
            .arg(here.join("tests/reader.py"))
            .stdin(replay.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(replay.wait().unwrap().success());
        assert!(
            output.status.success(),
            "{}: {}",
            capture.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let captures = here.join("../captures");
    for folder in captures.read_dir().unwrap() {
        for file in folder.unwrap().path().read_dir().into_iter().flatten() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|it| it == "mpt") {
                read(&file);
            }
        }
    }
    assert_eq!(
        read(&captures.join("sessions/program.mpt")),
        "stale=2 still-mptcp=2\n"
    );
}
