//! `query`, `option_refused`, `socket_refused`: what applications ask, and what they are refused.

use serde::Serialize;

use super::parts::{CallerFields, Rfc3339, SocketFields, Text, family_name, ns};
use crate::model::{
    ConnectionId, Errno, Protocol, Query, QueryEvent, Refusal, RefusalEvent, Refused, SocketId,
};

#[derive(Serialize)]
pub(super) struct QueryData<'a> {
    time: Text<Rfc3339>,
    boottime_ns: u64,
    latency_ns: Option<u64>,
    #[serde(flatten)]
    caller: CallerFields<'a>,
    id: Option<Text<ConnectionId>>,
    msk: Option<Text<SocketId>>,
    #[serde(flatten)]
    socket: SocketFields,
    api: &'static str,
    answer: Option<&'static str>,
    errno: Option<Text<Errno>>,
    fell_back: Option<bool>,
    verdict: Option<&'static str>,
    why: Option<&'a str>,
    cause: Option<&'a str>,
    delay_ns: Option<u64>,
    repeats: u64,
    rung: &'static str,
}

impl<'a> QueryData<'a> {
    pub(super) fn of(event: &'a QueryEvent) -> Self {
        let QueryEvent {
            query,
            time,
            judgement,
            repeats,
        } = event;
        let Query {
            asked_at,
            latency,
            process,
            socket,
            id,
            connected_at: _,
            api,
            answer,
            errno,
            fell_back,
            rung,
            state_bits: _,
        } = query;
        Self {
            time: Text(Rfc3339(*time)),
            boottime_ns: ns(*asked_at),
            latency_ns: latency.map(ns),
            caller: CallerFields::of(process),
            id: id.map(Text),
            msk: (socket.protocol == Protocol::Mptcp).then_some(Text(socket.id)),
            socket: SocketFields::of(socket),
            api: api.name(),
            answer: answer.word(),
            errno: errno.map(Text),
            fell_back: *fell_back,
            verdict: judgement.as_ref().map(|it| it.verdict.name()),
            why: judgement.as_ref().map(|it| &*it.sentence),
            cause: judgement.as_ref().and_then(|it| it.cause.as_deref()),
            delay_ns: judgement.as_ref().and_then(|it| it.delay).map(ns),
            repeats: *repeats,
            rung: rung.name(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct RefusalData<'a> {
    time: Text<Rfc3339>,
    boottime_ns: u64,
    #[serde(flatten)]
    caller: CallerFields<'a>,
    #[serde(flatten)]
    what: RefusedData,
    errno: Text<Errno>,
    why: &'static str,
    rung: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RefusedData {
    Option {
        #[serde(flatten)]
        socket: Box<SocketFields>,
        call: &'static str,
        level: u32,
        optname: u32,
        option: Option<&'static str>,
    },
    Socket {
        netns: u32,
        family: &'static str,
    },
}

impl<'a> RefusalData<'a> {
    pub(super) fn of(event: &'a RefusalEvent) -> Self {
        let RefusalEvent { refusal, time } = event;
        let Refusal {
            at,
            process,
            what,
            errno,
            rung,
        } = refusal;
        let what = match what {
            Refused::Option {
                socket,
                level,
                optname,
                is_set: _,
            } => RefusedData::Option {
                socket: Box::new(SocketFields::of(socket)),
                call: refusal.call(),
                level: *level,
                optname: *optname,
                option: refusal.option(),
            },
            Refused::Socket { family, netns } => RefusedData::Socket {
                netns: *netns,
                family: family_name(*family),
            },
        };
        Self {
            time: Text(Rfc3339(*time)),
            boottime_ns: ns(*at),
            caller: CallerFields::of(process),
            what,
            errno: Text(*errno),
            why: refusal.why(),
            rung: rung.name(),
        }
    }
}
