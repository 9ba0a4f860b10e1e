//! `mptcp-trace top`: shows the current state of this host or of a capture on a terminal.

mod keys;
mod live;
mod record;
mod replay;
mod screen;

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    cli::{Exit, USAGE, args::TopArgs, interfaces, select},
    correlate,
    pipeline::{PeerBook, View},
    top::board::{Limits, Shared},
};

/// Interval between frames while no key is pressed.
const REFRESH: Duration = Duration::from_millis(250);

/// Runs the verb; returns the exit code.
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

/// Sends findings to the board.
fn view(args: &TopArgs, board: &Shared, is_replay: bool) -> anyhow::Result<View> {
    let mut whose = args.whose.clone();
    if !is_replay {
        // The BPF side already filtered by task.
        whose = Default::default();
    }
    Ok(View {
        wanted: select::wanted(&args.what, &args.which, &whose)?,
        limits: correlate::Limits {
            connections: usize::try_from(args.max_connections)?,
            ..correlate::Limits::STATED
        },
        observers: vec![Box::new(board.clone())],
        peers: match is_replay {
            true => PeerBook::default(),
            false => PeerBook::naming(interfaces::of_address),
        },
        ..View::default()
    })
}

/// The initial state.
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
