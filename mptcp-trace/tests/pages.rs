//! Every verb has a complete man page whose examples parse.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../examples/pages/man.rs"]
mod man;

use clap::{CommandFactory as _, Parser as _};
use man::Page;
use mptcp_trace::cli::Cli;

/// Sections that are written by hand, in order.
const BY_HAND: [&str; 4] = ["EXIT STATUS", "FILES", "EXAMPLES", "SEE ALSO"];

fn pages() -> Vec<Page> {
    man::pages(Cli::command(), "").unwrap()
}

/// The text of a page without roff markup.
fn text(page: &Page) -> String {
    String::from_utf8(page.roff.clone())
        .unwrap()
        .replace("\\-", "-")
        .replace("\\e", "\\")
        .replace("\\fB", "")
        .replace("\\fI", "")
        .replace("\\fR", "")
}

fn name(page: &Page) -> &str {
    page.file.strip_suffix(".1").unwrap()
}

/// Splits a command line as a shell does, up to a pipe.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut is_quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => is_quoted = !is_quoted,
            '|' if !is_quoted => break,
            ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
            _ => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The lines between `.EX` and `.EE`.
fn examples(page: &Page) -> Vec<String> {
    let mut is_example = false;
    let mut lines = Vec::new();
    for line in text(page).lines() {
        match line {
            ".EX" => is_example = true,
            ".EE" => is_example = false,
            line if is_example => lines.push(line.to_owned()),
            _ => {}
        }
    }
    lines
}

#[test]
fn every_verb_has_a_page_with_all_that_is_looked_for() {
    let pages = pages();
    let verbs: Vec<&str> = pages
        .iter()
        .filter_map(|page| page.verb.as_deref())
        .collect();
    assert!(
        verbs.contains(&"doctor") && verbs.contains(&"live"),
        "{verbs:?}"
    );
    for page in &pages {
        let text = text(page);
        let mut before = text.find(".SH OPTIONS").unwrap();
        for section in BY_HAND {
            let heading = text
                .lines()
                .find(|line| line.starts_with(".SH") && line.contains(section))
                .unwrap_or_else(|| panic!("{} has no section {section}", page.file));
            let at = text.find(heading).unwrap();
            assert!(before < at, "{}: {section} stands too early", page.file);
            before = at;
        }
    }
}

#[test]
fn the_examples_of_a_page_are_of_its_verb_and_can_be_typed() {
    for page in pages() {
        let examples = examples(&page);
        for line in &examples {
            let words = words(line);
            assert_eq!(words[0], man::PROGRAM, "{}: {line}", page.file);
            if let Err(why) = Cli::try_parse_from(&words) {
                panic!("{}: {line}: {why}", page.file);
            }
        }
        let verb = page.verb.as_deref();
        let is_of_verb = |line: &&String| verb.is_none_or(|verb| words(line)[1] == verb);
        assert!(
            examples.iter().any(|line| is_of_verb(&line)),
            "{}",
            page.file
        );
    }
}

#[test]
fn pages_point_to_pages_that_exist_and_every_verb_is_found_from_the_first() {
    let pages = pages();
    let names: Vec<&str> = pages.iter().map(name).collect();
    for page in &pages {
        let text = text(page);
        let pointers = text
            .split(|letter: char| letter.is_whitespace() || letter == ',')
            .filter_map(|word| word.strip_suffix("(1)"))
            .filter(|name| name.starts_with(man::PROGRAM));
        for pointer in pointers {
            assert!(names.contains(&pointer), "{}: {pointer}", page.file);
            assert_ne!(pointer, name(page), "a page that points to itself");
        }
    }
    let first = text(&pages[0]);
    for name in &names[1..] {
        assert!(first.contains(&format!("{name}(1)")), "{name}");
    }
}
