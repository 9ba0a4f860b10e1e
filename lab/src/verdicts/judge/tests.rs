use std::collections::BTreeSet;

use super::{super::scenarios::client, *};
use crate::{
    option::{CHOICES, Choice},
    recipes::{Aim, Held},
    report::Outcome,
    traced::{Denied, DeniedOption, Found, Owner, Sensor, Start},
};

const NEAR: u64 = 101;
const FAR: u64 = 102;
const CLIENT_PID: u32 = 11;
const SERVER_PID: u32 = 12;
const SINCE_NS: u64 = 50;
const SYN_ACK: &str = "MPCapableFallbackSYNACK";

fn endpoint(host: u8, port: u16) -> Endpoint {
    Endpoint {
        addr: format!("10.77.0.{host}"),
        port,
    }
}

fn row(told: &'static [&'static str], at_end: Option<&'static str>) -> Expected {
    Expected {
        told,
        at_end,
        ..client(told, &[SYN_ACK])
    }
}

fn acted(expected: &[Expected]) -> Acted {
    let mut scene = Scene::new("scenario", Family::V4);
    scene.namespaces = Namespaces {
        near: NEAR,
        far: FAR,
    };
    scene.since_ns = SINCE_NS;
    Acted {
        scene,
        cast: vec![(Who::Client, CLIENT_PID), (Who::Server, SERVER_PID)],
        connections: vec![(endpoint(1, 40_000), endpoint(2, 80))],
        expected: expected.to_vec(),
        tried: Vec::new(),
        off_ms: &[],
    }
}

fn query(verdict: &str) -> Traced {
    let speaks_of_fallback = ["explained", "misled"].contains(&verdict);
    Traced {
        boottime_ns: SINCE_NS,
        id: Some("client".into()),
        socket: "0x1".into(),
        netns: NEAR,
        pid: CLIENT_PID,
        tid: CLIENT_PID,
        local: endpoint(1, 40_000),
        remote: endpoint(2, 80),
        verdict: Some(verdict.into()),
        why: Some("because".into()),
        cause: speaks_of_fallback.then(|| SYN_ACK.into()),
        delay_ns: speaks_of_fallback.then_some(5),
        ..Traced::default()
    }
}

fn closing(verdict: &str, queries: u64) -> Concluded {
    let was_asked = queries > 0;
    Concluded {
        id: "client".into(),
        verdict: verdict.into(),
        why: "because".into(),
        cause: Some(SYN_ACK.into()),
        fell_back_at_ns: Some(100),
        delay_ns: was_asked.then_some(40),
        closed_by: "death".into(),
        queries,
        answered_at_ns: was_asked.then_some(60),
        owner: Some(Owner {
            pid: CLIENT_PID,
            comm: "lab-client".into(),
            via: "query".into(),
        }),
        netns: NEAR,
        local: endpoint(1, 40_000),
        remote: endpoint(2, 80),
        ..Concluded::default()
    }
}

fn asked(lines: &[Traced]) -> Vec<TracedLine> {
    let line = |line: &Traced| TracedLine::Query(Box::new(line.clone()));
    lines.iter().map(line).collect()
}

fn closed(line: Concluded) -> TracedLine {
    TracedLine::Verdict(Box::new(line))
}

fn outcome(acted: &Acted, lines: &[TracedLine]) -> Outcome {
    let cells = judge("fexit", true, std::slice::from_ref(acted), lines, &[]);
    assert_eq!(cells.len(), 1);
    cells[0].outcome
}

/// The lines of a connection that was queried while it was MPTCP and fell back later.
fn stale() -> Vec<TracedLine> {
    let mut lines = asked(&[query("still-mptcp"), query("still-mptcp")]);
    lines.push(closed(closing("stale", 2)));
    lines
}

#[test]
fn the_right_verdicts_are_right() {
    let check = |row: Expected, lines: &[TracedLine]| {
        assert_eq!(outcome(&acted(&[row]), lines), Outcome::Ok, "{row:?}");
    };
    check(row(&["still-mptcp"], Some("stale")), &stale());
    check(
        row(&["still-mptcp", "explained"], None),
        &asked(&[
            query("still-mptcp"),
            query("still-mptcp"),
            query("explained"),
        ]),
    );
    check(
        row(&[], Some("never-asked")),
        &[closed(closing("never-asked", 0))],
    );
    check(row(&[], None), &[]);
}

