//! Shows the running kernel on a terminal.

use std::{
    future::pending,
    io,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use ratatui::crossterm::event::Event;
use tokio::sync::{mpsc, oneshot};

use super::{
    REFRESH, board, clock, keys,
    record::{self, Recorder},
    screen::Screen,
    view,
};
use crate::{
    cli::{
        Exit, FAILED,
        args::TopArgs,
        ending::conclude,
        options::{Names, Scope},
        select, tracing,
    },
    history::HistoryLimits,
    host::{netstat::boottime, privileges::RuntimeNeeds},
    model::{ConnectionId, SensorId},
    observe::State,
    pipeline::{Ask, Session, Stages, Stop, Until, prefixed, run as run_pipeline},
    sink::{Format, Source},
    top::{
        app::{Action, App},
        board::{Shared, Snapshot},
        draw::Around,
    },
};

/// How often losses are read, which scans all sockets.
const STATE_EVERY: Duration = Duration::from_secs(2);
/// How often the paths of the open connection are read. A reading walks over all files of all tasks,
/// so it takes at most a hundredth of the time.
const PATHS_EVERY_MIN: Duration = Duration::from_secs(1);
const PATHS_SHARE: u32 = 100;
/// Most pending keys.
const KEYS_MAX: usize = 64;

/// Runs the verb; returns the exit code.
pub(super) fn run(args: &TopArgs, verbose: u8) -> Result<u8, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let done = runtime.block_on(trace(args, verbose));
    // The thread that reads keys may still block on the terminal.
    runtime.shutdown_background();
    done
}

async fn trace(args: &TopArgs, verbose: u8) -> Result<u8, Exit> {
    let started = tracing::start(&args.attach.options(), &scope(args)?, verbose).await?;
    started.say(false);
    let (mut session, signals) = (started.session, started.signals);
    let board = board();
    let mut stages = Stages::new(
        session.facts.clone(),
        Format::Nothing,
        Source::Live,
        io::sink(),
        None,
        view(args, &board, false)?,
        None,
    );
    stages.look_up(&args.attach.pod_logs);
    let (asks, asked) = mpsc::channel(1);
    let until = Until {
        asks: Some(asked),
        signals: Some(signals),
        ..Until::default()
    };
    let can_read = can_read_paths(&mut session);
    // `w` writes a capture later.
    stages.keep_history(HistoryLimits::STATED);
    session.drop_privileges(RuntimeNeeds {
        creates_files: true,
        ..RuntimeNeeds::default()
    })?;
    let screen = Screen::open(args.panic)?;
    let mut watcher = Watcher {
        screen,
        app: App::new(false),
        board,
        asks,
        source: format!("{}  {}", session.facts.kernel, session.tracer.rung()),
        off: off(&session),
        recorder: Recorder::default(),
        snapshot: Snapshot::default(),
        state: None,
        answer: None,
        next_ask: Instant::now(),
        readings: Readings {
            can_read,
            ..Readings::default()
        },
    };
    let (heard, keys) = mpsc::channel(KEYS_MAX);
    keys::listen(move |event| {
        let is_last = event.is_none();
        heard.blocking_send(event).is_ok() && !is_last
    })?;
    let ended = tokio::select! {
        ended = run_pipeline(&mut session, &mut stages, until, None) => ended,
        failed = watcher.watch(keys) => Err(Stop::Failed(failed)),
    };
    // The account is printed once the terminal is restored.
    let Watcher {
        screen, recorder, ..
    } = watcher;
    drop(screen);
    let done = conclude(ended, None, &mut session, &mut stages)?;
    let (captures, last) = recorder.finish();
    for capture in captures {
        stderr!("{}", prefixed(&capture));
    }
    match last {
        Ok(()) => Ok(done),
        Err(why) => Err(Exit::Because(FAILED, why)),
    }
}

/// The tasks to trace. A missing process is reported; one that ends later does not end `top`.
fn scope(args: &TopArgs) -> anyhow::Result<Scope> {
    for pid in &args.whose.pid {
        select::watch(*pid)?;
    }
    Ok(Scope::Named(Names {
        pids: args.whose.pid.clone(),
        comms: args.whose.comm.clone(),
        netns: args.whose.netns.clone(),
        follow: args.follow,
        awaits_process: false,
    }))
}

