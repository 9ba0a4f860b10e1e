//! Compares the sessions in docs/debugging.md with replays, and checks the names of what can be
//! played.
//!
//! A block of the page that follows `<!-- replay FILE WORDS... -->` must equal the output of that
//! replay; `UPDATE_GOLDENS=1` updates the blocks.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::PathBuf, process::Command};

const HEADER: &str =
    "TIME                PID COMM            WHAT           AFTER STATE       LOCAL -> REMOTE\n";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The output on a terminal, without colours.
fn replayed(words: &str) -> String {
    let mut words = words.split(' ');
    let capture = root().join("captures/sessions").join(words.next().unwrap());
    let words: Vec<&str> = words.collect();
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"))
        .args(["replay", "--utc"])
        .arg(&capture)
        .args(&words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(!printed.is_empty(), "{words:?} prints nothing");
    if words.contains(&"--by") {
        printed.trim_end().to_owned() + "\n"
    } else {
        HEADER.to_owned() + &printed
    }
}

#[test]
fn the_sessions_print_what_the_page_shows() {
    const MARK: &str = "<!-- replay ";
    let path = root().join("docs/debugging.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut parts = page.split(MARK);
    let mut anew = parts.next().unwrap().to_owned();
    let mut sessions = 0;
    for part in parts {
        let (words, rest) = part.split_once(" -->\n```\n").unwrap();
        let (_, after) = rest
            .split_once("```\n")
            .unwrap_or_else(|| panic!("the block of {words} has no end"));
        anew.push_str(&format!(
            "{MARK}{words} -->\n```\n{}```\n{after}",
            replayed(words)
        ));
        sessions += 1;
    }
    assert!(sessions >= 6, "where are the sessions?");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&path, &anew).unwrap();
        return;
    }
    assert_eq!(page, anew);
}

#[test]
fn what_the_page_says_to_play_can_be_played() {
    const VERB: &str = "cargo xtask play ";
    let known = mptcp_trace_lab::play::names();
    let mut named = 0;
    for page in ["docs/debugging.md", "README.md"] {
        let page = fs::read_to_string(root().join(page)).unwrap();
        for part in page.split(VERB).skip(1) {
            let end = part.find(['`', '\n']).unwrap();
            for name in part[..end].split(' ') {
                assert!(known.contains(&name), "{name} cannot be played");
                named += 1;
            }
        }
    }
    assert!(named >= 6, "where are they?");
}
