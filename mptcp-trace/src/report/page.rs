//! What was gathered -> one page: HTML with its style and its drawings inside, that loads nothing and runs nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, tz::TimeZone};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    chart::{self, COLOURS},
    gather::{CONNECTIONS_MAX, Gathered, Group, LANES_MAX, Life, OTHERS, OfCause},
};
use crate::{
    ledger::Awareness,
    model::{Cause, Facts, Known, LossReport, Side, find_cause, short},
    observe::State,
    sink::escape,
};

/// Longest name from outside that is shown, characters.
const NAME_MAX: usize = 80;
/// Longest sentence from outside that is shown, characters.
const SENTENCE_MAX: usize = 400;
/// Rows of a table of destinations, or of processes.
const ROWS_MAX: usize = 20;
/// Causes with a row of their own.
const CAUSES_SHOWN_MAX: usize = 20;
/// Network namespaces whose counters do not agree.
const NAMESPACES_MAX: usize = 10;
/// Limits of a sensor, and probes.
const SENTENCES_MAX: usize = 64;

const STYLE: &str = include_str!("style.css");

/// How the records end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// In order, with the losses.
    Orderly,
    /// In the middle of things.
    CutOff,
    /// They cannot be read on, and why.
    Damaged(String),
}

/// All that stands on the page.
#[derive(Debug)]
pub struct Report<'a> {
    /// Its title.
    pub title: &'a str,
    /// What was known before the first record.
    pub facts: &'a Facts,
    /// What was found.
    pub gathered: &'a Gathered,
    /// What was lost, and what the kernel counted.
    pub state: &'a State,
    /// How the records end.
    pub ending: &'a Ending,
    /// Only some of the findings were wanted.
    pub is_selection: bool,
    /// Times are in UTC, not local.
    pub utc: bool,
}

/// Text from outside: what cannot be seen, or would reorder the line, is spelled out; what is too long is cut.
pub(super) fn shown(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == chars_max {
            out.push('\u{2026}');
            break;
        }
        match character {
            // They are not obeyed by terminals, but by browsers.
            '\u{61c}'
            | '\u{ad}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200d}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{2060}'..='\u{2064}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}' => {
                out.extend(character.escape_unicode());
            }
            other => out.push_str(&escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

fn name(text: &str) -> String {
    shown(text, NAME_MAX)
}

/// A time after another.
pub(super) fn after(duration: Duration) -> String {
    format!("+{}", short(duration).replace("us", "µs"))
}

/// A count with its noun.
fn count(number: u64, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{} {noun}", digits(number))
}

/// A number in groups of three, which do not break.
fn digits(number: u64) -> String {
    let plain = number.to_string();
    let mut out = String::new();
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn percent(part: u64, whole: u64) -> String {
    let share = chart::share(part, whole) * 100.0;
    // What is there is not nothing, and what is not all is not all.
    match share {
        _ if whole == 0 => "-".to_owned(),
        ..0.5 if part > 0 => "<1%".to_owned(),
        99.5.. if part < whole => ">99%".to_owned(),
        _ => format!("{share:.0}%"),
    }
}

impl Report<'_> {
    fn moment(&self, time: SystemTime) -> String {
        let zone = match self.utc {
            true => TimeZone::UTC,
            false => TimeZone::system(),
        };
        let Ok(timestamp) = Timestamp::try_from(time) else {
            return "?".to_owned();
        };
        let at = timestamp.to_zoned_datetime(zone);
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            at.year(),
            at.month(),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        )
    }

    /// Wall clock time of a moment on `CLOCK_BOOTTIME`.
    fn wall(&self, at: Duration) -> String {
        let since = self.facts.boot_epoch.checked_add(at);
        let time = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        time.map_or_else(|| "?".to_owned(), |time| self.moment(time))
    }

    fn zone(&self) -> &'static str {
        match self.utc {
            true => "UTC",
            false => "local time",
        }
    }
}

impl Gathered {
    fn of(&self, is_wanted: impl Fn(Awareness) -> bool) -> u64 {
        let wanted = self.awareness.iter().filter(|(fate, _)| is_wanted(**fate));
        wanted.map(|(_, count)| count).sum()
    }

    /// Fallbacks of causes, the most frequent first.
    fn ranked(&self) -> Vec<(&str, u64)> {
        let mut causes: Vec<(&str, u64)> = self
            .causes
            .iter()
            .map(|(name, of_cause)| (name.as_str(), of_cause.fallbacks))
            .collect();
        causes.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
        causes
    }
}

/// The whole page.
#[must_use]
pub fn page(report: &Report<'_>) -> String {
    let title = name(report.title);
    let gathered = report.gathered;
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.verdict { (verdict(gathered)) }
                    p.more { (more(report)) }
                    (banners(report))
                    (figures(report))
                    (contents(gathered))
                }
                main {
                    (timeline(report))
                    (causes(report))
                    (destinations(gathered))
                    (processes(gathered))
                    (answers(gathered))
                    (refusals(gathered))
                    (losses(report))
                    (origin(report))
                }
                footer {
                    p {
                        "Made by mptcp-trace report. This page loads nothing and runs nothing; all names and numbers are those of the \
                         capture. A " em { "connection" } " is one end of an MPTCP connection: where both ends are on the traced host, each \
                         is counted."
                    }
                }
            }
        }
    };
    let mut text = markup.into_string();
    text.push('\n');
    text
}

