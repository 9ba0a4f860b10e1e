//! Sections on single connections: the worst ones, a lane each, and a list by address.

use super::paths::{path_addresses, shown_paths};
use super::*;
use crate::{
    model::{Answer, ClosedBy},
    report::{
        lanes::{
            Axis, Mark, Tick, begin, ended, lane, scale, several, several_with_fallback, since,
        },
        path_lanes::{path_lane, path_words},
    },
};

/// A longer list of addresses is folded.
const OPEN_MAX: usize = 60;

fn tag(awareness: Awareness) -> Markup {
    let (word, class, meaning) = outcome(awareness);
    html! { span class={ "tag " (class) } title=(meaning) { (word) } }
}

fn why(life: &ReportedConnection) -> String {
    if !life.awareness().has_fallen() {
        return String::new();
    }
    match (&life.cause, life.known) {
        (Some(cause), CauseCertainty::Reported) => name(cause),
        (Some(cause), CauseCertainty::Inferred | CauseCertainty::Unknown) if cause != "unknown" => {
            format!("{} (inferred)", name(cause))
        }
        (Some(_) | None, _) => "cause unknown".to_owned(),
    }
}

fn last_answer(life: &ReportedConnection) -> String {
    match life.asked.last() {
        Some(asked) => {
            let word = asked.answer.word().unwrap_or("unknown");
            format!("{word} with {}", asked.api.name())
        }
        None => "never asked".to_owned(),
    }
}

fn end(life: &ReportedConnection) -> &'static str {
    life.closed.map_or("-", |(_, by)| ended(by))
}

/// The exact times of a lane, which its drawing cannot show.
fn times(report: &Report<'_>, life: &ReportedConnection) -> String {
    let mut words = Vec::new();
    words.extend(begin(life).map(|at| format!("began {}", report.wall_ms(at))));
    words.push(match (life.fell_at, life.awareness().has_fallen()) {
        (Some(at), _) => format!("fell back {}", since(life, at)),
        (None, _) if life.fell_before => "fell back before tracing began".to_owned(),
        (None, true) => "fell back unseen".to_owned(),
        (None, false) => match life.outcome {
            Some(_) => "MPTCP to the end".to_owned(),
            None => "MPTCP when last seen".to_owned(),
        },
    });
    words.extend(
        life.closed
            .map(|(at, by)| format!("{} {}", ended(by), since(life, at))),
    );
    words.join(", ")
}

/// Description of a lane for screen readers.
fn spoken(report: &Report<'_>, life: &ReportedConnection) -> String {
    format!(
        "{}; {}, last told: {}",
        times(report, life),
        count(life.queries, "query", "queries"),
        last_answer(life),
    )
}

/// Both addresses; the arrow leads from the client to the server.
fn addresses(life: &ReportedConnection) -> Markup {
    let arrow = match life.side {
        Some(Side::Active) => "→",
        Some(Side::Passive) => "←",
        None => "–",
    };
    html! { span.mono { (life.local) } " " (arrow) " " span.mono { (life.remote) } }
}

/// Words for each axis: of the switch, and above the lanes.
fn axis_words(report: &Report<'_>, axis: Axis) -> (&'static str, String) {
    match axis {
        Axis::Clock { begin, length } => {
            let day = report.wall(begin);
            let day = day.get(..10).unwrap_or("?");
            let caption = format!(
                "Time of day ({}), from {day}, to scale: {}",
                report.zone(),
                fine(length)
            );
            ("Time of day", caption)
        }
        Axis::Age { .. } => (
            "Time since its first event",
            "Time since each connection's first event, logarithmic".to_owned(),
        ),
        Axis::Spread => (
            "Spread out",
            "Order of events: not to scale, so that each is visible".to_owned(),
        ),
    }
}

