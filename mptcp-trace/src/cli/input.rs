//! Opens captures, which are files of their own or part of a bundle, and plays them without output.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use anyhow::Context as _;

use super::Exit;
use crate::{
    bundle,
    capture::Reader,
    model::LossReport,
    pipeline::{Stages, Stop, play},
    report::Ending,
};

/// Plays a capture to its end or to the first damaged frame.
pub(super) fn play_silently<R: io::Read>(
    stages: &mut Stages<io::Sink>,
    reader: &mut Reader<R>,
) -> Result<(Ending, LossReport), Exit> {
    let played = play(stages, reader);
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
        Ok(()) | Err(Stop::Enough | Stop::ReaderGone) => Ok((ending, losses)),
    }
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
    let mut file = File::open(path).with_context(|| format!("cannot open the capture {name}"))?;
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
