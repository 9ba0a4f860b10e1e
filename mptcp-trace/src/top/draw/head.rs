//! The head: totals, and what the reader must know to trust them.

use super::*;

pub(super) fn draw_head(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &App,
    snapshot: &Snapshot,
    around: &Around,
    paint: Paint,
) {
    let totals = &snapshot.totals;
    let mode = match (app.is_paused(), around.playing) {
        (true, _) => Span::styled(" PAUSED ", paint.cursor()),
        (false, Some(playing)) if playing.has_ended => Span::styled(" END ", paint.cursor()),
        (false, Some(playing)) => Span::raw(format!("x{}", playing.speed)),
        (false, None) => Span::raw("live"),
    };
    let first = Line::from(vec![
        Span::styled("mptcp-trace top", paint.title()),
        Span::raw(format!("  {}  {}  ", around.source, around.clock)),
        mode,
    ]);
    let share = match totals.connections {
        0 => String::new(),
        all => format!(" ({}%)", totals.fallbacks.saturating_mul(100) / all),
    };
    let mut second = vec![
        Span::raw(format!("{} connections, ", totals.connections)),
        Span::styled(
            format!("{} fell back{share}", totals.fallbacks),
            style_if(totals.fallbacks > 0, paint.fallen()),
        ),
        Span::raw(format!(", asked {}, ", totals.queries)),
        Span::styled(
            format!("deceived {}", totals.deceived),
            style_if(totals.deceived > 0, paint.bad()),
        ),
    ];
    if around
        .state
        .as_ref()
        .is_some_and(|it| warnings(it).is_empty())
    {
        second.push(Span::raw(", lost 0"));
    }
    if let Some(playing) = around.playing {
        second.push(Span::raw(format!(
            "  [{} of {}]",
            minutes(playing.at),
            minutes(playing.length)
        )));
    }
    let second = Line::from(second);
    // The fallback chart takes the remaining room.
    let used = u16::try_from(first.width().max(second.width()) + 2).unwrap_or(u16::MAX);
    let has_rate = area.width >= WITH_RATE && area.width > used + 10 && area.height >= 2;
    frame.render_widget(Paragraph::new(vec![first, second]), area);
    if has_rate {
        let width = (area.width - used).min(60);
        let place = Rect {
            x: area.right() - width,
            width,
            ..area
        };
        let shown = usize::from(width);
        let from = snapshot.rate.len().saturating_sub(shown);
        let rate = snapshot.rate.get(from..).unwrap_or_default();
        let bars = Sparkline::default().data(rate).style(paint.fallen());
        frame.render_widget(bars, place);
    }
}

/// What stands below the head while it holds: the capture that is being written, losses by their
/// kind, a disagreement with the kernel's counters, sensors that are off. At most `lines_max` lines.
pub(super) fn notes(
    around: &Around,
    width: u16,
    lines_max: u16,
    paint: Paint,
    escape: Escape,
) -> Vec<Line<'static>> {
    const GAP: &str = "  ";
    let mut notes: Vec<(String, Style)> = Vec::new();
    if let Some(recording) = &around.recording {
        let Recording {
            file,
            bytes,
            records,
        } = recording;
        let word = if *records == 1 { "record" } else { "records" };
        let text = format!(
            "recording {} {}, {records} {word}",
            escape(file),
            size(*bytes)
        );
        notes.push((text, paint.title()));
    }
    for sensor in &around.off {
        let text = format!("! {sensor} sensor off: {}", sensor.without_it());
        notes.push((text, paint.bad()));
    }
    for warning in around.state.iter().flat_map(warnings) {
        notes.push((format!("! {warning}"), paint.bad()));
    }
    let width = usize::from(width);
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (text, style) in notes {
        match lines.last_mut() {
            Some(line) if line.width() + GAP.len() + width_of(&text) <= width => {
                line.push_span(Span::raw(GAP));
                line.push_span(Span::styled(text, style));
            }
            Some(_) | None => lines.push(Line::styled(clipped(&text, width), style)),
        }
    }
    let room = usize::from(lines_max);
    if lines.len() > room {
        const MORE: &str = "  more: q prints all";
        lines.truncate(room);
        if let Some(last) = lines.last_mut() {
            let text = clipped(&last.to_string(), width.saturating_sub(width_of(MORE)));
            *last = Line::styled(format!("{text}{MORE}"), paint.bad());
        }
    }
    lines
}

