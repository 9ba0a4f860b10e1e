//! Events of paths (`path_up`, `path_failed`, `connect_failed`, `path_down`, `path_stale`,
//! `path_recovered`, `path_priority`), and `closed`, the end of a connection.

use super::{
    object::{Moment, Object, Word, ns},
    parts::{endpoint, owner, socket},
};
use crate::model::{
    Closed, ClosedEvent, DecidedBy, Ledger, NeverTried, Outcome, Path, PathEvent, PathSummary,
    ResetReason, Side,
};

pub(super) fn path(event: &PathEvent, data: &mut Object<'_>) {
    let PathEvent {
        path,
        time,
        place,
        of_connection,
        packet,
    } = event;
    let Path {
        kind: _,
        at,
        path: id,
        connection,
        socket: about,
        netns_cookie: _,
        owner: holder,
        unaccepted: _,
        admitted: _,
        removed_ids,
        role,
        side,
        local_id,
        remote_id,
        backup_here,
        backup_peer,
        is_mptcp,
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
    data.field("time", Moment(*time));
    data.field("boottime_ns", ns(*at));
    data.field("id", *connection);
    data.field("path_id", id.map(|it| it.to_string()).as_deref());
    data.field("role", Word(role.name()));
    data.field("cause", cause.as_deref());
    data.field("known", Word(known.name()));
    data.field("decided_by", decided_by.map(DecidedBy::name).map(Word));
    data.maybe_object("reset", reset.as_ref(), self::reset);
    data.field("errno", errno.map(|it| it.to_string()).as_deref());
    data.field("side", side.map(Side::name).map(Word));
    data.field("local_id", *local_id);
    data.field("remote_id", *remote_id);
    data.field("removed_ids", removed_ids.as_slice());
    data.field("backup_here", *backup_here);
    data.field("backup_peer", *backup_peer);
    data.field("mptcp", *is_mptcp);
    data.field("handshake_ns", path.handshake().map(ns));
    data.field("lifetime_ns", path.lifetime().map(ns));
    data.field("up", path.has_been_up());
    data.maybe_object("ledger", ledger.as_ref(), self::ledger);
    data.field("connection_bytes_sent", of_connection.map(|(sent, _)| sent));
    data.field(
        "connection_bytes_received",
        of_connection.map(|(_, received)| received),
    );
    data.field("existing", *existing);
    data.field("late", *late);
    data.maybe_object("packet", packet.as_deref(), super::packet::packet);
    owner(holder.as_ref(), place, data);
    socket(about, data);
    data.field("rung", Word(rung.name()));
}

fn reset(reset: &ResetReason, data: &mut Object<'_>) {
    let ResetReason {
        code,
        transient,
        received,
    } = reset;
    data.field("code", *code);
    data.field("name", reset.name().map(Word));
    data.field("transient", *transient);
    data.field("received", *received);
}

fn ledger(ledger: &Ledger, data: &mut Object<'_>) {
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
    data.field("bytes_sent", *bytes_sent);
    data.field("bytes_retransmitted", *bytes_retransmitted);
    data.field("bytes_received", *bytes_received);
    data.field("retransmissions", *retransmissions);
    data.field("segments_sent", *segments_sent);
    data.field("segments_received", *segments_received);
    data.field("rtt_ns", rtt.map(ns));
    data.field("rtt_min_ns", rtt_min.map(ns));
}

pub(super) fn closed(event: &ClosedEvent, data: &mut Object<'_>) {
    let ClosedEvent {
        closed,
        time,
        place,
    } = event;
    let Closed {
        id,
        at,
        socket: about,
        owner: holder,
        side,
        outcome,
        duration,
        paths_tried,
        paths_up,
        paths_failed,
        paths_most,
        paths,
        bytes: (sent, received),
        queries,
        never_tried,
        incomplete,
        admitted: _,
    } = closed;
    data.field("time", Moment(*time));
    data.field("boottime_ns", ns(*at));
    data.field("id", *id);
    data.field("outcome", Word(outcome.name()));
    let cause = match outcome {
        Outcome::FellBack { at: _, cause } => cause.as_deref(),
        Outcome::Mptcp | Outcome::Unknown => None,
    };
    data.field("cause", cause);
    data.field("side", side.map(Side::name).map(Word));
    data.field("duration_ns", duration.map(ns));
    data.field("paths_tried", *paths_tried);
    data.field("paths_up", *paths_up);
    data.field("paths_failed", *paths_failed);
    data.field("paths_most", *paths_most);
    data.field("bytes_sent", *sent);
    data.field("bytes_received", *received);
    data.field("queries", *queries);
    data.field("never_tried", never_tried.map(NeverTried::name).map(Word));
    data.field("incomplete", *incomplete);
    data.objects("paths", paths, summary);
    owner(holder.as_ref(), place, data);
    socket(about, data);
}

fn summary(path: &PathSummary, data: &mut Object<'_>) {
    let PathSummary {
        socket,
        role,
        lifetime,
        cause,
        was_up,
        ledger,
    } = path;
    data.field("role", Word(role.name()));
    data.object("local", |data| endpoint(socket.local, data));
    data.object("remote", |data| endpoint(socket.remote, data));
    data.field("up", *was_up);
    data.field("lifetime_ns", lifetime.map(ns));
    data.field("cause", cause.as_deref());
    data.maybe_object("ledger", ledger.as_ref(), self::ledger);
}
