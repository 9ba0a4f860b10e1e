//! How long the phases of a suite take, a line of the report each.

use std::time::Instant;

use crate::report::{MatrixLine, Phase, PhaseTime, write_line};

/// Measures one phase after the other.
pub(crate) struct Stopwatch {
    rung: String,
    since: Instant,
}

impl Stopwatch {
    /// Begins with the first phase on this rung.
    pub(crate) fn start(rung: &str) -> Self {
        Self {
            rung: rung.to_owned(),
            since: Instant::now(),
        }
    }

    /// Reports how long the phase took that ends now; the next one begins.
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
