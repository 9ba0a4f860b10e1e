//! Generated parts of a page, delimited by two comment lines. The text around them is written by
//! hand.

use anyhow::{Result, anyhow};

/// The text before, between and after two markers.
pub(crate) fn split<'a>(page: &'a str, begin: &str, end: &str) -> Result<[&'a str; 3]> {
    page.split_once(begin)
        .and_then(|(before, rest)| {
            rest.split_once(end)
                .map(|(between, after)| [before, between, after])
        })
        .ok_or_else(|| anyhow!("there is no place for them: add a line {begin} and a line {end}"))
}

/// Replaces the text between two markers.
pub(crate) fn replaced(page: &str, begin: &str, end: &str, text: &str) -> Result<String> {
    let [before, _old, after] = split(page, begin, end)?;
    Ok(format!("{before}{begin}\n{text}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = "by hand\n<b>\nold\n<e>\nby hand too\n";
        let want = "by hand\n<b>\nnew\n<e>\nby hand too\n";
        assert_eq!(replaced(page, "<b>", "<e>", "new\n").unwrap(), want);
        assert!(replaced("no mark", "<b>", "<e>", "new\n").is_err());
    }
}
