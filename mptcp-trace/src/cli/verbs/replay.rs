//! `mptcp-trace replay`: runs the stages after the ring on a capture.

use std::{
    fs,
    io::{self, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    aggregation::Sums,
    capture::Reader,
    cli::{
        DONE, Exit, FAILED, FOUND, USAGE,
        args::ReplayArgs,
        ending::{READER_GONE, proven},
        input::{cut_off, with_capture},
        select, stdout, talk,
    },
    host::sandbox,
    pipeline::{Played, Stages, Stop, View, play, prefixed},
    recorder::utc,
    sink::{Format, Source, TimeStyle, escape},
};

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &ReplayArgs) -> Result<u8, Exit> {
    stdout::check()?;
    let mut all = args.files.iter().map(PathBuf::as_path).peekable();
    let files: Vec<&Path> = all.clone().collect();
    // Nothing is printed of the first ones if the last one is missing.
    let mut known = Vec::new();
    for file in &files {
        let name = file.display();
        let metadata = fs::metadata(file);
        let metadata = metadata.with_context(|| format!("cannot open the capture {name}"))?;
        let identity = (metadata.dev(), metadata.ino());
        if known.contains(&identity) {
            return Err(Exit::Because(USAGE, format!("{name} is given twice")));
        }
        known.push(identity);
    }
    sandbox::enter(&files, &[]);
    let mut so_far = Replayed {
        left: args.stop_after,
        ..Replayed::default()
    };
    while let Some(file) = all.next() {
        let mut view = select::view(&args.view, &args.whose)?;
        if let Some(sums) = so_far.sums.take() {
            view.summary = sums;
        }
        view.sums_follow = all.peek().is_some();
        with_capture(file, |input| replay(args, file, view, &mut so_far, input))?;
        // Sums are printed with the last one.
        let has_enough = so_far.left == Some(0) && args.view.sums().is_empty();
        if so_far.is_cut_short || has_enough {
            break;
        }
    }
    so_far.exit()
}

/// What was replayed so far.
#[derive(Default)]
struct Replayed {
    /// Findings until `--stop-after`.
    left: Option<u64>,
    sums: Option<Sums>,
    has_undecodable: bool,
    has_found: bool,
    /// The reader of the output has gone.
    is_cut_short: bool,
    /// The result of `--fail-on`, of the first capture in which nothing was found and something may
    /// be missing.
    unproven: Option<Result<u8, Exit>>,
    /// Why the last one is incomplete.
    cut_off: Option<String>,
}

impl Replayed {
    fn exit(self) -> Result<u8, Exit> {
        match (self.cut_off, self.has_undecodable, self.has_found) {
            (Some(why), _, _) => Err(Exit::Because(FAILED, why)),
            (None, true, _) => Err(Exit::Code(FAILED)),
            (None, false, true) => Ok(FOUND),
            (None, false, false) => self.unproven.unwrap_or(Ok(DONE)),
        }
    }
}

fn replay(
    args: &ReplayArgs,
    file: &Path,
    view: View,
    so_far: &mut Replayed,
    input: &mut dyn io::Read,
) -> Result<(), Exit> {
    let name = file.display().to_string();
    let (mut reader, facts) = Reader::open(BufReader::new(input))
        .map_err(|why| Exit::Because(FAILED, format!("cannot replay {name}: {why}")))?;
    if args.files.len() > 1 && talk::has_notes() {
        stderr_line!("mptcp-trace: {}:", escape(&name));
    }
    if let Some((from, to)) = facts.dumped()
        && talk::has_notes()
    {
        stderr_line!(
            "mptcp-trace: a dump of a recording, from {} to {}",
            utc(from),
            to.map_or_else(|| "its end".to_owned(), utc)
        );
    }
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
    let mut stages = Stages::new(facts, format, Source::Replay, out, None, view, so_far.left);
    let ended = play_to_end(file, &mut stages, &mut reader, so_far);
    so_far.sums = Some(stages.take_sums());
    so_far.has_undecodable |= stages.outcome().undecodable > 0;
    so_far.has_found |= stages.outcome().failing > 0;
    let printed = stages.outcome().findings;
    so_far.left = so_far.left.map(|left| left.saturating_sub(printed));
    ended
}

fn play_to_end<W: io::Write, R: io::Read>(
    file: &Path,
    stages: &mut Stages<W>,
    reader: &mut Reader<R>,
    so_far: &mut Replayed,
) -> Result<(), Exit> {
    match play(stages, reader) {
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
            let stop = stopped.as_ref().or(finished.as_ref().err());
            let is_cut_short = stop.is_some_and(|stop| matches!(stop, Stop::ReaderGone));
            so_far.is_cut_short |= is_cut_short;
            stop_to_exit(finished.err())?;
            if stages.may_fail() {
                let result = proven(is_cut_short.then_some(READER_GONE), stages.gap(&losses));
                if !matches!(result, Ok(DONE)) {
                    so_far.unproven.get_or_insert(result);
                }
            }
            Ok(())
        }
        Ok(Played { losses: None, .. }) => {
            stop_to_exit(stages.cut_off().err())?;
            let why = cut_off(file, stages.outcome().with_folded());
            if let Some(earlier) = so_far.cut_off.replace(why) {
                stderr_line!("mptcp-trace: {}", escape(&earlier));
            }
            Ok(())
        }
        Err(stop) => {
            let flushed = stages.flush();
            stop_to_exit(Some(stop))?;
            stop_to_exit(flushed.err())
        }
    }
}

fn stop_to_exit(stop: Option<Stop>) -> Result<(), Exit> {
    match stop {
        Some(Stop::Failed(why)) => Err(why.into()),
        Some(Stop::Enough | Stop::ReaderGone) | None => Ok(()),
    }
}
