//! `mptcp-trace replay`: runs the stages after the ring on a capture.

use std::io::{self, BufReader};

use crate::{
    capture::Reader,
    cli::{
        DONE, Exit, FAILED, FOUND,
        args::ReplayArgs,
        ending::{READER_GONE, proven},
        input::{cut_off, with_capture},
        select, stdout, talk,
    },
    host::sandbox,
    pipeline::{Played, Stages, Stop, View, play, prefixed},
    sink::{Format, Source, TimeStyle},
};

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &ReplayArgs) -> Result<u8, Exit> {
    let view = select::view(&args.view, &args.whose)?;
    stdout::check()?;
    sandbox::enter(&[args.file.as_path()], &[]);
    with_capture(&args.file, |input| replay(args, view, input))
}

fn replay(args: &ReplayArgs, view: View, input: &mut dyn io::Read) -> Result<u8, Exit> {
    let name = args.file.display().to_string();
    let (mut reader, facts) = Reader::open(BufReader::new(input))
        .map_err(|why| Exit::Because(FAILED, format!("cannot replay {name}: {why}")))?;
    let format = match args.json {
        true => Format::Json,
        false => {
            let mut text = select::lines(&args.view, true);
            if args.utc {
                text.time = TimeStyle::Utc;
            }
            Format::text(text)
        }
    };
    let out = io::stdout().lock();
    let mut stages = Stages::new(
        facts,
        format,
        Source::Replay,
        out,
        None,
        view,
        args.stop_after,
    );
    let played = play(&mut stages, &mut reader);
    let (cut_short, gap) = match played {
        Ok(Played {
            losses: Some(losses),
            stopped,
        }) => {
            let finished = stages.finish(&losses);
            let reconciliation = &stages.outcome().reconciled;
            stderr!(
                "{}",
                prefixed(&stages.account(&losses, reconciliation, talk::detail()))
            );
            let has_gone = |stop: &Stop| matches!(stop, Stop::ReaderGone);
            let is_cut_short = stopped
                .as_ref()
                .or(finished.as_ref().err())
                .is_some_and(has_gone);
            stop_to_exit(finished.err())?;
            (is_cut_short.then_some(READER_GONE), stages.gap(&losses))
        }
        Ok(Played { losses: None, .. }) => {
            stop_to_exit(stages.cut_off().err())?;
            let findings = stages.outcome().with_folded();
            return Err(Exit::Because(FAILED, cut_off(&args.file, findings)));
        }
        Err(stop) => {
            let flushed = stages.flush();
            stop_to_exit(Some(stop))?;
            stop_to_exit(flushed.err())?;
            (None, None)
        }
    };
    if stages.outcome().undecodable > 0 {
        return Err(Exit::Code(FAILED));
    }
    if stages.outcome().failing > 0 {
        return Ok(FOUND);
    }
    match stages.may_fail() {
        true => proven(cut_short, gap),
        false => Ok(DONE),
    }
}

fn stop_to_exit(stop: Option<Stop>) -> Result<(), Exit> {
    match stop {
        Some(Stop::Failed(why)) => Err(why.into()),
        Some(Stop::Enough | Stop::ReaderGone) | None => Ok(()),
    }
}
