//! The licences of everything that is linked into the program: Debian's copyright file, and the
//! expression in the .rpm. The bill of materials names the parts; copyright notices are read from
//! the crates' own licence files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::stage;

/// Name and version of a crate.
pub(super) type Crate = (String, String);
/// The copyright notices of each crate from a registry.
pub(super) type Notices = BTreeMap<Crate, Vec<String>>;

/// Beginnings of the names of files with copyright notices.
const NOTICE_FILES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];
/// Licences that Debian's format calls by another name than SPDX.
const DEBIAN_NAMES: [(&str, &str); 1] = [("MIT", "Expat")];

/// The copyright notices in a crate's folder; without any, its authors.
pub(super) fn notices(folder: &Path, name: &str, authors: &[String]) -> Result<Vec<String>> {
    let mut notices = BTreeSet::new();
    for file in stage::files_in(folder)? {
        let title = file.file_name().unwrap_or_default().to_string_lossy();
        let title = title.to_uppercase();
        if file.is_file() && NOTICE_FILES.iter().any(|start| title.starts_with(start)) {
            let bytes =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            notices.extend(notices_in(&String::from_utf8_lossy(&bytes)));
        }
    }
    if notices.is_empty() && !authors.is_empty() {
        return Ok(authors.to_vec());
    }
    if notices.is_empty() {
        return Ok(vec![format!("the authors of {name}")]);
    }
    Ok(notices.into_iter().collect())
}

/// Lines such as `Copyright (c) 2024 A Name`, without the first word. Lines of a licence's own text
/// about copyright, and templates to fill in, are none.
fn notices_in(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Copyright "))
        .map(str::trim)
        .filter(|notice| {
            let is_name = notice.starts_with(|first: char| {
                first == '(' || first == '©' || first.is_ascii_digit() || first.is_uppercase()
            });
            let names = notice.replace("(c)", "").replace("(C)", "");
            is_name && names.contains(char::is_alphabetic) && *notice != "License."
        })
        .map(str::to_owned)
        .collect()
}

/// Debian's copyright file: the part written by hand, and a paragraph for each crate.
///
/// Where a crate offers a choice, it is distributed under those licences whose text `by_hand` has.
/// Fails if that is none.
pub(super) fn for_debian(by_hand: &str, bill: &Value, notices: &Notices) -> Result<String> {
    let mut text = format!("{}\n", by_hand.trim_end());
    for part in parts(bill)? {
        let Part { name, version, .. } = &part;
        let Some(notices) = notices.get(&(name.clone(), version.clone())) else {
            // The workspace's own crates are under `Files: *`.
            let is_own = part.purl.starts_with("pkg:cargo/");
            if !is_own
                && !by_hand
                    .lines()
                    .any(|line| line == format!("Files: {name}/*"))
            {
                bail!("contrib/debian/copyright has no paragraph \"Files: {name}/*\"");
            }
            continue;
        };
        let licence = chosen(&part.licence, by_hand).with_context(|| {
            format!("cannot name the licence of {name} in Debian's copyright file")
        })?;
        text.push_str(&format!(
            "\nFiles: crates/{name}-{version}/*\nCopyright: {}\nLicense: {licence}\n",
            notices.join("\n ")
        ));
    }
    Ok(text)
}

/// The licence of the whole program as an SPDX expression, as Fedora asks for it.
pub(super) fn for_rpm(bill: &Value) -> Result<String> {
    let own = bill["metadata"]["component"]["licenses"][0]["expression"]
        .as_str()
        .ok_or_else(|| anyhow!("the bill of materials does not name the program's licence"))?;
    let mut terms = BTreeSet::new();
    for part in parts(bill)? {
        terms.extend(conjuncts(&part.licence).iter().map(|term| sorted(term)));
    }
    let first = sorted(own);
    terms.remove(&first);
    let terms: Vec<String> = [first]
        .into_iter()
        .chain(terms)
        .map(|term| {
            if term.contains(" OR ") {
                format!("({term})")
            } else {
                term
            }
        })
        .collect();
    Ok(terms.join(" AND "))
}

/// A component of the bill of materials.
struct Part {
    name: String,
    version: String,
    purl: String,
    licence: String,
}

fn parts(bill: &Value) -> Result<Vec<Part>> {
    let components = bill["components"].as_array().into_iter().flatten();
    components
        .map(|component| {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let name = text(&component["name"]).unwrap_or_default();
            let licence = text(&component["licenses"][0]["expression"])
                .ok_or_else(|| anyhow!("{name} is linked into the program and names no licence"))?;
            Ok(Part {
                version: text(&component["version"]).unwrap_or_default(),
                purl: text(&component["purl"]).unwrap_or_default(),
                name,
                licence,
            })
        })
        .collect()
}

/// The terms of an expression that all hold: `(A OR B) AND C` has two.
fn conjuncts(expression: &str) -> Vec<String> {
    expression
        .split(" AND ")
        .map(|term| term.trim_matches(['(', ')']).to_owned())
        .collect()
}

/// The alternatives of a term in one order, so that equal terms are equal text.
fn sorted(term: &str) -> String {
    let mut alternatives: Vec<&str> = term.split(" OR ").collect();
    // MIT OR Apache-2.0, as most crates write it. rpmlint cannot read an exception beside a bracket.
    alternatives.sort_by_key(|name| (*name != "MIT", !name.contains(" WITH "), *name));
    alternatives.join(" OR ")
}

