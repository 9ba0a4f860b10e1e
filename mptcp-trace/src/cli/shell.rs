//! Command lines to be copied into a shell.

use crate::sink::escape;

/// A command line.
pub(super) fn line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(quoted).collect();
    words.join(" ")
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", escape(word).replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_with_spaces_or_control_characters_is_one_word_on_one_line() {
        let words = ["mptcp-trace", "a b", "it's", "x\ny", ""];
        assert_eq!(line(words), "mptcp-trace 'a b' 'it'\\''s' 'x\\ny' ''");
    }
}
