//! Whole comments: which end of a connection, what about it, and when.

use std::time::Duration;

use super::{gather::Traced, words::named};
use crate::model::{Side, short};

/// How each comment begins, so that a display filter finds them.
const PREFIX: &str = "mptcp-trace";
/// A finding within this time of its packet is not said to be later: the kernel takes that long.
const PROMPT: Duration = Duration::from_millis(1);

/// Who is spoken of: one end of a connection. A text that begins with its process names it once.
fn end(traced: &Traced, twins: usize, text: &str) -> String {
    let side = match traced.side {
        Some(Side::Active) => "client",
        Some(Side::Passive) => "server",
        None => "socket",
    };
    let process = match traced.process.as_deref() {
        Some(process) if text.starts_with(process) => String::new(),
        Some(process) => format!(", {process}"),
        None => ", process unknown".to_owned(),
    };
    let twin = match twins {
        0 | 1 => String::new(),
        _ => format!(
            " in network namespace {}, one of {twins} with these addresses",
            traced.netns
        ),
    };
    format!("{PREFIX}: {side} {}{process}{twin}: {text}", traced.local)
}

/// The comment on the first packet of a connection; `twins` is the number of connections with the
/// same addresses at the same time.
///
/// `of` is the connection of a further path.
pub(super) fn summary(traced: &Traced, twins: usize, of: Option<&Traced>) -> String {
    if let Some(join) = &traced.join {
        let of = of.map_or_else(String::new, |of| {
            format!(" of connection {} -> {}", of.local, of.remote)
        });
        let mut words = format!("further path (MP_JOIN){of}");
        if let Some(trouble) = &join.trouble {
            words.push_str("; it ");
            words.push_str(trouble);
        }
        return end(traced, twins, &words);
    }
    if let Some(cause) = &traced.not_opened {
        let words = format!("connection that could not be opened: {cause}");
        return end(traced, twins, &words);
    }
    let state = traced.state;
    let mut words = match (state.has_fallen, state.is_mptcp) {
        (true, _) => format!(
            "connection that fell back to TCP: {}",
            named(traced.cause.as_deref(), traced.known)
        ),
        (false, true) => "MPTCP connection".to_owned(),
        (false, false) => "plain TCP connection".to_owned(),
    };
    let verdicts = traced.verdicts.iter().map(|(verdict, count)| match count {
        1 => verdict.name().to_owned(),
        more => format!("{} ({more})", verdict.name()),
    });
    let verdicts: Vec<String> = verdicts.collect();
    if !verdicts.is_empty() {
        words.push_str("; verdicts: ");
        words.push_str(&verdicts.join(", "));
    }
    end(traced, twins, &words)
}

/// Where a finding is relative to the packet that it is put on.
pub(super) enum Gap {
    /// The packet is the last one before it.
    After(Duration),
    /// The packet is the first one, and later.
    Before(Duration),
}

/// The comment for a note.
pub(super) fn comment(traced: &Traced, twins: usize, text: &str, gap: &Gap) -> String {
    let gap = match gap {
        Gap::After(gap) if *gap < PROMPT => String::new(),
        Gap::After(gap) => format!(" [{} after this packet]", short(*gap)),
        Gap::Before(gap) => format!(" [{} before this packet]", short(*gap)),
    };
    end(traced, twins, &format!("{text}{gap}"))
}

/// The last comment of a packet that has too many.
pub(super) fn more(count: usize) -> String {
    let noun = if count == 1 { "finding" } else { "findings" };
    format!("{PREFIX}: {count} more {noun} here; mptcp-trace replay prints all of them")
}
