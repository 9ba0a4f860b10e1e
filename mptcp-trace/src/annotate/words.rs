//! What a finding says, in words. Text from outside is escaped: tshark prints comments on a terminal.

use crate::{
    escape::escape,
    model::{
        CauseCertainty, Connection, ConnectionEvent, ConnectionKind, Finding, Judgement, Process,
        QueryEvent, RefusalEvent, VerdictEvent, find_cause, short,
    },
};

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

/// A cause, and whether it is certain.
pub(super) fn named(cause: Option<&str>, known: CauseCertainty) -> String {
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
