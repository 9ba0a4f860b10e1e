//! Draws a snapshot and the state of the user interface on a terminal of 80 by 24 cells or any
//! other size; external text is escaped here.

mod life;

use std::time::Duration;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Row as Cells, Sparkline, Table, Wrap},
};

use self::life::{draw_help, draw_life};
use super::{
    app::{App, Overlay, Tab},
    board::{Row, Snapshot, TimelineEntry, TimelineKind},
};
use crate::{
    model::{Loss, Process, Reconciliation, SumRow, find_cause, short},
    observe::State,
};

/// Minimum width for a verdict column.
const WITH_VERDICT: u16 = 96;
/// Minimum width for a local address column.
const WITH_LOCAL: u16 = 128;
/// Minimum width for the fallback chart in the header.
const WITH_RATE: u16 = 60;

/// What the screen shows besides findings.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// Kernel and attach method, or the capture.
    pub source: String,
    /// Time of day.
    pub clock: String,
    /// Losses so far, where known.
    pub state: Option<State>,
    /// Position in a replay.
    pub playing: Option<Playing>,
    /// A message for the last line.
    pub message: Option<String>,
    /// Use colours.
    pub has_colour: bool,
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
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, app, snapshot, around, paint);
    frame.render_widget(Paragraph::new(tab_line(app, paint)), tabs);
    match app.over() {
        Overlay::Connection(id, _) => {
            let row = snapshot.rows.iter().find(|row| row.id == id);
            match row {
                Some(row) => draw_life(frame, body, app, row, snapshot.now, paint, escape),
                None => frame.render_widget(
                    Paragraph::new("This connection was evicted as the least recently active one."),
                    body,
                ),
            }
        }
        Overlay::Nothing | Overlay::Help => match app.tab() {
            Tab::Connections => draw_connections(frame, body, app, snapshot, paint, escape),
            Tab::Sums(table) => draw_sums(frame, body, app, table, snapshot, paint, escape),
        },
    }
    frame.render_widget(Paragraph::new(foot_line(app, around, paint)), foot);
    if app.over() == Overlay::Help {
        draw_help(frame, app, paint);
    }
}

/// Styles, with or without colours.
#[derive(Clone, Copy)]
struct Paint {
    has_colour: bool,
}

impl Paint {
    fn colour(self, colour: Color) -> Style {
        match self.has_colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn worth_a_look(self) -> Style {
        self.colour(Color::Yellow)
    }

    fn good(self) -> Style {
        self.colour(Color::Green)
    }

    fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn state(self, row: &Row) -> Style {
        match row.state() {
            "fell back" if row.is_deceived() => self.bad(),
            "fell back" => self.colour(Color::Red),
            "MPTCP" => self.good(),
            _ => self.worth_a_look(),
        }
    }
}

fn draw_head(
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
            style_if(totals.fallbacks > 0, paint.colour(Color::Red)),
        ),
        Span::raw(format!(", asked {}, ", totals.queries)),
        Span::styled(
            format!("deceived {}", totals.deceived),
            style_if(totals.deceived > 0, paint.bad()),
        ),
    ];
    if let Some(state) = &around.state {
        second.extend(losses(state, paint));
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
        let bars = Sparkline::default()
            .data(rate)
            .style(paint.colour(Color::Red));
        frame.render_widget(bars, place);
    }
}

/// Losses and differing counters.
fn losses(state: &State, paint: Paint) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    let of_all = |of_one: fn(&Loss) -> u64| {
        let sensors = state.losses.sensors.iter().map(of_one);
        sensors.fold(0, u64::saturating_add)
    };
    let missed = of_all(|loss| loss.lost().saturating_add(loss.missed));
    let lost = missed.saturating_add(state.undecodable);
    spans.push(Span::raw(", "));
    spans.push(Span::styled(
        format!("lost {lost}"),
        style_if(lost > 0, paint.bad()),
    ));
    let unfollowed = of_all(|loss| loss.unfollowed);
    if unfollowed > 0 {
        let text = format!(", {unfollowed} without owner");
        spans.push(Span::styled(text, paint.worth_a_look()));
    }
    spans.extend(disagreement(state).map(|text| Span::styled(text, paint.bad())));
    let capped = of_all(|loss| loss.capped);
    if capped > 0 {
        let text = format!(", capped {capped}");
        spans.push(Span::styled(text, paint.worth_a_look()));
    }
    spans
}

