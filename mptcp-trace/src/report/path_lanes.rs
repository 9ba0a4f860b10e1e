//! Draws the paths of a connection from left to right, on the axes of its own lane, and says in words
//! what they did.

use std::time::Duration;

use maud::{Markup, PreEscaped, html};

use super::{
    chart::percent,
    gather::ReportedConnection,
    lanes::{Axis, MARGIN, Mark, Tick, end_of, line, marks, nanos_of, places, since},
    words::{fine, name as shown, percent as percentage, share},
};
use crate::{
    model::{CauseCertainty, DecidedBy, amount},
    paths::{KnownPath, PathEnd},
};

/// Place of a time in the lane of a connection. On an axis without a scale it is between the marks
/// that it is between.
fn place_of(at: Duration, marks: &[(Duration, Mark)], places: &[f64], axis: Axis) -> f64 {
    let first = marks.first().map_or(at, |it| it.0);
    if let Some(place) = axis.place(at, first) {
        return place;
    }
    let after = marks.partition_point(|(mark, _)| *mark <= at);
    let known = |index: usize| Some((marks.get(index)?.0, *places.get(index)?));
    match (after.checked_sub(1).and_then(known), known(after)) {
        (Some((from, left)), Some((to, right))) => {
            let part = share(nanos_of(at.saturating_sub(from)), nanos_of(to - from));
            left + part * (right - left)
        }
        (Some((_, place)), None) | (None, Some((_, place))) => place,
        (None, None) => MARGIN,
    }
}

/// A path from left to right: its handshake, when it was up and when stale, its end.
pub(super) fn path_lane(
    life: &ReportedConnection,
    path: &KnownPath,
    axis: Axis,
    ticks: &[Tick],
) -> Markup {
    let marks = marks(life);
    let places = places(&marks, axis);
    let place = |at| place_of(at, &marks, &places, axis);
    let name = axis.name();
    let mut svg = format!(r#"<svg class="v {name}" width="100%" height="22" aria-hidden="true">"#);
    for tick in ticks {
        line(&mut svg, "grid", tick.place, tick.place, (0, 22));
    }
    let (from, end) = (place(path.from), place(end_of(life, path)));
    let is_failed = path.end.as_ref().is_some_and(|end| end.is_failed);
    let up_from = match (is_failed, path.up_at) {
        (true, _) => end,
        (false, up_at) => up_at.map_or(from, |at| place(at).max(from)),
    };
    line(&mut svg, "opening", from, up_from, (11, 11));
    line(&mut svg, "up", up_from, end.max(up_from), (11, 11));
    for (stale, to) in &path.stale {
        let to = to.map_or(end, place);
        line(&mut svg, "stale", place(*stale), to, (11, 11));
    }
    let shape = path_end_shape(path.end.as_ref());
    // Causes are names of the catalogue, but a capture could have others.
    let words = html! { (path_words(life, path)) }.into_string();
    let x = percent(end);
    svg.push_str(&format!(
        r#"<svg class="at" x="{x}" overflow="visible"><title>{words}</title>{shape}</svg></svg>"#
    ));
    PreEscaped(svg)
}

/// The mark at the end of a path, around y = 11.
fn path_end_shape(end: Option<&PathEnd>) -> &'static str {
    match end {
        Some(end) if end.is_failure => r#"<path class="lost" d="M-5 6l10 10M5 6l-10 10"></path>"#,
        Some(_) => r#"<path class="end" d="M0 5v12"></path>"#,
        None => r#"<path class="open" d="M0 5v12"></path>"#,
    }
}

/// What a path did, in order.
pub(super) fn path_words(life: &ReportedConnection, path: &KnownPath) -> String {
    let mut words = vec![format!("{}, ids {}", path.role_words(), path.ids_words())];
    if path.is_backup {
        words.push("backup".to_owned());
    }
    match (path.existing, path.up_at) {
        (true, _) => words.push("opened earlier".to_owned()),
        // A passive path begins with its third ACK.
        (false, Some(at)) if at > path.from => {
            words.push(format!("up after {}", fine(at - path.from)));
        }
        (false, Some(at)) => words.push(format!("up {}", since(life, at))),
        (false, None) => words.push(format!("began {}", since(life, path.from))),
    }
    for (from, to) in &path.stale {
        let to = to.map_or(String::new(), |to| format!(" to {}", since(life, to)));
        words.push(format!("stale {}{to}", since(life, *from)));
    }
    match &path.end {
        Some(end) => words.push(format!(
            "{} {}: {}",
            path.state(),
            since(life, end.at),
            path_cause(end)
        )),
        None => words.push("open when last seen".to_owned()),
    }
    if let Some(carried) = path.carried() {
        let all = life.paths.carried();
        let share = match all > carried {
            true => format!(" ({})", percentage(carried, all)),
            false => String::new(),
        };
        words.push(format!("{}{share}", amount(carried)));
    }
    words.join(", ")
}

/// Why a path failed or ended, and where that was decided.
pub(super) fn path_cause(end: &PathEnd) -> String {
    let mut words = match (&end.cause, end.known) {
        (Some(cause), CauseCertainty::Reported) => shown(cause),
        (Some(cause), CauseCertainty::Inferred | CauseCertainty::Unknown) => {
            format!("{} (inferred)", shown(cause))
        }
        (None, _) => "cause unknown".to_owned(),
    };
    if let Some(reset) = end.reset.filter(|it| it.code != 0) {
        words.push_str(&format!(" ({reset})"));
    }
    match end.decided_by {
        Some(DecidedBy::Here) => words.push_str(", by this end"),
        Some(DecidedBy::Peer) => words.push_str(", by the peer"),
        Some(DecidedBy::Nobody) | None => {}
    }
    words
}
