use std::collections::BTreeMap;

use super::*;
use crate::{
    net::Family,
    netns::Counters,
    provoke::unplayed,
    recipes::{self, Expected, Who},
    report::{Endpoint, Outcome},
    traced::{Losses, Owner, Reconciled, Sensor, Start},
};

const NEAR: u64 = 101;
const FAR: u64 = 102;
const CLIENT_PID: u32 = 11;
const SERVER_PID: u32 = 12;
const SINCE_NS: u64 = 50;

fn endpoint(host: u8, port: u16) -> Endpoint {
    Endpoint {
        addr: format!("10.77.0.{host}"),
        port,
    }
}

fn expected(
    at: recipes::End,
    causes: &'static [&'static str],
    evidence: &'static [&'static str],
) -> Expected {
    Expected {
        at,
        finding: if causes.is_empty() {
            Finding::Plain
        } else {
            Finding::Fallback
        },
        causes,
        connection: 0,
        owner: match at {
            recipes::End::Client => &[Who::Client],
            recipes::End::Server => &[Who::Server],
        },
        evidence,
        early: false,
        only_with: None,
    }
}

fn counters(pairs: &[(&str, u64)]) -> Counters {
    pairs
        .iter()
        .map(|&(name, count)| (name.to_owned(), count))
        .collect()
}

/// A recipe with these expected findings, all of which the kernel counted.
fn played(rows: &[Expected]) -> Played {
    let namespaces = Namespaces {
        near: NEAR,
        far: FAR,
    };
    let cast = [(Who::Client, CLIENT_PID), (Who::Server, SERVER_PID)];
    let ends = (endpoint(1, 40_000), endpoint(2, 80));
    let wanted: Vec<Wanted> = rows
        .iter()
        .map(|row| Wanted::new(row, &ends, namespaces, &cast))
        .collect();
    let mut moved = BTreeMap::from([(NEAR, Counters::new()), (FAR, Counters::new())]);
    for wanted in &wanted {
        if let Some(cause) = wanted.causes.first() {
            let moved = moved.get_mut(&wanted.netns).unwrap();
            *moved.entry(cause.clone()).or_default() += 1;
        }
    }
    let mut played = Played {
        cast: cast.map(|(who, pid)| (pid, who.comm().to_owned())).into(),
        wanted,
        moved,
        ..unplayed("recipe", Family::V4)
    };
    (played.scene.namespaces, played.scene.since_ns) = (namespaces, SINCE_NS);
    played
}

/// Both ends fall back mid-connection.
fn both() -> Played {
    played(&[
        expected(recipes::End::Client, &["DssFallback"], &["no-dss"]),
        expected(recipes::End::Server, &["DssFallback"], &["no-dss"]),
    ])
}

/// A stripped SYN: a fallback at the client, plain TCP at the server.
fn stripped() -> Played {
    played(&[
        expected(recipes::End::Client, &["MPCapableFallbackSYNACK"], &[]),
        expected(recipes::End::Server, &[], &[]),
    ])
}

/// The correct line.
fn found(wanted: &Wanted) -> Found {
    let (pid, comm) = wanted.owners.iter().next().unwrap();
    Found {
        id: format!("0x1@{}", wanted.netns),
        cause: wanted.causes.first().cloned(),
        known: "reported".into(),
        side: Some(wanted.side.clone()),
        evidence: wanted.evidence.iter().take(1).cloned().collect(),
        owner: Some(Owner {
            pid: *pid,
            comm: comm.clone(),
            via: "connect".into(),
        }),
        netns: wanted.netns,
        family: "ipv4".into(),
        local: wanted.local.clone(),
        remote: wanted.remote.clone(),
        rung: "fexit".into(),
        ..Found::default()
    }
}

fn right_lines(played: &Played) -> Vec<TracedLine> {
    played
        .wanted
        .iter()
        .map(|wanted| match wanted.finding {
            Finding::Fallback => TracedLine::Fallback(Box::new(found(wanted))),
            Finding::Plain => TracedLine::Plain(Box::new(found(wanted))),
        })
        .collect()
}

