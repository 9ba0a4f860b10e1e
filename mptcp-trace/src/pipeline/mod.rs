//! The one loop: records in, lines out, until something says stop.

mod account;
mod command;
mod inventory;
mod ladder;
mod play;
mod proof;
mod session;
mod stages;
mod stop;
mod view;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{Interval, MissedTickBehavior},
};

pub use self::{
    command::{CannotRun, Command, Held},
    inventory::Inventory,
    ladder::{StartError, start},
    play::{Played, play},
    proof::blind,
    session::{CanaryReport, Session},
    stages::Stages,
    stop::Stop,
    view::{Outcome, View},
};
use crate::{
    correlate::ORDER_WINDOW,
    host::{
        netstat::boottime,
        privileges::RuntimeNeeds,
        system::{hangup_is_ignored, return_free_memory},
    },
    kernel::{LogRing, RecordRing, Tracer},
    model::LossReport,
    observe::State,
    sink::escape,
};

/// How long the ring may fill before we look again. At a million records a second it holds 25 ms of them.
const PAUSE: Duration = Duration::from_millis(5);

/// How often it is looked whether followed processes are still there, once the named ones are gone.
const FAMILY_POLL: Duration = Duration::from_millis(100);

/// How often it is looked whether something has waited long enough, while something waits.
const CLOCK: Duration = Duration::from_millis(50);

/// How often, at most, memory that a burst took is handed back when nothing waits any more.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether the reader of stdout is still there.
const READER_CLOCK: Duration = Duration::from_millis(500);

/// How often it is looked whether it is time for a sweep.
const SWEEP_CLOCK: Duration = Duration::from_millis(200);

/// How often, at most, all open sockets are looked at where fallbacks may go unseen. Looking takes a hundredth of
/// the time at most.
const SWEEP_EVERY_MIN: Duration = Duration::from_secs(1);
const SWEEP_SHARE: u32 = 100;

/// When a live run ends by itself.
#[derive(Debug, Default)]
pub struct Until {
    /// After this time.
    pub duration: Option<Duration>,
    /// When all of these processes have ended.
    pub processes: Vec<Watched>,
    /// Their children count too.
    pub follow: bool,
    /// What somebody beside the loop wants of it.
    pub asks: Option<mpsc::Receiver<Ask>>,
    /// A hangup is no end: somebody else takes it.
    pub survives_hangup: bool,
    /// How the output is opened anew, where that can be asked for.
    pub reopens: Option<Reopens>,
    /// What else ends it. Whoever says that tracing is live takes them before that: who hears of it may end us at once.
    pub signals: Option<Signals>,
    /// Findings go to stdout: it ends when nobody can read them any more, also if there are none.
    pub watches_stdout: bool,
}

/// The output is opened anew when somebody asks, so that its file can be moved away (`logrotate`).
pub struct Reopens {
    asked: Signal,
    /// A hangup asks for it too: there is no terminal that could have hung up.
    by_hangup: bool,
    reopen: Box<dyn FnMut()>,
}

