//! A picture and what the reader wants to see of it -> cells of a terminal. Decides what stands where, down to 80 columns
//! and 24 lines, and less; what comes from outside is escaped here.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Row as Cells, Sparkline, Table, Wrap},
};

use super::{
    app::{App, Over, Tab},
    board::{Moment, MomentKind, Picture, Row},
};
use crate::{
    model::{Loss, Process, Reconciliation, SumRow, find_cause, short},
    observe::State,
};

/// Columns from which on verdicts have room beside a connection.
const WITH_VERDICT: u16 = 96;
/// And its own end.
const WITH_LOCAL: u16 = 128;
/// Columns from which on the fallbacks of the last minutes are drawn in the head.
const WITH_RATE: u16 = 60;

/// What is on the screen beside findings.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// Kernel and rung, or the capture.
    pub source: String,
    /// Time of day.
    pub clock: String,
    /// What was lost so far, where that is known.
    pub state: Option<State>,
    /// Where a replay is.
    pub playing: Option<Playing>,
    /// Something that the reader should know, in the last line.
    pub message: Option<String>,
    /// Use colours.
    pub has_colour: bool,
}

/// Where a replay is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Playing {
    /// Since its beginning.
    pub at: Duration,
    /// Its length.
    pub length: Duration,
    /// How many times faster than it was.
    pub speed: f64,
    /// It is over.
    pub has_ended: bool,
}

/// Text from outside, made fit for a cell.
type Escape = fn(&str) -> String;

/// Draws everything.
pub fn draw(
    frame: &mut Frame<'_>,
    app: &mut App,
    picture: &Picture,
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
    draw_head(frame, head, app, picture, around, paint);
    frame.render_widget(Paragraph::new(tab_line(app, paint)), tabs);
    match app.over() {
        Over::Connection(id, _) => {
            let row = picture.rows.iter().find(|row| row.id == id);
            match row {
                Some(row) => draw_life(frame, body, app, row, picture.now, paint, escape),
                None => frame.render_widget(
                    Paragraph::new(
                        "This connection is forgotten: nothing was heard of it for longest.",
                    ),
                    body,
                ),
            }
        }
        Over::Nothing | Over::Help => match app.tab() {
            Tab::Connections => draw_connections(frame, body, app, picture, paint, escape),
            Tab::Sums(table) => draw_sums(frame, body, app, table, picture, paint, escape),
        },
    }
    frame.render_widget(Paragraph::new(foot_line(app, around, paint)), foot);
    if app.over() == Over::Help {
        draw_help(frame, app, paint);
    }
}

/// Colours, where they are wanted.
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
    picture: &Picture,
    around: &Around,
    paint: Paint,
) {
    let totals = &picture.totals;
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
        Span::raw(format!(", asked {}, ", totals.questions)),
        Span::styled(
            format!("deceived {}", totals.deceived),
            style_if(totals.deceived > 0, paint.bad()),
        ),
    ];
    if let Some(state) = &around.state {
        let of_all = |of_one: fn(&Loss) -> u64| {
            let sensors = state.losses.sensors.iter().map(of_one);
            sensors.fold(0, u64::saturating_add)
        };
        let missed = of_all(|loss| loss.lost().saturating_add(loss.missed));
        let lost = missed.saturating_add(state.undecodable);
        second.push(Span::raw(", "));
        second.push(Span::styled(
            format!("lost {lost}"),
            style_if(lost > 0, paint.bad()),
        ));
        let unfollowed = of_all(|loss| loss.unfollowed);
        if unfollowed > 0 {
            let text = format!(", {unfollowed} without owner");
            second.push(Span::styled(text, paint.worth_a_look()));
        }
        second.extend(disagreement(state).map(|text| Span::styled(text, paint.bad())));
        let capped = of_all(|loss| loss.capped);
        if capped > 0 {
            let text = format!(", capped {capped}");
            second.push(Span::styled(text, paint.worth_a_look()));
        }
    }
    if let Some(playing) = around.playing {
        second.push(Span::raw(format!(
            "  [{} of {}]",
            minutes(playing.at),
            minutes(playing.length)
        )));
    }
    let second = Line::from(second);
    // What is drawn of the last minutes has the room that is left.
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
        let from = picture.rate.len().saturating_sub(shown);
        let rate = picture.rate.get(from..).unwrap_or_default();
        let bars = Sparkline::default()
            .data(rate)
            .style(paint.colour(Color::Red));
        frame.render_widget(bars, place);
    }
}

/// How the account of fallbacks differs from the kernel's counters now.
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

