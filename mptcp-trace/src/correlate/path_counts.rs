//! Reconciles traced events of paths with the kernel's counters, per counter and network namespace.
//!
//! A join is reported when it comes up, fails or ends, which may be later than the kernel counts
//! it, and a flood of joins is only sampled: a difference agrees if what is known of such reasons
//! accounts for all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::path_counters::{self, COUNTERS, Counter};
use crate::model::{
    CauseCertainty, Counted, Facts, Growth, Loss, LossReport, Path, PathRole, Reconciliation, Rung,
    SensorId,
};

/// At most this many network namespaces have an account. When full, those whose number another one
/// has now are dropped. If there are none, further namespaces are not recorded, which the account
/// mentions.
const NAMESPACES_MAX: usize = 4096;

/// Inode number and cookie of a network namespace; only the number is reused.
type Namespace = (u32, u64);

/// Traced events of paths, per namespace and counter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PathCounts {
    namespaces: BTreeMap<Namespace, NetnsPaths>,
    beyond: u64,
}

/// One network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct NetnsPaths {
    /// By the name of the counter.
    tallies: BTreeMap<&'static str, Tally>,
    /// Events whose cause is inferred: the kernel may have counted another one.
    inferred: u64,
    /// Joins that began before tracing did.
    existing: u64,
    /// The filter admits something in this namespace.
    wanted: bool,
    /// Times of the first and the last event.
    first_at: Duration,
    last_at: Duration,
}

/// How often something happened that the kernel counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Tally {
    /// Certainly after the counters were first read.
    sure: u64,
    /// Perhaps before.
    maybe: u64,
}

/// From the least to the most that a count may be.
#[derive(Clone, Copy)]
struct Range {
    least: u64,
    most: u64,
}

impl PathCounts {
    /// Records an event.
    pub(super) fn record(&mut self, path: &Path, facts: &Facts) {
        let namespace = (path.socket.netns, path.netns_cookie);
        if self.namespaces.len() >= NAMESPACES_MAX && !self.namespaces.contains_key(&namespace) {
            let newest = self.newest();
            self.namespaces
                .retain(|(netns, cookie), _| newest.get(netns) == Some(cookie));
            if self.namespaces.len() >= NAMESPACES_MAX {
                self.beyond += 1;
                return;
            }
        }
        let counts = self
            .namespaces
            .entry(namespace)
            .or_insert_with(|| NetnsPaths {
                first_at: path.at,
                ..NetnsPaths::default()
            });
        counts.last_at = counts.last_at.max(path.at);
        counts.wanted |= path.admitted;
        counts.existing += u64::from(path.existing && path.role == PathRole::Join);
        let read_at = facts.counters_read_at.get(&path.socket.netns);
        let mut is_counted = false;
        for counter in COUNTERS.iter().filter(|it| (it.counts)(path)) {
            let (from, to) = (counter.span)(path);
            let tally = counts.tallies.entry(counter.name).or_default();
            match read_at {
                Some((began, _)) if to < *began => {}
                Some((_, ended)) if from <= *ended => tally.maybe += 1,
                Some(_) | None => tally.sure += 1,
            }
            is_counted = true;
        }
        let is_inferred = path.known == CauseCertainty::Inferred;
        counts.inferred += u64::from(is_inferred && is_counted);
    }

    /// A path that was recorded as removed by this host was removed by the peer.
    pub(super) fn removed_by_peer(&mut self, path: &Path) {
        let namespace = (path.socket.netns, path.netns_cookie);
        if let Some(counts) = self.namespaces.get_mut(&namespace)
            && let Some(tally) = counts.tallies.get_mut(path_counters::REMOVED)
        {
            match tally.sure {
                0 => tally.maybe = tally.maybe.saturating_sub(1),
                _ => tally.sure -= 1,
            }
        }
    }

    /// Time of the last event, if there is one.
    #[must_use]
    pub fn last_at(&self) -> Option<Duration> {
        self.namespaces.values().map(|it| it.last_at).max()
    }

