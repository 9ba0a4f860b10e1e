//! What a finding means, in one sentence (`--why`).

use super::{
    escape,
    row::{OFF_SYSCTL, who},
};
use crate::model::{
    CauseCertainty, Connection, ConnectionEvent, ConnectionKind, Finding, SwitchedOff, displayed,
    find_cause, short,
};

/// The meaning of a finding; empty if there is nothing to add. Text from outside is escaped.
pub(super) fn why(finding: &Finding) -> String {
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
    }
}

fn of_connection(event: &ConnectionEvent) -> String {
    let ConnectionEvent {
        connection,
        time: _,
        place: _,
        switched_off,
    } = event;
    match connection.kind {
        ConnectionKind::Fallback => {
            explained(connection) + &blame(switched_off.as_ref(), connection)
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

/// Since when and for how long MPTCP is off, and which connection caused it.
fn blame(switched_off: Option<&SwitchedOff>, connection: &Connection) -> String {
    let Some(SwitchedOff {
        at,
        off_for,
        id: _,
        remote,
        owner,
    }) = switched_off
    else {
        return String::new();
    };
    let since = short(connection.at.saturating_sub(*at));
    let off_for = off_for.map_or_else(|| "an unknown time".to_owned(), short);
    let (pid, comm) = who(owner.as_ref());
    format!(
        "; off for {off_for} ({OFF_SYSCTL}) since {since} before, when {comm} {pid} reached \
         {} only without MPTCP",
        displayed(*remote)
    )
}
