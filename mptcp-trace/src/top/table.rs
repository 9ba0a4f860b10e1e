//! The tables: which there are, and how their rows are filtered and sorted. Pure.

use std::{cmp::Ordering, rc::Rc, str::FromStr as _};

use super::board::{Row, SUMS, Snapshot};
use crate::model::{By, Prefix, SumRow};

/// Tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tab {
    /// Connections.
    Connections,
    /// A table of [`SUMS`].
    Sums(usize),
}

impl Tab {
    /// All tabs, in the order of their digits.
    pub const ALL: [Self; 1 + SUMS.len()] = [
        Self::Connections,
        Self::Sums(0),
        Self::Sums(1),
        Self::Sums(2),
    ];

    /// Title.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "Connections",
            Self::Sums(0) => "Processes",
            Self::Sums(1) => "Causes",
            Self::Sums(_) => "Destinations",
        }
    }

    /// Its place among all tabs.
    #[must_use]
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|tab| *tab == self).unwrap_or(0)
    }

    /// Available sort orders.
    #[must_use]
    pub fn orders(self) -> &'static [Order] {
        match self {
            Self::Connections => &[
                Order::Worst,
                Order::Latest,
                Order::Process,
                Order::Remote,
                Order::Cause,
                Order::Queries,
            ],
            Self::Sums(_) => &[
                Order::Fallbacks,
                Order::Share,
                Order::Connections,
                Order::Queries,
                Order::Name,
            ],
        }
    }
}

/// Sort orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Deceived applications first, then fallbacks, then paths that failed; latest first.
    Worst,
    /// Last active first.
    Latest,
    /// By process name.
    Process,
    /// By remote address.
    Remote,
    /// By cause.
    Cause,
    /// Most queries first.
    Queries,
    /// Most fallbacks first.
    Fallbacks,
    /// Largest share of fallbacks first.
    Share,
    /// Most connections first.
    Connections,
    /// By name.
    Name,
}

impl Order {
    /// Name shown in the title.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Latest => "latest",
            Self::Process => "process",
            Self::Remote => "remote",
            Self::Cause => "cause",
            Self::Queries => "asked",
            Self::Fallbacks => "fell back",
            Self::Share => "share",
            Self::Connections => "connections",
            Self::Name => "name",
        }
    }
}

/// Filtered and sorted connections.
#[must_use]
pub fn connections(
    snapshot: &Snapshot,
    filter: &str,
    (order, is_reversed): (Order, bool),
) -> Vec<Rc<Row>> {
    let words = Words::of(filter);
    let mut rows: Vec<Rc<Row>> = snapshot
        .rows
        .iter()
        .filter(|row| words.match_row(row))
        .cloned()
        .collect();
    rows.sort_by(|one, other| {
        let ordered = compare_rows(order, one, other);
        // Ties keep a stable order, so that lines do not jump.
        turned(ordered, is_reversed).then_with(|| key_of(one).cmp(&key_of(other)))
    });
    rows
}

/// Filtered and sorted lines of a summary table.
#[must_use]
pub fn sums(
    table: usize,
    snapshot: &Snapshot,
    filter: &str,
    (order, is_reversed): (Order, bool),
) -> Vec<SumRow> {
    let words = Words::of(filter);
    let Some(sums) = snapshot.sums.get(table) else {
        return Vec::new();
    };
    let mut rows: Vec<SumRow> = sums
        .rows
        .iter()
        .filter(|row| words.match_text(&row.key.to_lowercase()))
        .cloned()
        .collect();
    rows.sort_by(|one, other| {
        let failed = |row: &SumRow| snapshot.path_causes.get(&row.key).map_or(0, |it| it.failed);
        let ordered = compare_sums(order, one, other);
        // Of causes without a fallback, those of joins that failed come first.
        let ordered = match (order, SUMS.get(table)) {
            (Order::Fallbacks, Some(By::Cause)) => {
                ordered.then_with(|| failed(other).cmp(&failed(one)))
            }
            _other => ordered,
        };
        turned(ordered, is_reversed).then_with(|| one.key.cmp(&other.key))
    });
    rows
}

fn turned(ordered: Ordering, is_reversed: bool) -> Ordering {
    match is_reversed {
        true => ordered.reverse(),
        false => ordered,
    }
}

fn key_of(row: &Row) -> (u64, u128) {
    (row.id.socket.0, row.id.born_at.as_nanos())
}

