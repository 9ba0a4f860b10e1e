//! Compares the expected verdicts with the tracer's. Pure.

use super::scenarios::{At, Expected, Scenario};
use crate::{
    cells::{mismatch, ok, shown, skipped},
    net::Family,
    netns::Namespaces,
    recipes::{Tried, Who},
    report::{Cell, Endpoint},
    scene::Scene,
    traced::{Concluded, Traced, TracedLine, socket_of},
};

mod refusals;

#[cfg(test)]
mod tests;

/// Maximum number of sentences shown for one socket.
const WHYS_MAX: usize = 8;

/// A scenario that was played.
#[derive(Clone, Debug)]
pub(super) struct Acted {
    pub(super) scene: Scene,
    /// Actors, with their process numbers.
    pub(super) cast: Vec<(Who, u32)>,
    /// The client's and the server's address of each connection.
    pub(super) connections: Vec<(Endpoint, Endpoint)>,
    pub(super) expected: Vec<Expected>,
    /// Attempts, including refused ones.
    pub(super) tried: Vec<Tried>,
    /// Expected periods in which MPTCP is disabled in the client's namespace, milliseconds.
    pub(super) off_ms: &'static [u64],
}

impl Acted {
    /// One that has not acted yet.
    pub(super) fn new(scenario: &Scenario, family: Family) -> Self {
        Self {
            scene: Scene::new(scenario.name, family),
            cast: Vec::new(),
            connections: Vec::new(),
            expected: scenario.expected.to_vec(),
            tried: Vec::new(),
            off_ms: scenario.off_ms,
        }
    }

    /// Whether something happened in its namespaces, in their lifetime.
    fn has(&self, netns: u64, at_ns: u64) -> bool {
        self.scene.has(netns) && at_ns >= self.scene.since_ns
    }

    fn netns_of(&self, who: Who) -> u64 {
        match who {
            Who::Client | Who::ClientChild | Who::Other | Who::Program => {
                self.scene.namespaces.near
            }
            Who::Server | Who::ServerChild => self.scene.namespaces.far,
        }
    }
}

/// A line of an unknown type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Other {
    pub(super) kind: String,
    pub(super) netns: u64,
}

/// All lines about one socket.
#[derive(Default)]
struct About<'a> {
    netns: u64,
    queries: Vec<&'a Traced>,
    closing: Vec<&'a Concluded>,
}

impl About<'_> {
    fn ends(&self) -> impl Iterator<Item = (&Endpoint, &Endpoint)> {
        let of_queries = self.queries.iter().map(|line| (&line.local, &line.remote));
        let of_closing = self.closing.iter().map(|line| (&line.local, &line.remote));
        of_queries.chain(of_closing)
    }

    /// Verdicts in order, with consecutive repeats collapsed.
    fn told(&self) -> Vec<&str> {
        let mut told: Vec<&str> = self
            .queries
            .iter()
            .map(|line| line.verdict.as_deref().unwrap_or("none"))
            .collect();
        told.dedup();
        told
    }

    fn said(&self) -> String {
        let closing = self.closing.iter().map(|line| line.verdict.as_str());
        said(&self.told(), closing)
    }
}

/// Compares all scenarios of one tracer run: one cell each.
pub(super) fn judge(
    rung: &str,
    has_option: bool,
    acted: &[Acted],
    lines: &[TracedLine],
    others: &[Other],
) -> Vec<Cell> {
    acted
        .iter()
        .map(|acted| cell(rung, has_option, acted, lines, others))
        .collect()
}

fn cell(
    rung: &str,
    has_option: bool,
    acted: &Acted,
    lines: &[TracedLine],
    others: &[Other],
) -> Cell {
    let case = acted.scene.case();
    if let Some(why) = &acted.scene.skipped {
        return skipped(&case, rung, why);
    }
    let mut left = by_socket(acted, lines);
    let mut differences = Vec::new();
    let mut excuses = Vec::new();
    let (mut caller, mut traced) = (Vec::new(), Vec::new());
    for row in &acted.expected {
        let (told, at_end) = (row.told_here(has_option), row.at_end_here(has_option));
        let end = end_word(row.at);
        let is_silent = told.is_empty() && at_end.is_none();
        if !is_silent {
            caller.push(format!("{end} {}", said(told, at_end)));
        }
        match left.iter().position(|about| is_about(about, row, acted)) {
            Some(index) => {
                let about = left.remove(index);
                traced.push(format!("{end} {}", about.said()));
                if let Some(limit) = excuse(row, &about, lines) {
                    excuses.push(limit);
                    continue;
                }
                different(row, told, at_end, &about, acted, &mut differences);
            }
            None if is_silent => {}
            None => differences.push(format!("{end}: no line")),
        }
    }
    for about in &left {
        traced.push(about.said());
        differences.push(format!(
            "surplus lines: {}: {:?} {:?}",
            about.said(),
            about.queries,
            about.closing
        ));
    }
    let refused = refusals::compare(rung, acted, lines);
    if refused.told + refused.traced > 0 {
        caller.push(format!("{} refused", refused.told));
        traced.push(format!("{} refused", refused.traced));
    }
    differences.extend(refused.differences);
    differences.extend(switched_off(acted, lines));
    let strange = others.iter().filter(|other| acted.scene.has(other.netns));
    differences.extend(strange.map(|other| format!("a line of type {}", other.kind)));
    let (caller, traced) = (in_short(&caller), in_short(&traced));
    if !acted.scene.wrong.is_empty() {
        let why = acted.scene.wrong.join("; ");
        let why = format!("deviates from the script: {why}");
        return mismatch(&case, rung, &caller, &traced, why);
    }
    if !differences.is_empty() {
        return mismatch(&case, rung, &caller, &traced, shown(differences));
    }
    match excuses.is_empty() {
        true => ok(&case, rung, &caller, &traced),
        false => Cell {
            caller,
            traced,
            ..skipped(&case, rung, excuses.join("; "))
        },
    }
}

