//! Draws a snapshot and the state of the user interface on a terminal of 80 by 24 cells or any
//! other size; external text is escaped here.

mod head;
mod life;
mod paths;
mod tables;
mod text;

use std::{net::SocketAddr, time::Duration};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Row as Cells, Sparkline, Table, Wrap},
};

use self::{
    head::{draw_head, notes},
    life::draw_life,
    paths::draw_paths,
    tables::{draw_connections, draw_sums},
    text::{draw_explanation, draw_help},
};
use super::{
    app::{App, Overlay, Typing},
    board::{Row, Snapshot, TimelineEntry, TimelineKind},
    hits::Hit,
    paint::{Paint, style_if},
    table::{Order, Tab},
};
use crate::{
    model::{Loss, Process, Reconciliation, Reconciliations, SensorId, SumRow, find_cause, short},
    observe::State,
    sink::{Text, clipped, granted, wrapped},
};

/// Minimum width for the fallback chart in the header.
const WITH_RATE: u16 = 60;
/// Lines of the screen for each line of notes in the header.
const LINES_PER_NOTE: u16 = 6;

/// What the screen shows besides findings.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// Kernel and attach method, or the capture.
    pub source: String,
    /// Time of day.
    pub clock: String,
    /// Losses so far, where known.
    pub state: Option<State>,
    /// Sensors that are off.
    pub off: Vec<SensorId>,
    /// The capture that is being written.
    pub recording: Option<Recording>,
    /// Position in a replay.
    pub playing: Option<Playing>,
    /// A message for the last line.
    pub message: Option<String>,
    /// Use colours.
    pub has_colour: bool,
}

/// A capture that is being written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recording {
    /// The file's name: text from outside, to be escaped.
    pub file: String,
    /// Bytes so far.
    pub bytes: u64,
    /// Records so far.
    pub records: u64,
}

/// Position in a replay.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Playing {
    /// Time since the start.
    pub at: Duration,
    /// Length of the capture.
    pub length: Duration,
    /// Speed, a factor.
    pub speed: f64,
    /// The replay has ended.
    pub has_ended: bool,
}

/// Escapes external text for a cell.
type Escape = fn(&str) -> String;

/// Draws the screen.
pub fn draw(
    frame: &mut Frame<'_>,
    app: &mut App,
    snapshot: &Snapshot,
    around: &Around,
    escape: Escape,
) {
    let paint = Paint {
        has_colour: around.has_colour,
    };
    app.hits().clear();
    let all = frame.area();
    let notes = notes(
        around,
        all.width,
        all.height / LINES_PER_NOTE,
        paint,
        escape,
    );
    let height = u16::try_from(notes.len()).unwrap_or(u16::MAX);
    let [head, said, tabs, body, foot] = Layout::vertical([
        // The table has the first line of a tiny screen, then come the last line and the head.
        Constraint::Length(all.height.saturating_sub(2).min(2)),
        Constraint::Length(height),
        Constraint::Length(u16::from(all.height > 4)),
        Constraint::Min(1),
        Constraint::Length(u16::from(all.height > 1)),
    ])
    .areas(all);
    draw_head(frame, head, app, snapshot, around, paint);
    frame.render_widget(Paragraph::new(notes), said);
    let line = tab_line(app, tabs, paint);
    frame.render_widget(Paragraph::new(line), tabs);
    match app.over().clone() {
        over @ (Overlay::Connection(id) | Overlay::Paths(id)) => {
            let row = snapshot.rows.iter().find(|row| row.id == id);
            let draw_it = match over {
                Overlay::Paths(_) => draw_paths,
                Overlay::Nothing
                | Overlay::Help
                | Overlay::Connection(_)
                | Overlay::Explanation(_) => draw_life,
            };
            match row {
                Some(row) => draw_it(frame, body, app, row, snapshot.now, paint, escape),
                None => frame.render_widget(
                    Paragraph::new("This connection was evicted as the least recently active one."),
                    body,
                ),
            }
        }
        Overlay::Explanation(it) => draw_explanation(frame, body, app, &it, paint, escape),
        Overlay::Nothing | Overlay::Help => match app.tab() {
            Tab::Connections => draw_connections(frame, body, app, snapshot, paint, escape),
            Tab::Sums(table) => draw_sums(frame, body, app, table, snapshot, paint, escape),
        },
    }
    let line = foot_line(app, around, foot.width, paint, escape);
    frame.render_widget(Paragraph::new(line), foot);
    if *app.over() == Overlay::Help {
        draw_help(frame, app, paint);
    }
}

