//! The changelogs of the packages, written from CHANGELOG.md in the formats of dpkg and rpm.

use std::fs;

use anyhow::{Context as _, Result, anyhow, bail};
use jiff::Timestamp;

use super::{MAINTAINER, Release};
use crate::places::Places;

/// Longest line that lintian and rpmlint accept.
const COLUMNS_MAX: usize = 78;

/// A version, the time of its release and what changed in it.
struct Entry {
    version: String,
    at: Timestamp,
    lines: Vec<Line>,
}

enum Line {
    /// A heading, such as "Fixed".
    Group(String),
    /// A change: one paragraph without line breaks.
    Change(String),
}

/// The changelog in the format of dpkg.
pub(super) fn for_dpkg(places: &Places, release: &Release) -> Result<String> {
    Ok(read(places, release)?.iter().map(Entry::for_dpkg).collect())
}

/// The changelog in the format of rpm, as part of a spec file.
pub(super) fn for_rpm(places: &Places, release: &Release) -> Result<String> {
    Ok(read(places, release)?.iter().map(Entry::for_rpm).collect())
}

fn read(places: &Places, release: &Release) -> Result<Vec<Entry>> {
    let text =
        fs::read_to_string(places.root.join("CHANGELOG.md")).context("cannot read CHANGELOG.md")?;
    let at = Timestamp::from_second(release.epoch).context("SOURCE_DATE_EPOCH is no time")?;
    parse(&text, &release.version, at)
}

/// Reads the sections: `## Unreleased` is the version that is being built, others name version and
/// day.
fn parse(text: &str, version: &str, at: Timestamp) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            let (version, at) = match title.trim() {
                "Unreleased" => (version.to_owned(), at),
                title => released(title)?,
            };
            entries.push(Entry {
                version,
                at,
                lines: Vec::new(),
            });
            continue;
        }
        // The title of the file is not part of an entry.
        let Some(entry) = entries.last_mut() else {
            continue;
        };
        if let Some(group) = line.strip_prefix("### ") {
            entry.lines.push(Line::Group(group.trim().to_owned()));
        } else if let Some(change) = line.strip_prefix("- ") {
            entry.lines.push(Line::Change(change.trim().to_owned()));
        } else if !line.trim().is_empty() {
            let Some(Line::Change(change)) = entry.lines.last_mut() else {
                bail!("CHANGELOG.md: {line:?} is neither a heading nor part of a change");
            };
            change.push(' ');
            change.push_str(line.trim());
        }
    }
    if entries.is_empty() {
        bail!("CHANGELOG.md has no section; write one: ## Unreleased");
    }
    Ok(entries)
}

/// Version and day of a heading.
fn released(title: &str) -> Result<(String, Timestamp)> {
    let read = || {
        let (version, day) = title.split_once(" - ")?;
        let at = format!("{}T00:00:00Z", day.trim()).parse().ok()?;
        Some((version.trim().to_owned(), at))
    };
    read().ok_or_else(|| {
        anyhow!("CHANGELOG.md: cannot read the heading {title:?}; write: ## 1.2.3 - 2026-11-30")
    })
}

impl Entry {
    fn for_dpkg(&self) -> String {
        let mut text = format!(
            "mptcp-trace ({}-1) unstable; urgency=medium\n",
            self.version
        );
        for line in &self.lines {
            match line {
                Line::Group(group) => text.push_str(&format!("\n  [ {group} ]\n")),
                Line::Change(change) => text.push_str(&wrapped(change, "  * ", "    ")),
            }
        }
        let at = self.at.strftime("%a, %d %b %Y %H:%M:%S +0000");
        text.push_str(&format!("\n -- {MAINTAINER}  {at}\n\n"));
        text
    }

    fn for_rpm(&self) -> String {
        let at = self.at.strftime("%a %b %d %Y");
        let mut text = format!("* {at} {MAINTAINER} - {}-1\n", self.version);
        for line in &self.lines {
            let (words, first, next) = match line {
                Line::Group(group) => (format!("{group}:"), "- ", "  "),
                Line::Change(change) => (change.clone(), "  - ", "    "),
            };
            text.push_str(&wrapped(&words, first, next));
        }
        text.push('\n');
        // rpm expands macros in changelogs too.
        text.replace('%', "%%")
    }
}

/// Breaks a paragraph into lines; `first` and `next` are their indentations.
fn wrapped(paragraph: &str, first: &str, next: &str) -> String {
    let mut text = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in paragraph.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS_MAX {
            text.push_str(&line);
            text.push('\n');
            line = next.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    text.push_str(&line);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Changelog\n\n## Unreleased\n\n### Added\n\n- `--pid` takes 50 % of\n  \
                        two lines.\n- Another.\n\n## 0.0.9 - 2026-01-02\n\n- First.\n";

    fn entries() -> Vec<Entry> {
        parse(
            TEXT,
            "0.1.0",
            Timestamp::from_second(1_795_731_504).unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn dpkg_gets_every_version_with_its_own_date() {
        let text: String = entries().iter().map(Entry::for_dpkg).collect();
        assert_eq!(
            text,
            format!(
                "mptcp-trace (0.1.0-1) unstable; urgency=medium\n\n  [ Added ]\n  \
                 * `--pid` takes 50 % of two lines.\n  * Another.\n\n \
                 -- {MAINTAINER}  Thu, 26 Nov 2026 22:18:24 +0000\n\n\
                 mptcp-trace (0.0.9-1) unstable; urgency=medium\n  * First.\n\n \
                 -- {MAINTAINER}  Fri, 02 Jan 2026 00:00:00 +0000\n\n"
            )
        );
    }

    #[test]
    fn rpm_expands_no_macro_in_a_change() {
        let text = entries()[0].for_rpm();
        assert_eq!(
            text,
            format!(
                "* Thu Nov 26 2026 {MAINTAINER} - 0.1.0-1\n- Added:\n  \
                 - `--pid` takes 50 %% of two lines.\n  - Another.\n\n"
            )
        );
    }

    #[test]
    fn long_changes_are_broken_and_strange_headings_are_refused() {
        let change = "word ".repeat(40);
        for line in wrapped(&change, "  * ", "    ").lines() {
            assert!(
                line.len() <= COLUMNS_MAX && line.starts_with("  "),
                "{line}"
            );
        }
        assert!(parse("## soon\n", "1", Timestamp::UNIX_EPOCH).is_err());
        assert!(parse("# Changelog\n", "1", Timestamp::UNIX_EPOCH).is_err());
        assert!(parse("## Unreleased\n\nprose\n", "1", Timestamp::UNIX_EPOCH).is_err());
    }
}