/// The limit of the tracer that explains wrong lines of a socket, if they are exactly what is
/// allowed under it.
fn excuse<'a>(row: &Expected, about: &About, lines: &'a [TracedLine]) -> Option<&'a str> {
    let (word, instead) = row.limited?;
    if about.told() != instead || !about.closing.is_empty() {
        return None;
    }
    TracedLine::limits(lines)
        .find(|limit| limit.contains(word))
        .map(String::as_str)
}

/// The lines in the scenario's namespaces, by socket.
fn by_socket<'a>(acted: &Acted, lines: &'a [TracedLine]) -> Vec<About<'a>> {
    let mut all: Vec<(String, About<'a>)> = Vec::new();
    let mut of = |key: &str, netns: u64, add: &mut dyn FnMut(&mut About<'a>)| {
        let known = all
            .iter()
            .position(|(other, about)| other == key && about.netns == netns);
        let index = known.unwrap_or_else(|| {
            let about = About {
                netns,
                ..About::default()
            };
            all.push((key.to_owned(), about));
            all.len() - 1
        });
        if let Some((_, about)) = all.get_mut(index) {
            add(about);
        }
    };
    for line in lines {
        match line {
            TracedLine::Query(line) if acted.has(line.netns, line.boottime_ns) => {
                let key = line.id.as_deref().map_or(&*line.socket, socket_of);
                of(key, line.netns, &mut |about| about.queries.push(line));
            }
            TracedLine::Verdict(line)
                if acted.scene.has(line.netns) && !line.is_before(acted.scene.since_ns) =>
            {
                let key = socket_of(&line.id);
                of(key, line.netns, &mut |about| about.closing.push(line));
            }
            TracedLine::Query(_)
            | TracedLine::Verdict(_)
            | TracedLine::OptionRefused(_)
            | TracedLine::SocketRefused(_)
            | TracedLine::PathUp(_)
            | TracedLine::PathFailed(_)
            | TracedLine::ConnectFailed(_)
            | TracedLine::PathDown(_)
            | TracedLine::PathStale(_)
            | TracedLine::PathRecovered(_)
            | TracedLine::PathPriority(_)
            | TracedLine::Address(_)
            | TracedLine::Closed(_)
            | TracedLine::Start(_)
            | TracedLine::Fallback(_)
            | TracedLine::Refused(_)
            | TracedLine::Plain(_)
            | TracedLine::Existing(_)
            | TracedLine::Blackhole(_)
            | TracedLine::End(_) => {}
        }
    }
    all.into_iter().map(|(_, about)| about).collect()
}

fn is_about(about: &About, row: &Expected, acted: &Acted) -> bool {
    let Some((client, server)) = acted.connections.get(row.connection) else {
        return false;
    };
    let Namespaces { near, far } = acted.scene.namespaces;
    match row.at {
        At::Client => {
            about.netns == near && about.ends().any(|(local, _)| local.port == client.port)
        }
        At::Server => {
            about.netns == far
                && about
                    .ends()
                    .any(|(local, remote)| local == server && remote == client)
        }
        At::Listener => {
            about.netns == far
                && about
                    .ends()
                    .any(|(local, remote)| local == server && remote.port == 0)
        }
    }
}

fn different(
    row: &Expected,
    told: &[&str],
    at_end: Option<&str>,
    about: &About,
    acted: &Acted,
    differences: &mut Vec<String>,
) {
    let end = end_word(row.at);
    let mut wrong = |what: String| differences.push(format!("{end}: {what}"));
    let traced = about.told();
    if traced != told {
        wrong(format!(
            "told {told:?}, traced {traced:?}: {:?}",
            whys(about)
        ));
    }
    let closing: Vec<&str> = about
        .closing
        .iter()
        .map(|line| line.verdict.as_str())
        .collect();
    if closing != at_end.into_iter().collect::<Vec<_>>() {
        wrong(format!("at the end {at_end:?}, traced {closing:?}"));
    }
    for line in &about.queries {
        of_query(row, line, &mut wrong);
    }
    for line in &about.closing {
        of_closing(row, line, about, acted, &mut wrong);
    }
}

