//! Findings -> sums: connections, fallbacks and queries per process, cause, destination. Pure, and
//! bounded: beyond [`GROUPS_MAX`] groups everything goes into a common one, the others.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use crate::{
    ledger::{Change, Counts, Ledger, REMEMBERED_MAX},
    model::{By, Finding, Prefix, Process, Subject, Sum, SumRow, SumTable, Verdict},
};

/// At most this many groups are distinguished.
pub const GROUPS_MAX: usize = 10_000;

/// Key of fallbacks without a known cause.
const UNKNOWN: &str = "unknown";

/// Prefix lengths of destination networks, bits.
const PREFIX_BITS_V4: u8 = 24;
const PREFIX_BITS_V6: u8 = 48;

/// Index of a group; `None` is the group of the others.
type Group = Option<usize>;

/// How much a finding knows of the property that it is grouped by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Certainty {
    /// Nothing: no remote end yet, no fallback so far, no owner.
    Nothing,
    /// The connection fell back, for an unknown cause.
    Partly,
    /// The group is the connection's own.
    Known,
}

impl Certainty {
    /// `None` if a connection may be in several groups at once.
    fn of(by: By, subject: &Subject<'_>) -> Option<Self> {
        let known = |is_known: bool| match is_known {
            true => Self::Known,
            false => Self::Nothing,
        };
        match by {
            By::Process | By::Cgroup => Some(known(subject.process.is_some())),
            By::Dest => {
                let mut remote = subject.socket.iter().map(|it| it.remote.ip());
                Some(known(remote.any(|it| !it.is_unspecified())))
            }
            By::Cause => match (subject.cause, subject.has_fallen) {
                (Some(_), true) => Some(Self::Known),
                (None, true) => Some(Self::Partly),
                (None, false) => Some(Self::Nothing),
                // E.g. a refused fallback: the connection continues.
                (Some(_), false) => None,
            },
            By::Netns | By::Verdict => None,
        }
        .filter(|_| !subject.is_refusal)
    }
}

/// The contribution of a connection to a group so far.
#[derive(Clone, Debug)]
struct Mark {
    by: By,
    group: Group,
    certainty: Option<Certainty>,
    counts: Counts,
    findings: u64,
    queries: u64,
    /// Empty if the group is known to be the connection's: it is for a move to another group.
    verdicts: BTreeMap<Verdict, u64>,
    /// The last answer with a verdict is one of this group.
    last: Option<Verdict>,
}

/// The contribution of a connection so far, per property and group.
#[derive(Clone, Debug, Default)]
pub struct Marks(Vec<Mark>);

impl Marks {
    /// The group that is more certain to be the connection's.
    fn better(&self, by: By, than: Certainty) -> Option<Group> {
        let is_it = |mark: &&Mark| {
            mark.by == by && mark.certainty.is_some_and(|certainty| certainty > than)
        };
        let better = self.0.iter().filter(is_it);
        better
            .max_by_key(|mark| mark.certainty)
            .map(|mark| mark.group)
    }

    /// Removes the contributions to groups that are less certain to be the connection's.
    fn take_worse(&mut self, by: By, than: Certainty) -> Vec<Mark> {
        let is_it = |mark: &mut Mark| {
            mark.by == by && mark.certainty.is_some_and(|certainty| certainty < than)
        };
        self.0.extract_if(.., is_it).collect()
    }

    /// The last answer with a verdict.
    fn last(&mut self, by: By) -> Option<(&mut Mark, Verdict)> {
        let mut marks = self.0.iter_mut();
        marks.find_map(|mark| match mark.last {
            Some(verdict) if mark.by == by => Some((mark, verdict)),
            Some(_) | None => None,
        })
    }

    fn of(&mut self, by: By, group: Group) -> &mut Mark {
        let is_it = |mark: &Mark| mark.by == by && mark.group == group;
        let at = match self.0.iter().position(is_it) {
            Some(at) => at,
            None => {
                self.0.push(Mark {
                    by,
                    group,
                    certainty: None,
                    counts: Counts::default(),
                    findings: 0,
                    queries: 0,
                    verdicts: BTreeMap::new(),
                    last: None,
                });
                self.0.len() - 1
            }
        };
        &mut self.0[at]
    }
}

