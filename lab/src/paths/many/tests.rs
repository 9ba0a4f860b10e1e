use std::collections::BTreeMap;

use super::{app::Made, judge, *};
use crate::{
    net::Endpoint,
    report::Outcome,
    traced::{ClosedLine, End as EndLine, LedgerLine, Losses, Owner, PathLine, TracedLine},
};

const NETNS: [u64; 2] = [101, 102];
const SERVER_PID: u32 = 9;
const BYTES: u64 = 300;
/// When the two connections were open.
const DURING_NS: [[u64; 2]; 2] = [[100, 150], [160, 200]];

fn endpoint(addr: &str, port: u16) -> Endpoint {
    Endpoint {
        addr: addr.to_owned(),
        port,
    }
}

/// A connection from this port with two joins.
fn made((during_ns, port): ([u64; 2], u16)) -> Made {
    let server = endpoint("10.77.0.2", 80);
    let local = endpoint("10.77.0.1", port);
    let path = |addr, more| (endpoint(addr, port + more), server.clone());
    Made {
        paths: vec![
            (local.clone(), server.clone()),
            path("10.77.0.3", 1),
            path("10.77.0.4", 2),
        ],
        local,
        remote: server,
        during_ns,
        bytes_sent: BYTES,
        bytes_received: BYTES,
        bytes_resent: Some(0),
    }
}

/// Two processes with a connection each through the first ward, one after the other.
fn crowd(is_short: bool, [first, second]: [u16; 2]) -> Crowd {
    let made = [(DURING_NS[0], first), (DURING_NS[1], second)].map(made);
    let swapped = |made: &Made| Made {
        local: made.remote.clone(),
        remote: made.local.clone(),
        paths: Vec::new(),
        ..made.clone()
    };
    let served = made.iter().map(swapped).collect();
    let [first, second] = made;
    let ward = &WARDS[0];
    let grown = [End::Client, End::Server].map(|at| {
        let rows = ward.counted.iter().filter(|(of, _, _)| *of == at);
        rows.map(|(_, name, each)| ((*name).to_owned(), each * 2))
            .collect()
    });
    Crowd {
        ward,
        is_short,
        since_ns: 5,
        netns: NETNS,
        clients: BTreeMap::from([(11, vec![first]), (12, vec![second])]),
        server_pid: SERVER_PID,
        served,
        grown,
    }
}

/// The id of a connection at the client's or the server's end that was created at this time.
fn id(side: usize, birth_ns: u64) -> String {
    format!("{side}@{birth_ns}")
}

/// The lines of a tracer that is right.
fn lines(crowd: &Crowd) -> Vec<TracedLine> {
    let mut lines = Vec::new();
    for (side, netns) in NETNS.into_iter().enumerate() {
        for (client, made) in &crowd.clients {
            let made = &made[0];
            let pid = [*client, SERVER_PID][side];
            let id = id(side, made.during_ns[0] + 10);
            let owner = || {
                Some(Owner {
                    pid,
                    ..Owner::default()
                })
            };
            let line = |cause: &str, number: usize, (local, remote): &(Endpoint, Endpoint)| {
                let (mut local, mut remote) = (local.clone(), remote.clone());
                if side == 1 {
                    std::mem::swap(&mut local, &mut remote);
                }
                let role = if number == 0 { "first" } else { "join" };
                Box::new(PathLine {
                    boottime_ns: 6,
                    id: Some(id.clone()),
                    path_id: Some(format!("{id}-{number}")),
                    role: role.to_owned(),
                    cause: Some(cause.to_owned()),
                    ledger: Some(LedgerLine {
                        bytes_sent: BYTES / 3,
                        bytes_received: BYTES / 3,
                        ..LedgerLine::default()
                    }),
                    owner: owner(),
                    netns,
                    local,
                    remote,
                    ..PathLine::default()
                })
            };
            for (number, path) in made.paths.iter().enumerate() {
                lines.push(TracedLine::PathUp(line("", number, path)));
                lines.push(TracedLine::PathDown(line(
                    "connection-closed",
                    number,
                    path,
                )));
            }
            let cause = ["MPJoinAckRejected", "MPJoinRejected"][side];
            let mut failed = line(cause, 3, &made.paths[0]);
            failed.role = "join".to_owned();
            failed.ledger = None;
            lines.push(TracedLine::PathFailed(failed));
            let [local, remote] = match side {
                0 => [&made.local, &made.remote],
                _ => [&made.remote, &made.local],
            };
            lines.push(TracedLine::Closed(Box::new(ClosedLine {
                boottime_ns: 6,
                id,
                paths_tried: 4,
                paths_up: 3,
                paths_failed: 1,
                bytes_sent: BYTES,
                bytes_received: BYTES,
                owner: owner(),
                netns,
                local: local.clone(),
                remote: remote.clone(),
                ..ClosedLine::default()
            })));
        }
    }
    lines
}

