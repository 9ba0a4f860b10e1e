//! The recipes on the running kernel without a tracer, and the comparison with a tracer that sees
//! nothing.

#![expect(
    clippy::unwrap_used,
    reason = "what fails in a test is a failed test, in its helpers too"
)]

use std::process::{Command, Output};

use mptcp_trace_lab::{
    findings::Played,
    report::{Cell, MatrixLine, Outcome},
};

/// Runs the lab; none if it cannot run, after printing the reason.
fn lab(arguments: &[&str], mode: &str) -> Option<Output> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root for network namespaces of its own");
        return None;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-lab"))
        .args(arguments)
        .env("SILENT_TRACER", mode)
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    Some(output)
}

/// Runs the lab with the tracer that sees nothing; returns whether every check passes, and the
/// cells.
fn under_tracer(arguments: &[&str], mode: &str) -> Option<(bool, Vec<Cell>)> {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3 to play the tracer");
        return None;
    }
    let tracer = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/silent_tracer.py");
    let with_tracer = ["--tracer", tracer, "--attach", "fexit"];
    let output = lab(&[arguments, &with_tracer].concat(), mode)?;
    let cells: Vec<Cell> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| match serde_json::from_str(line).unwrap() {
            MatrixLine::Cell(cell) => Some(cell),
            MatrixLine::Host { .. }
            | MatrixLine::Flood(_)
            | MatrixLine::Phase(_)
            | MatrixLine::Failed { .. }
            | MatrixLine::Summary { .. } => None,
        })
        .collect();
    if cells
        .iter()
        .any(|cell| cell.why.contains("no MPTCP socket"))
    {
        println!("skipped: {cells:?}");
        return None;
    }
    Some((output.status.success(), cells))
}

fn outcome(cells: &[Cell], case: &str) -> Outcome {
    cells.iter().find(|cell| cell.case == case).unwrap().outcome
}

#[test]
fn the_kernel_counts_for_every_recipe_what_the_table_says() {
    let Some(output) = lab(&["provoke"], "") else {
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        let played: Played = serde_json::from_str(line).unwrap();
        if let Some(why) = &played.scene.skipped {
            println!("{} is skipped: {why}", played.case());
            continue;
        }
        assert!(played.scene.wrong.is_empty(), "{played:?}");
    }
    assert!(output.status.success());
}

#[test]
fn a_tracer_that_sees_nothing_is_right_only_where_there_is_nothing_to_be_seen() {
    let recipes = [
        "fallbacks",
        "--recipe",
        "healthy",
        "--recipe",
        "self-connect",
    ];
    let Some((right, cells)) = under_tracer(&recipes, "silent") else {
        return;
    };
    assert!(!right);
    for case in ["self-connect-v4", "self-connect-v6", "reconciliation"] {
        // A kernel without the counter has nothing to reconcile.
        let is_old = case == "reconciliation" && outcome(&cells, case) == Outcome::Ok;
        assert!(
            is_old || outcome(&cells, case) == Outcome::Mismatch,
            "{cells:?}"
        );
    }
    // Skipped where neither veth nor netkit is available for a middlebox.
    assert_ne!(outcome(&cells, "healthy-v4"), Outcome::Mismatch);
    assert_eq!(outcome(&cells, "identity"), Outcome::Ok);
}

#[test]
fn a_rung_that_is_not_to_be_had_and_a_tracer_that_fails_are_told_apart() {
    for (mode, case, expected) in [
        ("cannot", "rung", Outcome::Unavailable),
        ("crashes", "run", Outcome::Mismatch),
    ] {
        let Some((right, cells)) = under_tracer(&["fallbacks"], mode) else {
            return;
        };
        assert_eq!(right, expected == Outcome::Unavailable);
        assert_eq!(outcome(&cells, case), expected);
        assert!(cells[0].why.contains("fake"), "{cells:?}");
    }
}

#[test]
fn a_mix_and_a_reuse_that_nobody_saw_are_wrong() {
    let Some((right, cells)) = under_tracer(&["mix", "--connections", "48"], "silent") else {
        return;
    };
    assert!(!right);
    assert_eq!(outcome(&cells, "mix-clean"), Outcome::Mismatch);
    let reuse = ["reuse", "--connections", "400"];
    let Some((right, cells)) = under_tracer(&reuse, "silent") else {
        return;
    };
    assert!(!right);
    let cell = &cells[0];
    assert_eq!(cell.outcome, Outcome::Mismatch);
    assert!(
        cell.why.contains("200 connections without a line"),
        "{cell:?}"
    );
    assert!(cell.caller.contains("200 counted"), "{cell:?}");
}
