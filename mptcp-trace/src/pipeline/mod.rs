//! The event loop: records in, lines out, until the run ends.

mod account;
mod command;
mod connections;
mod events;
#[cfg(test)]
pub(crate) mod fixture;
mod inventory;
mod ladder;
mod peers;
mod places;
mod play;
mod proof;
mod reading;
mod recorded;
mod recording;
mod self_test;
mod session;
mod stages;
mod stop;
mod view;
mod waits;

use std::{
    fs::File,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, statat},
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{Interval, MissedTickBehavior},
};

use self::waits::{command_end, ended, reader_has_gone, received};
pub use self::{
    command::{CannotRun, Command, Held},
    inventory::{Inventory, PrintedSockets},
    ladder::{StartError, start},
    peers::PeerBook,
    places::lookup,
    play::{Played, play},
    proof::blind,
    recorded::dump_signal,
    recording::Progress,
    self_test::{CanaryReport, SelfTest},
    session::Session,
    stages::Stages,
    stop::Stop,
    view::{Detail, Outcome, View},
};
use crate::{
    correlate::ORDER_WINDOW,
    host::{
        netstat::boottime,
        privileges::RuntimeNeeds,
        system::{hangup_is_ignored, return_free_memory},
    },
    kernel::{LogRing, RecordRing, Tracer},
    model::{ConnectionId, LossReport},
    observe::State,
    sink::escape,
};

/// How long the ring may fill between two turns. At a million records per second it holds 25 ms of
/// them.
const PAUSE: Duration = Duration::from_millis(5);

/// Interval of checks for live followed processes, after the named ones have ended, and for live
/// processes of an outer PID namespace.
const FAMILY_POLL: Duration = Duration::from_millis(100);

/// Interval of the clock for waiting events.
const CLOCK: Duration = Duration::from_millis(50);

/// Minimum interval between returns of free memory to the system, when no event waits.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Interval at which the flight recorder gets the losses so far, and its rules are checked.
const RECORDER_CLOCK: Duration = Duration::from_secs(1);

/// Interval of checks whether the reader of stdout still exists.
const READER_CLOCK: Duration = Duration::from_millis(500);

/// Interval of checks whether a sweep is due.
const SWEEP_CLOCK: Duration = Duration::from_millis(200);

/// Minimum interval between sweeps over all open sockets, if fallbacks may go unobserved. Sweeps
/// take at most a hundredth of the time.
const SWEEP_EVERY_MIN: Duration = Duration::from_secs(1);
const SWEEP_SHARE: u32 = 100;

/// Conditions that end a live run.
#[derive(Debug, Default)]
pub struct Until {
    /// This time has passed.
    pub duration: Option<Duration>,
    /// All of these processes have ended.
    pub processes: Vec<Watched>,
    /// Their children must have ended too.
    pub follow: bool,
    /// Requests from other tasks.
    pub asks: Option<mpsc::Receiver<Ask>>,
    /// SIGHUP does not end the run: another part handles it.
    pub survives_hangup: bool,
    /// How the output is reopened on request.
    pub reopens: Option<Reopens>,
    /// The signal that requests a dump of the flight recorder.
    pub dumps: Option<Signal>,
    /// Signals that end the run. A caller that announces that tracing is live installs them before,
    /// since a script may send one at once.
    pub signals: Option<Signals>,
    /// Findings go to stdout: the run ends when its reader has gone, even without output.
    pub watches_stdout: bool,
}

impl Until {
    /// True if the end of some process is not notified.
    fn is_polled(&self, follows: bool) -> bool {
        let is_outer = |it: &Watched| matches!(it.end, EndOf::Outer(_));
        self.processes.iter().any(is_outer) || follows && self.processes.is_empty()
    }
}

/// Reopens the output on request, so that its file can be rotated (`logrotate`).
pub struct Reopens {
    asked: Signal,
    /// SIGHUP requests it too: the process has no terminal that could hang up.
    by_hangup: bool,
    reopen: Box<dyn FnMut()>,
}

impl Reopens {
    /// Handles SIGUSR2, and SIGHUP if this process has no terminal.
    ///
    /// # Errors
    ///
    /// Fails if a handler cannot be installed.
    pub fn take(reopen: Box<dyn FnMut()>) -> std::io::Result<Self> {
        Ok(Self {
            asked: signal(SignalKind::user_defined2())?,
            by_hangup: File::open("/dev/tty").is_err(),
            reopen,
        })
    }
}

impl std::fmt::Debug for Reopens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reopens")
            .field("by_hangup", &self.by_hangup)
            .finish_non_exhaustive()
    }
}

