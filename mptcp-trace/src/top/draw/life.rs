//! Overlays: the life of a connection, and the list of keys.

use super::*;

pub(super) fn draw_life(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &mut App,
    row: &Row,
    now: Duration,
    paint: Paint,
    escape: Escape,
) {
    let about = about(row, now, paint, escape);
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
            lines.push(Line::styled(words, paint.dim()));
        }
        lines.extend(moment_lines(moment, begin, width, paint, escape));
    }
    if let Some(cause) = row.cause.as_deref().and_then(find_cause) {
        lines.push(Line::raw(""));
        lines.push(Line::styled(
            format!("What {} means", cause.name),
            paint.title(),
        ));
        lines.extend(wrapped(cause.meaning, usize::from(body.width)).map(Line::raw));
        if let Some(next) = cause.next.first() {
            let next = format!("next: {next}");
            lines.extend(wrapped(&next, usize::from(body.width)).map(Line::raw));
        }
    }
    let room = usize::from(body.height.saturating_sub(1));
    let top = app.scroll_moments(lines.len(), room);
    let more = lines.len().saturating_sub(top + room);
    let title = match more {
        0 => "Life".to_owned(),
        more => format!("Life ({more} more lines below)"),
    };
    lines.drain(..top);
    lines.insert(0, Line::styled(title, paint.title()));
    frame.render_widget(Paragraph::new(lines), body);
}

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
        TimelineKind::Begin | TimelineKind::End => paint.dim(),
        TimelineKind::Asked | TimelineKind::Other => Style::new(),
    };
    let since = format!(
        "{:>9}  ",
        format!("+{}", short(moment.at.saturating_sub(begin)))
    );
    let words = escape(&moment.words);
    let mut lines = Vec::new();
    for (index, part) in wrapped(&words, width).enumerate() {
        let before = match index {
            0 => since.clone(),
            _ => " ".repeat(MOMENT_INDENT),
        };
        lines.push(Line::from(vec![
            Span::styled(before, paint.dim()),
            Span::styled(part, style),
        ]));
    }
    lines
}

/// Wraps text at this width; longer words stay whole.
pub(super) fn wrapped(text: &str, width: usize) -> impl Iterator<Item = String> + use<> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines.into_iter()
}

/// Details of a connection, above its life.
fn about(row: &Row, now: Duration, paint: Paint, escape: Escape) -> Vec<Line<'static>> {
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
            Span::styled(format!("{name:<9}"), paint.dim()),
            Span::raw(value),
        ])
    };
    lines.push(pair("process", who(row.process.as_ref(), escape)));
    if let Some(cgroup) = &row.cgroup {
        lines.push(pair("cgroup", escape(cgroup)));
    }
    let side = row.side.map_or("", |side| match side {
        crate::model::Side::Active => ", client",
        crate::model::Side::Passive => ", server",
    });
    lines.push(pair("netns", format!("{}{side}", row.netns)));
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
    lines.push(Line::raw(""));
    lines
}

pub(super) fn draw_help(frame: &mut Frame<'_>, app: &App, paint: Paint) {
    const KEYS: &[(&str, &str)] = &[
        (
            "1 2 3 4, Tab",
            "connections, processes, causes, destinations",
        ),
        (
            "Up Down PgUp PgDn Home End",
            "move the selection (also k j g G)",
        ),
        (
            "Enter",
            "one connection's life; the connections of a process, cause, destination",
        ),
        ("Esc", "back; drop the filter"),
        (
            "/",
            "filter as you type: every word must match, !word must not",
        ),
        ("s, r", "sort by the next column, reverse the order"),
        ("Space", "pause the display; tracing continues"),
        ("AGO", "time since it was last active; a dot: it has ended"),
        ("Ctrl-Z", "suspend (fg resumes)"),
        ("q, Ctrl-C", "quit"),
    ];
    const REPLAY: &[(&str, &str)] = &[
        ("Left Right", "back, ahead by 10 seconds"),
        ("[ ]", "back, ahead by a minute"),
        ("0 $", "to the beginning, to the end"),
        ("+ -", "twice as fast, half as fast"),
    ];
    let replay = if app.is_replay() { REPLAY } else { &[] };
    let lines: Vec<Line<'_>> = KEYS
        .iter()
        .chain(replay)
        .map(|(keys, what)| {
            Line::from(vec![
                Span::styled(format!("{keys:<28}"), paint.title()),
                Span::raw(*what),
            ])
        })
        .collect();
    let area = frame.area();
    let height = u16::try_from(lines.len() + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let width = 108.min(area.width);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(text.block(Block::bordered().title(" keys ")), place);
}
