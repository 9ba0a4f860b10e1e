//! Formats numbers, times and external text for the page.

use std::time::Duration;

use crate::{model::short, sink::escape};

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

/// A time relative to another one.
pub(super) fn after(duration: Duration) -> String {
    format!("+{}", short(duration).replace("us", "µs"))
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