/// Losses by their kind, and a disagreement with the kernel's counters.
fn warnings(state: &State) -> Vec<String> {
    let State {
        losses,
        reconciled: _,
        findings: _,
        not_shown: _,
        undecodable,
        evicted,
        remembered: _,
        peers: _,
    } = state;
    let of_all = |of_one: fn(&Loss) -> u64| {
        let sensors = losses.sensors.iter().map(of_one);
        sensors.fold(0, u64::saturating_add)
    };
    let kinds = [
        (of_all(|it| it.ring_full), "ring full"),
        (of_all(|it| it.faulted), "not readable"),
        (of_all(|it| it.table_full), "table full"),
        (of_all(|it| it.unfinished), "return not seen"),
        (of_all(|it| it.missed), "missed"),
        (*undecodable, "not decodable"),
    ];
    let lost = kinds
        .iter()
        .fold(0, |sum: u64, it| sum.saturating_add(it.0));
    let mut warnings = Vec::new();
    if lost > 0 {
        let kinds = kinds.iter().filter(|it| it.0 > 0);
        let kinds: Vec<String> = kinds
            .map(|(count, kind)| format!("{count} {kind}"))
            .collect();
        warnings.push(format!("lost {lost} ({})", kinds.join(", ")));
    }
    warnings.extend(disagreement(state));
    for loss in losses.sensors.iter().filter(|it| it.capped > 0) {
        let (capped, sensor) = (loss.capped, loss.sensor);
        let events = sensor.events(usize::try_from(capped).unwrap_or(usize::MAX));
        warnings.push(format!("capped {capped} {events} ({})", sensor.cap()));
    }
    for loss in losses.sensors.iter().filter(|it| it.unfollowed > 0) {
        warnings.push(format!("{} {}", loss.unfollowed, loss.sensor.unfollowed()));
    }
    let over_share = of_all(|it| it.over_share);
    if over_share > 0 {
        warnings.push(format!(
            "{over_share} sockets over a user's share (--sockets-per-user)"
        ));
    }
    if *evicted > 0 {
        warnings.push(format!("{evicted} connections evicted (--max-connections)"));
    }
    warnings
}

/// How the traced fallbacks currently differ from the kernel's counters.
fn disagreement(state: &State) -> Option<String> {
    let Reconciliations { fallbacks, paths } = &state.reconciled;
    let missing = fallbacks.iter().map(Reconciliation::missing);
    let missing = missing.fold(0, u64::saturating_add);
    let differs = fallbacks.iter().any(Reconciliation::differs);
    let paths_differ = paths.iter().any(Reconciliation::differs);
    let unread = fallbacks.iter().chain(paths).any(|it| it.unread);
    match (missing, differs, unread) {
        (0, false, _) if paths_differ => Some("counters of paths differ".to_owned()),
        (0, false, false) => None,
        (0, false, true) => Some("counters unread".to_owned()),
        (0, true, _) => Some("counters differ".to_owned()),
        (missing, _, _) => Some(format!("kernel counted {missing} more")),
    }
}

/// `1.2 MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNIT: u64 = 1000;
    let units = ["kB", "MB", "GB", "TB"];
    if bytes < UNIT {
        return format!("{bytes} B");
    }
    let mut whole = bytes;
    let mut tenths = 0;
    let mut name = "B";
    for unit in units {
        if whole < UNIT {
            break;
        }
        tenths = whole % UNIT / (UNIT / 10);
        whole /= UNIT;
        name = unit;
    }
    format!("{whole}.{tenths} {name}")
}