/// What came out, in a sentence.
fn verdict(gathered: &Gathered) -> String {
    let all = gathered.of(|fate| fate != Awareness::Plain);
    let fallen = gathered.of(Awareness::has_fallen);
    if gathered.findings == 0 {
        return "Nothing fell back, and nobody asked: there are no findings.".to_owned();
    }
    match (fallen, all) {
        (_, 0) => "No MPTCP connection was heard of.".to_owned(),
        (0, 1) => "The one connection that was heard of did not fall back.".to_owned(),
        (0, all) => format!(
            "None of {} fell back to TCP.",
            count(all, "connection", "connections")
        ),
        (1, 1) => "The one connection that was heard of fell back to TCP.".to_owned(),
        (fallen, all) if fallen == all => {
            format!(
                "All {} fell back to TCP.",
                count(all, "connection", "connections")
            )
        }
        (fallen, all) => format!(
            "{} of {} fell back to TCP.",
            digits(fallen),
            count(all, "connection", "connections")
        ),
    }
}

/// Who knows of it, and why it happened.
fn more(report: &Report<'_>) -> String {
    let gathered = report.gathered;
    let unaware = gathered.of(Awareness::is_unaware);
    let never = gathered.of(|fate| fate == Awareness::NeverAsked);
    let mut words = Vec::new();
    if gathered.of(Awareness::has_fallen) > 0 {
        words.push(match (unaware, unaware - never) {
            (0, _) => "No application is known to believe otherwise.".to_owned(),
            (unaware, 0) => format!(
                "Of {} the application does not know, since it never asked.",
                count(unaware, "connection", "connections")
            ),
            (unaware, told) => format!(
                "Of {} the application does not know: {} told MPTCP and not told otherwise later, {} never asked about.",
                count(unaware, "connection", "connections"),
                match told {
                    1 => "1 was".to_owned(),
                    _ => format!("{} were", digits(told)),
                },
                match never {
                    1 => "1 was".to_owned(),
                    _ => format!("{} were", digits(never)),
                },
            ),
        });
    }
    if let Some((cause, times)) = gathered.ranked().first() {
        let culprits = match find_cause(cause).map(culprits) {
            Some(culprits) => format!(" ({culprits})"),
            None => String::new(),
        };
        words.push(format!(
            "The most frequent cause is {}{culprits}, {}.",
            name(cause),
            count(*times, "time", "times")
        ));
    }
    if let Some((first, last)) = gathered.range {
        let took = last.duration_since(first).unwrap_or_default();
        words.push(format!(
            "From {} on, for {}, on kernel {}.",
            report.moment(first),
            span(took),
            name(&report.facts.kernel)
        ));
    }
    words.join(" ")
}

/// A long duration, in words.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => short(duration).replace("us", "µs"),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn culprits(cause: &Cause) -> String {
    let names: Vec<&str> = cause.culprits.iter().map(|it| it.name()).collect();
    names.join(" or ")
}

