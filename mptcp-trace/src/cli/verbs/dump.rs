//! `mptcp-trace dump`: what the flight recorder has on disk, as a capture.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use crate::{
    cli::{
        DONE, Exit, FAILED, USAGE,
        args::{DumpArgs, span},
        files, keep,
        output::Output,
        shell, talk,
    },
    host::sandbox,
    pipeline::prefixed,
    recorder::{Plan, is_part, utc},
    sink::escape,
};

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &DumpArgs) -> Result<u8, Exit> {
    let span = span(args.since, args.until).map_err(|why| Exit::Because(USAGE, why))?;
    let folder = args.keep_dir.clone().unwrap_or_else(keep::folder);
    if args.output == Path::new("-") && io::stdout().is_terminal() {
        let why = "a capture is not text for a terminal: name a file, or redirect it, as in \
                   `... -o - > run.mpt`";
        return Err(Exit::Because(USAGE, why.to_owned()));
    }
    let place = Output::place(&args.output)?;
    sandbox::enter(
        &[folder.as_path()],
        &[files::folder(&place), place.as_path()],
    );
    if args.output.is_file() && is_part(&folder, &place) {
        let why = "the dump would replace a part of the recording: choose another --output";
        return Err(Exit::Because(USAGE, why.to_owned()));
    }
    // Nothing is created unless there is something to write.
    let plan = Plan::of(&folder, span, None)?;
    let mut out = Output::create(&args.output)?;
    let dumped = plan
        .write(&mut out)
        .map_err(|why| Exit::Because(FAILED, format!("cannot write the dump: {why}")))?;
    let written = out.commit()?;
    let records = match dumped.records {
        1 => "1 record".to_owned(),
        count => format!("{count} records"),
    };
    let earlier = match dumped.earlier {
        0 => String::new(),
        count => format!(", {count} of them earlier ones of connections that were open then"),
    };
    stderr!(
        "{}",
        prefixed(&format!(
            "wrote {}: {records} of {} to {}{earlier}",
            written.described(),
            utc(dumped.from),
            utc(dumped.to)
        ))
    );
    for note in &dumped.notes {
        stderr_line!("mptcp-trace: note: {}", escape(note));
    }
    if talk::has_notes() && args.output.is_file() {
        let file = shell::file(&args.output);
        stderr_line!("mptcp-trace: mptcp-trace replay {}", escape(&file));
    }
    Ok(DONE)
}
