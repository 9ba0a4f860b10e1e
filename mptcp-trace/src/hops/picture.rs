//! A survey as text and as a JSON line.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::{
    conclude::{Conclusion, Passes, Span},
    evidence::{Answer, Back, DataEnd, Evidence, Hop, Report},
    options::OptionState,
    parse::What,
    words::{advice, sentence, span},
};

/// What was typed and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The name of the peer, as typed.
    pub host: &'a str,
    /// How many addresses the name has.
    pub addresses: usize,
    /// Duration of the survey.
    pub took: Duration,
    /// Width of a line, columns.
    pub width: usize,
}

/// Spaces between columns.
const GAP: usize = 2;
/// Width of the last column, at least.
const LAST_MIN: usize = 20;

/// The text: the path hop by hop, the conclusion, what follows from it, and what to type next.
#[must_use]
pub fn text(
    about: About<'_>,
    found: &Evidence,
    concluded: &Conclusion,
    wrap: impl Fn(&str, usize) -> Vec<String>,
) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to memory does not fail.
        let _infallible = writeln!(out, "{}", text.trim_end());
    };
    let ends = found.ends;
    line(format!(
        "{} port {} from {}: {} packets in {:.1} s",
        match about.host == ends.destination.to_string() {
            true => about.host.to_owned(),
            false => format!("{} ({})", about.host, ends.destination),
        },
        ends.port,
        ends.source,
        found.packets,
        about.took.as_secs_f64()
    ));
    if about.addresses > 1 {
        let others = about.addresses - 1;
        line(format!(
            "the name has {others} other addresses, which were not asked"
        ));
    }
    line(String::new());
    let rows = rows(found, concluded);
    let widths = [0, 1, 2].map(|at| {
        rows.iter()
            .map(|row| row[at].chars().count())
            .max()
            .unwrap_or(0)
    });
    for row in &rows {
        let [hop, who, quotes, what] = row;
        let [a, b, c] = widths;
        let start = format!("{hop:>a$}  {who:<b$}  {quotes:<c$}  ");
        let indent = a + b + c + 3 * GAP;
        // The last column has the rest of the line, or a few columns if there is none.
        let rest = about.width.saturating_sub(indent).max(LAST_MIN);
        let parts = match what.chars().count() > rest {
            true => wrap(what, rest),
            false => vec![what.clone()],
        };
        for (number, part) in parts.iter().enumerate() {
            let start = if number == 0 { start.as_str() } else { "" };
            line(format!("{start:<indent$}{part}"));
        }
    }
    line(String::new());
    let conclusion = format!(
        "{} ({})",
        sentence(found, concluded),
        concluded.certainty.name()
    );
    wrap(&conclusion, about.width)
        .into_iter()
        .for_each(&mut line);
    for note in notes(found, concluded) {
        wrap(&note, about.width).into_iter().for_each(&mut line);
    }
    line(String::new());
    let advice = advice(found, concluded);
    for (label, texts) in [
        ("follows", &advice.follows),
        ("not known", &advice.does_not_follow),
        ("next", &advice.next),
    ] {
        for (index, text) in texts.iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            for (row, part) in wrap(text, about.width.saturating_sub(10))
                .into_iter()
                .enumerate()
            {
                let label = if row == 0 { label } else { "" };
                line(format!("{label:<9} {part}"));
            }
        }
    }
    out
}

