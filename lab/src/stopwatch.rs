//! Measures the phases of a suite; one line of the report each.

use std::time::Instant;

use crate::report::{MatrixLine, Phase, PhaseTime, write_line};

/// Measures consecutive phases.
pub(crate) struct Stopwatch {
    rung: String,
    since: Instant,
}

impl Stopwatch {
    /// Starts the first phase with this attach method.
    pub(crate) fn start(rung: &str) -> Self {
        Self {
            rung: rung.to_owned(),
            since: Instant::now(),
        }
    }

    /// Reports the duration of the current phase and starts the next one.
    pub(crate) fn lap(&mut self, phase: Phase) -> anyhow::Result<()> {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        let time = PhaseTime {
            rung: self.rung.clone(),
            phase,
            seconds,
        };
        write_line(&mut std::io::stdout(), &MatrixLine::Phase(time))
    }
}
