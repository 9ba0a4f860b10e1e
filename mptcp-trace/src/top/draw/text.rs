//! Overlays of text that scrolls: the keys, and explanations.

use super::*;
use crate::top::{
    explain::{Explanation, Part},
    keys::{self, Group},
};

/// Columns of the names of keys in the help.
const KEYS: usize = 27;
/// Columns of the help, with its frame.
const HELP_WIDTH: u16 = 100;
/// Columns before the text of a labelled paragraph.
const LABEL: usize = 11;
/// Longest line of an explanation.
const LINE: usize = 100;

/// Text in two columns: the first lines of both stand beside each other.
fn beside(
    label: &str,
    style: Style,
    columns: usize,
    text: &str,
    width: usize,
) -> Vec<Line<'static>> {
    // In a narrow terminal the second column still has half of it.
    let columns = columns.min(width / 2);
    let labels = wrapped(label, columns.saturating_sub(1).max(1));
    let texts = wrapped(text, width.saturating_sub(columns).max(1));
    let line = |index: usize| {
        let of = |parts: &[String]| parts.get(index).cloned().unwrap_or_default();
        let label = of(&labels);
        let space = " ".repeat(columns.saturating_sub(width_of(&label)));
        Line::from(vec![
            Span::styled(label, style),
            Span::raw(space),
            Span::raw(of(&texts)),
        ])
    };
    (0..labels.len().max(texts.len())).map(line).collect()
}

/// The lines of the help.
fn help_lines(app: &App, width: usize, paint: Paint) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for group in Group::ALL {
        if group == Group::Replay && !app.is_replay() {
            continue;
        }
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.push(Line::styled(group.title(), paint.title()));
        for (names, what) in keys::lines(group) {
            lines.extend(beside(&names.join(" "), paint.title(), KEYS, what, width));
        }
    }
    lines.push(Line::default());
    let ago = "time since the connection was last active; a dot: it has ended";
    lines.extend(beside("AGO", paint.title(), KEYS, ago, width));
    let deceived = "connections that fell back and whose application was last told MPTCP";
    lines.extend(beside("DECEIVED", paint.title(), KEYS, deceived, width));
    let failed = "joins and connections that failed because of the cause; ENDED: paths that ended";
    lines.extend(beside("FAILED", paint.title(), KEYS, failed, width));
    lines
}

/// Draws the keys over the tables.
pub(super) fn draw_help(frame: &mut Frame<'_>, app: &mut App, paint: Paint) {
    let area = frame.area();
    let width = HELP_WIDTH.min(area.width);
    let inner = usize::from(width.saturating_sub(2));
    let mut lines = help_lines(app, inner, paint);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    // The last line of the screen stays visible.
    let height = height.min(area.height.saturating_sub(1));
    let room = usize::from(height.saturating_sub(2));
    let top = app.scroll_over(lines.len(), room);
    let more = lines.len().saturating_sub(top + room);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height.saturating_sub(1) - height) / 2,
        width,
        height,
    };
    lines.drain(..top);
    let mut block = Block::bordered().title(" keys ");
    if more > 0 {
        block = block.title_bottom(format!(" {more} more lines below: Down, PgDn "));
    } else if top > 0 {
        block = block.title_bottom(format!(" end; {top} lines above: Up, PgUp "));
    }
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

/// Draws an explanation in place of the table.
pub(super) fn draw_explanation(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &mut App,
    explanation: &Explanation,
    paint: Paint,
    escape: Escape,
) {
    let Explanation { title, parts } = explanation;
    let width = usize::from(area.width).min(LINE);
    let mut lines: Vec<Line<'static>> = Vec::new();
    for Part { label, text } in parts {
        let text = escape(text);
        match label {
            Some(label) => lines.extend(beside(label, paint.title(), LABEL, &text, width)),
            None if text.is_empty() => lines.push(Line::default()),
            None => lines.extend(wrapped(&text, width).into_iter().map(Line::raw)),
        }
    }
    let room = usize::from(area.height.saturating_sub(1));
    let top = app.scroll_over(lines.len(), room);
    let more = match lines.len().saturating_sub(top + room) {
        0 => String::new(),
        more => format!(" ({more} more lines below)"),
    };
    let title = format!("Explanation of {}", escape(title));
    let room = usize::from(area.width).saturating_sub(width_of(&more));
    let title = format!("{}{more}", clipped(&title, room));
    lines.drain(..top);
    lines.insert(0, Line::styled(title, paint.title()));
    frame.render_widget(Paragraph::new(lines), area);
}
