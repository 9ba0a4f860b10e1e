//! Compares actions and measurements with what is expected of the tracer. Pure.

use super::{actions::ActionLog, sample::Sample};
use crate::{
    cells::{judged, shown, skipped},
    metrics::Page,
    report::{Cell, Outcome},
    truth::THIRD_ACK,
};

#[cfg(test)]
mod tests;

/// The first 1/N of a run is the warm-up, in which memory may grow until every buffer has been
/// used.
pub(super) const WARM_UP_PART: f64 = 3.0;
/// Maximum length of the warm-up, seconds.
pub(super) const WARM_UP_S_MAX: f64 = 600.0;
/// Memory growth allowed between the warm-up and the last third: fluctuations of the allocator.
pub(super) const GROWTH_KB_MAX: u64 = 1024;
/// Maximum distance of two equal means, in standard errors: the probability of more is below 1/700.
const STANDARD_ERRORS_MAX: f64 = 3.0;
/// On a shared machine, one connection in this many may fail.
const CONNECTIONS_PER_FAILURE_MIN: u64 = 50;
/// Tolerated clock drift, nanoseconds: the clock may be slewed.
const CLOCK_NS_MAX: i128 = 500_000_000;

const SEEN: &str = "mptcp_trace_seen_total";
const OUTCOMES: &str = "mptcp_trace_outcomes_total";
const FALLBACKS: &str = "mptcp_trace_fallbacks_total";
const PLAIN: &str = "mptcp_trace_plain_connections_total";
const NAMESPACES: &str = "mptcp_trace_namespaces";

/// State of the idle tracer.
#[derive(Clone, Debug, Default)]
pub(super) struct IdleSnapshot {
    pub(super) held: Sample,
    pub(super) page: Page,
}

/// All inputs of the checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) rung: String,
    /// Planned duration of the churn, seconds.
    pub(super) duration_s: f64,
    pub(super) every_s: f64,
    pub(super) samples: Vec<Sample>,
    pub(super) before: IdleSnapshot,
    pub(super) after: IdleSnapshot,
    pub(super) actions: ActionLog,
    /// Whether the clock may be set here.
    pub(super) has_clock: bool,
    /// Clock error at the end, nanoseconds.
    pub(super) clock_off_ns: i128,
    /// Settings that the tracer reported as loaded, and as invalid.
    pub(super) said_read: u64,
    pub(super) said_broken: u64,
    /// What went wrong at the tracer's end.
    pub(super) broken: Option<String>,
}

/// Runs every check; one cell each.
pub(super) fn judge(ledger: &Ledger) -> Vec<Cell> {
    vec![
        memory(ledger),
        descriptors(ledger),
        accounted(ledger),
        queries(ledger),
        fallbacks(ledger),
        third_acks(ledger),
        agreement(ledger),
        only_grew(ledger),
        reloads(ledger),
        clock(ledger),
        actions(ledger),
        end(ledger),
    ]
}

/// End of the warm-up, seconds.
pub(super) fn warm_up_s(duration_s: f64) -> f64 {
    (duration_s / WARM_UP_PART).min(WARM_UP_S_MAX)
}

/// Slope of the least-squares line through these points.
pub(super) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|it| it.0), mean(|it| it.1));
    let (mut both, mut square) = (0.0, 0.0);
    for (x, y) in points {
        both += (x - x_mean) * (y - y_mean);
        square += (x - x_mean) * (x - x_mean);
    }
    (square > 0.0).then(|| both / square)
}

impl Ledger {
    fn cell(&self, case: &str, want: &str, got: &str, wrong: Vec<String>) -> Cell {
        judged(case, &self.rung, want, got, wrong)
    }

    /// Compares two counts that must be equal. An excess may come from other processes on this
    /// machine, if there were any.
    fn equal(&self, case: &str, rows: &[(String, u64, u64)]) -> Cell {
        let say = |of: fn(&(String, u64, u64)) -> u64| {
            let words = rows.iter().map(|row| format!("{} {}", row.0, of(row)));
            words.collect::<Vec<_>>().join(", ")
        };
        let unequal: Vec<String> = rows
            .iter()
            .filter(|(_, want, got)| want != got)
            .map(|(name, want, got)| format!("{name}: {want} happened, {got} traced"))
            .collect();
        let mut cell = self.cell(case, &say(|row| row.1), &say(|row| row.2), unequal);
        let too_many_only = rows.iter().all(|(_, want, got)| got >= want);
        if too_many_only {
            self.excuse(&mut cell);
        }
        cell
    }