fn compare_rows(order: Order, one: &Row, other: &Row) -> Ordering {
    let latest = || other.heard_at.cmp(&one.heard_at);
    let comm = |row: &Row| row.process.as_ref().map(|it| (it.comm.clone(), it.pid));
    match order {
        Order::Process => comm(one).cmp(&comm(other)).then_with(latest),
        Order::Remote => one.remote.cmp(&other.remote).then_with(latest),
        Order::Cause => {
            // Connections without a cause come last.
            let cause = |row: &Row| (row.cause.is_none(), row.cause.clone());
            cause(one).cmp(&cause(other)).then_with(latest)
        }
        Order::Queries => other.queries.cmp(&one.queries).then_with(latest),
        Order::Worst => {
            let badness = |row: &Row| {
                let has_fallen = row.fell_back == Some(true);
                (row.is_deceived(), has_fallen, row.paths.are_troubled())
            };
            badness(other).cmp(&badness(one)).then_with(latest)
        }
        Order::Latest | Order::Fallbacks | Order::Share | Order::Connections | Order::Name => {
            latest()
        }
    }
}

fn compare_sums(order: Order, one: &SumRow, other: &SumRow) -> Ordering {
    let (one_sum, other_sum) = (&one.sum, &other.sum);
    let fallbacks = || other_sum.fallbacks.cmp(&one_sum.fallbacks);
    match order {
        Order::Share => {
            // Of equal shares the one with more connections comes first, since it is more reliable.
            let share = |row: &SumRow| row.sum.share().unwrap_or(-1.0);
            share(other).total_cmp(&share(one)).then_with(fallbacks)
        }
        Order::Connections => other_sum.connections.cmp(&one_sum.connections),
        Order::Queries => other_sum.queries.cmp(&one_sum.queries),
        Order::Name => Ordering::Equal,
        Order::Fallbacks
        | Order::Worst
        | Order::Latest
        | Order::Process
        | Order::Remote
        | Order::Cause => fallbacks(),
    }
}

/// The words of a filter: all must match, except those after `!`, which must not.
#[derive(Debug)]
struct Words {
    words: Vec<(bool, String, Option<Prefix>)>,
}

impl Words {
    fn of(filter: &str) -> Self {
        let word = |word: &str| {
            let (is_wanted, word) = match word.strip_prefix('!') {
                Some(word) => (false, word),
                None => (true, word),
            };
            // An address matches as text; a network needs a comparison.
            let network = word
                .contains('/')
                .then(|| Prefix::from_str(word).ok())
                .flatten();
            (is_wanted, word.to_lowercase(), network)
        };
        Self {
            words: filter
                .split_whitespace()
                .map(word)
                .filter(|(_, word, _)| !word.is_empty())
                .collect(),
        }
    }

    fn match_text(&self, text: &str) -> bool {
        self.words
            .iter()
            .all(|(is_wanted, word, _)| text.contains(word.as_str()) == *is_wanted)
    }

    fn match_row(&self, row: &Row) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let text = haystack(row);
        self.words.iter().all(|(is_wanted, word, network)| {
            let is_in =
                |network: &Prefix| network.contains(row.remote) || network.contains(row.local);
            let matches = network.as_ref().is_some_and(is_in) || text.contains(word.as_str());
            matches == *is_wanted
        })
    }
}

/// All text of a connection that is shown, in lower case.
fn haystack(row: &Row) -> String {
    let (comm, pid) = row.process.as_ref().map_or_else(
        || ("?", "?".to_owned()),
        |process| (process.comm.as_str(), process.number()),
    );
    let paths: Vec<String> = row
        .paths
        .iter()
        .map(|path| {
            let cause = path.end.as_ref().and_then(|end| end.cause.as_deref());
            let cause = cause.unwrap_or_default();
            format!("{} {} {cause}", path.local, path.remote)
        })
        .collect();
    format!(
        "{} {comm} {pid} {} {} {} {} {} {} {} {}",
        row.state(),
        row.local,
        row.remote,
        row.cause.as_deref().unwrap_or_default(),
        row.verdict.map_or("", |verdict| verdict.name()),
        row.cgroup.as_deref().unwrap_or_default(),
        row.netns,
        row.remark().unwrap_or_default(),
        paths.join(" "),
    )
    .to_lowercase()
}