fn end(played: &Played, lines: usize) -> End {
    let findings = lines as u64;
    End {
        routine: 0,
        findings,
        losses: vec![
            Losses::default(),
            Losses {
                seen: findings,
                emitted: findings,
                ..Losses::default()
            },
        ],
        path_reconciliation: Vec::new(),
        reconciliation: played
            .moved
            .iter()
            .map(|(netns, moved)| Reconciled {
                netns: *netns,
                counted: moved.clone(),
                traced: moved.clone(),
                agrees: true,
                why: None,
            })
            .collect(),
    }
}

/// The cells that are not ok, as `case outcome`.
fn outcomes(played: &Played, lines: &[TracedLine], limits: &[&str]) -> Vec<String> {
    outcomes_beside(played, lines, limits, &[], &end(played, lines.len()))
}

/// `outcomes` with these namespaces existing before the tracer was live, and with this end line.
fn outcomes_beside(
    played: &Played,
    lines: &[TracedLine],
    limits: &[&str],
    namespaces: &[u64],
    end: &End,
) -> Vec<String> {
    let sensors = vec![Sensor {
        rung: "fexit".into(),
        limits: limits.iter().map(|&limit| limit.to_owned()).collect(),
        probes: Vec::new(),
    }];
    let mut traced = vec![TracedLine::Start(Start {
        sensors,
        namespaces: namespaces.iter().copied().collect(),
    })];
    traced.extend_from_slice(lines);
    traced.push(TracedLine::End(end.clone()));
    compare("fexit", std::slice::from_ref(played), &traced)
        .into_iter()
        .inspect(|cell| println!("{cell:?}"))
        .filter(|cell| cell.outcome != Outcome::Ok)
        .map(|cell| format!("{} {:?}", cell.case, cell.outcome))
        .collect()
}

const MISMATCH: [&str; 1] = ["recipe-v4 Mismatch"];
const RIGHT: [&str; 0] = [];

#[test]
fn right_lines_in_any_order_are_right() {
    for played in [both(), stripped(), played(&[])] {
        let mut lines = right_lines(&played);
        assert_eq!(outcomes(&played, &lines, &[]), RIGHT);
        lines.reverse();
        assert_eq!(outcomes(&played, &lines, &[]), RIGHT);
    }
}

#[test]
fn a_missing_and_a_doubled_line_are_noticed() {
    for played in [both(), stripped()] {
        let lines = right_lines(&played);
        for index in 0..lines.len() {
            let mut missing = lines.clone();
            missing.remove(index);
            assert_eq!(outcomes(&played, &missing, &[]), MISMATCH);
            let mut doubled = lines.clone();
            doubled.push(lines[index].clone());
            assert_eq!(outcomes(&played, &doubled, &[]), MISMATCH);
        }
    }
    let healthy = played(&[]);
    for line in right_lines(&stripped()) {
        assert_eq!(outcomes(&healthy, &[line], &[]), MISMATCH);
    }
}

#[test]
fn every_field_that_is_wrong_is_noticed() {
    type Spoil = fn(&mut Found);
    let rows: [(&str, Spoil); 16] = [
        ("cause", |found| found.cause = Some("InfiniteMapTx".into())),
        ("no cause", |found| found.cause = None),
        ("unknown", |found| found.known = "unknown".into()),
        ("side", |found| found.side = Some("other".into())),
        ("no side", |found| found.side = None),
        ("netns of the other end", |found| {
            found.netns = NEAR + FAR - found.netns;
        }),
        ("an unknown netns", |found| found.netns = 999),
        ("owner", |found| found.owner.as_mut().unwrap().pid = 99),
        ("no owner", |found| found.owner = None),
        ("name of the owner", |found| {
            found.owner.as_mut().unwrap().comm = "ksoftirqd/0".into();
        }),
        ("local address", |found| {
            found.local = endpoint(9, found.local.port);
        }),
        ("local port", |found| found.local.port = 9),
        ("remote", |found| found.remote = endpoint(9, 9)),
        ("family", |found| found.family = "ipv6".into()),
        ("rung", |found| found.rung = "kprobe".into()),
        ("existing", |found| found.existing = true),
    ];
    for (name, spoil) in rows {
        for index in 0..2 {
            let played = both();
            let mut lines = right_lines(&played);
            let TracedLine::Fallback(found) = &mut lines[index] else {
                panic!("both ends fall back");
            };
            spoil(found);
            assert_eq!(outcomes(&played, &lines, &[]), MISMATCH, "{name} {index}");
        }
    }
}

