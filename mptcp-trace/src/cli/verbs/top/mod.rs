//! `mptcp-trace top`: what is so now, on a terminal, of this host or of a capture.

mod keys;
mod live;
mod replay;
mod screen;

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    cli::{Exit, USAGE, args::TopArgs, select},
    correlate,
    pipeline::View,
    top::board::{Limits, Shared},
};

/// How often the screen is drawn while nobody presses a key.
const REFRESH: Duration = Duration::from_millis(250);

/// Runs it; the exit code.
pub(in crate::cli) fn run(args: &TopArgs, verbose: u8) -> Result<u8, Exit> {
    let usage = |why: &str| Err(Exit::Because(USAGE, why.to_owned()));
    if !io::stdout().is_terminal() {
        return usage(
            "top needs a terminal, but stdout is not one; for a file or a pipe: mptcp-trace \
             --summary --duration 1m",
        );
    }
    if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        return usage(
            "top cannot draw on this terminal: TERM is unset or dumb; for plain lines: mptcp-trace",
        );
    }
    if args.follow && args.whose.pid.is_empty() {
        return usage("--follow needs a --pid to follow; see mptcp-trace top --help");
    }
    match &args.replay {
        Some(capture) => replay::run(args, capture),
        None => live::run(args, verbose),
    }
}

/// What is done with findings: they go to the board.
fn view(args: &TopArgs, board: &Shared, is_replay: bool) -> anyhow::Result<View> {
    let mut whose = args.whose.clone();
    if !is_replay {
        // Whose findings they are was decided in the kernel.
        whose = Default::default();
    }
    Ok(View {
        wanted: select::wanted(&args.which, &args.verdict, &whose)?,
        limits: correlate::Limits {
            connections: usize::try_from(args.max_connections)?,
            ..correlate::Limits::STATED
        },
        observers: vec![Box::new(board.clone())],
        ..View::default()
    })
}

/// Nothing seen yet.
fn board() -> Shared {
    Shared::new(Limits::STATED)
}

/// Time of day, in local time.
fn clock(time: SystemTime) -> String {
    let Ok(timestamp) = Timestamp::try_from(time) else {
        return "?".to_owned();
    };
    let zoned = timestamp.to_zoned_datetime(TimeZone::system());
    format!(
        "{:02}:{:02}:{:02}",
        zoned.hour(),
        zoned.minute(),
        zoned.second()
    )
}