/// A request to a live run.
#[derive(Debug)]
pub enum Ask {
    /// Return the current state.
    State(oneshot::Sender<State>),
    /// Read the open paths of this connection: the observers get what they have carried. Returns how
    /// long that took, once it is done.
    Paths(ConnectionId, oneshot::Sender<anyhow::Result<Duration>>),
    /// Begin a capture in this file; returns the number of connections whose history is not in it.
    Record(File, Arc<Progress>, oneshot::Sender<anyhow::Result<u64>>),
    /// End that capture; returns the number of its records, if there was one.
    EndRecord(oneshot::Sender<anyhow::Result<Option<u64>>>),
    /// End in order.
    End,
}

/// The signals that a live run handles.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if it is ignored: handling it would undo nohup.
    hangup: Option<Signal>,
    ask: Signal,
}

impl Signals {
    /// Installs the handlers: the signals do not kill the process any more.
    ///
    /// # Errors
    ///
    /// Fails if a handler cannot be installed.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: match hangup_is_ignored() {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            },
            ask: signal(SignalKind::user_defined1())?,
        })
    }
}

/// A process whose end the run waits for.
#[derive(Debug)]
pub struct Watched {
    /// Its id.
    pub pid: u32,
    /// How its end is noticed.
    pub end: EndOf,
}

/// How the end of a process is noticed.
#[derive(Debug)]
pub enum EndOf {
    /// A pidfd: readable when it has ended.
    Ours(AsyncFd<OwnedFd>),
    /// Its directory in the procfs of an outer PID namespace, where no pidfd can be opened: empty when
    /// it has ended, whichever process has its number then.
    Outer(OwnedFd),
}

impl Watched {
    /// True if it is of an outer PID namespace and has ended.
    fn is_gone_outside(&self) -> bool {
        match &self.end {
            EndOf::Ours(_) => false,
            EndOf::Outer(dir) => statat(dir, "stat", AtFlags::empty()).is_err(),
        }
    }
}

/// Runs until a condition ends the run; returns the command's exit code if there was a command.
///
/// # Errors
///
/// Fails if the tracer cannot continue.
pub async fn run<W: Write>(
    session: &mut Session,
    stages: &mut Stages<W>,
    mut until: Until,
    mut command: Option<Command>,
) -> Result<Option<i32>, Stop> {
    let deadline = tokio::time::sleep(until.duration.unwrap_or(Duration::MAX / 4));
    tokio::pin!(deadline);
    let mut signals = begin(session, stages, &mut until, command.is_some())?;
    let mut clocks = Clocks::new(session);
    let follows = until.follow && !until.processes.is_empty();
    let mut asked_to_stop = false;
    loop {
        let Session {
            tracer,
            records,
            log,
            ..
        } = session;
        tokio::select! {
            turn = turn(tracer, records, stages) => turn?,
            logged = log_turn(log.as_mut()) => logged?,
            () = &mut deadline => return Ok(None),
            ended = ended(&until.processes) => if is_last(ended?, tracer, &mut until)? {
                return Ok(None);
            },
            _tick = clocks.family.tick(), if until.is_polled(follows) => {
                if is_over(tracer, &mut until, follows)? {
                    return Ok(None);
                }
            }
            code = command_end(command.as_mut()) => return code.map(Some).map_err(Stop::Failed),
            _tick = clocks.order.tick(), if stages.waits() => clocks.settle(tracer, stages)?,
            _tick = clocks.sweep.tick(), if clocks.sweeps || stages.correlator.has_stale_paths() => {
                clocks.sweep(tracer)?;
            }
            _tick = clocks.reader.tick(), if until.watches_stdout => if reader_has_gone() {
                return Err(Stop::ReaderGone);
            },
            _tick = clocks.recorder.tick(), if stages.flight.is_some() => stages.note_losses(session),
            () = received(until.dumps.as_mut()) => stages.dump_by_signal(),
            _ = signals.ask.recv() => tell_state(session, stages)?,
            ask = asked(until.asks.as_mut()) => if is_end(ask, session, stages)? {
                return Ok(None);
            },
            _ = signals.interrupt.recv() => {
                // The terminal has signalled the command too: the run ends with it. A second signal
                // ends the run at once.
                if command.is_none() || asked_to_stop {
                    return Ok(None);
                }
                asked_to_stop = true;
            }
            _ = signals.terminate.recv() => match &command {
                Some(command) if !asked_to_stop => {
                    command.terminate();
                    asked_to_stop = true;
                }
                Some(_) | None => return Ok(None),
            },
            () = received(signals.hangup.as_mut()) => match &mut until.reopens {
                Some(reopens) if reopens.by_hangup => reopen(reopens, stages)?,
                Some(_) | None => return Ok(None),
            },
            () = received(until.reopens.as_mut().map(|it| &mut it.asked)) => {
                if let Some(reopens) = &mut until.reopens {
                    reopen(reopens, stages)?;
                }
            }
        }
    }
}

