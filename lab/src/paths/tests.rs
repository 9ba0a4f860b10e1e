use std::collections::BTreeMap;

use super::{judge, line::PathWord, *};
use crate::{
    report::{Cell, Outcome},
    traced::{self, ClosedLine, Owner, PathLine, Reconciled, ResetLine, TracedLine},
};

const NEAR: u64 = 101;
const FAR: u64 = 102;
const CLIENT_PID: u32 = 11;
const SERVER_PID: u32 = 12;
const SINCE_NS: u64 = 50;

fn endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint {
        addr: address.to_owned(),
        port,
    }
}

/// A recipe as it is played on a kernel with all counters; the server's end first.
fn played(name: &str) -> Played {
    let recipe = PATH_RECIPES.iter().find(|it| it.name == name).unwrap();
    let mut scene = Scene::new(name, Family::V4);
    scene.namespaces = Namespaces {
        near: NEAR,
        far: FAR,
    };
    scene.since_ns = SINCE_NS;
    let moved = [End::Client, End::Server].map(|at| {
        let rows = recipe.counted.iter().filter(|row| row.at == at);
        rows.map(|row| (row.name.to_owned(), row.number.0))
            .collect()
    });
    let wanted = recipe.fates.iter().map(|fate| {
        let client = match fate.way {
            Way::First => endpoint("10.77.0.1", 7),
            Way::Second | Way::Third | Way::Foreign | Way::Announced(_) => endpoint("10.78.0.1", 0),
        };
        let server = endpoint("10.77.0.2", 80);
        let (netns, local, remote) = match fate.at {
            End::Client => (NEAR, client, server),
            End::Server => (FAR, server, client),
        };
        Wanted {
            fate,
            netns,
            local,
            remote,
        }
    });
    Played {
        scene,
        recipe,
        owners: BTreeMap::from([(Who::Client, CLIENT_PID), (Who::Server, SERVER_PID)]),
        wanted: wanted.collect(),
        moved,
        counters: recipes_counters(),
    }
}

fn recipes_counters() -> BTreeSet<String> {
    crate::recipes::paths::PATH_COUNTERS
        .map(str::to_owned)
        .into()
}

/// The lines of a tracer that is right.
fn lines(played: &Played, rung: &str) -> Vec<TracedLine> {
    let mut lines = Vec::new();
    for wanted in &played.wanted {
        let side = match wanted.fate.at {
            End::Client => "active",
            End::Server => "passive",
        };
        let role = match wanted.fate.way {
            Way::First => "first",
            Way::Second | Way::Third | Way::Foreign | Way::Announced(_) => "join",
        };
        for what in wanted.whats(played) {
            let ends = [PathWord::Failed, PathWord::ConnectFailed, PathWord::Down].contains(&what);
            let reset = wanted.fate.resets.first().filter(|_| ends);
            let path = Box::new(PathLine {
                packet: None,
                boottime_ns: SINCE_NS,
                path_id: None,
                ledger: None,
                id: (!wanted.fate.stray).then(|| "0x1@60".to_owned()),
                role: role.to_owned(),
                cause: ends.then(|| wanted.fate.causes[0].to_owned()),
                known: if ends { "reported" } else { "unknown" }.to_owned(),
                reset: reset.map(|name| ResetLine {
                    code: 3,
                    name: Some((*name).to_owned()),
                }),
                side: Some(side.to_owned()),
                up: what != PathWord::Failed,
                lifetime_ns: Some(1),
                existing: false,
                owner: Some(match wanted.fate.by_kernel {
                    true => kernel(),
                    false => owner(wanted.fate.at),
                }),
                netns: wanted.netns,
                local: wanted.local.clone(),
                remote: wanted.remote.clone(),
                rung: rung.to_owned(),
            });
            lines.push(match what {
                PathWord::Up => TracedLine::PathUp(path),
                PathWord::Failed => TracedLine::PathFailed(path),
                PathWord::ConnectFailed => TracedLine::ConnectFailed(path),
                PathWord::Down => TracedLine::PathDown(path),
                PathWord::Stale => TracedLine::PathStale(path),
                PathWord::Recovered => TracedLine::PathRecovered(path),
                PathWord::Priority => TracedLine::PathPriority(path),
            });
        }
    }
    for at in [End::Client, End::Server] {
        if !played.wanted.iter().any(|it| it.fate.at == at) {
            continue;
        }
        let fates = played.wanted.iter().map(|it| it.fate);
        let of_end = fates.filter(|fate| fate.at == at && !fate.stray);
        let (up, failed): (Vec<&Fate>, Vec<&Fate>) =
            of_end.partition(|fate| fate.begins == crate::recipes::paths::Begins::Up);
        lines.push(TracedLine::Closed(Box::new(ClosedLine {
            boottime_ns: SINCE_NS,
            id: "0x1@60".to_owned(),
            outcome: "mptcp".to_owned(),
            paths_up: u32::try_from(up.len()).unwrap(),
            paths_failed: u32::try_from(failed.len()).unwrap(),
            never_tried: match at {
                End::Client => played.recipe.never_tried.first().map(|it| (*it).to_owned()),
                End::Server if rung != "tracepoint" && (up.len(), failed.len()) == (1, 0) => {
                    Some("no-join-came".to_owned())
                }
                End::Server => None,
            },
            netns: match at {
                End::Client => NEAR,
                End::Server => FAR,
            },
            owner: Some(owner(at)),
            ..ClosedLine::default()
        })));
    }
    lines
}

