//! Draws connections from left to right, each in a lane: on an axis that all lanes share, or with
//! their marks spread out.

use std::time::Duration;

use maud::{Markup, PreEscaped, html};

use super::{
    chart::percent,
    gather::ReportedConnection,
    words::{fine, share},
};
use crate::{
    model::{Answer, ClosedBy},
    paths::KnownPath,
};

/// Margin at both ends of a lane, for marks that are wider than a point; a share of its width.
pub(super) const MARGIN: f64 = 0.03;
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
            let of_paths = life.paths.iter().flat_map(|path| moments(life, path));
            for at in marks.iter().map(|(at, _)| *at).chain(of_paths) {
                let (begin, end) = clock.unwrap_or((at, at));
                clock = Some((begin.min(at), end.max(at)));
                let age = nanos_of(at.saturating_sub(*first));
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
    pub(super) fn place(self, at: Duration, first: Duration) -> Option<f64> {
        let share = match self {
            Self::Clock { begin, length } => {
                share(nanos_of(at.saturating_sub(begin)), nanos_of(length))
            }
            Self::Age { from, to } => match nanos_of(at.saturating_sub(first)) {
                0 => 0.0,
                age => {
                    let decades = decades(age) - f64::from(from);
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
    pub(super) place: f64,
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

pub(super) fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The logarithm to base 10, with more digits than a screen has. (That of the library is a large
/// table.)
fn decades(ns: u64) -> f64 {
    let whole = ns.max(1).ilog2();
    let mut rest = share(ns.max(1), 1 << whole);
    let (mut log, mut bit) = (f64::from(whole), 0.5);
    for _digit in 0..16 {
        rest *= rest;
        if rest >= 2.0 {
            rest /= 2.0;
            log += bit;
        }
        bit /= 2.0;
    }
    log * std::f64::consts::LOG10_2
}

/// A mark in a lane.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    /// It began to connect, or was accepted.
    Begin,
    /// An answer to a query through this API.
    Asked(Answer, &'static str),
    /// The fallback.
    Fell,
    /// Its end.
    End(ClosedBy),
}

impl Mark {
    /// Its drawing, around y = 26.
    pub(super) fn shape(self) -> &'static str {
        match self {
            Self::Begin => r#"<circle class="begin" cy="26" r="4"></circle>"#,
            Self::Asked(Answer::Mptcp, _) => {
                r#"<path class="told-mptcp" d="M0 18l8 8-8 8-8-8z"></path>"#
            }
            Self::Asked(Answer::Tcp, _) => {
                r#"<path class="told-tcp" d="M0 18l8 8-8 8-8-8z"></path>"#
            }
            Self::Asked(Answer::Unsupported(_) | Answer::Failed(_) | Answer::Unknown, _) => {
                r#"<path class="told-nothing" d="M0 18l8 8-8 8-8-8z"></path>"#
            }
            Self::Fell => r#"<path class="fell" d="M-8 17h16L0 33z"></path>"#,
            Self::End(ClosedBy::Death) => r#"<path class="end" d="M0 18v16"></path>"#,
            Self::End(ClosedBy::Eviction | ClosedBy::Exit) => {
                r#"<path class="open" d="M0 18v16"></path>"#
            }
        }
    }

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
pub(super) fn marks(life: &ReportedConnection) -> Vec<(Duration, Mark)> {
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
pub(super) fn places(marks: &[(Duration, Mark)], axis: Axis) -> Vec<f64> {
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
    // Nothing in it comes from outside: numbers, and words of this program.
    let name = axis.name();
    let mut svg = format!(r#"<svg class="v {name}" width="100%" height="40" aria-hidden="true">"#);
    for tick in ticks {
        line(&mut svg, "grid", tick.place, tick.place, (0, 40));
    }
    line(&mut svg, "mptcp", begin, mptcp_to, (26, 26));
    if let Some(from) = tcp_from {
        line(&mut svg, "tcp", from, end.max(from), (26, 26));
    }
    for together in distinguished(&marks, &places, axis) {
        glyph(&mut svg, &together, life);
    }
    svg.push_str("</svg>");
    PreEscaped(svg)
}

/// When a path ended, or was last known to be open.
pub(super) fn end_of(life: &ReportedConnection, path: &KnownPath) -> Duration {
    let of_connection = life.closed.map_or(life.last_at, |(at, _)| at);
    let end = path.end.as_ref().map_or(of_connection, |end| end.at);
    end.max(path.from).max(path.last_at)
}

/// The times that the lane of a path has.
fn moments(life: &ReportedConnection, path: &KnownPath) -> Vec<Duration> {
    let stale = path.stale.iter().flat_map(|(from, to)| [Some(*from), *to]);
    let mut moments: Vec<Duration> = stale.flatten().collect();
    moments.extend([path.from, end_of(life, path)]);
    moments.extend(path.up_at.filter(|at| *at >= path.from));
    moments
}

pub(super) fn line(svg: &mut String, class: &str, from: f64, to: f64, (top, bottom): (u32, u32)) {
    let (from, to) = (percent(from), percent(to));
    svg.push_str(&format!(
        r#"<line class="{class}" x1="{from}" x2="{to}" y1="{top}" y2="{bottom}"></line>"#
    ));
}

fn glyph(svg: &mut String, together: &Together<'_>, life: &ReportedConnection) {
    let fell = together.marks.iter().find(|it| matches!(it.1, Mark::Fell));
    let words: Vec<String> = together
        .marks
        .iter()
        .map(|(at, mark)| format!("{} {}", mark.words(), since(life, *at)))
        .collect();
    let (place, words) = (percent(together.place), words.join(", "));
    let shape = match (together.marks, fell) {
        ([(_, mark)], _) => mark.shape().to_owned(),
        (many, None) => several(many.len()),
        (many, Some(_)) => several_with_fallback(many.len()),
    };
    let when = fell.map(|(at, _)| {
        let (anchor, x) = anchor(together.place);
        let since = since(life, *at);
        format!(r#"<text class="when" text-anchor="{anchor}" x="{x}" y="11">{since}</text>"#)
    });
    svg.push_str(&format!(
        r#"<svg class="at" x="{place}" overflow="visible"><title>{words}</title>{shape}{}</svg>"#,
        when.unwrap_or_default()
    ));
}

/// The mark of events that are too close to separate.
pub(super) fn several(count: usize) -> String {
    format!(
        r#"<circle class="many" cy="26" r="9"></circle><text class="number" text-anchor="middle" y="30">{count}</text>"#
    )
}

/// The same, if one of them is the fallback.
pub(super) fn several_with_fallback(count: usize) -> String {
    format!(
        r#"<path class="fell" d="M-11 14h22L0 36z"></path><text class="number on" text-anchor="middle" y="24">{count}</text>"#
    )
}

/// The axis above the lanes, with the label of each tick.
pub(super) fn scale(axis: Axis, ticks: &[(Tick, String)], caption: &str) -> Markup {
    html! {
        svg class={ "v scale " (axis.name()) } width="100%" height="36" role="img" aria-label=(caption) {
            text.caption x="0" y="12" { (caption) }
            @for (tick, label) in ticks {
                line.axis x1=(percent(tick.place)) x2=(percent(tick.place)) y1="31" y2="36" {}
                text.tick text-anchor=(anchor(tick.place).0) x=(percent(tick.place)) y="28" { (label) }
            }
            line.axis x1=(percent(MARGIN)) x2=(percent(1.0 - MARGIN)) y1="35.5" y2="35.5" {}
        }
    }
}

/// Labels near an end extend towards the middle: their anchor, and their distance from the mark.
fn anchor(x: f64) -> (&'static str, i32) {
    match x {
        ..0.1 => ("start", -8),
        0.9.. => ("end", 8),
        _ => ("middle", 0),
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
