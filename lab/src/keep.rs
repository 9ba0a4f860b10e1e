//! Artifacts of a run for the repository's captures: the capture and the lines printed live, as a
//! line of the report. A virtual machine has no other output than its results port.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    compare::{mismatch, ok},
    report::{Cell, write_line},
    scratch::Scratch,
    tracer::Said,
};

/// A capture file in progress.
pub(crate) struct Capture(Scratch);

/// A line of the report.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Line<'a> {
    /// Artifacts of one run.
    Capture {
        /// Subcommand of the lab.
        name: &'a str,
        rung: &'a str,
        /// Bytes of the capture, in hexadecimal.
        capture: String,
        /// Lines printed live.
        lines: &'a str,
    },
}

impl Capture {
    /// Creates a path for a new capture.
    pub(crate) fn new() -> Self {
        Self(Scratch::new("capture"))
    }

    fn path(&self) -> &Path {
        &self.0.0
    }

    /// Arguments that make the tracer write it.
    pub(crate) fn arguments(&self) -> anyhow::Result<[String; 2]> {
        let path = self.path().to_str();
        let path = path.context("the capture's path is not UTF-8")?;
        Ok(["--capture".to_owned(), path.to_owned()])
    }

    /// Writes it to the report, with the lines printed live.
    pub(crate) fn keep(&self, name: &str, rung: &str, said: &Said) -> anyhow::Result<()> {
        let path = self.path().display();
        let bytes = fs::read(self.path()).with_context(|| format!("cannot read back {path}"))?;
        let line = Line::Capture {
            name,
            rung,
            capture: hexadecimal(&bytes),
            lines: &said.text,
        };
        write_line(&mut std::io::stdout(), &line)
    }

    /// The cell for its replay, which must print the same lines.
    pub(crate) fn replayed(&self, tracer: &Path, rung: &str, live: &str) -> Cell {
        replayed(tracer, rung, self.path(), live)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Replays a capture; it must print the same lines.
fn replayed(tracer: &Path, rung: &str, capture: &Path, live: &str) -> Cell {
    let played = Command::new(tracer)
        .args(["replay", "--json"])
        .arg(capture)
        .output();
    let wrong = |why: String| mismatch("replay", rung, "the same lines", "otherwise", why);
    match played {
        Err(why) => wrong(format!("cannot run it: {why}")),
        Ok(played) if !played.status.success() => wrong(format!(
            "{}: {}",
            played.status,
            String::from_utf8_lossy(&played.stderr).trim()
        )),
        Ok(played) => match unlike(live, &String::from_utf8_lossy(&played.stdout)) {
            None => ok("replay", rung, "the same lines", "the same lines"),
            Some(why) => wrong(why),
        },
    }
}

/// The first line in which a replay differs from the live output, ignoring the source.
fn unlike(live: &str, replay: &str) -> Option<String> {
    let live: Vec<String> = live
        .lines()
        .enumerate()
        .map(|(index, line)| match index {
            0 => line.replacen("\"source\":\"live\"", "\"source\":\"replay\"", 1),
            _ => line.to_owned(),
        })
        .collect();
    let replay: Vec<&str> = replay.lines().collect();
    let longest = live.len().max(replay.len());
    (0..longest).find_map(|index| {
        let (live, replay) = (live.get(index).map(String::as_str), replay.get(index));
        (live != replay.copied()).then(|| {
            format!(
                "line {}: live {}, replay {}",
                index + 1,
                live.unwrap_or("nothing"),
                replay.unwrap_or(&"nothing")
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_may_differ_in_nothing_but_where_it_comes_from() {
        let live = "{\"source\":\"live\"}\n{\"a\":1}\n{\"b\":2}\n";
        let same = "{\"source\":\"replay\"}\n{\"a\":1}\n{\"b\":2}\n";
        assert_eq!(unlike(live, same), None);
        for other in [
            live,
            "{\"source\":\"replay\"}\n{\"a\":1}\n",
            "{\"source\":\"replay\"}\n{\"b\":2}\n{\"a\":1}\n",
            "{\"source\":\"replay\"}\n{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n",
            "",
        ] {
            assert!(unlike(live, other).is_some(), "{other}");
        }
    }

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(hexadecimal(&[0, 10, 255]), "000aff");
    }
}