    /// If other processes used this machine, a mismatch proves nothing; report it as skipped.
    fn excuse(&self, cell: &mut Cell) {
        let others = &self.actions.others;
        if cell.outcome != Outcome::Mismatch || others.is_empty() {
            return;
        }
        cell.outcome = Outcome::Skipped;
        cell.why.push_str("; others on this machine were at it: ");
        cell.why.push_str(&shown(others.clone()));
    }

    fn grew(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let (before, after) = (&self.before.page, &self.after.page);
        after
            .sum(name, labels)
            .saturating_sub(before.sum(name, labels))
    }
}

/// Memory over a part of a run.
struct Held {
    rule_kb: u64,
    /// Peak of each sampling interval.
    peaks: Peaks,
}

impl Held {
    /// None if there are too few samples.
    fn between(samples: &[Sample], from_s: f64, to_s: f64) -> Option<Self> {
        let samples = samples
            .iter()
            .filter(|sample| (from_s..to_s).contains(&sample.at_s));
        let mut rss_kb: Vec<u64> = samples.clone().map(|sample| sample.rss_kb).collect();
        rss_kb.sort_unstable();
        let peaks: Vec<f64> = samples.map(|sample| sample.peak_kb as f64).collect();
        Some(Self {
            rule_kb: *rss_kb.get(rss_kb.len() / 2)?,
            peaks: Peaks::of(&peaks)?,
        })
    }

    fn said(&self) -> String {
        let Self { rule_kb, peaks } = self;
        format!(
            "{rule_kb} kB as a rule, peaks of {:.0} kB on average and {:.0} kB at most",
            peaks.mean, peaks.most
        )
    }
}

/// Statistics of peaks.
struct Peaks {
    mean: f64,
    most: f64,
    /// Square of the standard error of the mean.
    error_squared: f64,
}

impl Peaks {
    fn of(peaks: &[f64]) -> Option<Self> {
        let count = peaks.len() as f64;
        if count < 2.0 {
            return None;
        }
        let mean = peaks.iter().sum::<f64>() / count;
        let squares: f64 = peaks.iter().map(|peak| (peak - mean).powi(2)).sum();
        Some(Self {
            mean,
            most: peaks.iter().copied().fold(0.0, f64::max),
            error_squared: squares / (count - 1.0) / count,
        })
    }

    /// Maximum mean of later peaks, given the scatter of both.
    fn limit(&self, later: &Self) -> f64 {
        let error = (self.error_squared + later.error_squared).sqrt();
        self.mean + GROWTH_KB_MAX as f64 + STANDARD_ERRORS_MAX * error
    }
}

/// In the last third and at rest, median memory and mean peak must not exceed those of the warm-up.
///
/// A single peak proves nothing: a flood of queries, or a hundred clients at once, take some
/// megabytes for a few milliseconds, and how many depends on scheduling. The kernel records the
/// peak of each sampling interval, so none goes unnoticed; the check compares means of many peaks
/// and allows for their scatter.
fn memory(ledger: &Ledger) -> Cell {
    let case = "churn-memory";
    let (warm, last) = (
        warm_up_s(ledger.duration_s),
        ledger.duration_s * (1.0 - 1.0 / WARM_UP_PART),
    );
    // Buffers and caches fill in the first half of the warm-up.
    let warmed = Held::between(&ledger.samples, warm / 2.0, warm);
    let ended = Held::between(&ledger.samples, last, f64::INFINITY);
    let (Some(warmed), Some(ended)) = (warmed, ended) else {
        let why = "there are too few samples of the warm-up, or of the last third".to_owned();
        return ledger.cell(case, "samples", "too few", vec![why]);
    };
    let points: Vec<(f64, f64)> = ledger
        .samples
        .iter()
        .filter(|sample| sample.at_s >= warm)
        .map(|sample| (sample.at_s / 3600.0, sample.rss_kb as f64))
        .collect();
    let rest_kb = ledger.after.held.rss_kb;
    let want = format!(
        "{} in the second half of the warm-up ({warm:.0} s)",
        warmed.said()
    );
    let got = format!(
        "{} in the last third, {rest_kb} kB at rest; after the warm-up {:+.0} kB an hour",
        ended.said(),
        slope(&points).unwrap_or(0.0)
    );
    let mut wrong = Vec::new();
    let limit = warmed.rule_kb + GROWTH_KB_MAX;
    for (when, held) in [("as a rule", ended.rule_kb), ("at rest", rest_kb)] {
        if held > limit {
            wrong.push(format!("more than {limit} kB {when}"));
        }
    }
    let limit = warmed.peaks.limit(&ended.peaks);
    if ended.peaks.mean > limit {
        wrong.push(format!("peaks of more than {limit:.0} kB on average"));
    }
    // Fewer than half of the expected samples prove nothing.
    let expected = (ledger.duration_s / ledger.every_s / 2.0) as usize;
    if ledger.samples.len() < expected {
        wrong.push(format!(
            "{} samples, at least {expected} were expected",
            ledger.samples.len()
        ));
    }
    ledger.cell(case, &want, &got, wrong)
}

