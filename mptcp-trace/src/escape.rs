//! Escapes untrusted text for a terminal.

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
