//! Runs the tracer from start to exit, for `live`, `demo` and `bundle`.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    rc::Rc,
};

use anyhow::Context as _;

use super::{
    Exit, UNPROVEN, USAGE,
    ending::{conclude, finish, report_end},
    files::{self, How},
    keep::{self, Keep},
    options::{Live, Names, Scope},
    select, stdout, talk, tracing,
    tracing::write_ready_file,
};
use crate::{
    capture,
    host::{privileges::RuntimeNeeds, procfs},
    pipeline::{
        Command, Held, Reopens, Session, Stages, Stop, Until, View, blind, run as run_pipeline,
    },
    sink::{Format, Source},
};

/// Traces; returns the exit code.
pub(super) fn trace(live: Live, verbose: u8) -> Result<u8, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(run(live, verbose))
}

async fn run(mut live: Live, verbose: u8) -> Result<u8, Exit> {
    let awaits_process = !live.command.is_empty();
    let follow = live.names.follow || awaits_process;
    let pids = live.names.pids.iter().copied();
    let processes = pids.map(select::watch).collect::<anyhow::Result<_>>()?;
    let whose = Scope::Named(Names {
        follow,
        awaits_process,
        ..live.names.clone()
    });
    let folder = live.keep.as_ref().map(Keep::lock).transpose()?;
    let started = tracing::start(&live.attaching, &whose, verbose).await?;
    refuse_if_blind(&live, &started.session)?;
    started.say(!awaits_process);
    let (mut session, signals) = (started.session, started.signals);

    refuse_same_file(&live)?;
    let (format, out, reopens) = output(&live)?;
    // The BPF side already filtered by task.
    let view = View {
        within: started.within,
        is_of_command: !live.command.is_empty(),
        ..std::mem::take(&mut live.view)
    };
    let capture = live.capture.as_deref();
    let capture = capture
        .map(|path| begin_capture(path, &session))
        .transpose()?;
    let mut stages = Stages::new(
        session.facts.clone(),
        format,
        Source::Live,
        out,
        capture,
        view,
        live.stop_after,
    );
    stages.look_up(&live.attaching.pod_logs);
    // The command needs its user's privileges, so it is forked first; files are open; other
    // privileges are dropped.
    let held = hold_command(&live, &mut session)?;
    if let Some(path) = &live.ready_file {
        write_ready_file(path)?;
    }
    session.drop_privileges(RuntimeNeeds {
        signals_a_command: held.is_some(),
        writes_files: live.writes_later,
        ..RuntimeNeeds::default()
    })?;
    let dumps = keep::begin(live.keep.as_ref().zip(folder), &session.facts, &mut stages)?;
    let begun = stages.begin();
    let until = Until {
        duration: live.duration,
        processes,
        follow,
        asks: None,
        survives_hangup: false,
        reopens,
        dumps,
        signals: Some(signals),
        watches_stdout: live.output.is_none(),
    };
    if let Err(stop) = begun {
        return end_at_start(stop, &mut session, &mut stages);
    }
    let ended = match start_command(held)? {
        Started::None => run_pipeline(&mut session, &mut stages, until, None).await,
        Started::Running(command) => {
            return run_beside(&mut session, &mut stages, until, command).await;
        }
        Started::CannotRun(why) => {
            let ended = finish(&mut session, &mut stages);
            let _reported = report_end(ended, &stages);
            return Err(why);
        }
    };
    conclude(ended, None, &mut session, &mut stages)
}

/// Ends a run whose output could not begin.
fn end_at_start<W: Write>(
    stop: Stop,
    session: &mut Session,
    stages: &mut Stages<W>,
) -> Result<u8, Exit> {
    match stop {
        // Nothing was traced, so there is no account; only the capture ends in order.
        Stop::Failed(why) => {
            stages.close(&Stop::ReaderGone);
            let _closed = finish(session, stages);
            Err(why.into())
        }
        Stop::Enough | Stop::ReaderGone => conclude(Err(stop), None, session, stages),
    }
}

/// Traces until the command ends or something else stops the trace; returns the exit code.
async fn run_beside<W: Write>(
    session: &mut Session,
    stages: &mut Stages<W>,
    until: Until,
    command: Command,
) -> Result<u8, Exit> {
    let ended = run_pipeline(session, stages, until, Some(command)).await;
    if let Ok(None) | Err(Stop::ReaderGone | Stop::Enough) = &ended
        && talk::has_notes()
    {
        stderr_line!("mptcp-trace: note: the command keeps running, but is no longer traced");
    }
    let outlived = matches!(ended, Ok(None));
    let cut_short = outlived.then_some("the command was still running when tracing ended");
    conclude(ended, cut_short, session, stages)
}

