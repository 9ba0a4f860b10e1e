//! A suite: something is played while the tracer is live, and its lines are judged.

use std::time::Duration;

use super::{Run, Started, TracerArgs, capture::Capture};
use crate::{
    cells::{mismatch, skipped, unavailable},
    net::{self, Family, Kind},
    report::{Cell, Phase},
    stopwatch::Stopwatch,
    traced::TracedLine,
};
use rustix::process::Signal;

/// Longer than a tracer may hold a line back.
const KEPT_BACK: Duration = Duration::from_millis(1_500);

/// The lines of a tracer that has ended.
pub(crate) struct Said {
    pub(crate) lines: Vec<TracedLine>,
    /// The same lines as printed.
    pub(crate) text: String,
}

/// One start of the tracer with an attach method.
pub(crate) struct Suite<'a> {
    tried: &'a TracerArgs,
    rung: &'a str,
    capture: Option<Capture>,
    kept_as: Option<&'static str>,
    shows_all: bool,
}

/// The reason why no connection can fall back here, if so.
pub(crate) fn no_mptcp() -> Option<String> {
    net::open(Kind::Mptcp, Family::V4)
        .err()
        // net.mptcp.enabled is 0 here, but the suites switch MPTCP on in namespaces of their own.
        .filter(|why| why.raw_os_error() != Some(libc::ENOPROTOOPT))
        .map(|why| format!("no MPTCP socket: {why}"))
}

impl<'a> Suite<'a> {
    pub(crate) fn new(tried: &'a TracerArgs, rung: &'a str) -> Self {
        Self {
            tried,
            rung,
            capture: None,
            kept_as: None,
            shows_all: false,
        }
    }

    /// Makes the tracer print findings of every kind.
    pub(crate) fn showing_all(self) -> Self {
        Self {
            shows_all: true,
            ..self
        }
    }

    /// Makes the tracer write a capture, whose replay must print the same lines; with a name, the
    /// capture becomes part of the report.
    pub(crate) fn replayed(self, kept_as: Option<&'static str>) -> Self {
        Self {
            capture: Some(Capture::new()),
            kept_as,
            ..self
        }
    }

    /// Performs something under the tracer, and passes the result and the lines to `judge`.
    /// `perform` may report phases of its own.
    pub(crate) fn run<T>(
        self,
        perform: impl FnOnce(&mut Stopwatch) -> anyhow::Result<T>,
        judge: impl FnOnce(T, &Said) -> Vec<Cell>,
    ) -> anyhow::Result<Vec<Cell>> {
        let rung = self.rung;
        if let Some(why) = no_mptcp() {
            return Ok(vec![skipped("rung", rung, why)]);
        }
        let mut watch = Stopwatch::start(rung);
        let run = Run::live(&self.tried.tracer, rung).keeping();
        let run = match self.shows_all {
            true => run.showing_all()?,
            false => run,
        };
        let run = run.args(&self.tried.tracer_arg);
        let capture = self.capture.iter().flat_map(Capture::arguments);
        let tracer = match run.args(capture).start()? {
            Started::Live(tracer) => tracer,
            Started::Unavailable(why) => return Ok(vec![unavailable("rung", rung, why)]),
            Started::Broken(why) => {
                return Ok(vec![mismatch("run", rung, "it is live", "otherwise", why)]);
            }
        };
        watch.lap(Phase::Start)?;
        let performed = perform(&mut watch)?;
        watch.lap(Phase::Play)?;
        std::thread::sleep(KEPT_BACK);
        let ended = tracer.stop(Signal::INT)?;
        let said = Said {
            lines: ended.lines()?,
            text: ended.text.clone(),
        };
        watch.lap(Phase::End)?;
        let mut cells = judge(performed, &said);
        cells.extend(self.replay(&said));
        watch.lap(Phase::Judge)?;
        if let Some(why) = ended.broken() {
            cells.push(mismatch("run", rung, "exit 0", "otherwise", why));
        }
        Ok(cells)
    }

    fn replay(&self, said: &Said) -> Vec<Cell> {
        let Some(capture) = &self.capture else {
            return Vec::new();
        };
        let mut cells = vec![capture.replayed(&self.tried.tracer, self.rung, &said.text)];
        if let Some(name) = self.kept_as
            && let Err(why) = capture.keep(name, self.rung, &said.text)
        {
            let why = format!("{why:#}");
            cells.push(mismatch("keep", self.rung, "kept", "not", why));
        }
        cells
    }
}
