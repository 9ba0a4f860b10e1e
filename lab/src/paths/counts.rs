//! The kernel's counters of paths: compared with the table, and with the traced lines.

use super::{
    Played, end_word,
    line::{Line, PathWord},
};
use crate::{
    recipes::{
        End,
        paths::{Counted, PATH_COUNTERS},
    },
    traced::TracedLine,
};

/// Counters that did not grow as the table says, where this kernel has them.
pub(super) fn unlike_the_table(played: &Played) -> Vec<String> {
    let mut unlike = Vec::new();
    for at in [End::Client, End::Server] {
        for name in PATH_COUNTERS {
            if !played.counters.contains(name) {
                continue;
            }
            let rows = || played.recipe.counted.iter().filter(|row| row.at == at);
            if rows().any(|row| row.or == Some(name)) {
                continue;
            }
            let row = rows().find(|row| row.name == name);
            let (least, most) = row.map_or((0, 0), |row| row.number);
            let count = played.count(at, name) + other_count(played, at, name);
            if !(least..=most).contains(&count) {
                let end = end_word(at);
                unlike.push(format!(
                    "{end}: the kernel counts {count} {name}, the table {least} to {most}"
                ));
            }
        }
    }
    unlike
}

/// What older kernels count under another name.
fn other_count(played: &Played, at: End, name: &str) -> u64 {
    let mut rows = played.recipe.counted.iter();
    let row = rows.find(|row| row.at == at && row.name == name);
    let other = row.and_then(|row| row.or);
    other.map_or(0, |other| played.count(at, other))
}

/// A counter, and the lines that must be as many.
struct Oracle {
    counter: &'static str,
    /// Only at this end.
    at: Option<End>,
    is_counted: fn(&Line) -> bool,
}

fn has_cause(line: &Line, causes: &[&str]) -> bool {
    let cause = line.path.cause.as_deref();
    cause.is_some_and(|cause| causes.contains(&cause))
}

fn is_join(line: &Line) -> bool {
    line.path.role == "join"
}

/// Causes of a join whose SYN was not sent.
const BEFORE_SYN: [&str; 4] = [
    "MPJoinSynTxCreatSkErr",
    "MPJoinSynTxBindErr",
    "MPJoinSynTxConnectErr",
    "MPJoinNotEstablished",
];
/// Causes of a join that passed the checks of the SYN/ACK.
const AFTER_SYN_ACK: [&str; 3] = [
    "MPJoinAckRejected",
    "MPJoinFourthAckNoDss",
    "MPJoinFourthAckMissing",
];

/// The counters that equal a number of lines.
const ORACLES: [Oracle; 7] = [
    Oracle {
        counter: "MPJoinSynTx",
        at: Some(End::Client),
        is_counted: |line| {
            is_join(line)
                && (line.what == PathWord::Down
                    || line.what == PathWord::Failed && !has_cause(line, &BEFORE_SYN))
        },
    },
    Oracle {
        counter: "MPJoinSynAckRx",
        at: Some(End::Client),
        is_counted: |line| {
            is_join(line)
                && (line.what == PathWord::Down
                    || line.what == PathWord::Failed && has_cause(line, &AFTER_SYN_ACK))
        },
    },
    Oracle {
        counter: "MPJoinAckRx",
        at: Some(End::Server),
        is_counted: |line| is_join(line) && line.what == PathWord::Down,
    },
    Oracle {
        counter: "RmSubflow",
        at: None,
        is_counted: |line| line.what == PathWord::Down && has_cause(line, &["removed"]),
    },
    Oracle {
        counter: "MPPrioRx",
        at: None,
        is_counted: |line| {
            line.what == PathWord::Priority && line.path.side.as_deref() == Some("passive")
        },
    },
    Oracle {
        counter: "SubflowStale",
        at: None,
        is_counted: |line| line.what == PathWord::Stale,
    },
    Oracle {
        counter: "SubflowRecover",
        at: None,
        is_counted: |line| line.what == PathWord::Recovered,
    },
];