fn banners(report: &Report<'_>) -> Markup {
    let state = report.state;
    let untold: u64 = untold(&state.losses);
    let disagree = state
        .reconciled
        .iter()
        .filter(|it| !it.agrees() && !it.unread)
        .count();
    html! {
        @match report.ending {
            Ending::Orderly => {},
            Ending::CutOff => p.banner role="alert" {
                strong { "The capture is cut off." }
                " What came after its last record is missing here, and what was lost while it was recorded is not known. Connections \
                 that were open at that point have no last word."
            },
            Ending::Damaged(why) => p.banner role="alert" {
                strong { "The capture is damaged." }
                " It could be read up to a point only (" (shown(why, SENTENCE_MAX)) "): what comes after that is missing here, and what \
                 was lost while it was recorded is not known."
            },
        }
        @if state.undecodable > 0 {
            p.banner role="alert" {
                strong { (count(state.undecodable, "record", "records")) " could not be understood." }
                " What they told of is missing here."
            }
        }
        @if untold > 0 {
            p.banner {
                strong { (count(untold, "event was", "events were")) " lost or left out while tracing." }
                " What is missing may be connections, or questions that change a verdict; " a href="#losses" { "see what was lost" } "."
            }
        }
        @if disagree > 0 {
            p.banner {
                strong { "The kernel counted other fallbacks than were traced" }
                " in " (count(disagree as u64, "network namespace", "network namespaces")) "; " a href="#losses" { "see where" } "."
            }
        }
    }
}

fn untold(losses: &LossReport) -> u64 {
    let each = losses.sensors.iter().map(crate::model::Loss::untold);
    each.fold(0, u64::saturating_add)
}

fn figures(report: &Report<'_>) -> Markup {
    let gathered = report.gathered;
    let questions: u64 = gathered.answers.values().sum();
    let refusals: u64 = gathered.refusals.values().sum();
    let figure = |class: &str, number: String, what: &str| {
        html! { div class=(class) { dt { (what) } dd { (number) } } }
    };
    let fallen = gathered.of(Awareness::has_fallen);
    let all = gathered.of(|fate| fate != Awareness::Plain);
    let unaware = gathered.of(Awareness::is_unaware);
    html! {
        dl.figures {
            (figure("", digits(all), "MPTCP connections heard of"))
            (figure(if fallen > 0 { "bad" } else { "good" }, digits(fallen), "fell back to TCP"))
            (figure(if unaware > 0 { "bad" } else { "good" }, digits(unaware), "whose application does not know"))
            (figure("", digits(questions), "questions of applications"))
            (figure(if refusals > 0 { "warn" } else { "" }, digits(refusals), "sockets and options refused"))
            @match report.ending {
                Ending::Orderly if !report.state.losses.sensors.is_empty() => (figure(
                    if untold(&report.state.losses) > 0 { "bad" } else { "good" },
                    digits(untold(&report.state.losses)),
                    "events lost",
                )),
                Ending::Orderly | Ending::CutOff | Ending::Damaged(_) => (figure("bad", "?".to_owned(), "events lost")),
            }
        }
    }
}

fn contents(gathered: &Gathered) -> Markup {
    html! {
        nav aria-label="Sections" {
            ul {
                @if !gathered.worst.is_empty() { li { a href="#worst" { "Worst connections" } } }
                @if !gathered.causes.is_empty() { li { a href="#causes" { "Causes" } } }
                @if !gathered.destinations.is_empty() { li { a href="#destinations" { "Destinations" } } }
                @if !gathered.processes.is_empty() { li { a href="#processes" { "Processes" } } }
                @if !gathered.answers.is_empty() { li { a href="#answers" { "Answers and verdicts" } } }
                @if !gathered.refusals.is_empty() { li { a href="#refusals" { "Refusals" } } }
                li { a href="#losses" { "Losses" } }
                li { a href="#origin" { "How it was captured" } }
            }
        }
    }
}

