//! Attributes of paths, of connections that ended, and of packets.

use serde_json::Value;

use super::{boottime, connection_id, error, ns, place, process, socket};
use crate::{
    model::{
        Closed, ClosedEvent, Ledger, NeverTried, Outcome, Packet, Path, PathEvent, ResetReason,
        Side,
    },
    serve::otlp::{boolean, int, string},
};

pub(super) fn path(event: &PathEvent, cgroup: Option<&str>, to: &mut Vec<Value>) {
    let PathEvent {
        path,
        time: _,
        place: lives,
        of_connection: _,
        packet: _,
    } = event;
    let Path {
        kind: _,
        at,
        path: id,
        connection,
        socket: about,
        netns_cookie: _,
        owner,
        unaccepted: _,
        admitted: _,
        removed_ids,
        role,
        side,
        local_id,
        remote_id,
        backup_here,
        backup_peer,
        is_mptcp: _,
        began_at: _,
        up_at: _,
        was_reported_up: _,
        cause,
        known,
        decided_by,
        reset,
        rst_received: _,
        rst_sent: _,
        errno,
        ledger,
        manager: _,
        token: _,
        marks: _,
        is_stale: _,
        existing,
        late,
        rung,
    } = path;
    if let Some(owner) = owner {
        process(&owner.process, lives.cgroup.as_deref().or(cgroup), to);
    }
    place(lives, to);
    socket(about, to);
    to.extend(connection.map(connection_id));
    to.extend(id.map(|id| string("mptcp.path.id", &id.to_string())));
    to.push(string("mptcp.path.role", role.name()));
    to.extend(cause.as_deref().map(|cause| string("mptcp.cause", cause)));
    to.push(string("mptcp.known", known.name()));
    to.extend(decided_by.map(|by| string("mptcp.decided_by", by.name())));
    to.extend(side.map(|side| string("mptcp.side", Side::name(side))));
    if let Some(reset) = reset {
        self::reset(*reset, to);
    }
    to.extend(errno.map(error));
    to.extend(local_id.map(|id| int("mptcp.path.local_id", id)));
    to.extend(remote_id.map(|id| int("mptcp.path.remote_id", id)));
    to.extend(removed(removed_ids));
    to.push(boolean("mptcp.path.backup_here", *backup_here));
    to.push(boolean("mptcp.path.backup_peer", *backup_peer));
    to.push(boolean("mptcp.path.up", path.has_been_up()));
    let (handshake, lifetime) = (path.handshake(), path.lifetime());
    to.extend(handshake.map(|it| int("mptcp.path.handshake_ns", ns(it))));
    to.extend(lifetime.map(|it| int("mptcp.path.lifetime_ns", ns(it))));
    if let Some(ledger) = ledger {
        self::ledger(ledger, to);
    }
    to.push(boolean("mptcp.path.existing", *existing));
    to.push(boolean("mptcp.path.late", *late));
    to.push(string("mptcp.rung", rung.name()));
    to.push(boottime(*at));
}

/// Ids of addresses that were removed.
fn removed(ids: &[u8]) -> Option<Value> {
    let ids: Vec<String> = ids.iter().map(u8::to_string).collect();
    (!ids.is_empty()).then(|| string("mptcp.path.removed_ids", &ids.join(",")))
}

fn reset(reset: ResetReason, to: &mut Vec<Value>) {
    let ResetReason {
        code,
        transient,
        received,
    } = reset;
    to.push(int("mptcp.reset.code", code));
    to.extend(reset.name().map(|name| string("mptcp.reset.name", name)));
    to.push(boolean("mptcp.reset.transient", transient));
    to.push(boolean("mptcp.reset.received", received));
}

fn ledger(ledger: &Ledger, to: &mut Vec<Value>) {
    let Ledger {
        bytes_sent,
        bytes_retransmitted,
        bytes_received,
        retransmissions,
        segments_sent,
        segments_received,
        rtt,
        rtt_min,
    } = ledger;
    to.push(int("mptcp.bytes_sent", *bytes_sent));
    to.push(int("mptcp.bytes_retransmitted", *bytes_retransmitted));
    to.push(int("mptcp.bytes_received", *bytes_received));
    to.push(int("mptcp.retransmissions", *retransmissions));
    to.push(int("mptcp.segments_sent", *segments_sent));
    to.push(int("mptcp.segments_received", *segments_received));
    to.extend(rtt.map(|rtt| int("mptcp.rtt_ns", ns(rtt))));
    to.extend(rtt_min.map(|rtt| int("mptcp.rtt_min_ns", ns(rtt))));
}

pub(super) fn closed(event: &ClosedEvent, cgroup: Option<&str>, to: &mut Vec<Value>) {
    let ClosedEvent {
        closed,
        time: _,
        place: lives,
    } = event;
    let Closed {
        id,
        at,
        socket: about,
        owner,
        side,
        outcome,
        duration,
        paths_tried,
        paths_up,
        paths_failed,
        paths_most,
        // Each has a record of its own.
        paths: _,
        bytes: (sent, received),
        queries,
        never_tried,
        incomplete,
        admitted: _,
    } = closed;
    if let Some(owner) = owner {
        process(&owner.process, lives.cgroup.as_deref().or(cgroup), to);
    }
    place(lives, to);
    socket(about, to);
    to.push(connection_id(*id));
    to.push(string("mptcp.outcome", outcome.name()));
    let (cause, fell_back) = match outcome {
        Outcome::FellBack { at: _, cause } => (cause.as_deref(), Some(true)),
        Outcome::Mptcp => (None, Some(false)),
        Outcome::Unknown => (None, None),
    };
    to.extend(cause.map(|cause| string("mptcp.cause", cause)));
    to.extend(fell_back.map(|it| boolean("mptcp.fell_back", it)));
    to.extend(side.map(|side| string("mptcp.side", Side::name(side))));
    to.extend(duration.map(|it| int("mptcp.duration_ns", ns(it))));
    to.push(int("mptcp.paths_tried", *paths_tried));
    to.push(int("mptcp.paths_up", *paths_up));
    to.push(int("mptcp.paths_failed", *paths_failed));
    to.push(int("mptcp.paths_most", *paths_most));
    to.push(int("mptcp.bytes_sent", *sent));
    to.push(int("mptcp.bytes_received", *received));
    to.push(int("mptcp.questions", *queries));
    let never_tried = never_tried.map(NeverTried::name);
    to.extend(never_tried.map(|why| string("mptcp.never_tried", why)));
    to.push(boolean("mptcp.incomplete", *incomplete));
    to.push(boottime(*at));
}

/// What the packet shows that decided.
pub(super) fn packet(packet: &Packet, to: &mut Vec<Value>) {
    let shown = &packet.conclusions;
    let names: Vec<&str> = shown.iter().map(|it| it.what.name()).collect();
    to.push(string("mptcp.packet.shows", &names.join(",")));
    to.extend(
        shown
            .first()
            .map(|it| string("mptcp.packet.certainty", it.certainty.name())),
    );
    to.push(string("mptcp.packet.headers", &packet.description()));
}
