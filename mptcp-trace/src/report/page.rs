//! Renders the gathered sums as one HTML page with embedded styles and drawings, without scripts or
//! external resources.

mod origin;
mod paths;
mod sums;
mod worst;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, tz::TimeZone};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::{
    origin::{losses, origin},
    paths::paths,
    sums::{answers, causes, destinations, processes, refusals},
    worst::{addressed, timeline},
};
use super::{
    chart::{self, COLOURS},
    gather::{
        CONNECTIONS_MAX, Gathered, Group, LANES_MAX, LISTED_MAX, OTHERS, OfCause,
        ReportedConnection,
    },
    path_counts::{PathCounts, PathOutcome},
    words::{count, digits, fine, name, outcome, percent, shown},
};
use crate::{
    ledger::Awareness,
    model::{
        Cause, CauseCertainty, Facts, LossReport, Reconciliation, Reconciliations, Side,
        find_cause, short,
    },
    observe::State,
};

/// Longest external sentence that is shown, characters.
const SENTENCE_MAX: usize = 400;
/// Most rows of a table of destinations or processes.
const ROWS_MAX: usize = 20;
/// Most causes with their own row.
const CAUSES_SHOWN_MAX: usize = 20;
/// Most network namespaces with differing counters that are listed.
const NAMESPACES_MAX: usize = 10;
/// Most limits and probes listed per sensor.
const SENTENCES_MAX: usize = 64;

const STYLE: &str = include_str!("style.css");

/// How the capture ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// With its end frame, which has the losses.
    Orderly,
    /// Without an end frame.
    CutOff,
    /// With a frame that cannot be read, and the reason.
    Damaged(String),
}

/// Content of the page.
#[derive(Debug)]
pub struct Report<'a> {
    /// Its title.
    pub title: &'a str,
    /// Facts recorded at the start of the capture.
    pub facts: &'a Facts,
    /// Sums over the findings.
    pub gathered: &'a Gathered,
    /// Losses and kernel counters.
    pub state: &'a State,
    /// How the capture ends.
    pub ending: &'a Ending,
    /// Findings were filtered.
    pub is_selection: bool,
    /// Show times in UTC instead of local time.
    pub utc: bool,
}

impl Report<'_> {
    fn time_zone(&self) -> TimeZone {
        match self.utc {
            true => TimeZone::UTC,
            false => TimeZone::system(),
        }
    }

    fn moment(&self, time: SystemTime) -> String {
        let zone = self.time_zone();
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

    /// Converts a time on `CLOCK_BOOTTIME` to wall clock.
    fn wall(&self, at: Duration) -> String {
        let since = self.facts.boot_epoch.checked_add(at);
        let time = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        time.map_or_else(|| "?".to_owned(), |time| self.moment(time))
    }

    /// The same with milliseconds, without the date.
    fn wall_ms(&self, at: Duration) -> String {
        let millis = self.facts.boot_epoch.saturating_add(at).subsec_millis();
        let moment = self.wall(at);
        format!("{}.{millis:03}", moment.get(11..).unwrap_or(&moment))
    }

    /// Local time, since 1970, at zero of `CLOCK_BOOTTIME`; with the offset at the first finding.
    fn local_epoch(&self) -> Duration {
        let epoch = self.facts.boot_epoch;
        let first = self.gathered.range.map(|(first, _)| first);
        let stamp = first.and_then(|first| Timestamp::try_from(first).ok());
        let offset = stamp.map_or(0, |stamp| self.time_zone().to_offset(stamp).seconds());
        let ahead = Duration::from_secs(u64::from(offset.unsigned_abs()));
        match offset {
            0.. => epoch.saturating_add(ahead),
            _ => epoch.saturating_sub(ahead),
        }
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
        let wanted = self
            .awareness
            .iter()
            .filter(|(awareness, _)| is_wanted(**awareness));
        wanted.map(|(_, count)| count).sum()
    }

    /// Causes with their fallbacks, most frequent first.
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

/// Renders the page.
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
                    p.verdict { (verdict(report)) }
                    p.more { (more(report)) }
                    (banners(report))
                    (figures(report))
                    (contents(gathered))
                }
                main {
                    (timeline(report))
                    (paths(report))
                    (addressed(report))
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
                        "Created by mptcp-trace report. This page loads no external resources and \
                         runs no scripts; all names and numbers come from the capture. A "
                        em { "connection" }
                        " is one end of an MPTCP connection: where both ends are on the traced \
                         host, each is counted."
                    }
                }
            }
        }
    };
    let mut text = markup.into_string();
    text.push('\n');
    text
}

