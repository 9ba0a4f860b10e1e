//! The paths of an open connection, live.

use std::thread;

use anyhow::Context as _;

use super::{Args, PATIENCE, Terminal};
use crate::{cells::judged, net::Family, paths, report::Cell};

/// A recipe whose connection transfers data over two paths, and is open for some seconds.
const RECIPE: &str = "iface-down";
/// An address of its second path.
const SECOND: &str = "10.78.0.1";

/// While a connection is open, its paths must show bytes and rates that no event of them has.
pub(super) fn read(args: &Args, terminal: &Terminal) -> anyhow::Result<Cell> {
    let mut wrong = Vec::new();
    let screen = thread::scope(|scope| {
        let playing = scope.spawn(|| paths::play_one(RECIPE, Family::V4));
        let screen = opened(terminal);
        let played = playing.join().ok().context("the play panicked")?;
        wrong.extend(played.err().map(|why| format!("{why:#}")));
        screen
    })?;
    for word in ["; read ", " sent (", "/s), "] {
        if !screen.contains(word) {
            wrong.push(format!("{word:?} is not on the screen:\n{screen}"));
        }
    }
    terminal.keys(&["Escape", "Escape", "1"])?;
    terminal.until("STATE")?;
    let got = if wrong.is_empty() {
        "live"
    } else {
        "otherwise"
    };
    let rung = &args.tried.attach;
    Ok(judged("watched-paths", rung, "live", got, wrong))
}

/// Opens the connection that has a path from that address; returns the screen once it has rates.
fn opened(terminal: &Terminal) -> anyhow::Result<String> {
    terminal.keys(&["1", "/"])?;
    for letter in SECOND.chars() {
        terminal.keys(&[&letter.to_string()])?;
    }
    terminal.keys(&["Enter"])?;
    terminal.until("10.77.0.")?;
    terminal.keys(&["o"])?;
    terminal.until("Paths of")?;
    let look = || terminal.screen();
    PATIENCE.last(look, |screen| Ok(screen.contains("/s), ")))
}
