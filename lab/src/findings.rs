//! Compares the expected findings with the traced ones, and both with the kernel's own counters.
//! Pure.

use std::collections::BTreeSet;

use crate::{
    cells::{mismatch, ok, shown, skipped},
    netns::Namespaces,
    recipes::Finding,
    report::Cell,
    traced::{End, Found, TracedLine},
};

mod account;
mod fields;
#[cfg(test)]
mod tests;
mod wanted;

use account::{identity, identity_but, reconciliation};
use fields::{Difference, matched, miscounted, unseen_blackholes};
pub use wanted::{Played, Wanted};
use wanted::{end_word, in_short};

/// Cause of a TCP child whose client had requested MPTCP.
const THIRD_ACK: &str = "MPCapableFallbackACK";

/// A line of the tracer about a connection.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    /// None for a type that no recipe provokes.
    finding: Option<Finding>,
    found: &'a Found,
}

impl Line<'_> {
    fn said(&self) -> String {
        let end = end_word(self.found.side.as_deref());
        let what = match (self.finding, &self.found.cause) {
            (Some(Finding::Plain), _) => "plain",
            (_, Some(cause)) => cause,
            (Some(Finding::Fallback), None) => "?",
            (None, None) => "refused or existing",
        };
        format!("{end} {what} ({})", self.found.known)
    }
}

/// Compares all recipes of one tracer run: one cell per recipe, one for the tracer's own
/// reconciliation, and one for its loss accounting.
pub(crate) fn compare(rung: &str, played: &[Played], traced: &[TracedLine]) -> Vec<Cell> {
    let lines = lines(traced);
    let limits: Vec<&String> = TracedLine::limits(traced).collect();
    let grounds: BTreeSet<u64> = played
        .iter()
        .map(|played| played.scene.namespaces)
        .flat_map(|Namespaces { near, far }| [near, far])
        .collect();
    let mut cells: Vec<Cell> = played
        .iter()
        .map(|played| {
            // Ignore lines in namespaces without a recipe, unless they name one of our processes.
            let own: Vec<Line> = lines
                .iter()
                .filter(|line| {
                    let owner = line.found.owner.as_ref();
                    played.has(line.found)
                        || (!grounds.contains(&line.found.netns)
                            && owner.is_some_and(|owner| played.cast.contains_key(&owner.pid)))
                })
                .copied()
                .collect();
            cell(rung, played, &own, traced, &limits)
        })
        .collect();
    cells.push(reconciliation(rung, played, traced));
    cells.push(balanced(rung, traced));
    cells
}

/// [`balanced`] in a storm of connections: paths may be lost, but are counted.
pub(crate) fn balanced_in_storm(rung: &str, traced: &[TracedLine]) -> Cell {
    let ends: Vec<&End> = traced.iter().filter_map(TracedLine::end).collect();
    identity_but(rung, findings(traced), &ends, Some("subflow"))
}

/// The number of lines about findings.
fn findings(traced: &[TracedLine]) -> usize {
    let is_about_run = |it: &&TracedLine| matches!(it, TracedLine::Start(_) | TracedLine::End(_));
    traced.len() - traced.iter().filter(is_about_run).count()
}

/// The cell for the tracer's loss accounting: every line but the first and the last is a finding.
pub(crate) fn balanced(rung: &str, traced: &[TracedLine]) -> Cell {
    let ends: Vec<&End> = traced.iter().filter_map(TracedLine::end).collect();
    identity(rung, findings(traced), &ends)
}

fn lines(traced: &[TracedLine]) -> Vec<Line<'_>> {
    let with = |finding, found| Some(Line { finding, found });
    traced
        .iter()
        .filter_map(|line| match line {
            TracedLine::Fallback(found) => with(Some(Finding::Fallback), found),
            TracedLine::Plain(found) => with(Some(Finding::Plain), found),
            TracedLine::Refused(found) | TracedLine::Existing(found) => with(None, found),
            TracedLine::Start(_)
            | TracedLine::Query(_)
            | TracedLine::Blackhole(_)
            | TracedLine::Verdict(_)
            | TracedLine::OptionRefused(_)
            | TracedLine::SocketRefused(_)
            | TracedLine::PathUp(_)
            | TracedLine::PathFailed(_)
            | TracedLine::ConnectFailed(_)
            | TracedLine::PathDown(_)
            | TracedLine::PathStale(_)
            | TracedLine::PathRecovered(_)
            | TracedLine::PathPriority(_)
            | TracedLine::Address(_)
            | TracedLine::Closed(_)
            | TracedLine::End(_) => None,
        })
        .collect()
}

/// Compares one recipe with its lines.
fn cell(
    rung: &str,
    played: &Played,
    lines: &[Line],
    all: &[TracedLine],
    limits: &[&String],
) -> Cell {
    let case = played.case();
    if let Some(why) = &played.scene.skipped {
        return skipped(&case, rung, why);
    }
    let caller = played.said();
    let traced = in_short(lines.iter().map(Line::said).collect());
    let mut wrong = played.scene.wrong.clone();
    wrong.extend(played.unlike_the_table());
    if !wrong.is_empty() {
        let why = format!("deviates from the recipe: {}", shown(wrong));
        return mismatch(&case, rung, &caller, &traced, why);
    }
    let mut differences = matched(rung, played, lines);
    differences.extend(miscounted(played, lines));
    differences.extend(unseen_blackholes(played, all));
    if differences.is_empty() {
        return ok(&case, rung, &caller, &traced);
    }
    // The words are in order of preference.
    let excuse = |difference: &Difference| {
        difference.excuses.iter().find_map(|word| {
            let word = word.to_lowercase();
            // Match whole words: "outside" must not match "side".
            limits.iter().find(|limit| {
                limit
                    .to_lowercase()
                    .split(|c: char| !c.is_alphanumeric())
                    .any(|of_limit| of_limit == word)
            })
        })
    };
    let excuses: Option<BTreeSet<&&String>> = differences.iter().map(excuse).collect();
    if let Some(excuses) = excuses {
        let excuses: Vec<&str> = excuses.into_iter().map(|limit| limit.as_str()).collect();
        return Cell {
            caller,
            traced,
            ..skipped(&case, rung, excuses.join("; "))
        };
    }
    let why = differences.into_iter().map(|difference| difference.what);
    mismatch(&case, rung, &caller, &traced, shown(why.collect()))
}
