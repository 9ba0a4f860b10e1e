//! Plays a capture through the stages.

use std::io;

use super::{Stages, Stop, View};
use crate::{
    capture::{Frame, Reader},
    model::{Facts, LossReport},
    sink::{Format, Source},
};

/// Result of playing a capture to its end.
#[derive(Debug)]
pub struct Played {
    /// The recorded losses; `None` if the capture is truncated.
    pub losses: Option<LossReport>,
    /// Why the output ended early: enough findings, or no reader. The rest was only accounted for.
    pub stopped: Option<Stop>,
}

impl Stages<io::Sink> {
    /// Creates stages for a capture that print nothing: observers of the view receive the findings.
    #[must_use]
    pub fn silent(facts: Facts, view: View) -> Self {
        let (format, source) = (Format::Nothing, Source::Replay);
        Self::new(facts, format, source, io::sink(), None, view, None)
    }
}

/// Plays a capture to its end.
///
/// # Errors
///
/// [`Stop::Failed`] if the capture cannot be read, or the output cannot be written.
pub fn play<W: io::Write, R: io::Read>(
    stages: &mut Stages<W>,
    reader: &mut Reader<R>,
) -> Result<Played, Stop> {
    let mut stopped = None;
    let mut go_on = |stages: &mut Stages<W>, done: Result<(), Stop>| match done {
        Ok(()) => Ok(()),
        Err(Stop::Failed(why)) => Err(Stop::Failed(why)),
        Err(stop @ (Stop::Enough | Stop::ReaderGone)) => {
            stages.close(&stop);
            stopped.get_or_insert(stop);
            Ok(())
        }
    };
    let begun = stages.begin();
    go_on(stages, begun)?;
    let losses = loop {
        let done = match reader.next_frame().map_err(Stop::Failed)? {
            Frame::End(losses) => break Some(losses),
            Frame::CutOff => break None,
            other @ (Frame::Record(_)
            | Frame::Place(..)
            | Frame::Pod(..)
            | Frame::Clock(_)
            | Frame::Missed(..)) => stages.replay(&other),
        };
        go_on(stages, done)?;
    };
    Ok(Played { losses, stopped })
}
