//! Text for people: a table, as wide as the terminal.

use std::fmt::Write as _;

use super::*;
use crate::model::{PathRole, Side};

/// How text looks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Columns of the terminal; `None` is unlimited.
    pub width: Option<usize>,
    /// With colours.
    pub colour: bool,
    /// Breaks a text into lines of a width.
    pub wrapped: fn(&str, usize) -> Vec<String>,
}

/// Width of the time, and of the longest judgement.
const TIME: usize = 15;
const JUDGEMENT: usize = 14;
/// Where the ends of a connection begin.
const ENDS: usize = TIME + 1 + JUDGEMENT + 1;
/// Narrower text is not readable.
const WIDTH_MIN: usize = 20;

impl Look {
    /// Writes a paragraph; its first line follows a label, the others an indentation.
    fn paragraph(&self, out: &mut String, label: &str, indent: usize, text: &str) {
        let lines = match self.width {
            None => vec![text.to_owned()],
            Some(width) => (self.wrapped)(text, width.saturating_sub(indent).max(WIDTH_MIN)),
        };
        for (number, line) in lines.iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            let _infallible = writeln!(out, "{label:<indent$}{line}");
        }
    }
}

impl Judgement {
    /// Its name, as wide as the column.
    fn painted(self, colour: bool) -> String {
        let paint = match self {
            Self::Mptcp => "\x1b[32m",
            Self::NotRequested | Self::DecidedByEnd | Self::NotInOther | Self::CannotSay => {
                "\x1b[33m"
            }
            Self::OptionRemoved
            | Self::Changed
            | Self::NeverArrived
            | Self::ResetBetween
            | Self::Proxy => "\x1b[31m",
        };
        let (name, space) = (self.name(), JUDGEMENT - self.name().len());
        match colour {
            true => format!("{paint}{name}\x1b[0m{:space$}", ""),
            false => format!("{name}{:space$}", ""),
        }
    }
}

/// The lines of text.
#[must_use]
pub fn text(paired: &Paired<'_>, options: &Options, look: Look) -> String {
    let clock = Clock::new(options.utc);
    let judge = paired.judge();
    let mut out = String::new();
    for (who, capture) in ["client: ", "server: "].into_iter().zip(paired.captures) {
        let (from, to) = span(&capture.about);
        let about = format!(
            "{}, {} to {}, {} connections{}",
            escape(&capture.about.name),
            clock.text(from),
            clock.text(to),
            capture.ends.all.len(),
            doubts(&capture.about),
        );
        look.paragraph(&mut out, who, who.len(), &about);
    }
    look.paragraph(&mut out, "clocks: ", "clocks: ".len(), &clocks(paired));
    table(&mut out, paired, &judge, &clock, options, look);
    sums(&mut out, paired, look);
    out
}

/// What may be missing in a capture.
fn doubts(about: &About) -> String {
    let mut doubts = String::new();
    if let Some(gap) = &about.gap {
        let _infallible = write!(doubts, "; {}", escape(gap));
    }
    if about.filtered > 0 {
        let _infallible = write!(doubts, "; its filter left out {} events", about.filtered);
    }
    if about.beyond > 0 {
        let _infallible = write!(doubts, "; {} more are not compared", about.beyond);
    }
    if about.redacted {
        doubts.push_str("; redacted: its addresses are not compared");
    }
    doubts
}

fn clocks(paired: &Paired<'_>) -> String {
    match paired.offset {
        None => {
            "not compared, because no handshake was seen at both ends; times are those of each host"
                .to_owned()
        }
        Some(Offset {
            by,
            uncertainty,
            handshakes,
        }) => {
            let side = if by < 0 { "behind" } else { "ahead" };
            format!(
                "the server's is {} {side} (+-{}, from {handshakes} handshakes); times are the client's",
                duration(by),
                duration(uncertainty)
            )
        }
    }
}

/// The two ends of a connection as cells.
fn cells(judge: &Judge<'_>, pair: &Pair) -> [String; 2] {
    let [client, mut server] = judge.ends(pair).map(|seen| match seen {
        None => "not in this capture".to_owned(),
        Some(seen) => {
            let path = seen.first().or(seen.paths.first());
            let addresses = path.map_or_else(|| "no address".to_owned(), addresses);
            let process = seen.process.as_deref().unwrap_or("?");
            format!("{} {addresses}", escape(process))
        }
    });
    if pair.reversed {
        server.push_str(" (opened by the second host)");
    }
    [client, server]
}

