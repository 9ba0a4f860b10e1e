//! Accounting of a flood: which queries were printed. Memory is bounded: one byte per query.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    flood_asker::{Told, kind, number_of},
    net::{Family, Kind},
    report::{Flooded, Outcome},
    traced::{End, Losses, Traced, TracedLine},
};

#[cfg(test)]
mod tests;

/// Maximum number of example lines in a failure message.
const EXAMPLES_MAX: usize = 3;
/// Maximum number of distinct answers recorded; more are wrong in any case.
const ANSWERS_MAX: usize = 64;

/// A printed answer: kind of socket, answer, errno.
type Printed = (Kind, Option<String>, Option<String>);

/// Records which queries were printed.
pub(super) struct Books {
    rung: String,
    threads: u32,
    queries: u32,
    /// Number of lines per query.
    printed: Vec<u8>,
    /// For each thread: process, thread, and number of lines.
    tids: Vec<BTreeMap<(u32, u32), u64>>,
    answers: BTreeMap<Printed, u64>,
    lines: u64,
    duplicates: u64,
    mixed_up: u64,
    /// Lines whose answer exceeded the limit of `answers`.
    strange_answers: u64,
    examples: Vec<String>,
    end: Option<End>,
}

impl Books {
    /// For a flood of this size on an attach method; `auto` matches any.
    pub(super) fn new(rung: &str, threads: u32, queries: u32) -> Self {
        Self {
            rung: rung.to_owned(),
            threads,
            queries,
            printed: vec![0; threads as usize * queries as usize],
            tids: vec![BTreeMap::new(); threads as usize],
            answers: BTreeMap::new(),
            lines: 0,
            duplicates: 0,
            mixed_up: 0,
            strange_answers: 0,
            examples: Vec::new(),
            end: None,
        }
    }

    /// Records one line of the tracer.
    pub(super) fn take(&mut self, line: TracedLine) {
        // No connection falls back in a flood of queries; `fallbacks` checks the other types.
        if let TracedLine::Query(query) = line {
            self.take_query(*query);
        } else if let TracedLine::End(end) = line {
            self.end = Some(end);
        }
    }

    fn take_query(&mut self, query: Traced) {
        self.lines += 1;
        let about = query.local.addr.parse().ok().and_then(|address| {
            number_of(SocketAddr::new(address, query.local.port))
                .filter(|(thread, number)| *thread < self.threads && *number < self.queries)
        });
        let Some((thread, number)) = about else {
            self.mixed_up += 1;
            self.example(&query);
            return;
        };
        let (kind, family) = kind(number);
        if !self.fits(&query, kind, family) {
            self.mixed_up += 1;
            self.example(&query);
        }
        let slot = &mut self.printed[thread as usize * self.queries as usize + number as usize];
        *slot = slot.saturating_add(1);
        if *slot > 1 {
            self.duplicates += 1;
            self.example(&query);
        }
        let tids = &mut self.tids[thread as usize];
        *tids.entry((query.pid, query.tid)).or_default() += 1;
        let answer = (kind, query.answer, query.errno);
        if self.answers.len() < ANSWERS_MAX || self.answers.contains_key(&answer) {
            *self.answers.entry(answer).or_default() += 1;
        } else {
            self.strange_answers += 1;
        }
    }

    /// Whether all fields match the query, except thread and answer, which only the asker knows.
    fn fits(&self, query: &Traced, kind: Kind, family: Family) -> bool {
        let (of_family, nowhere) = match family {
            Family::V4 => ("ipv4", "0.0.0.0"),
            Family::V6 | Family::Mapped => ("ipv6", "::"),
        };
        query.protocol == protocol_word(kind)
            && query.family == of_family
            && query.state == "CLOSE"
            && (query.remote.addr.as_str(), query.remote.port) == (nowhere, 0)
            && query.fell_back != Some(true)
            && (self.rung == "auto" || query.rung == self.rung)
    }

    fn example(&mut self, query: &Traced) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{query:?}"));
        }
    }

    /// Compares with the asker's report.
    pub(super) fn close(self, told: &Told, seconds: f64) -> Flooded {
        let queries = u64::from(self.threads) * u64::from(self.queries);
        let of_strangers: u64 = (0..)
            .zip(&self.tids)
            .flat_map(|(thread, tids)| {
                let own = told.tids.get::<usize>(thread).map(|&tid| (told.pid, tid));
                tids.iter()
                    .filter(move |(printed, _)| Some(**printed) != own)
                    .map(|(_, count)| count)
            })
            .sum();
        let mixed_up = self.mixed_up + of_strangers;
        let wrong: u64 = self
            .answers
            .iter()
            .filter(|(answer, _)| Some(*answer) != expected(told, answer.0).as_ref())
            .map(|(_, count)| count)
            .sum();
        let wrong_answer = wrong + self.strange_answers;
        let losses: &[Losses] = self.end.as_ref().map_or(&[], |end| &end.losses);
        let of_queries = || losses.iter().filter(|losses| losses.sensor == "query");
        let counted: u64 = of_queries().map(Losses::lost).sum();
        let missed: u64 = of_queries().map(|it| it.missed).sum();
        // A query runs through two probes, and other calls share one of them; each skipped run is
        // counted. So at most this number of queries may be missing.
        let absent = queries.cast_signed() - (self.lines + counted).cast_signed();
        let skipped = absent.clamp(0, missed.cast_signed());
        let unaccounted = absent - skipped;
        let lost = counted + skipped.cast_unsigned();
        let balanced = !losses.is_empty() && losses.iter().all(Losses::balances);
        let right = self.duplicates == 0
            && mixed_up == 0
            && wrong_answer == 0
            && unaccounted == 0
            && balanced;
        let why = if right {
            String::new()
        } else {
            let answers = &self.answers;
            format!(
                "counters {losses:?}; told {told:?}; printed {answers:?}; for example {}",
                self.examples.join(" ")
            )
        };
        Flooded {
            rung: self.rung,
            outcome: if right {
                Outcome::Ok
            } else {
                Outcome::Mismatch
            },
            threads: u64::from(self.threads),
            queries,
            lines: self.lines,
            lost,
            duplicates: self.duplicates,
            mixed_up,
            wrong_answer,
            unaccounted,
            seconds,
            caller: format!("{queries} queries"),
            traced: format!("{} lines + {lost} lost", self.lines),
            why,
        }
    }
}

fn protocol_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Mptcp => "mptcp",
        Kind::Tcp => "tcp",
    }
}

/// The line that this kind of socket must have; none if the kernel gave it more than one answer.
fn expected(told: &Told, kind: Kind) -> Option<Printed> {
    let mut answers = told.answers.iter().filter(|answer| answer.kind == kind);
    let answer = answers.next()?;
    if answers.next().is_some() {
        return None;
    }
    let word = match (answer.errno.as_deref(), answer.value) {
        (Some("EOPNOTSUPP" | "ENOPROTOOPT"), _) => "unsupported",
        (Some(_), _) => "failed",
        (None, 0) => "tcp",
        (None, _) => "mptcp",
    };
    Some((kind, Some(word.to_owned()), answer.errno.clone()))
}
