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
    host::{netstat::boottime, privileges::RuntimeNeeds},
    model::SensorId,
    observe::State,
    pipeline::{Ask, HistoryLimits, Stages, Stop, Until, prefixed, run as run_pipeline},
    sink::{Format, Source},
    top::{
        app::{Action, App},
        board::{Shared, Snapshot},
        draw::Around,
    },
};

/// How often losses are read, which scans all sockets.
const STATE_EVERY: Duration = Duration::from_secs(2);
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
    // A missing process is reported; one that ends later does not end `top`.
    for pid in &args.whose.pid {
        select::watch(*pid)?;
    }
    let whose = Scope::Named(Names {
        pids: args.whose.pid.clone(),
        comms: args.whose.comm.clone(),
        netns: args.whose.netns.clone(),
        follow: args.follow,
        awaits_process: false,
    });
    let started = tracing::start(&args.attach.options(), &whose, verbose).await?;
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
    let (asks, asked) = mpsc::channel(1);
    let until = Until {
        asks: Some(asked),
        signals: Some(signals),
        ..Until::default()
    };
    // `w` writes a capture later.
    stages.keep_history(HistoryLimits::STATED);
    session.drop_privileges(RuntimeNeeds {
        creates_files: true,
        ..RuntimeNeeds::default()
    })?;
    let source = format!("{}  {}", session.facts.kernel, session.tracer.rung());
    let off = SensorId::ALL.into_iter();
    let off = off.filter(|sensor| !session.facts.has_sensor(*sensor));
    let screen = Screen::open(args.panic)?;
    let mut watcher = Watcher {
        screen,
        app: App::new(false),
        board,
        asks,
        source,
        off: off.collect(),
        recorder: Recorder::default(),
        snapshot: Snapshot::default(),
        state: None,
        answer: None,
        next_ask: Instant::now(),
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
