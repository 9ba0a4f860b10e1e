//! Section on the worst connections, one lane each.

use super::*;

/// Name, severity class and meaning.
pub(super) fn words(awareness: Awareness) -> (&'static str, &'static str, &'static str) {
    match awareness {
        Awareness::Contradicted => (
            "contradicted",
            "bad",
            "told MPTCP although it had fallen back: a bug",
        ),
        Awareness::Misled => ("misled", "bad", "asked in a way that always reports MPTCP"),
        Awareness::Stale => (
            "stale",
            "bad",
            "told MPTCP, fell back later, not asked again",
        ),
        Awareness::TooEarly => (
            "too-early",
            "bad",
            "told MPTCP before the handshake could decide, not asked again",
        ),
        Awareness::NeverAsked => (
            "never-asked",
            "warn",
            "fell back, and the application never asked",
        ),
        Awareness::Unsupported => (
            "unsupported",
            "warn",
            "fell back, and this kernel does not support the query",
        ),
        Awareness::Unexplained => ("unexplained", "warn", "told TCP, and no fallback was seen"),
        Awareness::Open => (
            "no verdict",
            "dim",
            "fell back; unknown whether the application is aware",
        ),
        Awareness::Explained => ("explained", "good", "told TCP, and the fallback was seen"),
        Awareness::Healthy => ("mptcp", "good", "did not fall back while traced"),
        Awareness::Plain => ("plain-tcp", "dim", "never was MPTCP"),
    }
}

fn tag(awareness: Awareness) -> Markup {
    let (word, class, meaning) = words(awareness);
    html! { span class={ "tag " (class) } title=(meaning) { (word) } }
}

fn who(life: &ReportedConnection) -> String {
    match &life.process {
        Some((pid, comm)) => format!("{} {pid}", name(comm)),
        None => "unknown process".to_owned(),
    }
}

fn why(life: &ReportedConnection) -> String {
    match (&life.cause, life.known) {
        (Some(cause), CauseCertainty::Reported) => name(cause),
        (Some(cause), CauseCertainty::Inferred | CauseCertainty::Unknown) if cause != "unknown" => {
            format!("{} (inferred)", name(cause))
        }
        (Some(_) | None, _) => "cause unknown".to_owned(),
    }
}

/// Time from the start of a connection to an event.
fn since(life: &ReportedConnection, at: Duration) -> String {
    match life.connected_at.or(life.born_at) {
        Some(begin) => after(at.saturating_sub(begin)),
        None => "-".to_owned(),
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

fn ended(life: &ReportedConnection) -> &'static str {
    use crate::model::ClosedBy;
    match life.closed {
        Some((_, ClosedBy::Death)) => "closed",
        Some((_, ClosedBy::Eviction)) => "forgotten",
        Some((_, ClosedBy::Exit)) => "open at the end",
        None => "-",
    }
}

/// Description of a lane for screen readers.
fn spoken(life: &ReportedConnection) -> String {
    let fell = match life.fell_at {
        Some(at) => format!("fell back {} after its beginning", since(life, at)),
        None => "fell back before tracing began, or unseen".to_owned(),
    };
    format!(
        "{}, asked {} times, last told: {}, {}",
        fell,
        life.queries,
        last_answer(life),
        ended(life)
    )
}

pub(super) fn timeline(report: &Report<'_>) -> Markup {
    let gathered = report.gathered;
    if gathered.worst.is_empty() {
        return html! {};
    }
    let mark = |shape: Markup, words: &str| {
        html! { li { svg width="20" height="20" viewBox="-10 16 20 20" aria-hidden="true" { (shape) } (words) } }
    };
    html! {
        section aria-labelledby="worst" {
            h2 id="worst" { "The worst connections" }
            p.note {
                "Connections whose applications hold a wrong belief come first, then those never \
                 queried, then the rest, each in order of time. Lanes are not to scale: marks are \
                 spaced so that each is visible."
            }
            ul.key {
                (mark(html! { circle.begin cy="26" r="4" {} }, "began to connect, or was accepted"))
                (mark(html! { path.told-mptcp d="M0 18l8 8-8 8-8-8z" {} }, "told MPTCP"))
                (mark(html! { path.told-tcp d="M0 18l8 8-8 8-8-8z" {} }, "told TCP"))
                (mark(html! { path.told-nothing d="M0 18l8 8-8 8-8-8z" {} }, "asked, told neither"))
                (mark(html! { path.fell d="M-8 17h16L0 33z" {} }, "fell back, how long after the first mark"))
                (mark(html! { path.end d="M0 18v16" {} }, "closed"))
                (mark(html! { path.open d="M0 18v16" {} }, "still open when last seen"))
            }
            ol.lanes {
                @for life in &gathered.worst {
                    li {
                        div {
                            p { (tag(life.awareness())) strong { (who(life)) } }
                            p.sub { (arrow(life)) " " span.mono { (life.remote) } ", " (why(life)) }
                        }
                        (chart::lane(life, &spoken(life)))
                    }
                }
            }
            @if gathered.not_drawn > 0 {
                p.note {
                    (count(gathered.not_drawn, "more connection that fell back is", "more connections that fell back are"))
                    " not drawn: the limit is " (LANES_MAX) "."
                }
            }
            details {
                summary { "Show as a table" }
                div.scroll { table {
                    caption {
                        "Times are in " (report.zone())
                        "; fell back: time since it began to connect or was accepted."
                    }
                    thead { tr {
                        th scope="col" { "Verdict" } th scope="col" { "Process" } th scope="col" { "Local" } th scope="col" { "Remote" }
                        th scope="col" { "First seen" } th.n scope="col" { "Fell back" } th scope="col" { "Cause" }
                        th.n scope="col" { "Asked" } th scope="col" { "Last told" } th scope="col" { "End" }
                    } }
                    tbody {
                        @for life in &gathered.worst {
                            tr {
                                td { (tag(life.awareness())) @if life.is_doubtful { " in doubt" } }
                                th.name scope="row" { (who(life)) }
                                td.mono { (life.local) }
                                td.mono { (life.remote) }
                                td { (report.moment(life.time)) }
                                td.n { @match life.fell_at { Some(at) => (since(life, at)), None => "before" } }
                                td { (why(life)) }
                                td.n { (digits(life.queries)) }
                                td { (last_answer(life)) }
                                td { (ended(life)) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

/// Direction of the connection.
fn arrow(life: &ReportedConnection) -> &'static str {
    match life.side {
        Some(Side::Active) => "client to",
        Some(Side::Passive) => "server of",
        None => "with",
    }
}