/// Drops privileges, installs signal handlers, and processes the records of the start phase.
fn begin<W: Write>(
    session: &mut Session,
    stages: &mut Stages<W>,
    until: &mut Until,
    has_command: bool,
) -> Result<Signals, Stop> {
    let later = RuntimeNeeds {
        signals_a_command: has_command,
        ..RuntimeNeeds::default()
    };
    session.drop_privileges(later).map_err(Stop::Failed)?;
    let mut signals = match until.signals.take() {
        Some(signals) => signals,
        None => Signals::take()?,
    };
    if until.survives_hangup {
        signals.hangup = None;
    }
    note_missed(&session.tracer, stages)?;
    for bytes in std::mem::take(&mut session.backlog) {
        stages.take(&bytes)?;
    }
    stages.flush()?;
    // Memory used by the start is free now.
    return_free_memory();
    Ok(signals)
}

/// Periodic checks.
struct Clocks {
    /// Are followed processes still alive?
    family: Interval,
    /// Have events waited long enough?
    order: Interval,
    /// Is a sweep due?
    sweep: Interval,
    /// Does the reader of stdout still exist?
    reader: Interval,
    /// What was lost so far?
    recorder: Interval,
    /// Fallbacks may go unobserved.
    sweeps: bool,
    next_sweep: Instant,
    next_tidy: Instant,
}

impl Clocks {
    fn new(session: &Session) -> Self {
        let every = |period| {
            let mut clock = tokio::time::interval(period);
            clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
            clock
        };
        Self {
            family: every(FAMILY_POLL),
            order: every(CLOCK),
            sweep: every(SWEEP_CLOCK),
            reader: every(READER_CLOCK),
            recorder: every(RECORDER_CLOCK),
            sweeps: session.has_fallbacks() && session.tracer.may_miss(),
            next_sweep: Instant::now() + SWEEP_EVERY_MIN,
            next_tidy: Instant::now(),
        }
    }

    /// Reports events that have waited long enough.
    fn settle<W: Write>(&mut self, tracer: &Tracer, stages: &mut Stages<W>) -> Result<(), Stop> {
        // Events settled now happened before this reading.
        let now = boottime();
        note_missed(tracer, stages)?;
        stages.clock(now)?;
        stages.flush()?;
        if !stages.waits() && Instant::now() >= self.next_tidy {
            return_free_memory();
            self.next_tidy = Instant::now() + TIDY_EVERY;
        }
        Ok(())
    }

    /// Searches for unobserved fallbacks, if a sweep is due.
    fn sweep(&mut self, tracer: &mut Tracer) -> Result<(), Stop> {
        let began = Instant::now();
        if began >= self.next_sweep {
            tracer.sweep().map_err(Stop::Failed)?;
            self.next_sweep = Instant::now() + SWEEP_EVERY_MIN.max(began.elapsed() * SWEEP_SHARE);
        }
        Ok(())
    }
}

/// A process has ended; true if it was the last one.
fn is_last(ended: usize, tracer: &mut Tracer, until: &mut Until) -> Result<bool, Stop> {
    let gone = until.processes.swap_remove(ended);
    // Its process id may be reused.
    tracer.remove_pid(gone.pid).map_err(Stop::Failed)?;
    Ok(until.processes.is_empty() && !until.follow)
}

/// Looks for processes that have ended without a notification; true if none is left.
fn is_over(tracer: &mut Tracer, until: &mut Until, follows: bool) -> Result<bool, Stop> {
    while let Some(gone) = until.processes.iter().position(Watched::is_gone_outside) {
        if is_last(gone, tracer, until)? {
            return Ok(true);
        }
    }
    let only_family = follows && until.processes.is_empty();
    Ok(only_family && !tracer.has_children().map_err(Stop::Failed)?)
}

/// Serves a request; true if it ends the run.
fn is_end<W: Write>(ask: Ask, session: &mut Session, stages: &mut Stages<W>) -> Result<bool, Stop> {
    match ask {
        Ask::End => Ok(true),
        // A requester may have gone.
        Ask::Record(file, progress, to) => {
            let _gone = to.send(recording::begin(file, progress, session, stages)?);
            Ok(false)
        }
        Ask::EndRecord(to) => {
            let _gone = to.send(recording::end(session, stages)?);
            Ok(false)
        }
        Ask::Paths(id, to) => {
            reading::begin(id, to, &mut session.tracer);
            Ok(false)
        }
        Ask::State(to) => {
            let read_at = boottime();
            let losses = losses_now(session, stages)?;
            let _gone = to.send(stages.state(&losses, read_at));
            Ok(false)
        }
    }
}

