//! JSON that is safe on a terminal: control sequences are escaped, although JSON does not require
//! it.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::escape::drives_a_terminal;

/// Compact format with more escapes than JSON requires; parsers read the same strings.
struct Fit;

impl Formatter for Fit {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, found)) = rest.char_indices().find(|(_, it)| drives_a_terminal(*it)) {
            let (before, from) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            // JSON writes a character beyond U+FFFF as two.
            for unit in found.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &from[found.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Serialises plain data into memory, which cannot fail.
pub(super) fn write(out: &mut Vec<u8>, data: &(impl Serialize + ?Sized)) {
    let _infallible = data.serialize(&mut Serializer::with_formatter(out, Fit));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_is_escaped_and_reads_the_same() {
        for (text, written) in [
            ("plain", r#""plain""#),
            ("żółw \"x\"\n", r#""żółw \"x\"\n""#),
            ("a\u{7f}b", r#""a\u007fb""#),
            ("\u{9b}31m", r#""\u009b31m""#),
            ("\u{202e}\u{202e}evil", r#""\u202e\u202eevil""#),
            ("a\u{200b}b", r#""a\u200bb""#),
            ("a\u{e0041}b", r#""a\udb40\udc41b""#),
            ("\u{1b}[", r#""\u001b[""#),
        ] {
            let mut out = Vec::new();
            write(&mut out, text);
            assert_eq!(String::from_utf8_lossy(&out), written);
            let read: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(read, text);
        }
    }
}
