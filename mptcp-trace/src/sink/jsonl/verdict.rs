//! `verdict`: what is left to say of a connection at its end.

use serde::Serialize;

use super::parts::{OwnerData, Rfc3339, SocketFields, Text, ns};
use crate::model::{ConnectionId, Judgement, VerdictEvent};

#[derive(Serialize)]
pub(super) struct VerdictData<'a> {
    time: Text<Rfc3339>,
    boottime_ns: u64,
    id: Text<ConnectionId>,
    verdict: &'static str,
    why: &'a str,
    cause: Option<&'a str>,
    fell_back_at_ns: Option<u64>,
    delay_ns: Option<u64>,
    closed_by: &'static str,
    questions: u64,
    doubt: Option<&'a str>,
    api: Option<&'static str>,
    answer: Option<&'static str>,
    answered_at_ns: Option<u64>,
    owner: Option<OwnerData<'a>>,
    #[serde(flatten)]
    socket: SocketFields,
}

impl<'a> VerdictData<'a> {
    pub(super) fn of(event: &'a VerdictEvent) -> Self {
        let VerdictEvent {
            judgement:
                Judgement {
                    verdict,
                    sentence,
                    fell_back_at,
                    cause,
                    delay,
                },
            id,
            at,
            time,
            closed_by,
            owner,
            place,
            socket,
            asked,
            questions,
            doubt,
        } = event;
        Self {
            time: Text(Rfc3339(*time)),
            boottime_ns: ns(*at),
            id: Text(*id),
            verdict: verdict.name(),
            why: sentence,
            cause: cause.as_deref(),
            fell_back_at_ns: fell_back_at.map(ns),
            delay_ns: delay.map(ns),
            closed_by: closed_by.name(),
            questions: *questions,
            doubt: doubt.as_deref(),
            api: asked.map(|it| it.api.name()),
            answer: asked.and_then(|it| it.answer.word()),
            answered_at_ns: asked.map(|it| ns(it.at)),
            owner: owner.as_ref().map(|owner| OwnerData::of(owner, place)),
            socket: SocketFields::of(socket),
        }
    }
}
