//! What the callers were told against what was traced. Pure.

use std::collections::BTreeMap;

use crate::{
    report::{Asked, AskerLine, Cell, Outcome},
    traced::{End, Traced, TracedLine},
};

/// Compares one run of the asker with one run of the tracer: a cell for each question, and one for the
/// identity of the counters.
#[must_use]
pub fn compare(rung: &str, asked: &[AskerLine], traced: &[TracedLine]) -> Vec<Cell> {
    let mut threads: BTreeMap<u32, Vec<&Traced>> = BTreeMap::new();
    let mut limits = Vec::new();
    let mut ends = Vec::new();
    for line in traced {
        match line {
            TracedLine::Query(query) => threads.entry(query.tid).or_default().push(query),
            TracedLine::Start(start) => {
                limits.extend(
                    start
                        .sensors
                        .iter()
                        .flat_map(|sensor| sensor.limits.clone()),
                );
            }
            TracedLine::End(end) => ends.push(end),
        }
    }
    // In the order of time, oldest last, to be popped.
    for lines in threads.values_mut() {
        lines.reverse();
    }
    let no_32bit = limits.iter().any(|limit| limit.contains("32-bit"));
    let mut cells: Vec<Cell> = Vec::new();
    for line in asked {
        cells.push(match line {
            AskerLine::Skipped { case, why } => Cell {
                case: case.clone(),
                rung: rung.into(),
                outcome: Outcome::Skipped,
                caller: String::new(),
                traced: String::new(),
                why: why.clone(),
            },
            AskerLine::Asked(asked) => {
                let lines = threads.entry(asked.tid).or_default();
                one(rung, asked, lines, no_32bit)
            }
        });
    }
    for line in threads.into_values().flatten() {
        cells.push(mismatch(
            "extra",
            rung,
            "no question",
            &said(line.answer.as_deref(), line.errno.as_deref()),
            format!("thread {} about {}", line.tid, line.local.addr),
        ));
    }
    cells.push(identity(rung, &ends));
    cells
}

/// One question against the next line of its thread.
fn one(rung: &str, asked: &Asked, lines: &mut Vec<&Traced>, no_32bit: bool) -> Cell {
    let caller = said(Some(&asked.answer), asked.errno.as_deref());
    let is_query = matches!(asked.protocol, Some(6 | 262));
    // A question whose line must not come, and the next line is not about it.
    let is_next = lines.last().is_some_and(|line| same_socket(asked, line));
    if !is_query || (asked.compat && no_32bit) {
        return if is_next {
            let line = lines.pop();
            let traced = line.map(|line| said(line.answer.as_deref(), line.errno.as_deref()));
            let why = "a line where none was expected".to_owned();
            mismatch(&asked.case, rung, &caller, &traced.unwrap_or_default(), why)
        } else {
            ok(&asked.case, rung, &caller, "no line")
        };
    }
    if !is_next {
        let why = format!("next line of the thread: {:?}", lines.last());
        return mismatch(&asked.case, rung, &caller, "no line", why);
    }
    let Some(line) = lines.pop() else {
        return mismatch(&asked.case, rung, &caller, "no line", String::new());
    };
    let traced = said(line.answer.as_deref(), line.errno.as_deref());
    let differences = differences(rung, asked, line);
    if differences.is_empty() {
        ok(&asked.case, rung, &caller, &traced)
    } else {
        mismatch(&asked.case, rung, &caller, &traced, differences.join("; "))
    }
}

fn same_socket(asked: &Asked, line: &Traced) -> bool {
    match (asked.inode, line.inode) {
        (Some(asked), Some(traced)) => asked == traced,
        (None, Some(_)) => false,
        (_, None) => true,
    }
}

