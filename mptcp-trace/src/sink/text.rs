//! Text output: fixed columns, one line per finding.

use std::io::Write as _;

use jiff::{Timestamp, tz::TimeZone};

use super::escape;
use crate::model::{
    Answer, Api, CauseCertainty, Connection, ConnectionEvent, ConnectionKind, Errno, Family,
    Finding, Judgement, Owner, Protocol, QueryEvent, RefusalEvent, Refused, Severity, Side,
    SwitchedOff, Verdict, VerdictEvent, short,
};

/// Sysctl that determines for how long MPTCP is off.
const OFF_SYSCTL: &str = "net.mptcp.blackhole_timeout";

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Column header.
pub(super) fn header(out: &mut Vec<u8>) {
    push(
        out,
        &format!(
            "{:<15} {:>7} {:<15} {:<11} {:>8} {:<11} {}\n",
            "TIME", "PID", "COMM", "WHAT", "AFTER", "STATE", "LOCAL -> REMOTE"
        ),
    );
}

/// One finding.
pub(super) fn finding(finding: &Finding, colour: bool, utc: bool, out: &mut Vec<u8>) {
    match finding {
        Finding::Query(event) => query(event, colour, utc, out),
        Finding::Connection(event) => connection(event, colour, utc, out),
        Finding::Verdict(event) => verdict(event, colour, utc, out),
        Finding::Refusal(event) => refusal(event, colour, utc, out),
    }
}

fn connection(event: &ConnectionEvent, colour: bool, utc: bool, out: &mut Vec<u8>) {
    let ConnectionEvent {
        connection,
        time,
        place: _,
        switched_off,
    } = event;
    let (word, paint) = match connection.kind {
        ConnectionKind::Fallback => ("FALLBACK", RED),
        ConnectionKind::FallbackDenied => ("REFUSED", RED),
        ConnectionKind::Plain => ("plain", DIM),
        ConnectionKind::Existing => ("existing", DIM),
        ConnectionKind::Blackhole => ("BLACKHOLE", RED),
    };
    let (paint, plain) = if colour { (paint, PLAIN) } else { ("", "") };
    let (pid, comm) = who(connection.owner.as_ref());
    let socket = &connection.socket;
    let after = connection.since_connect.map(short).unwrap_or_default();
    let line = format!(
        "{:<15} {pid:>7} {comm:<15} {paint}{word:<11}{plain} {after:>8} {:<11} {} -> {}  {}\n",
        clock(*time, utc),
        socket.state,
        socket.local,
        socket.remote,
        story(connection, switched_off.as_ref()),
    );
    push(out, &line);
}

/// Short description of the event.
fn story(connection: &Connection, switched_off: Option<&SwitchedOff>) -> String {
    let mut words: Vec<String> = Vec::new();
    match connection.kind {
        ConnectionKind::Fallback | ConnectionKind::FallbackDenied => words.push(cause(connection)),
        ConnectionKind::Plain => words.push(
            match connection.known {
                CauseCertainty::Inferred | CauseCertainty::Reported => {
                    "the client did not request MPTCP, or no token was available"
                }
                CauseCertainty::Unknown => {
                    "the client did not request MPTCP, no token was available, or its third packet \
                     came without MPTCP"
                }
            }
            .to_owned(),
        ),
        ConnectionKind::Existing => words.push(match connection.fell_back {
            Some(true) => format!("fell back before tracing began: {}", cause(connection)),
            Some(false) => "MPTCP".to_owned(),
            None => "unknown whether it fell back".to_owned(),
        }),
        ConnectionKind::Blackhole => words.push(match connection.off_for {
            Some(off) => format!(
                "MPTCP is off in this network namespace for {} ({OFF_SYSCTL})",
                short(off)
            ),
            None => {
                format!("MPTCP is off in this network namespace for an unknown time ({OFF_SYSCTL})")
            }
        }),
    }
    if connection.kind == ConnectionKind::FallbackDenied {
        words.push("fallback not allowed: the subflow is reset".into());
    }
    if let ConnectionKind::Fallback | ConnectionKind::FallbackDenied = connection.kind {
        words.extend(connection.side.map(|side| {
            match side {
                Side::Active => "client",
                Side::Passive => "server",
            }
            .to_owned()
        }));
        words.extend(connection.evidence.iter().map(|it| it.name().to_owned()));
        if let Some((sent, received)) = connection.bytes.filter(|both| *both != (0, 0)) {
            words.push(format!("{sent} B sent and {received} B received before"));
        }
        if connection.late {
            words.push("noticed late".into());
        }
        words.extend(switched_off.map(|it| blame(it, connection)));
    }
    words.join(", ")
}