fn tab_line(app: &mut App, area: Rect, paint: Paint) -> Line<'static> {
    let mut spans = Vec::new();
    let mut x = area.x;
    for (index, tab) in Tab::ALL.into_iter().enumerate() {
        let style = match tab == app.tab() {
            true => paint.cursor(),
            false => Style::new(),
        };
        let name = format!("{} {}", index + 1, tab.name());
        let end = x.saturating_add(u16::try_from(width_of(&name)).unwrap_or(u16::MAX));
        app.hits().add(area.y, x..end, Hit::Tab(tab));
        spans.push(Span::styled(name, style));
        spans.push(Span::raw("  "));
        x = end.saturating_add(2);
    }
    let (order, is_reversed) = app.order();
    spans.push(Span::raw(format!(
        "by {}{}",
        order.name(),
        if is_reversed { ", reversed" } else { "" }
    )));
    Line::from(spans)
}

fn foot_line(
    app: &App,
    around: &Around,
    width: u16,
    paint: Paint,
    escape: Escape,
) -> Line<'static> {
    let prompt = match app.typing() {
        Typing::Nothing => None,
        Typing::Filter => Some((
            "filter: ",
            app.filter(),
            "  Enter keeps it, Esc drops it, !word excludes",
        )),
        Typing::File => Some(("capture to: ", app.file(), "  Enter starts it, Esc cancels")),
    };
    if let Some((prompt, text, keys)) = prompt {
        // Of a long text the end is shown, where it is typed.
        let room = usize::from(width).saturating_sub(width_of(prompt) + 1);
        return Line::from(vec![
            Span::styled(prompt, paint.title()),
            Span::raw(end_of(&escape(text), room)),
            Span::styled(" ", paint.cursor()),
            Span::raw(keys),
        ]);
    }
    if let Some(message) = app.notice().or(around.message.as_deref()) {
        return Line::styled(escape(message), paint.worth_a_look());
    }
    let keys = match (app.over(), app.is_replay()) {
        (Overlay::Help, _) => "Esc back  Up/Down PgUp/PgDn scroll",
        (Overlay::Explanation(_), _) => "Esc back  Up/Down scroll  Space pause  ? help",
        (Overlay::Connection(_), _) => {
            "Esc back  Up/Down scroll  e explain  o paths  Space pause  ? help"
        }
        (Overlay::Paths(_), _) => "Esc back  Up/Down scroll  e explain  Space pause  ? help",
        (Overlay::Nothing, false) => {
            "q quit  / filter  s sort  Enter open  e explain  w capture  Space pause  ? help"
        }
        (Overlay::Nothing, true) => {
            "q quit  / filter  Enter open  e explain  Left/Right 10 s  +/- speed  ? help"
        }
    };
    let mut spans = vec![Span::raw(keys)];
    if !app.filter().is_empty() {
        let filter = format!("filter: {}", escape(app.filter()));
        spans.insert(0, Span::styled(filter, paint.title()));
        spans.insert(1, Span::raw(" (Esc drops it)  "));
    }
    Line::from(spans)
}

/// Display width.
fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// The end of a text, with an ellipsis before it if it is wider than this.
fn end_of(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut end = text;
    while width_of(end) + 1 > width {
        let mut characters = end.chars();
        if characters.next().is_none() {
            break;
        }
        end = characters.as_str();
    }
    format!("…{end}")
}

/// `1:02:03` or `2:03`.
fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Time since an event, at most five characters.
fn ago(now: Duration, then: Duration) -> String {
    let seconds = now.saturating_sub(then).as_secs();
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6_000 => format!("{}m", seconds / 60),
        6_000..360_000 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn who(process: Option<&Process>, escape: Escape) -> String {
    process.map_or_else(
        || "?".to_owned(),
        |process| format!("{} {}", escape(&process.comm), process.number()),
    )
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
