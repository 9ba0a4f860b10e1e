//! `verdict`: the closing verdict on a connection.

use super::{
    object::{Moment, Object, Word, ns},
    parts::{owner, socket},
};
use crate::model::{Judgement, VerdictEvent};

pub(super) fn verdict(event: &VerdictEvent, data: &mut Object<'_>) {
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
        owner: holder,
        place,
        socket: about,
        asked,
        queries,
        doubt,
    } = event;
    data.field("time", Moment(*time));
    data.field("boottime_ns", ns(*at));
    data.field("id", *id);
    data.field("verdict", Word(verdict.name()));
    data.field("why", &**sentence);
    data.field("cause", cause.as_deref());
    data.field("fell_back_at_ns", fell_back_at.map(ns));
    data.field("delay_ns", delay.map(ns));
    data.field("closed_by", Word(closed_by.name()));
    data.field("questions", *queries);
    data.field("doubt", doubt.as_deref());
    data.field("api", asked.map(|it| Word(it.api.name())));
    data.field("answer", asked.and_then(|it| it.answer.word()).map(Word));
    data.field("answered_at_ns", asked.map(|it| ns(it.at)));
    owner(holder.as_ref(), place, data);
    socket(about, data);
}
