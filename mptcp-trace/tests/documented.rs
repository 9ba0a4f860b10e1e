//! docs/output.md names every verdict and every sensor, and another program understands the lines.
//! `tests/schema` compares its fields with the lines.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use mptcp_trace::model::{NeverTried, SensorId, Verdict, find_cause};

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

/// The texts between quotes in code, without its tests.
fn texts(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned))
        .collect()
}

#[test]
fn every_cause_that_the_decoder_names_is_explained() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/decode/path/why.rs");
    let named: Vec<String> = texts(&fs::read_to_string(path).unwrap())
        .into_iter()
        .filter(|it| !it.contains(' '))
        .collect();
    assert!(named.len() > 40, "{named:?}");
    for name in named {
        let found = find_cause(&name).map(|it| it.name);
        assert_eq!(found, Some(name.as_str()));
    }
}

#[test]
fn every_reason_for_a_single_path_is_documented() {
    let row = PAGE
        .lines()
        .find(|line| line.starts_with("| `never_tried`"));
    let documented: BTreeSet<&str> = row.unwrap().split('`').skip(3).step_by(2).collect();
    let known = NeverTried::ALL.map(NeverTried::name);
    let documented: BTreeSet<&str> = documented
        .into_iter()
        .filter(|it| *it != "mptcp-trace explain")
        .collect();
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

/// The table of exit codes is made from the one that the help prints; `UPDATE_GOLDENS=1` updates it.
#[test]
fn exit_codes_are_complete_in_the_help_and_on_the_page() {
    use clap::CommandFactory as _;
    use mptcp_trace::cli::{Cli, exit_codes};
    let mut program = Cli::command();
    program.build();
    let mut rows = String::from("| subcommand | code | meaning |\n|---|---|---|\n");
    for verb in program.get_subcommands_mut() {
        let name = verb.get_name().to_owned();
        let known = exit_codes::ALL.iter().find(|it| it.verb == name);
        let known = known.unwrap_or_else(|| panic!("{name} has no exit codes"));
        for (code, meaning) in known.codes {
            rows.push_str(&format!("| `{name}` | {code} | {meaning} |\n"));
            if name != "help" {
                let help = verb.render_long_help().to_string();
                let line = format!("  {code}  {meaning}");
                // Long lines are wrapped.
                let words = |text: &str| -> Vec<String> {
                    text.split_whitespace().map(str::to_owned).collect()
                };
                let (help, line) = (words(&help), words(&line));
                assert!(
                    help.windows(line.len()).any(|it| it == line),
                    "{name}: {line:?}"
                );
            }
        }
    }
    assert_eq!(program.get_subcommands().count(), exit_codes::ALL.len());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/output.md");
    let page = fs::read_to_string(&path).unwrap();
    const MARK: &str = "<!-- exit codes -->\n";
    let (before, rest) = page.split_once(MARK).unwrap();
    let (_old, after) = rest.split_once("\n\n").unwrap();
    let anew = format!("{before}{MARK}{rows}\n{after}");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&path, &anew).unwrap();
    } else {
        assert_eq!(page, anew);
    }
}
