//! Compares the expected findings with the traced ones, and both with the kernel's own counters.
//! Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use serde::{Deserialize, Serialize};

use crate::{
    compare::{mismatch, ok},
    net::Family,
    netns::Counters,
    recipes::{End, Expected, FALLBACK_COUNTERS, Finding, REFUSED_COUNTERS, Who},
    report::{Cell, Endpoint, Outcome},
    traced::{self, Found, Losses, TracedLine},
};

#[cfg(test)]
mod tests;

/// Cause of a TCP child whose client had requested MPTCP.
const THIRD_ACK: &str = "MPCapableFallbackACK";

/// Maximum number of differences shown per cell; further ones are counted.
const SHOWN_MAX: usize = 12;

pub use mptcp_trace_scene::netns::Namespaces;

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
    pub fn new(
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

    fn said(&self) -> String {
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
    /// Name of the recipe.
    pub recipe: String,
    /// Address family.
    pub family: Family,
    /// Network namespaces of the ends.
    pub namespaces: Namespaces,
    /// A time on `CLOCK_BOOTTIME` before the namespaces were created: a line about an older
    /// connection belongs to an earlier namespace with the same number.
    #[serde(default)]
    pub since_ns: u64,
    /// Process numbers and names of the actors.
    pub cast: BTreeMap<u32, String>,
    /// Expected findings.
    pub wanted: Vec<Wanted>,
    /// Changes of the kernel's counters, by namespace.
    pub moved: BTreeMap<u64, Counters>,
    /// The fallback counters of this kernel.
    pub counters: BTreeSet<String>,
    /// Answers to the applications, by query name.
    pub answers: BTreeMap<String, String>,
    /// Deviations from the script.
    pub wrong: Vec<String>,
    /// Why it cannot be played here.
    pub skipped: Option<String>,
    /// Duration in seconds.
    pub seconds: f64,
}

impl Played {
    /// Name of its cell.
    pub fn case(&self) -> String {
        format!("{}-{}", self.recipe, self.family.suffix())
    }

    /// Whether a finding is in one of its network namespaces.
    fn has(&self, found: &Found) -> bool {
        let Namespaces { near, far } = self.namespaces;
        (found.netns == near || found.netns == far) && !found.is_before(self.since_ns)
    }

    /// Counters that differ from the table.
    pub fn unlike_the_table(&self) -> Vec<String> {
        let mut unlike = Vec::new();
        for (netns, moved) in &self.moved {
            let count = |name: &str| moved.get(name).copied().unwrap_or(0);
            let wanted = || {
                self.wanted
                    .iter()
                    .filter(|wanted| wanted.netns == *netns && wanted.finding == Finding::Fallback)
            };
            for name in &self.counters {
                let may = wanted().filter(|wanted| wanted.causes.contains(name));
                let must = may.clone().filter(|wanted| wanted.causes.len() == 1);
                let (must, may) = (must.count() as u64, may.count() as u64);
                if !(must..=may).contains(&count(name)) {
                    unlike.push(format!(
                        "network namespace {netns}: the kernel counts {} {name}, the table {must}",
                        count(name)
                    ));
                }
            }
            for name in REFUSED_COUNTERS {
                if count(name) > 0 {
                    unlike.push(format!(
                        "network namespace {netns}: the kernel counts {} {name}",
                        count(name)
                    ));
                }
            }
        }
        unlike
    }

    /// Summary of the expected findings.
    pub fn said(&self) -> String {
        in_short(self.wanted.iter().map(Wanted::said).collect())
    }
}

/// A line of the tracer about a connection.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    /// None for a type that no recipe provokes.
    finding: Option<Finding>,
    found: &'a Found,
}

impl Line<'_> {
    fn said(&self) -> String {
        let end = end_word(self.found.side.as_deref());
        let what = match (self.finding, &self.found.cause) {
            (Some(Finding::Plain), _) => "plain",
            (_, Some(cause)) => cause,
            (Some(Finding::Fallback), None) => "?",
            (None, None) => "refused or existing",
        };
        format!("{end} {what} ({})", self.found.known)
    }
}

