//! `cargo xtask btf`: reduces a kernel's type information to the types that mptcp-trace looks up.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

use crate::{command, places::Places};

/// Reduces the type information (BTF) of a kernel to the types that mptcp-trace looks up.
///
/// The tests in mptcp-trace/tests/kernels.rs make plans from such files; the README.md beside them
/// names their sources.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    cargo xtask btf debian-arm64-6.12.117.btf.xz -o mptcp-trace/tests/kernels/debian-arm64-6.12.117.btf")]
pub(crate) struct Args {
    /// The whole file: a copy of that kernel's /sys/kernel/btf/vmlinux, optionally compressed with
    /// xz
    #[arg(value_name = "FILE")]
    whole: PathBuf,
    /// Path of the reduced file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Writes the reduced file and prints its size.
pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let places = Places::find()?;
    // cargo may run the example from another directory.
    let [whole, output] = [&args.whole, &args.output].map(std::path::absolute);
    let (whole, output) = (whole?, output?);
    let unpacked = unpack(&whole)?;
    let whole = unpacked
        .as_ref()
        .map_or(whole.as_path(), NamedTempFile::path);
    let mut cargo = command::cargo(&places.root);
    cargo
        .args(["run", "--quiet", "--locked", "--package", "mptcp-trace"])
        .args(["--example", "btf", "--"])
        .args([whole, &output]);
    command::run(&mut cargo, "cannot reduce the type information")?;
    Ok(ExitCode::SUCCESS)
}

/// Decompresses a file that xz compressed; `None` for any other file.
fn unpack(file: &Path) -> Result<Option<NamedTempFile>> {
    if file.extension() != Some(OsStr::new("xz")) {
        return Ok(None);
    }
    let purpose = format!("cannot unpack {}", file.display());
    let bytes = command::output(Command::new("xz").arg("-dc").arg(file), &purpose)?;
    let unpacked = NamedTempFile::new().context("cannot create a temporary file")?;
    fs::write(&unpacked, bytes).with_context(|| purpose)?;
    Ok(Some(unpacked))
}
