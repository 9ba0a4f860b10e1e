//! `mptcp-trace live`: trace the running kernel.

use std::{
    cell::RefCell,
    convert::Infallible,
    fs::{self, File},
    io::{self, BufWriter, IsTerminal as _, Write},
    path::Path,
    rc::Rc,
};

use anyhow::Context as _;

use super::{
    CANNOT_ANSWER, DONE, Exit, FAILED, FOUND, UNPROVEN, USAGE,
    args::{AttachArgs, LiveArgs, WhoseArgs},
    doctor,
    files::{self, How},
    select, wants_colour,
};
use crate::{
    capture,
    host::{
        self,
        privileges::{self, Later},
    },
    kernel::TracerConfig,
    model::LossReport,
    pipeline::{
        self, Command, Held, Reopens, Session, Signals, Stages, StartError, Stop, Until, View,
        blind, note_missed, prefixed, run as run_pipeline,
    },
    plan::{Plan, plan},
    sink::{Format, Source, escape},
};

/// Runs it; the exit code.
pub(super) fn run(args: LiveArgs, verbose: u8) -> Result<u8, Exit> {
    check(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(trace(args, verbose))
}

/// Combinations that make no sense.
fn check(args: &LiveArgs) -> Result<(), Exit> {
    let usage = |why: &str| {
        Err(Exit::Because(
            USAGE,
            format!("{why}; see mptcp-trace --help"),
        ))
    };
    if args.follow && args.pid.is_empty() && args.command.is_empty() {
        return usage("--follow needs a --pid to follow");
    }
    if !args.command.is_empty() && !args.pid.is_empty() {
        return usage("--pid and a COMMAND cannot be traced together");
    }
    Ok(())
}

async fn trace(args: LiveArgs, verbose: u8) -> Result<u8, Exit> {
    let follow = args.follow || !args.command.is_empty();
    let processes = args
        .pid
        .iter()
        .copied()
        .map(select::watch)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let host = args.attach.inspect_host();
    let mut config = doctor::config(&host, &args.attach, verbose);
    narrow(&mut config, &args.pid, &args.comm, &args.netns)?;
    config.by_pid |= !args.command.is_empty();
    config.follow = follow;
    let plan = decide(&host, &args.attach)?;
    let mut session = pipeline::start(&host, &plan, &config, args.attach.attach.only())
        .await
        .map_err(|why| refused(why, &args.attach))?;
    refuse_if_blind(&args, &session)?;
    // Whoever sees that tracing is live may end it at once.
    let signals = Signals::take().context("cannot take signals")?;
    say(&plan, &session, args.command.is_empty());

    refuse_same_file(&args)?;
    let (format, out, reopens) = output(&args)?;
    // Whose findings they are was decided in the kernel.
    let view = View {
        within: config.netns.clone(),
        ..select::view(&args.view, &WhoseArgs::default())?
    };
    let capture = match &args.capture {
        Some(path) => Some(begin_capture(path, &session)?),
        None => None,
    };
    let mut stages = Stages::new(
        session.facts.clone(),
        format,
        Source::Live,
        out,
        capture,
        view,
        args.stop_after,
    );
    // A command has the privileges that its user has; what is opened is open; the rest we have no need of.
    let held = hold_command(&args, &mut session)?;
    if let Some(path) = &args.ready_file {
        write_ready_file(path)?;
    }
    session.give_up_privileges(Later {
        signals_a_command: held.is_some(),
        writes_files: args.writes_later,
        ..Later::default()
    })?;
    let begun = stages.begin();
    let until = Until {
        duration: args.duration,
        processes,
        follow,
        asks: None,
        survives_hangup: false,
        reopens,
        signals: Some(signals),
        watches_stdout: args.output.is_none(),
    };
    let ended = match begun {
        Ok(()) => match start_command(held)? {
            Started::None => run_pipeline(&mut session, &mut stages, until, None).await,
            Started::Running(command) => {
                let ended = run_pipeline(&mut session, &mut stages, until, Some(command)).await;
                if let Err(Stop::ReaderGone | Stop::Enough) = &ended {
                    eprintln!("mptcp-trace: note: the command goes on, and is not traced any more");
                }
                ended
            }
            Started::CannotRun(why) => {
                let ended = finish(&mut session, &mut stages);
                let _reported = report_end(ended, &stages);
                return Err(why);
            }
        },
        Err(stop) => Err(stop),
    };
    conclude(ended, &mut session, &mut stages)
}

/// Whose findings the kernel half lets through: everybody's, unless somebody is named.
///
/// # Errors
///
/// Says that no process can have that name, or that there is no such namespace.
pub(super) fn narrow(
    config: &mut TracerConfig,
    pids: &[u32],
    comms: &[String],
    netns: &[String],
) -> anyhow::Result<()> {
    config.by_pid = !pids.is_empty();
    config.pids = pids.to_vec();
    config.comms = comms
        .iter()
        .map(|name| select::comm(name))
        .collect::<anyhow::Result<_>>()?;
    config.netns = netns
        .iter()
        .map(|name| select::netns(name))
        .collect::<anyhow::Result<_>>()?;
    Ok(())
}

/// The plan, or exit 3 with the reason.
pub(super) fn decide(host: &host::HostSupport, args: &AttachArgs) -> Result<Plan, Exit> {
    plan(host, args.attach.only())
        .map_err(|refusal| Exit::Because(CANNOT_ANSWER, refusal.to_string()))
}

/// The exit for a tracer that did not start.
pub(super) fn refused(why: StartError, args: &AttachArgs) -> Exit {
    match why {
        StartError::Refused { refusal, .. } => {
            let doubt = args.btf.as_ref().map_or_else(String::new, |file| {
                format!(
                    "; is {} the description of the running kernel?",
                    file.display()
                )
            });
            Exit::Because(CANNOT_ANSWER, format!("{refusal}{doubt}"))
        }
        StartError::Failed(why) => Exit::Because(FAILED, format!("{why:#}")),
    }
}

/// Where findings go, how they look there, and how that is opened anew.
fn output(args: &LiveArgs) -> anyhow::Result<(Format, Box<dyn Write>, Option<Reopens>)> {
    let terminal = args.output.is_none() && io::stdout().is_terminal();
    let format = if args.json {
        Format::Json
    } else {
        Format::Text {
            header: terminal || args.header,
            colour: terminal && wants_colour(),
            utc: false,
        }
    };
    let mut reopens = None;
    let out: Box<dyn Write> = match &args.output {
        Some(path) => {
            let output = Rc::new(RefCell::new(files::open(path, How::Append)?));
            let (path, file) = (path.clone(), output.clone());
            let reopen = move || match files::open(&path, How::Append) {
                Ok(opened) => *file.borrow_mut() = opened,
                Err(why) => log::warn!("lines go to the file that was open before: {why:#}"),
            };
            reopens = Some(Reopens::take(Box::new(reopen)).context("cannot take signals")?);
            Box::new(Output(output))
        }
        // Lines are gathered and flushed by the pipeline; a second buffer would only delay them.
        None => {
            let stdout = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
                .context("stdout is closed")?;
            // What is no pipe has no such size, and a pipe works with any.
            if let Err(why) = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES) {
                log::debug!("stdout keeps the room it has: {why}");
            }
            Box::new(File::from(stdout))
        }
    };
    Ok((format, out, reopens))
}

