//! Compares the connections of a ward with the lines about them, and both with the kernel's counters.
//! Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Crowd, app::Made};
use crate::{
    cells::judged,
    net::Endpoint,
    paths::{
        counts::CAUSES,
        end_word,
        judge::{TRACEPOINT, line},
        line::{Line, PathWord},
    },
    recipes::{End, paths::Fate},
    report::Cell,
    traced::{ClosedLine, TracedLine},
};

type Addresses = (Endpoint, Endpoint);

/// What one end must report about a connection.
struct Expected {
    first: Addresses,
    /// Of every path, sorted.
    paths: Vec<Addresses>,
    /// Its socket was created in this time.
    during_ns: [u64; 2],
    pid: u32,
    carried: Option<Carried>,
    /// Some lines are about it.
    is_chosen: bool,
}

/// The connections of each process, which opens one after the other.
struct Book(Vec<Vec<Expected>>);

/// What the application sent and received, and what the kernel may have sent once more.
struct Carried {
    sent: u64,
    received: u64,
    resent_here: Option<u64>,
    resent_there: Option<u64>,
}

/// The lines about one connection.
#[derive(Default)]
struct Group<'a> {
    up: Vec<Line<'a>>,
    down: Vec<Line<'a>>,
    failed: Vec<Line<'a>>,
    other: Vec<Line<'a>>,
    closed: Vec<&'a ClosedLine>,
}

/// Differences of one kind: their number, and an example.
#[derive(Default)]
struct Wrong(BTreeMap<String, (u64, String)>);

impl Wrong {
    fn note(&mut self, what: impl Into<String>, example: impl FnOnce() -> String) {
        let entry = self.0.entry(what.into());
        entry.or_insert_with(|| (0, example())).0 += 1;
    }

    fn sentences(self) -> Vec<String> {
        let each = self.0.into_iter();
        each.map(|(what, (count, example))| format!("{count} x {what}, for example {example}"))
            .collect()
    }
}

/// The cell of one ward.
pub(super) fn cell(rung: &str, crowd: &Crowd, all: &[TracedLine]) -> Cell {
    let mut wrong = Wrong::default();
    let mut traced = Vec::new();
    for at in [End::Client, End::Server] {
        traced.push(one_end(rung, crowd, at, all, &mut wrong));
    }
    unlike_the_table(crowd, &mut wrong);
    let connections = crowd.connections();
    let joins = crowd.ward.fails.len();
    let caller =
        format!("{connections} connections at both ends, each with {joins} ends that fail");
    judged(
        crowd.ward.name,
        rung,
        &caller,
        &traced.join("; "),
        wrong.sentences(),
    )
}

/// Number of records of paths that the tracer lost, and of runs of its probes that the kernel
/// skipped.
fn lost(all: &[TracedLine]) -> u64 {
    let ends = all.iter().filter_map(TracedLine::end);
    let losses = ends.flat_map(|end| &end.losses);
    losses.map(|losses| losses.lost() + losses.missed).sum()
}

/// Number of events of paths beyond the limit of their rate.
fn capped(all: &[TracedLine]) -> u64 {
    let ends = all.iter().filter_map(TracedLine::end);
    let losses = ends.flat_map(|end| &end.losses);
    let of_paths = losses.filter(|losses| losses.sensor == "subflow");
    of_paths.map(|losses| losses.capped).sum()
}

fn one_end(rung: &str, crowd: &Crowd, at: End, all: &[TracedLine], wrong: &mut Wrong) -> String {
    let netns = crowd.netns[side(at)];
    let (mut groups, mut strays) = (HashMap::<&str, Group>::new(), Vec::new());
    let mut ids = HashSet::new();
    let mut number = 0;
    for it in all {
        if let Some(closed) = it.closed()
            && closed.netns == netns
            && !closed.is_before(crowd.since_ns)
        {
            groups.entry(&closed.id).or_default().closed.push(closed);
        }
        let line =
            line(it).filter(|it| it.path.netns == netns && !it.path.is_before(crowd.since_ns));
        let Some(line) = line else {
            continue;
        };
        number += 1;
        if let Some(path) = &line.path.path_id
            && !ids.insert((line.what, path))
        {
            wrong.note(format!("a second {:?} of a path", line.what), || {
                format!("{:?}", line.path)
            });
        }
        match &line.path.id {
            Some(id) => groups.entry(id).or_default().add(line),
            None => strays.push(line),
        }
    }
    let lost = if crowd.is_short { lost(all) } else { 0 };
    let mut book = crowd.expected(at);
    let connections = groups.len();
    let groups: Vec<(&str, Group)> = groups.into_iter().collect();
    for (id, group) in &groups {
        match book.choose(id, group, lost > 0) {
            Some(expected) => compare(rung, crowd, at, group, expected, lost, wrong),
            None => wrong.note(format!("{}: paths of no connection", end_word(at)), || {
                format!("{id}: {:?}", group.down)
            }),
        }
    }
    let missing = book.left();
    if missing > lost {
        wrong.note(
            format!("{}: connections without a line", end_word(at)),
            || format!("{missing}, lost {lost}"),
        );
    }
    nameless(rung, crowd, at, &strays, lost, wrong);
    if !crowd.is_short {
        by_cause(rung, crowd, at, &groups, &strays, capped(all), wrong);
    }
    let end = end_word(at);
    format!(
        "{end}: {number} lines of {connections} connections, {missing} without one, {lost} lost"
    )
}