fn rows(found: &Evidence, concluded: &Conclusion) -> Vec<[String; 4]> {
    let head = ["hop", "who", "quotes", "MP_CAPABLE in the SYN"].map(str::to_owned);
    let mut rows = vec![
        head,
        [
            "0".into(),
            found.ends.source.to_string(),
            String::new(),
            "sent".into(),
        ],
    ];
    for hop in &found.hops {
        let mut row = row(hop, found);
        let is_first = |span: Option<Span>| span.and_then(|it| it.before) == Some(hop.number);
        if is_first(concluded.span) && hop.quote().is_some_and(|it| it.option.is_touched()) {
            row[3].push_str("   <-- the first without it");
        }
        if is_first(concluded.renumbered) {
            row[3].push_str("   <-- another sequence number");
        }
        rows.push(row);
    }
    if let Some(first) = not_asked(found) {
        let row = [
            format!("{first}-"),
            String::new(),
            String::new(),
            "not asked".into(),
        ];
        rows.push(row);
    }
    for (hops, what) in [(&found.plain_hops, "without MPTCP")]
        .into_iter()
        .chain([(&found.join, "MP_JOIN's size")])
        .chain(
            found
                .data
                .as_ref()
                .map(|data| (&data.hops, "DSS, with data")),
        )
    {
        for hop in hops {
            let [number, who, quotes, state] = row(hop, found);
            let state = match (hop.quote(), what) {
                (Some(_), "without MPTCP") => "arrived".to_owned(),
                _ => state,
            };
            rows.push([number, who, quotes, format!("{what}: {state}")]);
        }
    }
    if found.distance.is_none() || found.capable.is_none() || found.is_contradictory() {
        let answer = |answer: &Option<Answer>| answer.as_ref().map_or("no answer".into(), at_end);
        let who = found.ends.destination.to_string();
        rows.push([
            "end".into(),
            who.clone(),
            String::new(),
            answer(&found.capable),
        ]);
        let plain = format!("without MPTCP: {}", answer(&found.plain));
        rows.push(["end".into(), who, String::new(), plain]);
    }
    rows
}

/// The first hop to which no SYN was sent because of the limit of packets.
fn not_asked(found: &Evidence) -> Option<u8> {
    let is_cut = found.has_too_few_packets && found.distance.is_none();
    let last = found.hops.last().map_or(0, |hop| hop.number);
    (is_cut && found.unreachable().is_none()).then(|| last.saturating_add(1))
}

fn row(hop: &Hop, found: &Evidence) -> [String; 4] {
    let number = hop.number.to_string();
    match &hop.answer {
        None => [number, "*".into(), String::new(), "silent".into()],
        Some(Answer::Report(report)) => [
            number,
            report.source.to_string(),
            quotes(report),
            state(report),
        ],
        Some(answer) => [
            number,
            found.ends.destination.to_string(),
            String::new(),
            said(answer),
        ],
    }
}

fn quotes(report: &Report) -> String {
    match report.option {
        OptionState::Unknown if !report.is_whole => format!("{} bytes", report.bytes),
        OptionState::Unknown
        | OptionState::Intact
        | OptionState::Cleared
        | OptionState::Removed
        | OptionState::Changed => "header".into(),
    }
}

fn state(report: &Report) -> String {
    if let What::Unreachable(code) = report.what {
        return format!("unreachable (code {code})");
    }
    match report.option {
        OptionState::Intact => "unchanged",
        OptionState::Cleared => "replaced by NOPs",
        OptionState::Removed => "removed",
        OptionState::Changed => "another MPTCP option",
        OptionState::Unknown if report.is_whole => "the quote has no readable options",
        OptionState::Unknown => "the quote is too short to say",
    }
    .into()
}

/// What the packets with the usual time to live were answered.
fn at_end(answer: &Answer) -> String {
    match answer {
        Answer::Report(it) if it.what == What::TimeExceeded => {
            format!("time exceeded at {}", it.source)
        }
        Answer::Report(it) => format!("{}, says {}", state(it), it.source),
        Answer::SynAck { .. } | Answer::Reset { .. } | Answer::Echoed { .. } => said(answer),
    }
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Report(report) => state(report),
        Answer::Reset { .. } => "RST".into(),
        Answer::Echoed { .. } => "echo reply".into(),
        Answer::SynAck { back, .. } => format!("SYN/ACK {}", of_back(*back)),
    }
}

