//! Escapes untrusted text for a terminal.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar as _;

/// Shows control characters (escape sequences, line breaks) and invisible ones instead of passing
/// them on. So is a mark at the begin, which would combine with the character before the text.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        if drives_a_terminal(character) || at == 0 && character.width() == Some(0) {
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

/// Characters that a terminal interprets instead of showing, or that are invisible: with one of
/// them, a name would look like another one.
pub(crate) fn drives_a_terminal(character: char) -> bool {
    character.is_control() || is_format(character) || is_ignorable(character)
}

/// Format characters (general category Cf of Unicode 16), some of which reorder the rest of the
/// line, and its line and paragraph separators (Zl, Zp), where some viewers begin a new line.
fn is_format(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0001}'
            | '\u{e0020}'..='\u{e007f}'
    )
}

/// Other characters that are not displayed (`Default_Ignorable_Code_Point`): fillers, variation
/// selectors, and code points that are reserved for such ones.
fn is_ignorable(character: char) -> bool {
    matches!(
        character,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2065}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{e0000}'..='\u{e0fff}'
    )
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
            ("cu\u{200b}rl\u{200d}", "cu\\u{200b}rl\\u{200d}"),
            ("\u{feff}curl\u{ad}", "\\u{feff}curl\\u{ad}"),
            ("curl\u{fe0f}\u{e0041}", "curl\\u{fe0f}\\u{e0041}"),
            ("\u{3164}", "\\u{3164}"),
            // A mark belongs to the letter before it.
            ("\u{301}e\u{301}", "\\u{301}e\u{301}"),
            ("żółw", "żółw"),
            ("\u{9b}1m", "\\u{9b}1m"),
        ] {
            assert_eq!(escape(name), shown);
        }
    }
}