/// Counts one verdict less.
fn subtract(verdicts: &mut BTreeMap<Verdict, u64>, verdict: Verdict, count: u64) {
    if let Some(sum) = verdicts.get_mut(&verdict) {
        *sum = sum.saturating_sub(count);
        if *sum == 0 {
            verdicts.remove(&verdict);
        }
    }
}

/// Replaces a connection's contribution to a group, `mark`, by `now`.
fn replace(sum: &mut Sum, mark: &mut Counts, now: Counts) {
    let mut counts = Counts {
        connections: sum.connections,
        fallen: sum.fallbacks,
        deceived: sum.deceived,
    };
    counts.replace(*mark, now);
    *mark = now;
    (sum.connections, sum.fallbacks, sum.deceived) =
        (counts.connections, counts.fallen, counts.deceived);
}

/// A group and its sums.
#[derive(Debug)]
struct Counted {
    key: String,
    sum: Sum,
    /// Findings in it; zero if all moved to groups that became known later.
    findings: u64,
}

/// Sums by one property of findings.
#[derive(Debug)]
pub struct Aggregation {
    by: By,
    groups_max: usize,
    indices: HashMap<String, usize>,
    sums: Vec<Counted>,
    others: Option<Sum>,
}

impl Aggregation {
    /// An empty aggregation.
    #[must_use]
    pub fn new(by: By) -> Self {
        Self::with_limit(by, GROUPS_MAX)
    }

    fn with_limit(by: By, groups_max: usize) -> Self {
        Self {
            by,
            groups_max,
            indices: HashMap::new(),
            sums: Vec::new(),
            others: None,
        }
    }