/// A file that may become another one.
struct Output(Rc<RefCell<File>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

/// Room in a pipe on stdout, as much as an ordinary user may ask for: in the usual 64 KB a hundred lines find room, and a
/// reader that is late by a millisecond would hold up the ring.
const PIPE_BYTES: usize = 1 << 20;

/// Says in a file that tracing is live.
pub(super) fn write_ready_file(path: &Path) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let mut file = files::open(path, How::Anew)?;
        files::empty(&file)?;
        Ok(file.write_all(format!("{}\n", std::process::id()).as_bytes())?)
    };
    write().with_context(|| format!("cannot write --ready-file {}", path.display()))
}

/// One file cannot be two, by whatever names it goes: what is written to the one would destroy the other.
fn refuse_same_file(args: &LiveArgs) -> Result<(), Exit> {
    let mut open: Vec<(&str, File)> = Vec::new();
    if args.output.is_none() {
        let stdout = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3);
        open.extend(stdout.ok().map(|it| ("stdout", File::from(it))));
    }
    let named = [
        ("--output", &args.output),
        ("--capture", &args.capture),
        ("--ready-file", &args.ready_file),
    ];
    for (option, path) in named {
        let Some(path) = path else {
            continue;
        };
        // What is no file (a pipe, a device) is opened once, where it is written to.
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
    capture::Writer::new(BufWriter::new(file), &session.facts).with_context(what)
}

