//! Compares the sessions in the documents with replays, and checks the names of what can be played.
//!
//! A block that follows `<!-- replay FILE WORDS... -->` must equal the output of that replay on a
//! terminal of [`COLUMNS`] columns, after the command if the block begins with one; one that follows
//! `<!-- pair CLIENT SERVER -->` that of the comparison. `UPDATE_GOLDENS=1` updates the blocks.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::PathBuf, process::Command};

/// The narrowest terminal that shows every column, and milliseconds.
const COLUMNS: &str = "128";

/// The pages, and how many sessions each has at least.
const PAGES: [(&str, usize); 3] = [
    ("docs/debugging.md", 15),
    ("README.md", 1),
    ("contrib/package/README.md", 1),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The output on a terminal, without colours: names of captures come first.
fn printed(verb: &str, words: &str) -> String {
    let options: &[&str] = match verb {
        "replay" => &["--utc", "--header"],
        "pair" => &["--utc"],
        _other => &[],
    };
    let words: Vec<&str> = words.split(' ').collect();
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"))
        .arg(verb)
        .args(options)
        .env("COLUMNS", COLUMNS)
        .current_dir(root().join("captures/sessions"))
        .args(&words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(!printed.is_empty(), "{words:?} prints nothing");
    printed.trim_end().to_owned() + "\n"
}

#[test]
fn the_sessions_print_what_the_pages_show() {
    const VERBS: [&str; 2] = ["replay", "pair"];
    const MARK: &str = "<!-- ";
    for (page, sessions_min) in PAGES {
        let path = root().join(page);
        let page = fs::read_to_string(&path).unwrap();
        let mut parts = page.split(MARK);
        let mut anew = parts.next().unwrap().to_owned();
        let mut sessions = 0;
        for part in parts {
            let verb = VERBS
                .into_iter()
                .find(|verb| part.starts_with(&format!("{verb} ")));
            let Some(verb) = verb else {
                anew.push_str(&format!("{MARK}{part}"));
                continue;
            };
            let part = &part[verb.len() + 1..];
            let (words, rest) = part.split_once(" -->\n```\n").unwrap();
            let (block, after) = rest
                .split_once("```\n")
                .unwrap_or_else(|| panic!("the block of {words} has no end"));
            let command = match block.split_once('\n') {
                Some((command, _)) if command.starts_with("$ ") => format!("{command}\n"),
                Some(_) | None => String::new(),
            };
            anew.push_str(&format!(
                "{MARK}{verb} {words} -->\n```\n{command}{}```\n{after}",
                printed(verb, words)
            ));
            sessions += 1;
        }
        assert!(sessions >= sessions_min, "where are the sessions?");
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            fs::write(&path, &anew).unwrap();
            continue;
        }
        assert_eq!(page, anew);
    }
}

/// Both pages for new users show the line on stderr too.
#[test]
fn the_last_line_is_that_of_the_pages() {
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"))
        .args(["replay", "--utc"])
        .arg(root().join("captures/sessions/path.mpt"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    for page in ["README.md", "contrib/package/README.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        assert!(text.contains(&said), "{page} lacks {said}");
    }
}

#[test]
fn what_the_page_says_to_play_can_be_played() {
    const VERB: &str = "cargo xtask play ";
    let known = mptcp_trace_lab::play::names();
    let mut named = 0;
    for page in ["CONTRIBUTING.md", "README.md"] {
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
