//! Command lines to be copied into a shell.

use std::path::Path;

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

/// The name of a file as a shell and a program take it: a leading dash would make it an option.
pub(super) fn file(path: &Path) -> String {
    let name = path.to_string_lossy();
    match name.starts_with('-') {
        true => quoted(&format!("./{name}")),
        false => quoted(&name),
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

    #[test]
    fn a_file_is_never_an_option() {
        for (name, shown) in [
            ("run.mpt", "run.mpt"),
            ("/tmp/a b.mpt", "'/tmp/a b.mpt'"),
            ("-x", "./-x"),
            ("-x y", "'./-x y'"),
        ] {
            assert_eq!(file(Path::new(name)), shown);
        }
    }
}
