//! Reconciles traced fallbacks with the kernel's counters, per cause and network namespace.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::{
    CAUSES, CauseCertainty, Connection, ConnectionKind, Counted, Facts, LossReport, NetnsCounters,
    Reconciliation, SensorId,
};

/// At most this many network namespaces have an account. When full, those that have ended with a
/// matching account are merged into one. If there are none, further namespaces are not recorded,
/// which the account mentions.
const NAMESPACES_MAX: usize = 4096;

/// A network namespace: its inode number, which is reused, and its cookie, which is not; the cookie
/// is 0 in older captures.
type Namespace = (u32, u64);

/// The counter of third ACKs without MPTCP.
const THIRD_ACK: &str = "MPCapableFallbackACK";

/// The counter of connections without a token; a server counts requests for MPTCP that it answers
/// with plain TCP.
const NO_TOKEN: &str = "MPFallbackTokenInit";

/// Fallbacks per namespace and cause.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FallbackLedger {
    namespaces: BTreeMap<Namespace, NetnsCounts>,
    settled: Settled,
    beyond: u64,
}

/// Ended namespaces with a matching or explained account, merged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Settled {
    counted: BTreeMap<String, u64>,
    traced: BTreeMap<String, u64>,
    children: Children,
    wanted: bool,
}

/// TCP children of MPTCP listeners.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Children {
    /// Their client may or may not have requested MPTCP.
    unclear: u64,
    /// All of them, including `unclear`.
    all: u64,
}

/// The kernel's counts of one namespace and the traced ones.
struct Compared {
    counted: BTreeMap<String, u64>,
    traced: BTreeMap<String, u64>,
    /// What differs.
    differences: Vec<String>,
    /// TCP children account for all of that.
    explained: bool,
}

/// One network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct NetnsCounts {
    causes: BTreeMap<String, u64>,
    /// The part of `causes` that the first reading of the counters may include already.
    maybe_before: BTreeMap<String, u64>,
    unknown: u64,
    children: Children,
    /// The filter admits something in this namespace.
    wanted: bool,
    /// Times of the first and the last event.
    first_at: Duration,
    last_at: Duration,
    /// The BPF side's last reading, taken while a socket still held the namespace.
    counted: Option<NetnsCounters>,
    /// Number of events after that reading.
    since: u64,
}

