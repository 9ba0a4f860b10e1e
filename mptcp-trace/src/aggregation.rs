//! Findings -> sums: connections, fallbacks and queries per process, cause, destination. Pure, and
//! bounded: beyond [`GROUPS_MAX`] groups everything goes into a common one, the others.

mod keys;

use std::collections::{BTreeMap, HashMap};

use self::keys::{Certainty, NONE, key};
pub use self::keys::{InterfaceOf, destination, process};
use crate::{
    ledger::{Change, Counts, Ledger, REMEMBERED_MAX},
    model::{By, Finding, Path, PathKind, PathSum, Subject, Sum, SumRow, SumTable, Verdict},
    peers::{History, ends, spoke},
};

/// At most this many groups are distinguished.
pub const GROUPS_MAX: usize = 10_000;

/// Groups that begin with a path that failed get at most half of them: anybody can send joins that are
/// refused, from any address.
const STRANGERS_SHARE: usize = 2;

/// A connection counts in at most this many groups of a property: a peer can try paths from as many
/// addresses as it likes.
const GROUPS_OF_ONE_MAX: usize = 64;

/// Index of a group; `None` is the group of the others.
type Group = Option<usize>;

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
    /// As the verdicts.
    paths: Option<Box<PathSum>>,
    /// The last answer with a verdict is one of this group.
    last: Option<Verdict>,
}

impl Mark {
    fn add_paths(&mut self, paths: PathSum) {
        if paths != PathSum::default() {
            self.paths.get_or_insert_default().add(paths);
        }
    }
}

/// The contribution of a connection so far, per property and group.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    all: Vec<Mark>,
    /// It is counted whether its peer spoke MPTCP.
    is_answered: bool,
}

impl Marks {
    /// True if the connection is in a group.
    fn has(&self, by: By) -> bool {
        self.all.iter().any(|mark| mark.by == by)
    }

    /// True if the connection may be in this group.
    fn has_room(&self, by: By, group: Group) -> bool {
        let mut of_property = self.all.iter().filter(|mark| mark.by == by);
        let groups = of_property.clone().count();
        groups < GROUPS_OF_ONE_MAX || of_property.any(|mark| mark.group == group)
    }

    /// The group that is more certain to be the connection's.
    fn better(&self, by: By, than: Certainty) -> Option<Group> {
        let is_it = |mark: &&Mark| {
            mark.by == by && mark.certainty.is_some_and(|certainty| certainty > than)
        };
        let better = self.all.iter().filter(is_it);
        better
            .max_by_key(|mark| mark.certainty)
            .map(|mark| mark.group)
    }

    /// Removes the contributions to groups that are less certain to be the connection's.
    fn take_worse(&mut self, by: By, than: Certainty) -> Vec<Mark> {
        let is_it = |mark: &mut Mark| {
            mark.by == by && mark.certainty.is_some_and(|certainty| certainty < than)
        };
        self.all.extract_if(.., is_it).collect()
    }

    /// The last answer with a verdict.
    fn last(&mut self, by: By) -> Option<(&mut Mark, Verdict)> {
        let mut marks = self.all.iter_mut();
        marks.find_map(|mark| match mark.last {
            Some(verdict) if mark.by == by => Some((mark, verdict)),
            Some(_) | None => None,
        })
    }

    fn of(&mut self, by: By, group: Group) -> &mut Mark {
        let is_it = |mark: &Mark| mark.by == by && mark.group == group;
        let at = match self.all.iter().position(is_it) {
            Some(at) => at,
            None => {
                self.all.push(Mark {
                    by,
                    group,
                    certainty: None,
                    counts: Counts::default(),
                    findings: 0,
                    queries: 0,
                    verdicts: BTreeMap::new(),
                    paths: None,
                    last: None,
                });
                self.all.len() - 1
            }
        };
        &mut self.all[at]
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

/// True if anybody may have caused the finding.
fn is_strange(subject: &Subject<'_>) -> bool {
    let failed = |path: &Path| matches!(path.kind, PathKind::Failed | PathKind::ConnectFailed);
    subject
        .path
        .is_some_and(|path| path.connection.is_none() || failed(path))
}

/// Sums by one property of findings.
#[derive(Debug)]
pub struct Aggregation {
    by: By,
    groups_max: usize,
    indices: HashMap<String, usize>,
    sums: Vec<Counted>,
    /// Groups that began with a path that failed.
    strangers: usize,
    others: Option<Sum>,
    interface_of: InterfaceOf,
    /// Of peers, if the groups are such.
    history: History,
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
            strangers: 0,
            others: None,
            interface_of: |_netns, _address| None,
            history: History::default(),
        }
    }