/// The word for it, how bad it is, and what it means.
fn words(awareness: Awareness) -> (&'static str, &'static str, &'static str) {
    match awareness {
        Awareness::Contradicted => (
            "contradicted",
            "bad",
            "told MPTCP although it had fallen back: a bug",
        ),
        Awareness::Misled => ("misled", "bad", "asked in a way that says MPTCP for ever"),
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
            "fell back, and this kernel does not know the question",
        ),
        Awareness::Unexplained => ("unexplained", "warn", "told TCP, and no fallback was seen"),
        Awareness::Open => (
            "no verdict",
            "dim",
            "fell back; what the application knows is not known",
        ),
        Awareness::Explained => (
            "explained",
            "good",
            "told TCP, and that it fell back was seen",
        ),
        Awareness::Healthy => ("mptcp", "good", "did not fall back while it was watched"),
        Awareness::Plain => ("plain-tcp", "dim", "never was MPTCP"),
    }
}

fn tag(awareness: Awareness) -> Markup {
    let (word, class, meaning) = words(awareness);
    html! { span class={ "tag " (class) } title=(meaning) { (word) } }
}

fn who(life: &Life) -> String {
    match &life.process {
        Some((pid, comm)) => format!("{} {pid}", name(comm)),
        None => "unknown process".to_owned(),
    }
}

fn why(life: &Life) -> String {
    match (&life.cause, life.known) {
        (Some(cause), Known::Reported) => name(cause),
        (Some(cause), Known::Inferred | Known::Unknown) if cause != "unknown" => {
            format!("{} (inferred)", name(cause))
        }
        (Some(_) | None, _) => "cause unknown".to_owned(),
    }
}

/// Between connecting, or the first that was heard of it, and something.
fn since(life: &Life, at: Duration) -> String {
    match life.connected_at.or(life.born_at) {
        Some(begin) => after(at.saturating_sub(begin)),
        None => "-".to_owned(),
    }
}

fn told(life: &Life) -> String {
    match life.asked.last() {
        Some(asked) => {
            let word = asked.answer.word().unwrap_or("not known");
            format!("{word} by {}", asked.api.name())
        }
        None => "never asked".to_owned(),
    }
}

fn ended(life: &Life) -> &'static str {
    use crate::model::ClosedBy;
    match life.closed {
        Some((_, ClosedBy::Death)) => "closed",
        Some((_, ClosedBy::Eviction)) => "forgotten",
        Some((_, ClosedBy::Exit)) => "open at the end",
        None => "-",
    }
}

/// The lane in words, for whoever cannot see it.
fn spoken(life: &Life) -> String {
    let fell = match life.fell_at {
        Some(at) => format!("fell back {} after its beginning", since(life, at)),
        None => "fell back before tracing began, or unseen".to_owned(),
    };
    format!(
        "{}, asked {} times, last told: {}, {}",
        fell,
        life.questions,
        told(life),
        ended(life)
    )
}

