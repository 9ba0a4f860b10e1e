//! From a capture to the end of the stages.

use std::io;

use super::{Stages, Stop};
use crate::{
    capture::{Frame, Reader},
    model::LossReport,
};

/// A capture that was read to its end.
#[derive(Debug)]
pub struct Played {
    /// The losses that stand there; none if the capture is cut off.
    pub losses: Option<LossReport>,
    /// What ended the output before: enough was printed, or nobody reads it. The rest went into the account.
    pub stopped: Option<Stop>,
}

/// Plays to the end.
///
/// # Errors
///
/// [`Stop::Failed`] when the capture cannot be read on, or the output not be written.
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
            Frame::Record(bytes) => stages.take(&bytes),
            Frame::Place(cgroup_id, path) => {
                stages.tell_place(cgroup_id, &path);
                Ok(())
            }
            Frame::Clock(now) => stages.clock(now),
            Frame::Missed(by, count) => stages.doubt_until(by, count),
            Frame::End(losses) => break Some(losses),
            Frame::CutOff => break None,
        };
        go_on(stages, done)?;
    };
    Ok(Played { losses, stopped })
}
