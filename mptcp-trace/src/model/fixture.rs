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
                rung: Rung::Fexit,
            },
            time: SystemTime::UNIX_EPOCH,
            place: Place {
                cgroup: self.cgroup.map(str::to_owned),
                ..Place::default()
            },
            switched_off: None,
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
}
