//! Draws connections from left to right, each in a lane: on an axis that all lanes share, or with
//! their marks spread out.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    chart::percent,
    gather::ReportedConnection,
    words::{fine, share},
};
use crate::model::{Answer, ClosedBy};

/// Margin at both ends of a lane, for marks that are wider than a point; a share of its width.
const MARGIN: f64 = 0.03;
/// Marks of a scaled lane that are closer than this are drawn as one, with their number.
const TOGETHER: f64 = 0.045;
/// Distance of zero from the first decade of [`Axis::Age`].
const ZERO: f64 = 0.06;
/// About this many of its decades have a label.
const DECADES_MAX: u32 = 6;
/// Minimum distance between two marks of a lane that is spread out.
const APART: f64 = 0.07;
const SECOND_NS: u64 = 1_000_000_000;
const MINUTE_NS: u64 = 60 * SECOND_NS;
const HOUR_NS: u64 = 60 * MINUTE_NS;
const DAY_NS: u64 = 24 * HOUR_NS;

/// What the place of a mark in its lane means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Axis {
    /// When it happened, to scale: from `begin`, for `length`.
    Clock { begin: Duration, length: Duration },
    /// How long after the first event of its connection, in decades: from 10^`from` ns to 10^`to`
    /// ns.
    Age { from: u32, to: u32 },
    /// The order only.
    Spread,
}

impl Axis {
    /// The axes of a drawing, which all its lanes share. The first one is the default.
    pub(super) fn all<'a>(lives: impl Iterator<Item = &'a ReportedConnection>) -> [Self; 3] {
        let mut clock: Option<(Duration, Duration)> = None;
        let mut ages: Option<(u64, u64)> = None;
        for life in lives {
            let marks = marks(life);
            let Some((first, _)) = marks.first() else {
                continue;
            };
            for (at, _) in &marks {
                let (begin, end) = clock.unwrap_or((*at, *at));
                clock = Some((begin.min(*at), end.max(*at)));
                let age = nanos_of(*at - *first);
                if age > 0 {
                    let (least, most) = ages.unwrap_or((age, age));
                    ages = Some((least.min(age), most.max(age)));
                }
            }
        }
        let (begin, end) = clock.unwrap_or_default();
        let (least, most) = ages.unwrap_or((1, 1));
        [
            Self::Clock {
                begin,
                length: end - begin,
            },
            Self::Age {
                from: least.ilog10(),
                to: most.ilog10() + 1,
            },
            Self::Spread,
        ]
    }

    /// Identifies the axis in the page.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Clock { .. } => "clock",
            Self::Age { .. } => "age",
            Self::Spread => "spread",
        }
    }

    /// Place of a time, in a lane that begins at `first`; `None` if the axis has no scale.
    fn place(self, at: Duration, first: Duration) -> Option<f64> {
        let share = match self {
            Self::Clock { begin, length } => {
                share(nanos_of(at.saturating_sub(begin)), nanos_of(length))
            }
            Self::Age { from, to } => match nanos_of(at.saturating_sub(first)) {
                0 => 0.0,
                age => {
                    let decades = digits(age) - f64::from(from);
                    ZERO + decades / f64::from((to - from).max(1)) * (1.0 - ZERO)
                }
            },
            Self::Spread => return None,
        };
        Some(MARGIN + share * (1.0 - 2.0 * MARGIN))
    }

    /// Round times on the axis, with their places. `local` is the local time, since 1970, at zero of
    /// `CLOCK_BOOTTIME`.
    pub(super) fn ticks(self, local: Duration) -> Vec<Tick> {
        let tick = |at: u64, step: u64| {
            let (at, step) = (Duration::from_nanos(at), Duration::from_nanos(step));
            let place = self.place(at, Duration::ZERO)?;
            Some(Tick { at, step, place })
        };
        match self {
            Self::Clock { begin, length } => {
                let zero = nanos_of(local);
                let step = step(nanos_of(length));
                let from = nanos_of(begin).saturating_add(zero);
                let to = from.saturating_add(nanos_of(length));
                let first = from.div_ceil(step).saturating_mul(step);
                std::iter::successors(Some(first), |at| at.checked_add(step))
                    .take_while(|at| *at <= to)
                    .filter_map(|at| tick(at - zero, step))
                    .collect()
            }
            Self::Age { from, to } => {
                let every = usize::try_from((to - from).div_ceil(DECADES_MAX).max(1));
                let decades = (from..=to).step_by(every.unwrap_or(1));
                let decades = decades.filter_map(|power| tick(10_u64.checked_pow(power)?, 0));
                tick(0, 0).into_iter().chain(decades).collect()
            }
            Self::Spread => Vec::new(),
        }
    }
}