pub(super) fn timeline(report: &Report<'_>) -> Markup {
    let gathered = report.gathered;
    let drawn = gathered.drawn().count() as u64;
    if drawn == 0 {
        return html! {};
    }
    let not_drawn = gathered.drawable.saturating_sub(drawn);
    html! {
        section aria-labelledby="worst" {
            h2 id="worst" { "The worst connections" }
            p.note {
                "Connections whose applications hold a wrong belief come first, then those never \
                 queried, then the rest, each in order of time; then connections that did not fall \
                 back, but have several paths, or one that failed. Each of their paths has a lane \
                 below theirs. All lanes have the same axis. Times with + or - are relative to the \
                 beginning of the connection."
            }
            (key(gathered.drawn().any(|life| !shown_paths(life).is_empty())))
            (lanes(report))
            @if not_drawn > 0 {
                p.note {
                    (count(not_drawn, "more connection is", "more connections are"))
                    " not drawn: the limit is " (LANES_MAX) "."
                }
            }
            (table(report))
        }
    }
}

fn key(has_paths: bool) -> Markup {
    let answers = [Answer::Mptcp, Answer::Tcp, Answer::Unknown];
    let [mptcp, tcp, neither] = answers.map(|answer| Mark::Asked(answer, "").shape().to_owned());
    let marks = [
        (
            Mark::Begin.shape().to_owned(),
            "began to connect, or was accepted",
        ),
        (mptcp, "told MPTCP"),
        (tcp, "told TCP"),
        (neither, "asked, told neither"),
        (Mark::Fell.shape().to_owned(), "fell back"),
        (Mark::End(ClosedBy::Death).shape().to_owned(), "closed"),
        (
            Mark::End(ClosedBy::Exit).shape().to_owned(),
            "still open when last seen",
        ),
        (several(3), "3 events, too close to separate"),
        (several_with_fallback(3), "3 events, one is the fallback"),
    ];
    let of_paths = [
        (
            r#"<line class="opening" x1="-9" x2="9" y1="11" y2="11"></line>"#,
            "path: handshake",
        ),
        (
            r#"<line class="up" x1="-9" x2="9" y1="11" y2="11"></line>"#,
            "path: up",
        ),
        (
            r#"<line class="up" x1="-9" x2="9" y1="11" y2="11"></line><line class="stale" x1="-9" x2="9" y1="11" y2="11"></line>"#,
            "path: stale, not used",
        ),
        (
            r#"<path class="lost" d="M-5 6l10 10M5 6l-10 10"></path>"#,
            "path: failed, or lost",
        ),
    ];
    html! {
        ul.key {
            @for (shape, words) in marks {
                li { svg width="22" height="22" viewBox="-12 13 24 24" aria-hidden="true" { (PreEscaped(shape)) } (words) }
            }
            @if has_paths {
                @for (shape, words) in of_paths {
                    li { svg width="22" height="22" viewBox="-11 0 22 22" aria-hidden="true" { (PreEscaped(shape)) } (words) }
                }
            }
        }
    }
}

