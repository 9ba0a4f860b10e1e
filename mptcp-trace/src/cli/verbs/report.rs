//! `mptcp-trace report`: turns a capture into an HTML page.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use crate::{
    cli::{
        DONE, Exit, FAILED,
        args::ReportArgs,
        files,
        input::{Observed, observe, with_capture},
        print, select,
    },
    filter::FindingFilter,
    host::sandbox,
    model::LossReport,
    observe::State,
    pipeline::{Stages, View, prefixed},
    report::{Ending, Report, Shared, page},
    sink::escape,
};

/// `--output` value for stdout.
const STDOUT: &str = "-";

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &ReportArgs) -> Result<u8, Exit> {
    files::refuse_to_overwrite(&args.file, "capture", &args.output)?;
    let wanted = select::wanted(&args.what, &args.which, &args.whose)?;
    let output = match args.output == Path::new(STDOUT) {
        true => args.output.clone(),
        false => files::place(&args.output)?,
    };
    sandbox::enter(
        &[args.file.as_path()],
        &[files::folder(&output), output.as_path()],
    );
    with_capture(&args.file, |input| report(args, wanted, input))
}

fn report(args: &ReportArgs, wanted: FindingFilter, input: &mut dyn io::Read) -> Result<u8, Exit> {
    let file = args.file.display().to_string();
    let is_selection = wanted != FindingFilter::default();
    let gathering = Shared::default();
    let view = View {
        wanted,
        observers: vec![Box::new(gathering.clone())],
        ..View::default()
    };
    let what = format!("cannot report on {file}");
    let Observed {
        facts,
        mut stages,
        losses,
        ending,
    } = observe(input, view, args.max_connections, &what)?;
    let state = state_of(&mut stages, &losses);
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

/// The state for the report, after the last finding.
fn state_of(stages: &mut Stages<io::Sink>, losses: &LossReport) -> State {
    let mut state = stages.state(losses, Duration::ZERO);
    state.losses = stages.with_filtered(losses);
    state.reconciled = stages.outcome().reconciled.clone();
    state.undecodable = stages.outcome().undecodable;
    state
}

/// Writes the page completely or not at all; returns the name of the destination.
fn write(output: &Path, text: &str) -> anyhow::Result<String> {
    if output == Path::new(STDOUT) {
        print(text)?;
        return Ok("standard output".to_owned());
    }
    files::write_whole(output, &mut |file| Ok(file.write_all(text.as_bytes())))?;
    Ok(output.display().to_string())
}