/// Name and number of a connection's process.
fn who(life: &ReportedConnection) -> String {
    match &life.process {
        Some((pid, comm)) => format!("{} {pid}", name(comm)),
        None => "unknown process".to_owned(),
    }
}

/// The headline: how many of which connections fell back.
fn verdict(report: &Report<'_>) -> String {
    let gathered = report.gathered;
    let which = match report.is_selection {
        true => "in this selection",
        false => "observed",
    };
    let all = gathered.of(|awareness| awareness != Awareness::Plain);
    let fallen = gathered.of(Awareness::has_fallen);
    match (fallen, all) {
        (_, 0) if gathered.findings == 0 => {
            format!("No findings: no MPTCP connection and no query {which}.")
        }
        (_, 0) => format!("No MPTCP connection {which}."),
        (0, 1) => format!("The only MPTCP connection {which} did not fall back to TCP."),
        (1, 1) => format!("The only MPTCP connection {which} fell back to TCP."),
        (0, all) => format!(
            "None of the {} MPTCP connections {which} fell back to TCP.",
            digits(all)
        ),
        (fallen, all) if fallen == all => format!(
            "All {} MPTCP connections {which} fell back to TCP.",
            digits(all)
        ),
        (fallen, all) => format!(
            "{} of the {} MPTCP connections {which} fell back to TCP.",
            digits(fallen),
            digits(all)
        ),
    }
}

