//! Sections on losses, kernel counters and the origin of the capture.

use super::*;

pub(super) fn losses(report: &Report<'_>) -> Markup {
    let state = report.state;
    let losses = &state.losses;
    let complete = losses.is_complete() && *report.ending == Ending::Orderly;
    html! {
        section aria-labelledby="losses" {
            h2 id="losses" { "Losses" }
            @if *report.ending != Ending::Orderly {
                p {
                    "Loss counts are written at the end of a capture, and this one has no end: \
                     losses are unknown."
                }
            } @else {
                @if complete && !losses.sensors.is_empty() {
                    p { "No losses: every event that the probes saw is accounted for." }
                } @else if !losses.sensors.is_empty() {
                    p {
                        "Some events were lost. A lost query can make " em { "stale" } ", "
                        em { "too-early" } " and " em { "never-asked" }
                        " wrong, since the application may have asked again; a lost fallback causes "
                        em { "unexplained" }
                        ", and is missing from all counts above."
                    }
                }
                @if !losses.sensors.is_empty() {
                    div.scroll { table {
                        caption {
                            "Events of each sensor by outcome: seen = emitted + filtered + capped + \
                             ring full + faulted + table full + unfinished"
                        }
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
                p {
                    (count(state.evicted, "connection was", "connections were"))
                    " evicted before the end, because the table was full (--max-connections)."
                }
            }
            @if report.gathered.forgotten > 0 {
                p {
                    (count(report.gathered.forgotten, "connection", "connections")) " beyond " (digits(CONNECTIONS_MAX as u64))
                    " at a time may be counted twice in this report."
                }
            }
        }
    }
}

/// Compares the kernel's counters with the traced fallbacks.
fn reconciled(report: &Report<'_>) -> Markup {
    let Reconciliations { fallbacks, paths } = &report.state.reconciled;
    html! {
        h3 { "Kernel counters" }
        @if report.facts.dump.is_some() { p { "Nothing to compare: " (Facts::UNCOUNTED) "." } }
        @else {
        (reconciled_of("Fallbacks", "Cause", fallbacks))
        @if !paths.is_empty() { (reconciled_of("Events of paths", "Counter", paths)) }
        }
    }
}

fn reconciled_of(what: &str, named: &str, all: &[Reconciliation]) -> Markup {
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
    // Those that disagree first, before those that are explained.
    let mut complaints: Vec<_> = all.iter().filter(|it| it.why.is_some()).collect();
    complaints.sort_by_key(|it| it.agrees());
    let differs = |cause: &str| {
        let of = |counts: &BTreeMap<String, u64>| counts.get(cause).copied().unwrap_or(0);
        let mut unexplained = read().filter(|it| !it.agrees());
        unexplained.any(|it| of(&it.counted) != of(&it.traced))
    };
    let left = complaints.len().saturating_sub(NAMESPACES_MAX);
    html! {
        @if by_cause.is_empty() {
            p { (what) ": nothing to compare: no kernel counter was read, or none increased." }
        } @else {
            div.scroll { table {
                caption { (what) " in " (count(read().count() as u64, "network namespace", "network namespaces")) " whose counters could be read, all findings included" }
                thead { tr { th scope="col" { (named) } th.n scope="col" { "Kernel counted" } th.n scope="col" { "Traced" } th scope="col" { "Agrees" } } }
                tbody { @for (cause, (counted, traced)) in by_cause.iter().take(CAUSES_SHOWN_MAX) { tr {
                    th.name scope="row" { (name(cause)) } td.n { (digits(*counted)) } td.n { (digits(*traced)) }
                    td {
                        @if counted == traced { "yes" }
                        @else if differs(cause) { strong { "no" } }
                        @else { "explained below" }
                    }
                } } }
            } }
        }
        @if !complaints.is_empty() {
            ul {
                @for one in complaints.iter().take(NAMESPACES_MAX) {
                    li { "Network namespace " (one.netns) ": " (shown(one.why.as_deref().unwrap_or_default(), SENTENCE_MAX)) }
                }
                @if left > 0 {
                    li { (digits(left as u64)) " more namespaces that differ or could not be read are omitted." }
                }
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
                caption { "Origin of the records" }
                tbody {
                    tr { th scope="row" { "Kernel" } td { (name(&facts.kernel)) } }
                    tr { th scope="row" { "Captured by" } td { "mptcp-trace " (name(&facts.version)) } }
                    @if let Some((first, last)) = report.gathered.range {
                        tr { th scope="row" { "First and last finding" } td { (report.moment(first)) " to " (report.moment(last)) ", " (report.zone()) } }
                    }
                    tr { th scope="row" { "Findings" } td {
                        (digits(report.gathered.findings))
                        @if report.is_selection { "; " (digits(report.state.not_shown)) " more were filtered out" }
                    } }
                    tr { th scope="row" { "TCP clients of MPTCP listeners" } td { (digits(report.gathered.plain)) } }
                }
            } }
            @if report.is_selection {
                p {
                    "This report covers a selection. Losses and kernel counters are those of the \
                     whole run."
                }
            }
            @for sensor in facts.sensors.iter().take(SENTENCES_MAX) {
                details {
                    summary {
                        "Sensor " (sensor.sensor.name()) ": " (sensor.rung.name()) ", " (count(sensor.probes.len() as u64, "probe", "probes"))
                        @if sensor.limits.is_empty() { ", no limits" }
                        @else { ", " (count(sensor.limits.len() as u64, "limit", "limits")) }
                    }
                    @if !sensor.limits.is_empty() {
                        p { "Limits of this attach method:" }
                        ul { @for limit in sensor.limits.iter().take(SENTENCES_MAX) { li { (shown(limit, SENTENCE_MAX)) } } }
                    }
                    p.note { "Attached to:" }
                    ul { @for probe in sensor.probes.iter().take(SENTENCES_MAX) { li.mono { (name(probe)) } } }
                }
            }
            @if !facts.has_sensor(crate::model::SensorId::Fallback) {
                p { "The fallback sensor was off: only queries were traced." }
            }
        }
    }
}