fn side(at: End) -> usize {
    match at {
        End::Client => 0,
        End::Server => 1,
    }
}

impl Crowd {
    fn connections(&self) -> u64 {
        self.clients.values().map(|made| made.len() as u64).sum()
    }

    /// The connections of an end. Addresses may repeat.
    fn expected(&self, at: End) -> Book {
        let key = |made: &Made| (made.remote.clone(), made.local.clone());
        let served: HashMap<Addresses, &Made> =
            self.served.iter().map(|made| (key(made), made)).collect();
        let one = |pid: u32, made: &Made| {
            let (first, mut paths) = (
                (made.local.clone(), made.remote.clone()),
                made.paths.clone(),
            );
            // With repeated addresses the server's account belongs to any of the connections.
            let there = served.get(&first).filter(|_made| !self.is_short);
            let resent = |made: &Made| made.bytes_resent;
            let (first, pid, carried) = match at {
                End::Client => {
                    let carried = Carried {
                        sent: made.bytes_sent,
                        received: made.bytes_received,
                        resent_here: resent(made),
                        resent_there: there.and_then(|there| resent(there)),
                    };
                    (first, pid, Some(carried))
                }
                End::Server => {
                    let swap = |(local, remote): Addresses| (remote, local);
                    paths = paths.into_iter().map(swap).collect();
                    let carried = there.map(|there| Carried {
                        sent: there.bytes_sent,
                        received: there.bytes_received,
                        resent_here: resent(there),
                        resent_there: resent(made),
                    });
                    (swap(first), self.server_pid, carried)
                }
            };
            paths.sort_by_key(sort_key);
            Expected {
                first,
                paths,
                during_ns: made.during_ns,
                pid,
                carried: carried.filter(|_| !self.is_short),
                is_chosen: false,
            }
        };
        let each = self.clients.iter();
        Book(
            each.map(|(pid, all)| all.iter().map(|made| one(*pid, made)).collect())
                .collect(),
        )
    }

    fn fates(&self, at: End) -> impl Iterator<Item = &'static Fate> {
        let all = self.ward.fails.iter();
        all.filter(move |fate| fate.at == at)
    }
}

fn sort_key((local, remote): &Addresses) -> (String, u16, String, u16) {
    let text = |of: &Endpoint| of.addr.clone();
    (text(local), local.port, text(remote), remote.port)
}

impl<'a> Group<'a> {
    fn add(&mut self, line: Line<'a>) {
        match line.what {
            PathWord::Up => self.up.push(line),
            PathWord::Down => self.down.push(line),
            PathWord::Failed => self.failed.push(line),
            PathWord::ConnectFailed
            | PathWord::Stale
            | PathWord::Recovered
            | PathWord::Priority => self.other.push(line),
        }
    }

    fn paths(lines: &[Line]) -> Vec<Addresses> {
        let ends = |line: &Line| (line.path.local.clone(), line.path.remote.clone());
        let mut paths: Vec<_> = lines.iter().map(ends).collect();
        paths.sort_by_key(sort_key);
        paths
    }

    /// The addresses of the connection's first path, if any line has them.
    fn first(&self) -> Option<Addresses> {
        let of_closed = |it: &&ClosedLine| (it.local.clone(), it.remote.clone());
        let mut lines = self.down.iter().chain(&self.up);
        let first = lines.find(|line| line.path.role == "first");
        first
            .map(|line| (line.path.local.clone(), line.path.remote.clone()))
            .or_else(|| self.closed.first().map(of_closed))
    }
}

