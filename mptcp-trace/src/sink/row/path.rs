//! The cells of an event of a path, and of the end of a connection.

use super::{About, DIM, GREEN, RED, YELLOW, escape, shown};
use crate::model::{
    CauseCertainty, Closed, ClosedEvent, DecidedBy, Ledger, NeverTried, Outcome, Path, PathEvent,
    PathKind, PathRole, ResetReason, Side, amount, short,
};

pub(super) fn of_path(event: &PathEvent) -> About {
    let path = &event.path;
    About {
        result: result(path),
        paint: match path.kind {
            PathKind::Up | PathKind::Open | PathKind::Recovered => GREEN,
            PathKind::Failed | PathKind::ConnectFailed => RED,
            PathKind::Stale | PathKind::AddressDropped | PathKind::AddressOverLimit => YELLOW,
            PathKind::Down if path.is_failure() => RED,
            PathKind::Down
            | PathKind::Priority
            | PathKind::AddressAnnounced
            | PathKind::AddressEchoed
            | PathKind::AddressRemoved => DIM,
        },
        after: match path.kind {
            // A passive path begins with its third ACK.
            PathKind::Up => path.handshake().filter(|it| !it.is_zero()),
            PathKind::Open
            | PathKind::AddressAnnounced
            | PathKind::AddressEchoed
            | PathKind::AddressDropped
            | PathKind::AddressOverLimit
            | PathKind::AddressRemoved => None,
            PathKind::Failed
            | PathKind::ConnectFailed
            | PathKind::Down
            | PathKind::Stale
            | PathKind::Recovered
            | PathKind::Priority => path.lifetime(),
        },
        details: details(event)
            .into_iter()
            .chain(shown(event.packet.as_deref()))
            .collect(),
    }
}

fn result(path: &Path) -> String {
    match path.kind {
        PathKind::Up | PathKind::Open => role(path).to_owned(),
        PathKind::AddressAnnounced | PathKind::AddressRemoved => match path.decided_by {
            Some(DecidedBy::Peer) => "by the peer".to_owned(),
            Some(DecidedBy::Here | DecidedBy::Nobody) | None => "by this end".to_owned(),
        },
        PathKind::AddressEchoed => "by the peer".to_owned(),
        PathKind::AddressDropped => "not used".to_owned(),
        PathKind::AddressOverLimit => "limit reached".to_owned(),
        PathKind::Failed | PathKind::ConnectFailed | PathKind::Down => {
            match (&path.cause, path.known) {
                (Some(cause), CauseCertainty::Reported) => escape(cause),
                (Some(cause), CauseCertainty::Inferred | CauseCertainty::Unknown) => {
                    format!("{}?", escape(cause))
                }
                (None, _) => "cause unknown".to_owned(),
            }
        }
        PathKind::Stale => "avoided".to_owned(),
        PathKind::Recovered => "used again".to_owned(),
        PathKind::Priority => match (path.backup_here, path.backup_peer) {
            (false, false) => "not a backup".to_owned(),
            (here, peer) => backup(here, peer).to_owned(),
        },
    }
}

fn role(path: &Path) -> &'static str {
    match (path.role, path.side) {
        (PathRole::First, Some(Side::Active)) => "first path, client",
        (PathRole::First, Some(Side::Passive)) => "first path, server",
        (PathRole::First, None) => "first path",
        (PathRole::Join, Some(Side::Passive)) => "join by the peer",
        (PathRole::Join, Some(Side::Active) | None) => "join",
    }
}

/// Which end wants a path as a backup.
fn backup(here: bool, peer: bool) -> &'static str {
    match (here, peer) {
        (true, true) => "backup",
        (true, false) => "backup here",
        (false, true) => "backup at the peer",
        (false, false) => "no backup",
    }
}

fn details(event: &PathEvent) -> Vec<String> {
    let path = &event.path;
    let mut details: Vec<String> = Vec::new();
    if path.kind.is_of_address() {
        details.extend(addresses(path));
        return details;
    }
    // What says most comes first: a terminal may show no more.
    details.extend(path.reset.and_then(reset));
    details.extend(path.errno.map(|it| it.to_string()));
    if path.kind != PathKind::Up {
        details.push(role(path).to_owned());
    }
    if path.role == PathRole::Join {
        let id = |id: Option<u8>| id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        if path.local_id.is_some() || path.remote_id.is_some() {
            details.push(format!("ids {}/{}", id(path.local_id), id(path.remote_id)));
        }
        if path.kind != PathKind::Priority && (path.backup_here || path.backup_peer) {
            details.push(backup(path.backup_here, path.backup_peer).to_owned());
        }
    }
    if !path.is_mptcp && path.kind == PathKind::Down {
        details.push("fell back".to_owned());
    }
    if let Some(ledger) = &path.ledger {
        details.extend(carried(ledger, event.of_connection));
    }
    if path.existing {
        details.push("opened earlier".to_owned());
    }
    if path.late {
        details.push("noticed late".to_owned());
    }
    details
}

