//! `mptcp-trace report`: turns a capture into an HTML page, or into a trace for a viewer.

use std::{
    io::{self, BufWriter, Write as _},
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    cli::{
        DONE, Exit, FAILED,
        args::{ReportArgs, ReportFormat},
        files,
        input::{Observed, cut_off, observe, with_capture},
        output::{Delivered, Output},
        select,
    },
    filter::FindingFilter,
    host::sandbox,
    model::Facts,
    observe::{Observer, State},
    pipeline::{View, prefixed},
    report::{Account, ChromeTrace, Ending, Report, Shared, page},
    sink::escape,
};

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &ReportArgs) -> Result<u8, Exit> {
    files::refuse_to_overwrite(&args.file, "capture", &args.output)?;
    let wanted = select::wanted(&args.what, &args.which, &args.whose)?;
    let output = Output::place(&args.output)?;
    sandbox::enter(
        &[args.file.as_path()],
        &[files::folder(&output), output.as_path()],
    );
    with_capture(&args.file, |input| report(args, wanted, input))
}

/// A capture that was played.
struct Played {
    ending: Ending,
    state: State,
    findings: u64,
    written: Delivered,
}

fn report(args: &ReportArgs, wanted: FindingFilter, input: &mut dyn io::Read) -> Result<u8, Exit> {
    let file = args.file.display().to_string();
    let title = match &args.title {
        Some(title) => title.clone(),
        None => {
            let name = args.file.file_name().unwrap_or_default().to_string_lossy();
            format!("MPTCP fallbacks in {name}")
        }
    };
    let write = match args.format {
        ReportFormat::Html => html,
        ReportFormat::ChromeTrace => chrome_trace,
    };
    let Played {
        ending,
        state,
        findings,
        written,
    } = write(args, wanted, &title, input)?;
    let noun = if findings == 1 { "finding" } else { "findings" };
    stderr!(
        "{}",
        prefixed(&format!(
            "wrote {}: {findings} {noun}, {} kB",
            escape(&written.described()),
            written.size.div_ceil(1000)
        ))
    );
    match ending {
        Ending::Orderly if state.undecodable > 0 => Err(Exit::Code(FAILED)),
        Ending::Orderly => Ok(DONE),
        Ending::CutOff => Err(Exit::Because(
            FAILED,
            cut_off(&args.file, findings) + ", as the report states",
        )),
        Ending::Damaged(why) => Err(Exit::Because(
            FAILED,
            format!("{file} is damaged after {findings} {noun}, as the report states: {why}"),
        )),
    }
}

/// Writes the page.
fn html(
    args: &ReportArgs,
    wanted: FindingFilter,
    title: &str,
    input: &mut dyn io::Read,
) -> Result<Played, Exit> {
    let is_selection = wanted != FindingFilter::default();
    let gathering = Shared::default();
    let observer = Box::new(gathering.clone());
    let (facts, ending, state) = play_to_end(args, wanted, observer, input)?;
    let gathered = gathering.finish();
    let text = page(&Report {
        title,
        facts: &facts,
        gathered: &gathered,
        state: &state,
        ending: &ending,
        is_selection,
        utc: args.utc,
    });
    let mut output = Output::create(&args.output)?;
    output
        .write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    Ok(Played {
        ending,
        state,
        findings: gathered.findings,
        written: output.commit()?,
    })
}

/// Writes the trace, while the capture is played.
fn chrome_trace(
    args: &ReportArgs,
    wanted: FindingFilter,
    title: &str,
    input: &mut dyn io::Read,
) -> Result<Played, Exit> {
    let is_selection = wanted != FindingFilter::default();
    let output = BufWriter::new(Output::create(&args.output)?);
    let trace = ChromeTrace::new(output);
    let observer = Box::new(trace.clone());
    let (facts, ending, state) = play_to_end(args, wanted, observer, input)?;
    let account = Account {
        title,
        facts: &facts,
        state: &state,
        ending: &ending,
        is_selection,
    };
    let cannot = || format!("cannot write {}", args.output.display());
    let (findings, output) = trace.finish(&account).with_context(cannot)?;
    let output = output
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .with_context(cannot)?;
    Ok(Played {
        ending,
        state,
        findings,
        written: output.commit()?,
    })
}

/// Plays a capture to its end or to the first damaged frame.
fn play_to_end(
    args: &ReportArgs,
    wanted: FindingFilter,
    observer: Box<dyn Observer>,
    input: &mut dyn io::Read,
) -> Result<(Facts, Ending, State), Exit> {
    let view = View {
        wanted,
        observers: vec![observer],
        ..View::default()
    };
    let what = format!("cannot report on {}", args.file.display());
    let Observed {
        facts,
        mut stages,
        losses,
        ending,
    } = observe(input, view, args.max_connections, &what)?;
    let mut state = stages.state(&losses, Duration::ZERO);
    state.losses = stages.with_filtered(&losses);
    state.reconciled = stages.outcome().reconciled.clone();
    state.undecodable = stages.outcome().undecodable;
    Ok((facts, ending, state))
}
