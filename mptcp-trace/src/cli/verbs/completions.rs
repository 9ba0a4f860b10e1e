//! `mptcp-trace completions`: the completion script of a shell, and the candidates for which the
//! script asks while the user types.
//!
//! The script knows no verb and no option: it passes the command line to the program, which answers
//! from clap's definitions. Neither needs privileges.

mod values;

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fmt::Write as _,
};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::{CompletionCandidate, engine};

use crate::cli::{
    Cli, DONE, Exit,
    args::{CompletionsArgs, Shell},
    print,
};

/// The script to source, or to install where the shell looks for it.
fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => include_str!("completions/script.bash"),
        Shell::Zsh => include_str!("completions/script.zsh"),
        Shell::Fish => include_str!("completions/script.fish"),
    }
}

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &CompletionsArgs) -> Result<u8, Exit> {
    match args.word {
        None => print(script(args.shell))?,
        Some(at) => print(&candidates(args.shell, args.words.clone(), at)?)?,
    }
    Ok(DONE)
}

/// The candidates for the word at this index, as lines of value, tab and description.
fn candidates(shell: Shell, mut words: Vec<OsString>, at: usize) -> anyhow::Result<String> {
    words.truncate(at + 1);
    let joined = match shell {
        Shell::Bash => join_assignment(&mut words),
        Shell::Zsh | Shell::Fish => String::new(),
    };
    let at = words.len().checked_sub(1).context("no word to complete")?;
    let mut command = values::offered(Cli::command());
    if let Some(end) = words[..at].iter().position(|word| word == "--") {
        let takes_command = verb(&command, &words[1..end])
            .get_positionals()
            .any(clap::Arg::is_last_set);
        return Ok(match takes_command {
            true => format!("{}\n", values::COMMAND),
            false => String::new(),
        });
    }
    let is_empty = words[at].is_empty();
    let listed = Listed::in_word(&text_of(&words[at]));
    let mut found = engine::complete(&mut command, words, at, None)?;
    // Flags are offered once a dash is typed, or if nothing else can follow.
    if is_empty && !found.iter().all(is_flag) {
        found.retain(|candidate| !is_flag(candidate));
    }
    found.retain(|candidate| !listed.repeats(&text_of(candidate.get_value())));
    Ok(lines(&found, &joined))
}

/// The values before the last comma of a word.
struct Listed {
    /// The word up to its last comma, with which each candidate begins.
    head: String,
    values: Vec<String>,
}

impl Listed {
    fn in_word(word: &str) -> Self {
        let (head, _typed) = word.rsplit_once(',').unwrap_or_default();
        let list = head.split_once('=').map_or(head, |(_flag, list)| list);
        Self {
            head: head.to_owned(),
            values: list.split(',').map(value_in_list).collect(),
        }
    }

    /// True if the last value of this candidate is in the list already.
    fn repeats(&self, candidate: &str) -> bool {
        let last = candidate.strip_prefix(self.head.as_str());
        let last = last.and_then(|it| it.strip_prefix(','));
        last.is_some_and(|it| self.values.contains(&value_in_list(it)))
    }
}

/// A value, in lower case, without the `!` that leaves it out.
fn value_in_list(text: &str) -> String {
    text.strip_prefix('!').unwrap_or(text).to_ascii_lowercase()
}

fn is_flag(candidate: &CompletionCandidate) -> bool {
    candidate.get_value().as_encoded_bytes().starts_with(b"-")
}

/// The command that these words select.
fn verb<'a>(command: &'a Command, words: &[OsString]) -> &'a Command {
    let named = |word: &OsString| command.find_subcommand(word);
    words.iter().find_map(named).unwrap_or(command)
}

/// bash splits `--flag=value` in three. Joins them, and returns the part that bash keeps.
fn join_assignment(words: &mut Vec<OsString>) -> String {
    let last = |nth: usize, words: &[OsString]| {
        let at = words.len().checked_sub(nth);
        at.and_then(|at| words.get(at)?.to_str().map(str::to_owned))
    };
    let Some(mut value) = last(1, words) else {
        return String::new();
    };
    let assigned = if value == "=" {
        value.clear();
        words.pop();
        true
    } else if last(2, words).as_deref() == Some("=") {
        words.truncate(words.len() - 2);
        true
    } else {
        false
    };
    match words.last_mut() {
        Some(flag) if assigned => {
            flag.push("=");
            let kept = flag.to_string_lossy().into_owned();
            flag.push(value);
            kept
        }
        Some(_) | None => String::new(),
    }
}

fn lines(found: &[CompletionCandidate], joined: &str) -> String {
    let mut text = String::new();
    for candidate in found {
        let value = text_of(candidate.get_value());
        let value = value.strip_prefix(joined).unwrap_or(&value);
        let about = candidate.get_help().map(ToString::to_string);
        let about = about.as_deref().and_then(|it| it.lines().next());
        // Writing to memory does not fail.
        let _infallible = writeln!(text, "{value}\t{}", about.unwrap_or_default());
    }
    text
}

fn text_of(value: &OsStr) -> Cow<'_, str> {
    value.to_string_lossy()
}

#[cfg(test)]
mod tests;