#[test]
fn evidence_is_asked_for_where_there_must_be_some() {
    let played = both();
    let mut lines = right_lines(&played);
    if let TracedLine::Fallback(found) = &mut lines[0] {
        found.evidence = vec!["bad-checksum".into()];
    }
    assert_eq!(outcomes(&played, &lines, &[]), MISMATCH);
}

#[test]
fn a_line_of_the_wrong_type_is_noticed() {
    for played in [both(), stripped()] {
        let lines = right_lines(&played);
        for index in 0..lines.len() {
            let found = Box::new(found(&played.wanted[index]));
            let other = match played.wanted[index].finding {
                Finding::Fallback => TracedLine::Plain(found.clone()),
                Finding::Plain => TracedLine::Fallback(found.clone()),
            };
            for wrong in [
                other,
                TracedLine::Refused(found.clone()),
                TracedLine::Existing(found),
            ] {
                let mut lines = lines.clone();
                lines[index] = wrong;
                assert_eq!(outcomes(&played, &lines, &[]), MISMATCH);
            }
        }
    }
    // Plain TCP has no cause.
    let played = stripped();
    let mut lines = right_lines(&played);
    if let TracedLine::Plain(found) = &mut lines[1] {
        found.cause = Some("MPCapableFallbackACK".into());
    }
    assert_eq!(outcomes(&played, &lines, &[]), MISMATCH);
}

#[test]
fn swapped_owners_are_noticed() {
    let played = both();
    let mut lines = right_lines(&played);
    for (line, pid) in lines.iter_mut().zip([SERVER_PID, CLIENT_PID]) {
        if let TracedLine::Fallback(found) = line {
            found.owner.as_mut().unwrap().pid = pid;
        }
    }
    assert_eq!(outcomes(&played, &lines, &[]), MISMATCH);
}

#[test]
fn lines_about_strangers_do_not_matter() {
    let played = both();
    let mut lines = right_lines(&played);
    let mut stranger = found(&played.wanted[0]);
    stranger.netns = 999;
    stranger.owner = None;
    lines.push(TracedLine::Fallback(Box::new(stranger)));
    assert_eq!(outcomes(&played, &lines, &[]), RIGHT);
}

#[test]
fn lines_of_whoever_had_the_number_before_do_not_matter_and_are_taken_off_the_account() {
    let played = both();
    let mut lines = right_lines(&played);
    let older = Found {
        id: format!("0x2@{}", SINCE_NS - 1),
        ..found(&played.wanted[0])
    };
    lines.push(TracedLine::Fallback(Box::new(older.clone())));
    lines.push(TracedLine::Blackhole(Box::new(older)));
    assert_eq!(outcomes(&played, &lines, &[]), RIGHT);
    let account = |traced: u64, agrees: bool| {
        let mut end = end(&played, lines.len());
        let near = end.reconciliation.iter_mut().find(|it| it.netns == NEAR);
        let near = near.unwrap();
        near.traced = counters(&[("DssFallback", traced)]);
        near.agrees = agrees;
        end
    };
    let check = |end: &End, namespaces: &[u64], want: &[&str]| {
        let got = outcomes_beside(&played, &lines, &[], namespaces, end);
        assert_eq!(got, want, "{end:?}");
    };
    check(&account(2, false), &[], &RIGHT);
    check(&account(3, false), &[], &["reconciliation Mismatch"]);
    check(&account(0, false), &[], &["reconciliation Mismatch"]);
    // A namespace number from before the tracer was live has no meaningful account.
    check(&account(3, false), &[NEAR], &RIGHT);
    check(
        &account(3, false),
        &[NEAR, FAR],
        &["reconciliation Skipped"],
    );
    // A new one in our namespace is ours.
    let mut lines = right_lines(&played);
    lines.push(TracedLine::Fallback(Box::new(Found {
        id: format!("0x2@{SINCE_NS}"),
        ..found(&played.wanted[0])
    })));
    assert_eq!(outcomes(&played, &lines, &[]), MISMATCH);
}

