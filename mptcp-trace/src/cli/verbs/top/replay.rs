//! Plays a capture on a terminal, at any speed. Seeking backwards replays from the start, which
//! takes a second for a million records and no memory.

use std::{
    io::{self, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ratatui::crossterm::event::Event;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{REFRESH, board, clock, keys, screen::Screen, view};
use crate::{
    capture::{Frame, Reader},
    cli::{
        DONE, Exit, FAILED,
        args::TopArgs,
        input::{cut_off, with_capture},
    },
    host::sandbox,
    model::{Facts, SensorId},
    observe::State,
    pipeline::{Stages, Stop},
    top::{
        app::{Action, App, Edge, Faster},
        board::{Shared, Snapshot},
        draw::{Around, Playing},
    },
};

/// Limits of the speed, a factor.
const SPEEDS: (f64, f64) = (1.0 / 16.0, 4096.0);
/// Frames between two checks for keys.
const FRAMES_PER_TURN: u32 = 20_000;

/// First and last time of a capture, on its `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug)]
struct Extent {
    first: Duration,
    last: Duration,
    findings: u64,
    /// Number of records that could not be decoded.
    undecodable: u64,
    /// The capture is cut off.
    is_cut_off: bool,
}

/// Runs the verb; returns the exit code.
pub(super) fn run(args: &TopArgs, capture: &Path) -> Result<u8, Exit> {
    sandbox::enter(&[capture], &[]);
    // A file that is not a capture is reported before the terminal changes.
    let extent = with_capture(capture, |input| measure(args, capture, input))?;
    let name = capture.file_name().unwrap_or(capture.as_os_str());
    let is_stop_requested = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, is_stop_requested.clone())
            .context("cannot take signals")?;
    }
    let screen = Screen::open(args.panic)?;
    let (heard, keys) = mpsc::channel();
    keys::listen(move |event| {
        let is_last = event.is_none();
        heard.send(event).is_ok() && !is_last
    })?;
    let mut player = Player {
        is_stop_requested,
        keys,
        screen,
        app: App::new(true),
        name: crate::sink::escape(&name.to_string_lossy()),
        extent,
        at: extent.first,
        speed: args.speed,
        ticked: Instant::now(),
    };
    while let Next::Again = with_capture(capture, |input| player.play(args, capture, input))? {}
    drop(player);
    if extent.is_cut_off {
        let why = cut_off(capture, extent.findings);
        return Err(Exit::Because(FAILED, why));
    }
    if extent.undecodable > 0 {
        let why = format!("{} records cannot be decoded", extent.undecodable);
        return Err(Exit::Because(FAILED, why));
    }
    Ok(DONE)
}

/// A capture that is played through the stages to a board.
struct Scene<'a> {
    board: Shared,
    stages: Stages<io::Sink>,
    reader: Reader<BufReader<&'a mut dyn Read>>,
    facts: Facts,
    /// How it ended; none while it plays.
    end: Option<End>,
}

struct End {
    /// Losses; none if the capture is cut off.
    state: Option<State>,
}

impl<'a> Scene<'a> {
    fn open(args: &TopArgs, capture: &Path, input: &'a mut dyn Read) -> Result<Self, Exit> {
        let name = capture.display();
        let (reader, facts) = Reader::open(BufReader::new(input))
            .map_err(|why| Exit::Because(FAILED, format!("cannot replay {name}: {why}")))?;
        let board = board();
        let mut stages = Stages::silent(facts.clone(), view(args, &board, true)?);
        stages.begin().map_err(failed)?;
        Ok(Self {
            board,
            stages,
            reader,
            facts,
            end: None,
        })
    }

    /// Plays until a finding is later than `at`, or for a limited number of frames; true if `at` is
    /// reached.
    fn go_to(&mut self, at: Duration) -> Result<bool, Exit> {
        for _frame in 0..FRAMES_PER_TURN {
            if self.end.is_some() || self.board.latest() > at {
                return Ok(true);
            }
            match self.reader.next_frame().map_err(Exit::from)? {
                Frame::End(losses) => {
                    self.stages.finish(&losses).map_err(failed)?;
                    let state = Some(self.stages.state(&losses, Duration::ZERO));
                    self.end = Some(End { state });
                }
                Frame::CutOff => {
                    self.stages.cut_off().map_err(failed)?;
                    self.end = Some(End { state: None });
                }
                other @ (Frame::Record(_)
                | Frame::Place(..)
                | Frame::Pod(..)
                | Frame::Clock(_)
                | Frame::Missed(..)) => self.stages.replay(&other).map_err(failed)?,
            }
        }
        Ok(false)
    }
}

fn failed(stop: Stop) -> Exit {
    match stop {
        Stop::Failed(why) => why.into(),
        // Nothing is printed, and there is no `--stop-after`.
        Stop::Enough | Stop::ReaderGone => Exit::Code(FAILED),
    }
}

/// Plays the whole capture to find its length.
fn measure(args: &TopArgs, capture: &Path, input: &mut dyn Read) -> Result<Extent, Exit> {
    let mut scene = Scene::open(args, capture, input)?;
    let mut first = None;
    while scene.end.is_none() {
        // Releases findings one by one, until there is a first one.
        let at = match first {
            None => Duration::ZERO,
            Some(_) => Duration::MAX,
        };
        scene.go_to(at)?;
        let latest = scene.board.latest();
        if first.is_none() && !latest.is_zero() {
            first = Some(latest);
        }
    }
    let last = scene.board.latest();
    Ok(Extent {
        first: first.unwrap_or(last).min(last),
        last,
        findings: scene.stages.outcome().with_folded(),
        undecodable: scene.stages.outcome().undecodable,
        is_cut_off: scene.end.is_some_and(|end| end.state.is_none()),
    })
}

