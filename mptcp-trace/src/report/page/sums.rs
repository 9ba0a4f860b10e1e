//! Sections on causes, destinations, processes, answers and refusals.

use std::net::IpAddr;

use super::*;
use crate::{model::FINGERPRINTS, peers::NEVER_MIN};

/// Causes of fallbacks, and of joins that failed and paths that ended.
pub(super) fn causes(report: &Report<'_>) -> Markup {
    let gathered = report.gathered;
    if gathered.causes.is_empty() && gathered.path_causes.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="causes" {
            h2 id="causes" { "Causes" }
            (fallback_causes(report))
            (path_causes(gathered))
            (packets(gathered))
        }
    }
}

/// What the packets that decided show.
fn packets(gathered: &Gathered) -> Markup {
    let shown = FINGERPRINTS.iter();
    let shown: Vec<_> = shown
        .filter_map(|term| Some((term, *gathered.shown.get(term.name)?)))
        .collect();
    html! {
        @if !shown.is_empty() {
            h3 { "Packets" }
            div.scroll { table {
                caption { "What the packets show that decided; option --packet selects them" }
                thead { tr { th scope="col" { "The packet shows" } th.n scope="col" { "Times" } th scope="col" { "Meaning" } } }
                tbody { @for (term, times) in shown { tr {
                    th.name scope="row" { (term.name) } td.n { (digits(times)) } td { (term.meaning) }
                } } }
            } }
        }
    }
}

fn path_causes(gathered: &Gathered) -> Markup {
    let mut ranked: Vec<(&str, &str, OfCause)> = gathered
        .path_causes
        .iter()
        .map(|((outcome, cause), of_cause)| (outcome.name(), cause.as_str(), *of_cause))
        .collect();
    if ranked.is_empty() {
        return html! {};
    }
    // The failures of one kind beside each other, the most frequent first.
    ranked.sort_by_key(|(outcome, cause, of_cause)| {
        let is_end = *outcome == PathOutcome::Ended.name();
        (is_end, std::cmp::Reverse(of_cause.fallbacks), *cause)
    });
    let highest = ranked.iter().map(|it| it.2.fallbacks).max().unwrap_or(0);
    let left = ranked.len().saturating_sub(CAUSES_SHOWN_MAX);
    let mut explained_once = std::collections::BTreeSet::new();
    let mut meanings: Vec<&'static Cause> = Vec::new();
    for (_, cause, _) in ranked.iter().take(CAUSES_SHOWN_MAX) {
        if let Some(known) = find_cause(cause)
            && !gathered.causes.contains_key(*cause)
            && explained_once.insert(known.name)
        {
            meanings.push(known);
        }
    }
    html! {
        h3 { "Paths" }
        div.scroll { table {
            caption { "Joins and connections that failed, and paths that ended, by cause" }
            thead { tr {
                th scope="col" { "Cause" } th scope="col" { "What" } th.n scope="col" { "Times" } th scope="col" { span hidden { "Bar" } }
                th.n scope="col" { "Opened here" } th.n scope="col" { "By the peer" } th scope="col" { "Culprits" }
            } }
            tbody { @for (outcome, cause, of_cause) in ranked.iter().take(CAUSES_SHOWN_MAX) { tr {
                th.name scope="row" {
                    (name(cause))
                    @if of_cause.inferred > 0 && *cause != "unknown" { " " small { "(" (digits(of_cause.inferred)) " inferred)" } }
                }
                td { (outcome) }
                td.n { (digits(of_cause.fallbacks)) }
                td.wide { (chart::bar(of_cause.fallbacks, highest, "part")) }
                td.n { (digits(of_cause.sides.0)) } td.n { (digits(of_cause.sides.1)) }
                td { (find_cause(cause).map_or_else(|| "-".to_owned(), culprits)) }
            } } }
        } }
        @if left > 0 { p.note { (count(left as u64, "rarer cause is", "rarer causes are")) " omitted." } }
        @for cause in meanings { (explained(cause)) }
    }
}