impl Book {
    /// The connection that these lines are about: the one with these addresses that was opened when
    /// the socket of the lines was created. A connection is chosen once.
    fn choose(&mut self, id: &str, group: &Group, may_be_lost: bool) -> Option<&Expected> {
        let (_address, birth_ns) = id.split_once('@')?;
        let birth_ns: u64 = birth_ns.parse().ok()?;
        let (first, paths) = (group.first(), Group::paths(&group.down));
        let fits = |it: &Expected| {
            let has_paths = match may_be_lost {
                true => paths.iter().all(|path| it.paths.contains(path)),
                false => it.paths == paths,
            };
            let is_first = first
                .as_ref()
                .map_or(may_be_lost, |first| it.first == *first);
            !it.is_chosen && has_paths && is_first
        };
        let at_the_time = self.0.iter_mut().filter_map(|of_process| {
            let later = of_process.partition_point(|it| it.during_ns[0] <= birth_ns);
            let last = of_process.get_mut(later.checked_sub(1)?)?;
            (birth_ns <= last.during_ns[1]).then_some(last)
        });
        let mut fitting = at_the_time.filter(|it| fits(it));
        let chosen = fitting.next().filter(|_it| fitting.next().is_none())?;
        chosen.is_chosen = true;
        Some(chosen)
    }

    /// Number of connections without a line.
    fn left(&self) -> u64 {
        let all = self.0.iter().flatten();
        all.filter(|it| !it.is_chosen).count() as u64
    }
}

/// Compares the lines about one connection with it.
fn compare(
    rung: &str,
    crowd: &Crowd,
    at: End,
    group: &Group,
    expected: &Expected,
    lost: u64,
    wrong: &mut Wrong,
) {
    let end = end_word(at);
    let all = || group.up.iter().chain(&group.down).chain(&group.failed);
    for line in all() {
        let is_it = match &line.path.owner {
            Some(owner) => owner.pid == expected.pid,
            None => lost > 0,
        };
        if !is_it {
            wrong.note(format!("{end}: another owner"), || {
                format!("{:?}", line.path)
            });
        }
    }
    if crowd.is_short {
        return;
    }
    let is_weak = rung == TRACEPOINT;
    let paths = Group::paths(&group.up);
    let is_missing = |path: &&Addresses| !paths.contains(path);
    let unseen = expected.paths.iter().filter(is_missing).count();
    // Tracepoints alone miss the start of a brief join of this end.
    let may_be_unseen = match (is_weak, at) {
        (true, End::Client) => expected.paths.len() - 1,
        (false, _) | (_, End::Server) => 0,
    };
    if unseen > may_be_unseen || paths.len() + unseen != expected.paths.len() {
        wrong.note(format!("{end}: lines about the start"), || {
            format!("{:?}", group.up)
        });
    }
    for line in &group.down {
        if line.path.cause.as_deref() != Some("connection-closed") {
            wrong.note(format!("{end}: another end"), || format!("{:?}", line.path));
        }
    }
    let mut failed: Vec<&Line> = group.failed.iter().collect();
    let mut named = 0;
    for fate in crowd.fates(at) {
        let has =
            |line: &&Line| causes(rung, fate).any(|it| line.path.cause.as_deref() == Some(it));
        match failed.iter().position(has) {
            Some(index) => {
                failed.remove(index);
                named += 1;
            }
            None if is_weak && (fate.hidden || fate.nameless) => {}
            None => wrong.note(format!("{end}: no line about {:?}", fate.causes), || {
                format!("{:?}", group.failed)
            }),
        }
    }
    for line in failed.into_iter().chain(&group.other) {
        wrong.note(format!("{end}: a surplus line"), || format!("{line:?}"));
    }
    closed(at, group, expected, named, wrong);
}

/// The causes that this attach method may give.
fn causes(rung: &str, fate: &Fate) -> impl Iterator<Item = &'static str> {
    let inferred = match rung {
        TRACEPOINT => fate.inferred,
        _ => &[],
    };
    fate.causes.iter().chain(inferred).copied()
}