    /// Adds a finding, and the current contribution of its connection, if any. `path_of` returns
    /// control group paths that the finding does not contain.
    pub fn add<'a>(
        &mut self,
        subject: &Subject<'a>,
        mut connection: Option<(Counts, &mut Marks)>,
        path_of: &dyn Fn(u64) -> Option<&'a str>,
    ) {
        let by = self.by;
        let Some(name) = key(by, subject, path_of) else {
            return;
        };
        let certainty = Certainty::of(by, subject);
        // A later query that does not show the property (it failed, the socket is closed) does not
        // make it unknown.
        let better = match (&connection, certainty) {
            (Some((_, marks)), Some(certainty)) => marks.better(by, certainty),
            (Some(_), None) | (None, _) => None,
        };
        let group = better.unwrap_or_else(|| self.group(name));
        if let (Some((_, marks)), Some(certainty)) = (&mut connection, certainty) {
            self.move_to(group, certainty, marks);
        }
        let replaced = match &mut connection {
            Some((_, marks)) if subject.is_closing => self.take_last(group, marks),
            Some(_) | None => None,
        };
        let verdict_group = replaced.unwrap_or(group);
        if let Some(verdict) = subject.verdict {
            self.count_verdict(
                verdict_group,
                verdict,
                subject.is_query,
                certainty,
                &mut connection,
            );
        }
        self.count_findings(group, |findings| findings + 1);
        let Some(sum) = self.sum(group) else {
            return;
        };
        sum.queries += u64::from(subject.is_query);
        sum.refusals += u64::from(subject.is_refusal);
        // A refusal does not identify the connection, if there is one: that counts when it is
        // queried or ends.
        if let Some((now, marks)) = connection.filter(|_| !subject.is_refusal) {
            let mark = marks.of(by, group);
            mark.certainty = mark.certainty.max(certainty);
            mark.findings += 1;
            mark.queries += u64::from(subject.is_query);
            // A group does not count a fallback that none of its findings reported: that belongs to
            // the group of its cause.
            let is_reported = subject.has_fallen || mark.counts.fallen > 0;
            let now = match is_reported {
                true => now,
                false => Counts {
                    fallen: 0,
                    deceived: 0,
                    ..now
                },
            };
            replace(sum, &mut mark.counts, now);
        }
    }

    fn sum(&mut self, group: Group) -> Option<&mut Sum> {
        match group {
            Some(index) => self.sums.get_mut(index).map(|it| &mut it.sum),
            None => Some(self.others.get_or_insert_default()),
        }
    }

    fn count_findings(&mut self, group: Group, change: impl FnOnce(u64) -> u64) {
        if let Some(counted) = group.and_then(|index| self.sums.get_mut(index)) {
            counted.findings = change(counted.findings);
        }
    }

    /// Moves a connection from the groups where it was until its property became known.
    fn move_to(&mut self, group: Group, certainty: Certainty, marks: &mut Marks) {
        let by = self.by;
        for mut old in marks.take_worse(by, certainty) {
            self.count_findings(old.group, |findings| findings.saturating_sub(old.findings));
            self.count_findings(group, |findings| findings + old.findings);
            if let Some(sum) = self.sum(old.group) {
                replace(sum, &mut old.counts, Counts::default());
                sum.queries = sum.queries.saturating_sub(old.queries);
                for (verdict, count) in &old.verdicts {
                    subtract(&mut sum.verdicts, *verdict, *count);
                }
            }
            let Some(sum) = self.sum(group) else {
                continue;
            };
            let mark = marks.of(by, group);
            sum.queries += old.queries;
            mark.findings += old.findings;
            mark.queries += old.queries;
            for (verdict, count) in old.verdicts {
                *sum.verdicts.entry(verdict).or_default() += count;
                if certainty < Certainty::Known {
                    *mark.verdicts.entry(verdict).or_default() += count;
                }
            }
            mark.last = old.last.or(mark.last);
        }
    }

    /// Removes the verdict of the connection's last answer, which the closing verdict replaces.
    /// Returns the group in which it is replaced.
    fn take_last(&mut self, group: Group, marks: &mut Marks) -> Option<Group> {
        let (mark, verdict) = marks.last(self.by)?;
        mark.last = None;
        subtract(&mut mark.verdicts, verdict, 1);
        let from = mark.group;
        // By verdict, the answer moves with it.
        let moves = self.by == By::Verdict && from != group && mark.queries > 0;
        mark.queries -= u64::from(moves);
        let is_left = moves && mark.queries == 0;
        let mut counts = mark.counts;
        if is_left {
            mark.counts = Counts::default();
        }
        mark.findings = mark.findings.saturating_sub(u64::from(moves));
        if moves {
            self.count_findings(from, |findings| findings.saturating_sub(1));
            self.count_findings(group, |findings| findings + 1);
            marks.of(self.by, group).findings += 1;
            marks.of(self.by, group).queries += 1;
            self.sum(group)?.queries += 1;
        }
        let sum = self.sum(from)?;
        subtract(&mut sum.verdicts, verdict, 1);
        sum.queries = sum.queries.saturating_sub(u64::from(moves));
        if is_left {
            replace(sum, &mut counts, Counts::default());
        }
        Some(if self.by == By::Verdict { group } else { from })
    }

    /// Counts a verdict, and remembers it if it is that of the connection's last answer.
    fn count_verdict(
        &mut self,
        group: Group,
        verdict: Verdict,
        is_answer: bool,
        certainty: Option<Certainty>,
        connection: &mut Option<(Counts, &mut Marks)>,
    ) {
        if let Some(sum) = self.sum(group) {
            *sum.verdicts.entry(verdict).or_default() += 1;
        }
        if let Some((_, marks)) = connection {
            if let Some((mark, _)) = marks.last(self.by) {
                mark.last = None;
            }
            let mark = marks.of(self.by, group);
            let certainty = mark.certainty.or(certainty);
            if certainty.is_some_and(|it| it < Certainty::Known) {
                *mark.verdicts.entry(verdict).or_default() += 1;
            }
            mark.last = is_answer.then_some(verdict);
        }
    }

    fn group(&mut self, name: String) -> Group {
        if let Some(index) = self.indices.get(&name) {
            return Some(*index);
        }
        if self.sums.len() >= self.groups_max {
            return None;
        }
        let index = self.sums.len();
        self.sums.push(Counted {
            key: name.clone(),
            sum: Sum::default(),
            findings: 0,
        });
        self.indices.insert(name, index);
        Some(index)
    }

    /// The sums so far: most fallbacks first, then by name. `forgotten` connections may have been
    /// counted again.
    #[must_use]
    pub fn table(&self, forgotten: u64) -> SumTable {
        let mut rows: Vec<SumRow> = self
            .sums
            .iter()
            .filter(|it| it.findings > 0)
            .map(|it| SumRow {
                key: it.key.clone(),
                sum: it.sum.clone(),
            })
            .collect();
        rows.sort_by(|one, other| {
            (other.sum.fallbacks.cmp(&one.sum.fallbacks)).then_with(|| one.key.cmp(&other.key))
        });
        SumTable {
            by: self.by,
            rows,
            others: self.others.clone(),
            forgotten,
        }
    }
}

