//! Turns data into SVG shapes in the colours of the page. Positions are percentages of the width,
//! so that drawings scale.

use std::{collections::BTreeMap, time::Duration};

use maud::{Markup, html};

use super::{
    gather::{Bins, ReportedConnection},
    words::{after, share},
};
use crate::model::{Answer, ClosedBy};

/// Number of causes with their own colour; all others share one.
pub(super) const COLOURS: usize = 6;
/// Height of the chart over time, pixels.
const BARS_HIGH: u32 = 150;
/// Minimum distance between two marks of a lane, a share of its width.
const APART: f64 = 0.07;
/// Margin at both ends of a lane, for marks that are wider than a point.
const MARGIN: f64 = 0.03;

/// Colour of a cause, by its rank.
pub(super) fn colour(causes: &[(&str, u64)], name: &str) -> usize {
    let place = causes.iter().position(|(known, _)| *known == name);
    place.unwrap_or(COLOURS).min(COLOURS)
}

fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

/// A bar that shows a share.
pub(super) fn bar(part: u64, whole: u64, class: &str) -> Markup {
    html! {
        svg.bar width="100%" height="10" aria-hidden="true" {
            rect.rail width="100%" height="10" rx="2" {}
            rect class=(class) width=(percent(share(part, whole))) height="10" rx="2" {}
        }
    }
}

/// Fallbacks over time: one bar per bin, with the most frequent cause at the bottom.
pub(super) fn over_time(bins: &Bins, causes: &[(&str, u64)]) -> Markup {
    let (bins, _) = bins.used();
    let total = |bin: &BTreeMap<String, u64>| bin.values().sum::<u64>();
    let highest = bins.iter().map(total).max().unwrap_or(0);
    let wide = 1.0 / f64::from(u32::try_from(bins.len()).unwrap_or(u32::MAX).max(1));
    let high = f64::from(BARS_HIGH);
    let mut rects = Vec::new();
    let mut x = 0.0;
    for bin in bins {
        let mut of_colour = [0; COLOURS + 1];
        for (name, count) in bin {
            of_colour[colour(causes, name)] += count;
        }
        let mut y = high;
        for (colour, count) in of_colour.into_iter().enumerate().filter(|it| it.1 > 0) {
            let tall = share(count, highest) * high;
            y -= tall;
            // A small gap separates neighbouring bars.
            rects.push((x + wide * 0.06, y, wide * 0.88, tall, colour));
        }
        x += wide;
    }
    html! {
        svg.time width="100%" height=(BARS_HIGH) role="img" aria-label={
            "Fallbacks over time by cause, at most " (highest) " at once; see the table of causes \
             for numbers"
        } {
            line.grid x1="0" x2="100%" y1="0.5" y2="0.5" {}
            line.grid x1="0" x2="100%" y1=(BARS_HIGH / 2) y2=(BARS_HIGH / 2) {}
            @for (x, y, wide, tall, colour) in rects {
                rect class={ "c" (colour) } x=(percent(x)) y=(format!("{y:.1}")) width=(percent(wide)) height=(format!("{tall:.1}")) {}
            }
            line.axis x1="0" x2="100%" y1=(format!("{:.1}", high - 0.5)) y2=(format!("{:.1}", high - 0.5)) {}
        }
    }
}

/// A mark in a lane.
enum Mark {
    Begin,
    Asked(Answer),
    Fell,
    End(ClosedBy),
}

/// Events of a connection in order.
fn marks(life: &ReportedConnection) -> Vec<(Duration, Mark)> {
    let mut marks: Vec<(Duration, Mark)> = Vec::new();
    let begin = life.connected_at.or(life.born_at);
    marks.extend(begin.map(|at| (at, Mark::Begin)));
    let asked = life.asked.iter();
    marks.extend(asked.map(|asked| (asked.at, Mark::Asked(asked.answer))));
    marks.extend(life.fell_at.map(|at| (at, Mark::Fell)));
    marks.extend(life.closed.map(|(at, by)| (at, Mark::End(by))));
    marks.sort_by_key(|(at, _)| *at);
    marks
}

/// A connection from left to right: start, answers to its application, fallback, end.
pub(super) fn lane(life: &ReportedConnection, spoken: &str) -> Markup {
    let marks = marks(life);
    let first = marks.first().map_or(Duration::ZERO, |it| it.0);
    let whole = marks.last().map_or(Duration::ZERO, |it| it.0) - first;
    let gaps = u32::try_from(marks.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let apart = APART.min(0.6 / f64::from(gaps.max(1)));
    let to_scale = 1.0 - 2.0 * MARGIN - apart * f64::from(gaps);
    let mut place = MARGIN - apart;
    let places: Vec<f64> = marks
        .iter()
        .scan(first, |before, (at, _)| {
            let part = match whole.is_zero() {
                true => 0.0,
                false => (*at - *before).as_secs_f64() / whole.as_secs_f64(),
            };
            *before = *at;
            place += apart + part * to_scale;
            Some(place)
        })
        .collect();
    let end = places.last().copied().unwrap_or(1.0 - MARGIN);
    let fell = marks.iter().position(|it| matches!(it.1, Mark::Fell));
    // A connection that fell back before tracing began is TCP throughout.
    let fell_at = fell.and_then(|index| places.get(index)).copied();
    let tcp_from = fell_at.or(life.fell_before.then_some(MARGIN));
    let mptcp_to = tcp_from.unwrap_or(end);
    html! {
        svg.lane width="100%" height="40" role="img" aria-label=(spoken) {
            line.mptcp x1=(percent(MARGIN)) x2=(percent(mptcp_to)) y1="26" y2="26" {}
            @if let Some(from) = tcp_from {
                line.tcp x1=(percent(from)) x2=(percent(end.max(from))) y1="26" y2="26" {}
            }
            @for ((at, mark), x) in marks.iter().zip(&places) {
                svg.at x=(percent(*x)) overflow="visible" {
                    @match mark {
                        Mark::Begin => circle.begin cy="26" r="4" {},
                        Mark::Asked(answer) => path class=(answer_class(*answer)) d="M0 18l8 8-8 8-8-8z" {},
                        Mark::Fell => path.fell d="M-8 17h16L0 33z" {},
                        Mark::End(ClosedBy::Death) => path.end d="M0 18v16" {},
                        Mark::End(ClosedBy::Eviction | ClosedBy::Exit) => path.open d="M0 18v16" {},
                    }
                    @if matches!(mark, Mark::Fell) {
                        text.when text-anchor=(anchor(*x)) x=(shift(*x)) y="11" { (after(at.saturating_sub(first))) }
                    }
                }
            }
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
pub(super) fn answer_class(answer: Answer) -> &'static str {
    match answer {
        Answer::Mptcp => "told-mptcp",
        Answer::Tcp => "told-tcp",
        Answer::Unsupported(_) | Answer::Failed(_) | Answer::Unknown => "told-nothing",
    }
}
