//! The documents of a package: they are for people who do not build, and their links work where
//! they are installed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::super::stage;

/// Name of the build tool, which the packages' readers do not have.
const BUILD_TOOL: &str = "cargo";

/// Checks all Markdown files below the directory where a package keeps its documents.
pub(super) fn check(folder: &Path) -> Result<()> {
    let files: BTreeSet<PathBuf> = stage::below(folder)?
        .into_iter()
        .filter_map(|file| Some(file.strip_prefix(folder).ok()?.to_owned()))
        .collect();
    if !files.contains(Path::new("README.md")) {
        bail!("the documents have no README.md");
    }
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| is_markdown(file)) {
        let text = read(folder, file)?;
        if let Some(fault) = fault_of_text(file, &text) {
            faults.push(format!("{}: {fault}", file.display()));
        }
        for link in links(&text) {
            if let Some(fault) = fault_of_link(folder, &files, file, &link)? {
                faults.push(format!("{}: {link}: {fault}", file.display()));
            }
        }
    }
    if !faults.is_empty() {
        bail!("documents of the package:\n{}", faults.join("\n"));
    }
    Ok(())
}

fn read(folder: &Path, file: &Path) -> Result<String> {
    fs::read_to_string(folder.join(file)).with_context(|| format!("cannot read {}", file.display()))
}

fn is_markdown(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == "md")
}

/// No document begins with how to build, and README.md says nothing of it.
fn fault_of_text(file: &Path, text: &str) -> Option<String> {
    if file == Path::new("README.md") {
        return text
            .contains(BUILD_TOOL)
            .then(|| format!("names {BUILD_TOOL}: its readers do not build"));
    }
    let first = text
        .split("\n\n")
        .find(|part| !part.trim().is_empty() && !part.starts_with('#'))?;
    first
        .contains(BUILD_TOOL)
        .then(|| format!("begins with {BUILD_TOOL}: its readers do not build"))
}

/// What is wrong with a link: it must lead to a file of the package, to a heading, or to the web.
fn fault_of_link(
    folder: &Path,
    files: &BTreeSet<PathBuf>,
    file: &Path,
    link: &str,
) -> Result<Option<&'static str>> {
    if link.starts_with("https://") {
        return Ok(None);
    }
    if link.contains(':') {
        return Ok(Some("not https"));
    }
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        file.to_owned()
    } else {
        match joined(file, path) {
            Some(target) => target,
            None => return Ok(Some("leads out of the package's documents")),
        }
    };
    if !files.contains(&target) {
        return Ok(Some("not in the package"));
    }
    if heading.is_empty() || !is_markdown(&target) {
        return Ok(None);
    }
    let has_heading = headings(&read(folder, &target)?).contains(heading);
    Ok((!has_heading).then_some("no such heading"))
}

/// The path that a link in `file` leads to, if that is below the root of the documents.
fn joined(file: &Path, link: &str) -> Option<PathBuf> {
    let mut target = file.parent()?.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => target.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !target.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(target)
}

/// Targets of inline links and images, and of link definitions, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let text = without_code(text);
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once("](") {
        let Some((link, after)) = after.split_once(')') else {
            break;
        };
        // A title may follow the target.
        found.extend(link.split_whitespace().next().map(str::to_owned));
        rest = after;
    }
    for line in text.lines().filter(|line| line.starts_with('[')) {
        if let Some((_, link)) = line.split_once("]: ") {
            found.extend(link.split_whitespace().next().map(str::to_owned));
        }
    }
    found
}

/// The text without fenced and indented code and without code spans.
fn without_code(text: &str) -> String {
    let mut prose = String::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code && !line.starts_with("    ") {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    // Every second part lies between two backticks.
    prose.split('`').step_by(2).collect()
}

/// Names of the headings, as links write them.
fn headings(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    text.lines()
        .filter(|line| {
            if line.starts_with("```") {
                is_code = !is_code;
            }
            !is_code && line.starts_with('#')
        })
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
                .map(|letter| if letter == ' ' { '-' } else { letter })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_of(files: &[(&str, &str)]) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        check(folder.path())
    }

    #[test]
    fn links_to_shipped_files_headings_and_the_web_are_right() {
        check_of(&[
            (
                "README.md",
                "# A\n\n[b](docs/b.md#two-words-mp_x) [c](https://example.org) ![d](docs/d.png)\n[A](#a)\n",
            ),
            (
                "docs/b.md",
                "# B\n\n[up](../README.md), `[code](nowhere)`\n\n```\n[code](x)\n# no\n```\n\n## Two words: `mp_x`\n",
            ),
            ("docs/d.png", ""),
        ])
        .unwrap();
    }

    #[test]
    fn each_dead_link_is_named() {
        let text = "# A\n\n[1](missing.md) [2](http://example.org) [3](../../etc/passwd) [4](#none)\n\n\
                    [5]: docs/5.md\n[6](/usr/share/doc/x)\n";
        let said = check_of(&[("README.md", text)]).unwrap_err().to_string();
        for line in [
            "missing.md: not in the package",
            "http://example.org: not https",
            "../../etc/passwd: leads out",
            "#none: no such heading",
            "docs/5.md: not in the package",
            "/usr/share/doc/x: leads out",
        ] {
            assert!(said.contains(line), "{said}");
        }
    }

    #[test]
    fn documents_are_for_people_who_do_not_build() {
        let check = |readme: &str, document: &str| {
            check_of(&[("README.md", readme), ("docs/a.md", document)])
                .map_err(|why| why.to_string())
        };
        check("# A\n", "# A\n\nText.\n\n`cargo xtask` writes it.\n").unwrap();
        assert!(
            check("# A\n\nText.\n\ncargo\n", "")
                .unwrap_err()
                .contains("README.md: names")
        );
        assert!(
            check("# A\n", "# B\n\n`cargo x` builds\n")
                .unwrap_err()
                .contains("begins with")
        );
        assert!(check_of(&[("docs/a.md", "")]).is_err());
    }

    /// A release has more checks, but takes minutes: a fault in a document shows here.
    #[test]
    fn the_documents_of_this_workspace_are_right() {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        stage::contents(root, folder.path()).unwrap();
        check(folder.path()).unwrap();
    }
}