/// What to do next.
enum Next {
    /// Quit.
    Quit,
    /// Play from the start, at full speed, to the requested time.
    Again,
}

struct Player {
    /// Set by a signal; the terminal is then restored in order.
    is_stop_requested: Arc<AtomicBool>,
    /// Receives `None` once the terminal is closed.
    keys: mpsc::Receiver<Option<Event>>,
    screen: Screen,
    app: App,
    name: String,
    extent: Extent,
    /// The time shown.
    at: Duration,
    speed: f64,
    /// When the clock was read last.
    ticked: Instant,
}

impl Player {
    fn play(&mut self, args: &TopArgs, capture: &Path, input: &mut dyn Read) -> Result<Next, Exit> {
        let mut scene = Scene::open(args, capture, input)?;
        loop {
            let has_arrived = scene.go_to(self.at)?;
            self.draw(&scene)?;
            let wait = match has_arrived {
                true => REFRESH,
                false => Duration::ZERO,
            };
            if let Some(next) = self.keys(wait, &scene)? {
                return Ok(next);
            }
            if self.is_stop_requested.load(Ordering::Relaxed) {
                return Ok(Next::Quit);
            }
            self.tick(has_arrived);
        }
    }

    /// Advances time, but not while records up to the shown time are still being read.
    fn tick(&mut self, has_arrived: bool) {
        let passed = self.ticked.elapsed();
        self.ticked = Instant::now();
        if has_arrived && !self.app.is_paused() {
            let passed = passed.as_secs_f64() * self.speed;
            let passed = Duration::try_from_secs_f64(passed).unwrap_or_default();
            self.at = self.at.saturating_add(passed).min(self.extent.last);
        }
    }

    fn draw(&mut self, scene: &Scene<'_>) -> Result<(), Exit> {
        let snapshot = self.snapshot(scene);
        let has_ended = scene.end.is_some() && self.at >= self.extent.last;
        let is_cut_off = has_ended && self.extent.is_cut_off;
        let around = Around {
            source: format!("{}  {}", self.name, scene.facts.kernel),
            clock: clock(std::time::UNIX_EPOCH + scene.facts.boot_epoch + self.at),
            state: scene.end.as_ref().and_then(|end| end.state.clone()),
            off: SensorId::ALL
                .into_iter()
                .filter(|sensor| !scene.facts.has_sensor(*sensor))
                .collect(),
            playing: Some(Playing {
                at: self.at.saturating_sub(self.extent.first),
                length: self.extent.last.saturating_sub(self.extent.first),
                speed: self.speed,
                has_ended,
            }),
            message: is_cut_off.then(|| "The capture is cut off here".to_owned()),
            ..Around::default()
        };
        self.screen.draw(&mut self.app, &snapshot, around)?;
        Ok(())
    }

    fn snapshot(&self, scene: &Scene<'_>) -> Snapshot {
        scene.board.snapshot(self.at.max(scene.board.latest()))
    }

    /// Waits for keys, and handles all pending ones.
    fn keys(&mut self, wait: Duration, scene: &Scene<'_>) -> Result<Option<Next>, Exit> {
        let mut wait = wait;
        loop {
            let event = match self.keys.recv_timeout(wait) {
                Ok(Some(event)) => event,
                Ok(None) | Err(RecvTimeoutError::Disconnected) => return Ok(Some(Next::Quit)),
                Err(RecvTimeoutError::Timeout) => break,
            };
            wait = Duration::ZERO;
            let snapshot = self.snapshot(scene);
            let action = match event {
                Event::Key(key) => self.app.key(key, &snapshot),
                Event::Mouse(mouse) => self.app.mouse(mouse, &snapshot),
                Event::FocusGained | Event::FocusLost | Event::Paste(_) | Event::Resize(..) => {
                    continue;
                }
            };
            let Extent { first, last, .. } = self.extent;
            let before = self.at;
            match action {
                // A replay asks for no file.
                Action::Nothing | Action::Capture | Action::Begin => {}
                Action::Mouse(is_on) => self.screen.use_mouse(is_on)?,
                Action::Quit => return Ok(Some(Next::Quit)),
                Action::Suspend => {
                    self.screen.suspend()?;
                    self.ticked = Instant::now();
                }
                Action::Seek(seconds) => {
                    let by = Duration::from_secs(seconds.unsigned_abs());
                    let to = match seconds < 0 {
                        true => self.at.saturating_sub(by),
                        false => self.at.saturating_add(by),
                    };
                    self.at = to.clamp(first, last);
                }
                Action::SeekTo(Edge::Begin) => self.at = first,
                Action::SeekTo(Edge::End) => self.at = last,
                Action::Speed(faster) => {
                    let speed = match faster {
                        Faster::Twice => self.speed * 2.0,
                        Faster::Half => self.speed / 2.0,
                    };
                    self.speed = speed.clamp(SPEEDS.0, SPEEDS.1);
                }
            }
            if self.at < before {
                return Ok(Some(Next::Again));
            }
        }
        Ok(None)
    }
}