/// Sums by several properties of findings (`--by`).
#[derive(Debug)]
pub struct Sums {
    ledger: Ledger<Marks>,
    aggregations: Vec<Aggregation>,
}

impl Default for Sums {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Sums {
    /// Creates empty sums: one table per property, in the given order.
    #[must_use]
    pub fn new(all: &[By]) -> Self {
        let mut unique: Vec<By> = Vec::new();
        for by in all {
            if !unique.contains(by) {
                unique.push(*by);
            }
        }
        Self {
            ledger: Ledger::new(REMEMBERED_MAX),
            aggregations: unique.into_iter().map(Aggregation::new).collect(),
        }
    }

    /// True if no sums are requested.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.aggregations.is_empty()
    }

    /// Adds a finding. `path_of` returns control group paths that the finding does not contain.
    pub fn add<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>) {
        let subject = Subject::of(finding);
        let mut change = self
            .ledger
            .take(finding, &subject, |_key, _socket| Marks::default());
        let now = change.as_ref().map(Change::now);
        for aggregation in &mut self.aggregations {
            let marks = change.as_mut().map(|change| &mut change.entry.details);
            aggregation.add(&subject, now.zip(marks), path_of);
        }
    }

    /// The sums so far.
    pub fn tables(&self) -> impl Iterator<Item = SumTable> {
        let forgotten = self.ledger.forgotten();
        self.aggregations.iter().map(move |it| it.table(forgotten))
    }
}

/// The group of a process.
#[must_use]
pub fn process(process: Option<&Process>) -> String {
    match process {
        Some(process) => format!("{} {}", process.comm, process.number()),
        None => "?".into(),
    }
}

/// The group of a remote address: its network.
#[must_use]
pub fn destination(remote: SocketAddr) -> String {
    if remote.ip().is_unspecified() {
        return "-".into();
    }
    let bits = match remote.ip().to_canonical().is_ipv4() {
        true => PREFIX_BITS_V4,
        false => PREFIX_BITS_V6,
    };
    Prefix::around(remote.ip(), bits).to_string()
}

/// Name of the group that a finding belongs to; `None` if the property does not apply to it.
fn key<'a>(
    by: By,
    subject: &Subject<'a>,
    path_of: &dyn Fn(u64) -> Option<&'a str>,
) -> Option<String> {
    Some(match by {
        By::Process => process(subject.process),
        By::Cause => match (subject.cause, subject.has_fallen) {
            (Some(cause), _) => cause.to_owned(),
            (None, true) => UNKNOWN.into(),
            (None, false) => "-".into(),
        },
        By::Dest => {
            let remote = subject.socket.map(|it| it.remote);
            remote.map_or_else(|| "-".into(), destination)
        }
        By::Netns => subject.netns.to_string(),
        By::Cgroup => match subject.process {
            Some(process) => subject
                .cgroup
                .or_else(|| path_of(process.cgroup_id))
                .map_or_else(|| process.cgroup_id.to_string(), str::to_owned),
            None => "?".into(),
        },
        By::Verdict => subject.verdict?.name().to_owned(),
    })
}

#[cfg(test)]
mod tests;
