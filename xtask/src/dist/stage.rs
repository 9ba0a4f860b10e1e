//! The directories of a release, from which the tarball and the packages are built.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

use super::{Release, build};
use crate::places::Places;

/// Source path in the workspace, and destination in the stage.
const FILES: [(&str, &str); 19] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("docs/install.md", "docs/install.md"),
    ("docs/output.md", "docs/output.md"),
    ("docs/report.md", "docs/report.md"),
    ("docs/debugging.md", "docs/debugging.md"),
    ("docs/kernels.md", "docs/kernels.md"),
    ("docs/top.md", "docs/top.md"),
    ("docs/metrics.md", "docs/metrics.md"),
    ("docs/security.md", "docs/security.md"),
    ("docs/comparison.md", "docs/comparison.md"),
    ("docs/faq.md", "docs/faq.md"),
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
    ("contrib/debian/copyright", "contrib/copyright"),
];

/// Fills the stage: program, pages, completions, documents, and the unit and container files.
pub(super) fn fill(places: &Places, release: &Release) -> Result<()> {
    let stage = &release.stage;
    copy(&release.program, &stage.join("bin/mptcp-trace"))?;
    copy(&release.sbom(), &stage.join("sbom.cdx.json"))?;
    for (from, to) in FILES {
        copy(&places.root.join(from), &stage.join(to))?;
    }
    build::pages(places, release)?;
    build::completions(release)?;
    // Debian and Fedora both require compressed copies; the tarball also has the readable ones.
    let compressed = stage.join("compressed");
    for page in files_in(&stage.join("man"))? {
        compress(&page, &compressed.join("man"))?;
    }
    compress(&stage.join("CHANGELOG.md"), &compressed)
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

/// Compresses a file without name and time in the header, so that equal input gives equal bytes.
fn compress(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let to = folder.join(format!("{name}.gz"));
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut gz = GzBuilder::new().write(fs::File::create(&to)?, Compression::best());
        gz.write_all(&text)?;
        gz.finish()?.flush()
    };
    write().with_context(|| format!("cannot write {}", to.display()))
}