/// A deviation from the expectation.
struct Difference {
    what: String,
    /// Words that excuse it if a limit of the sensor contains one; empty: no excuse.
    excuses: Vec<String>,
}

impl Difference {
    fn new(what: String, excuses: Vec<String>) -> Self {
        Self { what, excuses }
    }
}

/// Compares all recipes of one tracer run: one cell per recipe, one for the tracer's own
/// reconciliation, and one for its loss accounting.
pub(crate) fn compare(rung: &str, played: &[Played], traced: &[TracedLine]) -> Vec<Cell> {
    let lines = lines(traced);
    let blackholes = blackholes(traced);
    let limits: Vec<&String> = traced
        .iter()
        .filter_map(TracedLine::start)
        .flat_map(|start| &start.sensors)
        .flat_map(|sensor| &sensor.limits)
        .collect();
    let grounds: BTreeSet<u64> = played
        .iter()
        .flat_map(|played| [played.namespaces.near, played.namespaces.far])
        .collect();
    let mut cells: Vec<Cell> = played
        .iter()
        .map(|played| {
            // Ignore lines in namespaces without a recipe, unless they name one of our processes.
            let own: Vec<Line> = lines
                .iter()
                .filter(|line| {
                    let owner = line.found.owner.as_ref();
                    played.has(line.found)
                        || (!grounds.contains(&line.found.netns)
                            && owner.is_some_and(|owner| played.cast.contains_key(&owner.pid)))
                })
                .copied()
                .collect();
            cell(rung, played, &own, &blackholes, &limits)
        })
        .collect();
    cells.push(reconciliation(rung, played, traced));
    cells.push(balanced(rung, traced));
    cells
}

/// The cell for the tracer's loss accounting.
pub(crate) fn balanced(rung: &str, traced: &[TracedLine]) -> Cell {
    let printed = lines(traced).len() + blackholes(traced).len() + about_answers(traced);
    identity(rung, printed, &ends(traced))
}

fn lines(traced: &[TracedLine]) -> Vec<Line<'_>> {
    let with = |finding, found| Some(Line { finding, found });
    traced
        .iter()
        .filter_map(|line| match line {
            TracedLine::Fallback(found) => with(Some(Finding::Fallback), found),
            TracedLine::Plain(found) => with(Some(Finding::Plain), found),
            TracedLine::Refused(found) | TracedLine::Existing(found) => with(None, found),
            TracedLine::Start(_)
            | TracedLine::Query(_)
            | TracedLine::Blackhole(_)
            | TracedLine::Verdict(_)
            | TracedLine::OptionRefused(_)
            | TracedLine::SocketRefused(_)
            | TracedLine::End(_) => None,
        })
        .collect()
}

/// One line for each time that MPTCP was disabled in a network namespace.
fn blackholes(traced: &[TracedLine]) -> Vec<&Found> {
    traced
        .iter()
        .filter_map(|line| match line {
            TracedLine::Blackhole(found) => Some(&**found),
            TracedLine::Start(_)
            | TracedLine::Query(_)
            | TracedLine::Fallback(_)
            | TracedLine::Refused(_)
            | TracedLine::Plain(_)
            | TracedLine::Existing(_)
            | TracedLine::Verdict(_)
            | TracedLine::OptionRefused(_)
            | TracedLine::SocketRefused(_)
            | TracedLine::End(_) => None,
        })
        .collect()
}

fn ends(traced: &[TracedLine]) -> Vec<&traced::End> {
    traced.iter().filter_map(TracedLine::end).collect()
}

fn about_answers(traced: &[TracedLine]) -> usize {
    let is_it = |line: &&TracedLine| {
        matches!(
            line,
            TracedLine::Query(_)
                | TracedLine::Verdict(_)
                | TracedLine::OptionRefused(_)
                | TracedLine::SocketRefused(_)
        )
    };
    traced.iter().filter(is_it).count()
}