#[test]
fn a_limit_excuses_what_it_names_and_nothing_else() {
    let played = stripped();
    let lines = right_lines(&played);
    let no_plain = ["plain TCP at an MPTCP listener is not seen on this rung"];
    let without_plain = &lines[..1];
    assert_eq!(
        outcomes(&played, without_plain, &no_plain),
        ["recipe-v4 Skipped"]
    );
    assert_eq!(
        outcomes(&played, without_plain, &["the inode is not known"]),
        MISMATCH
    );
    assert_eq!(outcomes(&played, &lines[1..], &no_plain), MISMATCH);
    assert_eq!(outcomes(&played, &[], &no_plain), MISMATCH);
    // A surplus line or a wrong cause is never excused.
    let mut doubled = lines.clone();
    doubled.push(lines[1].clone());
    assert_eq!(outcomes(&played, &doubled, &no_plain), MISMATCH);
    let mut wrong = lines.clone();
    if let TracedLine::Fallback(found) = &mut wrong[0] {
        found.cause = Some("DssFallback".into());
    }
    let limit = ["the cause MPCapableFallbackSYNACK is not told from others"];
    assert_eq!(outcomes(&played, &wrong, &limit), MISMATCH);
    // Nor is a wrong side, even if a limit contains a similar word.
    let mut swapped = lines.clone();
    if let TracedLine::Fallback(found) = &mut swapped[0] {
        found.side = Some("passive".into());
    }
    let limit_of_time =
        ["a fallback outside of the handshake is noticed later; each side and address"];
    assert_eq!(outcomes(&played, &swapped, &limit_of_time), MISMATCH);
    // But an unknown one is.
    let mut unknown = lines;
    if let TracedLine::Fallback(found) = &mut unknown[0] {
        found.cause = None;
    }
    assert_eq!(outcomes(&played, &unknown, &limit), ["recipe-v4 Skipped"]);
}

#[test]
fn a_recipe_that_the_kernel_did_not_follow_is_not_taken_for_right() {
    let mut odd = both();
    *odd.moved.get_mut(&NEAR).unwrap() = counters(&[("MPCapableDataFallback", 1)]);
    let lines = right_lines(&both());
    // The reconciliation of `outcomes` is made from the same counters, and stays right.
    assert_eq!(outcomes(&odd, &lines, &[]), MISMATCH);
    let mut refused = both();
    let moved = refused.moved.get_mut(&FAR).unwrap();
    moved.insert("FallbackFailed".into(), 1);
    assert_eq!(outcomes(&refused, &lines, &[]), MISMATCH);
}

#[test]
fn a_kernel_without_a_counter_is_compared_by_the_table_alone() {
    let mut old = both();
    old.counters.remove("DssFallback");
    for moved in old.moved.values_mut() {
        moved.clear();
    }
    let lines = right_lines(&old);
    assert_eq!(outcomes(&old, &lines, &[]), RIGHT);
    assert_eq!(outcomes(&old, &lines[1..], &[]), MISMATCH);
}