fn descriptors(ledger: &Ledger) -> Cell {
    let say = |rest: &IdleSnapshot| {
        format!(
            "{} descriptors, {} threads",
            rest.held.fds, rest.held.threads
        )
    };
    let (before, after) = (say(&ledger.before), say(&ledger.after));
    let wrong = (before != after).then(|| "the resources differ from those before".to_owned());
    ledger.cell("churn-descriptors", &before, &after, Vec::from_iter(wrong))
}

/// For each sensor, the records seen must equal the sum of their outcomes.
fn accounted(ledger: &Ledger) -> Cell {
    let page = &ledger.after.page;
    let (seen, outcomes) = (page.by(SEEN, "sensor"), page.by(OUTCOMES, "sensor"));
    let mut wrong: Vec<String> = seen
        .iter()
        .filter(|(sensor, seen)| outcomes.get(*sensor) != Some(seen))
        .map(|(sensor, seen)| format!("{sensor}: {seen} seen, {:?}", outcomes.get(sensor)))
        .collect();
    if seen.is_empty() {
        wrong.push("the page has no sensors".to_owned());
    }
    let became: Vec<String> = page
        .by(OUTCOMES, "outcome")
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(outcome, count)| format!("{outcome} {count}"))
        .collect();
    ledger.cell(
        "churn-accounted",
        &format!("seen: {seen:?}"),
        &became.join(", "),
        wrong,
    )
}

fn queries(ledger: &Ledger) -> Cell {
    let seen = ledger.grew(SEEN, &[("sensor", "query")]);
    ledger.equal(
        "churn-queries",
        &[("queries".into(), ledger.actions.asked, seen)],
    )
}

/// Compares causes one by one, except the third ACK.
fn fallbacks(ledger: &Ledger) -> Cell {
    let traced = ledger.after.page.by(FALLBACKS, "cause");
    let kernel = &ledger.actions.kernel;
    let mut causes: Vec<&String> = traced.keys().chain(kernel.keys()).collect();
    causes.sort();
    causes.dedup();
    let rows: Vec<(String, u64, u64)> = causes
        .into_iter()
        .filter(|cause| {
            let cause = cause.as_str();
            cause != THIRD_ACK && !crate::recipes::REFUSED_COUNTERS.contains(&cause)
        })
        .map(|cause| {
            let counted = kernel.get(cause).copied().unwrap_or(0);
            let grew = ledger.grew(FALLBACKS, &[("cause", cause)]);
            (cause.clone(), counted, grew)
        })
        .collect();
    ledger.equal("churn-fallbacks", &rows)
}

/// Where no function can be probed, these two are indistinguishable; their sum is always known.
fn third_acks(ledger: &Ledger) -> Cell {
    let counted = ledger.actions.kernel.get(THIRD_ACK).copied().unwrap_or(0);
    let happened = counted + ledger.actions.plain;
    let traced = ledger.grew(FALLBACKS, &[("cause", THIRD_ACK)]) + ledger.grew(PLAIN, &[]);
    let row = (format!("{THIRD_ACK} and TCP clients"), happened, traced);
    ledger.equal("churn-third-ack", &[row])
}

