//! Ends a run: drains the ring, prints the account, chooses the exit code.

use std::{convert::Infallible, io::Write};

use super::{DONE, Exit, FAILED, FOUND, UNPROVEN, talk};
use crate::{
    model::LossReport,
    pipeline::{Session, Stages, Stop, note_missed, prefixed},
};

/// Detaches the probes, drains the ring, and closes the account.
pub(super) fn finish<W: Write>(
    session: &mut Session,
    stages: &mut Stages<W>,
) -> Result<(LossReport, Option<Stop>), Stop> {
    session.stop().map_err(Stop::Failed)?;
    // An output that ends early does not end the account: records still in the ring were traced.
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
    if let Some(recorded) = session.take_recording(losses.clone()) {
        // A failure is in its progress, which `top` reports.
        let _reported = stages.end_recording(&recorded);
    }
    if let Err(stop) = stages.finish(&losses) {
        stages.close(&stop);
        ends.get_or_insert(stop);
    }
    if let Some((account, is_whole)) = stages.end_flight(&losses)
        && (!is_whole || talk::has_notes())
    {
        stderr!("{account}");
    }
    Ok((losses, ends))
}

/// Prints the account of a run, or why it is unavailable. Returns the losses, and why the output
/// ended.
pub(super) fn report_end<W: Write>(
    ended: Result<(LossReport, Option<Stop>), Stop>,
    stages: &Stages<W>,
) -> Result<(LossReport, Option<Stop>), Stop> {
    match ended {
        Ok((losses, stop)) => {
            let reconciliation = &stages.outcome().reconciled;
            stderr!(
                "{}",
                prefixed(&stages.account(&losses, reconciliation, talk::detail()))
            );
            Ok((losses, stop))
        }
        Err(stop) => {
            let why = format!("counters: unavailable: {stop}");
            stderr!("{}", prefixed(&why));
            Err(stop)
        }
    }
}

/// Ends the run in order, unless something failed. `cut_short` is the reason if tracing ended
/// early.
pub(super) fn conclude<W: Write>(
    ended: Result<Option<i32>, Stop>,
    cut_short: Option<&str>,
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
        // The first failure determines the exit message.
        Err(unaccounted) => match stop {
            Some(Stop::Failed(why)) => return Err(why.into()),
            Some(Stop::Enough | Stop::ReaderGone) | None => return Err(failed(&unaccounted)),
        },
    };
    let cut_short = match stop.or(later) {
        Some(Stop::Failed(why)) => return Err(why.into()),
        Some(Stop::ReaderGone) => Some(READER_GONE),
        Some(Stop::Enough) => Some("--stop-after ended the run early"),
        None => cut_short,
    };
    if stages.outcome().undecodable > 0 {
        return Err(Exit::Code(FAILED));
    }
    let code = code.map_or(DONE, |code| u8::try_from(code).unwrap_or(FAILED));
    // The exit code of the command takes precedence.
    if code != DONE || !stages.may_fail() {
        return Ok(code);
    }
    if stages.outcome().failing > 0 {
        return Ok(FOUND);
    }
    proven(cut_short, stages.gap(&losses))
}

/// Reason for exit code 5 when the reader closed the output.
pub(super) const READER_GONE: &str = "the reader closed the output early";

/// Exit of a run without a finding that matches `--fail-on`.
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
