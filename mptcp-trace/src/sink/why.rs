//! What a finding means, in one sentence (`--why`).

mod path;

use super::{
    escape,
    row::{OFF_SYSCTL, who},
};
use crate::model::{
    Cause, CauseCertainty, Connection, ConnectionEvent, ConnectionKind, Finding, Side, SwitchedOff,
    displayed, find_cause, short,
};

/// The meaning of a finding; empty if there is nothing to add. Text from outside is escaped.
pub(super) fn why(finding: &Finding) -> String {
    let mut sentence = meaning(finding);
    if let Some(packet) = finding.packet() {
        for conclusion in &packet.conclusions {
            follow(&mut sentence, &format!("the packet shows {conclusion}"));
        }
    }
    sentence
}

/// Adds a clause, or a new sentence after a whole one.
fn follow(text: &mut String, clause: &str) {
    if !text.ends_with('.') {
        text.push_str("; ");
        text.push_str(clause);
        return;
    }
    let mut letters = clause.chars();
    text.push(' ');
    text.extend(letters.next().map(|it| it.to_ascii_uppercase()));
    text.push_str(letters.as_str());
}

fn meaning(finding: &Finding) -> String {
    match finding {
        Finding::Query(event) => {
            let judgement = event.judgement.as_ref();
            judgement.map_or_else(String::new, |it| escape(&it.sentence))
        }
        Finding::Connection(event) => of_connection(event),
        Finding::Verdict(event) => {
            let doubt = event.doubt.as_deref();
            let doubt = doubt.map(|doubt| format!("; in doubt: {}", escape(doubt)));
            escape(&event.judgement.sentence) + &doubt.unwrap_or_default()
        }
        Finding::Refusal(event) => event.refusal.why().to_owned(),
        Finding::Path(event) => path::of_path(&event.path),
        Finding::Closed(event) => path::of_closed(&event.closed),
    }
}

fn of_connection(event: &ConnectionEvent) -> String {
    let ConnectionEvent {
        connection,
        time: _,
        place: _,
        switched_off,
        packet: _,
        history,
    } = event;
    match connection.kind {
        ConnectionKind::Fallback => {
            let mut text = explained(connection);
            let told = history.as_ref().and_then(|it| it.clause());
            let more = [
                blame(switched_off.as_ref(), connection),
                told.map(|it| escape(&it)),
                probe(connection),
            ];
            for clause in more.into_iter().flatten() {
                follow(&mut text, &clause);
            }
            text
        }
        ConnectionKind::FallbackDenied => format!(
            "the kernel had to fall back, was not allowed to, and reset the subflow: {}",
            explained(connection)
        ),
        ConnectionKind::Plain => match connection.known {
            CauseCertainty::Inferred | CauseCertainty::Reported => {
                "the client did not request MPTCP, or no token was available".to_owned()
            }
            CauseCertainty::Unknown => "the client did not request MPTCP, no token was available, \
                                        or its third packet came without MPTCP"
                .to_owned(),
        },
        ConnectionKind::Existing => match connection.fell_back {
            Some(true) => format!("fell back before tracing began: {}", explained(connection)),
            Some(false) => "was open before tracing began, and is MPTCP".to_owned(),
            None => "was open before tracing began; whether it fell back is unknown".to_owned(),
        },
        ConnectionKind::Blackhole => {
            let off_for = connection
                .off_for
                .map_or_else(|| "an unknown time".to_owned(), short);
            format!(
                "SYNs with MPTCP were not answered, one without was: the kernel requests no MPTCP \
                 in this network namespace for {off_for} ({OFF_SYSCTL})"
            )
        }
    }
}

/// What the catalogue says of a cause.
fn explained(connection: &Connection) -> String {
    let found = connection.cause.as_deref().and_then(find_cause);
    found.map_or_else(
        || "the cause could not be determined".to_owned(),
        |it| it.meaning.to_owned(),
    )
}

/// The command that asks the path, if this end connected and the peer or the path may be at fault.
fn probe(connection: &Connection) -> Option<String> {
    let cause = connection.cause.as_deref().and_then(find_cause);
    let is_outside = cause.is_some_and(Cause::is_probed);
    let to = displayed(connection.socket.remote);
    if connection.side != Some(Side::Active) || !is_outside || to.port() == 0 {
        return None;
    }
    Some(format!("next: mptcp-trace probe {to}"))
}

/// Since when and for how long MPTCP is off, and which connection caused it.
fn blame(switched_off: Option<&SwitchedOff>, connection: &Connection) -> Option<String> {
    let SwitchedOff {
        at,
        off_for,
        id: _,
        remote,
        owner,
    } = switched_off?;
    let since = short(connection.at.saturating_sub(*at));
    let off_for = off_for.map_or_else(|| "an unknown time".to_owned(), short);
    let (pid, comm) = who(owner.as_ref());
    Some(format!(
        "off for {off_for} ({OFF_SYSCTL}) since {since} before, when {comm} {pid} reached {} only \
         without MPTCP",
        displayed(*remote)
    ))
}
