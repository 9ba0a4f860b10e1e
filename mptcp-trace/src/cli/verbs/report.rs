//! `mptcp-trace report`: turns a capture into an HTML page.

use std::{
    fs,
    io::{self, BufReader, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    bundle::unnamed,
    capture::Reader,
    cli::{DONE, Exit, FAILED, USAGE, args::ReportArgs, files, input::with_capture, print, select},
    correlate::Limits,
    filter::FindingFilter,
    host::sandbox,
    model::LossReport,
    observe::State,
    pipeline::{Stages, Stop, View, play, prefixed},
    report::{Ending, Report, Shared, page},
    sink::escape,
};

/// `--output` value for stdout.
const STDOUT: &str = "-";

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &ReportArgs) -> Result<u8, Exit> {
    refuse_to_overwrite(&args.file, &args.output)?;
    let wanted = select::wanted(&args.what, &args.which, &args.whose)?;
    let output = match args.output == Path::new(STDOUT) {
        true => args.output.clone(),
        false => files::place(&args.output)?,
    };
    sandbox::enter(&[args.file.as_path()], &[folder(&output), output.as_path()]);
    with_capture(&args.file, |input| report(args, wanted, input))
}

fn report(args: &ReportArgs, wanted: FindingFilter, input: &mut dyn io::Read) -> Result<u8, Exit> {
    let file = args.file.display().to_string();
    let (mut reader, facts) = Reader::open(BufReader::new(input))
        .map_err(|why| Exit::Because(FAILED, format!("cannot report on {file}: {why}")))?;
    let is_selection = wanted != FindingFilter::default();
    let gathering = Shared::default();
    let view = View {
        wanted,
        observers: vec![Box::new(gathering.clone())],
        limits: Limits {
            connections: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
            ..Limits::STATED
        },
        ..View::default()
    };
    let mut stages = Stages::silent(facts.clone(), view);
    let (ending, state) = play_to_end(&mut stages, &mut reader)?;
    let gathered = gathering.finish();
    let title = match &args.title {
        Some(title) => title.clone(),
        None => {
            let name = args.file.file_name().unwrap_or_default().to_string_lossy();
            format!("MPTCP fallbacks in {name}")
        }
    };
    let text = page(&Report {
        title: &title,
        facts: &facts,
        gathered: &gathered,
        state: &state,
        ending: &ending,
        is_selection,
        utc: args.utc,
    });
    let name = write(&args.output, &text)?;
    let findings = gathered.findings;
    let noun = if findings == 1 { "finding" } else { "findings" };
    let size = text.len().div_ceil(1000);
    stderr!(
        "{}",
        prefixed(&format!(
            "wrote {}: {findings} {noun}, {size} kB",
            escape(&name)
        ))
    );
    match ending {
        Ending::Orderly if state.undecodable > 0 => Err(Exit::Code(FAILED)),
        Ending::Orderly => Ok(DONE),
        Ending::CutOff => Err(Exit::Because(
            FAILED,
            format!(
                "{file} is cut off after {findings} {noun}: losses during recording are unknown, \
                 as the report states"
            ),
        )),
        Ending::Damaged(why) => Err(Exit::Because(
            FAILED,
            format!("{file} is damaged after {findings} {noun}, as the report states: {why}"),
        )),
    }
}

/// Plays a capture to its end or to the first damaged frame.
fn play_to_end<R: io::Read>(
    stages: &mut Stages<io::Sink>,
    reader: &mut Reader<R>,
) -> Result<(Ending, State), Exit> {
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
    if let Err(Stop::Failed(why)) = ended {
        return Err(why.into());
    }
    let mut state = stages.state(&losses, Duration::ZERO);
    state.losses = stages.with_filtered(&losses);
    state.reconciled = stages.outcome().reconciled.clone();
    state.undecodable = stages.outcome().undecodable;
    Ok((ending, state))
}

/// Refuses to overwrite the capture, e.g. when the arguments are swapped.
fn refuse_to_overwrite(capture: &Path, output: &Path) -> Result<(), Exit> {
    let (Ok(one), Ok(other)) = (fs::metadata(capture), fs::metadata(output)) else {
        return Ok(());
    };
    if (one.dev(), one.ino()) != (other.dev(), other.ino()) {
        return Ok(());
    }
    let why = format!(
        "{} is the capture itself: choose another --output",
        output.display()
    );
    Err(Exit::Because(USAGE, why))
}

/// Directory of a file.
fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Writes the page completely or not at all; returns the name of the destination.
fn write(output: &Path, text: &str) -> anyhow::Result<String> {
    if output == Path::new(STDOUT) {
        print(text)?;
        return Ok("standard output".to_owned());
    }
    let name = output.display().to_string();
    let target = files::place(output)?;
    let is_special = fs::metadata(&target).is_ok_and(|it| !it.is_file() && !it.is_dir());
    if is_special {
        // Devices and pipes are written to, not replaced.
        fs::write(&target, text).with_context(|| format!("cannot write {name}"))?;
        return Ok(name);
    }
    // The page names processes and addresses: a new file is readable by its owner only; an existing
    // one keeps its mode.
    let mode = fs::metadata(&target).map_or(0o600, |there| there.mode() & 0o777);
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".mptcp-trace-report-")
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(folder(&target))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&target).map_err(|why| why.error)?;
        Ok(())
    };
    write()
        .map_err(|why| unnamed(&why))
        .with_context(|| format!("cannot write {name}"))?;
    Ok(name)
}