fn path(line: &mut TracedLine) -> &mut PathLine {
    let (TracedLine::PathUp(path) | TracedLine::PathDown(path) | TracedLine::PathFailed(path)) =
        line
    else {
        panic!("{line:?}");
    };
    path
}

const DISTINCT: [u16; 2] = [1_000, 2_000];

#[test]
fn what_is_right_is_ok_also_if_addresses_repeat() {
    for (is_short, ports) in [(false, DISTINCT), (true, DISTINCT), (true, [1_000; 2])] {
        let crowd = crowd(is_short, ports);
        let cell = judge::cell("fexit", &crowd, &lines(&crowd));
        assert_eq!(cell.outcome, Outcome::Ok, "{}", cell.why);
    }
}

#[test]
fn what_is_wrong_in_one_line_or_counter_is_a_mismatch() {
    type Spoil = fn(&mut Vec<TracedLine>, &mut Crowd);
    /// Of the client's first connection: the end of the first path, and the failed join.
    const DOWN: usize = 1;
    const FAILED: usize = 6;
    const CLOSED: usize = 7;
    let rows: [(&str, Spoil); 14] = [
        ("no start", |lines, _| drop(lines.remove(DOWN - 1))),
        ("no end", |lines, _| drop(lines.remove(DOWN))),
        ("no failure", |lines, _| drop(lines.remove(FAILED))),
        ("not closed", |lines, _| drop(lines.remove(CLOSED))),
        ("twice", |lines, _| lines.push(lines[DOWN].clone())),
        ("owner", |lines, _| {
            path(&mut lines[DOWN]).owner.as_mut().unwrap().pid = 12;
        }),
        ("a connection of another time", |_, crowd| {
            let during_ns = &mut crowd.clients.get_mut(&11).unwrap()[0].during_ns;
            *during_ns = [111, 150];
        }),
        ("cause", |lines, _| {
            path(&mut lines[FAILED]).cause = Some("MPJoinSynRefused".to_owned());
        }),
        ("a path of the other connection", |lines, _| {
            path(&mut lines[DOWN + 2]).id = Some(id(0, 170));
        }),
        ("no connection", |lines, _| {
            path(&mut lines[FAILED]).id = None;
        }),
        ("bytes", |lines, _| {
            let ledger = path(&mut lines[DOWN]).ledger.as_mut().unwrap();
            ledger.bytes_sent += 1;
        }),
        ("bytes of the application", |_, crowd| {
            crowd.clients.get_mut(&11).unwrap()[0].bytes_sent += 1;
        }),
        ("bytes of the peer", |_, crowd| {
            crowd.served[0].bytes_sent += 1;
        }),
        ("counter", |_, crowd| {
            *crowd.grown[1].get_mut("MPJoinRejected").unwrap() += 1;
        }),
    ];
    for (name, spoil) in rows {
        let mut crowd = crowd(false, DISTINCT);
        let mut lines = lines(&crowd);
        spoil(&mut lines, &mut crowd);
        let cell = judge::cell("fexit", &crowd, &lines);
        assert_eq!(cell.outcome, Outcome::Mismatch, "{name}");
    }
}

#[test]
fn of_short_connections_lines_may_be_lost_only_if_that_is_counted_and_none_moves() {
    let crowd = crowd(true, DISTINCT);
    let end = |ring_full| {
        TracedLine::End(EndLine {
            losses: vec![Losses {
                sensor: "subflow".to_owned(),
                ring_full,
                ..Losses::default()
            }],
            ..EndLine::default()
        })
    };
    let check = |lines: &[TracedLine], lost, want| {
        let lines = [lines, &[end(lost)]].concat();
        let cell = judge::cell("fexit", &crowd, &lines);
        assert_eq!(cell.outcome, want, "{}", cell.why);
    };
    let all = lines(&crowd);
    let mut fewer = all.clone();
    fewer.drain(2..4);
    check(&all, 0, Outcome::Ok);
    check(&fewer, 1, Outcome::Ok);
    check(&fewer, 0, Outcome::Mismatch);
    let mut moved = all;
    path(&mut moved[3]).id = Some(id(0, 170));
    check(&moved, 1, Outcome::Mismatch);
}
