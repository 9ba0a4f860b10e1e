//! Connection events (`fallback`, `refused`, `plain`, `existing`, `blackhole`), and `socket`, the
//! current state of a socket.

use super::{
    object::{Moment, Object, Word, ns},
    parts::{endpoint, millis, owner, socket},
};
use crate::model::{
    Connection, ConnectionEvent, Current, LastAsked, PeerHistory, Side, Spoke, Stage, SwitchedOff,
};

pub(super) fn connection(event: &ConnectionEvent, data: &mut Object<'_>) {
    let ConnectionEvent {
        connection,
        time,
        place,
        switched_off: earlier,
        packet,
        history,
    } = event;
    let Connection {
        kind: _,
        at,
        id,
        socket: about,
        owner: holder,
        unaccepted: _,
        admitted: _,
        cause,
        known,
        side,
        stage,
        since_connect,
        bytes,
        // Printed for open sockets only: a fallback needs a single subflow.
        subflows: _,
        evidence,
        existing,
        query_untraced: _,
        fell_back,
        late,
        current,
        off_for,
        rung,
        netns_cookie: _,
        connecting: _,
        marks: _,
    } = connection;
    let evidence: Vec<&'static str> = evidence.iter().map(|it| it.name()).collect();
    data.field("time", Moment(*time));
    data.field("boottime_ns", ns(*at));
    data.field("id", *id);
    data.field("cause", cause.as_deref());
    data.field("known", Word(known.name()));
    data.field("side", side.map(Side::name).map(Word));
    data.field("stage", stage.map(Stage::name).map(Word));
    data.field("since_connect_ns", since_connect.map(ns));
    data.field("bytes_sent", bytes.map(|(sent, _)| sent));
    data.field("bytes_received", bytes.map(|(_, received)| received));
    data.field("evidence", evidence.as_slice());
    data.field("existing", *existing);
    data.field("fell_back", *fell_back);
    data.field("late", *late);
    data.field("off_ms", off_for.and_then(millis));
    data.maybe_object("switched_off", earlier.as_ref(), switched_off);
    data.maybe_object("packet", packet.as_deref(), super::packet::packet);
    self::history(history.as_deref(), data);
    owner(holder.as_ref(), place, data);
    data.object("current", |data| {
        let Current {
            pid,
            host_pid,
            comm,
        } = current;
        data.field("pid", *pid);
        if *pid != Some(*host_pid) {
            data.field("host_pid", *host_pid);
        }
        data.field("comm", comm.as_str());
    });
    socket(about, data);
    data.field("rung", Word(rung.name()));
}

fn history(history: Option<&PeerHistory>, data: &mut Object<'_>) {
    data.field("peer_or_path", history.map(|it| Word(it.whose.name())));
    let spoke = history.into_iter().flat_map(|it| &it.spoke);
    data.objects("spoke", spoke, |Spoke { local, mptcp, tcp }, data| {
        data.field("over", local.as_str());
        data.field("mptcp", *mptcp);
        data.field("tcp", *tcp);
    });
}

fn switched_off(earlier: &SwitchedOff, data: &mut Object<'_>) {
    let SwitchedOff {
        at,
        off_for,
        id,
        remote,
        owner,
    } = earlier;
    let process = owner.as_ref().map(|owner| &owner.process);
    data.field("boottime_ns", ns(*at));
    data.field("off_ms", off_for.and_then(millis));
    data.field("id", *id);
    data.object("remote", |data| endpoint(*remote, data));
    data.field("pid", process.and_then(|process| process.pid));
    data.field("comm", process.map(|process| process.comm.as_str()));
}

pub(super) fn listed(event: &ConnectionEvent, asked: Option<LastAsked>, data: &mut Object<'_>) {
    let Connection {
        id,
        socket: about,
        owner: holder,
        cause,
        known,
        side,
        bytes,
        subflows,
        fell_back,
        ..
    } = &event.connection;
    data.field("id", *id);
    data.field("fell_back", *fell_back);
    data.field("cause", cause.as_deref());
    data.field("known", Word(known.name()));
    data.field("side", side.map(Side::name).map(Word));
    data.field("bytes_sent", bytes.map(|(sent, _)| sent));
    data.field("bytes_received", bytes.map(|(_, received)| received));
    data.field("subflows", *subflows);
    data.maybe_object("asked", asked, |LastAsked { at, api, answer }, data| {
        data.field("api", Word(api.name()));
        data.field("answer", answer.word().map(Word));
        data.field("answered_at_ns", ns(at));
    });
    owner(holder.as_ref(), &event.place, data);
    socket(about, data);
}
