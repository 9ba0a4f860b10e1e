//! What the tracer must report about a recipe that was played.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    netns::{Counters, Namespaces},
    recipes::{End, Expected, Finding, REFUSED_COUNTERS, Who},
    report::Endpoint,
    scene::Scene,
    traced::Found,
};

/// One finding that the tracer must report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// `active` or `passive`.
    pub side: String,
    /// Kind of the finding.
    pub finding: Finding,
    /// Accepted causes.
    pub causes: Vec<String>,
    /// Accepted owners: process number and name.
    pub owners: BTreeMap<u32, String>,
    /// Inode number of the network namespace.
    pub netns: u64,
    /// Local address.
    pub local: Endpoint,
    /// Remote address.
    pub remote: Endpoint,
    /// Whether the connection fell back before it had its addresses.
    pub early: bool,
    /// Accepted evidence, any one of them; empty: not checked.
    pub evidence: Vec<String>,
}

impl Wanted {
    /// Applies a row of the table to one connection.
    pub(crate) fn new(
        expected: &Expected,
        (client, server): &(Endpoint, Endpoint),
        namespaces: Namespaces,
        cast: &[(Who, u32)],
    ) -> Self {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let (side, netns, local, remote) = match expected.at {
            End::Client => ("active", namespaces.near, client, server),
            End::Server => ("passive", namespaces.far, server, client),
        };
        Self {
            side: side.into(),
            finding: expected.finding,
            causes: owned(expected.causes),
            owners: cast
                .iter()
                .filter(|(who, _pid)| expected.owner.contains(who))
                .map(|(who, pid)| (*pid, who.comm().to_owned()))
                .collect(),
            netns,
            local: local.clone(),
            remote: remote.clone(),
            early: expected.early,
            evidence: owned(expected.evidence),
        }
    }

    pub(super) fn said(&self) -> String {
        let end = end_word(Some(&self.side));
        match self.finding {
            Finding::Fallback => format!("{end} {}", self.causes.join(" or ")),
            Finding::Plain => format!("{end} plain"),
        }
    }
}

/// A recipe that was played, with the kernel's counters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Played {
    /// Where it was played, and what went wrong.
    #[serde(flatten)]
    pub scene: Scene,
    /// Process numbers and names of the actors.
    pub cast: BTreeMap<u32, String>,
    /// Expected findings.
    pub wanted: Vec<Wanted>,
    /// Changes of the kernel's counters, by namespace.
    pub moved: BTreeMap<u64, Counters>,
    /// The fallback counters of this kernel.
    pub counters: BTreeSet<String>,
    /// Duration in seconds.
    pub seconds: f64,
}

impl Played {
    /// Name of its cell.
    pub fn case(&self) -> String {
        self.scene.case()
    }

    /// Whether a finding is in one of its network namespaces.
    pub(super) fn has(&self, found: &Found) -> bool {
        self.scene.has(found.netns) && !found.is_before(self.scene.since_ns)
    }

    /// Changes of a counter that must not be there, and of those whose number is not that of the
    /// table.
    pub(crate) fn unlike_the_table(&self) -> Vec<String> {
        let mut unlike = Vec::new();
        for (netns, moved) in &self.moved {
            let count = |name: &str| moved.get(name).copied().unwrap_or(0);
            let wanted = || {
                self.wanted
                    .iter()
                    .filter(|wanted| wanted.netns == *netns && wanted.finding == Finding::Fallback)
            };
            let counts = |name: &str| {
                let count = count(name);
                format!("network namespace {netns}: the kernel counts {count} {name}")
            };
            for name in &self.counters {
                let may = wanted().filter(|wanted| wanted.causes.contains(name));
                let must = may.clone().filter(|wanted| wanted.causes.len() == 1);
                let (must, may) = (must.count() as u64, may.count() as u64);
                if !(must..=may).contains(&count(name)) {
                    unlike.push(format!("{}, the table {must}", counts(name)));
                }
            }
            let refused = REFUSED_COUNTERS.iter().filter(|name| count(name) > 0);
            unlike.extend(refused.map(|name| counts(name)));
        }
        unlike
    }

    /// Summary of the expected findings.
    pub(super) fn said(&self) -> String {
        in_short(self.wanted.iter().map(Wanted::said).collect())
    }
}

pub(super) fn end_word(side: Option<&str>) -> &str {
    match side {
        Some("active") => "client",
        Some("passive") => "server",
        Some(_) | None => "?",
    }
}

/// Deduplicates messages and adds the number of occurrences.
pub(super) fn in_short(said: Vec<String>) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for what in said {
        *counts.entry(what).or_default() += 1;
    }
    let words: Vec<String> = counts
        .into_iter()
        .map(|(what, count)| match count {
            1 => what,
            _ => format!("{count} x {what}"),
        })
        .collect();
    if words.is_empty() {
        "nothing".into()
    } else {
        words.join("; ")
    }
}