/// How the traced fallbacks currently differ from the kernel's counters.
fn disagreement(state: &State) -> Option<String> {
    let missing = state.reconciled.iter().map(Reconciliation::missing);
    let missing = missing.fold(0, u64::saturating_add);
    let differs = state.reconciled.iter().any(|it| !it.agrees() && !it.unread);
    let unread = state.reconciled.iter().any(|it| it.unread);
    match (missing, differs, unread) {
        (0, false, false) => None,
        (0, false, true) => Some(", counters unread".to_owned()),
        (0, true, _) => Some(", counters differ".to_owned()),
        (missing, _, _) => Some(format!(", kernel counted {missing} more")),
    }
}

fn style_if(is_on: bool, style: Style) -> Style {
    match is_on {
        true => style,
        false => Style::new(),
    }
}

fn tab_line(app: &App, paint: Paint) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, tab) in Tab::ALL.iter().enumerate() {
        let style = match *tab == app.tab() {
            true => paint.title().add_modifier(Modifier::UNDERLINED),
            false => paint.dim(),
        };
        spans.push(Span::styled(
            format!("{} {}", number + 1, tab.name()),
            style,
        ));
        spans.push(Span::raw("  "));
    }
    let (order, is_reversed) = app.order();
    spans.push(Span::styled(
        format!(
            "by {}{}",
            order.name(),
            if is_reversed { ", reversed" } else { "" }
        ),
        paint.dim(),
    ));
    Line::from(spans)
}

fn foot_line(app: &App, around: &Around, paint: Paint) -> Line<'static> {
    let (filter, is_typing) = app.filter();
    if is_typing {
        return Line::from(vec![
            Span::styled("filter: ", paint.title()),
            Span::raw(filter.to_owned()),
            Span::styled(" ", paint.cursor()),
            Span::styled(
                "  Enter keeps it, Esc drops it, !word excludes",
                paint.dim(),
            ),
        ]);
    }
    if let Some(message) = &around.message {
        return Line::styled(message.clone(), paint.worth_a_look());
    }
    let keys = match (app.over(), app.is_replay()) {
        (Overlay::Connection(..), _) => "Esc back  Up/Down scroll  Space pause  ? help",
        (_, false) => "q quit  / filter  s sort  r reverse  Enter open  Space pause  ? help",
        (_, true) => {
            "q quit  / filter  s sort  Enter open  Space pause  Left/Right 10 s  +/- speed"
        }
    };
    let mut spans = vec![Span::styled(keys, paint.dim())];
    if !filter.is_empty() {
        spans.insert(0, Span::styled(format!("filter: {filter}"), paint.title()));
        spans.insert(1, Span::styled(" (Esc drops it)  ", paint.dim()));
    }
    Line::from(spans)
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

/// Hint for an empty table.
fn nothing(app: &App, snapshot: &Snapshot) -> Option<&'static str> {
    match (app.filter().0.is_empty(), snapshot.totals.findings) {
        (false, _) => Some("Nothing matches the filter; Esc drops it."),
        (true, 0) if app.is_replay() => Some("Nothing yet; Right skips 10 s ahead."),
        (true, 0) => Some(
            "Nothing yet: no connection fell back, and no application asked. `mptcp-trace demo` provokes a fallback.",
        ),
        (true, _) => Some("Nothing of this kind yet."),
    }
}

fn draw_connections(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &mut App,
    snapshot: &Snapshot,
    paint: Paint,
    escape: Escape,
) {
    let rows = app.connections(snapshot);
    if rows.is_empty() {
        draw_nothing(frame, area, app, snapshot);
        return;
    }
    let height = usize::from(area.height.saturating_sub(1));
    let (top, cursor) = app.scroll(rows.len(), height);
    let has_verdict = area.width >= WITH_VERDICT;
    let has_local = area.width >= WITH_LOCAL;
    let cells = |row: &Row| {
        let mut cells = vec![
            Line::styled(row.state(), paint.state(row)),
            Line::raw(who(row.process.as_ref(), escape)),
        ];
        if has_local {
            cells.push(Line::raw(row.local.to_string()));
        }
        cells.push(Line::raw(row.remote.to_string()));
        if has_verdict {
            let verdict = row.verdict.map_or("", |verdict| verdict.name());
            cells.push(Line::styled(
                verdict,
                style_if(row.is_deceived(), paint.bad()),
            ));
        }
        let cause = match (&row.cause, row.fell_back) {
            (Some(cause), _) => escape(cause),
            (None, Some(true)) => "cause unknown".to_owned(),
            (None, _) => String::new(),
        };
        // Without a verdict column, bad verdicts replace the cause.
        cells.push(
            match row.verdict.filter(|it| !has_verdict && it.deceives()) {
                Some(verdict) => Line::from(vec![
                    Span::styled(format!("{} ", verdict.name()), paint.bad()),
                    Span::raw(cause),
                ]),
                None => Line::raw(cause),
            },
        );
        cells.push(Line::raw(format!(
            "{:>5}{}",
            ago(snapshot.now, row.heard_at),
            if row.is_closed { "." } else { "" }
        )));
        cells
    };
    let mut widths = vec![Constraint::Length(9), Constraint::Length(21)];
    let mut names = vec!["STATE", "PROCESS"];
    if has_local {
        widths.push(Constraint::Fill(2));
        names.push("LOCAL");
    }
    widths.push(Constraint::Fill(2));
    names.push("REMOTE");
    if has_verdict {
        widths.push(Constraint::Length(12));
        names.push("VERDICT");
    }
    widths.extend([Constraint::Length(23), Constraint::Length(6)]);
    names.extend(["CAUSE", "  AGO"]);
    let shown = rows.iter().enumerate().skip(top).take(height);
    let lines = shown.map(|(index, row)| line(cells(row), index == cursor, paint));
    draw_table(frame, area, &names, widths, lines, paint);
}