    /// Adds a finding, and the current contribution of its connection, if any. `path_of` returns
    /// control group paths that the finding does not contain.
    pub fn add<'a>(
        &mut self,
        subject: &Subject<'a>,
        connection: Option<(Counts, &mut Marks)>,
        path_of: &dyn Fn(u64) -> Option<&'a str>,
    ) {
        let by = self.by;
        // A first path that failed opened no connection.
        let opens_none = |kind| kind == PathKind::ConnectFailed;
        let is_unopened = subject.path.is_some_and(|path| opens_none(path.kind));
        let mut connection = connection.filter(|_| !is_unopened);
        let name = key(by, subject, path_of, self.interface_of).or_else(|| {
            // A connection without a verdict is one of those that a share is relative to.
            let is_new = |(_, marks): &(Counts, &mut Marks)| !marks.has(by);
            (subject.is_end && connection.as_ref().is_some_and(is_new)).then(|| NONE.to_owned())
        });
        let Some(name) = name else {
            return;
        };
        let certainty = Certainty::of(by, subject);
        // A later query that does not show the property (it failed, the socket is closed) does not
        // make it unknown.
        let better = match (&connection, certainty) {
            (Some((_, marks)), Some(certainty)) => marks.better(by, certainty),
            (Some(_), None) | (None, _) => None,
        };
        let group = better.unwrap_or_else(|| self.group(name, is_strange(subject)));
        connection = connection.filter(|(_, marks)| marks.has_room(by, group));
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
        let paths = subject.path.map(PathSum::of).unwrap_or_default();
        sum.paths.add(paths);
        // A refusal does not identify the connection, if there is one: that counts when it is
        // queried or ends.
        if let Some((now, marks)) = connection.filter(|_| !subject.is_refusal) {
            let mark = marks.of(by, group);
            mark.certainty = mark.certainty.max(certainty);
            mark.findings += 1;
            mark.queries += u64::from(subject.is_query);
            if certainty.is_some_and(|it| it < Certainty::Known) {
                mark.add_paths(paths);
            }
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

    /// Counts whether a peer spoke MPTCP, if the groups are peers.
    fn remember(&mut self, finding: &Finding, subject: &Subject<'_>) {
        if self.by != By::Dest {
            return;
        }
        let (Some(mptcp), Some(socket)) = (spoke(finding), subject.socket) else {
            return;
        };
        let Some([local, _]) = ends(subject) else {
            return;
        };
        let name = (self.interface_of)(subject.netns, local);
        let local = name.unwrap_or_else(|| local.to_string());
        self.history
            .take(&destination(socket.remote), &local, mptcp);
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
            let paths = old.paths.take().map(|it| *it).unwrap_or_default();
            if let Some(sum) = self.sum(old.group) {
                replace(sum, &mut old.counts, Counts::default());
                sum.queries = sum.queries.saturating_sub(old.queries);
                sum.paths.subtract(paths);
                for (verdict, count) in &old.verdicts {
                    subtract(&mut sum.verdicts, *verdict, *count);
                }
            }
            let Some(sum) = self.sum(group) else {
                continue;
            };
            let mark = marks.of(by, group);
            sum.queries += old.queries;
            sum.paths.add(paths);
            if certainty < Certainty::Known {
                mark.add_paths(paths);
            }
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

    fn group(&mut self, name: String, is_strange: bool) -> Group {
        if let Some(index) = self.indices.get(&name) {
            return Some(*index);
        }
        let is_crowd = is_strange && self.strangers >= self.groups_max / STRANGERS_SHARE;
        if self.sums.len() >= self.groups_max || is_crowd {
            return None;
        }
        self.strangers += usize::from(is_strange);
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
                sum: Sum {
                    history: self.history.of(&it.key),
                    ..it.sum.clone()
                },
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

    /// Names interfaces by this function.
    #[must_use]
    pub fn naming(mut self, interface_of: InterfaceOf) -> Self {
        for aggregation in &mut self.aggregations {
            aggregation.interface_of = interface_of;
        }
        self
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
            // Captures may overlap.
            let is_known = change
                .as_ref()
                .is_some_and(|change| change.entry.details.is_answered);
            if !is_known {
                aggregation.remember(finding, &subject);
            }
            let marks = change.as_mut().map(|change| &mut change.entry.details);
            aggregation.add(&subject, now.zip(marks), path_of);
        }
        if let Some(change) = &mut change {
            change.entry.details.is_answered |= spoke(finding).is_some();
        }
    }

    /// The sums so far.
    pub fn tables(&self) -> impl Iterator<Item = SumTable> {
        let forgotten = self.ledger.forgotten();
        self.aggregations.iter().map(move |it| it.table(forgotten))
    }
}

#[cfg(test)]
mod tests;
