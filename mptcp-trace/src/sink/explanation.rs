//! The explanation of a cause, as `explain` prints it and `top` shows it.

use std::fmt::Write as _;

use super::wrapped;
use crate::model::{Cause, Term};

/// What a cause means and what to do next: a paragraph of this width, and a line for each property.
#[must_use]
pub fn explanation(cause: &Cause, width: usize) -> String {
    let kind = cause.group.title();
    let meaning = wrapped(cause.meaning, width).join("\n");
    let mut text = format!("{}: {kind}\n\n{meaning}\n\n", cause.name);
    let mut line = |label: &str, value: &str| {
        // Writing to memory does not fail.
        let _infallible = writeln!(text, "{label:<10} {value}");
    };
    line("when", cause.when);
    line("decided by", cause.function);
    line("RFC 8684", &format!("section {}", cause.rfc_section));
    line("culprits", &culprits(cause));
    for (index, next) in cause.next_steps().enumerate() {
        line(if index == 0 { "next" } else { "" }, next);
    }
    text
}

/// What another word of a line means and what to do next.
#[must_use]
pub fn term(term: &Term, about: &str, width: usize) -> String {
    let meaning = wrapped(term.meaning, width).join("\n");
    format!(
        "{}: {about}\n\n{meaning}\n\n{:<10} {}\n",
        term.name, "next", term.next
    )
}

/// Names of the usual culprits, likeliest first.
#[must_use]
pub fn culprits(cause: &Cause) -> String {
    let names: Vec<&str> = cause
        .culprits
        .iter()
        .map(|culprit| culprit.name())
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::all_causes;

    #[test]
    fn paragraphs_are_broken_and_nothing_is_lost() {
        const WIDTH: usize = 60;
        for cause in all_causes() {
            let text = explanation(cause, WIDTH);
            let paragraph = text.split("\n\n").nth(1).unwrap_or_default();
            assert!(
                paragraph.lines().all(|line| line.len() <= WIDTH),
                "{paragraph}"
            );
            let words = |text: &str| {
                text.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(words(paragraph), words(cause.meaning));
            for part in cause.next_steps().chain([cause.function]) {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}
