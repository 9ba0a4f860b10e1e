//! `top` without a user: without a terminal, and with a capture on a pseudo-terminal from `script`.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use rustix::process::geteuid;

use crate::common::{may_trace, run, stderr, until};

/// Sequences that must come last: leave the alternate screen, show the cursor.
const GIVEN_BACK: [&str; 2] = ["\u{1b}[?1049l", "\u{1b}[?25h"];

fn capture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures/7.3-fexit/fallbacks.mpt")
}

/// Runs it on a terminal of 80 columns and sends keys; `None` if `script` is not installed.
fn on_terminal(arguments: &str, keys: &[&str]) -> Option<Output> {
    on_terminal_by(arguments, "exec ", keys)
}

/// Variant of [`on_terminal`] with a word of the shell before the program.
fn on_terminal_by(arguments: &str, before: &str, keys: &[&str]) -> Option<Output> {
    let tracer = env!("CARGO_BIN_EXE_mptcp-trace");
    let command = format!("stty rows 24 cols 80; {before}{tracer} top {arguments}");
    let child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: top: there is no script; Debian: apt-get install bsdutils");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    for key in keys {
        sleep(Duration::from_millis(700));
        stdin.write_all(key.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    Some(output)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let output = run(["top"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--summary"), "{}", stderr(&output));
}

#[test]
fn a_capture_is_played_to_its_end_and_the_terminal_given_back() {
    let capture = capture();
    let arguments = format!("--replay {} --speed 16", capture.display());
    let Some(output) = on_terminal(&arguments, &["$", "3", "q"]) else {
        return;
    };
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for wanted in ["mptcp-trace top", "fallbacks.mpt", "END", "DECEIVED"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    for wanted in GIVEN_BACK {
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn a_replay_explains_rows_lists_its_keys_and_records_nothing() {
    let capture = capture();
    let arguments = format!("--replay {}", capture.display());
    let Some(output) = on_terminal(&arguments, &["$", "w", "e", "q", "?", "q", "q"]) else {
        return;
    };
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for wanted in ["nothing to record", "Explanation of", "Down, PgDn"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    // The mouse is in use only on request.
    assert!(!text.contains("\u{1b}[?1000h"), "{text}");
}

#[test]
fn a_capture_of_top_gets_a_file_where_root_may_not_write_and_no_more_privileges() {
    const DAC_OVERRIDE: u64 = 1 << 1;
    if !may_trace("a capture of top") || !geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("theirs");
    fs::create_dir(&place).unwrap();
    chown(&place, Some(65_534), Some(65_534)).unwrap();
    let pid_file = folder.path().join("pid");
    let pid = || -> Option<u32> { fs::read_to_string(&pid_file).ok()?.trim().parse().ok() };
    let tracer = env!("CARGO_BIN_EXE_mptcp-trace");
    let command = format!(
        "stty rows 24 cols 80; cd {}; echo $$ > {}; exec {tracer} top",
        place.display(),
        pid_file.display()
    );
    let child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: top: there is no script; Debian: apt-get install bsdutils");
        return;
    };
    let mut stdin = child.stdin.take().unwrap();
    let caps = |name: &str| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).ok()
    };
    // Everything else is dropped before the first frame.
    until("top drops its privileges", || {
        caps("CapPrm").is_some_and(|it| it < 1 << 20)
    });
    assert_eq!(caps("CapPrm").unwrap() & DAC_OVERRIDE, DAC_OVERRIDE);
    assert_eq!(caps("CapEff").unwrap() & DAC_OVERRIDE, 0);
    for key in ["w", "\r", "w", "q"] {
        sleep(Duration::from_millis(1500));
        assert_eq!(caps("CapEff").unwrap() & DAC_OVERRIDE, 0);
        stdin.write_all(key.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let files: Vec<PathBuf> = fs::read_dir(&place)
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    let [file] = &files[..] else {
        panic!("{files:?}: {text}");
    };
    assert_eq!(
        fs::metadata(file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let replayed = run(["replay", file.to_str().unwrap()]);
    assert_eq!(replayed.status.code(), Some(0), "{}", stderr(&replayed));
    assert!(
        stderr(&replayed).contains("0 lost"),
        "{}",
        stderr(&replayed)
    );
}

#[test]
fn back_is_from_the_beginning_and_a_signal_gives_the_terminal_back() {
    let capture = capture();
    let arguments = format!("--replay {}", capture.display());
    let Some(output) = on_terminal(&arguments, &["$", "0", " ", "\u{3}"]) else {
        return;
    };
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("PAUSED"), "{text}");
    assert!(text.contains("[0:00 of 0:"), "{text}");
    assert!(text.contains(GIVEN_BACK[0]), "{text}");
}

#[test]
fn a_deadly_signal_restores_the_terminal_and_ends_it() {
    let arguments = format!("--replay {}", capture().display());
    for (signal, number) in [
        ("QUIT", 3),
        ("ABRT", 6),
        ("ALRM", 14),
        ("PWR", 30),
        ("40", 40),
    ] {
        // A test that runs in the background of a script inherits that QUIT is ignored.
        let before = format!("(sleep 1; kill -{signal} $$) & exec env --default-signal={signal} ");
        let Some(output) = on_terminal_by(&arguments, &before, &[]) else {
            return;
        };
        let text = text(&output);
        assert_eq!(output.status.code(), Some(128 + number), "{signal}: {text}");
        assert!(text.contains(GIVEN_BACK[0]), "{signal}: {text}");
    }
    // An ignored signal stays so.
    let before = "trap '' QUIT; (sleep 1; kill -QUIT $$) & exec ";
    let output = on_terminal_by(&arguments, before, &[" ", " ", " ", "q"]).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn a_panic_restores_the_terminal_first() {
    let capture = capture();
    let arguments = format!("--replay {} --panic", capture.display());
    let Some(output) = on_terminal(&arguments, &[]) else {
        return;
    };
    let text = text(&output);
    assert_eq!(output.status.code(), Some(101), "{text}");
    let back = text.rfind(GIVEN_BACK[0]).unwrap();
    let said = text.find("panicked, as --panic requests").unwrap();
    assert!(back < said, "{text}");
}

#[test]
fn what_is_no_capture_is_refused_and_what_is_cut_off_is_played_and_said() {
    let Some(output) = on_terminal("--replay /dev/null", &[]) else {
        return;
    };
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot replay /dev/null"), "{said}");
    assert!(!said.contains("\u{1b}[?1049h"), "{said}");

    let directory = tempfile::tempdir().unwrap();
    let short = directory.path().join("short.mpt");
    let bytes = fs::read(capture()).unwrap();
    fs::write(&short, &bytes[..bytes.len() / 2]).unwrap();
    let arguments = format!("--replay {}", short.display());
    let output = on_terminal(&arguments, &["$", "q"]).unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cut off here"), "{said}");
    assert!(said.contains("is cut off after"), "{said}");
}
