//! Compares expected findings with lines, one by one and in number.

use std::fmt::Debug;

use super::{
    Line, THIRD_ACK,
    wanted::{Played, Wanted},
};
use crate::{
    recipes::Finding,
    report::Endpoint,
    traced::{Found, TracedLine},
};

/// A deviation from the expectation.
pub(super) struct Difference {
    pub(super) what: String,
    /// Words that excuse it if a limit of the sensor contains one; empty: no excuse.
    pub(super) excuses: Vec<String>,
}

impl Difference {
    fn new(what: String, excuses: Vec<String>) -> Self {
        Self { what, excuses }
    }
}

/// Each expected finding takes its best line; the remaining lines are surplus.
pub(super) fn matched(rung: &str, played: &Played, lines: &[Line]) -> Vec<Difference> {
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
        boottime_ns: _,
        packet: _,
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
pub(super) fn miscounted(played: &Played, lines: &[Line]) -> Vec<Difference> {
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
pub(super) fn unseen_blackholes(played: &Played, traced: &[TracedLine]) -> Vec<Difference> {
    const COUNTER: &str = "Blackhole";
    played
        .moved
        .iter()
        .filter_map(|(netns, moved)| {
            let counted = moved.get(COUNTER).copied().unwrap_or(0);
            let ours = |it: &&Found| it.netns == *netns && played.has(it);
            let lines = traced.iter().filter_map(TracedLine::blackhole);
            let traced = lines.filter(ours).count() as u64;
            (traced != counted).then(|| {
                let what = format!(
                    "network namespace {netns}: the kernel counted {counted} {COUNTER}, traced {traced}"
                );
                Difference::new(what, Vec::new())
            })
        })
        .collect()
}