fn of_back(back: Back) -> String {
    match back {
        Back::Mptcp => "with MP_CAPABLE".into(),
        Back::Version(version) => format!("with MP_CAPABLE of version {version}"),
        Back::Mirrored => "with the option of the SYN".into(),
        Back::Cleared { is_exact: true } => "with NOPs in the place of MP_CAPABLE".into(),
        Back::Cleared { is_exact: false } => "with NOPs, perhaps in the place of MP_CAPABLE".into(),
        Back::Other => "with another MPTCP option".into(),
        Back::Nothing => "without MPTCP".into(),
    }
}

fn notes(found: &Evidence, concluded: &Conclusion) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(part) = concluded.renumbered {
        notes.push(format!(
            "Sequence numbers are rewritten {}: MPTCP allows for that (its mappings count from the first \
             byte of a path).",
            span(found, part)
        ));
    }
    if found.has_too_few_packets {
        notes.push(format!(
            "The limit of {} packets was reached (--max-packets): some questions were not asked.",
            found.packets
        ));
    }
    notes
}

/// The JSON line, with its end.
#[must_use]
pub fn json(about: About<'_>, found: &Evidence, concluded: &Conclusion) -> String {
    let advice = advice(found, concluded);
    let span = |it: Option<Span>| it.map(|it| json!({"after": it.after, "before": it.before}));
    let data = found.data.as_ref();
    let line = json!({"type": "probe", "data": {
        "schema": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "host": about.host,
        "from": found.ends.source.to_string(),
        "remote": {"addr": found.ends.destination.to_string(), "port": found.ends.port},
        "addresses": about.addresses,
        "conclusion": concluded.outcome.name(),
        "passes": match concluded.outcome.passes() {
            Passes::Yes => Some(true),
            Passes::No => Some(false),
            Passes::Unknown => None,
        },
        "certainty": concluded.certainty.name(),
        "where": span(concluded.span),
        "renumbered": span(concluded.renumbered),
        "why": sentence(found, concluded),
        "follows": advice.follows,
        "does_not_follow": advice.does_not_follow,
        "next": advice.next,
        "distance": found.distance,
        "hops": hops(&found.hops, true),
        "plain_hops": hops(&found.plain_hops, false),
        "join_hops": hops(&found.join, true),
        "data_hops": data.map(|it| hops(&it.hops, true)).unwrap_or_default(),
        "data_end": data.map(|it| data_end(&it.end)),
        "packets": found.packets,
        "complete": !found.has_too_few_packets,
        "took_ns": u64::try_from(about.took.as_nanos()).unwrap_or(u64::MAX),
    }});
    line.to_string() + "\n"
}

/// The word in JSON.
fn data_end(end: &DataEnd) -> &'static str {
    match end {
        DataEnd::Acknowledged => "acknowledged",
        DataEnd::WithoutDss => "without-dss",
        DataEnd::Silence => "silence",
        DataEnd::NotOpened(_) => "not-opened",
    }
}

/// `is_mptcp`: the packets had an MPTCP option.
fn hops(hops: &[Hop], is_mptcp: bool) -> Vec<Value> {
    let all = hops.iter().map(|hop| {
        let (answer, report) = match &hop.answer {
            None => ("silent", None),
            Some(Answer::Report(report)) => match report.what {
                What::TimeExceeded => ("quote", Some(report)),
                What::Unreachable(_) => ("unreachable", Some(report)),
            },
            Some(Answer::SynAck { .. }) => ("syn-ack", None),
            Some(Answer::Reset { .. }) => ("reset", None),
            Some(Answer::Echoed { .. }) => ("echo", None),
        };
        json!({
            "hop": hop.number,
            "result": answer,
            "from": report.map(|it| it.source.to_string()),
            "quoted_bytes": report.map(|it| it.bytes),
            "option_state": report.filter(|_| is_mptcp).map(|it| it.option.name()),
            "sequence_kept": report.and_then(|it| it.is_sequence_kept),
        })
    });
    all.collect()
}
