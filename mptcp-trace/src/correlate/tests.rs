//! Waiting and filtering: rows of events.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::SystemTime,
};

use super::*;
use crate::model::{
    CauseCertainty, Change, ChangeEvent, ChangeKind, Connection, ConnectionId, Event, Family,
    Owner, Place, Process, Protocol, Rung, SensorId, SensorState, Side, Socket, SocketId, TcpState,
    Via,
};

pub(super) const NETNS: u32 = 7;

pub(super) fn owner(pid: u32, via: Via) -> Owner {
    Owner {
        process: Process {
            pid: Some(pid),
            tid: Some(pid),
            host_pid: pid,
            host_tid: pid,
            uid: 0,
            cgroup_id: 1,
            comm: format!("p{pid}"),
        },
        via,
    }
}

pub(super) fn connection(kind: ConnectionKind, at_ms: u64, address: u64) -> Connection {
    let nowhere: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
    Connection {
        kind,
        at: Duration::from_millis(at_ms),
        id: ConnectionId {
            socket: SocketId(address),
            born_at: Duration::from_nanos(1),
            attempt: 0,
        },
        socket: Socket {
            id: SocketId(address),
            inode: None,
            netns: NETNS,
            protocol: Protocol::Mptcp,
            family: Family::Ipv4,
            state: TcpState(1),
            local: nowhere,
            remote: nowhere,
        },
        netns_cookie: 0,
        owner: Some(owner(1, Via::Listener)),
        unaccepted: false,
        admitted: true,
        cause: Some("DssFallback".into()),
        known: CauseCertainty::Reported,
        side: Some(Side::Passive),
        stage: None,
        since_connect: None,
        bytes: None,
        subflows: None,
        evidence: Vec::new(),
        existing: false,
        query_untraced: false,
        connecting: false,
        fell_back: Some(true),
        late: false,
        current: crate::model::Current::default(),
        off_for: None,
        marks: crate::model::Marks::default(),
        rung: Rung::Fexit,
    }
}

pub(super) fn facts() -> Facts {
    let causes = [
        "MPTCP_MIB_DSSFALLBACK",
        "MPTCP_MIB_MPCAPABLEPASSIVEFALLBACK",
    ];
    Facts {
        version: String::new(),
        kernel: String::new(),
        boot_epoch: Duration::ZERO,
        fallback_bit: None,
        causes: (0..).zip(causes.map(str::to_owned)).collect(),
        counters_read_at: BTreeMap::from([(
            NETNS,
            (Duration::from_millis(1), Duration::from_millis(2)),
        )]),
        counters_listed_at: None,
        counters_at_start: BTreeMap::new(),
        sensors: vec![SensorState {
            sensor: SensorId::Fallback,
            rung: Rung::Fexit,
            probes: Vec::new(),
            limits: Vec::new(),
        }],
        dump: None,
    }
}

pub(super) fn event(connection: Connection) -> Event {
    Event::Connection(Box::new(ConnectionEvent {
        connection,
        time: SystemTime::UNIX_EPOCH,
        place: Place::default(),
        switched_off: None,
        packet: None,
        history: None,
    }))
}

/// Address and owner of reported connections; verdicts have tests of their own.
fn found(ready: &mut Vec<Finding>) -> Vec<(u64, Option<u32>)> {
    ready
        .drain(..)
        .filter_map(|finding| match finding {
            Finding::Connection(event) => Some((
                event.connection.id.socket.0,
                event.connection.owner.and_then(|owner| owner.process.pid),
            )),
            Finding::Verdict(_) | Finding::Refusal(_) | Finding::Path(_) | Finding::Closed(_) => {
                None
            }
            Finding::Query(_) => panic!("a query without a caller"),
        })
        .collect()
}

/// A change of the same connection: accepted or closed.
pub(super) fn change(kind: ChangeKind, of: Connection) -> Event {
    Event::Change(Box::new(ChangeEvent {
        change: Change {
            pending_paths: 0,
            fell_back: None,
            kind,
            at: of.at,
            id: of.id,
            socket: of.socket,
            owner: of.owner,
            admitted: of.admitted,
            query_untraced: of.query_untraced,
            connecting: of.connecting,
        },
        place: Place::default(),
    }))
}

fn unaccepted(at_ms: u64, address: u64) -> Event {
    event(Connection {
        unaccepted: true,
        ..connection(ConnectionKind::Fallback, at_ms, address)
    })
}

fn accepted(at_ms: u64, address: u64, pid: u32, admitted: bool) -> Event {
    let of = Connection {
        owner: Some(owner(pid, Via::Accept)),
        admitted,
        ..connection(ConnectionKind::Fallback, at_ms, address)
    };
    change(ChangeKind::Accepted, of)
}

#[test]
fn a_connection_accepted_in_time_is_reported_with_the_accepting_process() {
    let (mut correlator, mut ready, facts) = (Correlator::default(), Vec::new(), facts());
    correlator.take(unaccepted(10, 0xa), &facts, &mut ready);
    correlator.take(unaccepted(11, 0xb), &facts, &mut ready);
    assert_eq!(found(&mut ready), []);
    correlator.take(accepted(900, 0xa, 5, true), &facts, &mut ready);
    correlator.clock(
        ORDER_WINDOW + Duration::from_millis(900),
        &facts,
        &mut ready,
    );
    assert_eq!(found(&mut ready), [(0xa, Some(5))]);
    // One second after the fallback, only the listener's owner is known.
    correlator.take(accepted(1_011, 0xb, 6, true), &facts, &mut ready);
    correlator.clock(
        ORDER_WINDOW + Duration::from_millis(1_011),
        &facts,
        &mut ready,
    );
    assert_eq!(found(&mut ready), [(0xb, Some(1))]);
}

