//! The tracer's own account: its reconciliation with the kernel's counters, and its losses.

use std::collections::BTreeMap;

use super::{Line, Played, THIRD_ACK, lines};
use crate::{
    cells::{mismatch, ok, shown},
    netns::Counters,
    recipes::{FALLBACK_COUNTERS, Finding},
    report::{Cell, Outcome},
    traced::{End, Losses, MISSED_MAX, Reconciled, TracedLine},
};

/// A network namespace of a recipe, with the kernel's counters.
struct Counted {
    case: String,
    since_ns: u64,
    fallbacks: Counters,
}

/// The tracer's own reconciliation with the kernel's counters must agree.
///
/// The tracer identifies a network namespace by its inode number, which the kernel reuses. Lines of
/// an earlier namespace with the same number are part of its account; this check subtracts them. If
/// the number was in use before the tracer was live, its baseline belongs to that earlier
/// namespace, and there is nothing to check.
pub(super) fn reconciliation(rung: &str, played: &[Played], traced: &[TracedLine]) -> Cell {
    let mut wrong = Vec::new();
    let mut namespaces = BTreeMap::new();
    // An aborted recipe leaves its connections in states that no row describes.
    for played in played.iter().filter(|it| it.scene.skipped.is_none()) {
        namespaces.extend(played.moved.iter().map(|(netns, moved)| {
            let counted = Counted {
                case: played.case(),
                since_ns: played.scene.since_ns,
                fallbacks: only_fallbacks(moved),
            };
            (*netns, counted)
        }));
    }
    let all = namespaces.len();
    let taken = traced
        .iter()
        .filter_map(TracedLine::start)
        .flat_map(|start| &start.namespaces);
    for netns in taken {
        namespaces.remove(netns);
    }
    let ends = traced.iter().filter_map(TracedLine::end);
    let entries: BTreeMap<u64, _> = ends
        .flat_map(|end| &end.reconciliation)
        .map(|entry| (entry.netns, entry))
        .collect();
    let mut shared = 0;
    for (netns, counted) in &namespaces {
        let Counted {
            case,
            since_ns,
            fallbacks,
        } = counted;
        let Some(entry) = entries.get(netns) else {
            if !fallbacks.is_empty() {
                wrong.push(format!("{case}: nothing about network namespace {netns}"));
            }
            continue;
        };
        let of_others = earlier(traced, *netns, *since_ns);
        shared += usize::from(!of_others.is_empty());
        if only_fallbacks(&entry.counted) != *fallbacks {
            wrong.push(format!(
                "{case}: the kernel counted {fallbacks:?}: {entry:?}"
            ));
        } else if !(entry.agrees || !of_others.is_empty() && agrees_without(&of_others, entry)) {
            wrong.push(format!("{case}: the account does not agree: {entry:?}"));
        }
    }
    let caller = format!("{} network namespaces", namespaces.len());
    let of_ours = entries
        .keys()
        .filter(|netns| namespaces.contains_key(netns));
    let got = format!("{} network namespaces", of_ours.count());
    if !wrong.is_empty() {
        return mismatch("reconciliation", rung, &caller, &got, shown(wrong));
    }
    let not_judged = all - namespaces.len();
    let mut why = Vec::new();
    if shared > 0 {
        why.push(format!(
            "{shared} had a reused number; earlier lines subtracted"
        ));
    }
    if not_judged > 0 {
        why.push(format!(
            "{not_judged} not checked: their numbers were in use before the tracer was live"
        ));
    }
    let outcome = match namespaces.is_empty() && not_judged > 0 {
        true => Outcome::Skipped,
        false => Outcome::Ok,
    };
    Cell {
        outcome,
        why: why.join("; "),
        ..ok("reconciliation", rung, &caller, &got)
    }
}

/// Fallback counters that changed.
fn only_fallbacks(counters: &Counters) -> Counters {
    counters
        .iter()
        .filter(|(name, count)| FALLBACK_COUNTERS.contains(&name.as_str()) && **count > 0)
        .map(|(name, count)| (name.clone(), *count))
        .collect()
}

/// Lines about connections of an earlier namespace with the same number, by cause; those without a
/// cause count too.
fn earlier(traced: &[TracedLine], netns: u64, since_ns: u64) -> Counters {
    let mut counters = Counters::new();
    for line in lines(traced) {
        let Line { finding, found } = line;
        let counts = match finding {
            Some(Finding::Fallback | Finding::Plain) => true,
            None => false,
        };
        if counts && found.netns == netns && found.is_before(since_ns) {
            let cause = found.cause.clone().unwrap_or_default();
            *counters.entry(cause).or_default() += 1;
        }
    }
    counters
}

/// Whether the traced counts match the kernel's once the lines of earlier namespaces are
/// subtracted: all of them, or those since the tracer first read the counters.
fn agrees_without(of_others: &Counters, entry: &Reconciled) -> bool {
    let count = |of: &Counters, name: &str| of.get(name).copied().unwrap_or(0);
    FALLBACK_COUNTERS.iter().all(|name| {
        let (counted, traced) = (count(&entry.counted, name), count(&entry.traced, name));
        // Where the kinds of TCP children are indistinguishable, those without a cause fill the
        // gap.
        let is_enough = traced >= counted || *name == THIRD_ACK;
        is_enough && traced <= counted + count(of_others, name)
    })
}

/// The kernel may skip at most one run of a sensor in this number: it skips a run when as many
/// threads were preempted inside the probe as there are programs that take turns, and a kprobe's
/// whenever another program runs on the CPU. An emulated machine executes little between two ticks
/// of its clock: on a loaded host 7.1 skipped 9 of 331 with `kprobe`. Skips are counted, and the
/// cases prove that the required queries are reported.
const SEEN_PER_MISSED_MIN: u64 = 20;

/// The counters must add up, nothing may be lost, and every line must be counted.
pub(super) fn identity(rung: &str, lines: usize, ends: &[&End]) -> Cell {
    identity_but(rung, lines, ends, None)
}

/// The same, but this sensor may lose records, if it counts them.
pub(super) fn identity_but(
    rung: &str,
    lines: usize,
    ends: &[&End],
    may_lose: Option<&str>,
) -> Cell {
    let wrong = |why: String| mismatch("identity", rung, "nothing lost", "otherwise", why);
    let [end] = ends else {
        return wrong(format!("{} end lines", ends.len()));
    };
    let missed = |losses: &Losses| losses.gone(rung) - losses.lost();
    let lost = |losses: &Losses| {
        // Without queries, the skipped runs can only be those of other options.
        let is_often = losses.seen > 0
            && missed(losses) > MISSED_MAX
            && missed(losses) * SEEN_PER_MISSED_MIN > losses.seen;
        let may_lose = may_lose == Some(&losses.sensor);
        !losses.balances() || losses.lost() > 0 && !may_lose || is_often
    };
    if end.losses.is_empty() || end.losses.iter().any(lost) {
        return wrong(format!("{:?}", end.losses));
    }
    if end.findings != lines as u64 {
        return wrong(format!("{lines} lines, the end says {}", end.findings));
    }
    let skipped: u64 = end.losses.iter().map(missed).sum();
    let why = match skipped {
        0 => String::new(),
        skipped => format!("{skipped} runs of a probe skipped by the kernel, and counted"),
    };
    Cell {
        why,
        ..ok("identity", rung, "nothing lost", "nothing lost")
    }
}
