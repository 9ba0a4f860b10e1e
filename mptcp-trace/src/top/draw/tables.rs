//! The tables: which columns fit the width, and their cells.

use super::*;

/// Width of an IPv4 address with port.
const IPV4_WIDTH: usize = 21;

/// Columns of the table of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    State,
    Process,
    Local,
    Remote,
    Side,
    Netns,
    Verdict,
    Cause,
    Asked,
    Cgroup,
    Ago,
}

impl Column {
    /// From left to right.
    const USUAL: [Self; 11] = [
        Self::State,
        Self::Process,
        Self::Local,
        Self::Remote,
        Self::Side,
        Self::Netns,
        Self::Verdict,
        Self::Cause,
        Self::Asked,
        Self::Cgroup,
        Self::Ago,
    ];

    fn header(self) -> &'static str {
        match self {
            Self::State => "STATE",
            Self::Process => "PROCESS",
            Self::Local => "LOCAL",
            Self::Remote => "REMOTE",
            Self::Side => "SIDE",
            Self::Netns => "NETNS",
            Self::Verdict => "VERDICT",
            Self::Cause => "CAUSE",
            Self::Asked => " ASKED",
            Self::Cgroup => "CGROUP",
            Self::Ago => "  AGO",
        }
    }

    fn order(self) -> Option<Order> {
        match self {
            Self::State | Self::Verdict => Some(Order::Worst),
            Self::Process => Some(Order::Process),
            Self::Remote => Some(Order::Remote),
            Self::Cause => Some(Order::Cause),
            Self::Asked => Some(Order::Queries),
            Self::Ago => Some(Order::Latest),
            Self::Local | Self::Side | Self::Netns | Self::Cgroup => None,
        }
    }
}

/// What the table of connections shows, the most important first. `local` and `remote` are the
/// widths of the longest addresses.
fn wishes(local: usize, remote: usize) -> [(Column, usize); 18] {
    [
        (Column::State, 9),
        (Column::Remote, IPV4_WIDTH),
        (Column::Process, 10),
        (Column::Ago, 6),
        (Column::Cause, 12),
        (Column::Cause, 23),
        (Column::Process, 17),
        (Column::Verdict, 12),
        (Column::Process, 21),
        (Column::Remote, remote),
        (Column::Local, IPV4_WIDTH),
        (Column::Asked, 6),
        (Column::Side, 6),
        (Column::Local, local),
        (Column::Netns, 10),
        (Column::Cgroup, 16),
        (Column::Cgroup, 64),
        (Column::Remote, 47),
    ]
}

/// Columns of the summary tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SumColumn {
    Name,
    Connections,
    Fallbacks,
    /// Joins and connections that failed, of a cause.
    Failed,
    /// Paths that ended, of a cause.
    Ended,
    Share,
    Asked,
    Deceived,
    Refused,
}

impl SumColumn {
    /// From left to right.
    const USUAL: [Self; 9] = [
        Self::Name,
        Self::Connections,
        Self::Fallbacks,
        Self::Failed,
        Self::Ended,
        Self::Share,
        Self::Asked,
        Self::Deceived,
        Self::Refused,
    ];

    /// What the table shows, the most important first.
    const WISHES: [(Self, usize); 9] = [
        (Self::Name, 12),
        (Self::Fallbacks, 7),
        (Self::Connections, 7),
        (Self::Name, 23),
        (Self::Deceived, 8),
        (Self::Share, 15),
        (Self::Asked, 7),
        (Self::Refused, 7),
        (Self::Name, 64),
    ];

    /// The same of causes, which are also those of paths.
    const WISHES_OF_CAUSES: [(Self, usize); 11] = [
        (Self::Name, 12),
        (Self::Fallbacks, 7),
        (Self::Failed, 6),
        (Self::Ended, 6),
        (Self::Name, 23),
        (Self::Connections, 7),
        (Self::Share, 15),
        (Self::Deceived, 8),
        (Self::Asked, 7),
        (Self::Refused, 7),
        (Self::Name, 64),
    ];

