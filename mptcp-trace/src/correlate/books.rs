//! What was traced, cause by cause and namespace by namespace, against what the kernel counted.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use crate::model::{
    CAUSES, CauseCertainty, Connection, ConnectionKind, Counted, Facts, LossReport, NetnsCounters,
    Reconciliation, SensorId,
};

/// Network namespaces that are kept account of at most. Beyond that, those that are gone and whose account holds have one
/// account together; if there are none, nothing more is entered, and the account says so.
const NAMESPACES_MAX: usize = 4096;

/// A network namespace: its inode number, which another one gets when it is gone, and its cookie, which no other gets; 0 in
/// captures of before it was recorded.
type Namespace = (u32, u64);

/// The counter of third packets without MPTCP.
const THIRD_ACK: &str = "MPCapableFallbackACK";

/// The counter of connections for which there was no token; a server counts requests for MPTCP that it answers without it.
const NO_TOKEN: &str = "MPFallbackTokenInit";

/// Fallbacks by namespace and cause.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FallbackLedger {
    namespaces: BTreeMap<Namespace, NetnsCounts>,
    settled: Settled,
    beyond: u64,
}

/// Namespaces that are gone and whose account holds, together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Settled {
    counted: BTreeMap<String, u64>,
    traced: BTreeMap<String, u64>,
    wanted: bool,
}

/// One network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct NetnsCounts {
    causes: BTreeMap<String, u64>,
    /// Of these, those that may have been in the counters already when they were first read.
    maybe_before: BTreeMap<String, u64>,
    unknown: u64,
    /// Children of which it is not known whether the client asked for MPTCP.
    children: u64,
    /// Children that are plain TCP, these among them.
    plain: u64,
    /// Something in here is wanted by the filter.
    wanted: bool,
    /// When the first of it happened, and the last.
    first_at: Duration,
    last_at: Duration,
    /// What the kernel half read last, while something of the namespace was still there.
    counted: Option<NetnsCounters>,
    /// How much has happened after that.
    since: u64,
}

impl FallbackLedger {
    /// Enters what was observed.
    pub fn record(&mut self, connection: &Connection, facts: &Facts) {
        let is_fallback = connection.kind == ConnectionKind::Fallback;
        let is_plain = connection.kind == ConnectionKind::Plain;
        let is_child = is_plain && connection.known == CauseCertainty::Unknown;
        if !(is_fallback || is_plain) {
            return;
        }
        let netns = connection.socket.netns;
        // The kernel had counted it before its counters were first read, which may have been done in two ways.
        let of_proc = facts.counters_read_at.get(&netns).copied();
        let read_at = || of_proc.into_iter().chain(facts.counters_listed_at);
        if read_at().map(|(from, _)| from).min() > Some(connection.at) {
            return;
        }
        let maybe_before = read_at().any(|(_, to)| connection.at <= to);
        let namespace = (netns, connection.netns_cookie);
        if self.namespaces.len() >= NAMESPACES_MAX && !self.namespaces.contains_key(&namespace) {
            self.settle(facts);
            if self.namespaces.len() >= NAMESPACES_MAX {
                self.beyond += 1;
                return;
            }
        }
        let counts = self
            .namespaces
            .entry(namespace)
            .or_insert_with(|| NetnsCounts {
                first_at: connection.at,
                ..NetnsCounts::default()
            });
        counts.last_at = counts.last_at.max(connection.at);
        counts.plain += u64::from(is_plain);
        if is_plain && !is_child {
            return;
        }
        counts.wanted |= connection.admitted;
        let is_later = |it: &NetnsCounters| connection.at > it.at;
        counts.since += u64::from(counts.counted.as_ref().is_some_and(is_later));
        match &connection.cause {
            _ if is_child => counts.children += 1,
            Some(cause) => {
                let cause = cause.clone().into_owned();
                if maybe_before {
                    *counts.maybe_before.entry(cause.clone()).or_default() += 1;
                }
                *counts.causes.entry(cause).or_default() += 1;
            }
            None => counts.unknown += 1,
        }
    }

    /// The kernel half has read what the kernel counted in a namespace.
    pub fn counted(&mut self, counters: NetnsCounters) {
        let namespace = (counters.netns, counters.cookie);
        if let Some(counts) = self.namespaces.get_mut(&namespace)
            && counts.counted.as_ref().is_none_or(|it| it.at < counters.at)
        {
            counts.counted = Some(counters);
            counts.since = 0;
        }
    }

    /// Forgets namespaces that were gone when all counters were read, which began at `read_at`. What `/proc` does not show may be
    /// there all the same, if the kernel half has read it and nothing else has its number.
    pub fn forget_gone(&mut self, counted: &[Counted], read_at: Duration) {
        let last = self.last();
        let is_there = |namespace: &Namespace, counts: &NetnsCounts| {
            let is_read = || counted.iter().any(|it| it.netns == namespace.0);
            last.get(&namespace.0) == Some(&namespace.1) && (counts.counted.is_some() || is_read())
        };
        self.namespaces
            .retain(|namespace, counts| counts.last_at >= read_at || is_there(namespace, counts));
    }

