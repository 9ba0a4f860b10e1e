//! What was typed, and what the program needs. The one owner of the exit code.

mod args;
mod ending;
mod examine;
mod files;
mod input;
mod options;
mod run;
mod select;
mod tracing;
mod verbs;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

pub use args::Cli;
use args::Verb;
use verbs::{bundle, demo, doctor, explain, list, live, replay, report, serve, top};

use crate::{
    host::system::{keep_little_free_memory, survive_requests},
    sink::escape,
};

/// Done.
const DONE: u8 = 0;
/// Failed.
const FAILED: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;
/// This kernel, or these privileges, cannot answer.
const CANNOT_ANSWER: u8 = 3;
/// There is a finding that shall fail the run.
const FOUND: u8 = 4;

/// No finding fails the run, but that proves nothing: something may have been missed.
const UNPROVEN: u8 = 5;

/// Why a verb ends early.
#[derive(Debug)]
enum Exit {
    /// With a sentence and a code.
    Because(u8, String),
    /// With a code that needs no words.
    Code(u8),
}

impl From<anyhow::Error> for Exit {
    fn from(why: anyhow::Error) -> Self {
        Self::Because(FAILED, format!("{why:#}"))
    }
}

/// Runs the program as it was typed.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let Cli {
        verb,
        live,
        verbose,
    } = cli;
    start_log(verbose);
    keep_little_free_memory();
    survive_requests();
    let done = match verb {
        None => live::run(live, verbose),
        Some(Verb::Live(args)) => live::run(args, verbose),
        Some(Verb::Replay(args)) => replay::run(&args),
        Some(Verb::Report(args)) => report::run(&args),
        Some(Verb::Serve(args)) => serve::run(&args, verbose),
        Some(Verb::Top(args)) => top::run(&args, verbose),
        Some(Verb::Doctor(args)) => doctor::run(&args, verbose),
        Some(Verb::List(args)) => list::run(&args, verbose),
        Some(Verb::Bundle(args)) => bundle::run(&args, verbose),
        Some(Verb::Demo(args)) => demo::run(&args, verbose),
        Some(Verb::Explain(args)) => explain::run(&args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Exit::Code(code)) => ExitCode::from(code),
        Err(Exit::Because(code, why)) => {
            // It may speak of a file's name, or of what is in the file.
            eprintln!("mptcp-trace: {}", escape(&why));
            ExitCode::from(code)
        }
    }
}

/// Prints a page to a reader that may have gone away.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(why) if why.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(why).context("cannot write to stdout")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A message, made fit for a terminal. Only what is for developers (`-vv`: the verifier's log) has several lines: they are
/// indented, so that none can be taken for a line of ours.
fn escape_message(level: log::Level, text: &str) -> String {
    if level < log::Level::Debug {
        return escape(text);
    }
    let lines: Vec<String> = text.lines().map(escape).collect();
    lines.join("\n    ")
}

/// Colours are wanted: stdout is a terminal, and `NO_COLOR` does not object.
fn wants_colour() -> bool {
    use std::io::IsTerminal as _;
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Messages go to stderr: warnings always, what is decided with `-v`, the kernel half's own with `-vv`.
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        // Ours and the kernel half's, which has the same name; not those of the libraries.
        .filter_module("mptcp_trace", level)
        .format(|out, record| {
            use std::io::Write as _;
            writeln!(
                out,
                "mptcp-trace: {}: {}",
                record.level().as_str().to_lowercase(),
                escape_message(record.level(), &record.args().to_string())
            )
        })
        .init();
}
