//! The life of a connection.

use super::{paths::open_paths, tables::side, *};

pub(super) fn draw_life(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &mut App,
    row: &Row,
    now: Duration,
    paint: Paint,
    escape: Escape,
) {
    let about = about(row, now, usize::from(area.width), paint, escape);
    let height = u16::try_from(about.len())
        .unwrap_or(u16::MAX)
        .min(area.height / 2);
    let [head, body] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(1)]).areas(area);
    frame.render_widget(Paragraph::new(about), head);
    let begin = row
        .moments
        .front()
        .map_or(Duration::ZERO, |moment| moment.at);
    let mut lines: Vec<Line<'_>> = Vec::new();
    let width = usize::from(body.width)
        .saturating_sub(MOMENT_INDENT)
        .max(20);
    for (index, moment) in row.moments.iter().enumerate() {
        if index == 1 && row.forgotten > 0 {
            let words = format!("           ... {} moments omitted", row.forgotten);
            lines.push(Line::styled(words, Style::new()));
        }
        lines.extend(moment_lines(moment, begin, width, paint, escape));
    }
    if let Some(cause) = row.cause.as_deref().and_then(find_cause) {
        lines.push(Line::raw(""));
        lines.push(Line::styled(
            format!("What {} means", cause.name),
            paint.title(),
        ));
        lines.extend(
            wrapped(cause.meaning, usize::from(body.width))
                .into_iter()
                .map(Line::raw),
        );
        if let Some(next) = cause.next.first() {
            let next = format!("next: {next}");
            lines.extend(
                wrapped(&next, usize::from(body.width))
                    .into_iter()
                    .map(Line::raw),
            );
        }
    }
    let room = usize::from(body.height.saturating_sub(1));
    let top = app.scroll_over(lines.len(), room);
    let more = lines.len().saturating_sub(top + room);
    let title = match more {
        0 => "Life".to_owned(),
        more => format!("Life ({more} more lines below)"),
    };
    lines.drain(..top);
    lines.insert(0, Line::styled(title, paint.title()));
    frame.render_widget(Paragraph::new(lines), body);
}

/// Columns before the value of a detail.
const LABEL: usize = 9;
/// Columns before the description of an entry.
const MOMENT_INDENT: usize = 11;

fn moment_lines(
    moment: &TimelineEntry,
    begin: Duration,
    width: usize,
    paint: Paint,
    escape: Escape,
) -> Vec<Line<'static>> {
    let style = match moment.kind {
        TimelineKind::Fallback => paint.bad(),
        TimelineKind::Begin | TimelineKind::End => Style::new(),
        TimelineKind::Asked | TimelineKind::Other => Style::new(),
    };
    let since = format!(
        "{:>9}  ",
        format!("+{}", short(moment.at.saturating_sub(begin)))
    );
    let words = escape(&moment.words);
    let mut lines = Vec::new();
    for (index, part) in wrapped(&words, width).into_iter().enumerate() {
        let before = match index {
            0 => since.clone(),
            _ => " ".repeat(MOMENT_INDENT),
        };
        lines.push(Line::from(vec![
            Span::styled(before, Style::new()),
            Span::styled(part, style),
        ]));
    }
    lines
}

/// Details of a connection, above its life.
fn about(
    row: &Row,
    now: Duration,
    width: usize,
    paint: Paint,
    escape: Escape,
) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(vec![
        Span::styled(row.state(), paint.state(row)),
        Span::raw(format!(
            "{}  {} -> {}",
            if row.is_closed { ", ended" } else { "" },
            row.local,
            row.remote
        )),
    ])];
    let pair = |name: &'static str, value: String| {
        Line::from(vec![
            Span::styled(format!("{name:<LABEL$}"), Style::new()),
            Span::raw(value),
        ])
    };
    lines.push(pair("process", who(row.process.as_ref(), escape)));
    if let Some(cgroup) = &row.cgroup {
        lines.push(pair("cgroup", escape(cgroup)));
    }
    let netns = match side(row) {
        "" => row.netns.to_string(),
        side => format!("{}, {side}", row.netns),
    };
    lines.push(pair("netns", netns));
    lines.push(pair(
        "verdict",
        match row.verdict {
            Some(verdict) => format!(
                "{}; its application asked {} times",
                verdict.name(),
                row.queries
            ),
            None => format!("none yet; its application asked {} times", row.queries),
        },
    ));
    lines.push(pair("active", format!("{} ago", ago(now, row.heard_at))));
    for path in open_paths(row) {
        let room = width.saturating_sub(LABEL);
        for (index, part) in wrapped(&path, room.max(20)).into_iter().enumerate() {
            let name = if index == 0 { "path" } else { "" };
            lines.push(pair(name, part));
        }
    }
    lines.push(Line::raw(""));
    lines
}