/// Earlier output is flushed to the old file; later output goes to the new one.
fn reopen<W: Write>(reopens: &mut Reopens, stages: &mut Stages<W>) -> Result<(), Stop> {
    stages.flush()?;
    (reopens.reopen)();
    Ok(())
}

/// Prints the current losses and counters to stderr, on SIGUSR1.
fn tell_state<W: Write>(session: &mut Session, stages: &mut Stages<W>) -> Result<(), Stop> {
    let losses = losses_now(session, stages)?;
    stages.sum_up();
    stages.flush()?;
    let reconciliation = stages.reconcile(&losses);
    stderr!(
        "{}",
        prefixed(&stages.account(&losses, &reconciliation, Detail::Full))
    );
    Ok(())
}

/// The losses so far, after taking the records of what they count.
fn losses_now<W: Write>(session: &mut Session, stages: &mut Stages<W>) -> Result<LossReport, Stop> {
    let read_at = boottime();
    let before = session.counters_now().map_err(Stop::Failed)?;
    let mut losses = session.losses().map_err(Stop::Failed)?;
    let Session {
        tracer, records, ..
    } = session;
    let mut noted = Noted::now(tracer, stages)?;
    records.drain(|bytes| {
        noted.again(tracer, stages)?;
        stages.take(bytes)
    })?;
    // Tracing goes on: some of the records are of events that the kernel counted after the reading.
    let after = match stages.has_counted_since(read_at) {
        true => session.read_again(),
        false => before.clone(),
    };
    losses.counted = session.counted_between(&before, &after);
    Ok(losses)
}

/// Waits for a request; forever if there can be none.
async fn asked(asks: Option<&mut mpsc::Receiver<Ask>>) -> Ask {
    if let Some(asks) = asks
        && let Some(ask) = asks.recv().await
    {
        return ask;
    }
    std::future::pending().await
}

/// Prefixes each line with the program's name, and escapes it: parts may come from a capture.
#[must_use]
pub fn prefixed(text: &str) -> String {
    text.lines()
        .map(|line| format!("mptcp-trace: {}\n", escape(line)))
        .collect()
}

/// One turn of records, then output of their lines, then a pause if the ring is empty.
///
/// The kernel wakes the loop only for a record that finds the ring empty. Without the pause, a busy
/// program would pay for a wake-up with each of its queries; with it, the first line of a burst is
/// printed at once and the others shortly after, together.
async fn turn<W: Write>(
    tracer: &Tracer,
    records: &mut RecordRing,
    stages: &mut Stages<W>,
) -> Result<(), Stop> {
    records.readable().await?;
    let mut noted = Noted::now(tracer, stages)?;
    let take = |bytes: &[u8]| {
        noted.again(tracer, stages)?;
        stages.take(bytes)
    };
    let drained = records.next_turn(take).await?;
    stages.flush()?;
    match drained {
        true => tokio::time::sleep(PAUSE).await,
        // A ring that is never empty never makes the loop wait, and only while it waits does the
        // runtime look for signals, timers and sockets.
        false => tokio::task::yield_now().await,
    }
    Ok(())
}

/// Interval of readings while records are taken. An event is settled [`ORDER_WINDOW`] after it
/// happened: the last reading is always later than the event.
const NOTE_MISSED_EVERY: Duration = Duration::from_millis(30);
const _: () = assert!(NOTE_MISSED_EVERY.as_millis() < ORDER_WINDOW.as_millis());

/// Time of the last reading of missed queries.
struct Noted {
    at: Instant,
}

impl Noted {
    /// Takes a reading now.
    fn now<W: Write>(tracer: &Tracer, stages: &mut Stages<W>) -> Result<Self, Stop> {
        let at = Instant::now();
        note_missed(tracer, stages)?;
        Ok(Self { at })
    }

    /// Takes another reading if the last one is too old for the next record.
    fn again<W: Write>(&mut self, tracer: &Tracer, stages: &mut Stages<W>) -> Result<(), Stop> {
        if self.at.elapsed() >= NOTE_MISSED_EVERY {
            *self = Self::now(tracer, stages)?;
        }
        Ok(())
    }
}

/// Reads how many queries the probes have missed, before a verdict concludes that there were none.
///
/// # Errors
///
/// [`Stop`] if the counters cannot be read, or the capture cannot be written.
pub fn note_missed<W: Write>(tracer: &Tracer, stages: &mut Stages<W>) -> Result<(), Stop> {
    let runs = tracer.missed_queries().map_err(Stop::Failed)?;
    stages.missed(boottime(), runs)
}

async fn log_turn(log: Option<&mut LogRing>) -> std::io::Result<()> {
    match log {
        Some(log) => log.next_turn().await,
        None => std::future::pending().await,
    }
}
