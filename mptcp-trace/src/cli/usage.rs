//! Command lines that clap refuses: what to type instead.

use std::os::unix::fs::MetadataExt as _;

use clap::{
    CommandFactory as _, Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{
    args::Cli,
    shell::{self, quoted},
    stdout,
};
use crate::filter::closest;

/// Ends with a usage error, or prints the help that was asked for.
pub(super) fn refuse(error: &clap::Error, words: &[String]) -> ! {
    if let Some(advice) = advice(error, words) {
        stderr_line!("error: {advice}\n\nFor more information, try '--help'.");
        std::process::exit(super::USAGE.into());
    }
    // An unwritable stderr is not an error: the exit code says enough.
    let print = || match error.use_stderr() {
        true => {
            let _unwritable = error.print();
            Ok(())
        }
        false => stdout::check().and_then(|()| stdout::done(error.print())),
    };
    let code = match print() {
        Ok(()) => error.exit_code(),
        Err(why) => {
            stderr_line!("mptcp-trace: {why:#}");
            i32::from(super::FAILED)
        }
    };
    std::process::exit(code)
}

/// One sentence and a command line, for mistakes that clap answers with its own terms. `words` are
/// the arguments as typed.
fn advice(error: &clap::Error, words: &[String]) -> Option<String> {
    let (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand) = error.kind() else {
        return None;
    };
    let invalid = error
        .get(ContextKind::InvalidArg)
        .or_else(|| error.get(ContextKind::InvalidSubcommand))?;
    let ContextValue::String(invalid) = invalid else {
        return None;
    };
    let verbs = verbs();
    let ours: Vec<&String> = words.iter().take_while(|word| *word != "--").collect();
    let is_verb = |word: &str| verbs.iter().any(|verb| verb == word);
    if let Some(at) = ours.iter().position(|word| is_verb(word))
        && at > 0
    {
        let mut moved = words.to_vec();
        let verb = moved.remove(at);
        moved.insert(0, verb.clone());
        return Some(match parses(&moved) {
            true => format!(
                "options stand after the subcommand; type:\n\n  {}",
                line(&moved)
            ),
            false => format!("options stand after the subcommand {verb}"),
        });
    }
    // A word where no word can stand: what follows a verb is up to clap.
    let first = ours.iter().position(|word| *word == invalid)?;
    if invalid.starts_with('-') || ours.iter().any(|word| is_verb(word)) {
        return None;
    }
    let names: Vec<&str> = verbs.iter().map(String::as_str).collect();
    if let Some(verb) = closest(invalid, &names) {
        let mut mended = words.to_vec();
        mended[first] = verb.to_owned();
        let sentence = format!("no subcommand {}: did you mean {verb}?", quoted(invalid));
        return Some(match parses(&mended) {
            true => format!("{sentence} Type:\n\n  {}", line(&mended)),
            false => sentence,
        });
    }
    // A capture, and not a program.
    if std::fs::metadata(invalid).is_ok_and(|it| it.is_file() && it.mode() & 0o111 == 0) {
        let mut replayed = words.to_vec();
        replayed.insert(0, "replay".to_owned());
        return Some(format!(
            "{} is a file, not a subcommand; to read a capture, type:\n\n  {}",
            quoted(invalid),
            line(&replayed)
        ));
    }
    let mut with_dashes = words.to_vec();
    with_dashes.insert(first, "--".to_owned());
    parses(&with_dashes).then(|| {
        format!(
            "no subcommand {}; to run a program and trace it, type:\n\n  {}",
            quoted(invalid),
            line(&with_dashes)
        )
    })
}

/// Names of the subcommands.
fn verbs() -> Vec<String> {
    let names = Cli::command();
    let names = names.get_subcommands().map(|it| it.get_name().to_owned());
    names.chain(["help".to_owned()]).collect()
}

/// True if this command line is understood.
fn parses(words: &[String]) -> bool {
    let program = "mptcp-trace".to_owned();
    Cli::try_parse_from(std::iter::once(&program).chain(words)).is_ok()
}

/// A command line that can be copied into a shell.
fn line(words: &[String]) -> String {
    let words = words.iter().map(String::as_str);
    shell::line(std::iter::once("mptcp-trace").chain(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(typed: &str) -> Option<String> {
        let words: Vec<String> = typed.split(' ').map(str::to_owned).collect();
        let program = "mptcp-trace".to_owned();
        let error = Cli::try_parse_from(std::iter::once(&program).chain(&words)).unwrap_err();
        advice(&error, &words)
    }

    #[test]
    fn a_mistake_is_answered_with_what_to_type() {
        for (typed, says) in [
            (
                "reply x",
                "did you mean replay? Type:\n\n  mptcp-trace replay x",
            ),
            ("exlpain DssFallback", "mptcp-trace explain DssFallback"),
            ("tpo", "did you mean top?"),
            (
                "curl https://example.com",
                "type:\n\n  mptcp-trace -- curl https://example.com",
            ),
            (
                "--json curl https://example.com",
                "mptcp-trace --json -- curl https://example.com",
            ),
            ("--json replay run.mpt", "mptcp-trace replay --json run.mpt"),
            ("--utc replay run.mpt", "mptcp-trace replay --utc run.mpt"),
            (
                "--pid 7 --json replay run.mpt",
                "mptcp-trace replay --pid 7 --json run.mpt",
            ),
            (
                "--follow replay run.mpt",
                "options stand after the subcommand replay",
            ),
            ("my program", "type:\n\n  mptcp-trace -- my program"),
        ] {
            let answer = answer(typed).unwrap_or_default();
            assert!(answer.contains(says), "{typed}: {answer}");
        }
    }

    #[test]
    fn a_file_is_to_be_replayed_and_a_program_to_be_run() {
        let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let said = answer(&format!("--json {capture}")).unwrap();
        assert!(
            said.ends_with(&format!("type:\n\n  mptcp-trace replay --json {capture}")),
            "{said}"
        );
        let said = answer("/bin/sh").unwrap();
        assert!(said.ends_with("mptcp-trace -- /bin/sh"), "{said}");
    }

    #[test]
    fn what_clap_explains_well_is_left_to_it() {
        for typed in [
            "doctor --jsn",
            "--jsno",
            "replay",
            "--duration x",
            "report a b",
        ] {
            assert_eq!(answer(typed), None, "{typed}");
        }
    }
}
