//! Command line: parses arguments, dispatches verbs, and owns the exit code.

mod args;
mod built;
mod colour;
mod ending;
mod examine;
pub mod exit_codes;
mod files;
mod input;
mod interfaces;
mod keep;
mod options;
mod output;
mod permission;
mod run;
mod select;
mod shell;
mod stdout;
mod talk;
mod terminal;
mod tracing;
mod usage;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

pub use args::Cli;
use args::{LiveArgs, Verb};
use stdout::print;
use verbs::{
    annotate, bundle, completions, demo, doctor, dump, explain, list, live, pair, probe, replay,
    report, schema, serve, top,
};

use crate::{
    host::{
        procfs,
        system::{keep_little_free_memory, survive_signals},
    },
    sink::{escape, without_error_numbers},
};

/// Success.
const DONE: u8 = 0;
/// Failure.
const FAILED: u8 = 1;
/// Usage error.
const USAGE: u8 = 2;
/// This kernel or these privileges cannot answer.
const CANNOT_ANSWER: u8 = 3;
/// A finding matched `--fail-on`.
const FOUND: u8 = 4;

/// No finding matched `--fail-on`, but one may have been missed.
const UNPROVEN: u8 = 5;

/// Why a verb ends early.
#[derive(Debug)]
enum Exit {
    /// With a message and an exit code.
    Because(u8, String),
    /// With an exit code and a message of several lines.
    Lines(u8, Vec<String>),
    /// With an exit code only.
    Code(u8),
}

impl From<anyhow::Error> for Exit {
    fn from(why: anyhow::Error) -> Self {
        Self::Because(FAILED, format!("{why:#}"))
    }
}

/// Parses the command line and runs the verb.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let words = std::env::args_os().skip(1);
        let words: Vec<String> = words.map(|it| it.to_string_lossy().into_owned()).collect();
        usage::refuse(&error, &words)
    });
    let Cli {
        verb,
        live,
        verbose,
        quiet,
        color,
    } = cli;
    colour::choose(color);
    talk::choose(quiet, verbose);
    start_log(verbose);
    keep_little_free_memory();
    survive_signals();
    let done = choose_procfs(verb.as_ref(), &live).and_then(|()| dispatch(verb, live, verbose));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Exit::Code(code)) => ExitCode::from(code),
        Err(Exit::Lines(code, lines)) => {
            for line in lines {
                stderr_line!("mptcp-trace: {}", escape(&line));
            }
            ExitCode::from(code)
        }
        Err(Exit::Because(code, why)) => {
            // The message may contain a file name, or text from a file.
            stderr_line!("mptcp-trace: {}", escape(&why));
            ExitCode::from(code)
        }
    }
}

/// Looks up processes where the command line says.
fn choose_procfs(verb: Option<&Verb>, live: &LiveArgs) -> Result<(), Exit> {
    let attach = match verb {
        Some(verb) => verb.attach(),
        None => Some(&live.attach),
    };
    match attach.and_then(|it| it.proc.as_deref()) {
        Some(dir) => Ok(procfs::choose(dir)?),
        None => Ok(()),
    }
}

/// Runs the verb; returns the exit code.
fn dispatch(verb: Option<Verb>, live: LiveArgs, verbose: u8) -> Result<u8, Exit> {
    match verb {
        None => live::run(live, verbose),
        Some(Verb::Live(args)) => live::run(args, verbose),
        Some(Verb::Replay(args)) => replay::run(&args),
        Some(Verb::Report(args)) => report::run(&args),
        Some(Verb::Annotate(args)) => annotate::run(&args),
        Some(Verb::Dump(args)) => dump::run(&args),
        Some(Verb::Pair(args)) => pair::run(&args),
        Some(Verb::Serve(args)) => serve::run(&args, verbose),
        Some(Verb::Top(args)) => top::run(&args, verbose),
        Some(Verb::Doctor(args)) => doctor::run(&args, verbose),
        Some(Verb::List(args)) => list::run(&args, verbose),
        Some(Verb::Bundle(args)) => bundle::run(&args, verbose),
        Some(Verb::Probe(args)) => probe::run(&args),
        Some(Verb::Demo(args)) => demo::run(&args, verbose),
        Some(Verb::Explain(args)) => explain::run(&args),
        Some(Verb::Schema) => schema::run(),
        Some(Verb::Completions(args)) => completions::run(&args),
    }
}

/// Escapes a message for a terminal. Only debug messages (`-vv`: the verifier's log) may have
/// several lines; these are indented, so that none looks like a message of ours.
fn escape_message(level: log::Level, text: &str) -> String {
    if level < log::Level::Debug {
        return escape(text);
    }
    let lines: Vec<String> = text.lines().map(escape).collect();
    lines.join("\n    ")
}

/// Logs to stderr: warnings always, decisions with `-v`, messages of the BPF programs with `-vv`.
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        // Messages of this crate and of the BPF programs, which share its name; not those of
        // libraries.
        .filter_module("mptcp_trace", level)
        .format(|out, record| {
            use std::io::Write as _;
            writeln!(
                out,
                "mptcp-trace: {}: {}",
                record.level().as_str().to_lowercase(),
                without_error_numbers(&escape_message(record.level(), &record.args().to_string()))
            )
        })
        .init();
}