fn owner(at: End) -> Owner {
    Owner {
        pid: match at {
            End::Client => CLIENT_PID,
            End::Server => SERVER_PID,
        },
        ..Owner::default()
    }
}

fn kernel() -> Owner {
    Owner {
        pid: 0,
        comm: "kernel".to_owned(),
        via: "kernel".to_owned(),
    }
}

/// The only line of this kind about a join.
fn join(lines: &mut [TracedLine], netns: u64) -> &mut PathLine {
    let found = lines.iter_mut().find_map(|line| {
        if let TracedLine::PathFailed(path) | TracedLine::PathDown(path) = line
            && path.netns == netns
            && path.role == "join"
        {
            Some(&mut **path)
        } else {
            None
        }
    });
    found.unwrap()
}

/// The last line of a tracer whose comparison with the kernel's counters says this of both ends.
fn account(agrees: bool) -> TracedLine {
    let of = |netns| Reconciled {
        netns,
        agrees,
        ..Reconciled::default()
    };
    TracedLine::End(traced::End {
        routine: 0,
        findings: 0,
        losses: Vec::new(),
        reconciliation: Vec::new(),
        path_reconciliation: [NEAR, FAR].map(of).into(),
    })
}

fn cell(rung: &str, played: &Played, lines: &[TracedLine]) -> Cell {
    let all: Vec<TracedLine> = lines.iter().cloned().chain([account(true)]).collect();
    judge::cell(rung, played, &all)
}

fn outcome(rung: &str, played: &Played, lines: &[TracedLine]) -> Outcome {
    cell(rung, played, lines).outcome
}

#[test]
fn what_is_right_is_ok_with_each_attach_method() {
    for recipe in PATH_RECIPES {
        for rung in ["fexit", "kprobe", "tracepoint"] {
            let played = played(recipe.name);
            let cell = cell(rung, &played, &lines(&played, rung));
            assert_eq!(cell.outcome, Outcome::Ok, "{}: {}", recipe.name, cell.why);
        }
    }
}

#[test]
fn what_is_wrong_in_one_line_is_a_mismatch() {
    type Spoil = fn(&mut Vec<TracedLine>);
    let rows: [(&str, Spoil); 12] = [
        ("a line is missing", |lines| drop(lines.remove(0))),
        ("one is there twice", |lines| lines.push(lines[0].clone())),
        ("another cause", |lines| {
            join(lines, NEAR).cause = Some("MPJoinSynRefused".to_owned());
        }),
        ("no cause", |lines| join(lines, FAR).cause = None),
        ("an inferred cause", |lines| {
            join(lines, NEAR).known = "inferred".to_owned();
        }),
        ("no reason", |lines| join(lines, NEAR).reset = None),
        ("another reason", |lines| {
            join(lines, NEAR).reset = Some(ResetLine {
                code: 1,
                name: Some("mptcp-error".to_owned()),
            });
        }),
        ("the other side", |lines| {
            join(lines, FAR).side = Some("active".to_owned());
        }),
        ("another address", |lines| {
            join(lines, NEAR).local.addr = "10.77.0.1".to_owned();
        }),
        ("no connection", |lines| join(lines, FAR).id = None),
        ("another owner", |lines| {
            join(lines, NEAR).owner = Some(owner(End::Server));
        }),
        ("another count", |lines| {
            let last = lines.last_mut().unwrap();
            if let TracedLine::Closed(closed) = last {
                closed.paths_failed = 0;
            }
        }),
    ];
    let played = played("limit0-server");
    for (name, spoil) in rows {
        let mut lines = lines(&played, "fexit");
        spoil(&mut lines);
        assert_eq!(
            outcome("fexit", &played, &lines),
            Outcome::Mismatch,
            "{name}"
        );
    }
}

#[test]
fn the_kernels_own_listener_has_no_process_and_no_join_came_where_none_did() {
    let refused = played("port-bad-token");
    for wrong in [Some(owner(End::Server)), None] {
        let mut lines = lines(&refused, "fexit");
        join(&mut lines, FAR).owner = wrong;
        assert_eq!(outcome("fexit", &refused, &lines), Outcome::Mismatch);
    }
    let alone = played("one-path");
    let mut lines = lines(&alone, "fexit");
    if let Some(TracedLine::Closed(closed)) = lines.last_mut() {
        closed.never_tried = None;
    }
    assert_eq!(outcome("fexit", &alone, &lines), Outcome::Mismatch);
}