/// A run that could never find what shall fail it proves nothing: it does not begin.
fn refuse_if_blind(args: &LiveArgs, session: &Session) -> Result<(), Exit> {
    match blind(&args.view.fail_on, &session.facts) {
        None => Ok(()),
        Some(why) => {
            let because = session.why_no_fallbacks().unwrap_or_default();
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

/// Forks for the command, and holds it until its process id is in the filter.
fn hold_command(args: &LiveArgs, session: &mut Session) -> anyhow::Result<Option<Held>> {
    if args.command.is_empty() {
        return Ok(None);
    }
    let held = Held::new(&args.command)?;
    session.tracer.admit(held.pid())?;
    Ok(Some(held))
}

/// Starts the command, if there is one.
fn start_command(held: Option<Held>) -> anyhow::Result<Started> {
    let Some(held) = held else {
        return Ok(Started::None);
    };
    Ok(match held.release()? {
        Ok(command) => Started::Running(command),
        Err(cannot) => Started::CannotRun(Exit::Because(cannot.code, cannot.why)),
    })
}

/// What the reader should know before the first line.
pub(super) fn say(plan: &Plan, session: &Session, with_invitation: bool) {
    for note in plan.notes.iter().chain(&privileges::costs()) {
        eprintln!("mptcp-trace: note: {}", escape(note));
    }
    for (rung, why) in &session.passed_over {
        log::info!("not {rung}: {why}");
    }
    for (rung, why) in &session.fallback_passed_over {
        log::info!("fallbacks not on {rung}: {why}");
    }
    if let Some(why) = session.why_no_fallbacks() {
        eprint!(
            "{}",
            prefixed(&format!(
                "note: the fallback sensor is off, only what applications ask is traced: {why}"
            ))
        );
    }
    for sensor in &session.facts.sensors {
        log::info!("sensor {} runs on rung {}", sensor.sensor, sensor.rung);
        for limit in &sensor.limits {
            log::info!("{}: {limit}", sensor.rung);
        }
    }
    if with_invitation && io::stderr().is_terminal() {
        let limits: usize = session
            .facts
            .sensors
            .iter()
            .map(|sensor| sensor.limits.len())
            .sum();
        let limits = match limits {
            0 => String::new(),
            n => format!(" ({n} limits: see mptcp-trace doctor)"),
        };
        eprintln!(
            "mptcp-trace: tracing on rung {}{limits}; Ctrl-C ends it",
            session.tracer.rung()
        );
    }
}

/// Detaches, takes what is left in the ring, and closes the books.
fn finish<W: Write>(
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
fn report_end<W: Write>(
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
            let why = format!("counters: no account can be drawn: {stop}");
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
        Some(Stop::Enough) => Some("--stop-after ended the run before its end"),
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
pub(super) const READER_GONE: &str = "the reader of the output has gone before the end";

/// The exit of a run in which nothing was found that shall fail it.
pub(super) fn proven(cut_short: Option<&str>, gap: Option<String>) -> Result<u8, Exit> {
    let Some(why) = cut_short.map(str::to_owned).or(gap) else {
        return Ok(DONE);
    };
    let why = format!("--fail-on: nothing was found, but that proves nothing: {why}");
    Err(Exit::Because(UNPROVEN, why))
}

fn failed(stop: &Stop) -> Exit {
    anyhow::anyhow!("{stop}").into()
}