/// A round time on an axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Tick {
    /// On `CLOCK_BOOTTIME`, or after the first event of each lane.
    pub(super) at: Duration,
    /// Distance of two ticks.
    step: Duration,
    place: f64,
}

impl Tick {
    /// The time of day, in the digits that distinguish ticks; `None` if these are days.
    pub(super) fn clock(self, local: Duration) -> Option<String> {
        let time = local.saturating_add(self.at);
        let of_day = time.as_secs() % (DAY_NS / SECOND_NS);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let nanos = time.subsec_nanos();
        Some(match nanos_of(self.step) {
            DAY_NS.. => return None,
            MINUTE_NS.. => format!("{hour:02}:{minute:02}"),
            SECOND_NS.. => format!("{hour:02}:{minute:02}:{second:02}"),
            1_000_000.. => format!("{hour:02}:{minute:02}:{second:02}.{:03}", nanos / 1_000_000),
            1000.. => format!("{hour:02}:{minute:02}:{second:02}.{:06}", nanos / 1000),
            _ => format!("{hour:02}:{minute:02}:{second:02}.{nanos:09}"),
        })
    }

    /// A whole number of the largest possible unit.
    pub(super) fn age(self) -> String {
        let ns = nanos_of(self.at);
        let units = [
            (DAY_NS, "d"),
            (HOUR_NS, "h"),
            (MINUTE_NS, "min"),
            (SECOND_NS, "s"),
            (1_000_000, "ms"),
            (1000, "µs"),
        ];
        match units
            .iter()
            .find(|(unit, _)| ns > 0 && ns.is_multiple_of(*unit))
        {
            Some((unit, name)) => format!("{} {name}", ns / unit),
            None if ns == 0 => "0".to_owned(),
            None => format!("{ns} ns"),
        }
    }
}

/// Distance of two ticks: round, and as small as the space for their labels allows.
fn step(length: u64) -> u64 {
    let decades = (0..10).map(|power| 10_u64.pow(power));
    let below_seconds = decades.flat_map(|ten| [ten, 2 * ten, 5 * ten]);
    let above = [
        [1, 2, 5, 10, 15, 30].map(|it| it * SECOND_NS),
        [1, 2, 5, 10, 15, 30].map(|it| it * MINUTE_NS),
        [1, 2, 3, 4, 6, 12].map(|it| it * HOUR_NS),
    ];
    let days = (0..6).map(|power| 10_u64.pow(power) * DAY_NS);
    let days = days.flat_map(|ten| [ten, 2 * ten, 5 * ten]);
    below_seconds
        .take_while(|it| *it < SECOND_NS)
        .chain(above.into_iter().flatten())
        .chain(days)
        .find(|step| {
            // The label of a shorter step has more digits.
            let steps_max = match *step {
                ..1_000_000 => 2,
                1_000_000..SECOND_NS => 3,
                _ => 5,
            };
            length / step <= steps_max
        })
        .unwrap_or(u64::MAX)
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The logarithm to base 10.
#[expect(
    clippy::cast_precision_loss,
    reason = "15 digits are more than a screen has"
)]
fn digits(ns: u64) -> f64 {
    (ns as f64).log10()
}

/// A mark in a lane.
#[derive(Clone, Copy)]
enum Mark {
    Begin,
    Asked(Answer, &'static str),
    Fell,
    End(ClosedBy),
}

impl Mark {
    fn words(self) -> String {
        match self {
            Self::Begin => "began".to_owned(),
            Self::Asked(answer, api) => {
                format!("told {} by {api}", answer.word().unwrap_or("unknown"))
            }
            Self::Fell => "fell back".to_owned(),
            Self::End(by) => ended(by).to_owned(),
        }
    }
}

/// What is known about the end of a connection.
pub(super) fn ended(by: ClosedBy) -> &'static str {
    match by {
        ClosedBy::Death => "closed",
        ClosedBy::Eviction => "forgotten",
        ClosedBy::Exit => "open at the end",
    }
}