/// Sensors that are off.
fn off(session: &Session) -> Vec<SensorId> {
    let all = SensorId::ALL.into_iter();
    all.filter(|sensor| !session.facts.has_sensor(*sensor))
        .collect()
}

/// True if paths can be read on request. Requires the privileges of the start.
fn can_read_paths(session: &mut Session) -> bool {
    if !session.facts.has_sensor(SensorId::Subflow) {
        return false;
    }
    let prepared = session.tracer.prepare_readings();
    if let Err(why) = &prepared {
        log::info!("paths are shown as of their last event: {why:#}");
    }
    prepared.is_ok()
}

struct Watcher {
    screen: Screen,
    app: App,
    board: Shared,
    asks: mpsc::Sender<Ask>,
    source: String,
    /// Sensors that are off.
    off: Vec<SensorId>,
    recorder: Recorder,
    /// The state shown.
    snapshot: Snapshot,
    state: Option<State>,
    /// The pending request to the loop.
    answer: Option<oneshot::Receiver<State>>,
    next_ask: Instant,
    readings: Readings,
}

/// Readings of the paths of the connection that is open.
#[derive(Default)]
struct Readings {
    /// This kernel supports them.
    can_read: bool,
    /// The pending reading, and when it was requested.
    pending: Option<(oneshot::Receiver<anyhow::Result<Duration>>, Instant)>,
    /// Not before this time; `None` if there was no reading.
    next: Option<Instant>,
}

impl Readings {
    /// Takes the end of the last reading; an error if there can be no other one.
    fn settle(&mut self) -> anyhow::Result<()> {
        let Some((pending, asked)) = &mut self.pending else {
            return Ok(());
        };
        let done = match pending.try_recv() {
            Ok(done) => done,
            Err(oneshot::error::TryRecvError::Empty) => return Ok(()),
            Err(oneshot::error::TryRecvError::Closed) => Ok(Duration::ZERO),
        };
        let asked = *asked;
        self.pending = None;
        match done {
            Ok(took) => {
                self.next = Some(asked + PATHS_EVERY_MIN.max(took * PATHS_SHARE));
                Ok(())
            }
            Err(why) => {
                self.can_read = false;
                Err(why)
            }
        }
    }

    /// True if paths are to be read now, if a connection is open.
    fn is_due(&self, now: Instant) -> bool {
        self.can_read && self.pending.is_none() && self.next.is_none_or(|next| next <= now)
    }
}

impl Watcher {
    /// Draws until the loop has ended; returns earlier only on failure.
    async fn watch(&mut self, mut keys: mpsc::Receiver<Option<Event>>) -> anyhow::Error {
        match self.turns(&mut keys).await {
            Err(why) => why,
            // The loop was notified and ends in order.
            Ok(()) => pending().await,
        }
    }