/// The tracer's own reconciliation with the kernel's counters must agree, too.
fn agreement(ledger: &Ledger) -> Cell {
    let page = &ledger.after.page;
    let of = |word| page.sum(NAMESPACES, &[("counters", word)]);
    let differ = of("differ");
    let undecodable = page.sum("mptcp_trace_undecodable_records_total", &[]);
    let most = ledger.samples.iter().map(|sample| sample.differ).max();
    let got = format!(
        "{differ} at the end, {} at most at a time; {} agree, {} are gone; {undecodable} not understood",
        most.unwrap_or(0),
        of("agree"),
        of("unread"),
    );
    let mut wrong = Vec::new();
    if differ > 0 {
        wrong.push(format!(
            "the kernel's counters differ in {differ} namespaces"
        ));
    }
    let case = "churn-agreement";
    let want = "no namespace differs";
    if undecodable > 0 {
        wrong.push("records could not be decoded".to_owned());
        return ledger.cell(case, want, &got, wrong);
    }
    // All of our namespaces are gone at this point: a remaining one is foreign and may have a
    // reused number.
    let mut cell = ledger.cell(case, want, &got, wrong);
    ledger.excuse(&mut cell);
    cell
}

fn only_grew(ledger: &Ledger) -> Cell {
    let scrapes = ledger.actions.scrapes;
    let went_back = &ledger.actions.went_back;
    let mut wrong = went_back.clone();
    // Being turned away for a while is acceptable; for half of the time it is not.
    if (scrapes as f64) < ledger.duration_s / 4.0 {
        wrong.push("too few pages could be read".to_owned());
    }
    ledger.cell(
        "churn-counters-grow",
        &format!("{scrapes} pages, each after the one before"),
        &format!("{} counters went back", went_back.len()),
        wrong,
    )
}

/// Every settings file must be loaded, and every invalid one reported.
fn reloads(ledger: &Ledger) -> Cell {
    let ActionLog {
        hangups,
        bad_hangups,
        ..
    } = ledger.actions;
    let want = format!("{hangups} settings, {bad_hangups} broken ones");
    let got = format!(
        "{} read, {} complained about",
        ledger.said_read, ledger.said_broken
    );
    let right = (hangups, bad_hangups) == (ledger.said_read, ledger.said_broken);
    let wrong = (!right).then(|| "not every hangup had an effect".to_owned());
    ledger.cell("churn-reloads", &want, &got, Vec::from_iter(wrong))
}

fn clock(ledger: &Ledger) -> Cell {
    let case = "churn-clock";
    let steps = ledger.actions.clock_steps;
    let got = format!("{steps} steps and back");
    if !ledger.has_clock {
        return skipped(case, &ledger.rung, "the clock cannot be set here");
    }
    let off = ledger.clock_off_ns;
    let wrong = (off.abs() > CLOCK_NS_MAX)
        .then(|| format!("the clock is {} ms off at the end", off / 1_000_000));
    ledger.cell(case, "the clock steps", &got, Vec::from_iter(wrong))
}

/// Without any actions, all other checks would pass.
fn actions(ledger: &Ledger) -> Cell {
    let actions = &ledger.actions;
    let capped = ledger.grew(OUTCOMES, &[("outcome", "capped")]);
    let done = [
        ("connections", actions.connections),
        ("recipes", actions.recipes),
        ("namespaces", actions.namespaces),
        ("kills", actions.kills),
        ("floods", actions.floods),
        ("flooded", actions.flooded),
        ("capped", capped),
        ("visitors", actions.visitors),
        ("sent away", actions.sent_away),
    ];
    let mut wrong: Vec<String> = done
        .iter()
        .filter(|(_, count)| *count == 0)
        .map(|(what, _)| format!("no {what}"))
        .collect();
    if ledger.has_clock && actions.clock_steps == 0 {
        wrong.push("no clock steps".to_owned());
    }
    let is_idle = !wrong.is_empty();
    if actions.failed > 0 {
        wrong.push(format!("{} actions failed", actions.failed));
        wrong.extend(actions.failures.iter().cloned());
    }
    let got: Vec<String> = done
        .iter()
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
    let mut cell = ledger.cell("churn-actions", "churn", &got.join(", "), wrong);
    // On a shared machine a connection may time out.
    let is_rare = actions.failed * CONNECTIONS_PER_FAILURE_MIN <= actions.connections;
    if actions.failed > 0 && is_rare && !is_idle {
        ledger.excuse(&mut cell);
    }
    cell
}

fn end(ledger: &Ledger) -> Cell {
    let wrong = Vec::from_iter(ledger.broken.clone());
    ledger.cell("churn-end", "ends in order", "ended", wrong)
}
