//! Shows the running kernel on a terminal.

use std::{
    future::pending,
    io,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use ratatui::crossterm::event::Event;
use tokio::sync::{mpsc, oneshot};

use super::{REFRESH, board, clock, keys, screen::Screen, view};
use crate::{
    cli::{
        Exit,
        args::TopArgs,
        ending::conclude,
        options::{Names, Scope},
        select, tracing,
    },
    host::{netstat::boottime, privileges::RuntimeNeeds},
    observe::State,
    pipeline::{Ask, Stages, Stop, Until, run as run_pipeline},
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
    session.drop_privileges(RuntimeNeeds::default())?;
    let mut source = format!("{}  {}", session.facts.kernel, session.tracer.rung());
    if !session.has_fallbacks() {
        source.push_str("  FALLBACKS NOT TRACED");
    }
    let screen = Screen::open(args.panic)?;
    let mut watcher = Watcher {
        screen,
        app: App::new(false),
        board,
        asks,
        source,
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
    drop(watcher);
    conclude(ended, None, &mut session, &mut stages)
}

struct Watcher {
    screen: Screen,
    app: App,
    board: Shared,
    asks: mpsc::Sender<Ask>,
    source: String,
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
            let around = Around {
                source: self.source.clone(),
                clock: clock(SystemTime::now()),
                state: self.state.clone(),
                ..Around::default()
            };
            self.screen.draw(&mut self.app, &self.snapshot, around)?;
        }
    }

    /// Handles a key; true if it quits.
    async fn take(&mut self, event: &Event) -> anyhow::Result<bool> {
        let Event::Key(key) = event else {
            return Ok(false);
        };
        match self.app.key(*key, &self.snapshot) {
            Action::Quit => {
                self.asks.send(Ask::End).await.ok();
                return Ok(true);
            }
            Action::Suspend => self.screen.suspend()?,
            Action::Nothing | Action::Seek(_) | Action::SeekTo(_) | Action::Speed(_) => {}
        }
        Ok(false)
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