#[test]
fn a_wrong_verdict_one_too_many_and_one_that_is_missing_are_found() {
    let check = |row: Expected, lines: &[TracedLine]| {
        assert_eq!(
            outcome(&acted(&[row]), lines),
            Outcome::Mismatch,
            "{lines:?}"
        );
    };
    let expected = row(&["still-mptcp"], Some("stale"));
    check(expected, &[]);
    // No closing verdict; nothing else; a wrong one, or two.
    check(expected, &stale()[..2]);
    check(expected, &[closed(closing("stale", 0))]);
    let mut lines = stale();
    lines[2] = closed(closing("still-mptcp", 2));
    check(expected, &lines);
    let mut lines = stale();
    lines.push(closed(closing("stale", 2)));
    check(expected, &lines);
    // A wrong verdict on one answer, in the middle or at the end.
    let mut lines = stale();
    lines.insert(1, TracedLine::Query(Box::new(query("contradicted"))));
    check(expected, &lines);
    check(row(&["still-mptcp"], None), &asked(&[query("too-early")]));
    check(row(&["still-mptcp"], None), &stale());
    check(
        row(&["still-mptcp", "explained"], None),
        &asked(&[query("explained"), query("still-mptcp")]),
    );
    // An answer without a verdict.
    let unjudged = Traced {
        verdict: None,
        why: None,
        ..query("still-mptcp")
    };
    check(row(&["still-mptcp"], None), &asked(&[unjudged]));
}

#[test]
fn a_line_about_a_socket_that_nobody_asked_about_is_one_too_many_where_the_scenario_is_played() {
    let elsewhere = |netns: u64| Traced {
        id: Some("another".into()),
        netns,
        local: endpoint(1, 9),
        ..query("plain-tcp")
    };
    let check = |netns: u64, want: Outcome| {
        let mut lines = stale();
        lines.extend(asked(&[elsewhere(netns)]));
        let expected = row(&["still-mptcp"], Some("stale"));
        assert_eq!(outcome(&acted(&[expected]), &lines), want, "{netns}");
    };
    check(NEAR, Outcome::Mismatch);
    check(FAR, Outcome::Mismatch);
    // The earlier namespace with this number is another one.
    let earlier = Traced {
        boottime_ns: SINCE_NS - 1,
        ..elsewhere(NEAR)
    };
    let closed = Concluded {
        id: format!("0x1@{}", SINCE_NS - 1),
        ..closing("never-asked", 0)
    };
    let mut lines = stale();
    lines.extend(asked(&[earlier]));
    lines.push(TracedLine::Verdict(Box::new(closed)));
    let expected = row(&["still-mptcp"], Some("stale"));
    assert_eq!(outcome(&acted(&[expected]), &lines), Outcome::Ok);
    check(103, Outcome::Ok);
}

#[test]
fn what_stands_beside_the_word_is_compared_too() {
    let expected = row(&["still-mptcp"], Some("stale"));
    let check = |change: &dyn Fn(&mut Concluded)| {
        let mut line = closing("stale", 2);
        change(&mut line);
        let mut lines = stale();
        lines[2] = closed(line.clone());
        let got = outcome(&acted(&[expected]), &lines);
        assert_eq!(got, Outcome::Mismatch, "{line:?}");
    };
    check(&|line| line.cause = None);
    check(&|line| line.cause = Some("DssFallback".into()));
    check(&|line| line.why.clear());
    check(&|line| line.queries = 1);
    check(&|line| line.delay_ns = Some(41));
    check(&|line| line.delay_ns = None);
    check(&|line| line.fell_back_at_ns = None);
    check(&|line| line.closed_by = "eviction".into());
    check(&|line| line.owner = None);
    check(&|line| line.owner.as_mut().unwrap().pid = SERVER_PID);
    check(&|line| {
        // The query came after the fallback.
        line.answered_at_ns = Some(140);
    });

    let check = |line: Traced| {
        let told: &'static [&'static str] = match line.verdict.as_deref() {
            Some("explained") => &["explained"],
            _ => &["still-mptcp"],
        };
        let expected = row(told, None);
        let got = outcome(&acted(&[expected]), &asked(std::slice::from_ref(&line)));
        assert_eq!(got, Outcome::Mismatch, "{line:?}");
    };
    check(Traced {
        cause: Some("DssFallback".into()),
        ..query("explained")
    });
    check(Traced {
        delay_ns: None,
        ..query("explained")
    });
    check(Traced {
        why: None,
        ..query("explained")
    });
    check(Traced {
        cause: Some(SYN_ACK.into()),
        ..query("still-mptcp")
    });
}

