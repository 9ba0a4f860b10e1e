//! What was lost, what the kernel counted, where it comes from.

use super::*;

pub(super) fn losses(report: &Report<'_>) -> Markup {
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

pub(super) fn origin(report: &Report<'_>) -> Markup {
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
