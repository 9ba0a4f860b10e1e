//! What was traced, cause by cause and namespace by namespace, against what the kernel counted.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    CAUSES, Connection, ConnectionKind, Counted, Facts, Known, LossReport, Reconciliation,
};

/// Network namespaces that are kept account of at most; beyond that only the sum is.
const NAMESPACES_MAX: usize = 4096;

/// The counter of third packets without MPTCP.
const THIRD_ACK: &str = "MPCapableFallbackACK";

/// Fallbacks by namespace and cause.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Books {
    namespaces: BTreeMap<u32, Page>,
    beyond: u64,
}

/// One network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Page {
    causes: BTreeMap<String, u64>,
    /// Of these, those that may have been in the counters already when they were first read.
    maybe_before: BTreeMap<String, u64>,
    unknown: u64,
    /// Children of which it is not known whether the client asked for MPTCP.
    children: u64,
    /// Something in here is wanted by the filter.
    wanted: bool,
    /// When the last of it happened.
    last_at: Duration,
}

impl Books {
    /// Enters what was observed.
    pub fn enter(&mut self, connection: &Connection, facts: &Facts) {
        let is_fallback = connection.kind == ConnectionKind::Fallback;
        let is_child =
            connection.kind == ConnectionKind::Plain && connection.known == Known::Unknown;
        if !(is_fallback || is_child) {
            return;
        }
        let netns = connection.socket.netns;
        // The kernel had counted it before its counters were first read.
        let read_at = facts.counters_read_at.get(&netns);
        if read_at.is_some_and(|(from, _)| connection.at < *from) {
            return;
        }
        let maybe_before = read_at.is_some_and(|(_, to)| connection.at <= *to);
        if self.namespaces.len() >= NAMESPACES_MAX && !self.namespaces.contains_key(&netns) {
            self.beyond += 1;
            return;
        }
        let page = self.namespaces.entry(netns).or_default();
        page.wanted |= connection.admitted;
        page.last_at = page.last_at.max(connection.at);
        match &connection.cause {
            _ if is_child => page.children += 1,
            Some(cause) => {
                let cause = cause.clone().into_owned();
                if maybe_before {
                    *page.maybe_before.entry(cause.clone()).or_default() += 1;
                }
                *page.causes.entry(cause).or_default() += 1;
            }
            None => page.unknown += 1,
        }
    }

    /// Forgets namespaces that were gone when all counters were read, which began at `read_at`: the kernel gives their
    /// numbers to new ones, whose counters begin at zero.
    pub fn forget_gone(&mut self, counted: &[Counted], read_at: Duration) {
        self.namespaces.retain(|netns, page| {
            page.last_at >= read_at || counted.iter().any(|it| it.netns == *netns)
        });
    }

    /// The namespaces in which something was traced.
    pub fn namespaces(&self) -> impl Iterator<Item = u32> {
        self.namespaces.keys().copied()
    }
}

/// Names of the counters that count fallbacks, as far as this kernel has them.
fn counted_causes(facts: &Facts) -> impl Iterator<Item = &'static str> {
    CAUSES
        .iter()
        .filter(|cause| cause.is_fallback && facts.counts(cause.name))
        .map(|cause| cause.name)
}

/// Compares, for each namespace of which the kernel's counters are known or in which something was traced.
#[must_use]
pub fn reconcile(books: &Books, report: &LossReport, facts: &Facts) -> Vec<Reconciliation> {
    let empty = Page::default();
    let mut all: BTreeMap<u32, Option<&Counted>> =
        books.namespaces().map(|netns| (netns, None)).collect();
    for counted in &report.counted {
        all.insert(counted.netns, Some(counted));
    }
    all.into_iter()
        .filter_map(|(netns, counted)| {
            let page = books.namespaces.get(&netns).unwrap_or(&empty);
            // Where only others did something that nobody wants to know of, silence is no loss, and an account
            // that holds is no news.
            let is_news = match counted {
                None => page.wanted,
                Some(_) => true,
            };
            let result = is_news.then(|| one(netns, page, counted, report, facts))?;
            (page.wanted || !result.agrees()).then_some(result)
        })
        .collect()
}

fn one(
    netns: u32,
    page: &Page,
    counted: Option<&Counted>,
    report: &LossReport,
    facts: &Facts,
) -> Reconciliation {
    let mut result = Reconciliation {
        netns,
        ..Reconciliation::default()
    };
    for name in counted_causes(facts) {
        if let Some(count) = page.causes.get(name) {
            result.traced.insert(name.to_owned(), *count);
        }
        let kernel = counted.map_or(0, |it| counted_by_kernel(name, page, it));
        if kernel > 0 {
            result.counted.insert(name.to_owned(), kernel);
        }
    }
    let Some(counted) = counted else {
        result.unread = true;
        result.why = Some(
            "counters could not be read: the namespace is gone, or no process in it can be seen"
                .into(),
        );
        return result;
    };
    let mut differences = Vec::new();
    for name in counted_causes(facts) {
        let kernel = result.counted.get(name).copied().unwrap_or(0);
        let traced = result.traced.get(name).copied().unwrap_or(0);
        // Where the two kinds of children cannot be told apart, they can make up for the difference.
        let explained = name == THIRD_ACK && traced <= kernel && kernel - traced <= page.children;
        if kernel != traced && !explained {
            differences.push(format!("{name}: kernel counted {kernel}, traced {traced}"));
        }
    }
    if differences.is_empty() {
        return result;
    }
    let mut why = differences.join("; ");
    for reason in reasons(page, counted, report, facts) {
        why.push_str("; ");
        why.push_str(&reason);
    }
    result.why = Some(why);
    result
}

/// What the kernel counted while the probes were there. At both ends there is a moment in which it may have counted
/// what they did not see, or the other way round: what was traced is right if it lies between.
fn counted_by_kernel(name: &str, page: &Page, counted: &Counted) -> u64 {
    let of = |map: &BTreeMap<String, u64>| map.get(name).copied().unwrap_or(0);
    let (least, most) = (of(&counted.counters), of(&counted.counters_after));
    let most = most.max(least).saturating_add(of(&page.maybe_before));
    of(&page.causes).clamp(least, most)
}

/// What is known of the reason for a difference.
fn reasons(page: &Page, counted: &Counted, report: &LossReport, facts: &Facts) -> Vec<String> {
    let mut reasons = Vec::new();
    if !facts.has_sensor("fallback") {
        reasons.push("the fallback sensor is off".to_owned());
    }
    if page.unknown > 0 {
        reasons.push(format!("{} traced with an unknown cause", page.unknown));
    }
    if page.children > 0 {
        reasons.push(format!(
            "{} TCP children of MPTCP listeners, which may count as {THIRD_ACK}",
            page.children
        ));
    }
    if let Some(loss) = report.sensors.iter().find(|loss| loss.sensor == "fallback") {
        let lost = loss.lost().saturating_add(loss.missed);
        if lost > 0 {
            reasons.push(format!("{lost} were lost"));
        }
    }
    reasons.extend(counted.doubt.clone());
    reasons
}

/// By how much the counters of fallbacks grew.
#[must_use]
pub fn growth(
    before: Option<&BTreeMap<String, u64>>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    CAUSES
        .iter()
        .filter(|cause| cause.is_fallback)
        .filter_map(|cause| {
            let then = before.and_then(|it| it.get(cause.name)).copied();
            let now = after.get(cause.name)?;
            let growth = now.saturating_sub(then.unwrap_or(0));
            (growth > 0).then(|| (cause.name.to_owned(), growth))
        })
        .collect()
}