/// Ids of addresses that are announced or removed.
fn addresses(path: &Path) -> Vec<String> {
    let mut details: Vec<String> = Vec::new();
    let by_peer = path.decided_by == Some(DecidedBy::Peer);
    let id = match (path.kind, by_peer) {
        (PathKind::AddressEchoed, _) | (_, false) => path.local_id,
        (_, true) => path.remote_id,
    };
    details.extend(id.map(|id| format!("id {id}")));
    if !path.removed_ids.is_empty() {
        let ids: Vec<String> = path.removed_ids.iter().map(u8::to_string).collect();
        let word = if ids.len() == 1 { "id" } else { "ids" };
        details.push(format!("{word} {}", ids.join(", ")));
    }
    details.extend(path.errno.map(|it| it.to_string()));
    details
}

/// The reason in an RST; nothing to say of one that this end sent without a reason.
fn reset(reset: ResetReason) -> Option<String> {
    let way = match (reset.received, reset.code) {
        (false, 0) => return None,
        (false, _) => "sent",
        (true, _) => "received",
    };
    let transient = if reset.transient { " (transient)" } else { "" };
    Some(format!("{way} RST: {reset}{transient}"))
}

/// What a path carried, with its share of what all paths of the connection carried.
fn carried(ledger: &Ledger, of_connection: Option<(u64, u64)>) -> Vec<String> {
    let Ledger {
        bytes_sent,
        bytes_retransmitted: _,
        bytes_received,
        retransmissions,
        segments_sent: _,
        segments_received: _,
        rtt,
        rtt_min: _,
    } = ledger;
    let share = |part: u64, of: Option<u64>| match of {
        // A connection with one path needs no share.
        Some(all) if all > part => {
            let percent = u128::from(part) * 100 / u128::from(all);
            format!(" ({percent} %)")
        }
        Some(_) | None => String::new(),
    };
    let mut words = Vec::new();
    for (bytes, word, all) in [
        (*bytes_sent, "sent", of_connection.map(|it| it.0)),
        (*bytes_received, "received", of_connection.map(|it| it.1)),
    ] {
        if bytes > 0 || all.is_some_and(|all| all > 0) {
            words.push(format!("{} {word}{}", amount(bytes), share(bytes, all)));
        }
    }
    if *retransmissions > 0 {
        words.push(format!("{retransmissions} retransmitted"));
    }
    words.extend(rtt.map(|rtt| format!("RTT {}", short(rtt))));
    words
}

pub(super) fn of_closed(event: &ClosedEvent) -> About {
    let closed = &event.closed;
    let (result, paint) = match &closed.outcome {
        Outcome::Mptcp => ("mptcp", GREEN),
        Outcome::FellBack { .. } => ("fell back", YELLOW),
        Outcome::Unknown => ("unknown", DIM),
    };
    let mut details = Vec::new();
    if let Outcome::FellBack { at: _, cause } = &closed.outcome {
        let cause = cause.as_deref();
        details.push(cause.map_or_else(|| "cause unknown".to_owned(), escape));
    }
    details.push(paths(closed));
    details.extend(closed.never_tried.map(never_tried));
    details.push(match closed.queries {
        0 => "no query".to_owned(),
        1 => "1 query".to_owned(),
        many => format!("{many} queries"),
    });
    let (sent, received) = closed.bytes;
    details.push(format!(
        "{} sent, {} received",
        amount(sent),
        amount(received)
    ));
    if closed.incomplete {
        details.push("not all of it observed".to_owned());
    }
    About {
        result: result.to_owned(),
        paint,
        after: closed.duration,
        details,
    }
}

/// How many paths were tried, came up and failed.
fn paths(closed: &Closed) -> String {
    let Closed {
        paths_tried: tried,
        paths_up: up,
        paths_failed: failed,
        ..
    } = closed;
    match (tried, up, failed) {
        (1, 1, 0) => "1 path".to_owned(),
        (tried, up, 0) if tried == up => format!("{up} paths"),
        (tried, up, 0) => format!("{up} of {tried} paths up"),
        (tried, up, failed) => format!("{up} of {tried} paths up, {failed} failed"),
    }
}

fn never_tried(reason: NeverTried) -> String {
    format!("no second path: {}", reason.name())
}
