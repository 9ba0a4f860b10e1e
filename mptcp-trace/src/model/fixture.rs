//! Findings for tests.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use super::*;

/// The fields in which rows of a table differ.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) kind: ConnectionKind,
    pub(crate) at_ms: u64,
    pub(crate) address: u64,
    /// Number of the socket's earlier connections.
    pub(crate) attempt: u32,
    pub(crate) cause: Option<&'static str>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) local: &'static str,
    pub(crate) remote: &'static str,
    pub(crate) pid: u32,
    pub(crate) comm: &'static str,
    pub(crate) netns: u32,
    pub(crate) cgroup_id: u64,
    pub(crate) cgroup: Option<&'static str>,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            kind: ConnectionKind::Fallback,
            at_ms: 1,
            address: 1,
            attempt: 0,
            cause: Some("DssFallback"),
            verdict: None,
            local: "10.0.0.1:1000",
            remote: "192.0.2.7:443",
            pid: 7,
            comm: "curl",
            netns: 9,
            cgroup_id: 5,
            cgroup: Some("/a/b.service"),
        }
    }
}

impl Row {
    fn socket(&self) -> Socket {
        let addr = |text: &str| -> SocketAddr { text.parse().unwrap() };
        Socket {
            id: SocketId(self.address),
            inode: None,
            netns: self.netns,
            protocol: if self.kind == ConnectionKind::Plain {
                Protocol::Tcp
            } else {
                Protocol::Mptcp
            },
            family: match addr(self.remote) {
                SocketAddr::V4(_) => Family::Ipv4,
                SocketAddr::V6(_) => Family::Ipv6,
            },
            state: TcpState(1),
            local: addr(self.local),
            remote: addr(self.remote),
        }
    }

    fn id(&self) -> ConnectionId {
        ConnectionId {
            socket: SocketId(self.address),
            born_at: Duration::from_nanos(1),
            attempt: self.attempt,
        }
    }

    fn process(&self) -> Process {
        Process {
            pid: Some(self.pid),
            tid: Some(self.pid),
            host_pid: self.pid,
            host_tid: self.pid,
            uid: 0,
            cgroup_id: self.cgroup_id,
            comm: self.comm.into(),
        }
    }

    fn judgement(&self) -> Option<Judgement> {
        Some(Judgement {
            verdict: self.verdict?,
            sentence: "because".into(),
            fell_back_at: self.cause.map(|_| Duration::from_millis(1)),
            cause: self.cause.map(Into::into),
            delay: None,
        })
    }

    /// A finding about a connection.
    pub(crate) fn connection(self) -> Finding {
        Finding::Connection(Box::new(ConnectionEvent {
            connection: Connection {
                kind: self.kind,
                at: Duration::from_millis(self.at_ms),
                id: self.id(),
                socket: self.socket(),
                netns_cookie: 0,
                owner: Some(Owner {
                    process: self.process(),
                    via: Via::Connect,
                }),
                unaccepted: false,
                admitted: true,
                cause: self.cause.map(Into::into),
                known: CauseCertainty::Reported,
                side: Some(Side::Active),
                stage: None,
                since_connect: None,
                bytes: None,
                subflows: None,
                evidence: Vec::new(),
                existing: false,
                query_untraced: false,
                connecting: false,
                fell_back: Some(self.kind == ConnectionKind::Fallback),
                late: false,
                current: Current::default(),
                off_for: None,
                marks: Marks::default(),
                rung: Rung::Fexit,
            },
            time: SystemTime::UNIX_EPOCH,
            place: Place {
                cgroup: self.cgroup.map(str::to_owned),
                ..Place::default()
            },
            switched_off: None,
            packet: None,
            history: None,
        }))
    }