    /// Drops namespaces that had ended when the reading of all counters began, at `read_at`.
    pub(super) fn forget_gone(&mut self, counted: &[Counted], read_at: Duration) {
        let newest = self.newest();
        self.namespaces.retain(|(netns, cookie), counts| {
            let is_read = || counted.iter().any(|it| it.netns == *netns);
            counts.last_at >= read_at || newest.get(netns) == Some(cookie) && is_read()
        });
    }

    /// The cookie of the newest namespace per inode number: the older ones have ended.
    fn newest(&self) -> BTreeMap<u32, u64> {
        let mut newest: BTreeMap<u32, (Duration, u64)> = BTreeMap::new();
        for ((netns, cookie), counts) in &self.namespaces {
            let last = newest.entry(*netns).or_default();
            *last = (*last).max((counts.first_at, *cookie));
        }
        newest
            .into_iter()
            .map(|(netns, (_, cookie))| (netns, cookie))
            .collect()
    }
}

impl Tally {
    fn range(self) -> Range {
        Range {
            least: self.sure,
            most: self.sure.saturating_add(self.maybe),
        }
    }
}

impl Range {
    const ZERO: Self = Self { least: 0, most: 0 };

    fn add(self, other: Self) -> Self {
        Self {
            least: self.least.saturating_add(other.least),
            most: self.most.saturating_add(other.most),
        }
    }

    /// The value that is nearest to another range.
    fn towards(self, other: Self) -> u64 {
        other.least.clamp(self.least, self.most)
    }
}

/// Compares the events of paths in each namespace with the kernel's counters. Nothing if paths are
/// not traced, or a capture has no counters of paths.
#[must_use]
pub fn reconcile_paths(
    counts: &PathCounts,
    report: &LossReport,
    facts: &Facts,
) -> Vec<Reconciliation> {
    let is_old = !report.counted.is_empty() && report.counted.iter().all(|it| it.paths.is_none());
    if !facts.has_sensor(SensorId::Subflow) || is_old {
        return Vec::new();
    }
    let kernel = Kernel::of(report, facts);
    let nothing = NetnsPaths::default();
    let newest = counts.newest();
    let traced = counts.namespaces.iter();
    let traced = traced.map(|((netns, cookie), counts)| {
        let is_newest = newest.get(netns) == Some(cookie);
        let reading = report.counted.iter().find(|it| it.netns == *netns);
        (*netns, *cookie, counts, reading.filter(|_| is_newest))
    });
    let is_untraced = |it: &&Counted| !newest.contains_key(&it.netns);
    let untraced = report.counted.iter().filter(is_untraced);
    let untraced = untraced.map(|it| (it.netns, 0, &nothing, Some(it)));
    let mut accounts: Vec<_> = traced
        .chain(untraced)
        .filter_map(|(netns, cookie, counts, reading)| {
            let account = counts.reconcile(reading, cookie, &kernel)?;
            Some(Reconciliation { netns, ..account })
        })
        .collect();
    accounts.sort_by_key(|account| account.netns);
    if counts.beyond > 0 {
        accounts.push(unread(format!(
            "{} events of paths are not reconciled: there are more than {NAMESPACES_MAX} namespaces",
            counts.beyond
        )));
    }
    accounts
}

/// What is known of the kernel, and of what was lost.
struct Kernel<'a> {
    report: &'a LossReport,
    facts: &'a Facts,
    /// The counters that it has.
    counters: BTreeSet<&'a str>,
}

impl<'a> Kernel<'a> {
    fn of(report: &'a LossReport, facts: &'a Facts) -> Self {
        let growths = report.counted.iter().filter_map(|it| it.paths.as_ref());
        let names = growths.flat_map(|it| it.before.keys());
        Self {
            report,
            facts,
            counters: names.map(String::as_str).collect(),
        }
    }

    fn has(&self, counter: &Counter) -> bool {
        self.counters.contains(counter.name)
    }
}

