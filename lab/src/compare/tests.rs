use super::*;
use crate::{
    report::Outcome,
    traced::{Losses, Sensor, Start},
};

const NONE: [&str; 0] = [];
fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        addr: "127.0.0.1".into(),
        port,
    }
}

/// The `seq`-th query, on an MPTCP socket; it has fallen back if the answer is `tcp`.
fn asked(inode: u64, truth: Truth) -> Asked {
    Asked {
        case: format!("case-{inode}"),
        pid: 1,
        tid: 1,
        seq: inode,
        rc: 0,
        errno: None,
        value_bytes: vec![1, 0, 0, 0],
        optlen_in: Some(4),
        optlen_out: Some(4),
        truth,
        so_protocol: Some(262),
        family: Some("ipv4".into()),
        state: Some("ESTABLISHED".into()),
        fell_back: truth == Truth::Tcp,
        local: Some(endpoint(1)),
        remote: Some(endpoint(2)),
        connecting_to: None,
        inode: Some(inode),
        compat: false,
    }
}

fn traced(inode: u64, answer: &str) -> Traced {
    Traced {
        api: "TCP_IS_MPTCP".into(),
        pid: 1,
        tid: 1,
        inode: Some(inode),
        protocol: "mptcp".into(),
        family: "ipv4".into(),
        state: "ESTABLISHED".into(),
        local: endpoint(1),
        remote: endpoint(2),
        answer: Some(answer.into()),
        fell_back: Some(answer == "tcp"),
        rung: "fexit".into(),
        ..Traced::default()
    }
}

/// Names of the cells that are not ok.
fn wrong(asked: Vec<Asked>, traced: Vec<Traced>, limits: &[&str]) -> Vec<String> {
    let asked: Vec<AskerLine> = asked
        .into_iter()
        .map(Box::new)
        .map(AskerLine::Asked)
        .collect();
    let count = traced.len() as u64;
    let limits = limits.iter().map(|&limit| limit.to_owned()).collect();
    let rung = "fexit".into();
    let sensors = vec![Sensor {
        rung,
        limits,
        probes: Vec::new(),
    }];
    let losses = Losses {
        seen: count,
        emitted: count,
        ..Losses::default()
    };
    let mut lines = vec![TracedLine::Start(Start {
        sensors,
        namespaces: Default::default(),
    })];
    let queries = traced.into_iter().map(Box::new).map(TracedLine::Query);
    lines.extend(queries);
    lines.push(TracedLine::End(End {
        routine: 0,
        findings: count,
        losses: vec![losses],
        reconciliation: Vec::new(),
        path_reconciliation: Vec::new(),
    }));
    compare("fexit", &asked, &lines)
        .into_iter()
        .filter(|cell| cell.outcome != Outcome::Ok)
        .map(|cell| cell.case)
        .collect()
}

fn one() -> Asked {
    asked(1, Truth::Mptcp)
}

fn two() -> Asked {
    asked(2, Truth::Tcp)
}

fn first() -> Traced {
    traced(1, "mptcp")
}

fn second() -> Traced {
    traced(2, "tcp")
}

#[test]
fn agreement_is_found_also_when_the_questions_were_written_down_in_another_order() {
    let lines = || vec![first(), second()];
    assert_eq!(wrong(vec![one(), two()], lines(), &[]), NONE);
    assert_eq!(wrong(vec![two(), one()], lines(), &[]), NONE);
}

#[test]
fn missing_doubled_swapped_and_foreign_lines_are_found_and_only_they() {
    let both = || vec![one(), two()];
    assert_eq!(wrong(both(), vec![first()], &[]), ["case-2"]);
    assert_eq!(wrong(both(), vec![second()], &[]), ["case-1"]);
    let doubled = vec![first(), first(), second()];
    assert_eq!(wrong(both(), doubled, &[]), ["extra"]);
    let doubled = vec![first(), second(), second()];
    assert_eq!(wrong(both(), doubled, &[]), ["extra"]);
    let swapped = vec![second(), first()];
    assert!(!wrong(both(), swapped, &[]).is_empty());
    let stranger = Traced {
        inode: Some(9),
        ..first()
    };
    let foreign = vec![first(), stranger, second()];
    assert_eq!(wrong(both(), foreign, &[]), ["extra"]);
    for thread in [Traced { tid: 9, ..second() }, Traced { pid: 9, ..second() }] {
        let cells = wrong(both(), vec![first(), thread], &[]);
        assert_eq!(cells, ["case-2", "extra"]);
    }
}

#[test]
fn every_field_that_differs_is_found() {
    type Spoil = fn(&mut Traced);
    let spoils: [Spoil; 12] = [
        |line| line.answer = Some("tcp".into()),
        |line| line.answer = None,
        |line| line.errno = Some("EINVAL".into()),
        |line| line.local = endpoint(9),
        |line| line.remote = endpoint(9),
        |line| line.rung = "kprobe".into(),
        |line| line.protocol = "tcp".into(),
        |line| line.fell_back = None,
        |line| line.fell_back = Some(true),
        |line| line.family = "ipv6".into(),
        |line| line.state = "CLOSE".into(),
        |line| line.inode = None,
    ];
    for spoil in spoils {
        let mut line = first();
        spoil(&mut line);
        let shown = format!("{line:?}");
        assert_eq!(wrong(vec![one()], vec![line], &[]), ["case-1"], "{shown}");
    }
}