/// One line about the end of a connection, with the number of its paths and the sum of their bytes.
fn closed(at: End, group: &Group, expected: &Expected, failed: usize, wrong: &mut Wrong) {
    let end = end_word(at);
    let [closed] = group.closed[..] else {
        let count = group.closed.len();
        return wrong.note(format!("{end}: {count} closed lines"), || {
            format!("{:?}", group.down)
        });
    };
    let up = expected.paths.len();
    let counts = [closed.paths_tried, closed.paths_up, closed.paths_failed];
    if counts.map(|it| it as usize) != [up + failed, up, failed] || closed.incomplete {
        wrong.note(format!("{end}: another number of paths"), || {
            format!("{closed:?}")
        });
    }
    if closed.owner.as_ref().map(|owner| owner.pid) != Some(expected.pid) {
        wrong.note(format!("{end}: closed by another owner"), || {
            format!("{closed:?}")
        });
    }
    let ledgers = || {
        let lines = group.down.iter().chain(&group.failed);
        lines.filter_map(|line| line.path.ledger.as_ref())
    };
    let sent: u64 = ledgers().map(|ledger| ledger.bytes_sent).sum();
    let received: u64 = ledgers().map(|ledger| ledger.bytes_received).sum();
    if (sent, received) != (closed.bytes_sent, closed.bytes_received) {
        wrong.note(format!("{end}: ledgers that do not sum up"), || {
            format!("{sent} and {received}: {closed:?}")
        });
    }
    let Some(carried) = &expected.carried else {
        return wrong.note(format!("{end}: not known to its server"), || {
            format!("{closed:?}")
        });
    };
    // A path that is closed while it waits for the peer's FIN looks as if the FIN had come, which
    // the kernel counts as a byte.
    let fins = expected.paths.len() as u64;
    for (what, traced, bytes, more, fewer) in [
        ("sent", sent, carried.sent, carried.resent_here, 0),
        (
            "received",
            received,
            carried.received,
            carried.resent_there,
            fins,
        ),
    ] {
        // A kernel that does not count what it sends on a second path may send all of it twice.
        let (least, most) = (bytes - fewer, bytes + more.unwrap_or(bytes));
        if !(least..=most).contains(&traced) {
            wrong.note(format!("{end}: other bytes {what}"), || {
                format!("{traced}, not {least} to {most}: {closed:?}")
            });
        }
    }
}

/// Lines without a connection: only tracepoints have them, about joins that this end refused.
fn nameless(rung: &str, crowd: &Crowd, at: End, strays: &[Line], lost: u64, wrong: &mut Wrong) {
    for line in strays {
        let is_it = crowd.fates(at).any(|fate| {
            let mut causes = causes(rung, fate);
            fate.nameless && causes.any(|it| line.path.cause.as_deref() == Some(it))
        });
        let is_excused = is_it && rung == TRACEPOINT || lost > 0;
        if !is_excused || line.what != PathWord::Failed {
            wrong.note(format!("{}: no connection", end_word(at)), || {
                format!("{line:?}")
            });
        }
    }
}

/// As many lines with a cause as the kernel counts, and as many as there were connections.
fn by_cause(
    rung: &str,
    crowd: &Crowd,
    at: End,
    groups: &[(&str, Group)],
    strays: &[Line],
    capped: u64,
    wrong: &mut Wrong,
) {
    let failed = groups.iter().flat_map(|(_id, group)| &group.failed);
    let failed: Vec<&Line> = failed.chain(strays).collect();
    let is_hidden = |fate: &Fate| rung == TRACEPOINT && fate.hidden;
    let seen = crowd.fates(at).filter(|fate| !is_hidden(fate)).count() as u64;
    // Tracepoints report what has no connection at a limited rate, and count the rest.
    let is_nameless = rung == TRACEPOINT && crowd.fates(at).any(|fate| fate.nameless);
    let least = (seen * crowd.connections()).saturating_sub(if is_nameless { capped } else { 0 });
    if !(least..=seen * crowd.connections()).contains(&(failed.len() as u64)) {
        wrong.note(format!("{}: failed joins", end_word(at)), || {
            let connections = crowd.connections();
            format!(
                "{} of {connections} connections, {capped} capped",
                failed.len()
            )
        });
    }
    let is_vague = |fate: &Fate| rung == TRACEPOINT && (fate.hidden || !fate.inferred.is_empty());
    if crowd.fates(at).any(is_vague) {
        return;
    }
    for cause in CAUSES {
        let traced = failed
            .iter()
            .filter(|line| line.path.cause.as_deref() == Some(cause));
        let traced = traced.count() as u64;
        let counted = crowd.grown[side(at)].get(cause).copied();
        if let Some(counted) = counted.filter(|&counted| counted != traced) {
            wrong.note(format!("{}: {cause}", end_word(at)), || {
                format!("the kernel counted {counted}, traced {traced}")
            });
        }
    }
}

/// What the kernel counted, where it has the counter, must be as the table says.
fn unlike_the_table(crowd: &Crowd, wrong: &mut Wrong) {
    for at in [End::Client, End::Server] {
        let names = [
            "MPJoinSynTx",
            "MPJoinSynAckRx",
            "MPJoinSynRx",
            "MPJoinAckRx",
        ];
        for name in names.into_iter().chain(CAUSES) {
            let mut rows = crowd.ward.counted.iter();
            let row = rows.find(|(of, counter, _)| *of == at && *counter == name);
            let expected = row.map_or(0, |(_, _, each)| each * crowd.connections());
            let counted = crowd.grown[side(at)].get(name).copied();
            if let Some(counted) = counted.filter(|&counted| counted != expected) {
                wrong.note(
                    format!("deviates from the recipe: {}", end_word(at)),
                    || format!("the kernel counted {counted} {name}, not {expected}"),
                );
            }
        }
    }
}
