//! Judged pairs as lines: text for people, and JSON lines.

mod json;
mod text;

pub use json::json;
pub use text::{Look, text};

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};

use super::{
    About, Capture, Ns, Offset,
    join::{By, Pair, PathPair, joined},
    judge::{Judge, Judged, Judgement, duration, span},
    seen::{PathSeen, Seen},
};
use crate::escape::escape;

/// What is shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Only these judgements; empty: all that are not MPTCP at both ends.
    pub kinds: Vec<Judgement>,
    /// Also those that are MPTCP at both ends, and every path.
    pub all: bool,
    /// Times in UTC instead of the time zone of this machine.
    pub utc: bool,
}

/// A pair with what happened to it.
#[derive(Clone, Debug)]
struct Line {
    pair: Pair,
    judged: Judged,
    paths: Vec<(PathPair, Judged)>,
}

/// Two captures, compared.
#[derive(Debug)]
pub struct Paired<'a> {
    captures: [&'a Capture; 2],
    offset: Option<Offset>,
    lines: Vec<Line>,
}

impl<'a> Paired<'a> {
    /// Compares the captures of a client and of a server; those of a server and of a client are
    /// exchanged, and the second result is true.
    #[must_use]
    pub fn new(client: &'a Capture, server: &'a Capture) -> (Self, bool) {
        let there = Self::of([client, server]);
        let sure = |it: &&Line| it.pair.by.is_some_and(|by| by != By::Time);
        let opened = |reversed: bool| {
            let all = there.lines.iter().filter(sure);
            all.filter(|it| it.pair.reversed == reversed).count()
        };
        if opened(true) > opened(false) {
            (Self::of([server, client]), true)
        } else {
            (there, false)
        }
    }

    fn of(captures: [&'a Capture; 2]) -> Self {
        let [first, second] = captures;
        let (pairs, offset) = joined(first, second);
        let judge = Judge::new(captures, offset);
        let mut lines: Vec<Line> = pairs
            .into_iter()
            .map(|pair| {
                let judged = judge.connection(&pair);
                let paths = pair.paths.iter();
                let paths = paths.map(|path| (*path, judge.path(&pair, path))).collect();
                Line {
                    pair,
                    judged,
                    paths,
                }
            })
            .collect();
        lines.sort_by_key(|line| begin(&judge, captures, &line.pair));
        Self {
            captures,
            offset,
            lines,
        }
    }

    fn judge(&self) -> Judge<'a> {
        Judge::new(self.captures, self.offset)
    }

    /// The lines that a filter and the options admit.
    fn shown(&self, options: &Options) -> impl Iterator<Item = &Line> {
        let judge = self.judge();
        let (kinds, all) = (options.kinds.clone(), options.all);
        self.lines.iter().filter(move |line| {
            let is_kind = match kinds.is_empty() {
                true => all || line.judged.what != Judgement::Mptcp,
                false => kinds.contains(&line.judged.what),
            };
            is_kind && is_wanted(&judge, &line.pair)
        })
    }

    /// How often each judgement occurs among the connections that the filter admits.
    fn counts(&self) -> BTreeMap<Judgement, usize> {
        let judge = self.judge();
        let mut counts = BTreeMap::new();
        for line in &self.lines {
            if is_wanted(&judge, &line.pair) {
                *counts.entry(line.judged.what).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Why no connection is in both captures, if so, and what to do.
    #[must_use]
    pub fn why_nothing_fits(&self) -> Option<String> {
        if self.lines.iter().any(|it| it.pair.by.is_some()) {
            return None;
        }
        let [first, second] = self.captures;
        if let Some(empty) = self.captures.iter().find(|it| it.ends.all.is_empty()) {
            return Some(format!(
                "{} has no connections: record both hosts while these are made, and without filters that \
                 leave them out (--pid, --netns, ...)",
                empty.about.name
            ));
        }
        let ((from, to), (begin, end)) = (span(&first.about), span(&second.about));
        Some(match from <= end && begin <= to {
            true => "no connection is in both captures: are they of the two ends of the same connections?",
            false => {
                "the captures cover different times, unless the clocks differ: record both hosts at the \
                 same time"
            }
        }
        .to_owned())
    }

    /// How often connections were joined by what.
    fn joined_by(&self) -> BTreeMap<By, usize> {
        let mut counts = BTreeMap::new();
        for by in self.lines.iter().filter_map(|line| line.pair.by) {
            *counts.entry(by).or_insert(0) += 1;
        }
        counts
    }
}

/// A filter admits one of the two ends.
fn is_wanted(judge: &Judge<'_>, pair: &Pair) -> bool {
    let ends = judge.ends(pair);
    ends.into_iter().flatten().any(|seen| seen.wanted)
}

/// When a connection began, on the clock of the first capture.
fn begin(judge: &Judge<'_>, captures: [&Capture; 2], pair: &Pair) -> Ns {
    let [client, server] = judge.ends(pair);
    let [first, second] = captures;
    let wall = |seen: &Seen, is_server: bool| {
        let of = match is_server != pair.reversed {
            false => first,
            true => second,
        };
        judge.on_first_clock(pair, is_server, of.about.wall(seen.begin()))
    };
    let client = client.map(|seen| wall(seen, false));
    client
        .or_else(|| server.map(|seen| wall(seen, true)))
        .unwrap_or(0)
}

/// A time as text.
struct Clock(TimeZone);

impl Clock {
    fn new(utc: bool) -> Self {
        Self(match utc {
            true => TimeZone::UTC,
            false => TimeZone::system(),
        })
    }

    fn text(&self, at: Ns) -> String {
        match Timestamp::from_nanosecond(at.into()) {
            Ok(stamp) => {
                let zoned = stamp.to_zoned_datetime(self.0.clone());
                format!(
                    "{:02}:{:02}:{:02}.{:06}",
                    zoned.hour(),
                    zoned.minute(),
                    zoned.second(),
                    zoned.subsec_nanosecond() / 1000
                )
            }
            Err(_) => "?".to_owned(),
        }
    }
}