/// When a connection began to connect, or was accepted.
pub(super) fn begin(life: &ReportedConnection) -> Option<Duration> {
    life.connected_at.or(life.born_at)
}

/// Time from the start of a connection to an event, with a sign.
pub(super) fn since(life: &ReportedConnection, at: Duration) -> String {
    match begin(life) {
        Some(begin) if at < begin => format!("-{}", fine(begin - at)),
        Some(begin) => format!("+{}", fine(at - begin)),
        None => "?".to_owned(),
    }
}

/// Events of a connection in order.
fn marks(life: &ReportedConnection) -> Vec<(Duration, Mark)> {
    let mut marks: Vec<(Duration, Mark)> = Vec::new();
    marks.extend(begin(life).map(|at| (at, Mark::Begin)));
    let asked = life.asked.iter();
    marks.extend(asked.map(|asked| (asked.at, Mark::Asked(asked.answer, asked.api.name()))));
    marks.extend(life.fell_at.map(|at| (at, Mark::Fell)));
    marks.extend(life.closed.map(|(at, by)| (at, Mark::End(by))));
    marks.sort_by_key(|(at, _)| *at);
    marks
}

/// Places of marks: to scale, or with a distance between them.
fn places(marks: &[(Duration, Mark)], axis: Axis) -> Vec<f64> {
    let first = marks.first().map_or(Duration::ZERO, |it| it.0);
    if axis != Axis::Spread {
        let places = marks.iter().map(|(at, _)| axis.place(*at, first));
        return places.flatten().collect();
    }
    let whole = marks.last().map_or(Duration::ZERO, |it| it.0) - first;
    let gaps = u32::try_from(marks.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let apart = APART.min(0.6 / f64::from(gaps.max(1)));
    let rest = 1.0 - 2.0 * MARGIN - apart * f64::from(gaps);
    let mut place = MARGIN - apart;
    let mut before = first;
    marks
        .iter()
        .map(|(at, _)| {
            let part = match whole.is_zero() {
                true => 0.0,
                false => (*at - before).as_secs_f64() / whole.as_secs_f64(),
            };
            before = *at;
            place += apart + part * rest;
            place
        })
        .collect()
}

/// Marks that are drawn as one: at the place of the fallback, if it is one of them, else of the
/// first.
struct Together<'m> {
    place: f64,
    marks: &'m [(Duration, Mark)],
}

/// Divides marks into those that can be distinguished.
fn distinguished<'m>(
    marks: &'m [(Duration, Mark)],
    places: &[f64],
    axis: Axis,
) -> Vec<Together<'m>> {
    let apart = match axis {
        Axis::Clock { .. } | Axis::Age { .. } => TOGETHER,
        Axis::Spread => f64::MIN_POSITIVE,
    };
    let fell = marks.iter().position(|it| matches!(it.1, Mark::Fell));
    let fell = fell.and_then(|index| places.get(index)).copied();
    let is_with_fell = |place: &f64| fell.is_some_and(|fell| (place - fell).abs() < apart);
    let mut all = Vec::new();
    let mut rest = (marks, places);
    while let Some(first) = rest.1.first() {
        let count = match is_with_fell(first) {
            true => rest.1.iter().take_while(|it| is_with_fell(it)).count(),
            false => {
                let near = |it: &&f64| **it - first < apart && !is_with_fell(it);
                rest.1.iter().take_while(near).count()
            }
        };
        let (these, others) = rest.0.split_at(count.max(1));
        all.push(Together {
            place: fell.filter(|_| is_with_fell(first)).unwrap_or(*first),
            marks: these,
        });
        rest = (others, rest.1.get(these.len()..).unwrap_or_default());
    }
    all
}

