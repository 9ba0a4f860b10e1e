//! The flight recorder, as the options and the settings of `serve` ask for it.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tokio::signal::unix::Signal;

use super::{Exit, USAGE, args::KeepArgs, shell, talk};
use crate::{
    model::Facts,
    pipeline::{Stages, dump_signal},
    recorder::{FOLDER, Flight, Folder, Rule},
    sink::escape,
};

/// A recording that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Keep {
    /// Most bytes on disk.
    pub(super) bytes: u64,
    /// The directory.
    pub(super) folder: PathBuf,
    /// When to make dumps without being asked.
    pub(super) rules: Vec<Rule>,
}

impl Keep {
    /// What the options ask for.
    pub(super) fn typed(args: KeepArgs) -> Result<Option<Self>, Exit> {
        let KeepArgs {
            keep,
            keep_dir,
            dump_on,
        } = args;
        Self::of(keep, keep_dir, dump_on).map_err(|why| Exit::Because(USAGE, why))
    }

    /// Rejects what has no effect without `--keep`.
    pub(super) fn of(
        keep: Option<u64>,
        keep_dir: Option<PathBuf>,
        rules: Vec<Rule>,
    ) -> Result<Option<Self>, String> {
        let is_idle = keep_dir.is_some() || !rules.is_empty();
        match keep {
            None if is_idle => Err("--keep-dir and --dump-on need a --keep SIZE".to_owned()),
            None => Ok(None),
            Some(bytes) => Ok(Some(Self {
                bytes,
                folder: keep_dir.unwrap_or_else(folder),
                rules,
            })),
        }
    }

    /// Creates the directory if it is missing, and locks it.
    pub(super) fn lock(&self) -> anyhow::Result<Folder> {
        Folder::lock(&self.folder)
    }

    /// Begins to record, with the privileges that are left.
    pub(super) fn begin(&self, folder: Folder, facts: &Facts) -> anyhow::Result<Flight> {
        let flight = Flight::begin(folder, self.bytes, facts, self.rules.clone())?;
        if talk::has_notes() {
            stderr_line!("mptcp-trace: {}", self.place());
        }
        Ok(flight)
    }

    /// Where it records, and the command that reads it.
    fn place(&self) -> String {
        let is_default = self.folder == folder();
        let option = match is_default {
            true => String::new(),
            false => format!(" --keep-dir {}", shell::file(&self.folder)),
        };
        format!(
            "recording in {}, at most {} MiB; mptcp-trace dump{option}",
            escape(&self.folder.display().to_string()),
            self.bytes.div_ceil(1 << 20)
        )
    }
}

/// Begins to record, if that is wanted; returns the signal that requests a dump.
pub(super) fn begin<W: Write>(
    wanted: Option<(&Keep, Folder)>,
    facts: &Facts,
    stages: &mut Stages<W>,
) -> anyhow::Result<Option<Signal>> {
    let Some((keep, folder)) = wanted else {
        return Ok(None);
    };
    stages.record_into(keep.begin(folder, facts)?);
    Ok(Some(dump_signal().context("cannot take signals")?))
}

/// The directory without `--keep-dir`.
pub(super) fn folder() -> PathBuf {
    // systemd lists several, if the unit has several.
    let of_unit = env::var_os("STATE_DIRECTORY");
    let first = of_unit.as_ref().and_then(|it| env::split_paths(it).next());
    first
        .filter(|it| it.is_absolute())
        .unwrap_or_else(|| Path::new(FOLDER).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorder_says_where_it_records_and_how_that_is_read() {
        let keep = |folder: PathBuf| Keep {
            bytes: 16 << 20,
            folder,
            rules: Vec::new(),
        };
        assert_eq!(
            keep("/kept here".into()).place(),
            "recording in /kept here, at most 16 MiB; mptcp-trace dump --keep-dir '/kept here'"
        );
        let of_default = keep(folder()).place();
        assert!(of_default.ends_with("; mptcp-trace dump"), "{of_default}");
    }
}
