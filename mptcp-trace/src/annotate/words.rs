//! What a finding says, in words. Text from outside is escaped: tshark prints comments on a terminal.

use crate::{
    escape::escape,
    model::{
        CauseCertainty, Closed, Connection, ConnectionEvent, ConnectionKind, DecidedBy, Finding,
        Judgement, Outcome, Path, PathKind, PathRole, Process, QueryEvent, RefusalEvent,
        VerdictEvent, amount, find_cause, short,
    },
};

/// Name and number of a process.
pub(super) fn process(process: &Process) -> String {
    format!("{} ({})", escape(&process.title()), process.number())
}

/// A finding, without its connection.
pub(super) fn note(finding: &Finding) -> String {
    let mut words = match finding {
        Finding::Connection(event) => connection(event),
        Finding::Query(event) => query(event),
        Finding::Verdict(event) => verdict(event),
        Finding::Refusal(event) => refusal(event),
        Finding::Path(event) => path(&event.path),
        Finding::Closed(event) => closed(&event.closed),
    };
    let shown = finding.packet().into_iter().flat_map(|it| &it.conclusions);
    let shown = shown.map(|it| format!("The packet shows {it}"));
    let told = match finding {
        Finding::Connection(event) => event.history.as_ref().and_then(|it| it.clause()),
        Finding::Query(_)
        | Finding::Verdict(_)
        | Finding::Refusal(_)
        | Finding::Path(_)
        | Finding::Closed(_) => None,
    };
    let told = told.map(|it| format!("B{}", escape(it.trim_start_matches('b'))));
    for sentence in shown.chain(told) {
        let end = if words.ends_with('.') { "" } else { "." };
        words.push_str(&format!("{end} {sentence}."));
    }
    words
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

fn path(path: &Path) -> String {
    let cause = || named(path.cause.as_deref(), path.known);
    let by_peer = path.decided_by == Some(DecidedBy::Peer);
    let by = if by_peer { "the peer" } else { "this end" };
    let mut words = match path.kind {
        PathKind::Up => match path.role {
            PathRole::First => "the first path came up".to_owned(),
            PathRole::Join => "path came up".to_owned(),
        },
        PathKind::Open => "path is open".to_owned(),
        PathKind::Failed => format!("path failed: {}", cause()),
        PathKind::ConnectFailed => format!("the connection could not be opened: {}", cause()),
        PathKind::Down => format!("path ended: {}", cause()),
        PathKind::Stale => "path is stale: the scheduler avoids it".to_owned(),
        PathKind::Recovered => "path is used again".to_owned(),
        PathKind::Priority => match path.backup_here || path.backup_peer {
            true => format!("path is a backup now, says {by}"),
            false => format!("path is no backup any more, says {by}"),
        },
        PathKind::AddressAnnounced => format!("{by} announced an address"),
        PathKind::AddressEchoed => "the peer confirmed an address".to_owned(),
        PathKind::AddressDropped => "an address that the peer announced was dropped".to_owned(),
        PathKind::AddressOverLimit => {
            "an address that the peer announced is over the limit, and not used".to_owned()
        }
        PathKind::AddressRemoved => format!("{by} removed an address"),
    };
    if path.kind.is_of_address() {
        let id = if by_peer {
            path.remote_id
        } else {
            path.local_id
        };
        words.extend(id.map(|id| format!(", id {id}")));
        return words;
    }
    let details = [
        path.reset.map(|it| format!("RST: {it}")),
        path.errno.map(|it| it.to_string()),
        path.ledger
            .as_ref()
            .filter(|it| it.bytes_sent > 0 || it.bytes_received > 0)
            .map(|it| {
                let (sent, received) = (amount(it.bytes_sent), amount(it.bytes_received));
                format!("{sent} sent and {received} received on it")
            }),
        path.late.then(|| "noticed late".to_owned()),
    ];
    for more in details.into_iter().flatten() {
        words.push_str(", ");
        words.push_str(&more);
    }
    let is_failure = path.kind != PathKind::Down || path.is_failure();
    if let Some(known) = path
        .cause
        .as_deref()
        .filter(|_| is_failure)
        .and_then(find_cause)
    {
        words.push_str(". ");
        words.push_str(known.meaning);
    }
    words
}

fn closed(closed: &Closed) -> String {
    let outcome = match &closed.outcome {
        Outcome::Mptcp => "MPTCP to the end".to_owned(),
        Outcome::FellBack { at: _, cause } => {
            let cause = cause.as_deref().map_or("cause unknown".to_owned(), escape);
            format!("fell back before: {cause}")
        }
        Outcome::Unknown => "unknown whether it fell back".to_owned(),
    };
    let (sent, received) = (amount(closed.bytes.0), amount(closed.bytes.1));
    let (tried, up) = (closed.paths_tried, closed.paths_up);
    format!("closed: {outcome}; {up} of {tried} paths came up, {sent} sent and {received} received")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        PeerHistory, Spoke, Whose,
        fixture::{Row, cleared},
    };

    #[test]
    fn a_comment_says_what_the_packet_shows_and_what_other_connections_say_of_the_peer() {
        let mut finding = cleared(Row::default().connection());
        let Finding::Connection(event) = &mut finding else {
            unreachable!()
        };
        let spoke = |local: &str, mptcp, tcp| Spoke {
            local: local.into(),
            mptcp,
            tcp,
        };
        event.history = Some(Box::new(PeerHistory {
            whose: Whose::Path(vec!["eth1".into()]),
            spoke: vec![spoke("eth0", 30, 0), spoke("eth1", 0, 42)],
        }));
        let text = note(&finding);
        let end = ". The packet shows option-cleared (certain): 12 bytes of padding. By the connections \
                   so far, the path over eth1 takes MPTCP away: the peer spoke it in 30 of 30 over \
                   eth0, 0 of 42 over eth1.";
        assert!(text.ends_with(end), "{text}");
        assert!(!text.contains(".."), "{text}");
        assert!(!note(&Row::default().connection()).contains("The packet shows"));
    }
}