    /// The namespaces in which something was traced.
    pub fn namespaces(&self) -> impl Iterator<Item = u32> {
        self.namespaces.keys().map(|(netns, _cookie)| *netns)
    }

    /// By inode number, the cookie of the namespace that began last: those before it are gone.
    fn last(&self) -> BTreeMap<u32, u64> {
        let mut last: BTreeMap<u32, (Duration, u64)> = BTreeMap::new();
        for ((netns, cookie), counts) in &self.namespaces {
            let known = last.entry(*netns).or_insert((counts.first_at, *cookie));
            *known = (*known).max((counts.first_at, *cookie));
        }
        last.into_iter()
            .map(|(netns, (_at, cookie))| (netns, cookie))
            .collect()
    }

    /// Makes room: namespaces that are gone, and whose account holds, get one account together.
    fn settle(&mut self, facts: &Facts) {
        let last = self.last();
        let Self {
            namespaces,
            settled,
            beyond: _,
        } = self;
        namespaces.retain(|(netns, cookie), counts| {
            let is_gone = last.get(netns) != Some(cookie);
            let counted = counts.read_by_kernel_half(*netns, *cookie, facts);
            let Some(counted) = counted.filter(|_| is_gone) else {
                return true;
            };
            let (kernel, traced, differences) = counts.compare(&counted, facts);
            if !differences.is_empty() {
                return true;
            }
            settled.wanted |= counts.wanted;
            for (sums, counts) in [
                (&mut settled.counted, kernel),
                (&mut settled.traced, traced),
            ] {
                for (cause, count) in counts {
                    *sums.entry(cause).or_default() += count;
                }
            }
            false
        });
    }
}

impl NetnsCounts {
    /// What the kernel counted while it was watched, where the kernel half read it after all that happened, and knows what it
    /// was when tracing began.
    fn read_by_kernel_half(&self, netns: u32, cookie: u64, facts: &Facts) -> Option<Counted> {
        let _listed = facts.counters_listed_at?;
        let read = self.counted.as_ref().filter(|_| self.since == 0)?;
        let counters = growth(facts.counters_at_start.get(&cookie), &read.counters);
        Some(Counted {
            netns,
            counters_after: counters.clone(),
            counters,
            doubt: None,
        })
    }

    /// The best that is known of what the kernel counted: `reading` is what `/proc` showed at the end, of a namespace of this
    /// number.
    fn counted<'a>(
        &self,
        netns: u32,
        cookie: u64,
        reading: Option<&'a Counted>,
        facts: &Facts,
    ) -> Option<Cow<'a, Counted>> {
        let read = self.read_by_kernel_half(netns, cookie, facts);
        let reading = reading.map(|reading| match facts.counters_at_start.get(&cookie) {
            // `/proc` could not show it when tracing began.
            Some(then) if !facts.counters_read_at.contains_key(&netns) => Cow::Owned(Counted {
                counters: growth(Some(then), &reading.counters),
                counters_after: growth(Some(then), &reading.counters_after),
                ..reading.clone()
            }),
            Some(_) | None => Cow::Borrowed(reading),
        });
        match (reading, read) {
            (Some(reading), Some(read)) if !covers(&reading.counters_after, &read.counters) => {
                // It is another namespace that has its number now.
                Some(Cow::Owned(read))
            }
            (Some(reading), _) => Some(reading),
            (None, read) => read.map(Cow::Owned),
        }
    }

    /// What the kernel counted and what was traced, by cause, and what does not agree.
    fn compare(
        &self,
        counted: &Counted,
        facts: &Facts,
    ) -> (BTreeMap<String, u64>, BTreeMap<String, u64>, Vec<String>) {
        let (mut of_kernel, traced) = (BTreeMap::new(), self.traced(facts));
        let mut differences = Vec::new();
        for name in counted_causes(facts) {
            let kernel = counted_by_kernel(name, self, counted);
            if kernel > 0 {
                of_kernel.insert(name.to_owned(), kernel);
            }
            let traced = traced.get(name).copied().unwrap_or(0);
            // Children of which it cannot be told why they are plain TCP can make up for the difference.
            let explainable = match name {
                THIRD_ACK => self.children,
                NO_TOKEN => self.plain,
                _all_others => 0,
            };
            let explained = traced <= kernel && kernel - traced <= explainable;
            if kernel != traced && !explained {
                differences.push(format!("{name}: kernel counted {kernel}, traced {traced}"));
            }
        }
        (of_kernel, traced, differences)
    }

    /// What was traced of what the kernel counts.
    fn traced(&self, facts: &Facts) -> BTreeMap<String, u64> {
        counted_causes(facts)
            .filter_map(|name| Some((name.to_owned(), *self.causes.get(name)?)))
            .collect()
    }

    /// Why there is nothing to compare with.
    fn why_unread(&self) -> String {
        match self.since {
            0 => {
                "counters could not be read: the namespace is gone, or no process in it is visible"
                    .to_owned()
            }
            since => format!(
                "the namespace is gone, or no process in it is visible, and its counters were last \
                 read before {since} of its fallbacks"
            ),
        }
    }
}

