//! The directories of a release, from which the tarball and the packages are built.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

use super::{Release, texts};
use crate::places::Places;

/// Source path in the workspace, and destination in the stage.
const FILES: [(&str, &str); 9] = [
    // The one in the workspace is for people who build.
    ("contrib/package/README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("contrib/licences/LGPL-2.1", "LGPL-2.1"),
    (
        "contrib/systemd/mptcp-trace.service",
        "contrib/systemd/mptcp-trace.service",
    ),
    ("contrib/serve.toml", "contrib/serve.toml"),
    ("contrib/docker/Dockerfile", "contrib/docker/Dockerfile"),
    (
        "contrib/kubernetes/daemonset.yaml",
        "contrib/kubernetes/daemonset.yaml",
    ),
];
/// Directories of the workspace that have the same name in the stage, and the endings of the files
/// that are copied.
const FOLDERS: [(&str, &[&str]); 5] = [
    ("docs", &["md", "png", "svg"]),
    ("captures/sessions", &["mpt", "pcap"]),
    ("contrib/grafana", &["json"]),
    ("contrib/pcp", &["url"]),
    ("contrib/prometheus", &["rules.yml", "rules.test.yml"]),
];

/// Fills the stage: program, pages, completions, documents, and the unit and container files.
pub(super) fn fill(places: &Places, release: &Release) -> Result<()> {
    let stage = &release.stage;
    copy(&release.program, &stage.join("bin/mptcp-trace"))?;
    copy(&release.sbom(), &stage.join("sbom.cdx.json"))?;
    contents(&places.root, stage)?;
    texts::pages(places, release)?;
    texts::completions(release)?;
    // Debian and Fedora both require compressed copies; the tarball also has the readable ones.
    let compressed = stage.join("compressed");
    for page in files_in(&stage.join("man"))? {
        let name = page.file_name().unwrap_or_default().to_string_lossy();
        compress(&page, &compressed.join(format!("man/{name}.gz")))?;
    }
    compress(
        &stage.join("CHANGELOG.md"),
        &compressed.join("CHANGELOG.md.gz"),
    )
}

/// Copies what the workspace has ready: documents, and files for services, containers and others.
pub(super) fn contents(root: &Path, stage: &Path) -> Result<()> {
    for (from, to) in FILES {
        copy(&root.join(from), &stage.join(to))?;
    }
    for (folder, endings) in FOLDERS {
        for file in below(&root.join(folder))? {
            let name = file.display().to_string();
            if endings
                .iter()
                .any(|ending| name.ends_with(&format!(".{ending}")))
            {
                let to = file.strip_prefix(root).context("a file elsewhere")?;
                copy(&file, &stage.join(to))?;
            }
        }
    }
    Ok(())
}

/// All files below a directory, sorted by name.
pub(super) fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in files_in(&folder)? {
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The files of a directory, sorted by name.
pub(super) fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    Ok(files)
}

/// Copies a file, and creates the destination directory.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Compresses a file as `gzip -9n` does: without name and time in the header, so that equal input
/// gives equal bytes.
pub(super) fn compress(file: &Path, to: &Path) -> Result<()> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let write = || -> std::io::Result<()> {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut gz = GzBuilder::new().write(fs::File::create(to)?, Compression::best());
        gz.write_all(&text)?;
        gz.finish()?.flush()
    };
    write().with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_file_has_neither_name_nor_time() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (
            folder.path().join("page.1"),
            folder.path().join("gz/page.1.gz"),
        );
        fs::write(&from, "text").unwrap();
        compress(&from, &to).unwrap();
        let bytes = fs::read(to).unwrap();
        // Flags and time; extra flags say that it is compressed as far as possible.
        assert_eq!(bytes[3..8], [0; 5]);
        assert_eq!(bytes[8], 2);
    }

    #[test]
    fn files_of_all_depths_are_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "text").unwrap();
        copy(&folder.path().join("a"), &folder.path().join("b/c/d")).unwrap();
        let found = below(folder.path()).unwrap();
        assert_eq!(
            found,
            [folder.path().join("a"), folder.path().join("b/c/d")]
        );
    }
}
