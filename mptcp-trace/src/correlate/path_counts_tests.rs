//! The kernel's counters of paths compared with what was traced: rows of events and counts.

use std::collections::BTreeMap;

use super::{
    path_counters::COUNTERS,
    path_counts::{PathCounts, path_growth, reconcile_paths},
    *,
};
use crate::model::{
    DecidedBy, Errno, Growth, Loss, LossReport, Path, PathEvent, PathKind, PathRole,
    Reconciliation, Rung, SensorId, SensorState, Side, fixture::a_path,
};

const NETNS: u32 = 7;

fn facts(rung: Rung) -> Facts {
    let functions = ["fexit mptcp_pm_chk_stale", "fentry mptcp_subflow_shutdown"];
    let mut probes: Vec<String> = functions.map(str::to_owned).into();
    for function in COUNTERS.iter().flat_map(|it| it.functions.first()) {
        probes.push(format!("fexit {function}"));
    }
    Facts {
        counters_listed_at: Some((Duration::ZERO, Duration::from_millis(1))),
        sensors: vec![SensorState {
            sensor: SensorId::Subflow,
            rung,
            probes,
            limits: Vec::new(),
        }],
        ..Facts::unknown()
    }
}

fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let counts = counts.iter();
    counts
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

/// The counters of a kernel that has all of them.
fn growth(counted: &[(&str, u64)]) -> Growth {
    let zeros = COUNTERS.iter().map(|counter| (counter.name.to_owned(), 0));
    let mut all: BTreeMap<String, u64> = zeros.collect();
    all.extend(counts(counted));
    Growth {
        before: all.clone(),
        after: all,
    }
}

fn report(counted: &[(&str, u64)]) -> LossReport {
    report_of(NETNS, growth(counted))
}

fn report_of(netns: u32, growth: Growth) -> LossReport {
    LossReport {
        sensors: vec![Loss::none(SensorId::Subflow)],
        counted: vec![Counted {
            netns,
            paths: Some(growth),
            ..Counted::default()
        }],
        paths_under_way: 0,
    }
}

fn join(kind: PathKind, side: Side) -> Path {
    let mut path = a_path(kind);
    path.socket.netns = NETNS;
    path.role = PathRole::Join;
    path.side = Some(side);
    path.was_reported_up = kind != PathKind::Up;
    path.began_at = Some(Duration::from_secs(1));
    path.cause = None;
    path.known = CauseCertainty::Reported;
    path.decided_by = Some(DecidedBy::Peer);
    path.errno = None;
    path
}

fn failed(cause: &'static str) -> Path {
    Path {
        cause: Some(cause.into()),
        ..join(PathKind::Failed, Side::Passive)
    }
}

fn ended(cause: &'static str) -> Path {
    Path {
        cause: Some(cause.into()),
        ..join(PathKind::Down, Side::Passive)
    }
}

fn account(events: &[Path], report: &LossReport, facts: &Facts) -> Vec<Reconciliation> {
    let mut counts = PathCounts::default();
    for event in events {
        counts.record(event, facts);
    }
    reconcile_paths(&counts, report, facts)
}

/// The account of the one namespace: its two sides must be these.
fn agrees(events: &[Path], counted: &[(&str, u64)]) {
    let got = account(events, &report(counted), &facts(Rung::Fexit));
    let [one] = &got[..] else { panic!("{got:?}") };
    assert_eq!((&one.why, one.unread), (&None, false), "{one:?}");
    assert_eq!(one.counted, counts(counted));
    assert_eq!(one.traced, one.counted);
}