fn unread(why: String) -> Reconciliation {
    Reconciliation {
        unread: true,
        why: Some(why),
        ..Reconciliation::default()
    }
}

impl NetnsPaths {
    /// The account of this namespace; `None` if nothing that the kernel counts happened there.
    fn reconcile(
        &self,
        reading: Option<&Counted>,
        cookie: u64,
        kernel: &Kernel<'_>,
    ) -> Option<Reconciliation> {
        const GONE: &str =
            "counters could not be read: the namespace is gone, or no process in it is visible";
        const ANOTHER: &str =
            "counters could not be read: another namespace may have the number of this one";
        const BEFORE: &str = "counters could not be read when tracing began";
        let Kernel { facts, .. } = kernel;
        let read = |counted: &Counted| {
            let netns = counted.netns;
            let was_there = facts.counters_at_start.contains_key(&cookie);
            let was_read = facts.counters_read_at.contains_key(&netns);
            (!was_there || was_read).then_some(())
        };
        let growth = reading.and_then(|it| it.paths.as_ref());
        let why_unread = match (reading, growth) {
            _ if facts.dump.is_some() => Some(Facts::UNCOUNTED),
            (Some(counted), Some(_)) if read(counted).is_none() => Some(BEFORE),
            (Some(_), Some(growth)) if self.has_any(kernel) && is_zero(growth) => Some(ANOTHER),
            (Some(_), Some(_)) => None,
            (Some(_) | None, _) => Some(GONE),
        };
        let (None, Some(counted), Some(growth)) = (why_unread, reading, growth) else {
            let why = why_unread.unwrap_or(GONE).to_owned();
            let traced = self.traced(kernel);
            return (self.wanted && !traced.is_empty()).then(|| Reconciliation {
                traced,
                ..unread(why)
            });
        };
        let mut account = Reconciliation {
            explained: true,
            ..Reconciliation::default()
        };
        let mut differences = Vec::new();
        for counter in COUNTERS.iter().filter(|it| it.with.is_none()) {
            let members = || path_counters::counted_with(counter).filter(|it| kernel.has(it));
            let of_growth = |it: &Counter| range_of(growth, it.name);
            let of_tally = |it: &Counter| self.tally(it.name).range();
            let Some(counted_sum) = members().map(of_growth).reduce(Range::add) else {
                continue;
            };
            let traced_sum = members().map(of_tally).fold(Range::ZERO, Range::add);
            for member in members() {
                let (counted, traced) = (of_growth(member), of_tally(member));
                note(&mut account.counted, member.name, counted.towards(traced));
                note(&mut account.traced, member.name, traced.towards(counted));
            }
            let of_kernel = counted_sum.towards(traced_sum);
            let traced = traced_sum.towards(counted_sum);
            if of_kernel == traced {
                continue;
            }
            let reasons = self.reasons(counter, of_kernel, traced, counted, kernel);
            account.explained &= reasons.are_enough;
            differences.push(format!(
                "{}: kernel counted {of_kernel}, traced {traced}{}",
                counter.name,
                reasons.text()
            ));
        }
        if differences.is_empty() {
            account.explained = false;
            let is_empty = account.counted.is_empty() && account.traced.is_empty();
            return (!is_empty).then_some(account);
        }
        account.why = Some(differences.join("; "));
        Some(account)
    }

    fn tally(&self, name: &str) -> Tally {
        self.tallies.get(name).copied().unwrap_or_default()
    }

    /// Traced events that the kernel counts.
    fn traced(&self, kernel: &Kernel<'_>) -> BTreeMap<String, u64> {
        let counters = COUNTERS.iter().filter(|it| kernel.has(it));
        let traced = counters.map(|it| (it.name.to_owned(), self.tally(it.name).range().most));
        traced.filter(|(_, count)| *count > 0).collect()
    }

