//! The tarball: the stage in one directory, with fixed times, owner and order.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

use super::{Release, stage};

/// Directory of files that only the packages use.
const NOT_PACKED: &str = "compressed";

/// Builds the tarball.
pub(super) fn make(release: &Release) -> Result<()> {
    let path = release.tarball();
    let write = || -> Result<()> {
        let gz = GzBuilder::new().write(fs::File::create(&path)?, Compression::best());
        let mut tar = tar::Builder::new(gz);
        let top = PathBuf::from(release.program_name());
        for file in stage::below(&release.stage)? {
            if file.starts_with(release.stage.join(NOT_PACKED)) {
                continue;
            }
            append(&mut tar, release, &top, &file)?;
        }
        tar.into_inner()?.finish()?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn append(
    tar: &mut tar::Builder<impl std::io::Write>,
    release: &Release,
    top: &Path,
    file: &Path,
) -> Result<()> {
    let name = file
        .strip_prefix(&release.stage)
        .context("a file that is not below the stage")?;
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut header = tar::Header::new_ustar();
    header.set_size(u64::try_from(bytes.len()).context("a file too long for tar")?);
    header.set_mode(if name.starts_with("bin") {
        0o755
    } else {
        0o644
    });
    header.set_mtime(u64::try_from(release.epoch).unwrap_or_default());
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, top.join(name), bytes.as_slice())?;
    Ok(())
}