#[test]
fn a_clock_ends_the_wait_too_but_leaves_records_time_to_arrive() {
    let (mut correlator, mut ready, facts) = (Correlator::default(), Vec::new(), facts());
    correlator.take(unaccepted(0, 0xa), &facts, &mut ready);
    correlator.clock(Duration::from_millis(1_299), &facts, &mut ready);
    assert_eq!(found(&mut ready), []);
    correlator.clock(Duration::from_millis(1_300), &facts, &mut ready);
    assert_eq!(found(&mut ready), [(0xa, Some(1))]);
    correlator.take(unaccepted(2_000, 0xb), &facts, &mut ready);
    correlator.finish(0, &facts, &mut ready);
    assert_eq!(found(&mut ready), [(0xb, Some(1))]);
}

#[test]
fn the_accepting_process_decides_whether_it_is_wanted() {
    let (mut correlator, mut ready, facts) = (Correlator::default(), Vec::new(), facts());
    let unwanted = |at_ms, address| {
        event(Connection {
            unaccepted: true,
            admitted: false,
            ..connection(ConnectionKind::Fallback, at_ms, address)
        })
    };
    correlator.take(unwanted(10, 0xa), &facts, &mut ready);
    correlator.take(accepted(20, 0xa, 5, true), &facts, &mut ready);
    correlator.clock(ORDER_WINDOW + Duration::from_millis(20), &facts, &mut ready);
    assert_eq!(found(&mut ready), [(0xa, Some(5))]);
    correlator.take(unaccepted(30, 0xb), &facts, &mut ready);
    correlator.take(accepted(40, 0xb, 6, false), &facts, &mut ready);
    correlator.take(unwanted(50, 0xc), &facts, &mut ready);
    correlator.finish(0, &facts, &mut ready);
    assert_eq!(found(&mut ready), []);
    assert_eq!(correlator.filtered(), 2);
}

#[test]
fn the_waiting_events_are_bounded_and_the_oldest_is_released_first() {
    let (mut correlator, mut ready, facts) = (Correlator::default(), Vec::new(), facts());
    for address in 0..=Limits::STATED.waiting as u64 {
        correlator.take(unaccepted(10, address), &facts, &mut ready);
    }
    correlator.clock(ORDER_WINDOW + Duration::from_millis(10), &facts, &mut ready);
    assert_eq!(found(&mut ready), [(0, Some(1))]);
}

#[test]
fn a_connection_that_is_tcp_because_mptcp_is_off_names_the_connection_that_caused_it() {
    let blackhole = |at_ms: u64, address: u64, netns: u32| {
        let mut connection = connection(ConnectionKind::Blackhole, at_ms, address);
        connection.socket.netns = netns;
        connection.cause = None;
        connection.off_for = Some(Duration::from_secs(60));
        connection.admitted = false;
        event(connection)
    };
    let fallback = |at_ms: u64, cause: &'static str| {
        event(Connection {
            cause: Some(cause.into()),
            ..connection(ConnectionKind::Fallback, at_ms, 0xf)
        })
    };
    // Expected: the socket that disabled MPTCP, and when.
    let check = |events: Vec<Event>, want: Option<(u64, u64)>| {
        let mut correlator = Correlator::default();
        let mut ready = Vec::new();
        for event in events {
            correlator.take(event, &facts(), &mut ready);
        }
        correlator.cut_off(&facts(), &mut ready);
        let Some(Finding::Connection(last)) = ready.pop() else {
            panic!("there is no line");
        };
        let got = last.switched_off;
        assert_eq!(
            got.map(|it| (it.id.socket.0, it.at)),
            want.map(|(socket, at_ms)| (socket, Duration::from_millis(at_ms)))
        );
    };
    let off = || blackhole(10, 0xa, NETNS);
    check(vec![off(), fallback(20, SWITCHED_OFF)], Some((0xa, 10)));
    check(vec![fallback(20, SWITCHED_OFF), off()], Some((0xa, 10)));
    check(
        vec![off(), blackhole(15, 0xb, NETNS), fallback(20, SWITCHED_OFF)],
        Some((0xb, 15)),
    );
    check(vec![fallback(20, SWITCHED_OFF)], None);
    check(
        vec![blackhole(30, 0xa, NETNS), fallback(20, SWITCHED_OFF)],
        None,
    );
    check(
        vec![blackhole(10, 0xa, NETNS + 1), fallback(20, SWITCHED_OFF)],
        None,
    );
    check(vec![off(), fallback(20, "DssFallback")], None);
    let many = (0..2 * SWITCHED_OFF_MAX as u32)
        .map(|number| blackhole(10 + u64::from(number), 0xa, NETNS + number));
    check(many.chain([fallback(10_000, SWITCHED_OFF)]).collect(), None);
}
