//! What happens to connections: `fallback`, `refused`, `plain`, `existing`, `blackhole`; and `socket`, what there is.

use serde::Serialize;

use super::parts::{Endpoint, OwnerData, Rfc3339, SocketFields, Text, millis, ns};
use crate::model::{
    Connection, ConnectionEvent, ConnectionId, LastAsked, Side, Stage, SwitchedOff,
};

#[derive(Serialize)]
pub(super) struct ConnectionData<'a> {
    time: Text<Rfc3339>,
    boottime_ns: u64,
    id: Text<ConnectionId>,
    cause: Option<&'a str>,
    known: &'static str,
    side: Option<&'static str>,
    stage: Option<&'static str>,
    since_connect_ns: Option<u64>,
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    evidence: Vec<&'static str>,
    existing: bool,
    fell_back: Option<bool>,
    late: bool,
    off_ms: Option<u64>,
    switched_off: Option<SwitchedOffData<'a>>,
    owner: Option<OwnerData<'a>>,
    current: Current<'a>,
    #[serde(flatten)]
    socket: SocketFields,
    rung: &'static str,
}

#[derive(Serialize)]
struct SwitchedOffData<'a> {
    boottime_ns: u64,
    off_ms: Option<u64>,
    id: Text<ConnectionId>,
    remote: Endpoint,
    pid: Option<u32>,
    comm: Option<&'a str>,
}

#[derive(Serialize)]
struct Current<'a> {
    pid: u32,
    comm: &'a str,
}

impl<'a> ConnectionData<'a> {
    pub(super) fn of(event: &'a ConnectionEvent) -> Self {
        let ConnectionEvent {
            connection,
            time,
            place,
            switched_off,
        } = event;
        let Connection {
            kind: _,
            at,
            id,
            socket,
            owner,
            unaccepted: _,
            admitted: _,
            cause,
            known,
            side,
            stage,
            since_connect,
            bytes,
            // Said of sockets that are there, not of what happened: only the last subflow can fall back.
            subflows: _,
            evidence,
            existing,
            untold: _,
            fell_back,
            late,
            current: (current_pid, current_comm),
            off_for,
            rung,
        } = connection;
        Self {
            time: Text(Rfc3339(*time)),
            boottime_ns: ns(*at),
            id: Text(*id),
            cause: cause.as_deref(),
            known: known.name(),
            side: side.map(Side::name),
            stage: stage.map(Stage::name),
            since_connect_ns: since_connect.map(ns),
            bytes_sent: bytes.map(|(sent, _)| sent),
            bytes_received: bytes.map(|(_, received)| received),
            evidence: evidence.iter().map(|it| it.name()).collect(),
            existing: *existing,
            fell_back: *fell_back,
            late: *late,
            off_ms: off_for.and_then(millis),
            switched_off: switched_off.as_ref().map(SwitchedOffData::of),
            owner: owner.as_ref().map(|owner| OwnerData::of(owner, place)),
            current: Current {
                pid: *current_pid,
                comm: current_comm,
            },
            socket: SocketFields::of(socket),
            rung: rung.name(),
        }
    }
}

impl<'a> SwitchedOffData<'a> {
    fn of(switched_off: &'a SwitchedOff) -> Self {
        let SwitchedOff {
            at,
            off_for,
            id,
            remote,
            owner,
        } = switched_off;
        let process = owner.as_ref().map(|owner| &owner.process);
        Self {
            boottime_ns: ns(*at),
            off_ms: off_for.and_then(millis),
            id: Text(*id),
            remote: Endpoint::of(*remote),
            pid: process.map(|process| process.pid),
            comm: process.map(|process| process.comm.as_str()),
        }
    }
}

#[derive(Serialize)]
pub(super) struct SocketData<'a> {
    id: Text<ConnectionId>,
    fell_back: Option<bool>,
    cause: Option<&'a str>,
    known: &'static str,
    side: Option<&'static str>,
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    subflows: Option<u16>,
    asked: Option<AskedData>,
    owner: Option<OwnerData<'a>>,
    #[serde(flatten)]
    socket: SocketFields,
}

#[derive(Serialize)]
struct AskedData {
    api: &'static str,
    answer: Option<&'static str>,
    answered_at_ns: u64,
}

impl<'a> SocketData<'a> {
    pub(super) fn of(event: &'a ConnectionEvent, asked: Option<LastAsked>) -> Self {
        let ConnectionData {
            id,
            cause,
            known,
            side,
            bytes_sent,
            bytes_received,
            fell_back,
            owner,
            socket,
            ..
        } = ConnectionData::of(event);
        Self {
            id,
            fell_back,
            cause,
            known,
            side,
            bytes_sent,
            bytes_received,
            subflows: event.connection.subflows,
            asked: asked.map(|LastAsked { at, api, answer }| AskedData {
                api: api.name(),
                answer: answer.word(),
                answered_at_ns: ns(at),
            }),
            owner,
            socket,
        }
    }
}
