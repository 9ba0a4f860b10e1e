//! A finding as the cells of a line, before any of them is shortened.

mod path;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use super::escape;
use crate::model::{
    Answer, Api, CauseCertainty, Certainty, ClosedBy, Conclusion, Connection, ConnectionEvent,
    ConnectionId, ConnectionKind, Family, Finding, Judgement, Owner, Packet, Protocol, QueryEvent,
    RefusalEvent, Refused, Severity, Shown, Side, Subject, SwitchedOff, Verdict, VerdictEvent,
    displayed, short,
};

/// Sysctl that determines for how long MPTCP is off.
pub(super) const OFF_SYSCTL: &str = "net.mptcp.blackhole_timeout";

pub(super) const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
pub(super) const RED: &str = "\x1b[31m";
pub(super) const DIM: &str = "\x1b[2m";

/// The cells of a finding. Text from outside is escaped.
pub(super) struct Row {
    pub(super) time: SystemTime,
    pub(super) kind: String,
    pub(super) result: String,
    /// Escape sequence of the colour that kind and result have.
    pub(super) paint: &'static str,
    pub(super) comm: String,
    pub(super) pid: String,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) state: String,
    pub(super) netns: u32,
    pub(super) id: Option<ConnectionId>,
    pub(super) after: Option<Duration>,
    pub(super) details: Vec<String>,
}

impl Row {
    pub(super) fn of(finding: &Finding) -> Self {
        let about = match finding {
            Finding::Query(event) => of_query(event),
            Finding::Connection(event) => of_connection(event),
            Finding::Verdict(event) => of_verdict(event),
            Finding::Refusal(event) => of_refusal(event),
            Finding::Path(event) => path::of_path(event),
            Finding::Closed(event) => path::of_closed(event),
        };
        let subject = Subject::of(finding);
        let unknown = || "?".to_owned();
        Self {
            time: finding.time(),
            kind: finding.kind().replace('_', "-"),
            result: about.result,
            paint: about.paint,
            comm: subject
                .process
                .map_or_else(unknown, |it| escape(&it.title())),
            pid: subject
                .process
                .map_or_else(unknown, crate::model::Process::number),
            local: subject.socket.and_then(|it| endpoint(it.local)),
            remote: subject.socket.and_then(|it| endpoint(it.remote)),
            state: subject
                .socket
                .map_or_else(|| "-".to_owned(), |it| it.state.to_string()),
            netns: subject.netns,
            id: subject.id,
            after: about.after,
            details: about.details,
        }
    }
}

/// What depends on the type of the finding.
struct About {
    result: String,
    paint: &'static str,
    after: Option<Duration>,
    details: Vec<String>,
}

/// An end of a connection; `None` if it is unspecified. An IPv4-mapped address is shown as IPv4.
pub(super) fn endpoint(addr: SocketAddr) -> Option<SocketAddr> {
    let shown = displayed(addr);
    (!shown.ip().is_unspecified() || shown.port() != 0).then_some(shown)
}

/// Name of the cause; `?` after it marks an inferred one.
pub(super) fn cause(connection: &Connection) -> String {
    match (&connection.cause, connection.known) {
        (Some(cause), CauseCertainty::Reported) => escape(cause),
        (Some(cause), CauseCertainty::Inferred | CauseCertainty::Unknown) => {
            format!("{}?", escape(cause))
        }
        (None, _) => "cause unknown".to_owned(),
    }
}

/// PID and name of an owner.
pub(super) fn who(owner: Option<&Owner>) -> (String, String) {
    owner.map_or_else(
        || ("?".to_owned(), "?".to_owned()),
        |owner| (owner.process.number(), escape(&owner.process.title())),
    )
}

fn of_connection(event: &ConnectionEvent) -> About {
    let ConnectionEvent {
        connection,
        time: _,
        place: _,
        switched_off,
        packet,
        history: _,
    } = event;
    let after = connection.since_connect;
    match connection.kind {
        ConnectionKind::Fallback => About {
            result: cause(connection),
            paint: RED,
            after,
            details: of_fallback(connection, switched_off.as_ref())
                .into_iter()
                .chain(shown(packet.as_deref()))
                .collect(),
        },
        ConnectionKind::FallbackDenied => About {
            result: cause(connection),
            paint: RED,
            after,
            details: std::iter::once("subflow reset".to_owned())
                .chain(of_fallback(connection, switched_off.as_ref()))
                .chain(shown(packet.as_deref()))
                .collect(),
        },
        ConnectionKind::Plain => of_plain(connection),
        ConnectionKind::Existing => of_existing(connection),
        ConnectionKind::Blackhole => About {
            result: match connection.off_for {
                Some(off_for) => format!("MPTCP off for {}", short(off_for)),
                None => "MPTCP off".to_owned(),
            },
            paint: RED,
            after,
            details: vec![format!("in this network namespace ({OFF_SYSCTL})")],
        },
    }
}

/// What a packet shows, if that says more than the cause.
fn shown(packet: Option<&Packet>) -> Option<String> {
    let says_more = |what: &&Conclusion| match what.what {
        Shown::Cleared | Shown::Reflected | Shown::AnotherMachine | Shown::RstOtherTtl => true,
        Shown::Absent | Shown::Present | Shown::RstSameTtl | Shown::RstUnknown => false,
    };
    let found = packet?.conclusions.iter().find(says_more)?;
    Some(match found.certainty {
        Certainty::Certain => found.what.name().to_owned(),
        Certainty::Likely | Certainty::Open => format!("{}?", found.what.name()),
    })
}

