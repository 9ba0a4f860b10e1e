//! Sentences about paths, and about connections that ended.

use super::super::escape;
use crate::model::{
    CauseGroup, Closed, Outcome, Path, PathKind, PathRole, ResetReason, find_cause, short,
};

pub(super) fn of_path(path: &Path) -> String {
    match (path.kind, path.role) {
        (PathKind::Up, PathRole::First) => {
            "the first path is up: the connection is open".to_owned()
        }
        (PathKind::Up, PathRole::Join) => {
            "the path joined the connection: data can be sent on it".to_owned()
        }
        (PathKind::Open, _) => "the path was open when tracing began, or when the sockets were listed".to_owned(),
        (PathKind::AddressAnnounced, _) => {
            "the other end may open a path to this address (ADD_ADDR)".to_owned()
        }
        (PathKind::AddressEchoed, _) => {
            "the peer received the announcement of this address (ADD_ADDR with echo)".to_owned()
        }
        (PathKind::AddressDropped, _) => {
            "this end did not handle the announcement: another one was waiting, or the path manager \
             is in userspace and no program listens"
                .to_owned()
        }
        (PathKind::AddressOverLimit, _) => {
            "this end opens no path to the address: its limit of announced addresses is reached (ip \
             mptcp limits, add_addr_accepted)"
                .to_owned()
        }
        (PathKind::AddressRemoved, _) => {
            "paths that use these addresses are closed (RM_ADDR)".to_owned()
        }
        (PathKind::Failed | PathKind::ConnectFailed | PathKind::Down, _) => caused(path),
        (PathKind::Stale, _) => {
            "the peer acknowledged nothing on this path for several retransmission timeouts; the \
             scheduler uses other paths until it does"
                .to_owned()
        }
        (PathKind::Recovered, _) => {
            "the peer acknowledges data on this path again; the scheduler uses it".to_owned()
        }
        (PathKind::Priority, _) => match (path.backup_here, path.backup_peer) {
            (false, false) => "the path is used like any other one".to_owned(),
            (true, true) => {
                "both ends want to use the path only if no other one works (backup)".to_owned()
            }
            (true, false) => {
                "this end wants to use the path only if no other one works (backup)".to_owned()
            }
            (false, true) => {
                "the peer wants to use the path only if no other one works (backup)".to_owned()
            }
        },
    }
}

/// What the catalogue says of the cause, and of the reason that the peer gave.
fn caused(path: &Path) -> String {
    let found = path.cause.as_deref().and_then(find_cause);
    let meaning = match (found, &path.cause) {
        (Some(cause), _) => cause.meaning.to_owned(),
        (None, Some(unknown)) => format!("no explanation of {} is known", escape(unknown)),
        (None, None) => "the cause could not be determined".to_owned(),
    };
    // Which of the causes that a refusal may have is in the reason.
    let reason = path.reset.filter(|it| it.received).and_then(reason);
    let unanswered = unanswered(path);
    let sentences = [Some(meaning), reason, unanswered];
    sentences
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

/// That SYNs got no answer until the end closed the socket: the kernel itself would go on for minutes.
fn unanswered(path: &Path) -> Option<String> {
    let is_closed = ["MPJoinClosedMeanwhile", "MPCapableClosedMeanwhile"]
        .iter()
        .any(|name| path.cause.as_deref() == Some(name));
    let again = path.ledger.filter(|_| is_closed)?.retransmissions;
    let after = path.lifetime().map(|it| format!(" in {}", short(it)));
    (again > 0).then(|| {
        format!(
            "Here {} SYNs were not answered{}.",
            u64::from(again) + 1,
            after.unwrap_or_default()
        )
    })
}

fn reason(reset: ResetReason) -> Option<String> {
    let term = reset.term()?;
    let transient = if reset.transient { " It may pass." } else { "" };
    Some(format!("{}: {}{transient}", term.name, term.meaning))
}

pub(super) fn of_closed(closed: &Closed) -> String {
    let mut sentences = Vec::new();
    sentences.push(match &closed.outcome {
        Outcome::Mptcp => "The connection was MPTCP to its end.".to_owned(),
        Outcome::FellBack { at: _, cause } => {
            let found = cause.as_deref().and_then(find_cause);
            let found = found.filter(|it| it.group == CauseGroup::Fallback);
            match found {
                Some(cause) => format!("The connection fell back to TCP. {}", cause.meaning),
                None => {
                    "The connection fell back to TCP; the cause could not be determined.".to_owned()
                }
            }
        }
        Outcome::Unknown => {
            "It is unknown whether the connection fell back: the fallback sensor was off."
                .to_owned()
        }
    });
    sentences.extend(
        closed
            .never_tried
            .map(|it| format!("No second path was tried. {}", it.term().meaning)),
    );
    if closed.queries == 0 {
        sentences.push("The application did not query it.".to_owned());
    }
    sentences.join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Ledger, fixture::a_path};

    #[test]
    fn syns_without_an_answer_are_counted_and_a_short_connection_has_none() {
        let said = |retransmissions, cause: &'static str| {
            let mut path = a_path(PathKind::Failed);
            (path.cause, path.reset) = (Some(cause.into()), None);
            (path.began_at, path.at) = (Some(Duration::from_secs(1)), Duration::from_secs(21));
            path.ledger = Some(Ledger {
                retransmissions,
                ..Ledger::default()
            });
            of_path(&path)
        };
        let many = said(8, "MPJoinClosedMeanwhile");
        assert!(
            many.ends_with("Here 9 SYNs were not answered in 20.0 s."),
            "{many}"
        );
        assert!(!said(0, "MPJoinClosedMeanwhile").contains("not answered in"));
        assert!(!said(8, "MPJoinSynTimeout").contains("Here"));
    }
}