    fn header(self, tab: Tab) -> &'static str {
        match (self, tab) {
            (Self::Name, Tab::Sums(1)) => "CAUSE",
            (Self::Name, Tab::Sums(2)) => "DESTINATION",
            (Self::Name, Tab::Sums(_) | Tab::Connections) => "PROCESS",
            (Self::Connections, _) => "  CONNS",
            (Self::Fallbacks, _) => "   FELL",
            (Self::Failed, _) => "FAILED",
            (Self::Ended, _) => " ENDED",
            (Self::Share, _) => "SHARE",
            (Self::Asked, _) => "  ASKED",
            (Self::Deceived, _) => "DECEIVED",
            (Self::Refused, _) => "REFUSED",
        }
    }

    fn order(self) -> Option<Order> {
        match self {
            Self::Name => Some(Order::Name),
            Self::Connections => Some(Order::Connections),
            Self::Fallbacks => Some(Order::Fallbacks),
            Self::Share => Some(Order::Share),
            Self::Asked => Some(Order::Queries),
            Self::Failed | Self::Ended | Self::Deceived | Self::Refused => None,
        }
    }
}

/// Hint for an empty table.
fn nothing(app: &App, snapshot: &Snapshot) -> Option<&'static str> {
    match (app.filter().is_empty(), snapshot.totals.findings) {
        (false, _) => Some("Nothing matches the filter; Esc drops it."),
        (true, 0) if app.is_replay() => Some("Nothing yet; Right skips 10 s ahead."),
        (true, 0) => Some(
            "Nothing yet: no connection was opened or fell back, and no application asked. `mptcp-trace demo` provokes a fallback.",
        ),
        (true, _) => Some("Nothing of this kind yet."),
    }
}

pub(super) fn draw_connections(
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
    let longest = |of: fn(&Row) -> SocketAddr| {
        let long = rows.iter().map(|row| of(row)).filter(SocketAddr::is_ipv6);
        let widths = long.map(|it| it.to_string().len());
        widths.fold(IPV4_WIDTH, usize::max)
    };
    let wishes = wishes(longest(|row| row.local), longest(|row| row.remote));
    let columns = granted(&Column::USUAL, &wishes, area.width.into());
    let has_verdict = columns.iter().any(|(it, _)| *it == Column::Verdict);
    let cell = |row: &Row, column, width| match column {
        Column::State => Line::styled(clipped(row.state(), width), paint.state(row)),
        Column::Process => Line::raw(process(row.process.as_ref(), escape).fitted(width)),
        Column::Local => Line::raw(Text::Address(row.local.to_string()).fitted(width)),
        Column::Remote => Line::raw(Text::Address(row.remote.to_string()).fitted(width)),
        Column::Side => Line::raw(side(row)),
        Column::Netns => Line::raw(format!("{:>width$}", row.netns)),
        Column::Verdict => {
            let verdict = row.verdict.map_or("", |verdict| verdict.name());
            let style = style_if(row.is_deceived(), paint.bad());
            Line::styled(clipped(verdict, width), style)
        }
        Column::Cause => cause(row, width, !has_verdict, paint, escape),
        Column::Asked => Line::raw(format!("{:>width$}", row.queries)),
        Column::Cgroup => {
            let path = row.cgroup.as_deref().map(escape).unwrap_or_default();
            Line::raw(end_of(&path, width))
        }
        Column::Ago => Line::raw(format!(
            "{:>5}{}",
            ago(snapshot.now, row.heard_at),
            if row.is_closed { "." } else { "" }
        )),
    };
    let table = Grid {
        columns: &columns,
        named: |it: Column| (it.header(), it.order()),
        paint,
    };
    table.draw(frame, area, app, &rows, |row, column, width| {
        cell(row, column, width)
    });
}

/// The cause; a verdict that has no column of its own stands before it if it is a bad one.
fn cause(
    row: &Row,
    width: usize,
    with_verdict: bool,
    paint: Paint,
    escape: Escape,
) -> Line<'static> {
    let cause = match (&row.cause, row.fell_back) {
        (Some(cause), _) => escape(cause),
        (None, Some(true)) => "cause unknown".to_owned(),
        (None, _) => row.remark().map(escape).unwrap_or_default(),
    };
    match row.verdict.filter(|it| with_verdict && it.deceives()) {
        Some(verdict) => {
            let verdict = clipped(&format!("{} ", verdict.name()), width);
            let room = width.saturating_sub(width_of(&verdict));
            Line::from(vec![
                Span::styled(verdict, paint.bad()),
                Span::raw(clipped(&cause, room)),
            ])
        }
        None => Line::raw(clipped(&cause, width)),
    }
}

fn process(process: Option<&Process>, escape: Escape) -> Text {
    match process {
        Some(process) => Text::Process(escape(&process.comm), process.number()),
        None => Text::Plain("?".to_owned()),
    }
}

pub(super) fn side(row: &Row) -> &'static str {
    row.side.map_or("", |side| match side {
        crate::model::Side::Active => "client",
        crate::model::Side::Passive => "server",
    })
}