fn of_plain(connection: &Connection) -> About {
    let (result, details) = match connection.known {
        CauseCertainty::Inferred | CauseCertainty::Reported => {
            ("client without MPTCP", "or no token")
        }
        CauseCertainty::Unknown => (
            "client without MPTCP?",
            "or no token, or third ACK without MPTCP",
        ),
    };
    About {
        result: result.to_owned(),
        paint: DIM,
        after: connection.since_connect,
        details: vec![details.to_owned()],
    }
}

fn of_existing(connection: &Connection) -> About {
    let (result, details) = match connection.fell_back {
        Some(true) => (
            cause(connection),
            vec!["fell back before tracing began".to_owned()],
        ),
        Some(false) => ("MPTCP".to_owned(), Vec::new()),
        None => ("unknown".to_owned(), Vec::new()),
    };
    About {
        result,
        paint: DIM,
        after: None,
        details,
    }
}

fn of_fallback(connection: &Connection, switched_off: Option<&SwitchedOff>) -> Vec<String> {
    let mut details: Vec<String> = Vec::new();
    details.extend(connection.side.map(|side| {
        match side {
            Side::Active => "client",
            Side::Passive => "server",
        }
        .to_owned()
    }));
    details.extend(connection.evidence.iter().map(|it| it.name().to_owned()));
    if let Some((sent, received)) = connection.bytes.filter(|both| *both != (0, 0)) {
        details.push(format!("{sent} B sent, {received} B received"));
    }
    if connection.late {
        details.push("noticed late".into());
    }
    details.extend(switched_off.map(|it| {
        let (pid, comm) = who(it.owner.as_ref());
        format!("MPTCP off since {comm} {pid} to {}", displayed(it.remote))
    }));
    details
}

fn of_query(event: &QueryEvent) -> About {
    let QueryEvent {
        query,
        time: _,
        judgement,
        repeats,
    } = event;
    let (word, paint) = match query.answer {
        Answer::Mptcp => ("mptcp", GREEN),
        Answer::Tcp => ("tcp", YELLOW),
        Answer::Unsupported(_) => ("unsupported", DIM),
        Answer::Failed(_) => ("failed", RED),
        Answer::Unknown => ("?", RED),
    };
    let verdict = judgement.as_ref().map(|it| it.verdict);
    let paint = match verdict {
        // The answer may be correct and still mislead the application.
        Some(verdict) if verdict.deceives() => RED,
        Some(Verdict::TooEarly) => YELLOW,
        Some(_) | None => paint,
    };
    let result = match (verdict, query.errno) {
        (Some(Verdict::Unsupported), _) => word.to_owned(),
        (Some(verdict), _) => format!("{word}: {}", verdict.name()),
        (None, Some(errno)) => format!("{word}: {errno}"),
        (None, None) => word.to_owned(),
    };
    let mut details: Vec<String> = Vec::new();
    match query.api {
        Api::TcpIsMptcp => {}
        Api::MptcpInfo
        | Api::MptcpTcpinfo
        | Api::MptcpSubflowAddrs
        | Api::MptcpFullInfo
        | Api::SoProtocol => details.push(query.api.name().to_owned()),
    }
    details.extend(
        judgement
            .as_ref()
            .and_then(|it| it.cause.as_deref())
            .map(escape),
    );
    details.extend(
        query
            .errno
            .filter(|_| verdict.is_some())
            .map(|it| it.to_string()),
    );
    match (query.socket.protocol, query.fell_back) {
        (Protocol::Tcp, _) => details.push("TCP socket".to_owned()),
        (Protocol::Mptcp, Some(true)) if verdict != Some(Verdict::Explained) => {
            details.push("fell back".to_owned());
        }
        (Protocol::Mptcp, Some(_) | None) => {}
    }
    if *repeats > 0 {
        details.push(format!("previous answer repeated {repeats} times"));
    }
    About {
        result,
        paint,
        after: judgement.as_ref().and_then(|it| it.delay),
        details,
    }
}

fn of_verdict(event: &VerdictEvent) -> About {
    let Judgement {
        verdict,
        sentence: _,
        fell_back_at: _,
        cause,
        delay,
    } = &event.judgement;
    let paint = match verdict.severity() {
        Severity::Info => DIM,
        Severity::Warning | Severity::Error if verdict.deceives() => RED,
        Severity::Warning | Severity::Error => YELLOW,
    };
    let mut details: Vec<String> = Vec::new();
    if event.doubt.is_some() {
        details.push("in doubt".to_owned());
    }
    details.extend(cause.as_deref().map(escape));
    match event.closed_by {
        ClosedBy::Death => {}
        ClosedBy::Eviction => details.push("evicted".to_owned()),
        ClosedBy::Exit => details.push("still open".to_owned()),
    }
    About {
        result: match event.doubt {
            Some(_) => format!("{}?", verdict.name()),
            None => verdict.name().to_owned(),
        },
        paint,
        after: *delay,
        details,
    }
}

fn of_refusal(event: &RefusalEvent) -> About {
    let refusal = &event.refusal;
    let (result, details) = match &refusal.what {
        Refused::Option { level, optname, .. } => (
            refusal
                .option()
                .map_or_else(|| format!("level {level} option {optname}"), str::to_owned),
            format!("{}: {}", refusal.call(), refusal.errno),
        ),
        Refused::Socket { family, netns: _ } => (
            match family {
                Family::Ipv4 => "socket, IPv4".to_owned(),
                Family::Ipv6 => "socket, IPv6".to_owned(),
            },
            refusal.errno.to_string(),
        ),
    };
    About {
        result,
        paint: YELLOW,
        after: None,
        details: vec![details],
    }
}
