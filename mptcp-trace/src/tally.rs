//! Findings -> sums: how many connections, fallbacks and questions each process, cause, destination has. Pure, and
//! bounded: beyond [`GROUPS_MAX`] groups everything goes into one that is called the others.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use crate::model::{By, Finding, Prefix, Subject, Sum, SumRow, SumTable};

/// Groups that are told apart at most.
pub const GROUPS_MAX: usize = 10_000;

/// Connections that are remembered at most, each once a group: one that is seen again after it was forgotten counts again.
const REMEMBERED_MAX: usize = 262_144;

/// Networks of destinations.
const PREFIX_BITS_V4: u8 = 24;
const PREFIX_BITS_V6: u8 = 48;

/// A connection: address of its socket, and when it was first seen or, where that was not noted down, its inode.
type Key = (u64, Option<Duration>, Option<u64>);

/// A group; none is that of the others.
type Group = Option<usize>;

/// What was counted of a connection already.
#[derive(Clone, Copy, Default, Debug)]
struct Mark {
    has_fallen: bool,
    /// When it fell back, as a line about it said.
    fell_at: Option<Duration>,
}

/// Sums by one property of findings.
#[derive(Debug)]
pub struct Tally {
    by: By,
    groups_max: usize,
    remembered_max: usize,
    indices: HashMap<String, usize>,
    sums: Vec<(String, Sum)>,
    others: Option<Sum>,
    seen: HashMap<(Key, Group), Mark>,
    /// The oldest first.
    order: VecDeque<(Key, Group)>,
    forgotten: u64,
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new(by: By) -> Self {
        Self::with_limits(by, GROUPS_MAX, REMEMBERED_MAX)
    }

    fn with_limits(by: By, groups_max: usize, remembered_max: usize) -> Self {
        Self {
            by,
            groups_max,
            remembered_max,
            indices: HashMap::new(),
            sums: Vec::new(),
            others: None,
            seen: HashMap::new(),
            order: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// Adds a finding. `path_of` knows paths of control groups that the finding does not.
    pub fn add<'a>(&mut self, finding: &'a Finding, path_of: impl Fn(u64) -> Option<&'a str>) {
        let subject = Subject::of(finding);
        let Some(name) = key(self.by, &subject, path_of) else {
            return;
        };
        let group = self.group(name);
        // What was refused does not tell of the connection, if there is one: it counts when it is asked about or ends.
        let counted = match subject.socket {
            Some(socket) if !subject.is_listener() && !subject.is_refusal => {
                let inode = match subject.born_at {
                    Some(_) => None,
                    None => socket.inode,
                };
                self.count((socket.id.0, subject.born_at, inode), group, &subject)
            }
            _ => (0, 0),
        };
        let sum = match group {
            Some(index) => match self.sums.get_mut(index) {
                Some((_, sum)) => sum,
                None => return,
            },
            None => self.others.get_or_insert_default(),
        };
        let (connections, fallbacks) = counted;
        sum.connections += connections;
        sum.fallbacks += fallbacks;
        sum.questions += u64::from(subject.is_question);
        sum.refusals += u64::from(subject.is_refusal);
        if let Some(verdict) = subject.verdict {
            *sum.verdicts.entry(verdict).or_default() += 1;
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
        self.sums.push((name.clone(), Sum::default()));
        self.indices.insert(name, index);
        Some(index)
    }

    /// How many connections and fallbacks a finding adds to its group.
    fn count(&mut self, connection: Key, group: Group, subject: &Subject<'_>) -> (u64, u64) {
        let entry = (connection, group);
        if !self.seen.contains_key(&entry) {
            if self.order.len() >= self.remembered_max
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
                self.forgotten += 1;
            }
            self.order.push_back(entry);
        }
        let mut is_new = false;
        let mark = self.seen.entry(entry).or_insert_with(|| {
            is_new = true;
            Mark::default()
        });
        let mut added = (u64::from(is_new), 0);
        if subject.has_fallen && !mark.has_fallen {
            mark.has_fallen = true;
            added.1 += 1;
        } else if let (Some(at), Some(before)) = (subject.falls_at, mark.fell_at)
            && at != before
        {
            // A connection does not fall back twice: the same socket has connected anew.
            added = (added.0 + 1, added.1 + 1);
        }
        mark.fell_at = subject.falls_at.or(mark.fell_at);
        added
    }

    /// The sums so far: most fallbacks first, then by name.
    #[must_use]
    pub fn table(&self) -> SumTable {
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
            forgotten: self.forgotten,
        }
    }
}

/// Name of the group that a finding belongs to; none if it has nothing to do with that property.
fn key<'a>(
    by: By,
    subject: &Subject<'a>,
    path_of: impl Fn(u64) -> Option<&'a str>,
) -> Option<String> {
    Some(match by {
        By::Process => match subject.process {
            Some(process) => format!("{} {}", process.comm, process.number()),
            None => "?".into(),
        },
        By::Cause => match (subject.cause, subject.has_fallen) {
            (Some(cause), _) => cause.to_owned(),
            (None, true) => "unknown".into(),
            (None, false) => "-".into(),
        },
        By::Dest => {
            let remote = subject.socket.map(|it| it.remote);
            if let Some(remote) = remote.filter(|it| !it.ip().is_unspecified()) {
                let bits = if remote.ip().to_canonical().is_ipv4() {
                    PREFIX_BITS_V4
                } else {
                    PREFIX_BITS_V6
                };
                Prefix::around(remote.ip(), bits).to_string()
            } else {
                "-".into()
            }
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

/// One tally for each property, in the order in which they were asked for.
#[must_use]
pub fn tallies(all: &[By]) -> Vec<Tally> {
    let unique: BTreeMap<By, usize> = all.iter().copied().zip(0..).collect();
    let mut unique: Vec<(usize, By)> = unique.into_iter().map(|(by, at)| (at, by)).collect();
    unique.sort_unstable();
    unique.into_iter().map(|(_, by)| Tally::new(by)).collect()
}

#[cfg(test)]
mod tests;