#[test]
fn an_early_fallback_may_lack_addresses_but_have_no_wrong_ones() {
    let mut early = played(&[expected(
        recipes::End::Client,
        &["MPCapableSYNTXDisabled"],
        &[],
    )]);
    early.wanted[0].early = true;
    let with = |local: Endpoint, remote: Endpoint| {
        let line = Found {
            local,
            remote,
            ..found(&early.wanted[0])
        };
        outcomes(&early, &[TracedLine::Fallback(Box::new(line))], &[])
    };
    let nowhere = || Endpoint {
        addr: "0.0.0.0".into(),
        port: 0,
    };
    assert_eq!(with(endpoint(1, 40_000), endpoint(2, 80)), RIGHT);
    assert_eq!(with(endpoint(1, 40_000), nowhere()), RIGHT);
    assert_eq!(with(nowhere(), nowhere()), RIGHT);
    assert_eq!(with(endpoint(1, 40_000), endpoint(9, 80)), MISMATCH);
    assert_eq!(with(endpoint(1, 41_000), nowhere()), MISMATCH);
}

#[test]
fn the_tracers_own_reconciliation_is_checked() {
    let played = [both()];
    let outcome = |spoil: &dyn Fn(&mut End)| {
        let mut end = end(&played[0], 2);
        spoil(&mut end);
        reconciliation("fexit", &played, &[TracedLine::End(end)]).outcome
    };
    assert_eq!(outcome(&|_end| ()), Outcome::Ok);
    assert_eq!(
        outcome(&|end| end.reconciliation[0].agrees = false),
        Outcome::Mismatch
    );
    assert_eq!(
        outcome(&|end| end.reconciliation[1].counted = counters(&[("DssFallback", 2)])),
        Outcome::Mismatch
    );
    assert_eq!(
        outcome(&|end| end.reconciliation.truncate(1)),
        Outcome::Mismatch
    );
    // Zeros and other counters are ignored.
    assert_eq!(
        outcome(&|end| {
            let counted = &mut end.reconciliation[0].counted;
            counted.insert("InfiniteMapTx".into(), 0);
            counted.insert("MPTCPRetrans".into(), 5);
        }),
        Outcome::Ok
    );
}

#[test]
fn losses_and_lines_that_nobody_counted_are_noticed() {
    let outcome = |spoil: &dyn Fn(&mut End)| {
        let mut end = end(&both(), 2);
        spoil(&mut end);
        identity("fexit", 2, &[&end]).outcome
    };
    assert_eq!(outcome(&|_end| ()), Outcome::Ok);
    assert_eq!(outcome(&|end| end.losses[1].missed = 3), Outcome::Ok);
    assert_eq!(outcome(&|end| end.losses[1].missed = 4), Outcome::Mismatch);
    let missed_of = |seen: u64| {
        outcome(&move |end| {
            end.losses[1].missed = 4;
            (end.losses[1].seen, end.losses[1].emitted) = (seen, seen);
        })
    };
    assert_eq!(missed_of(79), Outcome::Mismatch);
    assert_eq!(missed_of(80), Outcome::Ok);
    assert_eq!(outcome(&|end| end.losses[1].seen = 9), Outcome::Mismatch);
    assert_eq!(outcome(&|end| end.findings = 3), Outcome::Mismatch);
    assert_eq!(outcome(&|end| end.losses.clear()), Outcome::Mismatch);
    assert_eq!(identity("fexit", 2, &[]).outcome, Outcome::Mismatch);
}

#[test]
fn a_cell_says_in_short_what_was_to_be_found_and_what_was() {
    let played = stripped();
    let mut traced = right_lines(&played);
    traced.push(TracedLine::End(end(&played, 2)));
    let cells = compare("fexit", &[played], &traced);
    assert_eq!(
        (cells[0].caller.as_str(), cells[0].traced.as_str()),
        (
            "client MPCapableFallbackSYNACK; server plain",
            "client MPCapableFallbackSYNACK (reported); server plain (reported)"
        )
    );
}