/// A connection from left to right: start, answers to its application, fallback, end.
pub(super) fn lane(life: &ReportedConnection, axis: Axis, ticks: &[Tick]) -> Markup {
    let marks = marks(life);
    let places = places(&marks, axis);
    let begin = places.first().copied().unwrap_or(MARGIN);
    let end = places.last().copied().unwrap_or(1.0 - MARGIN);
    let fell = marks.iter().position(|it| matches!(it.1, Mark::Fell));
    // A connection that fell back before tracing began is TCP throughout.
    let fell_at = fell.and_then(|index| places.get(index)).copied();
    let tcp_from = fell_at.or(life.fell_before.then_some(begin));
    let mptcp_to = tcp_from.unwrap_or(end);
    html! {
        svg class={ "v " (axis.name()) } width="100%" height="40" aria-hidden="true" {
            @for tick in ticks { line.grid x1=(percent(tick.place)) x2=(percent(tick.place)) y1="0" y2="40" {} }
            line.mptcp x1=(percent(begin)) x2=(percent(mptcp_to)) y1="26" y2="26" {}
            @if let Some(from) = tcp_from {
                line.tcp x1=(percent(from)) x2=(percent(end.max(from))) y1="26" y2="26" {}
            }
            @for together in distinguished(&marks, &places, axis) {
                svg.at x=(percent(together.place)) overflow="visible" { (glyph(&together, life)) }
            }
        }
    }
}

fn glyph(together: &Together<'_>, life: &ReportedConnection) -> Markup {
    let fell = together.marks.iter().find(|it| matches!(it.1, Mark::Fell));
    let words: Vec<String> = together
        .marks
        .iter()
        .map(|(at, mark)| format!("{} {}", mark.words(), since(life, *at)))
        .collect();
    let x = together.place;
    html! {
        title { (words.join(", ")) }
        @match together.marks {
            [(_, mark)] => (single(*mark)),
            many => {
                @if fell.is_some() { path.fell d="M-11 14h22L0 36z" {} } @else { circle.many cy="26" r="9" {} }
                text class={ "number" @if fell.is_some() { " on" } } text-anchor="middle" y=(if fell.is_some() { "24" } else { "30" }) { (many.len()) }
            }
        }
        @if let Some((at, _)) = fell {
            text.when text-anchor=(anchor(x)) x=(shift(x)) y="11" { (since(life, *at)) }
        }
    }
}

fn single(mark: Mark) -> Markup {
    html! {
        @match mark {
            Mark::Begin => circle.begin cy="26" r="4" {},
            Mark::Asked(answer, _) => path class=(answer_class(answer)) d="M0 18l8 8-8 8-8-8z" {},
            Mark::Fell => path.fell d="M-8 17h16L0 33z" {},
            Mark::End(ClosedBy::Death) => path.end d="M0 18v16" {},
            Mark::End(ClosedBy::Eviction | ClosedBy::Exit) => path.open d="M0 18v16" {},
        }
    }
}

/// The axis above the lanes, with the label of each tick.
pub(super) fn scale(axis: Axis, ticks: &[(Tick, String)], caption: &str) -> Markup {
    html! {
        svg class={ "v scale " (axis.name()) } width="100%" height="36" role="img" aria-label=(caption) {
            text.caption x="0" y="12" { (caption) }
            @for (tick, label) in ticks {
                line.axis x1=(percent(tick.place)) x2=(percent(tick.place)) y1="31" y2="36" {}
                text.tick text-anchor=(anchor(tick.place)) x=(percent(tick.place)) y="28" { (label) }
            }
            line.axis x1=(percent(MARGIN)) x2=(percent(1.0 - MARGIN)) y1="35.5" y2="35.5" {}
        }
    }
}

/// Labels near an end extend towards the middle.
fn anchor(x: f64) -> &'static str {
    match x {
        ..0.1 => "start",
        0.9.. => "end",
        _ => "middle",
    }
}

fn shift(x: f64) -> &'static str {
    match x {
        ..0.1 => "-8",
        0.9.. => "8",
        _ => "0",
    }
}

/// CSS class of an answer.
fn answer_class(answer: Answer) -> &'static str {
    match answer {
        Answer::Mptcp => "told-mptcp",
        Answer::Tcp => "told-tcp",
        Answer::Unsupported(_) | Answer::Failed(_) | Answer::Unknown => "told-nothing",
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