#[test]
fn a_kernel_without_the_option_must_say_so_each_time() {
    let acted = acted(&[row(&["still-mptcp"], Some("stale"))]);
    let check = |lines: &[TracedLine], want: Outcome| {
        let cells = judge("fexit", false, std::slice::from_ref(&acted), lines, &[]);
        assert_eq!(cells[0].outcome, want, "{lines:?}");
    };
    check(&asked(&[query("unsupported")]), Outcome::Ok);
    check(&asked(&[query("still-mptcp")]), Outcome::Mismatch);
    check(&stale(), Outcome::Mismatch);
    check(&[], Outcome::Mismatch);
}

#[test]
fn a_limit_excuses_the_one_thing_that_may_be_said_instead() {
    let limited = Expected {
        limited: Some(("MPCapableFallbackACK", &["plain-tcp"])),
        ..row(&["explained"], None)
    };
    let start = |limit: &str| {
        TracedLine::Start(Start {
            sensors: vec![Sensor {
                rung: "tracepoint".into(),
                limits: vec![limit.to_owned()],
                probes: Vec::new(),
            }],
            namespaces: BTreeSet::new(),
        })
    };
    let check = |limit: &str, verdict: &str, want: Outcome| {
        let mut lines = vec![start(limit)];
        lines.extend(asked(&[query(verdict)]));
        assert_eq!(
            outcome(&acted(&[limited]), &lines),
            want,
            "{limit} {verdict}"
        );
    };
    let limit = "it is not seen whether it was (MPCapableFallbackACK)";
    check(limit, "plain-tcp", Outcome::Skipped);
    check(limit, "explained", Outcome::Ok);
    check(limit, "unexplained", Outcome::Mismatch);
    check("another one", "plain-tcp", Outcome::Mismatch);
}

#[test]
fn what_the_kernel_did_not_say_as_it_should_have_and_what_cannot_be_played_is_no_success() {
    let expected = row(&["still-mptcp"], Some("stale"));
    let mut wrong = acted(&[expected]);
    wrong.scene.wrong.push("the kernel says 0".into());
    assert_eq!(outcome(&wrong, &stale()), Outcome::Mismatch);
    let mut skipped = acted(&[expected]);
    skipped.scene.skipped = Some("no veth".into());
    assert_eq!(outcome(&skipped, &[]), Outcome::Skipped);
}

#[test]
fn a_line_of_a_type_that_nobody_knows_is_wrong_where_the_scenario_is_played() {
    let check = |netns: u64, want: Outcome| {
        let other = Other {
            kind: "news".into(),
            netns,
        };
        let cells = judge("fexit", true, &[acted(&[])], &[], &[other]);
        assert_eq!(cells[0].outcome, want, "{netns}");
    };
    check(NEAR, Outcome::Mismatch);
    check(103, Outcome::Ok);
}

const MD5SIG: Choice = CHOICES[0];

fn tried(held: Held, told: &str) -> Tried {
    Tried {
        who: Who::Client,
        pid: CLIENT_PID,
        what: Aim::Option {
            choice: MD5SIG,
            held,
            local: endpoint(1, 40_000),
            remote: Some(endpoint(2, 80)),
        },
        told: told.into(),
    }
}

fn denied() -> Denied {
    Denied {
        boottime_ns: SINCE_NS,
        pid: CLIENT_PID,
        tid: CLIENT_PID,
        comm: "lab-client".into(),
        netns: NEAR,
        family: "ipv4".into(),
        errno: "EOPNOTSUPP".into(),
        why: "because".into(),
        rung: "fexit".into(),
        option: Some(DeniedOption {
            call: "setsockopt".into(),
            level: 6,
            optname: 14,
            option: Some("TCP_MD5SIG".into()),
            local: endpoint(1, 40_000),
            remote: endpoint(2, 80),
        }),
    }
}

fn refusals(tried: &[Tried], lines: &[Denied]) -> Outcome {
    let acted = Acted {
        tried: tried.to_vec(),
        ..acted(&[])
    };
    let line = |line: &Denied| match line.option {
        Some(_) => TracedLine::OptionRefused(line.clone()),
        None => TracedLine::SocketRefused(line.clone()),
    };
    outcome(&acted, &lines.iter().map(line).collect::<Vec<_>>())
}