fn line(cells: Vec<Line<'static>>, has_cursor: bool, paint: Paint) -> Cells<'static> {
    let line = Cells::new(cells);
    match has_cursor {
        true => line.style(paint.cursor()),
        false => line,
    }
}

fn draw_table(
    frame: &mut Frame<'_>,
    area: Rect,
    names: &[&'static str],
    widths: Vec<Constraint>,
    lines: impl Iterator<Item = Cells<'static>>,
    paint: Paint,
) {
    let header = Cells::new(names.iter().map(|name| Line::styled(*name, paint.dim())));
    let table = Table::new(lines, widths).header(header).column_spacing(1);
    frame.render_widget(table, area);
}

fn draw_nothing(frame: &mut Frame<'_>, area: Rect, app: &App, snapshot: &Snapshot) {
    if let Some(why) = nothing(app, snapshot) {
        frame.render_widget(Paragraph::new(why).wrap(Wrap { trim: true }), area);
    }
}

fn draw_sums(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &mut App,
    table: usize,
    snapshot: &Snapshot,
    paint: Paint,
    escape: Escape,
) {
    let rows = app.sums(table, snapshot);
    if rows.is_empty() {
        draw_nothing(frame, area, app, snapshot);
        return;
    }
    let height = usize::from(area.height.saturating_sub(1));
    let (top, cursor) = app.scroll(rows.len(), height);
    let name = match app.tab() {
        Tab::Sums(1) => "CAUSE",
        Tab::Sums(2) => "DESTINATION",
        Tab::Sums(_) | Tab::Connections => "PROCESS",
    };
    let cells = |row: &SumRow| {
        let sum = &row.sum;
        let share = sum.share().unwrap_or_default();
        let deceived = sum.deceived;
        vec![
            Line::raw(escape(&row.key)),
            Line::raw(format!("{:>7}", sum.connections)),
            Line::raw(format!("{:>7}", sum.fallbacks)),
            Line::styled(bar(share), style_if(share > 0.0, paint.colour(Color::Red))),
            Line::raw(format!("{:>7}", sum.queries)),
            Line::styled(
                format!("{deceived:>8}"),
                style_if(deceived > 0, paint.bad()),
            ),
        ]
    };
    let widths = vec![
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(15),
        Constraint::Length(7),
        Constraint::Length(8),
    ];
    let names = [name, "  CONNS", "   FELL", "SHARE", "  ASKED", "DECEIVED"];
    let shown = rows.iter().enumerate().skip(top).take(height);
    let lines = shown.map(|(index, row)| line(cells(row), index == cursor, paint));
    draw_table(frame, area, &names, widths, lines, paint);
}

/// A share as a bar of ten cells and a percentage.
fn bar(share: f64) -> String {
    const CELLS: usize = 10;
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 80"
    )]
    let eighths = (share.clamp(0.0, 1.0) * (CELLS * 8) as f64).round() as usize;
    let mut text = "█".repeat(eighths / 8);
    if eighths < CELLS * 8 {
        text.push(EIGHTHS.get(eighths % 8).copied().unwrap_or(' '));
    }
    let missing = CELLS.saturating_sub(text.chars().count());
    text.extend(std::iter::repeat_n(' ', missing));
    format!("{text} {:>3.0}%", share * 100.0)
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