/// Counters that name the cause of a failed join: as many lines have it.
pub(super) const CAUSES: [&str; 13] = [
    "MPJoinSynTxCreatSkErr",
    "MPJoinSynTxBindErr",
    "MPJoinSynTxConnectErr",
    "MPJoinNoTokenFound",
    "MPJoinSynAckHMacFailure",
    "MPJoinSynAckNoMPJoin",
    "MPJoinAckHMacFailure",
    "MPJoinAckNoMPJoin",
    "MPJoinAckNoCtx",
    "MPJoinRejected",
    "MPJoinNotEstablished",
    "MismatchPortSynRx",
    "MismatchPortAckRx",
];

/// For each counter of this kernel, the number of lines must match.
pub(super) fn miscounted(rung: &str, played: &Played, lines: &[Line]) -> Vec<String> {
    let hides = |at| {
        let mut fates = played.wanted.iter().map(|wanted| wanted.fate);
        rung == "tracepoint"
            && fates.any(|fate| {
                let is_vague = fate.hidden || !fate.inferred.is_empty() || !fate.moments.is_empty();
                fate.at == at && is_vague
            })
    };
    let mut wrong = Vec::new();
    for at in [End::Client, End::Server] {
        let of_end = || {
            let lines = lines.iter();
            lines.filter(|line| played.end(line.path.netns) == Some(at))
        };
        let mut compare = |counter: &str, traced: usize| {
            let counted = played.count(at, counter) + other_count(played, at, counter);
            if played.counters.contains(counter) && traced as u64 != counted && !hides(at) {
                let end = end_word(at);
                wrong.push(format!(
                    "{end}: the kernel counted {counted} {counter}, traced {traced}"
                ));
            }
        };
        for oracle in &ORACLES {
            if oracle.at.is_none_or(|only| only == at) {
                let traced = of_end().filter(|line| (oracle.is_counted)(line)).count();
                compare(oracle.counter, traced);
            }
        }
        for cause in CAUSES {
            let is_other = |row: &Counted| row.at == at && row.or == Some(cause);
            if played.recipe.counted.iter().any(is_other) {
                continue;
            }
            let is_it = |line: &&Line| line.what == PathWord::Failed && has_cause(line, &[cause]);
            compare(cause, of_end().filter(is_it).count());
        }
    }
    wrong
}

/// The tracer's own comparison with the kernel's counters must agree at both ends.
///
/// A namespace whose number was in use when the tracer began has the counters of another one as its
/// base: nothing to check.
pub(super) fn disagreements(played: &Played, all: &[TracedLine]) -> Vec<String> {
    let starts = all.iter().filter_map(TracedLine::start);
    let taken: Vec<u64> = starts
        .flat_map(|start| &start.namespaces)
        .copied()
        .collect();
    let ends: Vec<_> = all.iter().filter_map(TracedLine::end).collect();
    let mut wrong = Vec::new();
    for at in [End::Client, End::Server] {
        // Of several namespaces with one number, the last one is this one.
        let mut accounts = ends.iter().flat_map(|end| &end.path_reconciliation);
        let account = accounts.rfind(|it| played.end(it.netns) == Some(at));
        let word = end_word(at);
        match account {
            Some(account) if taken.contains(&account.netns) || account.agrees => {}
            Some(account) => wrong.push(format!("{word}: the account does not agree: {account:?}")),
            None if compared(played, at) == 0 => {}
            None => wrong.push(format!("{word}: the tracer did not compare its paths")),
        }
    }
    wrong
}

/// How many events the kernel counted that the tracer compares on every kernel.
fn compared(played: &Played, at: End) -> u64 {
    ["MPJoinSynAckRx", "MPJoinAckRx"]
        .map(|name| played.count(at, name))
        .iter()
        .sum()
}