fn style_if(is_so: bool, style: Style) -> Style {
    match is_so {
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
                "  Enter keeps it, Esc drops it, !word leaves out",
                paint.dim(),
            ),
        ]);
    }
    if let Some(message) = &around.message {
        return Line::styled(message.clone(), paint.worth_a_look());
    }
    let keys = match (app.over(), app.is_replay()) {
        (Over::Connection(..), _) => "Esc back  Up/Down scroll  Space pause  ? help",
        (_, false) => "q quit  / filter  s sort  r reverse  Enter look closer  Space pause  ? help",
        (_, true) => {
            "q quit  / filter  s sort  Enter closer  Space pause  Left/Right 10 s  +/- speed"
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

/// How long ago, in at most five characters.
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

/// Nothing to show: what to do about it.
fn nothing(app: &App, picture: &Picture) -> Option<&'static str> {
    match (app.filter().0.is_empty(), picture.totals.findings) {
        (false, _) => Some("Nothing matches the filter; Esc drops it."),
        (true, 0) if app.is_replay() => Some("Nothing yet; Right goes ahead by 10 s."),
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
    picture: &Picture,
    paint: Paint,
    escape: Escape,
) {
    let rows = app.connections(picture);
    if rows.is_empty() {
        draw_nothing(frame, area, app, picture);
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
        // Where verdicts have no room, the bad ones stand in the place of the cause.
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
            ago(picture.now, row.heard_at),
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

fn draw_nothing(frame: &mut Frame<'_>, area: Rect, app: &App, picture: &Picture) {
    if let Some(why) = nothing(app, picture) {
        frame.render_widget(Paragraph::new(why).wrap(Wrap { trim: true }), area);
    }
}

fn draw_sums(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &mut App,
    table: usize,
    picture: &Picture,
    paint: Paint,
    escape: Escape,
) {
    let rows = app.sums(table, picture);
    if rows.is_empty() {
        draw_nothing(frame, area, app, picture);
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
            Line::raw(format!("{:>7}", sum.questions)),
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

/// A share as a bar of ten cells and in percent.
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

fn draw_life(
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
            let words = format!("           ... {} moments forgotten", row.forgotten);
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
        more => format!("Life ({more} lines more below)"),
    };
    lines.drain(..top);
    lines.insert(0, Line::styled(title, paint.title()));
    frame.render_widget(Paragraph::new(lines), body);
}

/// Columns before the words of a moment.
const MOMENT_INDENT: usize = 11;

fn moment_lines(
    moment: &Moment,
    begin: Duration,
    width: usize,
    paint: Paint,
    escape: Escape,
) -> Vec<Line<'static>> {
    let style = match moment.kind {
        MomentKind::Fallback => paint.bad(),
        MomentKind::Begin | MomentKind::End => paint.dim(),
        MomentKind::Asked | MomentKind::Other => Style::new(),
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

/// Words in lines of at most that width; what has no blank in it is longer.
fn wrapped(text: &str, width: usize) -> impl Iterator<Item = String> + use<> {
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

/// What is known of a connection, above its life.
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
                row.questions
            ),
            None => format!("none yet; its application asked {} times", row.questions),
        },
    ));
    lines.push(pair("heard of", format!("{} ago", ago(now, row.heard_at))));
    lines.push(Line::raw(""));
    lines
}

fn draw_help(frame: &mut Frame<'_>, app: &App, paint: Paint) {
    const KEYS: &[(&str, &str)] = &[
        (
            "1 2 3 4, Tab",
            "connections, processes, causes, destinations",
        ),
        ("Up Down PgUp PgDn Home End", "move (also k j g G)"),
        (
            "Enter",
            "one connection's life; the connections of a process, cause, destination",
        ),
        ("Esc", "back; drop the filter"),
        (
            "/",
            "filter as you type: every word must match, !word must not",
        ),
        ("s, r", "sort by the next column, turn the order round"),
        ("Space", "stand still; what happens meanwhile is not lost"),
        (
            "AGO",
            "since something was heard of it; with a dot: it has ended",
        ),
        ("Ctrl-Z", "put aside (fg brings it back)"),
        ("q, Ctrl-C", "end"),
    ];
    const REPLAY: &[(&str, &str)] = &[
        ("Left Right", "10 seconds back, ahead"),
        ("[ ]", "a minute back, ahead"),
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

#[cfg(test)]
mod tests {
    use ratatui::{
        Terminal,
        backend::TestBackend,
        crossterm::event::{KeyCode, KeyEvent},
    };

    use super::*;
    use crate::{
        model::{Verdict, fixture::Row as Fixture},
        sink::escape,
        top::board::{Board, Limits},
    };

    fn picture() -> Picture {
        let mut board = Board::new(Limits::STATED);
        let evil = Fixture {
            address: 2,
            at_ms: 2_000,
            comm: "\u{1b}[31mevil",
            cause: Some("MPCapableFallbackSYNACK"),
            remote: "[2001:db8::7]:443",
            ..Fixture::default()
        };
        board.take(&Fixture::default().connection(), &|_id| None);
        board.take(&evil.connection(), &|_id| None);
        let misled = Fixture {
            at_ms: 3_000,
            verdict: Some(Verdict::Misled),
            ..Fixture::default()
        };
        board.take(&misled.query(), &|_id| None);
        board.picture(Duration::from_secs(8))
    }

    fn screen(width: u16, height: u16, keys: &[KeyCode], around: &Around) -> String {
        let picture = picture();
        let mut app = App::new(around.playing.is_some());
        for code in keys {
            app.key(KeyEvent::from(*code), &picture);
        }
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw(frame, &mut app, &picture, around, escape))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let mut text = String::new();
        for y in 0..height {
            let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn around() -> Around {
        Around {
            source: "6.18.5 tracepoint".to_owned(),
            clock: "12:00:00".to_owned(),
            ..Around::default()
        }
    }

    #[test]
    fn connections_have_room_in_eighty_columns() {
        let text = screen(80, 24, &[], &around());
        assert!(
            text.contains("2 connections, 2 fell back (100%), asked 1, deceived 1"),
            "{text}"
        );
        assert!(
            text.contains("fell back curl 7                192.0.2.7:443"),
            "{text}"
        );
        assert!(text.contains("misled DssFallback"), "{text}");
        assert!(text.contains("MPCapableFallbackSYNACK    6s"), "{text}");
        assert!(text.contains("\\u{1b}[31mevil"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.contains("q quit"), "{text}");
    }

    #[test]
    fn wide_terminals_have_verdicts_and_both_ends() {
        let text = screen(140, 24, &[], &around());
        assert!(text.contains("LOCAL"), "{text}");
        assert!(text.contains("misled       DssFallback"), "{text}");
        assert!(text.contains("10.0.0.1:1000"), "{text}");
    }

    #[test]
    fn sums_have_bars_and_a_life_its_moments_and_its_cause() {
        let text = screen(80, 24, &[KeyCode::Char('3')], &around());
        assert!(text.contains("CAUSE"), "{text}");
        assert!(text.contains("██████████ 100%"), "{text}");
        let text = screen(80, 40, &[KeyCode::Enter], &around());
        assert!(text.contains("FELL BACK: DssFallback (reported)"), "{text}");
        assert!(
            text.contains("asked TCP_IS_MPTCP, told mptcp: misled"),
            "{text}"
        );
        assert!(text.contains("What DssFallback means"), "{text}");
        assert!(text.contains("cgroup   /a/b.service"), "{text}");
    }

    #[test]
    fn any_size_is_drawn_and_help_is_over_it() {
        for (width, height) in [(1, 1), (10, 3), (20, 5), (79, 23), (300, 100)] {
            for keys in [
                &[][..],
                &[KeyCode::Enter],
                &[KeyCode::Char('2')],
                &[KeyCode::Char('?')],
            ] {
                screen(width, height, keys, &around());
            }
        }
        let text = screen(80, 24, &[KeyCode::Char('?')], &around());
        assert!(text.contains("stand still"), "{text}");
        assert!(!text.contains("10 seconds back"), "{text}");
    }

    #[test]
    fn a_replay_tells_where_it_is_and_losses_are_told() {
        let mut around = around();
        around.playing = Some(Playing {
            at: Duration::from_secs(61),
            length: Duration::from_secs(3_700),
            speed: 4.0,
            has_ended: false,
        });
        around.state = Some(State {
            undecodable: 3,
            ..State::default()
        });
        let text = screen(100, 24, &[], &around);
        assert!(text.contains("[1:01 of 1:01:40]"), "{text}");
        assert!(text.contains("lost 3"), "{text}");
        assert!(!text.contains("kernel counted"), "{text}");
        let account = |counted: u64, traced: u64, unread| Reconciliation {
            counted: [("A".to_owned(), counted)].into(),
            traced: [("A".to_owned(), traced)].into(),
            why: (unread || counted != traced).then(|| "because".to_owned()),
            unread,
            ..Reconciliation::default()
        };
        for (account, says) in [
            (account(5, 3, false), "kernel counted 2 more"),
            (account(3, 5, false), "counters differ"),
            (account(0, 5, true), "counters unread"),
        ] {
            let mut around = around.clone();
            around.state = Some(State {
                reconciled: vec![account],
                ..State::default()
            });
            let text = screen(130, 24, &[], &around);
            assert!(text.contains(says), "{says}: {text}");
        }
        assert!(text.contains("x4"), "{text}");
        let text = screen(100, 24, &[KeyCode::Char('/'), KeyCode::Char('z')], &around);
        assert!(text.contains("Nothing matches the filter"), "{text}");
        assert!(text.contains("filter: z"), "{text}");
    }

    #[test]
    fn shares_and_times_are_short() {
        for (share, want) in [
            (0.0, "             0%"),
            (0.5, "█████       50%"),
            (1.0, "██████████ 100%"),
        ] {
            assert_eq!(bar(share), want);
        }
        for (seconds, want) in [
            (0, "0s"),
            (99, "99s"),
            (100, "1m"),
            (7_200, "2h"),
            (864_000, "10d"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds), Duration::ZERO), want);
        }
    }
}