/// The paragraph below the headline: awareness, most frequent cause, time span.
fn more(report: &Report<'_>) -> String {
    let gathered = report.gathered;
    let unaware = gathered.of(Awareness::is_unaware);
    let never = gathered.of(|awareness| awareness == Awareness::NeverAsked);
    let mut words: Vec<String> = ended(gathered.paths).into_iter().collect();
    if gathered.of(Awareness::has_fallen) > 0 {
        let deceived = gathered.of(Awareness::is_deceived);
        let unanswered = unaware - never - deceived;
        let were = |number: u64, what: &str| {
            (number > 0).then(|| match number {
                1 => format!("1 was {what}"),
                _ => format!("{} were {what}", digits(number)),
            })
        };
        words.push(match (unaware, unaware - never) {
            (0, _) => "No application is known to be unaware of it.".to_owned(),
            (unaware, 0) => format!(
                "In {} the application is unaware of the fallback: it never queried.",
                count(unaware, "connection", "connections")
            ),
            (unaware, _) => format!(
                "In {} the application is unaware of the fallback: {}.",
                count(unaware, "connection", "connections"),
                [
                    were(deceived, "told MPTCP and never corrected"),
                    were(
                        unanswered,
                        "not answered (this kernel does not support the query)"
                    ),
                    were(never, "never queried"),
                ]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", ")
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
    if let Some((from, to)) = report.facts.dumped() {
        let to = to.map(|to| format!(" to {}", report.moment(to)));
        words.push(format!(
            "This is a dump of a recording, from {}{}.",
            report.moment(from),
            to.unwrap_or_default()
        ));
    }
    if let Some((first, last)) = gathered.range {
        let took = last.duration_since(first).unwrap_or_default();
        words.push(format!(
            "From {}, for {}, on kernel {}.",
            report.moment(first),
            span(took),
            name(&report.facts.kernel)
        ));
    }
    if report.is_selection {
        words.push(format!(
            "{} left out by the selection.",
            count(
                report.state.not_shown,
                "more finding was",
                "more findings were"
            )
        ));
    }
    words.join(" ")
}

/// What became of the connections that ended.
fn ended(counts: PathCounts) -> Option<String> {
    let PathCounts {
        closed,
        mptcp,
        fell_back,
        not_opened,
        with_several,
        paths_up: _,
        joins_failed,
        stale: _,
    } = counts;
    if closed == 0 && not_opened == 0 {
        return None;
    }
    let were = |number: u64| if number == 1 { "was" } else { "were" };
    let mut words = format!(
        "{} closed: {} {} MPTCP to the end, {} fell back",
        count(closed, "connection", "connections"),
        digits(mptcp),
        were(mptcp),
        digits(fell_back),
    );
    let unknown = closed.saturating_sub(mptcp).saturating_sub(fell_back);
    if unknown > 0 {
        words.push_str(&format!(", of {} that is unknown", digits(unknown)));
    }
    if with_several > 0 {
        words.push_str(&format!("; {} used several paths", digits(with_several)));
    }
    if not_opened > 0 {
        words.push_str(&format!("; {} could not be opened", digits(not_opened)));
    }
    if joins_failed > 0 {
        words.push_str(&format!(
            "; {} failed",
            count(joins_failed, "join", "joins")
        ));
    }
    words.push('.');
    Some(words)
}

/// Formats a long duration.
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
    let untraced: u64 = untraced(&state.losses);
    let disagree = state
        .reconciled
        .fallbacks
        .iter()
        .chain(&state.reconciled.paths)
        .filter(|it| it.differs())
        .count();
    html! {
        @match report.ending {
            Ending::Orderly => {},
            Ending::CutOff => p.banner role="alert" {
                strong { "The capture is cut off." }
                " Events after its last record are missing, and losses during recording are \
                 unknown. Connections that were open at that point have no closing verdict."
            },
            Ending::Damaged(why) => p.banner role="alert" {
                strong { "The capture is damaged." }
                " It could be read only in part (" (shown(why, SENTENCE_MAX)) "): later events are \
                 missing, and losses during recording are unknown."
            },
        }
        @if state.undecodable > 0 {
            p.banner role="alert" {
                strong { (count(state.undecodable, "record", "records")) " could not be decoded." }
                " Their events are missing."
            }
        }
        @if untraced > 0 {
            p.banner {
                strong { (count(untraced, "event was", "events were")) " lost or not traced." }
                " These may include connections, or queries that would change a verdict; "
                a href="#losses" { "see the losses" } "."
            }
        }
        @if disagree > 0 {
            p.banner {
                strong { "The kernel's fallback counts differ from the traced ones" }
                " in " (count(disagree as u64, "network namespace", "network namespaces")) "; "
                a href="#losses" { "see details" } "."
            }
        }
    }
}

fn untraced(losses: &LossReport) -> u64 {
    let each = losses.sensors.iter().map(crate::model::Loss::untraced);
    each.fold(0, u64::saturating_add)
}

fn figures(report: &Report<'_>) -> Markup {
    let gathered = report.gathered;
    let queries: u64 = gathered.answers.values().sum();
    let refusals: u64 = gathered.refusals.values().sum();
    let figure = |class: &str, number: String, what: &str| {
        html! { div class=(class) { dt { (what) } dd { (number) } } }
    };
    let fallen = gathered.of(Awareness::has_fallen);
    let all = gathered.of(|awareness| awareness != Awareness::Plain);
    let unaware = gathered.of(Awareness::is_unaware);
    html! {
        dl.figures {
            (figure("", digits(all), "MPTCP connections observed"))
            (figure(if fallen > 0 { "bad" } else { "good" }, digits(fallen), "fell back to TCP"))
            @if gathered.paths.closed > 0 { (figure("good", digits(gathered.paths.mptcp), "closed, MPTCP to the end")) }
            (figure(if unaware > 0 { "bad" } else { "good" }, digits(unaware), "with unaware application"))
            (figure("", digits(queries), "queries by applications"))
            (figure(if refusals > 0 { "warn" } else { "" }, digits(refusals), "sockets and options refused"))
            @match report.ending {
                Ending::Orderly if !report.state.losses.sensors.is_empty() => (figure(
                    if untraced(&report.state.losses) > 0 { "bad" } else { "good" },
                    digits(untraced(&report.state.losses)),
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
                @if gathered.drawn().next().is_some() { li { a href="#worst" { "Worst connections" } } }
                @if gathered.listed().next().is_some() { li { a href="#addresses" { "Find an address" } } }
                @if gathered.drawn().any(|life| life.paths.len() > 1 || life.paths.are_troubled()) { li { a href="#paths" { "Paths" } } }
                @if !gathered.causes.is_empty() || !gathered.path_causes.is_empty() { li { a href="#causes" { "Causes" } } }
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

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
