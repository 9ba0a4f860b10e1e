//! The texts of comments. Text from outside is escaped: tshark prints comments on a terminal.

use std::time::Duration;

use super::gather::Traced;
use crate::{
    escape::escape,
    model::{
        CauseCertainty, Connection, ConnectionEvent, ConnectionKind, Finding, Judgement, Process,
        QueryEvent, RefusalEvent, Side, VerdictEvent, find_cause, short,
    },
};

/// How each comment begins, so that a display filter finds them.
const PREFIX: &str = "mptcp-trace";
/// A finding within this time of its packet is not said to be later: the kernel takes that long.
const PROMPT: Duration = Duration::from_millis(1);

/// Name and number of a process.
pub(super) fn process(process: &Process) -> String {
    format!("{} ({})", escape(&process.comm), process.number())
}

/// A finding, without its connection.
pub(super) fn note(finding: &Finding) -> String {
    match finding {
        Finding::Connection(event) => connection(event),
        Finding::Query(event) => query(event),
        Finding::Verdict(event) => verdict(event),
        Finding::Refusal(event) => refusal(event),
    }
}

fn connection(event: &ConnectionEvent) -> String {
    let connection = &event.connection;
    let mut words = match connection.kind {
        ConnectionKind::Fallback => format!("fell back to TCP here: {}", cause(connection)),
        ConnectionKind::FallbackDenied => format!(
            "the kernel could not fall back, and resets the subflow: {}",
            cause(connection)
        ),
        ConnectionKind::Plain => "plain TCP, without MPTCP".to_owned(),
        ConnectionKind::Existing => match connection.fell_back {
            Some(true) => format!(
                "had fallen back before tracing began: {}",
                cause(connection)
            ),
            Some(false) => "MPTCP when tracing began".to_owned(),
            None => "open when tracing began; unknown whether it had fallen back".to_owned(),
        },
        ConnectionKind::Blackhole => {
            let off = connection.off_for.map_or("an unknown time".into(), short);
            format!("MPTCP is now off in this network namespace, for {off}")
        }
    };
    let evidence = connection.evidence.iter().map(|it| it.name().to_owned());
    let bytes = connection.bytes.filter(|both| *both != (0, 0));
    let bytes = bytes.map(|(sent, got)| format!("{sent} B sent and {got} B received over MPTCP"));
    let late = connection.late.then(|| "noticed late".to_owned());
    for more in evidence.chain(bytes).chain(late) {
        words.push_str(", ");
        words.push_str(&more);
    }
    let name = match connection.kind {
        ConnectionKind::Fallback | ConnectionKind::FallbackDenied => connection.cause.as_deref(),
        ConnectionKind::Plain => Some("plain"),
        ConnectionKind::Blackhole => Some("Blackhole"),
        ConnectionKind::Existing => None,
    };
    if let Some(known) = name.and_then(find_cause) {
        words.push_str(". ");
        words.push_str(known.meaning);
    }
    words
}

fn cause(connection: &Connection) -> String {
    named(connection.cause.as_deref(), connection.known)
}

fn named(cause: Option<&str>, known: CauseCertainty) -> String {
    match (cause, known) {
        (Some(cause), CauseCertainty::Reported) => escape(cause),
        (Some(cause), CauseCertainty::Inferred | CauseCertainty::Unknown) => {
            format!("{} (inferred)", escape(cause))
        }
        (None, _) => "cause unknown".to_owned(),
    }
}

fn query(event: &QueryEvent) -> String {
    let query = &event.query;
    let mut words = format!(
        "{} queried {}: {}",
        process(&query.process),
        query.api.name(),
        query.answer.word().unwrap_or("answer unknown"),
    );
    if let Some(errno) = query.errno {
        words.push_str(&format!(" ({errno})"));
    }
    if event.repeats > 0 {
        words.push_str(&format!(", after {} equal answers", event.repeats));
    }
    if let Some(judgement) = &event.judgement {
        words.push_str(&format!("; {}", judged(judgement)));
    }
    words
}

fn judged(judgement: &Judgement) -> String {
    let verdict = judgement.verdict.name();
    format!("{verdict}: {}", escape(&judgement.sentence))
}

fn verdict(event: &VerdictEvent) -> String {
    let doubt = event.doubt.as_deref();
    let doubt = doubt.map(|doubt| format!("; in doubt: {}", escape(doubt)));
    format!(
        "at the end ({}), {}{}",
        event.closed_by.name(),
        judged(&event.judgement),
        doubt.unwrap_or_default()
    )
}

fn refusal(event: &RefusalEvent) -> String {
    let refusal = &event.refusal;
    format!(
        "{} called {} {}: {}, {}",
        process(&refusal.process),
        refusal.call(),
        refusal.option().unwrap_or("option"),
        refusal.errno,
        refusal.why()
    )
}

/// Who is spoken of: one end of a connection. A text that begins with its process names it once.
fn end(traced: &Traced, twins: usize, text: &str) -> String {
    let side = match traced.side {
        Some(Side::Active) => "client",
        Some(Side::Passive) => "server",
        None => "socket",
    };
    let process = match traced.process.as_deref() {
        Some(process) if text.starts_with(process) => String::new(),
        Some(process) => format!(", {process}"),
        None => ", process unknown".to_owned(),
    };
    let twin = match twins {
        0 | 1 => String::new(),
        _ => format!(
            " in network namespace {}, one of {twins} with these addresses",
            traced.netns
        ),
    };
    format!("{PREFIX}: {side} {}{process}{twin}: {text}", traced.local)
}

/// The comment on the first packet of a connection; `twins` is the number of connections with the
/// same addresses at the same time.
pub(super) fn summary(traced: &Traced, twins: usize) -> String {
    let state = traced.state;
    let mut words = match (state.has_fallen, state.is_mptcp) {
        (true, _) => format!(
            "connection that fell back to TCP: {}",
            named(traced.cause.as_deref(), traced.known)
        ),
        (false, true) => "MPTCP connection".to_owned(),
        (false, false) => "plain TCP connection".to_owned(),
    };
    let verdicts = traced.verdicts.iter().map(|(verdict, count)| match count {
        1 => verdict.name().to_owned(),
        more => format!("{} ({more})", verdict.name()),
    });
    let verdicts: Vec<String> = verdicts.collect();
    if !verdicts.is_empty() {
        words.push_str("; verdicts: ");
        words.push_str(&verdicts.join(", "));
    }
    end(traced, twins, &words)
}

/// Where a finding is relative to the packet that it is put on.
pub(super) enum Gap {
    /// The packet is the last one before it.
    After(Duration),
    /// The packet is the first one, and later.
    Before(Duration),
}

/// The comment for a note.
pub(super) fn comment(traced: &Traced, twins: usize, text: &str, gap: &Gap) -> String {
    let gap = match gap {
        Gap::After(gap) if *gap < PROMPT => String::new(),
        Gap::After(gap) => format!(" [{} after this packet]", short(*gap)),
        Gap::Before(gap) => format!(" [{} before this packet]", short(*gap)),
    };
    end(traced, twins, &format!("{text}{gap}"))
}

/// The last comment of a packet that has too many.
pub(super) fn more(count: usize) -> String {
    let noun = if count == 1 { "finding" } else { "findings" };
    format!("{PREFIX}: {count} more {noun} here; mptcp-trace replay prints all of them")
}
