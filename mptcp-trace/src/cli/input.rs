//! Opens captures, which are files of their own or part of a bundle, and plays them without output.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal as _, Read as _, Seek as _},
    os::fd::AsFd as _,
    path::Path,
};

use anyhow::Context as _;

use super::{Exit, FAILED};
use crate::{
    bundle,
    capture::Reader,
    correlate::Limits,
    model::{Facts, LossReport},
    pipeline::{Stages, Stop, View, play},
    report::Ending,
};

/// A capture that was played without output.
pub(super) struct Observed {
    /// Its facts.
    pub(super) facts: Facts,
    /// The stages, after the last record.
    pub(super) stages: Stages<io::Sink>,
    /// Losses during recording; empty unless it ends in order.
    pub(super) losses: LossReport,
    /// How it ends.
    pub(super) ending: Ending,
}

/// Plays a capture to its end or to the first damaged frame, for the observers of a view; `what` is
/// what cannot be done if it is not a capture.
pub(super) fn observe(
    input: &mut dyn io::Read,
    view: View,
    connections: u32,
    what: &str,
) -> Result<Observed, Exit> {
    let (mut reader, facts) = Reader::open(BufReader::new(input))
        .map_err(|why| Exit::Because(FAILED, format!("{what}: {why}")))?;
    let limits = Limits {
        connections: usize::try_from(connections).unwrap_or(usize::MAX),
        ..Limits::STATED
    };
    let mut stages = Stages::silent(facts.clone(), View { limits, ..view });
    let played = play(&mut stages, &mut reader);
    let (ending, losses) = match played {
        // Printed lines are discarded, and there is no `--stop-after`.
        Ok(played) => match played.losses {
            Some(losses) => (Ending::Orderly, losses),
            None => (Ending::CutOff, LossReport::default()),
        },
        Err(Stop::Failed(why)) => (Ending::Damaged(format!("{why:#}")), LossReport::default()),
        Err(Stop::Enough | Stop::ReaderGone) => (Ending::CutOff, LossReport::default()),
    };
    let ended = match ending {
        Ending::Orderly => stages.finish(&losses),
        Ending::CutOff | Ending::Damaged(_) => stages.cut_off(),
    };
    match ended {
        Err(Stop::Failed(why)) => Err(why.into()),
        Ok(()) | Err(Stop::Enough | Stop::ReaderGone) => Ok(Observed {
            facts,
            stages,
            losses,
            ending,
        }),
    }
}

/// Message about a capture that is cut off after this many findings.
pub(super) fn cut_off(file: &Path, findings: u64) -> String {
    let noun = if findings == 1 { "finding" } else { "findings" };
    format!(
        "{} is cut off after {findings} {noun}: losses during recording are unknown",
        file.display()
    )
}

/// Runs `play` on a capture, or on the capture inside a bundle.
pub(super) fn with_capture<T>(
    path: &Path,
    play: impl FnOnce(&mut dyn io::Read) -> Result<T, Exit>,
) -> Result<T, Exit> {
    let (mut play, mut played) = (Some(play), None);
    open(path, &mut |input| {
        played = play.take().map(|play| play(input));
    })?;
    played.unwrap_or_else(|| Err(anyhow::anyhow!("{} was not read", path.display()).into()))
}

/// Not generic: each caller would have its own copy of the decompressor.
fn open(path: &Path, play: &mut dyn FnMut(&mut dyn io::Read)) -> anyhow::Result<()> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot open the capture {name}"))?;
    from(file, path, play)
}

/// A capture that is read more than once.
pub(super) struct Rereadable<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Rereadable<'a> {
    /// Opens a capture; `-` is stdin. What cannot be read twice, such as a pipe, is copied to a
    /// temporary file.
    pub(super) fn open(path: &'a Path) -> anyhow::Result<Self> {
        let name = path.display();
        let what = || format!("cannot open the capture {name}");
        let is_stdin = path == Path::new("-");
        if is_stdin && io::stdin().is_terminal() {
            anyhow::bail!("stdin is a terminal: redirect a capture to it, as in `... - < run.mpt`");
        }
        let mut file = match is_stdin {
            true => File::from(
                io::stdin()
                    .as_fd()
                    .try_clone_to_owned()
                    .with_context(what)?,
            ),
            false => File::open(path).with_context(what)?,
        };
        if !file.metadata().with_context(what)?.is_file() {
            let copy = || format!("cannot read {name} into a temporary file");
            let mut copied = tempfile::tempfile().with_context(copy)?;
            io::copy(&mut file, &mut copied).with_context(copy)?;
            file = copied;
        }
        Ok(Self { path, file })
    }

    /// Runs `play` on the capture, from its begin.
    pub(super) fn play<T>(
        &self,
        play: impl FnOnce(&mut dyn io::Read) -> Result<T, Exit>,
    ) -> Result<T, Exit> {
        let (mut play, mut played) = (Some(play), None);
        let what = || format!("cannot read the capture {}", self.path.display());
        let mut file = self.file.try_clone().with_context(what)?;
        file.rewind().with_context(what)?;
        from(file, self.path, &mut |input| {
            played = play.take().map(|play| play(input));
        })?;
        played.unwrap_or_else(|| Err(anyhow::anyhow!(what()).into()))
    }
}

fn from(
    mut file: File,
    path: &Path,
    play: &mut dyn FnMut(&mut dyn io::Read),
) -> anyhow::Result<()> {
    let name = path.display();
    let mut head = [0; bundle::MAGIC.len()];
    // A read error is reported by the next reader.
    let got = file.read(&mut head).unwrap_or(0);
    let mut whole = io::Cursor::new(head).take(got as u64).chain(file);
    if head[..got] == bundle::MAGIC {
        return bundle::with_capture(whole, play).with_context(|| format!("cannot replay {name}"));
    }
    play(&mut whole);
    Ok(())
}