#[test]
fn a_refusal_is_one_line_and_what_is_no_refusal_is_none() {
    let check = |tried: &[Tried], lines: &[Denied], want: Outcome| {
        assert_eq!(refusals(tried, lines), want, "{tried:?} {lines:?}");
    };
    let one = std::slice::from_ref::<Tried>;
    let refused = tried(Held::Mptcp, "EOPNOTSUPP");
    check(one(&refused), &[denied()], Outcome::Ok);
    check(one(&refused), &[], Outcome::Mismatch);
    check(one(&refused), &[denied(), denied()], Outcome::Mismatch);
    let twice = [refused.clone(), refused];
    check(&twice, &[denied(), denied()], Outcome::Ok);
    check(&twice, &[denied()], Outcome::Mismatch);
    for no_news in [
        tried(Held::Mptcp, "ok"),
        tried(Held::Mptcp, "EINVAL"),
        tried(Held::Tcp, "EOPNOTSUPP"),
        tried(Held::Tcp, "ENOPROTOOPT"),
    ] {
        check(one(&no_news), &[], Outcome::Ok);
        check(one(&no_news), &[denied()], Outcome::Mismatch);
    }
    let elsewhere = Denied {
        netns: 103,
        ..denied()
    };
    check(&[], &[elsewhere], Outcome::Ok);
    let earlier = Denied {
        boottime_ns: SINCE_NS - 1,
        ..denied()
    };
    check(&[], &[earlier], Outcome::Ok);
}

#[test]
fn every_field_of_a_refusal_is_compared_with_what_the_application_knows() {
    let check = |change: &dyn Fn(&mut Denied)| {
        let mut line = denied();
        change(&mut line);
        let got = refusals(&[tried(Held::Mptcp, "EOPNOTSUPP")], &[line.clone()]);
        assert_eq!(got, Outcome::Mismatch, "{line:?}");
    };
    check(&|line| line.pid = SERVER_PID);
    check(&|line| line.tid = 1);
    check(&|line| line.comm = "lab-server".into());
    check(&|line| line.netns = FAR);
    check(&|line| line.family = "ipv6".into());
    check(&|line| line.errno = "ENOPROTOOPT".into());
    check(&|line| line.why.clear());
    check(&|line| line.rung = "kprobe".into());
    check(&|line| line.option = None);
    let of_option = |change: &dyn Fn(&mut DeniedOption)| {
        check(&|line| change(line.option.as_mut().unwrap()));
    };
    of_option(&|option| option.call = "getsockopt".into());
    of_option(&|option| option.level = 0);
    of_option(&|option| option.optname = 31);
    of_option(&|option| option.option = None);
    of_option(&|option| option.local = endpoint(1, 9));
    of_option(&|option| option.remote = endpoint(2, 9));
}

#[test]
fn a_socket_that_was_refused_is_one_line_too() {
    let no_socket = Tried {
        what: Aim::Socket,
        ..tried(Held::Mptcp, "ENOPROTOOPT")
    };
    let line = Denied {
        errno: "ENOPROTOOPT".into(),
        option: None,
        ..denied()
    };
    let check = |lines: &[Denied], want: Outcome| {
        assert_eq!(refusals(std::slice::from_ref(&no_socket), lines), want);
    };
    check(std::slice::from_ref(&line), Outcome::Ok);
    check(&[], Outcome::Mismatch);
    check(&[line.clone(), line.clone()], Outcome::Mismatch);
    check(&[denied()], Outcome::Mismatch);
    let another_rung = Denied {
        rung: "another".into(),
        ..line.clone()
    };
    check(&[another_rung], Outcome::Mismatch);
    let another_errno = Denied {
        errno: "EPERM".into(),
        ..line
    };
    check(&[another_errno], Outcome::Mismatch);
}

#[test]
fn mptcp_is_off_as_often_and_for_as_long_as_it_must_be() {
    let off = Acted {
        off_ms: &[60_000],
        ..acted(&[])
    };
    let line = |netns: u64, off_ms: Option<u64>| {
        TracedLine::Blackhole(Box::new(Found {
            id: "client".into(),
            off_ms,
            netns,
            ..Found::default()
        }))
    };
    let check = |lines: &[TracedLine], want: Outcome| {
        assert_eq!(outcome(&off, lines), want, "{lines:?}");
    };
    check(&[line(NEAR, Some(60_000))], Outcome::Ok);
    check(&[line(NEAR, None)], Outcome::Ok);
    check(&[line(NEAR, Some(3_600_000))], Outcome::Mismatch);
    check(&[line(FAR, Some(60_000))], Outcome::Mismatch);
    check(&[line(103, Some(60_000))], Outcome::Mismatch);
    check(&[], Outcome::Mismatch);
    check(&[line(NEAR, None), line(NEAR, None)], Outcome::Mismatch);
    assert_eq!(outcome(&acted(&[]), &[line(NEAR, None)]), Outcome::Mismatch);
}