#[test]
fn a_socket_without_a_peer_must_not_be_given_one_unless_it_is_connecting_there() {
    let alone = || Asked {
        remote: Some(endpoint(0)),
        ..one()
    };
    let with = |port| {
        vec![Traced {
            remote: endpoint(port),
            ..first()
        }]
    };
    assert_eq!(wrong(vec![alone()], with(0), &[]), NONE);
    assert_eq!(wrong(vec![alone()], with(2), &[]), ["case-1"]);
    let connecting = || Asked {
        connecting_to: Some(endpoint(2)),
        ..alone()
    };
    assert_eq!(wrong(vec![connecting()], with(0), &[]), NONE);
    assert_eq!(wrong(vec![connecting()], with(2), &[]), NONE);
    assert_eq!(wrong(vec![connecting()], with(3), &[]), ["case-1"]);
}

#[test]
fn what_is_no_query_has_no_line() {
    for truth in [Truth::OtherSocket, Truth::OtherOption] {
        let no_query = || Asked { truth, ..one() };
        assert_eq!(wrong(vec![no_query()], vec![], &[]), NONE);
        assert_eq!(wrong(vec![no_query()], vec![first()], &[]), ["case-1"]);
        let then_two = vec![no_query(), two()];
        assert_eq!(wrong(then_two, vec![second()], &[]), NONE);
    }
}

#[test]
fn a_case_that_the_kernel_did_not_let_happen_is_not_taken_for_right() {
    // The connection should have fallen back and did not, although the tracer agrees with the
    // answer.
    let never_fell = Asked {
        fell_back: true,
        ..one()
    };
    let line = Traced {
        fell_back: Some(true),
        ..first()
    };
    assert_eq!(wrong(vec![never_fell], vec![line], &[])[0], "case-1");
    let errno = |errno: &str| Some(errno.to_owned());
    let unsupported = |told: &str, fell_back| Asked {
        truth: Truth::Unsupported,
        rc: -1,
        errno: errno(told),
        fell_back,
        ..one()
    };
    let line = |told: &str, fell_back| Traced {
        answer: Some("unsupported".into()),
        errno: errno(told),
        fell_back: Some(fell_back),
        ..first()
    };
    for (told, fell_back, right) in [
        ("EOPNOTSUPP", false, true),
        ("ENOPROTOOPT", true, true),
        ("ENOPROTOOPT", false, false),
        ("EOPNOTSUPP", true, false),
    ] {
        let asked = vec![unsupported(told, fell_back)];
        let cells = wrong(asked, vec![line(told, fell_back)], &[]);
        assert_eq!(cells.is_empty(), right, "{told} {fell_back}");
    }
}

#[test]
fn a_case_that_cannot_be_made_is_skipped_with_its_reason() {
    let skipped = AskerLine::Skipped {
        case: "case".into(),
        why: "no TUN".into(),
    };
    let cells = compare("fexit", &[skipped], &[]);
    assert_eq!(cells[0].outcome, Outcome::Skipped);
    assert_eq!(cells[0].why, "no TUN");
}

#[test]
fn counters_that_do_not_add_up_or_tell_of_losses_are_a_mismatch() {
    let outcome = |losses: Vec<Losses>| {
        let end = End {
            routine: 0,
            findings: 0,
            losses,
            reconciliation: Vec::new(),
            path_reconciliation: Vec::new(),
        };
        identity("fexit", 0, &[&end]).outcome
    };
    type Spoil = fn(&mut Losses);
    let spoils: [Spoil; 7] = [
        |losses| losses.seen = 1,
        |losses| (losses.seen, losses.ring_full) = (1, 1),
        |losses| (losses.seen, losses.faulted) = (1, 1),
        |losses| (losses.seen, losses.table_full) = (1, 1),
        |losses| (losses.seen, losses.unfinished) = (1, 1),
        |losses| losses.missed = 1,
        // A record without a line.
        |losses| (losses.seen, losses.emitted) = (1, 1),
    ];
    for spoil in spoils {
        let mut losses = Losses::default();
        spoil(&mut losses);
        let shown = format!("{losses:?}");
        assert_eq!(outcome(vec![losses]), Outcome::Mismatch, "{shown}");
    }
    // A missed run of a probe of the other sensor is not a lost query.
    let other = Losses {
        sensor: "fallback".to_owned(),
        missed: 1,
        ..Losses::default()
    };
    assert_eq!(outcome(vec![other]), Outcome::Ok);
    let of_paths = |missed| Losses {
        sensor: "subflow".to_owned(),
        missed,
        ..Losses::default()
    };
    assert_eq!(outcome(vec![of_paths(3)]), Outcome::Ok);
    assert_eq!(outcome(vec![of_paths(4)]), Outcome::Mismatch);
    assert_eq!(outcome(vec![]), Outcome::Mismatch);
    assert_eq!(outcome(vec![Losses::default()]), Outcome::Ok);
    assert_eq!(
        outcome(vec![Losses {
            seen: 7,
            filtered: 7,
            ..Losses::default()
        }]),
        Outcome::Ok
    );
    assert_eq!(identity("fexit", 0, &[]).outcome, Outcome::Mismatch);
}
