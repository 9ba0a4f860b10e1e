//! `query`, `option_refused`, `socket_refused`: queries of applications, and refusals.

use super::{
    object::{Moment, Object, Word, ns},
    parts::{caller, family_name, socket},
};
use crate::model::{Protocol, Query, QueryEvent, Refusal, RefusalEvent, Refused};

pub(super) fn query(event: &QueryEvent, data: &mut Object<'_>) {
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
        socket: about,
        id,
        connected_at: _,
        api,
        answer,
        errno,
        fell_back,
        rung,
        after_untraced: _,
        state_bits: _,
    } = query;
    let judgement = judgement.as_ref();
    data.field("time", Moment(*time));
    data.field("boottime_ns", ns(*asked_at));
    data.field("latency_ns", latency.map(ns));
    caller(process, data);
    data.field("id", *id);
    data.field(
        "msk",
        (about.protocol == Protocol::Mptcp).then_some(about.id),
    );
    socket(about, data);
    data.field("api", Word(api.name()));
    data.field("answer", answer.word().map(Word));
    data.field("errno", *errno);
    data.field("fell_back", *fell_back);
    data.field("verdict", judgement.map(|it| Word(it.verdict.name())));
    data.field("why", judgement.map(|it| &*it.sentence));
    data.field("cause", judgement.and_then(|it| it.cause.as_deref()));
    data.field("delay_ns", judgement.and_then(|it| it.delay).map(ns));
    data.field("repeats", *repeats);
    data.field("rung", Word(rung.name()));
}

pub(super) fn refusal(event: &RefusalEvent, data: &mut Object<'_>) {
    let RefusalEvent { refusal, time } = event;
    let Refusal {
        at,
        process,
        what,
        errno,
        rung,
    } = refusal;
    data.field("time", Moment(*time));
    data.field("boottime_ns", ns(*at));
    caller(process, data);
    match what {
        Refused::Option {
            socket: about,
            level,
            optname,
            is_set: _,
        } => {
            socket(about, data);
            data.field("call", Word(refusal.call()));
            data.field("level", *level);
            data.field("optname", *optname);
            data.field("option", refusal.option().map(Word));
        }
        Refused::Socket { family, netns } => {
            data.field("netns", *netns);
            data.field("family", family_name(*family));
        }
    }
    data.field("errno", *errno);
    data.field("why", Word(refusal.why()));
    data.field("rung", Word(rung.name()));
}
