//! Escapes untrusted text for a terminal.

use std::borrow::Cow;

/// Shows control characters (escape sequences, line breaks) instead of passing them on.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if drives_a_terminal(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// Without the number that the standard library adds to the message of a system error: the message
/// says it in words.
#[must_use]
pub fn without_error_numbers(text: &str) -> Cow<'_, str> {
    const BEFORE: &str = " (os error ";
    if !text.contains(BEFORE) {
        return text.into();
    }
    let mut parts = text.split(BEFORE);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        match part[digits..].strip_prefix(')') {
            Some(rest) if digits > 0 => plain.push_str(rest),
            Some(_) | None => plain.extend([BEFORE, part]),
        }
    }
    plain.into()
}

/// Characters that a terminal interprets instead of showing.
pub(crate) fn drives_a_terminal(character: char) -> bool {
    character.is_control() || is_bidi_control(character) || ends_a_line(character)
}

/// Characters that reorder the rest of the line.
fn is_bidi_control(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// Unicode's own line and paragraph separators: some viewers begin a new line there.
fn ends_a_line(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_has_no_number() {
        for (text, plain) in [
            ("x: No such file (os error 2)", "x: No such file"),
            ("a (os error 13); b (os error 1)", "a; b"),
            ("a (os error ) b", "a (os error ) b"),
            ("a (os error 2", "a (os error 2"),
            ("żółw (os error 2)ż", "żółwż"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without_error_numbers(text), plain);
        }
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        for (name, shown) in [
            ("curl", "curl"),
            ("a b", "a b"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("two\nlines", "two\\nlines"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("\u{61c}evil", "\\u{61c}evil"),
            ("two\u{2028}lines\u{2029}", "two\\u{2028}lines\\u{2029}"),
            ("żółw", "żółw"),
            ("\u{9b}1m", "\\u{9b}1m"),
        ] {
            assert_eq!(escape(name), shown);
        }
    }
}