    /// The kernel has certainly counted something.
    fn has_any(&self, kernel: &Kernel<'_>) -> bool {
        let mut counters = COUNTERS.iter().filter(|it| kernel.has(it));
        counters.any(|it| it.is_always_seen() && self.tally(it.name).sure > 0)
    }

    /// Why the kernel may have counted another number.
    fn reasons(
        &self,
        counter: &Counter,
        of_kernel: u64,
        traced: u64,
        counted: &Counted,
        kernel: &Kernel<'_>,
    ) -> Reasons {
        let Kernel { report, facts, .. } = kernel;
        let sensor = facts.sensor(SensorId::Subflow);
        let mut reasons = Reasons {
            of: of_kernel.abs_diff(traced),
            accounted: 0,
            are_enough: false,
            texts: Vec::new(),
        };
        if sensor.is_some_and(|it| it.rung == Rung::Tracepoint) && !counter.is_always_seen() {
            reasons.explains("the attach method tracepoint does not see all of these");
        }
        reasons.adds(self.inferred, "with an inferred cause");
        if traced > of_kernel {
            return reasons;
        }
        let probes = sensor.map(|it| it.probes.as_slice()).unwrap_or_default();
        if !counter.is_observed_by(probes) {
            reasons.explains("this kernel has no function that shows them all");
        }
        if let Some(doubt) = &counted.doubt
            && facts.counters_listed_at.is_none()
        {
            reasons.explains(doubt);
        }
        if counter.is_reported_later {
            reasons.adds(report.paths_under_way, "paths under way");
            reasons.adds(self.existing, "joins that began before tracing");
        }
        if let Some(loss) = report.of(SensorId::Subflow) {
            let Loss {
                capped,
                missed,
                unfollowed,
                over_share,
                ..
            } = loss;
            reasons.adds(*capped, "capped");
            reasons.adds(loss.lost(), "lost");
            reasons.adds(*missed, "runs of a probe skipped by the kernel");
            reasons.adds(unfollowed.saturating_add(*over_share), "not tracked");
        }
        reasons
    }
}

/// Reasons for a difference, and for how much of it they account.
struct Reasons {
    of: u64,
    accounted: u64,
    are_enough: bool,
    texts: Vec<String>,
}

impl Reasons {
    /// A reason for a difference of any size.
    fn explains(&mut self, why: &str) {
        self.are_enough = true;
        self.texts.push(why.to_owned());
    }

    /// A reason for a difference of this size.
    fn adds(&mut self, count: u64, what: &str) {
        if count == 0 {
            return;
        }
        self.accounted = self.accounted.saturating_add(count);
        self.are_enough |= self.accounted >= self.of;
        self.texts.push(match count {
            u64::MAX => format!("any number {what}"),
            count => format!("{count} {what}"),
        });
    }

    fn text(&self) -> String {
        match self.texts.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.texts.join(", ")),
        }
    }
}

fn note(counts: &mut BTreeMap<String, u64>, name: &str, count: u64) {
    if count > 0 {
        counts.insert(name.to_owned(), count);
    }
}

/// What the kernel counted while the probes were attached.
fn range_of(growth: &Growth, name: &str) -> Range {
    let of = |map: &BTreeMap<String, u64>| map.get(name).copied().unwrap_or(0);
    let least = of(&growth.before);
    Range {
        least,
        most: of(&growth.after).max(least),
    }
}

/// The kernel counted nothing.
fn is_zero(growth: &Growth) -> bool {
    COUNTERS
        .iter()
        .all(|it| range_of(growth, it.name).most == 0)
}

/// By how much the counters of paths grew that this kernel has, also if that is zero.
#[must_use]
pub fn path_growth(
    before: Option<&BTreeMap<String, u64>>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let grown = COUNTERS.iter().filter_map(|counter| {
        let then = before.and_then(|it| it.get(counter.name)).copied();
        let now = after.get(counter.name)?;
        let growth = now.saturating_sub(then.unwrap_or(0));
        Some((counter.name.to_owned(), growth))
    });
    grown.collect()
}