fn differences(rung: &str, asked: &Asked, line: &Traced) -> Vec<String> {
    let mut differences = Vec::new();
    let mut expect = |name: &str, told: String, traced: String| {
        if told != traced {
            differences.push(format!("{name}: caller {told}, traced {traced}"));
        }
    };
    expect(
        "answer",
        asked.answer.clone(),
        line.answer.clone().unwrap_or_default(),
    );
    expect(
        "errno",
        format!("{:?}", asked.errno),
        format!("{:?}", line.errno),
    );
    expect("rung", rung.to_owned(), line.rung.clone());
    expect("process", asked.pid.to_string(), line.pid.to_string());
    let protocol = if asked.protocol == Some(262) {
        "mptcp"
    } else {
        "tcp"
    };
    expect("protocol", protocol.into(), line.protocol.clone());
    expect(
        "inode",
        format!("{:?}", asked.inode),
        format!("{:?}", line.inode),
    );
    // Not knowing is honest, but on no kernel of ours is it necessary.
    expect(
        "fell back",
        format!("{:?}", Some(asked.fell_back)),
        format!("{:?}", line.fell_back),
    );
    if let Some(local) = &asked.local {
        expect("local", format!("{local:?}"), format!("{:?}", line.local));
        let family = if local.addr.contains(':') {
            "ipv6"
        } else {
            "ipv4"
        };
        expect("family", family.into(), line.family.clone());
    }
    if let Some(remote) = &asked.remote {
        expect(
            "remote",
            format!("{remote:?}"),
            format!("{:?}", line.remote),
        );
        expect("state", "ESTABLISHED".into(), line.state.clone());
    }
    differences
}

/// The counters add up, and nothing was lost.
fn identity(rung: &str, ends: &[&End]) -> Cell {
    let [end] = ends else {
        let why = format!("{} end lines", ends.len());
        return mismatch("identity", rung, "one end line", "", why);
    };
    for losses in &end.losses {
        if !losses.balances() || losses.lost() + losses.missed > 0 {
            return mismatch("identity", rung, "nothing lost", "", format!("{losses:?}"));
        }
        if losses.emitted != end.findings {
            let why = format!("{} findings of {losses:?}", end.findings);
            return mismatch("identity", rung, "every record a line", "", why);
        }
    }
    ok("identity", rung, "nothing lost", "nothing lost")
}

/// An answer in the fewest words.
fn said(answer: Option<&str>, errno: Option<&str>) -> String {
    match (answer, errno) {
        (Some(answer), Some(errno)) => format!("{answer} {errno}"),
        (Some(answer), None) => answer.to_owned(),
        (None, _) => "?".to_owned(),
    }
}

/// A cell in which both agree.
#[must_use]
pub fn ok(case: &str, rung: &str, caller: &str, traced: &str) -> Cell {
    Cell {
        case: case.into(),
        rung: rung.into(),
        outcome: Outcome::Ok,
        caller: caller.into(),
        traced: traced.into(),
        why: String::new(),
    }
}