fn lanes(report: &Report<'_>) -> Markup {
    let axes = Axis::all(report.gathered.drawn());
    let local = report.local_epoch();
    let ticks = axes.map(|axis| axis.ticks(local));
    let label = |axis: Axis, tick: Tick| match axis {
        Axis::Clock { .. } => tick
            .clock(local)
            .unwrap_or_else(|| report.wall(tick.at).get(5..10).unwrap_or("?").to_owned()),
        Axis::Age { .. } | Axis::Spread => tick.age(),
    };
    html! {
        div.lanes {
            span.switch id="axis" { "Axis:" }
            @for (axis, is_default) in axes.iter().zip([true, false, false]) {
                input type="radio" name="axis" id={ "axis-" (axis.name()) } checked[is_default] aria-describedby="axis";
                label.switch for={ "axis-" (axis.name()) } { (axis_words(report, *axis).0) }
            }
            table {
                thead { tr {
                    th scope="col" { "Connection" }
                    th scope="col" {
                        @for (axis, ticks) in axes.iter().zip(&ticks) {
                            @let labelled: Vec<_> = ticks.iter().map(|tick| (*tick, label(*axis, *tick))).collect();
                            (scale(*axis, &labelled, &axis_words(report, *axis).1))
                        }
                    }
                } }
                tbody {
                    @for (life, number) in report.gathered.drawn().zip(1..) {
                        tr id={ "c" (number) } {
                            td {
                                p { (tag(life.awareness())) strong { (who(life)) } @if life.is_doubtful { " (in doubt)" } " " span.sub { (why(life)) } }
                                p.sub { (addresses(life)) }
                                p.sub { (times(report, life)) }
                                @for packet in &life.packets { p.sub { (packet) } }
                            }
                            td role="img" aria-label=(spoken(report, life)) {
                                @for (axis, ticks) in axes.iter().zip(&ticks) { (lane(life, *axis, ticks)) }
                            }
                        }
                        @for path in shown_paths(life) {
                            tr.path {
                                td {
                                    p { (path_addresses(path)) }
                                    p.sub { (path_words(life, path)) }
                                }
                                td role="img" aria-label={ (path.role_words()) " path, " (path.state()) } {
                                    @for (axis, ticks) in axes.iter().zip(&ticks) { (path_lane(life, path, *axis, ticks)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn table(report: &Report<'_>) -> Markup {
    let columns = [
        ("", "Local"),
        ("", "Remote"),
        ("", "First seen"),
        ("n", "Fell back"),
        ("", "Cause"),
        ("", "Packet shows"),
        ("n", "Asked"),
        ("", "Last told"),
        ("", "End"),
    ];
    let cells = |life: &ReportedConnection| {
        [
            ("mono", life.local.to_string()),
            ("mono", life.remote.to_string()),
            ("", report.moment(life.time)),
            (
                "n",
                match (life.fell_at, life.awareness().has_fallen()) {
                    (Some(at), _) => since(life, at),
                    (None, true) => "before".to_owned(),
                    (None, false) => "-".to_owned(),
                },
            ),
            ("", why(life)),
            ("", life.shows.join(", ")),
            ("n", digits(life.queries)),
            ("", last_answer(life)),
            ("", end(life).to_owned()),
        ]
    };
    html! {
        details.screen {
            summary { "Show as a table" }
            div.scroll { table {
                caption {
                    "Times are in " (report.zone())
                    "; fell back: time since it began to connect or was accepted."
                }
                thead { tr {
                    th scope="col" { "Verdict" } th scope="col" { "Process" }
                    @for (class, name) in columns { th class=(class) scope="col" { (name) } }
                } }
                tbody {
                    @for life in report.gathered.drawn() {
                        tr {
                            td { (tag(life.awareness())) @if life.is_doubtful { " in doubt" } }
                            th.name scope="row" { (who(life)) }
                            @for (class, text) in cells(life) { td class=(class) { (text) } }
                        }
                    }
                }
            } }
        }
    }
}

/// The connections by remote address, with a link to those that are drawn.
pub(super) fn addressed(report: &Report<'_>) -> Markup {
    let gathered = report.gathered;
    // Its number, if it is drawn: the drawn ones come first.
    let numbers = (1..=gathered.drawn().count()).map(Some);
    let numbers = numbers.chain(std::iter::repeat(None));
    let mut rows: Vec<(&ReportedConnection, Option<usize>)> =
        gathered.listed().zip(numbers).collect();
    if rows.is_empty() {
        return html! {};
    }
    rows.sort_by_key(|(life, _)| {
        let ip = life.remote.ip().to_canonical();
        (ip.is_unspecified(), ip, life.remote.port(), life.number)
    });
    html! {
        section aria-labelledby="addresses" {
            h2 id="addresses" { "Find a connection by address" }
            p.note {
                (count(rows.len() as u64, "connection", "connections"))
                " by remote address, with outcome and process; a link leads to the drawing. Your \
                 browser's search finds local addresses above."
                @if gathered.not_listed > 0 {
                    " " (count(gathered.not_listed, "more connection is", "more connections are"))
                    " not listed: the limit is " (LISTED_MAX) ", worst first. Option --addr of \
                     mptcp-trace report selects addresses."
                }
            }
            details open[rows.len() <= OPEN_MAX] {
                summary { "Remote addresses" }
                ul.index {
                    @for (life, number) in &rows {
                        li {
                            @if let Some(number) = number { a.mono href={ "#c" (number) } { (remote(life)) } }
                            @else { span.mono { (remote(life)) } }
                            " " (tag(life.awareness())) (who(life))
                        }
                    }
                }
            }
        }
    }
}

fn remote(life: &ReportedConnection) -> String {
    match life.remote.ip().is_unspecified() {
        true => "(address unknown)".to_owned(),
        false => life.remote.to_string(),
    }
}