/// Output format and destination, and how to reopen it.
fn output(live: &Live) -> anyhow::Result<(Format, Box<dyn Write>, Option<Reopens>)> {
    let format = match &live.text {
        Some(text) => Format::text(text.clone()),
        None => Format::Json,
    };
    let mut reopens = None;
    let out: Box<dyn Write> = match &live.output {
        Some(path) => {
            let output = Rc::new(RefCell::new(files::open(path, How::Append)?));
            let (path, file) = (path.clone(), output.clone());
            let reopen = move || match files::open(&path, How::Append) {
                Ok(opened) => *file.borrow_mut() = opened,
                Err(why) => log::warn!(
                    "cannot reopen the output, keeping the old file open: \
                                        {why:#}"
                ),
            };
            reopens = Some(Reopens::take(Box::new(reopen)).context("cannot take signals")?);
            Box::new(Output(output))
        }
        // The pipeline buffers and flushes lines; a second buffer would only delay them.
        None => {
            stdout::check()?;
            let stdout = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
                .context("stdout is closed")?;
            // Only pipes have a size, and any size works.
            if let Err(why) = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES) {
                log::debug!("cannot enlarge the pipe of stdout: {why}");
            }
            Box::new(File::from(stdout))
        }
    };
    Ok((format, out, reopens))
}

/// A file that can be replaced by another one.
struct Output(Rc<RefCell<File>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

/// Size of a pipe on stdout, the most an ordinary user may request: the default of 64 KB holds
/// about a hundred lines, so a reader that is late by a millisecond would stall the ring.
const PIPE_BYTES: usize = 1 << 20;

/// Rejects options that name the same file, by any path: one output would overwrite the other.
fn refuse_same_file(live: &Live) -> Result<(), Exit> {
    let mut open: Vec<(&str, File)> = Vec::new();
    if live.output.is_none() {
        let stdout = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3);
        open.extend(stdout.ok().map(|it| ("stdout", File::from(it))));
    }
    let named = [
        ("--output", &live.output),
        ("--capture", &live.capture),
        ("--ready-file", &live.ready_file),
    ];
    for (option, path) in named {
        let Some(path) = path else {
            continue;
        };
        // Pipes and devices are opened once, by the writer.
        if fs::metadata(path).is_ok_and(|it| !it.is_file()) {
            continue;
        }
        let what = || match option {
            "--capture" => "cannot write the capture".to_owned(),
            _ => format!("cannot write {option}"),
        };
        let file = files::open(path, How::Anew).with_context(what)?;
        for (other, known) in &open {
            if files::are_same(known, &file)? {
                let why = format!("{other} and {option} are the same file, {}", path.display());
                return Err(Exit::Because(USAGE, why));
            }
        }
        open.push((option, file));
    }
    Ok(())
}

fn begin_capture(
    path: &Path,
    session: &Session,
) -> anyhow::Result<capture::Writer<BufWriter<File>>> {
    let what = || format!("cannot write the capture {}", path.display());
    let file = files::open(path, How::Anew).with_context(what)?;
    files::empty(&file).with_context(what)?;
    let begin = || {
        let mut writer = capture::Writer::new(BufWriter::new(file), &session.facts)?;
        // A full disk is noticed before anything is traced.
        writer.flush()?;
        io::Result::Ok(writer)
    };
    begin().with_context(what)
}

/// Refuses to start if `--fail-on` could never match.
fn refuse_if_blind(live: &Live, session: &Session) -> Result<(), Exit> {
    match blind(&live.view.fail_on, &session.facts) {
        None => Ok(()),
        Some((sensor, why)) => {
            let because = session.why_off(sensor).unwrap_or_default();
            let why = format!("--fail-on: {why} ({because}); nothing was run or traced");
            Err(Exit::Because(UNPROVEN, why))
        }
    }
}

enum Started {
    None,
    Running(Command),
    CannotRun(Exit),
}

/// Forks for the command, and holds the child until its process ID is in the filter.
fn hold_command(live: &Live, session: &mut Session) -> anyhow::Result<Option<Held>> {
    if live.command.is_empty() {
        return Ok(None);
    }
    let held = Held::new(&live.command)?;
    session.tracer.admit(procfs::number_of_child(held.pid())?)?;
    Ok(Some(held))
}

/// Starts the command, if any.
fn start_command(held: Option<Held>) -> anyhow::Result<Started> {
    let Some(held) = held else {
        return Ok(Started::None);
    };
    Ok(match held.release()? {
        Ok(command) => Started::Running(command),
        Err(cannot) => Started::CannotRun(Exit::Because(cannot.code, cannot.why)),
    })
}