/// Compares one recipe with its lines.
fn cell(
    rung: &str,
    played: &Played,
    lines: &[Line],
    blackholes: &[&Found],
    limits: &[&String],
) -> Cell {
    let case = played.case();
    if let Some(why) = &played.skipped {
        return Cell {
            outcome: Outcome::Skipped,
            why: why.clone(),
            ..ok(&case, rung, "", "")
        };
    }
    let caller = played.said();
    let traced = in_short(lines.iter().map(Line::said).collect());
    let wrong: Vec<String> = played
        .wrong
        .iter()
        .cloned()
        .chain(played.unlike_the_table())
        .collect();
    if !wrong.is_empty() {
        let why = format!("deviates from the recipe: {}", shown(wrong));
        return mismatch(&case, rung, &caller, &traced, why);
    }
    let mut differences = matched(rung, played, lines);
    differences.extend(miscounted(played, lines));
    differences.extend(unseen_blackholes(played, blackholes));
    if differences.is_empty() {
        return ok(&case, rung, &caller, &traced);
    }
    // The words are in order of preference.
    let excuse = |difference: &Difference| {
        difference.excuses.iter().find_map(|word| {
            let word = word.to_lowercase();
            // Match whole words: "outside" must not match "side".
            limits.iter().find(|limit| {
                limit
                    .to_lowercase()
                    .split(|c: char| !c.is_alphanumeric())
                    .any(|of_limit| of_limit == word)
            })
        })
    };
    let excuses: Option<BTreeSet<&&String>> = differences.iter().map(excuse).collect();
    if let Some(excuses) = excuses {
        let excuses: Vec<&str> = excuses.into_iter().map(|limit| limit.as_str()).collect();
        return Cell {
            outcome: Outcome::Skipped,
            why: excuses.join("; "),
            ..ok(&case, rung, &caller, &traced)
        };
    }
    let why = differences.into_iter().map(|difference| difference.what);
    mismatch(&case, rung, &caller, &traced, shown(why.collect()))
}

/// Each expected finding takes its best line; the remaining lines are surplus.
fn matched(rung: &str, played: &Played, lines: &[Line]) -> Vec<Difference> {
    let mut left: Vec<Line> = lines.to_vec();
    let mut differences = Vec::new();
    for wanted in &played.wanted {
        let best = left
            .iter()
            .enumerate()
            .map(|(index, line)| (likeness(wanted, line), index))
            .filter(|(likeness, _index)| *likeness > 0)
            .max_by_key(|&(likeness, index)| (likeness, usize::MAX - index));
        match best {
            Some((_likeness, index)) => {
                let line = left.remove(index);
                differences.extend(different(rung, wanted, &line));
            }
            None => {
                let mut excuses = wanted.causes.clone();
                if wanted.finding == Finding::Plain {
                    excuses.push("plain".into());
                }
                let what = format!(
                    "there is no line for {} at {:?}",
                    wanted.said(),
                    wanted.local
                );
                differences.push(Difference::new(what, excuses));
            }
        }
    }
    differences.extend(left.iter().map(|line| {
        let what = format!("surplus line: {} {:?}", line.said(), line.found);
        Difference::new(what, Vec::new())
    }));
    differences
}

/// How well a line matches an expected finding; 0 if it is about something else.
fn likeness(wanted: &Wanted, line: &Line) -> u32 {
    let Some(finding) = line.finding else {
        return 0;
    };
    let found = line.found;
    let same_ports = found.local.port == wanted.local.port
        && (found.remote.port == wanted.remote.port || wanted.early);
    let same_side = found.side.as_deref() == Some(&wanted.side);
    let same_netns = found.netns == wanted.netns;
    let same_cause = found
        .cause
        .as_ref()
        .is_some_and(|cause| wanted.causes.contains(cause));
    // An attach method that cannot see why a child is TCP lists that as a limit; the distinction is
    // then not checked.
    let may_be = finding == Finding::Plain
        && found.known == "unknown"
        && wanted.causes.iter().any(|cause| cause == THIRD_ACK);
    if !(finding == wanted.finding || may_be) || !(same_ports || (same_side && same_netns)) {
        return 0;
    }
    let same_ends = found.local == wanted.local && found.remote == wanted.remote;
    1 + 16 * u32::from(same_ends)
        + 8 * u32::from(same_ports)
        + 4 * u32::from(same_side)
        + 2 * u32::from(same_netns)
        + u32::from(same_cause)
}

