//! Artifacts of a run for the repository's captures: the capture and the lines printed live, as a
//! line of the report. A virtual machine has no other output than its results port.

use std::{ffi::OsStr, fmt::Write as _, fs, path::Path};

use anyhow::Context as _;
use serde::Serialize;

use super::Run;
use crate::{
    cells::{mismatch, ok},
    report::{Cell, write_line},
    scratch::Scratch,
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
    pub(crate) fn arguments(&self) -> [&OsStr; 2] {
        [OsStr::new("--capture"), self.path().as_os_str()]
    }

    /// Writes it to the report, with the lines printed live.
    pub(crate) fn keep(&self, name: &str, rung: &str, lines: &str) -> anyhow::Result<()> {
        let path = self.path().display();
        let bytes = fs::read(self.path()).with_context(|| format!("cannot read back {path}"))?;
        let line = Line::Capture {
            name,
            rung,
            capture: hexadecimal(&bytes),
            lines,
        };
        write_line(&mut std::io::stdout(), &line)
    }

    /// The cell for its replay, which must print the same lines.
    pub(crate) fn replayed(&self, tracer: &Path, rung: &str, live: &str) -> Cell {
        let same = "the same lines";
        let replay = self.replay(tracer, live.contains(ROUTINE));
        match replay.map(|replay| unlike(live, &replay)) {
            Ok(None) => ok("replay", rung, same, same),
            Ok(Some(why)) => mismatch("replay", rung, same, "otherwise", why),
            Err(why) => mismatch("replay", rung, same, "otherwise", format!("{why:#}")),
        }
    }

    /// What a replay prints; on request, with the lines about paths that work.
    fn replay(&self, tracer: &Path, shows_routine: bool) -> anyhow::Result<String> {
        let kinds: &[&str] = if shows_routine {
            &["--kind", "all"]
        } else {
            &[]
        };
        let run = Run::of(tracer).args(["replay"]).args(kinds);
        let run = run.args([self.path()]);
        let lines = run.reading(Vec::new()).finish()?.in_order()?.reader()?;
        Ok(String::from_utf8_lossy(&lines).into_owned())
    }
}

/// A line that the live run only printed if it was asked for every kind.
const ROUTINE: &str = "{\"type\":\"path_up\"";

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
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