fn fallback_causes(report: &Report<'_>) -> Markup {
    let gathered = report.gathered;
    let ranked = gathered.ranked();
    if ranked.is_empty() {
        return html! { p.note { "No connection fell back during tracing." } };
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
            p.note {
                "Causes are named after the kernel's counters (MPTcpExt). "
                (count(all, "fallback", "fallbacks")) " during tracing"
                @if gathered.fell_before > 0 {
                    "; " (count(gathered.fell_before, "connection had", "connections had")) " fallen back before"
                }
                @if gathered.reset > 0 {
                    "; " (count(gathered.reset, "subflow was", "subflows were"))
                    " reset because the connection was not allowed to fall back"
                }
                @if gathered.blackholes > 0 {
                    "; MPTCP was switched off temporarily "
                    (count(gathered.blackholes, "time", "times")) " (blackhole detection)"
                }
                "."
            }
            div.scroll { table {
                caption { "Fallbacks by cause" }
                thead { tr {
                    th scope="col" { "Cause" } th.n scope="col" { "Fallbacks" } th.n scope="col" { "Share" } th scope="col" { span hidden { "Bar" } }
                    th scope="col" { "Culprits" } th scope="col" { "When" }
                } }
                tbody {
                    @for (cause, times) in ranked.iter().take(CAUSES_SHOWN_MAX) {
                        (cause_row(cause, *times, all, &ranked, gathered.causes.get(*cause).copied().unwrap_or_default()))
                    }
                }
            } }
            @if left > 0 {
                p.note { (count(left, "fallback", "fallbacks")) " of " (ranked.len() - CAUSES_SHOWN_MAX) " rarer causes are omitted." }
            }
            h3 { "Causes over time" }
            figure.chart style="margin:0" {
                (chart::over_time(&gathered.bins, &ranked))
                div.axis-words { span { (report.wall(begin)) } span { (report.wall(end)) } }
                figcaption.note {
                    "Each bar covers " (span(width)) "; the highest shows "
                    (count(highest, "fallback", "fallbacks")) ". Times are in " (report.zone()) "."
                }
            }
            ul.key {
                @for (cause, _) in ranked.iter().take(COLOURS) { li { (swatch(chart::colour(&ranked, cause))) (name(cause)) } }
                @if ranked.len() > COLOURS { li { (swatch(COLOURS)) "all others" } }
            }
            h3 { "Meaning" }
            @for (cause, _) in ranked.iter().take(CAUSES_SHOWN_MAX) {
                @if let Some(cause) = find_cause(cause) { (explained(cause)) }
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
            p.note { "Decided by " code { (cause.function) } "; RFC 8684, section " (cause.rfc_section) ". Check next:" }
            ul { @for next in cause.next_steps() { li { (next) } } }
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
                th scope="col" { span hidden { "Bar" } } th.n scope="col" { "Application unaware" }
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
            p.note { (digits(left as u64)) " more rows, with " (count(fallen, "fallback", "fallbacks")) ", are omitted." }
        }
    }
}

pub(super) fn destinations(gathered: &Gathered) -> Markup {
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
            @if gathered.paths == PathCounts::default() {
                p.note {
                    "A connection that stayed MPTCP and was never queried leaves no record: shares \
                     refer to observed connections, and actual shares may be lower."
                }
            }
            (groups("Connections by remote address, most fallbacks first", "Address", rows.collect()))
            (peers(gathered))
        }
    }
}

/// Which destinations, or the paths to them, are the reason that connections are TCP.
fn peers(gathered: &Gathered) -> Markup {
    let addresses = gathered.destinations.keys().flatten();
    let mut told: Vec<(&IpAddr, String)> = addresses
        .filter_map(|addr| Some((addr, gathered.peers.of(&addr.to_string())?.sentence()?)))
        .collect();
    told.sort();
    told.truncate(ROWS_MAX);
    html! {
        @if !told.is_empty() {
            h3 { "Peer or path" }
            p.note {
                "By how often each peer spoke MPTCP to connections from each local address. \
                 \"Never\" needs at least " (NEVER_MIN) " connections."
            }
            ul { @for (addr, sentence) in told { li { span.mono { (addr) } ": " (sentence) } } }
        }
    }
}

pub(super) fn processes(gathered: &Gathered) -> Markup {
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
            (groups("Connections by name of the owner or the querying process, most fallbacks first", "Name", rows.collect()))
        }
    }
}

pub(super) fn answers(gathered: &Gathered) -> Markup {
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
                    caption { "Queries by applications and the kernel's answers" }
                    thead { tr { th scope="col" { "Asked by" } @for word in WORDS { th.n scope="col" { (word) } } } }
                    tbody { @for (api, counts) in &apis { tr {
                        th scope="row" { code { (api) } }
                        @for times in counts { td.n { @if *times > 0 { (digits(*times)) } @else { "-" } } }
                    } } }
                } }
            }
            div.scroll { table {
                caption { "Verdicts on answers, and closing verdicts at the ends of connections" }
                thead { tr { th scope="col" { "Verdict" } th.n scope="col" { "On answers" } th.n scope="col" { "At the end" } th scope="col" { "Meaning" } } }
                tbody { @for (verdict, (on_answers, at_ends)) in &gathered.verdicts { tr {
                    th scope="row" { (verdict.name()) }
                    td.n { (digits(*on_answers)) } td.n { (digits(*at_ends)) } td { (verdict.meaning()) }
                } } }
            } }
            @if gathered.doubtful > 0 {
                p.note {
                    (count(gathered.doubtful, "verdict is", "verdicts are"))
                    " in doubt: queries about these connections are known to be missing."
                }
            }
        }
    }
}

pub(super) fn refusals(gathered: &Gathered) -> Markup {
    if gathered.refusals.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="refusals" {
            h2 id="refusals" { "Refusals" }
            div.scroll { table {
                caption { "Requests refused because of MPTCP" }
                thead { tr { th scope="col" { "What" } th scope="col" { "Error" } th.n scope="col" { "Times" } th scope="col" { "Why" } } }
                tbody { @for ((what, errno, why), times) in &gathered.refusals { tr {
                    th scope="row" { code { (name(what)) } } td { (errno) } td.n { (digits(*times)) } td { (why) }
                } } }
            } }
        }
    }
}