fn timeline(report: &Report<'_>) -> Markup {
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
                "First those whose applications are wrong about them, then those that nobody asked about, then the rest; of each kind the \
                 earliest. Lanes are not to one scale: marks are kept apart, so that each can be seen."
            }
            ul.key {
                (mark(html! { circle.begin cy="26" r="4" {} }, "began to connect, or was accepted"))
                (mark(html! { path.told-mptcp d="M0 18l8 8-8 8-8-8z" {} }, "told MPTCP"))
                (mark(html! { path.told-tcp d="M0 18l8 8-8 8-8-8z" {} }, "told TCP"))
                (mark(html! { path.told-nothing d="M0 18l8 8-8 8-8-8z" {} }, "asked, told neither"))
                (mark(html! { path.fell d="M-8 17h16L0 33z" {} }, "fell back, how long after the first mark"))
                (mark(html! { path.end d="M0 18v16" {} }, "closed"))
                (mark(html! { path.open d="M0 18v16" {} }, "still open when last heard of"))
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
                    " not drawn: there is room for " (LANES_MAX) "."
                }
            }
            details {
                summary { "The same as a table" }
                div.scroll { table {
                    caption { "Times are in " (report.zone()) "; fell back: since it began to connect, or was born of its listener." }
                    thead { tr {
                        th scope="col" { "Verdict" } th scope="col" { "Process" } th scope="col" { "Local" } th scope="col" { "Remote" }
                        th scope="col" { "First heard of" } th.n scope="col" { "Fell back" } th scope="col" { "Cause" }
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
                                td.n { (digits(life.questions)) }
                                td { (told(life)) }
                                td { (ended(life)) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

/// Which end opened it.
fn arrow(life: &Life) -> &'static str {
    match life.side {
        Some(Side::Active) => "client to",
        Some(Side::Passive) => "server of",
        None => "with",
    }
}

fn causes(report: &Report<'_>) -> Markup {
    let gathered = report.gathered;
    let ranked = gathered.ranked();
    if ranked.is_empty() {
        return html! {};
    }
    let all: u64 = ranked.iter().map(|it| it.1).sum();
    let left: u64 = ranked.iter().skip(CAUSES_SHOWN_MAX).map(|it| it.1).sum();
    let (bins, begin) = gathered.bins.used();
    let width = gathered.bins.width();
    let end = begin + width * u32::try_from(bins.len()).unwrap_or(u32::MAX);
    let highest = bins
        .iter()
        .map(|bin| bin.values().sum::<u64>())
        .max()
        .unwrap_or(0);
    html! {
        section aria-labelledby="causes" {
            h2 id="causes" { "Causes" }
            p.note {
                "Named as the kernel's own counters (MPTcpExt). " (count(all, "fallback", "fallbacks")) " happened while tracing"
                @if gathered.fell_before > 0 {
                    "; " (count(gathered.fell_before, "connection had", "connections had")) " fallen back before"
                }
                @if gathered.reset > 0 {
                    "; " (count(gathered.reset, "subflow was", "subflows were")) " reset because the connection was not allowed to fall back any more"
                }
                @if gathered.blackholes > 0 {
                    "; MPTCP was switched off for a while " (count(gathered.blackholes, "time", "times")) " (blackhole detection)"
                }
                "."
            }
            div.scroll { table {
                caption { "Fallbacks by cause" }
                thead { tr {
                    th scope="col" { "Cause" } th.n scope="col" { "Fallbacks" } th.n scope="col" { "Share" } th scope="col" { span hidden { "Bar" } }
                    th scope="col" { "Who can do something" } th scope="col" { "When it is decided" }
                } }
                tbody {
                    @for (cause, times) in ranked.iter().take(CAUSES_SHOWN_MAX) {
                        (cause_row(cause, *times, all, &ranked, gathered.causes.get(*cause).copied().unwrap_or_default()))
                    }
                }
            } }
            @if left > 0 {
                p.note { (count(left, "fallback", "fallbacks")) " of " (ranked.len() - CAUSES_SHOWN_MAX) " rarer causes are left out." }
            }
            h3 { "Causes over time" }
            figure.chart style="margin:0" {
                (chart::over_time(&gathered.bins, &ranked))
                div.axis-words { span { (report.wall(begin)) } span { (report.wall(end)) } }
                figcaption.note {
                    "A bar is " (span(width)) "; the highest holds " (count(highest, "fallback", "fallbacks")) ". Times are in " (report.zone()) "."
                }
            }
            ul.key {
                @for (cause, _) in ranked.iter().take(COLOURS) { li { (swatch(chart::colour(&ranked, cause))) (name(cause)) } }
                @if ranked.len() > COLOURS { li { (swatch(COLOURS)) "all others" } }
            }
            h3 { "What they mean" }
            @for (cause, _) in ranked.iter().take(CAUSES_SHOWN_MAX) {
                @if let Some(cause) = find_cause(cause) { (explained(cause)) }
            }
        }
    }
}

fn swatch(colour: usize) -> Markup {
    html! { svg.swatch width="11" height="11" aria-hidden="true" { rect class={ "c" (colour) } width="11" height="11" rx="2" {} } }
}

fn cause_row(
    cause: &str,
    times: u64,
    all: u64,
    ranked: &[(&str, u64)],
    of_cause: OfCause,
) -> Markup {
    let colour = chart::colour(ranked, cause);
    let known = find_cause(cause);
    html! {
        tr {
            th.name scope="row" {
                span.whole { (swatch(colour)) (name(cause)) }
                @if of_cause.inferred > 0 && cause != "unknown" { " " small { "(" (digits(of_cause.inferred)) " inferred)" } }
            }
            td.n { (digits(times)) }
            td.n { (percent(times, all)) }
            td.wide { (chart::bar(times, all, &format!("c{colour}"))) }
            td { (known.map_or_else(|| "-".to_owned(), culprits)) }
            td { (known.map_or("-", |it| it.when)) }
        }
    }
}

fn explained(cause: &Cause) -> Markup {
    html! {
        details {
            summary { (cause.name) }
            p { (cause.meaning) }
            p.note { "Decided by " code { (cause.function) } "; RFC 8684, section " (cause.rfc_section) ". Look at next:" }
            ul { @for next in cause.next { li { (next) } } }
        }
    }
}

/// A table of groups, most fallbacks first.
fn groups(caption: &str, what: &str, mut rows: Vec<(String, Group)>) -> Markup {
    rows.sort_by(|(one_name, one), (other_name, other)| {
        let key = |group: &Group| {
            (
                group.fallen,
                group.unaware,
                std::cmp::Reverse(group.connections),
            )
        };
        key(other)
            .cmp(&key(one))
            .then_with(|| one_name.cmp(other_name))
    });
    let left = rows.len().saturating_sub(ROWS_MAX);
    let fallen: u64 = rows
        .iter()
        .skip(ROWS_MAX)
        .map(|(_, group)| group.fallen)
        .sum();
    html! {
        div.scroll { table {
            caption { (caption) }
            thead { tr {
                th scope="col" { (what) } th.n scope="col" { "Connections" } th.n scope="col" { "Fell back" } th.n scope="col" { "Share" }
                th scope="col" { span hidden { "Bar" } } th.n scope="col" { "Application does not know" }
            } }
            tbody {
                @for (key, group) in rows.iter().take(ROWS_MAX) {
                    tr {
                        th.name.mono scope="row" { (name(key)) }
                        td.n { (digits(group.connections)) }
                        td.n { (digits(group.fallen)) }
                        td.n { (percent(group.fallen, group.connections)) }
                        td.wide { (chart::bar(group.fallen, group.connections, "part")) }
                        td.n { (digits(group.unaware)) }
                    }
                }
            }
        } }
        @if left > 0 {
            p.note { (digits(left as u64)) " more rows, with " (count(fallen, "fallback", "fallbacks")) ", are left out." }
        }
    }
}

fn destinations(gathered: &Gathered) -> Markup {
    if gathered.destinations.is_empty() {
        return html! {};
    }
    let rows = gathered.destinations.iter().map(|(addr, group)| {
        let key = addr.map_or_else(|| OTHERS.to_owned(), |addr| addr.to_string());
        (key, *group)
    });
    html! {
        section aria-labelledby="destinations" {
            h2 id="destinations" { "Destinations" }
            p.note {
                "A connection that stayed MPTCP and was never asked about leaves no record: shares are of the connections that were heard \
                 of, and the real ones may be lower."
            }
            (groups("Connections by the address of the other end, most fallbacks first", "Address", rows.collect()))
        }
    }
}

fn processes(gathered: &Gathered) -> Markup {
    if gathered.processes.is_empty() {
        return html! {};
    }
    let rows = gathered.processes.iter().map(|(comm, group)| {
        let key = if comm == "?" {
            "(unknown)"
        } else {
            comm.as_str()
        };
        (key.to_owned(), *group)
    });
    html! {
        section aria-labelledby="processes" {
            h2 id="processes" { "Processes" }
            (groups("Connections by the name of the process that holds them, or asked, most fallbacks first", "Name", rows.collect()))
        }
    }
}

fn answers(gathered: &Gathered) -> Markup {
    if gathered.answers.is_empty() && gathered.verdicts.is_empty() {
        return html! {};
    }
    const WORDS: [&str; 5] = ["mptcp", "tcp", "unsupported", "failed", "unknown"];
    let mut apis: BTreeMap<&str, [u64; WORDS.len()]> = BTreeMap::new();
    for ((api, word), times) in &gathered.answers {
        if let Some(index) = WORDS.iter().position(|known| known == word) {
            apis.entry(api).or_default()[index] += times;
        }
    }
    html! {
        section aria-labelledby="answers" {
            h2 id="answers" { "Answers and verdicts" }
            @if !apis.is_empty() {
                div.scroll { table {
                    caption { "What applications asked, and what the kernel said" }
                    thead { tr { th scope="col" { "Asked by" } @for word in WORDS { th.n scope="col" { (word) } } } }
                    tbody { @for (api, counts) in &apis { tr {
                        th scope="row" { code { (api) } }
                        @for times in counts { td.n { @if *times > 0 { (digits(*times)) } @else { "-" } } }
                    } } }
                } }
            }
            div.scroll { table {
                caption { "What is concluded of answers, and at the ends of connections of what is left to say" }
                thead { tr { th scope="col" { "Verdict" } th.n scope="col" { "On answers" } th.n scope="col" { "At the end" } th scope="col" { "Meaning" } } }
                tbody { @for (verdict, (on_answers, at_ends)) in &gathered.verdicts { tr {
                    th scope="row" { (verdict.name()) }
                    td.n { (digits(*on_answers)) } td.n { (digits(*at_ends)) } td { (verdict.meaning()) }
                } } }
            } }
            @if gathered.doubtful > 0 {
                p.note { (count(gathered.doubtful, "verdict is", "verdicts are")) " in doubt: questions about these connections are known to be missing." }
            }
        }
    }
}

fn refusals(gathered: &Gathered) -> Markup {
    if gathered.refusals.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="refusals" {
            h2 id="refusals" { "Refusals" }
            div.scroll { table {
                caption { "What applications were refused because they speak MPTCP" }
                thead { tr { th scope="col" { "What" } th scope="col" { "Error" } th.n scope="col" { "Times" } th scope="col" { "Why" } } }
                tbody { @for ((what, errno, why), times) in &gathered.refusals { tr {
                    th scope="row" { code { (name(what)) } } td { (errno) } td.n { (digits(*times)) } td { (why) }
                } } }
            } }
        }
    }
}

fn losses(report: &Report<'_>) -> Markup {
    let state = report.state;
    let losses = &state.losses;
    let complete = losses.is_complete() && *report.ending == Ending::Orderly;
    html! {
        section aria-labelledby="losses" {
            h2 id="losses" { "Losses" }
            @if *report.ending != Ending::Orderly {
                p { "The counts of what was lost stand at the end of a capture, and this one has none: what is missing is not known." }
            } @else {
                @if complete && !losses.sensors.is_empty() {
                    p { "Nothing that was wanted was lost: all that the probes saw is accounted for." }
                } @else if !losses.sensors.is_empty() {
                    p {
                        "Something is missing. A lost question can make " em { "stale" } ", " em { "too-early" } " and " em { "never-asked" }
                        " wrong, since the application may have asked once more; a lost fallback makes " em { "unexplained" }
                        ", and is missing in all counts above."
                    }
                }
                @if !losses.sensors.is_empty() {
                    div.scroll { table {
                        caption { "What each sensor saw, and what became of it: seen = emitted + filtered + capped + ring full + faulted + table full + unfinished" }
                        thead { tr {
                            th scope="col" { "Sensor" }
                            @for (counter, _) in crate::model::Loss::none(crate::model::SensorId::Query).counters() { th.n scope="col" { (counter.replace('_', " ")) } }
                            th scope="col" { "Adds up" }
                        } }
                        tbody { @for loss in losses.sensors.iter().take(SENTENCES_MAX) { tr {
                            th.name scope="row" { (loss.sensor.name()) }
                            @for (_, number) in loss.counters() { td.n { (digits(number)) } }
                            td { @if loss.balances() { "yes" } @else { strong { "no: please report this" } } }
                        } } }
                    } }
                }
                (reconciled(report))
            }
            @if state.evicted > 0 {
                p { (count(state.evicted, "connection was", "connections were")) " judged before the end, because too many were remembered (--max-connections)." }
            }
            @if report.gathered.forgotten > 0 {
                p {
                    (count(report.gathered.forgotten, "connection", "connections")) " beyond " (digits(CONNECTIONS_MAX as u64))
                    " at a time may be counted twice on this page."
                }
            }
        }
    }
}

/// What the kernel counted against what was traced.
fn reconciled(report: &Report<'_>) -> Markup {
    let all = &report.state.reconciled;
    let read = || all.iter().filter(|it| !it.unread);
    let mut by_cause: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for one in read() {
        for (cause, times) in &one.counted {
            let sum = &mut by_cause.entry(cause).or_default().0;
            *sum = sum.saturating_add(*times);
        }
        for (cause, times) in &one.traced {
            let sum = &mut by_cause.entry(cause).or_default().1;
            *sum = sum.saturating_add(*times);
        }
    }
    let complaints: Vec<_> = all.iter().filter(|it| !it.agrees()).collect();
    let left = complaints.len().saturating_sub(NAMESPACES_MAX);
    html! {
        h3 { "The kernel's own count" }
        @if by_cause.is_empty() {
            p { "There is nothing to compare with: no counter of the kernel was read that counts a fallback, and none grew." }
        } @else {
            div.scroll { table {
                caption { "Fallbacks in " (count(read().count() as u64, "network namespace", "network namespaces")) " whose counters could be read, all findings included" }
                thead { tr { th scope="col" { "Cause" } th.n scope="col" { "Kernel counted" } th.n scope="col" { "Traced" } th scope="col" { "Agrees" } } }
                tbody { @for (cause, (counted, traced)) in by_cause.iter().take(CAUSES_SHOWN_MAX) { tr {
                    th.name scope="row" { (name(cause)) } td.n { (digits(*counted)) } td.n { (digits(*traced)) }
                    td { @if counted == traced { "yes" } @else { strong { "no" } } }
                } } }
            } }
        }
        @if !complaints.is_empty() {
            ul {
                @for one in complaints.iter().take(NAMESPACES_MAX) {
                    li { "Network namespace " (one.netns) ": " (shown(one.why.as_deref().unwrap_or_default(), SENTENCE_MAX)) }
                }
                @if left > 0 { li { (digits(left as u64)) " more namespaces that do not agree, or could not be read, are left out." } }
            }
        }
    }
}

fn origin(report: &Report<'_>) -> Markup {
    let facts = report.facts;
    html! {
        section aria-labelledby="origin" {
            h2 id="origin" { "How it was captured" }
            div.scroll { table {
                caption { "Where the records come from" }
                tbody {
                    tr { th scope="row" { "Kernel" } td { (name(&facts.kernel)) } }
                    tr { th scope="row" { "Captured by" } td { "mptcp-trace " (name(&facts.version)) } }
                    @if let Some((first, last)) = report.gathered.range {
                        tr { th scope="row" { "First and last finding" } td { (report.moment(first)) " to " (report.moment(last)) ", " (report.zone()) } }
                    }
                    tr { th scope="row" { "Findings" } td {
                        (digits(report.gathered.findings))
                        @if report.is_selection { "; " (digits(report.state.not_shown)) " more were not selected" }
                    } }
                    tr { th scope="row" { "TCP clients of MPTCP listeners" } td { (digits(report.gathered.plain)) } }
                }
            } }
            @if report.is_selection {
                p { "This page is about a selection. Losses and the kernel's count are those of the whole run." }
            }
            @for sensor in facts.sensors.iter().take(SENTENCES_MAX) {
                details {
                    summary {
                        "Sensor " (sensor.sensor.name()) ": " (sensor.rung.name()) ", " (count(sensor.probes.len() as u64, "probe", "probes"))
                        @if sensor.limits.is_empty() { ", nothing that it cannot see" }
                        @else { ", " (count(sensor.limits.len() as u64, "thing", "things")) " that it cannot tell" }
                    }
                    @if !sensor.limits.is_empty() {
                        p { "What this way of tracing cannot tell:" }
                        ul { @for limit in sensor.limits.iter().take(SENTENCES_MAX) { li { (shown(limit, SENTENCE_MAX)) } } }
                    }
                    p.note { "Attached to:" }
                    ul { @for probe in sensor.probes.iter().take(SENTENCES_MAX) { li.mono { (name(probe)) } } }
                }
            }
            @if !facts.has_sensor(crate::model::SensorId::Fallback) {
                p { "No sensor for fallbacks ran: only what applications asked is known." }
            }
        }
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