/// An SPDX expression in Debian's words, without the alternatives that `by_hand` has no text for.
fn chosen(expression: &str, by_hand: &str) -> Result<String> {
    let has_text = |name: &str| {
        let paragraph = format!("\n\nLicense: {name}\n");
        by_hand.contains(&paragraph)
    };
    let terms = conjuncts(expression);
    let terms: Result<Vec<String>> = terms
        .iter()
        .map(|term| {
            let alternatives: Vec<&str> = term
                .split(" OR ")
                .map(|name| {
                    let known = DEBIAN_NAMES.iter().find(|(spdx, _)| *spdx == name);
                    known.map_or(name, |(_, debian)| *debian)
                })
                .filter(|name| has_text(name))
                .collect();
            if alternatives.is_empty() {
                bail!(
                    "contrib/debian/copyright has no paragraph with the text of {term}; add one, as those in it"
                );
            }
            Ok(alternatives.join(" or "))
        })
        .collect();
    // A comma binds weaker than `or`.
    Ok(terms?.join(", and "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BY_HAND: &str = "Format: x\n\nFiles: *\nLicense: Expat or Apache-2.0\n\nFiles: glibc/*\n\
                           License: LGPL-2.1+\n\nLicense: Expat\n text\n\nLicense: Apache-2.0\n text\n\n\
                           License: Unicode-3.0\n text\n";

    fn bill(licence: &str) -> Value {
        let part = |name: &str, kind: &str, licence: &str| {
            json!({ "name": name, "version": "1.2.3", "purl": format!("pkg:{kind}/{name}@1.2.3"),
                "licenses": [{ "expression": licence }] })
        };
        json!({
            "metadata": { "component": { "licenses": [{ "expression": "MIT OR Apache-2.0" }] } },
            "components": [
                part("mptcp-trace-common", "cargo", "MIT OR Apache-2.0"),
                part("used", "cargo", licence),
                part("glibc", "generic", "LGPL-2.1-or-later"),
            ],
        })
    }

    fn of_used() -> Notices {
        let key = ("used".to_owned(), "1.2.3".to_owned());
        BTreeMap::from([(key, vec!["2020 One".to_owned(), "2021 Two".to_owned()])])
    }

    #[test]
    fn each_crate_has_a_paragraph_under_licences_whose_text_is_there() {
        let check = |licence: &str, want: &str| {
            let text = for_debian(BY_HAND, &bill(licence), &of_used()).unwrap();
            let paragraph = format!(
                "\n\nFiles: crates/used-1.2.3/*\nCopyright: 2020 One\n 2021 Two\nLicense: {want}\n"
            );
            assert!(text.ends_with(&paragraph), "{text}");
            assert!(!text.contains("mptcp-trace-common"), "{text}");
        };
        check("MIT", "Expat");
        check("Unlicense OR MIT", "Expat");
        check(
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "Apache-2.0 or Expat",
        );
        check(
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Expat or Apache-2.0, and Unicode-3.0",
        );
    }

    #[test]
    fn a_licence_without_text_and_a_library_without_paragraph_are_refused() {
        let error = for_debian(BY_HAND, &bill("Zlib"), &of_used()).unwrap_err();
        assert!(
            format!("{error:#}").contains("the text of Zlib"),
            "{error:#}"
        );
        let without = BY_HAND.replace("glibc", "musl");
        let error = for_debian(&without, &bill("MIT"), &of_used()).unwrap_err();
        assert!(error.to_string().contains("Files: glibc/*"), "{error}");
    }

    #[test]
    fn the_rpm_names_each_term_once() {
        assert_eq!(
            for_rpm(&bill("Apache-2.0 OR MIT")).unwrap(),
            "(MIT OR Apache-2.0) AND LGPL-2.1-or-later"
        );
        assert_eq!(
            for_rpm(&bill("(MIT OR Apache-2.0) AND Unicode-3.0")).unwrap(),
            "(MIT OR Apache-2.0) AND LGPL-2.1-or-later AND Unicode-3.0"
        );
        assert_eq!(
            for_rpm(&bill("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT")).unwrap(),
            "(MIT OR Apache-2.0) AND LGPL-2.1-or-later AND \
             (MIT OR Apache-2.0 WITH LLVM-exception OR Apache-2.0)"
        );
        assert!(for_rpm(&json!({ "components": [{ "name": "bare" }] })).is_err());
    }

    #[test]
    fn notices_are_lines_that_name_someone() {
        let text = "Copyright (c) 2014 A Name\n  Copyright © 2020 B\nCopyright (c) 2015\n\
                    Copyright [yyyy] [name of copyright owner]\nCopyright notice of a text\n\
                    2. Grant of Copyright License. Subject to\ncopyright license to reproduce\n";
        let text = text.replace("Copyright notice", "copyright notice");
        assert_eq!(notices_in(&text), ["(c) 2014 A Name", "© 2020 B"]);
        let folder = tempfile::tempdir().unwrap();
        let of = |authors: &[String]| notices(folder.path(), "used", authors).unwrap();
        assert_eq!(of(&[]), ["the authors of used"]);
        assert_eq!(of(&["C".to_owned()]), ["C"]);
        fs::write(folder.path().join("LICENSE-MIT"), &text).unwrap();
        assert_eq!(of(&["C".to_owned()]), ["(c) 2014 A Name", "© 2020 B"]);
    }
}
