//! Formats numbers, times, outcomes and external text.

use std::time::Duration;

use crate::{ledger::Awareness, sink::escape};

/// Longest external name that is shown, characters.
const NAME_MAX: usize = 80;

/// Escapes external text: invisible and bidirectional characters are spelled out, and long text is
/// cut.
pub(super) fn shown(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == chars_max {
            out.push('\u{2026}');
            break;
        }
        match character {
            // Terminals ignore these, but browsers obey them.
            '\u{61c}'
            | '\u{ad}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200d}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{2060}'..='\u{2064}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}' => {
                out.extend(character.escape_unicode());
            }
            other => out.push_str(&escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

pub(super) fn name(text: &str) -> String {
    shown(text, NAME_MAX)
}

/// A time with at least four significant digits, where the clock has them; it breaks over no line.
pub(super) fn fine(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    let micros = nanos / 1000;
    match (seconds, micros) {
        (0, 0) => format!("{nanos}\u{a0}ns"),
        (0, ..1000) => format!("{micros}\u{a0}µs"),
        (0, _) => format!("{}.{:03}\u{a0}ms", micros / 1000, micros % 1000),
        (seconds, _) => format!("{seconds}.{:03}\u{a0}s", micros / 1000),
    }
}

/// A count with its noun.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{} {noun}", digits(number))
}

/// A number in groups of three digits, with non-breaking spaces.
pub(super) fn digits(number: u64) -> String {
    let plain = number.to_string();
    let mut out = String::new();
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

pub(super) fn percent(part: u64, whole: u64) -> String {
    let share = share(part, whole) * 100.0;
    // A non-zero share never shows as 0 %, and a partial one never as 100 %.
    match share {
        _ if whole == 0 => "-".to_owned(),
        ..0.5 if part > 0 => "<1%".to_owned(),
        99.5.. if part < whole => ">99%".to_owned(),
        _ => format!("{share:.0}%"),
    }
}

/// A share from 0 to 1.
#[expect(
    clippy::cast_precision_loss,
    reason = "a share of more than 2^52 is right to 15 digits"
)]
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

/// What became of a connection: name, CSS class and meaning.
pub(super) fn outcome(awareness: Awareness) -> (&'static str, &'static str, &'static str) {
    match awareness {
        Awareness::Contradicted => (
            "contradicted",
            "bad",
            "told MPTCP although it had fallen back: a bug",
        ),
        Awareness::Misled => ("misled", "bad", "asked in a way that always reports MPTCP"),
        Awareness::Stale => (
            "stale",
            "bad",
            "told MPTCP, fell back later, not asked again",
        ),
        Awareness::TooEarly => (
            "too-early",
            "bad",
            "told MPTCP before the handshake could decide, not asked again",
        ),
        Awareness::NeverAsked => (
            "never-asked",
            "warn",
            "fell back, and the application never asked",
        ),
        Awareness::Unsupported => (
            "unsupported",
            "warn",
            "fell back, and this kernel does not support the query",
        ),
        Awareness::Unexplained => ("unexplained", "warn", "told TCP, and no fallback was seen"),
        Awareness::Open => (
            "no verdict",
            "dim",
            "fell back; unknown whether the application is aware",
        ),
        Awareness::Explained => ("explained", "good", "told TCP, and the fallback was seen"),
        Awareness::Healthy => ("mptcp", "good", "did not fall back while traced"),
        Awareness::Plain => ("plain-tcp", "dim", "never was MPTCP"),
    }
}
