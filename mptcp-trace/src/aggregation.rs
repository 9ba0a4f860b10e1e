//! Findings -> sums: connections, fallbacks and queries per process, cause, destination. Pure, and
//! bounded: beyond [`GROUPS_MAX`] groups everything goes into a common one, the others.

use std::{collections::HashMap, net::SocketAddr};

use crate::{
    ledger::{Change, Counts, Ledger, REMEMBERED_MAX},
    model::{By, Finding, Prefix, Process, Subject, Sum, SumRow, SumTable},
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

/// The contribution of a connection so far, per property and group.
#[derive(Clone, Debug, Default)]
pub struct Marks(Vec<(By, Group, Counts)>);

impl Marks {
    /// The group of a cause other than `unknown` that counts the connection's fallback.
    fn cause(&self, unknown: Option<usize>) -> Option<Group> {
        let is_it = |(by, group, counts): &&(By, Group, Counts)| {
            *by == By::Cause && counts.fallen > 0 && (unknown.is_none() || *group != unknown)
        };
        self.0.iter().find(is_it).map(|(_, group, _)| *group)
    }

    fn of(&mut self, by: By, group: Group) -> &mut Counts {
        let is_it = |(it, its_group, _): &(By, Group, Counts)| *it == by && *its_group == group;
        let at = match self.0.iter().position(is_it) {
            Some(at) => at,
            None => {
                self.0.push((by, group, Counts::default()));
                self.0.len() - 1
            }
        };
        &mut self.0[at].2
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

/// Sums by one property of findings.
#[derive(Debug)]
pub struct Aggregation {
    by: By,
    groups_max: usize,
    indices: HashMap<String, usize>,
    sums: Vec<(String, Sum)>,
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
        let Some(name) = key(self.by, subject, path_of) else {
            return;
        };
        let group = match &connection {
            // A later query without a cause (it failed) does not make the known cause unknown.
            Some((_, marks)) if name == UNKNOWN && self.by == By::Cause => {
                match marks.cause(self.indices.get(UNKNOWN).copied()) {
                    Some(known) => known,
                    None => self.group(name),
                }
            }
            _other => self.group(name),
        };
        if let Some((_, marks)) = &mut connection
            && self.by == By::Cause
            && subject.cause.is_some()
            && subject.has_fallen
        {
            self.forget_unknown(marks);
        }
        let sum = match group {
            Some(index) => match self.sums.get_mut(index) {
                Some((_, sum)) => sum,
                None => return,
            },
            None => self.others.get_or_insert_default(),
        };
        // A refusal does not identify the connection, if there is one: that counts when it is
        // queried or ends.
        if let Some((now, marks)) = connection.filter(|_| !subject.is_refusal) {
            let mark = marks.of(self.by, group);
            // A group does not count a fallback that none of its findings reported: that belongs to
            // the group of its cause.
            let is_reported = subject.has_fallen || mark.fallen > 0;
            let now = match is_reported {
                true => now,
                false => Counts {
                    fallen: 0,
                    deceived: 0,
                    ..now
                },
            };
            replace(sum, mark, now);
        }
        sum.queries += u64::from(subject.is_query);
        sum.refusals += u64::from(subject.is_refusal);
        if let Some(verdict) = subject.verdict {
            *sum.verdicts.entry(verdict).or_default() += 1;
        }
    }

    /// A connection whose cause is known now does not count under `unknown`.
    fn forget_unknown(&mut self, marks: &mut Marks) {
        let Some(index) = self.indices.get(UNKNOWN).copied() else {
            return;
        };
        let Some((_, sum)) = self.sums.get_mut(index) else {
            return;
        };
        replace(sum, marks.of(By::Cause, Some(index)), Counts::default());
    }

    fn group(&mut self, name: String) -> Group {
        if let Some(index) = self.indices.get(&name) {
            return Some(*index);
        }
        if self.sums.len() >= self.groups_max {
            return None;
        }
        let index = self.sums.len();
        self.sums.push((name.clone(), Sum::default()));
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
            .map(|(key, sum)| SumRow {
                key: key.clone(),
                sum: sum.clone(),
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