/// A table that is drawn.
struct Grid<'a, C, N> {
    /// Its columns with their widths.
    columns: &'a [(C, usize)],
    /// The name of a column, and what a click on it sorts by.
    named: N,
    paint: Paint,
}

impl<C: Copy, N: Fn(C) -> (&'static str, Option<Order>)> Grid<'_, C, N> {
    /// Draws the visible part of the rows, and notes where clicks lead.
    fn draw<R>(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        app: &mut App,
        rows: &[R],
        cell: impl Fn(&R, C, usize) -> Line<'static>,
    ) {
        let Self {
            columns,
            named,
            paint,
        } = self;
        let count = rows.len();
        let height = usize::from(area.height.saturating_sub(1));
        let (top, cursor) = app.scroll(count, height);
        let narrow = |width: usize| u16::try_from(width).unwrap_or(u16::MAX);
        let mut x = area.x;
        for (column, width) in *columns {
            let end = x.saturating_add(narrow(*width));
            if let (_, Some(order)) = named(*column) {
                app.hits().add(area.y, x..end, Hit::Column(order));
            }
            x = end.saturating_add(1);
        }
        let shown = top..count.min(top.saturating_add(height));
        for (line, index) in (area.y.saturating_add(1)..).zip(shown.clone()) {
            let across = area.x..area.right();
            app.hits().add(line, across, Hit::Row(index));
        }
        let names = columns
            .iter()
            .map(|(column, _)| Line::styled(named(*column).0, paint.title()));
        let lines = rows.iter().enumerate().take(shown.end).skip(shown.start);
        let lines = lines.map(|(index, row)| {
            let cells = columns
                .iter()
                .map(|(column, width)| cell(row, *column, *width));
            let style = style_if(index == cursor, paint.cursor());
            Cells::new(cells).style(style)
        });
        let widths = columns
            .iter()
            .map(|(_, width)| Constraint::Length(narrow(*width)));
        let table = Table::new(lines, widths)
            .header(Cells::new(names))
            .column_spacing(1);
        frame.render_widget(table, area);
    }
}

fn draw_nothing(frame: &mut Frame<'_>, area: Rect, app: &App, snapshot: &Snapshot) {
    if let Some(why) = nothing(app, snapshot) {
        frame.render_widget(Paragraph::new(why).wrap(Wrap { trim: true }), area);
    }
}

pub(super) fn draw_sums(
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
    let tab = app.tab();
    let wishes: &[(SumColumn, usize)] = match tab {
        Tab::Sums(1) => &SumColumn::WISHES_OF_CAUSES,
        Tab::Sums(_) | Tab::Connections => &SumColumn::WISHES,
    };
    let columns = granted(&SumColumn::USUAL, wishes, area.width.into());
    let cell = |row: &SumRow, column, width| {
        let sum = &row.sum;
        let share = sum.share().unwrap_or_default();
        let causes = snapshot.path_causes.get(&row.key);
        let causes = causes.copied().unwrap_or_default();
        match column {
            SumColumn::Name => Line::raw(name(tab, &row.key, escape).fitted(width)),
            SumColumn::Connections => Line::raw(format!("{:>width$}", sum.connections)),
            SumColumn::Fallbacks => Line::raw(format!("{:>width$}", sum.fallbacks)),
            SumColumn::Failed => Line::styled(
                format!("{:>width$}", causes.failed),
                style_if(causes.failed > 0, paint.fallen()),
            ),
            SumColumn::Ended => Line::raw(format!("{:>width$}", causes.ended)),
            SumColumn::Share => Line::styled(bar(share), style_if(share > 0.0, paint.fallen())),
            SumColumn::Asked => Line::raw(format!("{:>width$}", sum.queries)),
            SumColumn::Deceived => Line::styled(
                format!("{:>width$}", sum.deceived),
                style_if(sum.deceived > 0, paint.bad()),
            ),
            SumColumn::Refused => Line::raw(format!("{:>width$}", sum.refusals)),
        }
    };
    let table = Grid {
        columns: &columns,
        named: |it: SumColumn| (it.header(tab), it.order()),
        paint,
    };
    table.draw(frame, area, app, &rows, cell);
}

/// The name of a line: a process keeps its number.
fn name(tab: Tab, key: &str, escape: Escape) -> Text {
    match (tab, key.rsplit_once(' ')) {
        (Tab::Sums(0), Some((comm, pid))) => Text::Process(escape(comm), escape(pid)),
        _other => Text::Plain(escape(key)),
    }
}

/// A share as a bar of ten cells and a percentage.
pub(super) fn bar(share: f64) -> String {
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
