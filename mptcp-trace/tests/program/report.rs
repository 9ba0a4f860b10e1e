//! `mptcp-trace report`: writes a complete page or none, and reports errors.

use std::{fs, path::PathBuf, process::Output};

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
