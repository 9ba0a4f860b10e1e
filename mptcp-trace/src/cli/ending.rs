//! How a run ends: what is left in the ring, the account, the exit code.

use std::{convert::Infallible, io::Write};

use super::{DONE, Exit, FAILED, FOUND, UNPROVEN};
use crate::{
    model::LossReport,
    pipeline::{Session, Stages, Stop, note_missed, prefixed},
};

/// Detaches, takes what is left in the ring, and closes the books.
pub(super) fn finish<W: Write>(
    session: &mut Session,
    stages: &mut Stages<W>,
) -> Result<(LossReport, Option<Stop>), Stop> {
    session.stop().map_err(Stop::Failed)?;
    // What ends the output does not end the account: what is still in the ring has been traced.
    let mut ends = note_missed(&session.tracer, stages).err();
    let Ok(()) = session.records.drain(|bytes| {
        if let Err(stop) = stages.take(bytes) {
            stages.close(&stop);
            ends.get_or_insert(stop);
        }
        Ok::<(), Infallible>(())
    });
    if let Some(log) = &mut session.log {
        log.drain();
    }
    let losses = session.losses().map_err(Stop::Failed)?;
    if let Err(stop) = stages.finish(&losses) {
        stages.close(&stop);
        ends.get_or_insert(stop);
    }
    Ok((losses, ends))
}

/// Prints the account of a run, or why there is none; the losses, and what ended the output.
pub(super) fn report_end<W: Write>(
    ended: Result<(LossReport, Option<Stop>), Stop>,
    stages: &Stages<W>,
) -> Result<(LossReport, Option<Stop>), Stop> {
    match ended {
        Ok((losses, stop)) => {
            let reconciliation = &stages.outcome().reconciled;
            eprint!("{}", prefixed(&stages.account(&losses, reconciliation)));
            Ok((losses, stop))
        }
        Err(stop) => {
            let why = format!("counters: unavailable: {stop}");
            eprint!("{}", prefixed(&why));
            Err(stop)
        }
    }
}

/// The end of the run: an ordered one unless something failed.
pub(super) fn conclude<W: Write>(
    ended: Result<Option<i32>, Stop>,
    session: &mut Session,
    stages: &mut Stages<W>,
) -> Result<u8, Exit> {
    let (code, stop) = match ended {
        Ok(code) => (code, None),
        Err(stop) => (None, Some(stop)),
    };
    if let Some(stop) = &stop {
        stages.close(stop);
    }
    let closed = finish(session, stages);
    let (losses, later) = match report_end(closed, stages) {
        Ok((losses, later)) => (losses, later),
        // What failed first is what the exit speaks of.
        Err(unaccounted) => match stop {
            Some(Stop::Failed(why)) => return Err(why.into()),
            Some(Stop::Enough | Stop::ReaderGone) | None => return Err(failed(&unaccounted)),
        },
    };
    let cut_short = match stop.or(later) {
        Some(Stop::Failed(why)) => return Err(why.into()),
        Some(Stop::ReaderGone) => Some(READER_GONE),
        Some(Stop::Enough) => Some("--stop-after ended the run early"),
        None => None,
    };
    if stages.outcome().undecodable > 0 {
        return Err(Exit::Code(FAILED));
    }
    let code = code.map_or(DONE, |code| u8::try_from(code).unwrap_or(FAILED));
    // What the command says of itself goes first.
    if code != DONE || !stages.may_fail() {
        return Ok(code);
    }
    if stages.outcome().failing > 0 {
        return Ok(FOUND);
    }
    proven(cut_short, stages.gap(&losses))
}

/// Why a run whose output nobody reads proves nothing.
pub(super) const READER_GONE: &str = "the reader closed the output early";

/// The exit of a run in which nothing was found that shall fail it.
pub(super) fn proven(cut_short: Option<&str>, gap: Option<String>) -> Result<u8, Exit> {
    let Some(why) = cut_short.map(str::to_owned).or(gap) else {
        return Ok(DONE);
    };
    let why = format!("--fail-on: no finding matched, but one may have been missed: {why}");
    Err(Exit::Because(UNPROVEN, why))
}

fn failed(stop: &Stop) -> Exit {
    anyhow::anyhow!("{stop}").into()
}