    /// A query on it.
    pub(crate) fn query(self) -> Finding {
        Finding::Query(QueryEvent {
            query: Query {
                asked_at: Duration::from_millis(self.at_ms),
                latency: None,
                process: self.process(),
                socket: self.socket(),
                id: Some(self.id()),
                connected_at: None,
                api: Api::TcpIsMptcp,
                answer: Answer::Mptcp,
                errno: None,
                fell_back: Some(self.cause.is_some()),
                rung: Rung::Fexit,
                after_untraced: false,
                state_bits: None,
            },
            time: SystemTime::UNIX_EPOCH,
            judgement: self.judgement(),
            repeats: 0,
        })
    }

    /// The closing verdict on it.
    pub(crate) fn closing_verdict(self) -> Finding {
        Finding::Verdict(Box::new(VerdictEvent {
            judgement: self.judgement().unwrap(),
            id: self.id(),
            at: Duration::from_millis(self.at_ms),
            time: SystemTime::UNIX_EPOCH,
            closed_by: ClosedBy::Death,
            owner: Some(Owner {
                process: self.process(),
                via: Via::Query,
            }),
            place: Place {
                cgroup: self.cgroup.map(str::to_owned),
                ..Place::default()
            },
            socket: self.socket(),
            asked: None,
            queries: 0,
            doubt: None,
        }))
    }

    /// An event of a path of it.
    pub(crate) fn path(self, path: Path) -> Finding {
        let socket = self.socket();
        Finding::Path(Box::new(PathEvent {
            path: Path {
                at: Duration::from_millis(self.at_ms),
                connection: Some(self.id()),
                socket: Socket {
                    state: path.socket.state,
                    ..socket
                },
                owner: Some(Owner {
                    process: self.process(),
                    via: Via::Connect,
                }),
                ..path
            },
            time: SystemTime::UNIX_EPOCH,
            place: Place {
                cgroup: self.cgroup.map(str::to_owned),
                ..Place::default()
            },
            of_connection: path.ledger.map(|it| (2 * it.bytes_sent, it.bytes_received)),
            packet: None,
        }))
    }

    /// Its end: three paths, of which two came up, unless `change` says otherwise.
    pub(crate) fn closed(self, change: impl FnOnce(&mut Closed)) -> Finding {
        let summary = |role, was_up, cause: &'static str| PathSummary {
            socket: self.socket(),
            role,
            lifetime: Some(Duration::from_secs(2)),
            cause: Some(cause.into()),
            was_up,
            ledger: was_up.then(a_ledger),
        };
        let mut closed = Closed {
            id: self.id(),
            at: Duration::from_millis(self.at_ms),
            socket: self.socket(),
            owner: Some(Owner {
                process: self.process(),
                via: Via::Connect,
            }),
            side: Some(Side::Active),
            outcome: Outcome::Mptcp,
            duration: Some(Duration::from_secs(2)),
            paths_tried: 3,
            paths_up: 2,
            paths_failed: 1,
            paths_most: 2,
            paths: vec![
                summary(PathRole::Join, false, "MPJoinSynRefused"),
                summary(PathRole::Join, true, "timeout"),
                summary(PathRole::First, true, "connection-closed"),
            ],
            bytes: (16_000, 1_200),
            queries: 0,
            never_tried: None,
            incomplete: false,
            admitted: true,
        };
        change(&mut closed);
        Finding::Closed(Box::new(ClosedEvent {
            closed,
            time: SystemTime::UNIX_EPOCH,
            place: Place::default(),
        }))
    }
}

/// What a path carried.
pub(crate) fn a_ledger() -> Ledger {
    Ledger {
        bytes_sent: 8_000,
        bytes_retransmitted: 2_800,
        bytes_received: 1_200,
        retransmissions: 3,
        segments_sent: 12,
        segments_received: 9,
        rtt: Some(Duration::from_millis(20)),
        rtt_min: Some(Duration::from_millis(19)),
    }
}