#[test]
fn more_lines_than_one_are_right_only_where_packets_repeat() {
    for (name, expected) in [
        ("cookie-lost", Outcome::Ok),
        ("bad-token", Outcome::Mismatch),
    ] {
        let played = played(name);
        let mut lines = lines(&played, "fexit");
        let again = lines
            .iter()
            .position(|line| matches!(line, TracedLine::PathFailed(path) if path.netns == FAR));
        lines.push(lines[again.unwrap()].clone());
        assert_eq!(outcome("fexit", &played, &lines), expected, "{name}");
    }
}

#[test]
fn a_path_may_get_stale_several_times_and_each_has_its_line() {
    let mut stale = played("stale");
    let once = lines(&stale, "fexit");
    for counter in ["SubflowStale", "SubflowRecover"] {
        stale.moved[0].insert(counter.to_owned(), 2);
    }
    let twice = lines(&stale, "fexit");
    assert_eq!(twice.len(), once.len() + 2);
    assert_eq!(outcome("fexit", &stale, &twice), Outcome::Ok);
    assert_eq!(outcome("fexit", &stale, &once), Outcome::Mismatch);
    let mut unseen = lines(&stale, "tracepoint");
    unseen.retain(|line| {
        !matches!(
            line,
            TracedLine::PathStale(_) | TracedLine::PathRecovered(_)
        )
    });
    assert_eq!(outcome("tracepoint", &stale, &unseen), Outcome::Ok);
}

#[test]
fn tracepoints_may_infer_a_refusal_without_its_connection_and_miss_a_brief_start() {
    let refused = played("limit0-server");
    let mut vague = lines(&refused, "tracepoint");
    let path = join(&mut vague, FAR);
    path.cause = Some("MPJoinNoTokenFound".to_owned());
    path.known = "inferred".to_owned();
    path.id = None;
    path.owner = None;
    assert_eq!(outcome("tracepoint", &refused, &vague), Outcome::Ok);
    let base = played("base");
    let mut brief = lines(&base, "tracepoint");
    brief.retain(|line| {
        !matches!(line, TracedLine::PathUp(path) if path.netns == NEAR && path.role == "join")
    });
    assert_eq!(outcome("tracepoint", &base, &brief), Outcome::Ok);
    assert_eq!(outcome("fexit", &base, &brief), Outcome::Mismatch);
    join(&mut brief, NEAR).lifetime_ns = Some(10_000_000_000);
    assert_eq!(outcome("tracepoint", &base, &brief), Outcome::Mismatch);
}

#[test]
fn a_counter_that_is_not_in_the_table_is_a_mismatch_and_one_that_the_kernel_lacks_is_not() {
    let mut base = played("base");
    let right = lines(&base, "fexit");
    base.moved[0].insert("MPRstTx".to_owned(), 1);
    assert_eq!(outcome("fexit", &base, &right), Outcome::Mismatch);
    base.counters.remove("MPRstTx");
    assert_eq!(outcome("fexit", &base, &right), Outcome::Ok);
    base.moved[1].remove("MPJoinAckRx");
    assert_eq!(outcome("fexit", &base, &right), Outcome::Mismatch);
}

#[test]
fn lines_of_an_earlier_namespace_with_the_same_number_are_of_others() {
    let base = played("base");
    let mut right = lines(&base, "fexit");
    let mut other = right[0].clone();
    if let TracedLine::PathUp(path) = &mut other {
        path.boottime_ns = SINCE_NS - 1;
    }
    // A connection of that namespace may end later.
    let mut later = right[0].clone();
    if let TracedLine::PathUp(path) = &mut later {
        path.id = Some(format!("0x1@{}", SINCE_NS - 1));
    }
    right.extend([other, later]);
    assert_eq!(outcome("fexit", &base, &right), Outcome::Ok);
}

#[test]
fn the_tracers_own_account_must_agree_unless_its_counters_have_the_base_of_another_namespace() {
    let base = played("base");
    let right = lines(&base, "fexit");
    let judged = |more: &[TracedLine]| {
        let all: Vec<TracedLine> = right.iter().chain(more).cloned().collect();
        judge::cell("fexit", &base, &all).outcome
    };
    assert_eq!(judged(&[account(true)]), Outcome::Ok);
    assert_eq!(judged(&[account(false)]), Outcome::Mismatch);
    assert_eq!(judged(&[]), Outcome::Mismatch);
    // Of two namespaces with this number, the later one is meant.
    assert_eq!(judged(&[account(false), account(true)]), Outcome::Ok);
    let reused = TracedLine::Start(traced::Start {
        namespaces: BTreeSet::from([NEAR, FAR]),
        ..traced::Start::default()
    });
    assert_eq!(judged(&[reused, account(false)]), Outcome::Ok);
}

#[test]
fn every_recipe_is_explained_beside_the_tables() {
    let page = include_str!("../../../docs/kernels.md");
    let (_before, section) = page.split_once("\n## Paths\n").unwrap();
    let (list, _tables) = section.split_once("<!-- paths:begin -->").unwrap();
    for recipe in PATH_RECIPES {
        assert!(
            list.contains(&format!("`{}`", recipe.name)),
            "{}",
            recipe.name
        );
    }
}