/// The connections: both ends in one line where there is room, else below each other.
fn table(
    out: &mut String,
    paired: &Paired<'_>,
    judge: &Judge<'_>,
    clock: &Clock,
    options: &Options,
    look: Look,
) {
    let rows = paired
        .shown(options)
        .map(|line| (line, cells(judge, &line.pair)));
    let rows: Vec<(&Line, [String; 2])> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let widest = |end: usize| {
        let widths = rows.iter().map(|(_, cells)| cells[end].chars().count());
        widths.max().unwrap_or(0)
    };
    let client = widest(0);
    let is_wide = look
        .width
        .is_none_or(|width| ENDS + client + 1 + widest(1) <= width);
    let names = match is_wide {
        true => format!("{:<client$} SERVER", "CLIENT"),
        false => "CLIENT, SERVER".to_owned(),
    };
    let _infallible = writeln!(
        out,
        "\n{:<TIME$} {:<JUDGEMENT$} {names}",
        "TIME", "JUDGEMENT"
    );
    for (line, [here, there]) in &rows {
        let at = clock.text(begin(judge, paired.captures, &line.pair));
        let judgement = line.judged.what.painted(look.colour);
        if is_wide {
            let _infallible = writeln!(out, "{at:<TIME$} {judgement} {here:<client$} {there}");
        } else {
            let label = format!("{at:<TIME$} {judgement} ");
            look.paragraph(out, &label, ENDS, here);
            look.paragraph(out, "", ENDS, there);
        }
        details(out, judge, clock, options, line, look);
    }
    out.push('\n');
}

/// What follows the line of a connection: the sentence, and its paths.
fn details(
    out: &mut String,
    judge: &Judge<'_>,
    clock: &Clock,
    options: &Options,
    line: &Line,
    look: Look,
) {
    let pair = &line.pair;
    let mut why = sentence(judge, clock, pair, &line.judged);
    if let Some(by) = pair.by {
        let likely = if by.is_likely() { ": likely" } else { "" };
        let _infallible = write!(why, "; joined by {}{likely}", by.words());
    }
    look.paragraph(out, "", 4, &why);
    for (path, judged) in &line.paths {
        let [here, there] = judge.ends_of_path(pair, path);
        let Some(one) = here.or(there) else {
            continue;
        };
        let is_trouble = judged.what != Judgement::Mptcp && one.role == PathRole::Join;
        if is_trouble || options.all && line.paths.len() > 1 {
            let about = format!(
                "{}: {}, {}",
                addresses(one),
                judged.what.name(),
                sentence(judge, clock, pair, judged)
            );
            let label = format!("    {} ", one.role.name());
            look.paragraph(out, &label, label.len(), &about);
        }
    }
}

fn addresses(path: &PathSeen) -> String {
    match path.side {
        Some(Side::Passive) => format!("{} <- {}", path.local, path.remote),
        Some(Side::Active) | None => format!("{} -> {}", path.local, path.remote),
    }
}

/// The sentence of a judgement, with when it left and arrived.
fn sentence(judge: &Judge<'_>, clock: &Clock, pair: &Pair, judged: &Judged) -> String {
    let left = judged.left.map(|at| judge.on_first_clock(pair, false, at));
    let arrived = judged
        .arrived
        .map(|at| judge.on_first_clock(pair, true, at));
    let times = match (left, arrived) {
        (Some(left), Some(arrived)) => format!(
            "left at {}, noticed at {}: ",
            clock.text(left),
            clock.text(arrived)
        ),
        (Some(left), None) => format!("left at {}: ", clock.text(left)),
        (None, Some(arrived)) => format!("noticed at {}: ", clock.text(arrived)),
        (None, None) => String::new(),
    };
    match judged.what == Judgement::CannotSay {
        true => format!("cannot say: {}", escape(&judged.why)),
        false => times + &escape(&judged.why),
    }
}

/// The counts at the end.
fn sums(out: &mut String, paired: &Paired<'_>, look: Look) {
    let by: Vec<String> = paired
        .joined_by()
        .into_iter()
        .map(|(by, count)| format!("{count} by {}", by.words()))
        .collect();
    let joined = paired.joined_by().values().sum::<usize>();
    let by = match by.is_empty() {
        true => String::new(),
        false => format!(" ({})", by.join(", ")),
    };
    let all = paired.lines.len();
    let sum = format!("{all} connections: {joined} in both captures{by}");
    look.paragraph(out, "", 0, &sum);
    let counts = paired.counts();
    for what in Judgement::ALL {
        if let Some(count) = counts.get(&what) {
            let _infallible = writeln!(out, "{count:>7} {}", what.painted(look.colour).trim_end());
        }
    }
}