/// True if each counter has reached what it was then.
fn covers(now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>) -> bool {
    then.iter()
        .all(|(name, count)| now.get(name).is_some_and(|now| now >= count) || *count == 0)
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
pub fn reconcile(
    books: &FallbackLedger,
    report: &LossReport,
    facts: &Facts,
) -> Vec<Reconciliation> {
    let nothing = NetnsCounts::default();
    let mut pages: BTreeMap<u32, Vec<(u64, &NetnsCounts)>> = report
        .counted
        .iter()
        .map(|counted| (counted.netns, Vec::new()))
        .collect();
    for ((netns, cookie), counts) in &books.namespaces {
        pages.entry(*netns).or_default().push((*cookie, counts));
    }
    let mut accounts = Vec::new();
    for (netns, mut pages) in pages {
        let reading = report.counted.iter().find(|it| it.netns == netns);
        // Those that had this number before are gone.
        pages.sort_by_key(|(_cookie, counts)| counts.first_at);
        let last = pages.pop().unwrap_or((0, &nothing));
        let of_gone = pages.iter().map(|counts| (*counts, None));
        for ((cookie, counts), reading) in of_gone.chain([(last, reading)]) {
            let counted = counts.counted(netns, cookie, reading, facts);
            accounts.extend(one(netns, counts, counted.as_deref(), report, facts));
        }
    }
    let Settled {
        counted,
        traced,
        wanted,
    } = &books.settled;
    if *wanted || !(counted.is_empty() && traced.is_empty()) {
        accounts.push(Reconciliation {
            counted: counted.clone(),
            traced: traced.clone(),
            ..Reconciliation::default()
        });
    }
    if books.beyond > 0 {
        accounts.push(Reconciliation {
            unread: true,
            why: Some(format!(
                "{} fallbacks are not reconciled: there are more than {NAMESPACES_MAX} namespaces",
                books.beyond
            )),
            ..Reconciliation::default()
        });
    }
    accounts
}

/// The account of one namespace; none if nothing was counted or traced there. Where only others did something that the filter does
/// not want, counters that cannot be read are no loss.
fn one(
    netns: u32,
    counts: &NetnsCounts,
    counted: Option<&Counted>,
    report: &LossReport,
    facts: &Facts,
) -> Option<Reconciliation> {
    let Some(counted) = counted else {
        return counts.wanted.then(|| Reconciliation {
            netns,
            traced: counts.traced(facts),
            unread: true,
            why: Some(counts.why_unread()),
            ..Reconciliation::default()
        });
    };
    let (of_kernel, traced, differences) = counts.compare(counted, facts);
    let mut result = Reconciliation {
        netns,
        counted: of_kernel,
        traced,
        why: None,
        unread: false,
    };
    if differences.is_empty() {
        let is_empty = result.counted.is_empty() && result.traced.is_empty();
        return (counts.wanted || !is_empty).then_some(result);
    }
    let mut why = differences.join("; ");
    for reason in reasons(counts, counted, report, facts) {
        why.push_str("; ");
        why.push_str(&reason);
    }
    result.why = Some(why);
    Some(result)
}

/// What the kernel counted while the probes were there. At both ends there is a moment in which it may have counted
/// what they did not see, or the other way round: what was traced is right if it lies between.
fn counted_by_kernel(name: &str, counts: &NetnsCounts, counted: &Counted) -> u64 {
    let of = |map: &BTreeMap<String, u64>| map.get(name).copied().unwrap_or(0);
    let (least, most) = (of(&counted.counters), of(&counted.counters_after));
    let most = most.max(least).saturating_add(of(&counts.maybe_before));
    of(&counts.causes).clamp(least, most)
}

/// What is known of the reason for a difference.
fn reasons(
    counts: &NetnsCounts,
    counted: &Counted,
    report: &LossReport,
    facts: &Facts,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if !facts.has_sensor(SensorId::Fallback) {
        reasons.push("the fallback sensor is off".to_owned());
    }
    if counts.unknown > 0 {
        reasons.push(format!("{} traced with an unknown cause", counts.unknown));
    }
    if counts.children > 0 {
        reasons.push(format!(
            "{} TCP children of MPTCP listeners, which may count as {THIRD_ACK}",
            counts.children
        ));
    }
    if let Some(loss) = report.of(SensorId::Fallback) {
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