#[test]
fn each_event_is_counted_where_the_kernel_counts_it() {
    use PathKind::{Down, Failed, Priority, Recovered, Stale, Up};
    use Side::{Active, Passive};
    const TRIED: (&str, u64) = ("MPJoinSynTx", 1);
    const ANSWERED: (&str, u64) = ("MPJoinSynAckRx", 1);
    let active = |cause: &'static str| Path {
        side: Some(Active),
        ..failed(cause)
    };
    agrees(&[join(Up, Active)], &[TRIED, ANSWERED]);
    agrees(&[join(Up, Passive)], &[("MPJoinAckRx", 1)]);
    // A path is counted once, whichever of its events is reported.
    agrees(
        &[join(Up, Passive), join(Down, Passive)],
        &[("MPJoinAckRx", 1)],
    );
    let unreported = Path {
        was_reported_up: false,
        ..join(Down, Passive)
    };
    agrees(&[unreported], &[("MPJoinAckRx", 1)]);
    agrees(&[active("MPJoinSynTimeout")], &[TRIED]);
    agrees(&[active("MPJoinAckRejected")], &[TRIED, ANSWERED]);
    agrees(
        &[active("MPJoinSynAckNoMPJoin")],
        &[TRIED, ("MPJoinSynAckNoMPJoin", 1)],
    );
    let without_socket = Path {
        path: None,
        ..active("MPJoinSynTxBindErr")
    };
    agrees(&[without_socket], &[("MPJoinSynTxBindErr", 1)]);
    for cause in [
        "MPJoinNoTokenFound",
        "MPJoinAckHMacFailure",
        "MPJoinAckNoMPJoin",
        "MPJoinRejected",
        "MismatchPortSynRx",
        "MismatchPortAckRx",
    ] {
        agrees(&[failed(cause), failed(cause)], &[(cause, 2)]);
    }
    agrees(&[ended("removed")], &[("RmSubflow", 1)]);
    agrees(&[join(Priority, Passive)], &[("MPPrioRx", 1)]);
    agrees(&[join(Stale, Active)], &[("SubflowStale", 1)]);
    agrees(&[join(Recovered, Active)], &[("SubflowRecover", 1)]);
    // Neither counts these.
    for event in [
        ended("peer-closed"),
        failed("MPJoinFourthAckMissing"),
        Path {
            path: None,
            errno: Some(Errno::ENOTCONN),
            ..active("MPJoinNotEstablished")
        },
        Path {
            decided_by: Some(DecidedBy::Here),
            ..join(Priority, Active)
        },
        Path {
            role: PathRole::First,
            ..join(Up, Active)
        },
    ] {
        let got = account(
            std::slice::from_ref(&event),
            &report(&[]),
            &facts(Rung::Fexit),
        );
        assert_eq!(got, [], "{event:?}");
    }
    let _all_are_in_use = Failed;
}

#[test]
fn a_wrong_hmac_of_a_syn_ack_counts_in_either_of_two_counters() {
    let wrong = || failed("MPJoinSynAckHMacFailure");
    let facts = facts(Rung::Fexit);
    for (name, agrees) in [
        ("MPJoinSynAckHMacFailure", true),
        ("MPJoinAckHMacFailure", true),
        ("MPJoinAckNoMPJoin", false),
    ] {
        let got = account(&[wrong()], &report(&[(name, 1)]), &facts);
        assert_eq!(got[0].agrees(), agrees, "{got:?}");
    }
}