/// Fields of a line that are wrong.
fn different(rung: &str, wanted: &Wanted, line: &Line) -> Vec<Difference> {
    let Found {
        id: _,
        cause,
        known,
        side,
        evidence,
        existing,
        owner,
        netns,
        family,
        local,
        remote,
        // Present only in blackhole lines, which are checked separately.
        off_ms: _,
        rung: traced_rung,
    } = line.found;
    let mut differences = Vec::new();
    let mut expect = |what: &str, right: &dyn Debug, traced: &dyn Debug, excuses: &[&str]| {
        let (right, traced) = (format!("{right:?}"), format!("{traced:?}"));
        if right != traced {
            differences.push(Difference::new(
                format!("{}: {what}: {right}, traced {traced}", wanted.said()),
                excuses.iter().map(|&word| word.to_owned()).collect(),
            ));
        }
    };
    let is_known = ["reported", "inferred"].contains(&known.as_str());
    match wanted.finding {
        Finding::Fallback if cause.as_ref().is_some_and(|c| wanted.causes.contains(c)) => {
            expect("the cause is known", &true, &is_known, &[]);
        }
        Finding::Fallback => {
            let mut excuses: Vec<&str> = wanted.causes.iter().map(String::as_str).collect();
            excuses.push("cause");
            // A wrong cause is worse than a missing one: only the latter may be excused by a limit.
            let excuses: &[&str] = if cause.is_none() { &excuses } else { &[] };
            expect("cause", &Some(wanted.causes.join(" or ")), cause, excuses);
        }
        Finding::Plain => expect("cause", &None::<String>, cause, &[]),
    }
    expect("side", &Some(&wanted.side), &side.as_ref(), &[]);
    expect("netns", &wanted.netns, netns, &[]);
    let is_v6 = wanted.local.addr.contains(':');
    expect("family", &if is_v6 { "ipv6" } else { "ipv4" }, family, &[]);
    expect("rung", &rung, traced_rung, &[]);
    expect("existing", &false, existing, &[]);
    if !(wanted.early && is_unset(local, &wanted.local)) {
        expect("local", &wanted.local, local, &[]);
    }
    if !(wanted.early && is_unset(remote, &wanted.remote)) {
        expect("remote", &wanted.remote, remote, &[]);
    }
    match owner {
        None => expect("owner", &wanted.owners, &"none", &["owner"]),
        Some(owner) if !wanted.owners.contains_key(&owner.pid) => {
            expect("owner", &wanted.owners, owner, &[]);
        }
        // A thread may have its own name; its process is still one of ours.
        Some(owner) if !owner.comm.starts_with("lab-") => {
            expect("comm of the owner", &wanted.owners, owner, &[]);
        }
        Some(_right) => {}
    }
    let speaks = |word: &String| evidence.contains(word);
    if !wanted.evidence.is_empty() && !wanted.evidence.iter().any(speaks) {
        expect("evidence", &wanted.evidence, evidence, &["evidence"]);
    }
    differences
}

/// Whether an address or a port is not set yet.
fn is_unset(traced: &Endpoint, right: &Endpoint) -> bool {
    let nowhere = ["0.0.0.0", "::"].contains(&traced.addr.as_str());
    (nowhere || traced.addr == right.addr) && (traced.port == 0 || traced.port == right.port)
}

/// For each counter of the kernel, the number of lines must match.
fn miscounted(played: &Played, lines: &[Line]) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (netns, moved) in &played.moved {
        for name in &played.counters {
            let counted = moved.get(name).copied().unwrap_or(0);
            let traced = lines.iter().filter(|line| {
                line.finding == Some(Finding::Fallback)
                    && line.found.netns == *netns
                    && line.found.cause.as_ref() == Some(name)
            });
            let traced = traced.count() as u64;
            if traced != counted {
                let what = format!(
                    "network namespace {netns}: the kernel counted {counted} {name}, traced {traced}"
                );
                // Surplus lines are never excused.
                let excuses = if traced < counted {
                    vec![name.clone(), "cause".into()]
                } else {
                    Vec::new()
                };
                differences.push(Difference::new(what, excuses));
            }
        }
    }
    differences
}