/// An event of a path: of the first one if the connection failed, else of a join.
pub(crate) fn a_path(kind: PathKind) -> Path {
    let has_come_up = !matches!(kind, PathKind::Failed | PathKind::ConnectFailed);
    let cause = match kind {
        PathKind::Failed => Some("MPJoinAckRejected"),
        PathKind::ConnectFailed => Some("MPCapableSynRefused"),
        PathKind::Down => Some("connection-closed"),
        PathKind::Up
        | PathKind::Open
        | PathKind::Stale
        | PathKind::Recovered
        | PathKind::Priority
        | PathKind::AddressAnnounced
        | PathKind::AddressEchoed
        | PathKind::AddressDropped
        | PathKind::AddressOverLimit
        | PathKind::AddressRemoved => None,
    };
    let is_first = matches!(kind, PathKind::ConnectFailed | PathKind::Up);
    let Finding::Connection(connection) = Row::default().connection() else {
        panic!("not a connection")
    };
    Path {
        kind,
        at: Duration::from_secs(3),
        path: Some(PathId {
            socket: SocketId(17),
            began_at: Duration::from_secs(1),
        }),
        connection: None,
        socket: connection.connection.socket,
        netns_cookie: 0,
        owner: None,
        unaccepted: false,
        admitted: true,
        removed_ids: Vec::new(),
        is_stale: kind == PathKind::Stale,
        role: match is_first {
            true => PathRole::First,
            false => PathRole::Join,
        },
        side: Some(Side::Active),
        local_id: (!is_first).then_some(1),
        remote_id: (!is_first).then_some(0),
        backup_here: kind == PathKind::Priority,
        backup_peer: false,
        is_mptcp: true,
        began_at: Some(Duration::from_micros(100)),
        up_at: has_come_up.then_some(Duration::from_micros(500)),
        was_reported_up: has_come_up,
        cause: cause.map(Into::into),
        known: match cause {
            Some(_) => CauseCertainty::Reported,
            None => CauseCertainty::Unknown,
        },
        decided_by: cause.map(|_| DecidedBy::Peer),
        reset: (kind == PathKind::Failed).then_some(ResetReason {
            code: 3,
            transient: false,
            received: true,
        }),
        rst_received: false,
        rst_sent: false,
        errno: (kind == PathKind::ConnectFailed).then_some(Errno(111)),
        ledger: (kind == PathKind::Down || kind == PathKind::Stale).then(a_ledger),
        manager: None,
        token: 1,
        existing: false,
        late: false,
        marks: Marks::default(),
        rung: Rung::Fexit,
    }
}

/// A SYN/ACK from which a box has cleared the option decided what a finding reports.
pub(crate) fn cleared(mut finding: Finding) -> Finding {
    let packet = Packet {
        ip: Vec::new(),
        tcp: Vec::new(),
        source: "192.0.2.7:443".parse().unwrap(),
        destination: "10.0.0.1:1000".parse().unwrap(),
        ttl: 61,
        flags: TcpFlags::SYN_ACK,
        window: 512,
        options: vec![TcpOption::Nop; 12],
        ttl_before: None,
        first_path: None,
        peer_token: None,
        conclusions: vec![Conclusion {
            what: Shown::Cleared,
            certainty: Certainty::Certain,
            because: "12 bytes of padding".into(),
        }],
    };
    match &mut finding {
        Finding::Connection(event) => event.packet = Some(Box::new(packet)),
        Finding::Path(event) => event.packet = Some(Box::new(packet)),
        Finding::Query(_) | Finding::Verdict(_) | Finding::Refusal(_) | Finding::Closed(_) => {
            unreachable!()
        }
    }
    finding
}

/// The peer 192.0.2.7 answers a connection from this address, with MPTCP or without.
pub(crate) fn answered(number: u64, local: &'static str, mptcp: bool) -> Finding {
    let row = Row {
        address: number,
        local,
        cause: Some("MPCapableFallbackSYNACK"),
        ..Row::default()
    };
    if !mptcp {
        return row.connection();
    }
    let mut path = a_path(PathKind::Up);
    (path.side, path.role, path.is_mptcp) = (Some(Side::Active), PathRole::First, true);
    row.path(path)
}