#[test]
fn a_difference_is_named_and_agrees_only_if_its_reasons_are_enough() {
    let up = join(PathKind::Up, Side::Active);
    let refused = failed("MPJoinRejected");
    let inferred = Path {
        known: CauseCertainty::Inferred,
        ..refused.clone()
    };
    let existing = Path {
        existing: true,
        ..up.clone()
    };
    let counts: &[(&str, u64)] = &[("MPJoinSynTx", 2), ("MPJoinSynAckRx", 1)];
    let quiet = || report(counts);
    let loss = |loss: Loss| LossReport {
        sensors: vec![loss],
        ..quiet()
    };
    let none = || Loss::none(SensorId::Subflow);
    for (events, report, rung, agrees, says) in [
        (
            vec![up.clone()],
            quiet(),
            Rung::Fexit,
            false,
            "MPJoinSynTx: kernel counted 2, traced 1",
        ),
        // Every attach method sees the states of a path.
        (
            vec![up.clone()],
            quiet(),
            Rung::Tracepoint,
            false,
            "MPJoinSynTx: kernel counted 2, traced 1",
        ),
        (
            vec![up.clone()],
            LossReport {
                paths_under_way: 1,
                ..quiet()
            },
            Rung::Fexit,
            true,
            "traced 1 (1 paths under way)",
        ),
        (
            vec![up.clone()],
            loss(Loss {
                capped: 5,
                ..none()
            }),
            Rung::Fexit,
            true,
            "(5 capped)",
        ),
        (
            vec![up.clone()],
            loss(Loss {
                over_share: 1,
                ..none()
            }),
            Rung::Fexit,
            true,
            "(1 not tracked)",
        ),
        (
            vec![existing, up.clone()],
            quiet(),
            Rung::Kprobe,
            true,
            "(1 joins that began before tracing)",
        ),
        // Nothing lost explains that more was traced.
        (
            vec![up.clone(), up.clone(), up.clone()],
            loss(Loss {
                capped: 5,
                ..none()
            }),
            Rung::Fexit,
            false,
            "MPJoinSynTx: kernel counted 2, traced 3; MPJoinSynAckRx: kernel counted 1, traced 3",
        ),
        (
            vec![up.clone(), refused.clone()],
            report(&[("MPJoinSynTx", 1), ("MPJoinSynAckRx", 1)]),
            Rung::Fexit,
            false,
            "MPJoinRejected: kernel counted 0, traced 1",
        ),
        (
            vec![up.clone(), refused],
            report(&[("MPJoinSynTx", 1), ("MPJoinSynAckRx", 1)]),
            Rung::Tracepoint,
            true,
            "(the attach method tracepoint does not see all of these)",
        ),
        (
            vec![up.clone(), inferred],
            report(&[
                ("MPJoinSynTx", 1),
                ("MPJoinSynAckRx", 1),
                ("MPJoinAckNoMPJoin", 1),
            ]),
            Rung::Fexit,
            true,
            "MPJoinAckNoMPJoin: kernel counted 1, traced 0 (1 with an inferred cause)",
        ),
        // Two are more than one.
        (
            vec![up],
            LossReport {
                paths_under_way: 1,
                ..report(&[("MPJoinSynTx", 3), ("MPJoinSynAckRx", 1)])
            },
            Rung::Fexit,
            false,
            "MPJoinSynTx: kernel counted 3, traced 1 (1 paths under way)",
        ),
    ] {
        let got = account(&events, &report, &facts(rung));
        let [one] = &got[..] else { panic!("{got:?}") };
        let why = one.why.as_deref().unwrap();
        assert!(why.contains(says), "{why}");
        assert_eq!((one.agrees(), one.unread), (agrees, false), "{why}");
    }
}

#[test]
fn a_function_that_is_not_probed_explains_what_it_would_show() {
    let counted = report(&[("MPPrioRx", 1), ("MPJoinAckRx", 1)]);
    let up = join(PathKind::Up, Side::Passive);
    for (function, agrees) in [
        ("mptcp_pm_mp_prio_received", true),
        ("mptcp_subflow_shutdown", false),
    ] {
        let mut facts = facts(Rung::Fexit);
        facts.sensors[0]
            .probes
            .retain(|probe| !probe.ends_with(function));
        let got = account(std::slice::from_ref(&up), &counted, &facts);
        assert_eq!(got[0].agrees(), agrees, "{function}: {got:?}");
    }
}

#[test]
fn what_this_kernel_does_not_count_is_not_compared() {
    let mut growth = growth(&[]);
    growth.before.remove("MPJoinRejected");
    let events = [failed("MPJoinRejected")];
    let got = account(&events, &report_of(NETNS, growth), &facts(Rung::Fexit));
    assert_eq!(got, []);
}

#[test]
fn counters_that_could_not_be_read_are_no_disagreement() {
    let up = join(PathKind::Up, Side::Passive);
    let with_fexit = facts(Rung::Fexit);
    let gone = report_of(NETNS + 1, growth(&[]));
    let known_at_start = Facts {
        counters_at_start: [(5, BTreeMap::new())].into(),
        ..facts(Rung::Fexit)
    };
    let of_five = Path {
        netns_cookie: 5,
        ..up.clone()
    };
    let counted = || report(&[("MPJoinAckRx", 9)]);
    for (path, report, facts, says) in [
        (&up, gone, &with_fexit, "the namespace is gone"),
        // Else it would have counted something.
        (&up, report(&[]), &with_fexit, "another namespace"),
        (&of_five, counted(), &known_at_start, "when tracing began"),
    ] {
        let got = account(std::slice::from_ref(path), &report, facts);
        let [one] = &got[..] else { panic!("{got:?}") };
        assert!(one.unread && !one.differs(), "{one:?}");
        assert!(one.why.as_ref().unwrap().contains(says), "{one:?}");
        assert_eq!(one.traced["MPJoinAckRx"], 1);
        let left_out = Path {
            admitted: false,
            ..path.clone()
        };
        assert_eq!(account(&[left_out], &report, facts), []);
    }
    // The filter leaves out lines, and no counts.
    let left_out = Path {
        admitted: false,
        ..up.clone()
    };
    let got = account(&[left_out], &report(&[("MPJoinAckRx", 2)]), &with_fexit);
    assert!(got[0].differs(), "{got:?}");
    // A capture of an older version.
    let mut old = report(&[]);
    old.counted[0].paths = None;
    assert_eq!(account(&[up], &old, &with_fexit), []);
}

