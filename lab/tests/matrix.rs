//! `mptcp-lab matrix` with a correct tracer, and with tracers that are each wrong in one way.

#![expect(
    clippy::unwrap_used,
    reason = "what fails in a test is a failed test, in its helpers too"
)]

use std::process::Command;

use mptcp_trace_lab::report::{MatrixLine, Outcome};

/// One run: exit code, the cells that are not `ok` as `case outcome`, and the number of those that
/// are.
fn matrix(mode: &str) -> Option<(i32, Vec<String>, u64)> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root for a network namespace of its own");
        return None;
    }
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3 to play the tracer");
        return None;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-lab"))
        .args(["matrix", "--attach", "fexit", "--tracer"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake_tracer.py"))
        .args([
            "--case",
            "tcp",
            "--case",
            "optlen-tcp",
            "--case",
            "thread-tcp",
        ])
        .args(["--case", "32bit-tcp", "--case", "other"])
        .env("FAKE_TRACER", mode)
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let mut cells = Vec::new();
    let mut summary = None;
    for line in stdout.lines() {
        match serde_json::from_str(line).unwrap() {
            MatrixLine::Cell(cell) if cell.outcome != Outcome::Ok => {
                println!("{mode}: {cell:?}");
                cells.push(format!("{} {:?}", cell.case, cell.outcome));
            }
            MatrixLine::Summary { ok, .. } => summary = Some(ok),
            MatrixLine::Cell(_)
            | MatrixLine::Flood(_)
            | MatrixLine::Phase(_)
            | MatrixLine::Host { .. } => {}
            MatrixLine::Failed { why } => cells.push(why),
        }
    }
    if cells.iter().any(|cell| cell.starts_with("no-mptcp")) {
        println!("skipped: this kernel is built without MPTCP");
        return None;
    }
    Some((output.status.code().unwrap(), cells, summary.unwrap()))
}

#[test]
fn a_right_tracer_passes() {
    let Some((code, cells, ok)) = matrix("right") else {
        return;
    };
    assert_eq!(code, 0);
    // Not every kernel runs 32-bit programs.
    assert!(
        cells.iter().all(|cell| cell.contains("Skipped")),
        "{cells:?}"
    );
    assert!(ok > 20, "{ok}");
}

#[test]
fn each_way_of_being_wrong_fails() {
    for mode in [
        "missing",
        "doubled",
        "wrong",
        "swapped",
        "unbalanced",
        "panics",
        "crashes",
    ] {
        let Some((code, cells, _ok)) = matrix(mode) else {
            return;
        };
        assert_eq!(code, 1, "{mode}");
        let found = cells.iter().any(|cell| cell.contains("Mismatch"));
        assert!(found, "{mode}: {cells:?}");
    }
}

#[test]
fn a_doubled_line_is_the_only_one_that_is_blamed() {
    let Some((_code, cells, _ok)) = matrix("doubled") else {
        return;
    };
    let mismatches = cells.iter().filter(|cell| cell.contains("Mismatch"));
    let extra = cells.iter().filter(|cell| *cell == "extra Mismatch");
    assert_eq!(extra.count(), 1, "{cells:?}");
    // In addition at most the odd lengths of the same socket, which arrive one query late.
    assert!(mismatches.count() <= 8, "{cells:?}");
}

#[test]
fn a_rung_that_is_not_to_be_had_is_no_failure_but_one_that_misses_32_bit_programs_is() {
    let Some((code, cells, _ok)) = matrix("cannot") else {
        return;
    };
    assert_eq!((code, cells), (0, vec!["rung Unavailable".to_owned()]));
    let Some((code, cells, _ok)) = matrix("no-32bit") else {
        return;
    };
    if cells.iter().any(|cell| cell.contains("Skipped")) {
        println!("skipped: no 32-bit program was served");
        return;
    }
    assert_eq!(code, 1, "{cells:?}");
}