/// The number of blackhole lines must match the kernel's counter in each namespace.
fn unseen_blackholes(played: &Played, blackholes: &[&Found]) -> Vec<Difference> {
    const COUNTER: &str = "Blackhole";
    played
        .moved
        .iter()
        .filter_map(|(netns, moved)| {
            let counted = moved.get(COUNTER).copied().unwrap_or(0);
            let ours = |it: &&&Found| it.netns == *netns && played.has(it);
            let traced = blackholes.iter().filter(ours).count() as u64;
            (traced != counted).then(|| {
                let what = format!(
                    "network namespace {netns}: the kernel counted {counted} {COUNTER}, traced {traced}"
                );
                Difference::new(what, Vec::new())
            })
        })
        .collect()
}

/// A network namespace of a recipe, with the kernel's counters.
struct Counted {
    case: String,
    since_ns: u64,
    fallbacks: Counters,
}

/// The tracer's own reconciliation with the kernel's counters must agree.
///
/// The tracer identifies a network namespace by its inode number, which the kernel reuses. Lines of
/// an earlier namespace with the same number are part of its account; this check subtracts them. If
/// the number was in use before the tracer was live, its baseline belongs to that earlier
/// namespace, and there is nothing to check.
fn reconciliation(rung: &str, played: &[Played], traced: &[TracedLine]) -> Cell {
    let mut wrong = Vec::new();
    let mut namespaces = BTreeMap::new();
    // An aborted recipe leaves its connections in states that no row describes.
    for played in played.iter().filter(|played| played.skipped.is_none()) {
        namespaces.extend(played.moved.iter().map(|(netns, moved)| {
            let counted = Counted {
                case: played.case(),
                since_ns: played.since_ns,
                fallbacks: only_fallbacks(moved),
            };
            (*netns, counted)
        }));
    }
    let all = namespaces.len();
    let taken = traced
        .iter()
        .filter_map(TracedLine::start)
        .flat_map(|start| &start.namespaces);
    for netns in taken {
        namespaces.remove(netns);
    }
    let ends = ends(traced);
    let entries: BTreeMap<u64, _> = ends
        .iter()
        .flat_map(|end| &end.reconciliation)
        .map(|entry| (entry.netns, entry))
        .collect();
    let mut shared = 0;
    for (netns, counted) in &namespaces {
        let Counted {
            case,
            since_ns,
            fallbacks,
        } = counted;
        let Some(entry) = entries.get(netns) else {
            if !fallbacks.is_empty() {
                wrong.push(format!("{case}: nothing about network namespace {netns}"));
            }
            continue;
        };
        let of_others = earlier(traced, *netns, *since_ns);
        shared += usize::from(!of_others.is_empty());
        if only_fallbacks(&entry.counted) != *fallbacks {
            wrong.push(format!(
                "{case}: the kernel counted {fallbacks:?}: {entry:?}"
            ));
        } else if !(entry.agrees || !of_others.is_empty() && agrees_without(&of_others, entry)) {
            wrong.push(format!("{case}: the account does not agree: {entry:?}"));
        }
    }
    let caller = format!("{} network namespaces", namespaces.len());
    let of_ours = entries
        .keys()
        .filter(|netns| namespaces.contains_key(netns));
    let got = format!("{} network namespaces", of_ours.count());
    if !wrong.is_empty() {
        return mismatch("reconciliation", rung, &caller, &got, shown(wrong));
    }
    let not_judged = all - namespaces.len();
    let mut why = Vec::new();
    if shared > 0 {
        why.push(format!(
            "{shared} had a reused number; earlier lines subtracted"
        ));
    }
    if not_judged > 0 {
        why.push(format!(
            "{not_judged} not checked: their numbers were in use before the tracer was live"
        ));
    }
    let outcome = match namespaces.is_empty() && not_judged > 0 {
        true => Outcome::Skipped,
        false => Outcome::Ok,
    };
    Cell {
        outcome,
        why: why.join("; "),
        ..ok("reconciliation", rung, &caller, &got)
    }
}