/// A cell in which they do not.
#[must_use]
pub fn mismatch(case: &str, rung: &str, caller: &str, traced: &str, why: String) -> Cell {
    Cell {
        outcome: Outcome::Mismatch,
        why,
        ..ok(case, rung, caller, traced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::Endpoint,
        traced::{Losses, Sensor, Start},
    };

    fn endpoint(port: u16) -> Endpoint {
        Endpoint {
            addr: "127.0.0.1".into(),
            port,
        }
    }

    fn asked(inode: u64, answer: &str) -> Asked {
        Asked {
            case: format!("case-{inode}"),
            pid: 1,
            tid: 1,
            errno: None,
            answer: answer.into(),
            protocol: Some(262),
            fell_back: answer == "tcp",
            local: Some(endpoint(1)),
            remote: Some(endpoint(2)),
            inode: Some(inode),
            compat: false,
        }
    }

    fn traced(inode: u64, answer: &str) -> Traced {
        Traced {
            pid: 1,
            tid: 1,
            inode: Some(inode),
            protocol: "mptcp".into(),
            family: "ipv4".into(),
            state: "ESTABLISHED".into(),
            local: endpoint(1),
            remote: endpoint(2),
            answer: Some(answer.into()),
            errno: None,
            fell_back: Some(answer == "tcp"),
            rung: "fexit".into(),
        }
    }

    fn wrong(asked: Vec<Asked>, traced: Vec<Traced>, limits: &[&str]) -> Vec<String> {
        let asked: Vec<AskerLine> = asked.into_iter().map(AskerLine::Asked).collect();
        let count = traced.len() as u64;
        let limits = limits.iter().map(|&limit| limit.to_owned()).collect();
        let start = Start {
            sensors: vec![Sensor {
                rung: "fexit".into(),
                limits,
            }],
        };
        let losses = Losses {
            seen: count,
            emitted: count,
            filtered: 0,
            ring_full: 0,
            faulted: 0,
            table_full: 0,
            unfinished: 0,
            missed: 0,
        };
        let mut lines = vec![TracedLine::Start(start)];
        lines.extend(
            traced
                .into_iter()
                .map(|line| TracedLine::Query(Box::new(line))),
        );
        lines.push(TracedLine::End(End {
            findings: count,
            losses: vec![losses],
        }));
        compare("fexit", &asked, &lines)
            .into_iter()
            .filter(|cell| cell.outcome != Outcome::Ok)
            .map(|cell| cell.case)
            .collect()
    }

    #[test]
    fn agreement_is_found_and_every_kind_of_difference_too() {
        let one = || asked(1, "mptcp");
        let two = || asked(2, "tcp");
        let first = || traced(1, "mptcp");
        let second = || traced(2, "tcp");
        let none: [&str; 0] = [];
        assert_eq!(
            wrong(vec![one(), two()], vec![first(), second()], &[]),
            none
        );
        // Missing, doubled, swapped, foreign.
        assert_eq!(wrong(vec![one(), two()], vec![first()], &[]), ["case-2"]);
        assert_eq!(wrong(vec![one()], vec![first(), first()], &[]), ["extra"]);
        assert!(!wrong(vec![one(), two()], vec![second(), first()], &[]).is_empty());
        assert_eq!(
            wrong(
                vec![one()],
                vec![first(), Traced { tid: 9, ..second() }],
                &[]
            ),
            ["extra"]
        );
        // A wrong word, an error, another address, another rung, not knowing.
        for line in [
            Traced {
                answer: Some("tcp".into()),
                ..first()
            },
            Traced {
                answer: None,
                ..first()
            },
            Traced {
                errno: Some("EINVAL".into()),
                ..first()
            },
            Traced {
                local: endpoint(9),
                ..first()
            },
            Traced {
                remote: endpoint(9),
                ..first()
            },
            Traced {
                rung: "kprobe".into(),
                ..first()
            },
            Traced {
                protocol: "tcp".into(),
                ..first()
            },
            Traced {
                fell_back: None,
                ..first()
            },
            Traced {
                family: "ipv6".into(),
                ..first()
            },
            Traced { pid: 9, ..first() },
            Traced {
                state: "CLOSE".into(),
                ..first()
            },
        ] {
            assert_eq!(wrong(vec![one()], vec![line], &[]), ["case-1"]);
        }
    }

    #[test]
    fn what_is_no_tcp_socket_has_no_line() {
        let udp = Asked {
            protocol: None,
            answer: "unsupported".into(),
            ..asked(1, "mptcp")
        };
        let none: [&str; 0] = [];
        assert_eq!(wrong(vec![udp.clone()], vec![], &[]), none);
        assert_eq!(wrong(vec![udp], vec![traced(1, "mptcp")], &[]), ["case-1"]);
    }

    #[test]
    fn a_32_bit_caller_may_be_unseen_only_where_that_is_said() {
        let compat = Asked {
            compat: true,
            ..asked(1, "mptcp")
        };
        let none: [&str; 0] = [];
        assert_eq!(
            wrong(vec![compat.clone()], vec![traced(1, "mptcp")], &[]),
            none
        );
        assert_eq!(wrong(vec![compat.clone()], vec![], &[]), ["case-1"]);
        assert_eq!(
            wrong(
                vec![compat],
                vec![],
                &["queries of 32-bit programs are not seen"]
            ),
            none
        );
    }

    #[test]
    fn counters_that_do_not_add_up_are_a_mismatch() {
        let zero = Losses {
            seen: 0,
            emitted: 0,
            filtered: 0,
            ring_full: 0,
            faulted: 0,
            table_full: 0,
            unfinished: 0,
            missed: 0,
        };
        for losses in [
            Losses {
                seen: 1,
                ..zero.clone()
            },
            Losses {
                seen: 1,
                ring_full: 1,
                ..zero.clone()
            },
            Losses {
                missed: 1,
                ..zero.clone()
            },
            Losses {
                seen: 1,
                emitted: 1,
                ..zero.clone()
            },
        ] {
            let end = End {
                findings: 0,
                losses: vec![losses],
            };
            assert_eq!(
                identity("fexit", &[&end]).outcome,
                Outcome::Mismatch,
                "{end:?}"
            );
        }
        assert_eq!(identity("fexit", &[]).outcome, Outcome::Mismatch);
        let end = End {
            findings: 0,
            losses: vec![zero],
        };
        assert_eq!(identity("fexit", &[&end]).outcome, Outcome::Ok);
    }
}
