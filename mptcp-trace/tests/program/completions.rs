//! Completion in real shells, typed on a terminal.

use std::{
    fmt::Write as _,
    fs,
    io::{Seek as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use clap::{Arg, CommandFactory as _};
use mptcp_trace::cli::Cli;

use crate::common::run;

/// The file in the working directory of the shell; its name needs quotes.
const CAPTURE: &str = "odd name.mpt";

/// Lines to type, and what must appear after Tab.
fn cases() -> String {
    let mut cases = String::from("mptcp-trace re\treplay\treport\n");
    let pid = std::process::id();
    let netns = fs::read_link("/proc/self/ns/net").unwrap();
    let netns = netns
        .to_str()
        .unwrap()
        .trim_matches(|it: char| !it.is_ascii_digit());
    let mut program = Cli::command();
    program.build();
    let live = program.clone();
    let verbs = program
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help");
    for command in std::iter::once(&live).chain(verbs) {
        let line = match command.has_subcommands() {
            true => "mptcp-trace".to_owned(),
            false => format!("mptcp-trace {}", command.get_name()),
        };
        let mut case = |typed: &str, shown: &str| {
            // Writing to memory does not fail.
            let _infallible = writeln!(cases, "{line} {typed}\t{shown}");
        };
        let flags: Vec<&str> = command
            .get_arguments()
            .filter(|it| !it.is_hide_set())
            .filter_map(Arg::get_long)
            .collect();
        let shown: Vec<String> = flags.iter().map(|it| format!("--{it}")).collect();
        case("--", &shown.join("\t"));
        for flag in flags {
            match flag {
                "cause" => case(
                    "--cause ",
                    "DssFallback\tMPCapableFallbackSYNACK\tplain\tMPJoinRejected",
                ),
                "verdict" => case("--verdict ", "still-mptcp\tmisled"),
                "fail-on" => case("--fail-on ", "fallback\tnever-asked\tDssFallback"),
                "kind" => case(
                    "--kind ",
                    "fallback\tsocket-refused\tpath-failed\tpath\tall",
                ),
                "reset-reason" => case("--reset-reason ", "prohibited\tmiddlebox"),
                "pid" => case("--pid ", &pid.to_string()),
                "netns" => case("--netns ", netns),
                "by" => case("--by ", "dest\tprocess\tpath\tendpoint\tinterface"),
                "attach" => case("--attach ", "fexit\tkprobe"),
                "capture" | "replay" | "output" | "from" => {
                    case(&format!("--{flag} odd"), "odd\\ name.mpt");
                }
                _ => {}
            }
        }
        if command.get_arguments().any(|it| it.get_id() == "file") {
            case("odd", "odd\\ name.mpt");
        }
        if command
            .get_positionals()
            .any(|it| it.is_last_set() && !it.is_hide_set())
        {
            case("-- env -- cat odd", "odd\\ name.mpt");
        }
    }
    cases.push_str(
        "mptcp-trace list --cause=DssF\tDssFallback\n\
         mptcp-trace list --cause plain,DssF\tDssFallback\n\
         mptcp-trace replay --verdict stale,!misl\tmisled\n\
         mptcp-trace --capture=odd\todd\\ name.mpt\n\
         mptcp-trace explain Dss\tDssFallback\n\
         mptcp-trace explain dssf\tFallback\n\
         mptcp-trace completions \tbash\tzsh\tfish\n",
    );
    cases
}

fn starts(program: &str) -> bool {
    let mut version = Command::new(program);
    version.arg("--version").stdout(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

fn typed_into(shell: &str) {
    for needed in [shell, "python3"] {
        if !starts(needed) {
            println!("skipped: completion in {shell} needs {needed}");
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(CAPTURE), "").unwrap();
    let script = run(["completions", shell]);
    assert!(script.status.success());
    let file = folder.path().join("script");
    fs::write(&file, script.stdout).unwrap();
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(cases().as_bytes()).unwrap();
    input.rewind().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_mptcp-trace"));
    let typist = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/typist.py");
    let output = Command::new("python3")
        .arg(typist)
        .args([shell.as_ref(), file.as_os_str()])
        .arg(program.parent().unwrap())
        .current_dir(folder.path())
        .stdin(input)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
    );
}

#[test]
fn bash_completes_every_verb_with_its_flags_and_values() {
    typed_into("bash");
}

#[test]
fn zsh_completes_every_verb_with_its_flags_and_values() {
    typed_into("zsh");
}

#[test]
fn fish_completes_every_verb_with_its_flags_and_values() {
    typed_into("fish");
}

/// The user is typing: nothing but candidates may appear.
#[test]
fn candidates_come_without_noise() {
    for words in [
        &["--pid", ""][..],
        &["--netns", ""],
        &["replay", "--cgroup", ""],
    ] {
        let at = words.len().to_string();
        let asked = ["completions", "zsh", "--word", &at, "--", "mptcp-trace"];
        let output = run(asked.iter().chain(words));
        assert!(output.status.success(), "{words:?}");
        assert!(output.stderr.is_empty(), "{words:?}");
    }
}
