//! `query`, `option_refused`, `socket_refused`: what applications ask, and what they are refused.

use serde::Serialize;

use super::parts::{CallerFields, SocketFields, family_name, ns, rfc3339};
use crate::model::{Protocol, Query, QueryEvent, Refusal, RefusalEvent, Refused};

#[derive(Serialize)]
pub(super) struct QueryData<'a> {
    time: String,
    boottime_ns: u64,
    latency_ns: u64,
    #[serde(flatten)]
    caller: CallerFields<'a>,
    id: Option<String>,
    msk: Option<String>,
    #[serde(flatten)]
    socket: SocketFields,
    api: &'static str,
    answer: Option<&'static str>,
    errno: Option<String>,
    fell_back: Option<bool>,
    verdict: Option<&'static str>,
    why: Option<&'a str>,
    cause: Option<&'a str>,
    delay_ns: Option<u64>,
    rung: &'static str,
}

impl<'a> QueryData<'a> {
    pub(super) fn of(event: &'a QueryEvent) -> Self {
        let QueryEvent {
            query,
            time,
            judgement,
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
            time: rfc3339(*time),
            boottime_ns: ns(*asked_at),
            latency_ns: ns(*latency),
            caller: CallerFields::of(process),
            id: id.map(|id| id.to_string()),
            msk: (socket.protocol == Protocol::Mptcp).then(|| socket.id.to_string()),
            socket: SocketFields::of(socket),
            api: api.name(),
            answer: answer.word(),
            errno: errno.map(|errno| errno.to_string()),
            fell_back: *fell_back,
            verdict: judgement.as_ref().map(|it| it.verdict.name()),
            why: judgement.as_ref().map(|it| it.sentence.as_str()),
            cause: judgement.as_ref().and_then(|it| it.cause.as_deref()),
            delay_ns: judgement.as_ref().and_then(|it| it.delay).map(ns),
            rung: rung.name(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct RefusalData<'a> {
    time: String,
    boottime_ns: u64,
    #[serde(flatten)]
    caller: CallerFields<'a>,
    #[serde(flatten)]
    what: RefusedData,
    errno: String,
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
            time: rfc3339(*time),
            boottime_ns: ns(*at),
            caller: CallerFields::of(process),
            what,
            errno: errno.to_string(),
            why: refusal.why(),
            rung: rung.name(),
        }
    }
}