impl FallbackLedger {
    /// Records an event.
    pub fn record(&mut self, connection: &Connection, facts: &Facts) {
        let is_fallback = connection.kind == ConnectionKind::Fallback;
        let is_plain = connection.kind == ConnectionKind::Plain;
        let is_child = is_plain && connection.known == CauseCertainty::Unknown;
        if !(is_fallback || is_plain) {
            return;
        }
        let netns = connection.socket.netns;
        // The kernel had counted it before the first reading, which may have been made in two ways.
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
        counts.children.all += u64::from(is_plain);
        if is_plain && !is_child {
            return;
        }
        counts.wanted |= connection.admitted;
        let is_later = |it: &NetnsCounters| connection.at > it.at;
        counts.since += u64::from(counts.counted.as_ref().is_some_and(is_later));
        match &connection.cause {
            _ if is_child => counts.children.unclear += 1,
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

    /// Takes the BPF side's reading of a namespace's counters.
    pub fn counted(&mut self, counters: NetnsCounters) {
        let namespace = (counters.netns, counters.cookie);
        if let Some(counts) = self.namespaces.get_mut(&namespace)
            && counts.counted.as_ref().is_none_or(|it| it.at < counters.at)
        {
            counts.counted = Some(counters);
            counts.since = 0;
        }
    }

    /// Drops namespaces that had ended when the reading of all counters began, at `read_at`. A
    /// namespace that `/proc` does not show may still exist if the BPF side has read it and no
    /// other namespace has its inode number.
    pub fn forget_gone(&mut self, counted: &[Counted], read_at: Duration) {
        let last = self.last();
        let is_alive = |namespace: &Namespace, counts: &NetnsCounts| {
            let is_read = || counted.iter().any(|it| it.netns == namespace.0);
            last.get(&namespace.0) == Some(&namespace.1) && (counts.counted.is_some() || is_read())
        };
        self.namespaces
            .retain(|namespace, counts| counts.last_at >= read_at || is_alive(namespace, counts));
    }

    /// Time of the last event, if there is one.
    #[must_use]
    pub fn last_at(&self) -> Option<Duration> {
        self.namespaces.values().map(|it| it.last_at).max()
    }

    /// Namespaces with traced events.
    pub fn namespaces(&self) -> impl Iterator<Item = u32> {
        self.namespaces.keys().map(|(netns, _cookie)| *netns)
    }

    /// The cookie of the newest namespace per inode number: the older ones have ended.
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

    /// Makes room: merges ended namespaces with a matching account.
    fn settle(&mut self, facts: &Facts) {
        let last = self.last();
        let Self {
            namespaces,
            settled,
            beyond: _,
        } = self;
        namespaces.retain(|(netns, cookie), counts| {
            let is_gone = last.get(netns) != Some(cookie);
            let counted = counts.read_by_bpf(*netns, *cookie, facts);
            let Some(counted) = counted.filter(|_| is_gone) else {
                return true;
            };
            let compared = counts.compare(&counted, facts);
            if !compared.explained {
                return true;
            }
            settled.wanted |= counts.wanted;
            settled.children = settled.children.and(counts.children);
            for (sums, counts) in [
                (&mut settled.counted, compared.counted),
                (&mut settled.traced, compared.traced),
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
    /// What the kernel counted during the trace, if the BPF side read it after the last event, and
    /// knows the initial values.
    fn read_by_bpf(&self, netns: u32, cookie: u64, facts: &Facts) -> Option<Counted> {
        let _listed = facts.counters_listed_at?;
        let read = self.counted.as_ref().filter(|_| self.since == 0)?;
        let counters = growth(facts.counters_at_start.get(&cookie), &read.counters);
        Some(Counted {
            netns,
            counters_after: counters.clone(),
            counters,
            paths: None,
            doubt: None,
        })
    }

    /// The best known value of the kernel's counters: `reading` is what `/proc` showed at the end,
    /// for a namespace with this inode number.
    fn counted<'a>(
        &self,
        netns: u32,
        cookie: u64,
        reading: Option<&'a Counted>,
        facts: &Facts,
    ) -> Option<Cow<'a, Counted>> {
        let read = self.read_by_bpf(netns, cookie, facts);
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
                // Another namespace has its inode number now.
                Some(Cow::Owned(read))
            }
            (Some(reading), _) => Some(reading),
            (None, read) => read.map(Cow::Owned),
        }
    }

    /// Counted and traced fallbacks per cause, and the differences.
    fn compare(&self, counted: &Counted, facts: &Facts) -> Compared {
        let of_kernel = counted_causes(facts)
            .map(|name| (name.to_owned(), counted_by_kernel(name, self, counted)))
            .filter(|(_name, count)| *count > 0)
            .collect();
        Compared::new(of_kernel, self.traced(facts), self.children)
    }

    /// Traced events that the kernel counts.
    fn traced(&self, facts: &Facts) -> BTreeMap<String, u64> {
        counted_causes(facts)
            .filter_map(|name| Some((name.to_owned(), *self.causes.get(name)?)))
            .collect()
    }

    /// Why the kernel's counters are unknown.
    fn why_unread(&self, facts: &Facts) -> String {
        match self.since {
            _ if facts.dump.is_some() => Facts::UNCOUNTED.to_owned(),
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

impl Children {
    fn and(self, other: Self) -> Self {
        Self {
            unclear: self.unclear.saturating_add(other.unclear),
            all: self.all.saturating_add(other.all),
        }
    }

    /// At most this many of them are a fallback for the kernel, with this cause.
    fn may_count_as(self, cause: &str) -> u64 {
        match cause {
            THIRD_ACK => self.unclear,
            NO_TOKEN => self.all,
            _all_others => 0,
        }
    }
}

impl Compared {
    fn new(
        counted: BTreeMap<String, u64>,
        traced: BTreeMap<String, u64>,
        children: Children,
    ) -> Self {
        let names: BTreeSet<&String> = counted.keys().chain(traced.keys()).collect();
        let (mut differences, mut explained) = (Vec::new(), true);
        for name in names {
            let of = |map: &BTreeMap<String, u64>| map.get(name).copied().unwrap_or(0);
            let (kernel, traced) = (of(&counted), of(&traced));
            if kernel == traced {
                continue;
            }
            let mut difference = format!("{name}: kernel counted {kernel}, traced {traced}");
            // Children whose cause is ambiguous can account for the difference.
            let children = children.may_count_as(name);
            let more = kernel.saturating_sub(traced);
            if more > 0 && more <= children {
                let of = if children == 1 { "child" } else { "children" };
                difference.push_str(&format!(
                    " ({children} TCP {of} of MPTCP listeners may count as {name})"
                ));
            } else {
                explained = false;
            }
            differences.push(difference);
        }
        Self {
            counted,
            traced,
            differences,
            explained,
        }
    }

    /// The account; without the reasons for what is not explained.
    fn account(self) -> Reconciliation {
        let why = self.differences.join("; ");
        Reconciliation {
            counted: self.counted,
            traced: self.traced,
            explained: self.explained && !why.is_empty(),
            why: (!why.is_empty()).then_some(why),
            ..Reconciliation::default()
        }
    }
}

/// True if each counter has reached its earlier value.
fn covers(now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>) -> bool {
    then.iter()
        .all(|(name, count)| now.get(name).is_some_and(|now| now >= count) || *count == 0)
}

/// Names of this kernel's counters that count fallbacks.
fn counted_causes(facts: &Facts) -> impl Iterator<Item = &'static str> {
    CAUSES
        .iter()
        .filter(|cause| cause.is_fallback && facts.counts(cause.name))
        .map(|cause| cause.name)
}

/// Reconciles each namespace with known kernel counters or traced events.
#[must_use]
pub fn reconcile(
    fallback_ledger: &FallbackLedger,
    report: &LossReport,
    facts: &Facts,
) -> Vec<Reconciliation> {
    let nothing = NetnsCounts::default();
    let mut pages: BTreeMap<u32, Vec<(u64, &NetnsCounts)>> = report
        .counted
        .iter()
        .map(|counted| (counted.netns, Vec::new()))
        .collect();
    for ((netns, cookie), counts) in &fallback_ledger.namespaces {
        pages.entry(*netns).or_default().push((*cookie, counts));
    }
    let mut accounts = Vec::new();
    for (netns, mut pages) in pages {
        let reading = report.counted.iter().find(|it| it.netns == netns);
        // Earlier namespaces with this inode number have ended.
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
        children,
        wanted,
    } = &fallback_ledger.settled;
    if *wanted || !(counted.is_empty() && traced.is_empty()) {
        accounts.push(Compared::new(counted.clone(), traced.clone(), *children).account());
    }
    if fallback_ledger.beyond > 0 {
        accounts.push(Reconciliation {
            unread: true,
            why: Some(format!(
                "{} fallbacks are not reconciled: there are more than {NAMESPACES_MAX} namespaces",
                fallback_ledger.beyond
            )),
            ..Reconciliation::default()
        });
    }
    accounts
}

/// The account of one namespace; `None` if nothing was counted or traced there. If the filter
/// admits none of its events, unreadable counters are not a loss.
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
            why: Some(counts.why_unread(facts)),
            ..Reconciliation::default()
        });
    };
    let compared = counts.compare(counted, facts);
    let is_explained = compared.explained;
    let mut result = Reconciliation {
        netns,
        ..compared.account()
    };
    let Some(why) = &mut result.why else {
        let is_empty = result.counted.is_empty() && result.traced.is_empty();
        return (counts.wanted || !is_empty).then_some(result);
    };
    if !is_explained {
        for reason in reasons(counts, counted, report, facts) {
            why.push_str("; ");
            why.push_str(&reason);
        }
    }
    Some(result)
}

/// What the kernel counted while the probes were attached. At both ends there is a short time in
/// which only one side may have counted an event: any traced value between the two bounds is
/// correct.
fn counted_by_kernel(name: &str, counts: &NetnsCounts, counted: &Counted) -> u64 {
    let of = |map: &BTreeMap<String, u64>| map.get(name).copied().unwrap_or(0);
    let (least, most) = (of(&counted.counters), of(&counted.counters_after));
    let most = most.max(least).saturating_add(of(&counts.maybe_before));
    of(&counts.causes).clamp(least, most)
}

/// Possible reasons for a difference.
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
    if counts.children.unclear > 0 {
        reasons.push(format!(
            "{} TCP children of MPTCP listeners, which may count as {THIRD_ACK}",
            counts.children.unclear
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

/// By how much the fallback counters grew.
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
