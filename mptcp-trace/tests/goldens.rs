//! Captures of real kernels, replayed: the same lines for ever, without privileges.
//!
//! `UPDATE_GOLDENS=1 cargo test -p mptcp-trace --test goldens` writes the expected output anew; read the
//! difference before you commit it.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn captures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures");
    let mut captures: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|folder| ["queries.mpt", "fallbacks.mpt"].map(|name| folder.join(name)))
        .filter(|capture| capture.exists())
        .collect();
    captures.sort();
    assert!(captures.len() >= 14, "where are the captures?");
    captures
}

fn replay(capture: &Path, how: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mptcp-trace"))
        .args(["replay", how])
        .arg(capture)
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn replays_print_what_they_always_printed() {
    for capture in captures() {
        for (how, extension) in [("--json", "jsonl"), ("--utc", "txt")] {
            let printed = replay(&capture, how);
            assert_eq!(printed, replay(&capture, how), "two replays differ");
            let golden = capture.with_extension(extension);
            if std::env::var_os("UPDATE_GOLDENS").is_some() {
                fs::write(&golden, &printed).unwrap();
            }
            let expected = fs::read_to_string(&golden).unwrap();
            assert_eq!(printed, expected, "{}", golden.display());
        }
    }
}

/// What a program was told does not depend on how we looked.
#[test]
fn the_rungs_of_one_kernel_saw_the_same() {
    let told = |capture: &Path| -> Vec<String> {
        replay(capture, "--json")
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["type"] == "query")
            .map(|line| {
                let field = |name: &str| line["data"][name].to_string();
                let fields = [
                    "answer",
                    "errno",
                    "fell_back",
                    "protocol",
                    "family",
                    "state",
                ];
                fields.map(field).join(" ")
            })
            .collect()
    };
    for kernel in ["6.1", "6.12"] {
        let of = |rung: &str| {
            let folder = format!("../captures/{kernel}-{rung}/queries.mpt");
            told(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        };
        let fexit = of("fexit");
        assert_eq!(fexit.len(), 44);
        assert_eq!(fexit, of("kprobe"), "{kernel}");
        assert_eq!(fexit, of("tracepoint"), "{kernel}");
    }
}

/// Why connections fell back does not depend on how we looked, except for what a rung says that it cannot tell.
#[test]
fn the_rungs_of_one_kernel_saw_the_same_fallbacks() {
    let told = |kernel: &str, rung: &str| -> Vec<String> {
        let folder = format!("../captures/{kernel}-{rung}/fallbacks.mpt");
        let mut told: Vec<String> = replay(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            "--json",
        )
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| {
            ["fallback", "plain", "blackhole"]
                .iter()
                .any(|it| line["type"] == *it)
        })
        .map(|line| {
            let data = &line["data"];
            let what = match (line["type"].as_str(), data["known"].as_str()) {
                // Which of the two it was is what this rung cannot tell.
                (Some("plain"), Some("unknown")) => "plain or third ACK".to_owned(),
                _ => format!("{} {}", line["type"], data["cause"]),
            };
            format!("{what} {} {}", data["side"], data["owner"]["comm"])
        })
        .collect();
        told.sort();
        told
    };
    let plain = |told: &[String]| -> Vec<String> {
        let mut told: Vec<String> = told
            .iter()
            .map(|line| {
                // Where no tracepoint tells of sending and receiving, whoever accepted is the owner.
                line.replace("lab-s-child", "lab-server")
                    .replace("\"plain\" null", "plain or third ACK")
                    .replace(
                        "\"fallback\" \"MPCapableFallbackACK\"",
                        "plain or third ACK",
                    )
            })
            .collect();
        told.sort();
        told
    };
    for kernel in ["6.1", "6.12"] {
        let fexit = told(kernel, "fexit");
        assert!(fexit.len() >= 10, "{fexit:?}");
        assert_eq!(fexit, told(kernel, "kprobe"), "{kernel}");
        assert_eq!(
            plain(&fexit),
            plain(&told(kernel, "tracepoint")),
            "{kernel}"
        );
    }
}