/// Fallback counters that changed.
fn only_fallbacks(counters: &Counters) -> Counters {
    counters
        .iter()
        .filter(|(name, count)| FALLBACK_COUNTERS.contains(&name.as_str()) && **count > 0)
        .map(|(name, count)| (name.clone(), *count))
        .collect()
}

/// Lines about connections of an earlier namespace with the same number, by cause; those without a
/// cause count too.
fn earlier(traced: &[TracedLine], netns: u64, since_ns: u64) -> Counters {
    let mut counters = Counters::new();
    for line in lines(traced) {
        let Line { finding, found } = line;
        let counts = match finding {
            Some(Finding::Fallback | Finding::Plain) => true,
            None => false,
        };
        if counts && found.netns == netns && found.is_before(since_ns) {
            let cause = found.cause.clone().unwrap_or_default();
            *counters.entry(cause).or_default() += 1;
        }
    }
    counters
}

/// Whether the traced counts match the kernel's once the lines of earlier namespaces are
/// subtracted: all of them, or those since the tracer first read the counters.
fn agrees_without(of_others: &Counters, entry: &traced::Reconciled) -> bool {
    let count = |of: &Counters, name: &str| of.get(name).copied().unwrap_or(0);
    FALLBACK_COUNTERS.iter().all(|name| {
        let (counted, traced) = (count(&entry.counted, name), count(&entry.traced, name));
        // Where the kinds of TCP children are indistinguishable, those without a cause fill the
        // gap.
        let is_enough = traced >= counted || *name == THIRD_ACK;
        is_enough && traced <= counted + count(of_others, name)
    })
}

/// The kernel may skip at most one query in this number: it skips a probe run when as many threads
/// were preempted inside the probe as there are programs that take turns. Skips are counted, and
/// the cases prove that the required queries are reported.
const QUERIES_PER_MISSED_MIN: u64 = 50;
/// Too few skips to estimate a rate: in a small run they are not a failure.
const MISSED_MAX: u64 = 3;

/// The counters must add up, nothing may be lost, and every line must be counted.
fn identity(rung: &str, lines: usize, ends: &[&traced::End]) -> Cell {
    let wrong = |why: String| mismatch("identity", rung, "nothing lost", "otherwise", why);
    let [end] = ends else {
        return wrong(format!("{} end lines", ends.len()));
    };
    let missed = |losses: &Losses| losses.gone(rung) - losses.lost();
    let lost = |losses: &Losses| {
        // Without queries, the skipped runs can only be those of other options.
        let is_often = losses.seen > 0
            && missed(losses) > MISSED_MAX
            && missed(losses) * QUERIES_PER_MISSED_MIN > losses.seen;
        !losses.balances() || losses.lost() > 0 || is_often
    };
    if end.losses.is_empty() || end.losses.iter().any(lost) {
        return wrong(format!("{:?}", end.losses));
    }
    if end.findings != lines as u64 {
        return wrong(format!("{lines} lines, the end says {}", end.findings));
    }
    let skipped: u64 = end.losses.iter().map(missed).sum();
    let why = match skipped {
        0 => String::new(),
        skipped => format!("{skipped} runs of a probe skipped by the kernel, and counted"),
    };
    Cell {
        why,
        ..ok("identity", rung, "nothing lost", "nothing lost")
    }
}

fn end_word(side: Option<&str>) -> &str {
    match side {
        Some("active") => "client",
        Some("passive") => "server",
        Some(_) | None => "?",
    }
}

/// Deduplicates messages and adds the number of occurrences.
fn in_short(said: Vec<String>) -> String {
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

fn shown(mut sentences: Vec<String>) -> String {
    let more = sentences.len().saturating_sub(SHOWN_MAX);
    sentences.truncate(SHOWN_MAX);
    if more > 0 {
        sentences.push(format!("and {more} more"));
    }
    sentences.join("; ")
}