/// Since when and for how long MPTCP is off, and which connection caused it.
fn blame(switched_off: &SwitchedOff, connection: &Connection) -> String {
    let SwitchedOff {
        at,
        off_for,
        id: _,
        remote,
        owner,
    } = switched_off;
    let since = short(connection.at.saturating_sub(*at));
    let off_for = off_for.map_or_else(|| "an unknown time".to_owned(), short);
    let (pid, comm) = who(owner.as_ref());
    format!(
        "off for {off_for} ({OFF_SYSCTL}) since {since} before, when {comm} {pid} reached {remote} \
         only without MPTCP"
    )
}

pub(super) fn cause(connection: &Connection) -> String {
    match (&connection.cause, connection.known) {
        (Some(cause), CauseCertainty::Reported) => escape(cause),
        (Some(cause), CauseCertainty::Inferred | CauseCertainty::Unknown) => {
            format!("{} (inferred)", escape(cause))
        }
        (None, _) => "cause unknown".to_owned(),
    }
}

fn query(event: &QueryEvent, colour: bool, utc: bool, out: &mut Vec<u8>) {
    let QueryEvent {
        query,
        time,
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
    let paint = match judgement.as_ref().map(|it| it.verdict) {
        // The answer may be correct and still mislead the application.
        Some(verdict) if verdict.deceives() => RED,
        Some(Verdict::TooEarly) => YELLOW,
        Some(_) | None => paint,
    };
    let (paint, plain) = if colour { (paint, PLAIN) } else { ("", "") };
    let socket = &query.socket;
    let mut line = format!(
        "{:<15} {:>7} {:<15} {paint}{word:<11}{plain} {:>8} {:<11} {} -> {}",
        clock(*time, utc),
        query.process.number(),
        escape(&query.process.comm),
        query.latency.map_or_else(|| "-".into(), short),
        socket.state,
        socket.local,
        socket.remote,
    );
    let how = match query.api {
        Api::TcpIsMptcp => None,
        Api::MptcpInfo
        | Api::MptcpTcpinfo
        | Api::MptcpSubflowAddrs
        | Api::MptcpFullInfo
        | Api::SoProtocol => Some(query.api.name().to_owned()),
    };
    let notes: Vec<String> = [
        how,
        note(query.errno, socket.protocol, query.fell_back),
        judgement.as_ref().map(in_short),
        (*repeats > 0).then(|| format!("previous answer repeated {repeats} times")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !notes.is_empty() {
        line.push_str("  ");
        line.push_str(&notes.join("; "));
    }
    line.push('\n');
    push(out, &line);
}

/// Short form of a verdict.
fn in_short(judgement: &Judgement) -> String {
    let word = judgement.verdict.name();
    match (&judgement.cause, judgement.delay, judgement.verdict) {
        (
            Some(cause),
            Some(delay),
            Verdict::Explained | Verdict::Misled | Verdict::Contradicted,
        ) => {
            format!("{word}: {} {} before", escape(cause), short(delay))
        }
        _ => word.to_owned(),
    }
}

fn verdict(event: &VerdictEvent, colour: bool, utc: bool, out: &mut Vec<u8>) {
    let judgement = &event.judgement;
    let word = judgement.verdict.name();
    let paint = match judgement.verdict.severity() {
        Severity::Info => DIM,
        Severity::Warning | Severity::Error if judgement.verdict.deceives() => RED,
        Severity::Warning | Severity::Error => YELLOW,
    };
    let (paint, plain) = if colour { (paint, PLAIN) } else { ("", "") };
    let (pid, comm) = who(event.owner.as_ref());
    let after = judgement.delay.map(short).unwrap_or_default();
    let socket = &event.socket;
    let doubt = event
        .doubt
        .as_ref()
        .map(|doubt| format!("; in doubt: {doubt}"));
    let line = format!(
        "{:<15} {pid:>7} {comm:<15} {paint}{word:<11}{plain} {after:>8} {:<11} {} -> {}  {}{}\n",
        clock(event.time, utc),
        // The socket state was last seen at another time, so how the connection ended is shown
        // instead.
        event.closed_by.name(),
        socket.local,
        socket.remote,
        escape(&judgement.sentence),
        doubt.unwrap_or_default(),
    );
    push(out, &line);
}

fn refusal(event: &RefusalEvent, colour: bool, utc: bool, out: &mut Vec<u8>) {
    let refusal = &event.refusal;
    let (word, state, ends, what) = match &refusal.what {
        Refused::Option {
            socket,
            level,
            optname,
            is_set: _,
        } => (
            "NO OPTION",
            socket.state.to_string(),
            format!("{} -> {}", socket.local, socket.remote),
            refusal.option().map_or_else(
                || format!("{} level {level} option {optname}", refusal.call()),
                |name| format!("{} {name}", refusal.call()),
            ),
        ),
        Refused::Socket { family, netns: _ } => (
            "NO SOCKET",
            String::new(),
            "-".to_owned(),
            match family {
                Family::Ipv4 => "socket, IPv4".to_owned(),
                Family::Ipv6 => "socket, IPv6".to_owned(),
            },
        ),
    };
    let (paint, plain) = if colour { (YELLOW, PLAIN) } else { ("", "") };
    let line = format!(
        "{:<15} {:>7} {:<15} {paint}{word:<11}{plain} {:>8} {state:<11} {ends}  {what}: {}, {}\n",
        clock(event.time, utc),
        refusal.process.number(),
        escape(&refusal.process.comm),
        "",
        refusal.errno,
        refusal.why(),
    );
    push(out, &line);
}

/// PID and COMM of an owner.
pub(super) fn who(owner: Option<&Owner>) -> (String, String) {
    owner.map_or_else(
        || ("?".to_owned(), "?".to_owned()),
        |owner| (owner.process.number(), escape(&owner.process.comm)),
    )
}

/// Details that have no column.
fn note(errno: Option<Errno>, protocol: Protocol, fell_back: Option<bool>) -> Option<String> {
    let connection = match (protocol, fell_back) {
        (Protocol::Mptcp, Some(true)) => Some("fell back"),
        (Protocol::Tcp, _) => Some("TCP socket"),
        (Protocol::Mptcp, Some(false) | None) => None,
    };
    match (errno, connection) {
        (Some(errno), Some(connection)) => Some(format!("{errno}, {connection}")),
        (Some(errno), None) => Some(errno.to_string()),
        (None, connection) => connection.map(str::to_owned),
    }
}

/// Time of day with microseconds.
fn clock(time: std::time::SystemTime, utc: bool) -> String {
    let Ok(timestamp) = Timestamp::try_from(time) else {
        return "?".to_owned();
    };
    let zone = if utc {
        TimeZone::UTC
    } else {
        TimeZone::system()
    };
    let zoned = timestamp.to_zoned_datetime(zone);
    format!(
        "{:02}:{:02}:{:02}.{:06}",
        zoned.hour(),
        zoned.minute(),
        zoned.second(),
        zoned.subsec_nanosecond() / 1000
    )
}

fn push(out: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail.
    let _infallible = out.write_all(text.as_bytes());
}
