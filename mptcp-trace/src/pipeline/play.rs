//! From a capture to the end of the stages.

use std::io;

use super::{Stages, Stop};
use crate::{
    capture::{Frame, Reader},
    model::LossReport,
};

/// Plays to the end; the losses that stand there, or nothing if the capture is cut off.
///
/// # Errors
///
/// [`Stop`] when enough was printed, or when the capture cannot be read on.
pub fn play<W: io::Write, R: io::Read>(
    stages: &mut Stages<W>,
    reader: &mut Reader<R>,
) -> Result<Option<LossReport>, Stop> {
    stages.begin()?;
    loop {
        match reader.next_frame().map_err(Stop::Failed)? {
            Frame::Record(bytes) => stages.take(&bytes)?,
            Frame::Place(cgroup_id, path) => stages.tell_place(cgroup_id, &path),
            Frame::Clock(now) => stages.clock(now)?,
            Frame::Missed(by, count) => stages.doubt_until(by, count)?,
            Frame::End(losses) => return Ok(Some(losses)),
            Frame::CutOff => return Ok(None),
        }
    }
}