    async fn turns(&mut self, keys: &mut mpsc::Receiver<Option<Event>>) -> anyhow::Result<()> {
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let event = tokio::select! {
                event = keys.recv() => event,
                _tick = refresh.tick() => None,
            };
            let mut next = event;
            while let Some(event) = next {
                let event = event.context("the terminal was closed")?;
                if self.take(&event).await? {
                    return Ok(());
                }
                // Of many pending keys only the last one needs a new frame.
                next = keys.try_recv().ok();
            }
            self.ask_for_state();
            self.ask_for_paths();
            if !self.app.is_paused() {
                self.snapshot = self.board.snapshot(boottime());
            }
            if self.recorder.has_failed() {
                self.end_capture().await;
            }
            let around = Around {
                source: self.source.clone(),
                clock: clock(SystemTime::now()),
                state: self.state.clone(),
                off: self.off.clone(),
                recording: self.recorder.shown(),
                ..Around::default()
            };
            self.screen.draw(&mut self.app, &self.snapshot, around)?;
        }
    }

    /// Handles a key; true if it quits.
    async fn take(&mut self, event: &Event) -> anyhow::Result<bool> {
        let action = match event {
            Event::Key(key) => self.app.key(*key, &self.snapshot),
            Event::Mouse(mouse) => self.app.mouse(*mouse, &self.snapshot),
            Event::FocusGained | Event::FocusLost | Event::Paste(_) | Event::Resize(..) => {
                return Ok(false);
            }
        };
        match action {
            Action::Quit => {
                self.asks.send(Ask::End).await.ok();
                return Ok(true);
            }
            Action::Suspend => self.screen.suspend()?,
            Action::Mouse(is_on) => self.screen.use_mouse(is_on)?,
            Action::Capture if self.recorder.is_on() => self.end_capture().await,
            Action::Capture => self.app.ask_file(record::name(SystemTime::now())),
            Action::Begin => {
                let name = self.app.file().to_owned();
                let message = self.recorder.start(&name, &self.asks).await;
                self.app.notify(message);
            }
            Action::Nothing | Action::Seek(_) | Action::SeekTo(_) | Action::Speed(_) => {}
        }
        Ok(false)
    }

    async fn end_capture(&mut self) {
        if let Some(message) = self.recorder.stop(&self.asks).await {
            self.app.notify(message);
        }
    }

    /// Requests a reading of the paths of the open connection periodically.
    fn ask_for_paths(&mut self) {
        if let Err(why) = self.readings.settle() {
            self.app
                .notify(format!("paths are shown as of their last event: {why:#}"));
        }
        let now = Instant::now();
        let open = self.app.open_connection().filter(|_| !self.app.is_paused());
        let is_open = |id: &ConnectionId| {
            let mut rows = self.snapshot.rows.iter();
            rows.any(|row| row.id == *id && !row.is_closed)
        };
        let Some(id) = open.filter(is_open).filter(|_| self.readings.is_due(now)) else {
            return;
        };
        let (to, answer) = oneshot::channel();
        if self.asks.try_send(Ask::Paths(id, to)).is_ok() {
            self.readings.pending = Some((answer, now));
        }
    }

    /// Requests the state from the loop periodically and stores its answer.
    fn ask_for_state(&mut self) {
        if let Some(answer) = &mut self.answer {
            match answer.try_recv() {
                Ok(state) => {
                    self.state = Some(state);
                    self.answer = None;
                }
                Err(oneshot::error::TryRecvError::Empty) => return,
                Err(oneshot::error::TryRecvError::Closed) => self.answer = None,
            }
        }
        if self.app.is_paused() || Instant::now() < self.next_ask {
            return;
        }
        self.next_ask = Instant::now() + STATE_EVERY;
        let (to, answer) = oneshot::channel();
        if self.asks.try_send(Ask::State(to)).is_ok() {
            self.answer = Some(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings after one that took this long, or failed.
    fn after(took: anyhow::Result<Duration>, asked: Instant) -> (Readings, bool) {
        let (to, answer) = oneshot::channel();
        let mut readings = Readings {
            can_read: true,
            pending: Some((answer, asked)),
            next: None,
        };
        assert!(readings.settle().is_ok());
        assert!(!readings.is_due(asked + Duration::from_secs(60)));
        to.send(took).unwrap();
        let is_settled = readings.settle().is_ok();
        (readings, is_settled)
    }

    #[test]
    fn paths_are_read_at_most_once_a_second_and_for_a_hundredth_of_the_time() {
        let asked = Instant::now();
        for (took_ms, next_ms) in [(0, 1_000), (10, 1_000), (30, 3_000)] {
            let (readings, is_settled) = after(Ok(Duration::from_millis(took_ms)), asked);
            assert!(is_settled);
            let at = |ms| readings.is_due(asked + Duration::from_millis(ms));
            assert!(!at(next_ms - 1) && at(next_ms), "{took_ms}");
        }
    }

    #[test]
    fn after_a_failure_paths_are_not_read_again() {
        let asked = Instant::now();
        let (readings, is_settled) = after(Err(anyhow::anyhow!("no")), asked);
        assert!(!is_settled);
        assert!(!readings.is_due(asked + Duration::from_secs(60)));
    }
}