/// Checks the other fields of a verdict.
fn of_query(row: &Expected, line: &Traced, wrong: &mut impl FnMut(String)) {
    let has_sentence = line.why.as_ref().is_some_and(|why| !why.is_empty());
    if line.verdict.is_some() != has_sentence {
        wrong(format!("{:?} and why {:?}", line.verdict, line.why));
    }
    let speaks_of_fallback = ["explained", "misled"].map(Some);
    if speaks_of_fallback.contains(&line.verdict.as_deref()) {
        if line.delay_ns.is_none() {
            wrong(format!("{:?} without a delay", line.verdict));
        }
        of_cause(row, line.cause.as_deref(), wrong);
    } else if line.cause.is_some() || line.delay_ns.is_some() {
        wrong(format!("{:?} with a cause or a delay", line.verdict));
    }
}

fn of_cause(row: &Expected, cause: Option<&str>, wrong: &mut impl FnMut(String)) {
    if !cause.is_some_and(|cause| row.causes.contains(&cause)) {
        wrong(format!("cause {:?}, traced {cause:?}", row.causes));
    }
}

fn of_closing(
    row: &Expected,
    line: &Concluded,
    about: &About,
    acted: &Acted,
    wrong: &mut impl FnMut(String),
) {
    if line.why.is_empty() {
        wrong("a verdict without a sentence".to_owned());
    }
    of_cause(row, line.cause.as_deref(), wrong);
    // A query on a reconnected socket is about another connection.
    let asked = match line.verdict.as_str() {
        "never-asked" => 0,
        _ => about.queries.len() as u64,
    };
    if line.queries != asked {
        wrong(format!("{} queries of {asked}", line.queries));
    }
    let Some(fell_back_at) = line.fell_back_at_ns else {
        wrong("the time of the fallback is missing".to_owned());
        return;
    };
    let delay = line.answered_at_ns.map(|at| fell_back_at.abs_diff(at));
    if line.delay_ns != delay || line.answered_at_ns.is_some() != (asked > 0) {
        wrong(format!(
            "answered at {:?}, fell back at {fell_back_at}, {:?} in between",
            line.answered_at_ns, line.delay_ns
        ));
    }
    if line.answered_at_ns.is_some_and(|at| at > fell_back_at) {
        wrong("it was answered after the fallback".to_owned());
    }
    // Every socket is closed before the tracer stops.
    if line.closed_by != "death" {
        wrong(format!("closed by {}", line.closed_by));
    }
    let owners: Vec<u32> = acted
        .cast
        .iter()
        .filter(|(who, _)| match row.at {
            At::Client => matches!(who, Who::Client | Who::Program),
            At::Server | At::Listener => matches!(who, Who::Server),
        })
        .map(|(_, pid)| *pid)
        .collect();
    let owner = line.owner.as_ref().map(|owner| owner.pid);
    if !owner.is_some_and(|pid| owners.contains(&pid)) {
        wrong(format!("owner {owners:?}, traced {owner:?}"));
    }
}

/// One line for each time that MPTCP was disabled in the client's namespace, with the period where
/// it can be read.
fn switched_off(acted: &Acted, lines: &[TracedLine]) -> Option<String> {
    let traced: Vec<(u64, Option<u64>)> = lines
        .iter()
        .filter_map(TracedLine::blackhole)
        .filter(|line| acted.scene.has(line.netns) && !line.is_before(acted.scene.since_ns))
        .map(|line| (line.netns, line.off_ms))
        .collect();
    let is_right = |(netns, off_ms): (u64, Option<u64>), wanted: u64| {
        netns == acted.scene.namespaces.near && off_ms.is_none_or(|off_ms| off_ms == wanted)
    };
    let are_right = traced.len() == acted.off_ms.len()
        && traced
            .iter()
            .zip(acted.off_ms)
            .all(|(&traced, &wanted)| is_right(traced, wanted));
    (!are_right).then(|| format!("MPTCP was off for {:?} ms, traced {traced:?}", acted.off_ms))
}

fn whys<'a>(about: &About<'a>) -> Vec<&'a str> {
    let mut whys: Vec<&str> = about
        .queries
        .iter()
        .filter_map(|line| line.why.as_deref())
        .collect();
    whys.dedup();
    whys.truncate(WHYS_MAX);
    whys
}

fn end_word(at: At) -> &'static str {
    match at {
        At::Client => "client",
        At::Server => "server",
        At::Listener => "listener",
    }
}

/// Verdicts on the answers, followed by the closing verdicts.
fn said<'a>(told: &[&str], at_end: impl IntoIterator<Item = &'a str>) -> String {
    let at_end = at_end.into_iter().map(|word| format!("end {word}"));
    let words: Vec<String> = told
        .iter()
        .map(|&word| word.to_owned())
        .chain(at_end)
        .collect();
    words.join(", ")
}

fn in_short(said: &[String]) -> String {
    if said.is_empty() {
        "nothing".to_owned()
    } else {
        said.join("; ")
    }
}