#[test]
fn what_happened_while_the_counters_were_read_may_be_in_both() {
    let at = |ms| Duration::from_millis(ms);
    let facts = Facts {
        counters_read_at: [(NETNS, (at(10), at(20)))].into(),
        ..facts(Rung::Fexit)
    };
    for (began, came_up, counted, agrees) in [
        // Before.
        (1, 5, 0, true),
        (1, 5, 1, false),
        // Perhaps.
        (5, 15, 0, true),
        (5, 15, 1, true),
        (15, 16, 1, true),
        (5, 30, 0, true),
        // Certainly not.
        (25, 30, 1, true),
        (25, 30, 2, false),
    ] {
        let path = Path {
            at: at(came_up),
            began_at: Some(at(began)),
            ..join(PathKind::Up, Side::Passive)
        };
        let mut counts = vec![("MPPrioRx", 1)];
        if counted > 0 {
            counts.push(("MPJoinAckRx", counted));
        }
        let prio = Path {
            at: at(40),
            ..join(PathKind::Priority, Side::Passive)
        };
        let got = account(&[path, prio], &report(&counts), &facts);
        assert_eq!(got[0].agrees(), agrees, "{began} {counted}: {got:?}");
    }
}

#[test]
fn a_path_that_the_peer_removed_is_not_counted_as_removed_here() {
    let facts = facts(Rung::Fexit);
    let mut correlator = Correlator::default();
    let mut ready = Vec::new();
    let id = ConnectionId {
        socket: crate::model::SocketId(9),
        born_at: Duration::ZERO,
        attempt: 0,
    };
    let address = Path {
        removed_ids: vec![3],
        connection: Some(id),
        ..join(PathKind::AddressRemoved, Side::Passive)
    };
    let removed = |remote_id| Path {
        remote_id: Some(remote_id),
        connection: Some(id),
        ..ended("removed")
    };
    for path in [address, removed(3), removed(4)] {
        let event = PathEvent {
            time: UNIX_EPOCH,
            path,
            place: crate::model::Place::default(),
            of_connection: None,
            packet: None,
        };
        correlator.take(Event::Path(Box::new(event)), &facts, &mut ready);
    }
    correlator.cut_off(&facts, &mut ready);
    let got = reconcile_paths(
        correlator.path_counts(),
        &report(&[("RmSubflow", 1)]),
        &facts,
    );
    assert!(got[0].why.is_none(), "{got:?}");
}

#[test]
fn the_counters_of_paths_that_this_kernel_has_are_kept() {
    let before = counts(&[("MPJoinSynTx", 3), ("MPJoinAckRx", 2), ("DssFallback", 1)]);
    let after = counts(&[("MPJoinSynTx", 5), ("MPJoinAckRx", 2), ("DssFallback", 4)]);
    assert_eq!(
        path_growth(Some(&before), &after),
        counts(&[("MPJoinSynTx", 2), ("MPJoinAckRx", 0)])
    );
    let after = path_growth(None, &after);
    assert_eq!(after, counts(&[("MPJoinSynTx", 5), ("MPJoinAckRx", 2)]));
}

#[test]
fn the_account_of_a_namespace_that_is_gone_is_dropped() {
    let facts = facts(Rung::Fexit);
    let up = join(PathKind::Up, Side::Passive);
    let mut counts = PathCounts::default();
    counts.record(&up, &facts);
    let (here, elsewhere) = (report(&[]), report_of(NETNS + 1, growth(&[])));
    for (report, later, left) in [(&elsewhere, 0, 1), (&here, 1, 1), (&elsewhere, 1, 0)] {
        counts.forget_gone(&report.counted, up.at + Duration::from_secs(later));
        assert_eq!(reconcile_paths(&counts, &elsewhere, &facts).len(), left);
    }
}

#[test]
fn every_function_that_a_counter_needs_is_one_that_is_probed() {
    let probed = crate::probes::functions();
    for counter in COUNTERS {
        for function in counter.functions {
            assert!(probed.contains(function), "{}: {function}", counter.name);
        }
    }
}