impl Reopens {
    /// From now on SIGUSR2 asks for it, and SIGHUP where this process has no terminal.
    ///
    /// # Errors
    ///
    /// Fails if the signal cannot be taken.
    pub fn take(reopen: Box<dyn FnMut()>) -> std::io::Result<Self> {
        Ok(Self {
            asked: signal(SignalKind::user_defined2())?,
            by_hangup: std::fs::File::open("/dev/tty").is_err(),
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

/// What is wanted of a live run.
#[derive(Debug)]
pub enum Ask {
    /// To know what is so now.
    State(oneshot::Sender<State>),
    /// That it ends, in order.
    End,
}

/// The signals that a live run understands.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// None where it is ignored: taking it would undo what nohup did.
    hangup: Option<Signal>,
    ask: Signal,
}

impl Signals {
    /// From now on they do not kill us.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be taken.
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

/// A process whose end is waited for.
#[derive(Debug)]
pub struct Watched {
    /// Its id.
    pub pid: u32,
    /// Readable when it has ended.
    pub pidfd: tokio::io::unix::AsyncFd<rustix::fd::OwnedFd>,
}

/// Runs until something says stop; returns the command's exit code if there was a command.
///
/// # Errors
///
/// Fails when the tracer cannot go on.
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
            _tick = clocks.family.tick(), if follows && until.processes.is_empty() => {
                if !tracer.has_children().map_err(Stop::Failed)? {
                    return Ok(None);
                }
            }
            code = command_end(command.as_mut()) => return code.map(Some).map_err(Stop::Failed),
            _tick = clocks.order.tick(), if stages.waits() => clocks.settle(tracer, stages)?,
            _tick = clocks.sweep.tick(), if clocks.sweeps => clocks.sweep(tracer)?,
            _tick = clocks.reader.tick(), if until.watches_stdout => if reader_has_gone() {
                return Err(Stop::ReaderGone);
            },
            _ = signals.ask.recv() => tell_state(session, stages)?,
            ask = asked(until.asks.as_mut()) => if is_end(ask, session, stages)? {
                return Ok(None);
            },
            _ = signals.interrupt.recv() => {
                // The terminal has told the command too: its end is the end. Asked twice, we go.
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

/// Gives up privileges, takes signals, and tells what came out of the ring while tracing began.
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
    // What starting took is not needed again.
    return_free_memory();
    Ok(signals)
}

/// What is looked at again and again.
struct Clocks {
    /// Are followed processes still there?
    family: Interval,
    /// Has something waited long enough?
    order: Interval,
    /// Is it time for a sweep?
    sweep: Interval,
    /// Is the reader of stdout still there?
    reader: Interval,
    /// Fallbacks may happen where no probe sees them.
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
            sweeps: session.has_fallbacks() && session.tracer.may_miss(),
            next_sweep: Instant::now() + SWEEP_EVERY_MIN,
            next_tidy: Instant::now(),
        }
    }

    /// Tells what has waited long enough.
    fn settle<W: Write>(&mut self, tracer: &Tracer, stages: &mut Stages<W>) -> Result<(), Stop> {
        // What is settled now has happened before the reading.
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

    /// Looks for fallbacks that no probe saw, if it is time.
    fn sweep(&mut self, tracer: &mut Tracer) -> Result<(), Stop> {
        let began = Instant::now();
        if began >= self.next_sweep {
            tracer.sweep().map_err(Stop::Failed)?;
            self.next_sweep = Instant::now() + SWEEP_EVERY_MIN.max(began.elapsed() * SWEEP_SHARE);
        }
        Ok(())
    }
}

/// A process has ended; true if nobody is left who is waited for.
fn is_last(ended: usize, tracer: &mut Tracer, until: &mut Until) -> Result<bool, Stop> {
    let gone = until.processes.swap_remove(ended);
    // Its number may be given to a stranger.
    tracer.remove_pid(gone.pid).map_err(Stop::Failed)?;
    Ok(until.processes.is_empty() && !until.follow)
}

/// Does what somebody asks for; true if that is the end.
fn is_end<W: Write>(ask: Ask, session: &mut Session, stages: &mut Stages<W>) -> Result<bool, Stop> {
    match ask {
        Ask::End => Ok(true),
        Ask::State(to) => {
            let read_at = boottime();
            let losses = losses_now(session, stages)?;
            // Whoever asked may have gone.
            let _gone = to.send(stages.state(&losses, read_at));
            Ok(false)
        }
    }
}

/// What was said so far goes to where the output was, what comes to where it is named now.
fn reopen<W: Write>(reopens: &mut Reopens, stages: &mut Stages<W>) -> Result<(), Stop> {
    stages.flush()?;
    (reopens.reopen)();
    Ok(())
}

/// What was seen, lost and counted so far, on stderr: somebody has asked (SIGUSR1).
fn tell_state<W: Write>(session: &mut Session, stages: &mut Stages<W>) -> Result<(), Stop> {
    let losses = losses_now(session, stages)?;
    stages.sum_up();
    stages.flush()?;
    let reconciliation = stages.reconcile(&losses);
    eprint!("{}", prefixed(&stages.account(&losses, &reconciliation)));
    Ok(())
}

/// What was lost so far; what was not has been taken.
fn losses_now<W: Write>(session: &mut Session, stages: &mut Stages<W>) -> Result<LossReport, Stop> {
    let losses = session.losses_now().map_err(Stop::Failed)?;
    let Session {
        tracer, records, ..
    } = session;
    let mut noted = Noted::now(tracer, stages)?;
    records.drain(|bytes| {
        noted.again(tracer, stages)?;
        stages.take(bytes)
    })?;
    Ok(losses)
}

/// Waits for somebody to ask, or for ever where nobody will.
async fn asked(asks: Option<&mut mpsc::Receiver<Ask>>) -> Ask {
    if let Some(asks) = asks
        && let Some(ask) = asks.recv().await
    {
        return ask;
    }
    std::future::pending().await
}

/// Each line with our name before it, made fit for a terminal: parts of it may come from a capture.
#[must_use]
pub fn prefixed(text: &str) -> String {
    text.lines()
        .map(|line| format!("mptcp-trace: {}\n", escape(line)))
        .collect()
}

/// One turn of records, then the lines they made, then a pause if there were no more.
///
/// The kernel wakes us for a record that finds the ring empty, and only for that one. Without the pause a
/// busy program would pay for a wake-up with each of its questions; with it, the first line of a burst is
/// printed at once and the others a moment later, together.
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
    if drained {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// How often it is asked while records are taken. What an event settles is older than it by [`ORDER_WINDOW`]: so the last reading is
/// always later than that.
const NOTE_MISSED_EVERY: Duration = Duration::from_millis(30);
const _: () = assert!(NOTE_MISSED_EVERY.as_millis() < ORDER_WINDOW.as_millis());

/// When it was last asked how many questions the kernel has kept from the probes.
struct Noted {
    at: Instant,
}

impl Noted {
    /// It is asked now.
    fn now<W: Write>(tracer: &Tracer, stages: &mut Stages<W>) -> Result<Self, Stop> {
        let at = Instant::now();
        note_missed(tracer, stages)?;
        Ok(Self { at })
    }

    /// It is asked again if that was too long ago for the next record.
    fn again<W: Write>(&mut self, tracer: &Tracer, stages: &mut Stages<W>) -> Result<(), Stop> {
        if self.at.elapsed() >= NOTE_MISSED_EVERY {
            *self = Self::now(tracer, stages)?;
        }
        Ok(())
    }
}

/// Asks how many questions the kernel has kept from the probes, before it is concluded that nobody asked.
///
/// # Errors
///
/// [`Stop`] if the counters cannot be read, or the capture not be written.
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

/// True if stdout is a pipe or a socket that nobody reads any more.
fn reader_has_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = rustix::stdio::stdout();
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Errors are reported whether or not they are asked for.
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
}

/// Waits for a signal, or for ever where it is not ours to take.
async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Index of a process that has ended.
async fn ended(processes: &[Watched]) -> std::io::Result<usize> {
    use std::{future::poll_fn, task::Poll};
    poll_fn(|context| {
        for (index, process) in processes.iter().enumerate() {
            if let Poll::Ready(ready) = process.pidfd.poll_read_ready(context) {
                return Poll::Ready(ready.map(|_guard| index));
            }
        }
        Poll::Pending
    })
    .await
}

async fn command_end(command: Option<&mut Command>) -> anyhow::Result<i32> {
    match command {
        Some(command) => command.wait().await,
        None => std::future::pending().await,
    }
}
